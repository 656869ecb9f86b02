// Numbers of any strides as blocks of TARGET: an item has a block. Shape and strides count blocks
// along the last axis.
KERNEL(ITEMS)
encode(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG y_at, const Shape shape,
       const LONG step)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i < shape.size)
        JOIN(TARGET, _encode)((Target)(y + y_at) + (LONG)i * JOIN(TARGET, _BYTES),
                              x + xv.at + place(xv, shape, i) * BYTES_OF(TYPE), step);
}
