// Rows of a table by index; a row outside the table is zeros. With QUANT rows are decoded to floats,
// and strides of the table count bytes.
#define WORD_1 UCHAR
#define WORD_2 USHORT
#define WORD_4 UINT
#define WORD_8 ULONG
#define WORD JOIN(WORD_, WIDTH)

KERNEL(ITEMS)
take(GLOBAL const char *table, const View tv, GLOBAL const char *ids, const View iv,
     GLOBAL char *y, const LONG y_at, const Shape shape, const Shape inner, const int count,
     const LONG stride, const int width, const int wide)
{
    const int i = GROUP_X * ITEMS + ITEM;
    const int row = i / inner.size;
    if (row >= shape.size)
        return;
    const LONG id = LOAD_INDEX(ids + iv.at, place(iv, shape, row), wide);
    const int within = id >= 0 && id < count;
    const int k = i - row * inner.size;
#ifdef QUANT
    // Rows of a row are walked by `inner` in steps of `width` elements, which are packed.
    float value = 0;
    if (within) {
        const int j = k % width;
        Block w = (Block)(table + tv.at) + id * stride + place(tv, inner, k - j) +
                  (LONG)(j / JOIN(QUANT, _BLOCK)) * JOIN(QUANT, _BYTES);
        value = JOIN(QUANT, _at)(w, j % JOIN(QUANT, _BLOCK));
    }
    STORE(TO, y + y_at, i, value);
#else
    WORD value = 0;
    if (within)
        value = ((GLOBAL const WORD *)(table + tv.at))[id * stride + place(tv, inner, k)];
    ((GLOBAL WORD *)(y + y_at))[i] = value;
#endif
}
