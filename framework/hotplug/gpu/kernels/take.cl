// Rows of a table by index; a row outside the table is zeros.
#define WORD_1 UCHAR
#define WORD_2 USHORT
#define WORD_4 UINT
#define WORD_8 ULONG
#define WORD JOIN(WORD_, WIDTH)

KERNEL(ITEMS)
take(GLOBAL const char *table, const View tv, GLOBAL const char *ids, const View iv,
     GLOBAL char *y, const LONG y_at, const Shape shape, const Shape inner, const int count,
     const LONG stride, const int wide)
{
    const int i = GROUP_X * ITEMS + ITEM;
    const int row = i / inner.size;
    if (row >= shape.size)
        return;
    const LONG id = LOAD_INDEX(ids + iv.at, place(iv, shape, row), wide);
    const int within = id >= 0 && id < count;
    const int k = i - row * inner.size;
    WORD value = 0;
    if (within)
        value = ((GLOBAL const WORD *)(table + tv.at))[id * stride + place(tv, inner, k)];
    ((GLOBAL WORD *)(y + y_at))[i] = value;
}
