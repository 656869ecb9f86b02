// How many elements of two tensors are equal: one work-group for all.

KERNEL(ITEMS)
count_equal(GLOBAL const char *a, const View av, GLOBAL const char *b, const View bv,
            GLOBAL char *y, const LONG y_at, const Shape shape)
{
    LOCAL LONG part[ITEMS];
    LONG count = 0;
    LONG total;
    for (int i = ITEM; i < shape.size; i += ITEMS)
        count += LOAD(TYPE, a + av.at, place(av, shape, i)) ==
                 LOAD(TYPE, b + bv.at, place(bv, shape, i));
    GROUP_SUM(part, count, total)
    if (ITEM == 0)
        ((GLOBAL LONG *)(y + y_at))[0] = total;
}
