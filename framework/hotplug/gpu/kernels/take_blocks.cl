// Rows of a quantised table by index, decoded; a row outside the table is zeros. An item has EACH
// sixteens. Rows of a row are walked by `inner`, whose last axis counts sixteens, of which there are
// `across`; strides of the table count bytes.
KERNEL(ITEMS)
take_blocks(GLOBAL const char *table, const View tv, GLOBAL const char *ids, const View iv,
            GLOBAL char *y, const LONG y_at, const Shape shape, const Shape inner, const int count,
            const LONG stride, const int across, const int wide)
{
    for (int each = 0; each < EACH; ++each) {
        const int i = (GROUP_X * ITEMS + ITEM) * EACH + each;
        const int row = i / inner.size;
        if (row >= shape.size)
            return;
        const LONG id = LOAD_INDEX(ids + iv.at, place(iv, shape, row), wide);
        const int within = id >= 0 && id < count;
        const int k = i - row * inner.size;
        GLOBAL char *out = y + y_at + (LONG)i * 16 * BYTES_OF(TYPE);
        if (within) {
            Block w = (Block)(table + tv.at) + id * stride + place(tv, inner, k);
            const Decoded d = decoded(w, k % across);
            EACH_PART
            for (int j = 0; j < 16; ++j)
                STORE(TYPE, out, j, DECODED(d, j));
        } else {
            for (int j = 0; j < 16; ++j)
                STORE(TYPE, out, j, (NUM)0);
        }
    }
}
