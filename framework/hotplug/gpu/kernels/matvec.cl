// y[r][c] = sum over k of a[r][k] * b[c][k] for few rows: LANES items share a column, ROWS rows share
// what is read of b, an item has EACH columns. Strides 0 to 2 of a view are those of leading axes, 3 is from row to row, 4 from
// k to k; of quantised weights all count bytes. With IDS each y has one row, of the matrix that its id
// names, and stride 5 is from matrix to matrix. With DENSE, for processors, both steps of k are 1.
#define COLUMNS (ITEMS / LANES)

BUSY_KERNEL(ITEMS)
matvec(GLOBAL const char *a, const View av, GLOBAL const char *b, const View bv,
       GLOBAL const char *ids, const View iv, GLOBAL char *y, const LONG y_at, const Shape lead,
       const int rows, const int columns, const int depth, const int blocks, const int wide,
       const int matrices)
{
#if LANES > 1
    LOCAL NUM part[ROWS][ITEMS];
#endif
    const int lane = ITEM % LANES;
    const int batch = GROUP_Y / blocks;
    const int first = GROUP_Y % blocks * ROWS;
    const LONG a_base = place(av, lead, batch);
    const LONG matrix = place(bv, lead, batch);
    for (int each = 0; each < EACH; ++each) {
        const int column = (GROUP_X * COLUMNS + ITEM / LANES) * EACH + each;
        LONG b_base = matrix + (LONG)column * bv.stride[3];
        int there = column < columns;
        NUM sum[ROWS][PARTS];
        LONG row_at[ROWS];
        for (int r = 0; r < ROWS; ++r) {
            const int row = first + r < rows ? first + r : rows - 1; // what is too many is not stored
            row_at[r] = a_base + row * av.stride[3];
            for (int j = 0; j < PARTS; ++j)
                sum[r][j] = 0;
        }
#ifdef IDS
        const LONG id = LOAD_INDEX(ids + iv.at, place(iv, lead, batch), wide);
        there = there && id >= 0 && id < matrices;
        b_base += id * bv.stride[5];
#endif
        if (there) {
#ifdef QUANT
            Block w = (Block)(b + bv.at) + b_base;
#if ITEMS == 1
            for (int block = 0; block < depth / JOIN(QUANT, _BLOCK); ++block)
                for (int r = 0; r < ROWS; ++r)
                    JOIN(QUANT, _dot)(w + (LONG)block * JOIN(QUANT, _BYTES),
                                      (Floats)(a + av.at) + row_at[r] + block * JOIN(QUANT, _BLOCK),
                                      sum[r]);
#else
            for (int n = lane; n < depth / 16; n += LANES) {
                const Decoded d = decoded(w, n);
                IN_REGISTERS
                for (int r = 0; r < ROWS; ++r)
                    add_products(d, (Floats)(a + av.at) + row_at[r] + 16 * n, sum[r]);
            }
#endif
#elif defined(DENSE)
            const int whole = depth / PARTS * PARTS;
            for (int k = 0; k < whole; k += PARTS)
                for (int r = 0; r < ROWS; ++r) {
                    EACH_PART
                    for (int j = 0; j < PARTS; ++j)
                        sum[r][j] += LOAD(B, b + bv.at, b_base + k + j) *
                                     LOAD(A, a + av.at, row_at[r] + k + j);
                }
            for (int k = whole; k < depth; ++k)
                for (int r = 0; r < ROWS; ++r)
                    sum[r][0] += LOAD(B, b + bv.at, b_base + k) * LOAD(A, a + av.at, row_at[r] + k);
#else
            _Pragma("unroll 2") // further, doubles are spilled
            for (int k = lane; k < depth; k += LANES) {
                const NUM w = LOAD(B, b + bv.at, b_base + k * bv.stride[4]);
                for (int r = 0; r < ROWS; ++r)
                    sum[r][k % PARTS] += w * LOAD(A, a + av.at, row_at[r] + k * av.stride[4]);
            }
#endif
        }
        NUM total[ROWS];
        for (int r = 0; r < ROWS; ++r) {
            total[r] = sum[r][0];
            for (int j = 1; j < PARTS; ++j)
                total[r] += sum[r][j];
        }
#if LANES > 1
        LANES_SUMS(part, total, ROWS)
#endif
        if (lane == 0 && column < columns)
            for (int r = 0; r < ROWS; ++r)
                if (first + r < rows)
                    STORE(TYPE, y + y_at, ((LONG)batch * rows + first + r) * columns + column,
                          total[r]);
    }
}
