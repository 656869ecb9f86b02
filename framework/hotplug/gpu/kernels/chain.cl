// Elementwise nodes at once: STEPS, which is made from the graph, computes RESULT from
// loaded elements v0, v1, ... and from parameters p[0], p[1], ... Absent operands are never read.

KERNEL(ITEMS)
chain(GLOBAL const char *a, const View av, GLOBAL const char *b, const View bv,
      GLOBAL const char *c, const View cv, GLOBAL const char *d, const View dv,
      GLOBAL const char *e, const View ev, GLOBAL const char *f, const View fv,
      GLOBAL const char *parameters, const LONG parameters_at, GLOBAL char *y, const LONG y_at,
      const Shape shape)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size)
        return;
    GLOBAL const NUM *p = (GLOBAL const NUM *)(parameters + parameters_at);
    STEPS
    STORE(RESULT, y + y_at, i, VALUE);
}
