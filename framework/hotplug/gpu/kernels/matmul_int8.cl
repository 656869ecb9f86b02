// As matmul.cl with quantised weights, for activations in steps of 8 bits (int8.h): a work-group of SIDE x
// SIDE items makes a tile of TILE x TILE values from slices of a block's depth in local memory. An item has
// EACH x EACH values, SIDE rows and columns apart, so that neighbours read different banks and store
// beside each other. Views are as in matvec.cl.
#define EACH (TILE / SIDE)
#define STEP_WORDS (STEPS_BLOCK / 4)
#define HALF_WORDS (STEP_WORDS / 2)

KERNEL(ITEMS)
matmul_int8(GLOBAL const char *a, const View av, const LONG scales_at, const LONG sums_at,
            GLOBAL const char *b, const View bv, GLOBAL char *y, const LONG y_at, const Shape lead,
            const int rows, const int columns, const int depth, const int across)
{
    LOCAL UINT left[TILE][STEP_WORDS + 1];
    LOCAL UINT right[TILE][STEP_WORDS + 1];
    LOCAL float left_scale[TILE];
    LOCAL float right_scale[2][TILE];
#if HAS_LEAST
    LOCAL float left_sum[2][TILE];
    LOCAL float right_least[2][TILE];
#endif
    const int row = GROUP_X / across * TILE;
    const int column = GROUP_X % across * TILE;
    const UINT a_base = (UINT)place(av, lead, GROUP_Y) / STEPS_BLOCK; // in blocks of steps
    const UINT a_row = (UINT)av.stride[3] / STEPS_BLOCK;
    Block weights = (Block)(b + bv.at) + place(bv, lead, GROUP_Y);
    const int across_item = ITEM % SIDE;
    const int down_item = ITEM / SIDE;
    float sum[EACH][EACH];
    UNROLLED
    for (int i = 0; i < EACH * EACH; ++i)
        sum[i / EACH][i % EACH] = 0;
    for (int block = 0; block < depth / STEPS_BLOCK; ++block) {
        for (int i = ITEM; i < TILE * STEP_WORDS; i += ITEMS) {
            const int line = i / STEP_WORDS;
            const UINT from = a_base + (row + line) * a_row + block;
            left[line][i % STEP_WORDS] =
                row + line < rows
                    ? ((GLOBAL const UINT *)(a + av.at))[(LONG)from * STEP_WORDS + i % STEP_WORDS]
                    : 0;
        }
        for (int line = ITEM; line < TILE; line += ITEMS) {
            const int there = row + line < rows;
            const UINT from = a_base + (there ? row + line : 0) * a_row + block;
            left_scale[line] = there ? LOAD_f32(a + scales_at, from) : 0;
#if HAS_LEAST
            left_sum[0][line] = there ? LOAD_f32(a + sums_at, 2 * from) : 0;
            left_sum[1][line] = there ? LOAD_f32(a + sums_at, 2 * from + 1) : 0;
#endif
        }
        for (int i = ITEM; i < 2 * TILE; i += ITEMS) {
            const int line = i / 2;
            const int there = column + line < columns; // what is too many is not stored
            const Decoded d =
                decoded(weights + (LONG)(there ? column + line : 0) * bv.stride[3], 2 * block + i % 2);
            UNROLLED
            for (int k = 0; k < HALF_WORDS; ++k)
                right[line][i % 2 * HALF_WORDS + k] = d.word[k];
            right_scale[i % 2][line] = d.scale;
#if HAS_LEAST
            right_least[i % 2][line] = d.least;
#endif
        }
        BARRIER();
        UNROLLED
        for (int half_ = 0; half_ < 2; ++half_) {
            UINT words[EACH][HALF_WORDS];
            UNROLLED
            for (int i = 0; i < EACH * HALF_WORDS; ++i)
                words[i / HALF_WORDS][i % HALF_WORDS] =
                    right[across_item + SIDE * (i / HALF_WORDS)][half_ * HALF_WORDS + i % HALF_WORDS];
            UNROLLED
            for (int r = 0; r < EACH; ++r) {
                const int line = down_item + SIDE * r;
                const float scale = left_scale[line];
                UINT steps[HALF_WORDS];
                UNROLLED
                for (int k = 0; k < HALF_WORDS; ++k)
                    steps[k] = left[line][half_ * HALF_WORDS + k];
                UNROLLED
                for (int c = 0; c < EACH; ++c) {
                    int dot = 0;
                    UNROLLED
                    for (int k = 0; k < HALF_WORDS; ++k)
                        dot = DOT4(words[c][k], steps[k], dot);
                    sum[r][c] += scale * right_scale[half_][across_item + SIDE * c] * (float)dot;
#if HAS_LEAST
                    sum[r][c] -= left_sum[half_][line] * right_least[half_][across_item + SIDE * c];
#endif
                }
            }
        }
        BARRIER();
    }
    for (int r = 0; r < EACH; ++r)
        for (int c = 0; c < EACH; ++c) {
            const int to_row = row + down_item + SIDE * r;
            const int to_column = column + across_item + SIDE * c;
            if (to_row < rows && to_column < columns)
                STORE(TYPE, y + y_at, ((LONG)GROUP_Y * rows + to_row) * columns + to_column,
                      sum[r][c]);
        }
}
