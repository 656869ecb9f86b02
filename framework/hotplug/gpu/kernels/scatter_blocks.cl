// Rows of numbers put into a table of blocks of TARGET at indices: a work-group per row, an item per
// block. `inner` and strides count blocks along the last axis. Of equal indices the last row wins.
KERNEL(ITEMS)
scatter_blocks(GLOBAL const char *x, const View xv, GLOBAL const char *ids, const View iv,
               GLOBAL char *y, const LONG y_at, const Shape inner, const int rows, const int count,
               const LONG stride, const int wide, const LONG step)
{
    LOCAL int later[ITEMS];
    const LONG id = LOAD_INDEX(ids + iv.at, GROUP_X * iv.stride[0], wide);
    int found = 0;
    for (int r = GROUP_X + 1 + ITEM; r < rows; r += ITEMS)
        found |= LOAD_INDEX(ids + iv.at, r * iv.stride[0], wide) == id;
    GROUP_MAX(later, found, found)
    if (found || id < 0 || id >= count)
        return;
    for (int k = ITEM; k < inner.size; k += ITEMS)
        JOIN(TARGET, _encode)((Target)(y + y_at) + (id * inner.size + k) * JOIN(TARGET, _BYTES),
                              x + xv.at + (GROUP_X * stride + place(xv, inner, k)) * BYTES_OF(TYPE),
                              step);
}
