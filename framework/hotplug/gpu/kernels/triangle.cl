// Elements of WIDTH bytes of a band of the last two axes; the rest is a constant. With `diagonal`
// below, x has one axis less and only the diagonal itself is kept.
#define WORD_1 UCHAR
#define WORD_2 USHORT
#define WORD_4 UINT
#define WORD_8 ULONG
#define WORD JOIN(WORD_, WIDTH)

KERNEL(ITEMS)
triangle(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG y_at, const Shape shape,
         const int rows, const int columns, const int least, const int most, const ULONG value)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size)
        return;
    const int column = i % columns;
    const int away = column - (i / columns) % rows;
    const WORD kept = ((GLOBAL const WORD *)(x + xv.at))[place(xv, shape, i)];
    ((GLOBAL WORD *)(y + y_at))[i] = away >= least && away <= most ? kept : (WORD)value;
}
