// Rows put into a table at indices: a work-group per row. Of equal indices the last row wins, which
// is why a row first looks whether a later one goes to the same place. With TARGET, the table has
// blocks of it, which `inner` and strides count along the last axis; `step` is from element to element.
KERNEL(ITEMS)
scatter(GLOBAL const char *x, const View xv, GLOBAL const char *ids, const View iv, GLOBAL char *y,
        const LONG y_at, const Shape inner, const int rows, const int count, const LONG stride,
        const int wide, const LONG step)
{
    LOCAL int later[ITEMS];
    const LONG id = LOAD_INDEX(ids + iv.at, GROUP_X * iv.stride[0], wide);
    int found = 0;
    for (int r = GROUP_X + 1 + ITEM; r < rows; r += ITEMS)
        found |= LOAD_INDEX(ids + iv.at, r * iv.stride[0], wide) == id;
    GROUP_MAX(later, found, found)
    if (found || id < 0 || id >= count)
        return;
    for (int k = ITEM; k < inner.size; k += ITEMS) {
        const LONG from = GROUP_X * stride + place(xv, inner, k);
#ifdef TARGET
        JOIN(TARGET, _encode)((Target)(y + y_at) + (id * inner.size + k) * JOIN(TARGET, _BYTES),
                              x + xv.at + from * BYTES_OF(TYPE), step);
#else
        STORE(TABLE, y + y_at, id * inner.size + k, LOAD(TYPE, x + xv.at, from));
#endif
    }
}
