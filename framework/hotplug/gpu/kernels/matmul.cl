// y[r][c] = sum over k of a[r][k] * b[c][k], any strides: a work-group of SIDE x SIDE items makes a
// tile of TILE x TILE values from slices of a and b in local memory; quantised weights are decoded on the
// way there. An item has EACH x EACH values and sums DOWN x ACROSS of them at a time in registers.
// Views are as in matvec.cl. With BESIDE columns of b lie beside each other, and items load along them.
#define DEPTH 32
#define EACH (TILE / SIDE)
#define RUN 16
#define STEP (ITEMS < DEPTH ? ITEMS : DEPTH) // neighbouring items load along k
#define RUNS (ITEMS < TILE ? 1 : ITEMS / TILE)
#define LINES (ITEMS < DEPTH ? 1 : ITEMS / DEPTH)
#define PADDING (ITEMS > 1) // so that items beside each other store to different banks

KERNEL(ITEMS)
matmul(GLOBAL const char *a, const View av, GLOBAL const char *b, const View bv, GLOBAL char *y,
       const LONG y_at, const Shape lead, const int rows, const int columns, const int depth,
       const int across)
{
    LOCAL NUM left[TILE][DEPTH + PADDING];
    LOCAL NUM right[DEPTH][TILE + PADDING];
    const int row = GROUP_X / across * TILE;
    const int column = GROUP_X % across * TILE;
    const LONG a_base = place(av, lead, GROUP_Y);
    const LONG b_base = place(bv, lead, GROUP_Y);
    const int across_item = ITEM % SIDE;
    const int down_item = ITEM / SIDE;
    NUM sum[EACH][EACH];
    for (int r = 0; r < EACH; ++r)
        for (int c = 0; c < EACH; ++c)
            sum[r][c] = 0;
    for (int start = 0; start < depth; start += DEPTH) {
        for (int line = ITEM / DEPTH; line < TILE; line += LINES) {
            const int there = row + line < rows;
            const LONG at = a_base + (row + line) * av.stride[3];
            for (int k = start + ITEM % DEPTH; k < start + DEPTH; k += STEP)
                left[line][k - start] =
                    there && k < depth ? LOAD(A, a + av.at, at + k * av.stride[4]) : 0;
        }
#ifdef BESIDE
        const int lines = columns - column < TILE ? columns - column : TILE;
        for (int k = ITEM / TILE; k < DEPTH; k += RUNS) {
            const LONG at = b_base + (start + k) * bv.stride[4] + column;
            const int there = start + k < depth ? lines : 0;
            for (int line = ITEM % TILE; line < there; line += ITEMS < TILE ? ITEMS : TILE)
                right[k][line] = LOAD(B, b + bv.at, at + line);
            for (int line = ITEM % TILE; line < TILE; line += ITEMS < TILE ? ITEMS : TILE)
                if (line >= there)
                    right[k][line] = 0;
        }
#elif !defined(QUANT)
        for (int line = ITEM / DEPTH; line < TILE; line += LINES) {
            const int there = column + line < columns;
            const LONG at = b_base + (column + line) * bv.stride[3];
            for (int k = start + ITEM % DEPTH; k < start + DEPTH; k += STEP)
                right[k - start][line] =
                    there && k < depth ? LOAD(B, b + bv.at, at + k * bv.stride[4]) : 0;
        }
#elif ITEMS == 1
        // Sixteen columns at a time, which a processor turns in its registers.
        for (int line = 0; line < TILE; line += RUN)
            for (int first = 0; first < DEPTH; first += RUN) {
                float some[RUN][RUN];
                for (int r = 0; r < RUN; ++r) {
                    const int there = column + line + r < columns; // what is too many is not stored
                    Block w = (Block)(b + bv.at) + b_base +
                              (LONG)(there ? column + line + r : 0) * bv.stride[3];
                    const Decoded d = decoded(w, (start + first) / RUN);
                    EACH_PART
                    for (int j = 0; j < RUN; ++j)
                        some[r][j] = DECODED(d, j);
                }
                UNROLLED
                for (int j = 0; j < RUN; ++j)
                    EACH_PART
                    for (int r = 0; r < RUN; ++r)
                        right[first + j][line + r] = some[r][j];
            }
#else
        // A sixteen's scale is read once.
        for (int line = ITEM % TILE; line < TILE; line += ITEMS) {
            const int there = column + line < columns;
            Block w = (Block)(b + bv.at) + b_base + (LONG)(there ? column + line : 0) * bv.stride[3];
            UNROLLED
            for (int first = ITEM / TILE * RUN; first < DEPTH; first += RUN * RUNS) {
                const Decoded d = decoded(w, (start + first) / RUN);
                UNROLLED
                for (int j = 0; j < RUN; ++j)
                    right[first + j][line] = there ? DECODED(d, j) : 0;
            }
        }
#endif
        BARRIER();
        for (int r0 = 0; r0 < EACH; r0 += DOWN)
            for (int c0 = 0; c0 < EACH; c0 += ACROSS) {
                NUM few[DOWN][ACROSS];
UNROLLED
                for (int r = 0; r < DOWN; ++r)
UNROLLED
                    for (int c = 0; c < ACROSS; ++c)
                        few[r][c] = sum[r0 + r][c0 + c];
                for (int k = 0; k < DEPTH; ++k)
UNROLLED
                    for (int r = 0; r < DOWN; ++r)
UNROLLED
                        for (int c = 0; c < ACROSS; ++c)
                            few[r][c] += left[down_item * EACH + r0 + r][k] *
                                         right[k][across_item * EACH + c0 + c];
UNROLLED
                for (int r = 0; r < DOWN; ++r)
UNROLLED
                    for (int c = 0; c < ACROSS; ++c)
                        sum[r0 + r][c0 + c] = few[r][c];
            }
        BARRIER();
    }
    for (int r = 0; r < EACH; ++r)
        for (int c = 0; c < EACH; ++c) {
            const int to_row = row + down_item * EACH + r;
            const int to_column = column + across_item * EACH + c;
            if (to_row < rows && to_column < columns)
                STORE(TYPE, y + y_at, ((LONG)GROUP_Y * rows + to_row) * columns + to_column,
                      sum[r][c]);
        }
}
