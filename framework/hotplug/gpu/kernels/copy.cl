// Elements, or as many beside each other as make WIDTH bytes, moved from one layout to another.
#define WORD_1 UCHAR
#define WORD_2 USHORT
#define WORD_4 UINT
#define WORD_8 ULONG
#define WORD_16 UINT4
#define WORD JOIN(WORD_, WIDTH)

KERNEL(ITEMS)
copy(GLOBAL const char *x, const View xv, GLOBAL char *y, const View yv, const Shape shape)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i < shape.size)
        ((GLOBAL WORD *)(y + yv.at))[place(yv, shape, i)] =
            ((GLOBAL const WORD *)(x + xv.at))[place(xv, shape, i)];
}
