// Heads' elements turned in pairs (rope.h). An item per pair, and per element that is not turned. May be
// in place.

KERNEL(ITEMS)
rope(GLOBAL const char *x, const View xv, GLOBAL const char *positions, const View pv,
     GLOBAL const char *factors, const View fv, GLOBAL const char *table, const LONG coefficients,
     const LONG rows, GLOBAL char *y, const LONG y_at, const Shape shape, const LONG stride,
     const int width, const int pairs, const int tokens, const int heads, const int interleaved,
     const int wide, const int has_factors, const NUM magnitude)
{
    const int items = width - pairs;
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size * items)
        return;
    const int head = i / items;
    const int k = i - head * items;
    const Rotation r = {positions + pv.at, factors + fv.at, (GLOBAL const NUM *)(table + coefficients),
                        (GLOBAL const int *)(table + rows), pv.stride[0], pv.stride[1], fv.stride[0],
                        magnitude, pairs, interleaved, wide, has_factors};
    const LONG base = place(xv, shape, head);
    TURN(r, (head / heads) % tokens, k, x + xv.at, base, stride, TYPE, y + y_at, (LONG)head * width)
}
