// Heads' elements turned in pairs (rope.h). An item per pair, and per element that is not turned. May be
// in place.

KERNEL(ITEMS)
rope(GLOBAL const char *x, const View xv, GLOBAL const char *turns, const LONG turns_at,
     GLOBAL char *y, const LONG y_at, const Shape shape, const LONG stride, const int width,
     const int pairs, const int tokens, const int heads, const int interleaved)
{
    const int items = width - pairs;
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size * items)
        return;
    const int head = i / items;
    const int token = head / heads % tokens;
    const LONG base = place(xv, shape, head);
    TURN((GLOBAL const NUM *)(turns + turns_at) + (LONG)2 * token * pairs, pairs, interleaved,
         i - head * items, x + xv.at, base, stride, TYPE, y + y_at, (LONG)head * width)
}
