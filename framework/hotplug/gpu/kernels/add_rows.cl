// y = x + the row of `bias` that each id names; an id outside the table adds nothing.

KERNEL(ITEMS)
add_rows(GLOBAL const char *x, const View xv, GLOBAL const char *bias, const View bv,
         GLOBAL const char *ids, const View iv, GLOBAL char *y, const LONG y_at, const Shape shape,
         const int width, const int count, const int wide)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size)
        return;
    const LONG id = LOAD_INDEX(ids + iv.at, place(iv, shape, i), wide);
    NUM value = LOAD(TYPE, x + xv.at, place(xv, shape, i));
    if (id >= 0 && id < count)
        value += LOAD(TYPE, bias + bv.at, id * bv.stride[0] + i % width * bv.stride[1]);
    STORE(TYPE, y + y_at, i, value);
}
