// y[r][c] = sum over k of a[r][k] * b[c][k], any strides: a work-group of SIDE x SIDE items makes a
// tile of 32 x 32 values from slices of a and b in local memory; quantised weights are decoded on the
// way there. An item has EACH x EACH values and sums DOWN x ACROSS of them at a time in registers.
// Views are as in matvec.cl.
#define TILE 32
#define DEPTH 32
#define EACH (TILE / SIDE)

KERNEL(ITEMS)
matmul(GLOBAL const char *a, const View av, GLOBAL const char *b, const View bv, GLOBAL char *y,
       const LONG y_at, const Shape lead, const int rows, const int columns, const int depth,
       const int across)
{
    LOCAL NUM left[DEPTH][TILE + 1];
    LOCAL NUM right[DEPTH][TILE + 1];
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
        for (int t = ITEM; t < TILE * DEPTH; t += ITEMS) {
            const int k = t % DEPTH;
            const int line = t / DEPTH;
            const int within = start + k < depth;
            NUM one = 0;
            NUM two = 0;
            if (within && row + line < rows)
                one = LOAD(A, a + av.at,
                           a_base + (row + line) * av.stride[3] + (start + k) * av.stride[4]);
            if (within && column + line < columns) {
                const LONG at = b_base + (column + line) * bv.stride[3];
#ifdef QUANT
                const int block = (start + k) / JOIN(QUANT, _BLOCK);
                two = JOIN(QUANT, _at)((Block)(b + bv.at) + at + (LONG)block * JOIN(QUANT, _BYTES),
                                       (start + k) % JOIN(QUANT, _BLOCK));
#else
                two = LOAD(B, b + bv.at, at + (start + k) * bv.stride[4]);
#endif
            }
            left[k][line] = one;
            right[k][line] = two;
        }
        BARRIER();
        for (int r0 = 0; r0 < EACH; r0 += DOWN)
            for (int c0 = 0; c0 < EACH; c0 += ACROSS) {
                NUM few[DOWN][ACROSS];
#pragma unroll
                for (int r = 0; r < DOWN; ++r)
#pragma unroll
                    for (int c = 0; c < ACROSS; ++c)
                        few[r][c] = sum[r0 + r][c0 + c];
                for (int k = 0; k < DEPTH; ++k)
#pragma unroll
                    for (int r = 0; r < DOWN; ++r)
#pragma unroll
                        for (int c = 0; c < ACROSS; ++c)
                            few[r][c] += left[k][down_item * EACH + r0 + r] *
                                         right[k][across_item * EACH + c0 + c];
#pragma unroll
                for (int r = 0; r < DOWN; ++r)
#pragma unroll
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
