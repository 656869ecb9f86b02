// As matvec.cl with quantised weights, for activations in steps of 8 bits (int8.h): integers are
// multiplied and scaled by sixteens. An item has `each` columns. On a processor, where a launch costs
// more than rounding a row, each group rounds its rows itself; there `a` is what is to be rounded.
#define COLUMNS (ITEMS / LANES)

// A processor decodes a whole block at a time, and adds to two sums in turn, not to wait for either.
#if ITEMS == 1
#define AT_ONCE SIXTEENS
#define CHAINS 2
#else
#define AT_ONCE 1
#define CHAINS 1
#endif

BUSY_KERNEL(ITEMS)
matvec_int8(GLOBAL const char *a, const View av, const LONG scales_at, const LONG sums_at,
            GLOBAL const char *b, const View bv, GLOBAL const char *ids, const View iv,
            GLOBAL char *y, const LONG y_at, const Shape lead, const int rows, const int columns,
            const int depth, const int blocks, const int wide, const int matrices, const int each)
{
#if LANES > 1
    LOCAL float part[ITEMS];
#endif
    const int lane = ITEM % LANES;
    const int batch = GROUP_Y / blocks;
    const int first = GROUP_Y % blocks * ROWS;
#if ITEMS == 1
    LOCAL Step steps[ROWS][DEPTH];
    LOCAL float scales[ROWS][DEPTH / STEPS_BLOCK];
    LOCAL float sums[ROWS][DEPTH / 16];
    for (int r = 0; r < ROWS; ++r) { // what is too many is not stored
        const LONG at = place(av, lead, batch) +
                        (first + r < rows ? first + r : rows - 1) * av.stride[3];
        for (int block = 0; block < depth / STEPS_BLOCK; ++block)
            QUANTISE_BLOCK(a + av.at, at + (LONG)block * STEPS_BLOCK * av.stride[4], av.stride[4],
                           steps[r] + STEPS_BLOCK * block, scales[r] + block, sums[r] + 2 * block)
    }
#define STEPS(r, n) (steps[r] + 16 * (n))
#define SCALE(r, block) scales[r][block]
#define SUM(r, n) sums[r][n]
#else
    UINT start[ROWS]; // in blocks of steps
    for (int r = 0; r < ROWS; ++r)
        start[r] = (UINT)(place(av, lead, batch) +
                          (first + r < rows ? first + r : rows - 1) * av.stride[3]) / STEPS_BLOCK;
#define STEPS(r, n) ((GLOBAL const Step *)(a + av.at) + 16 * (2 * (LONG)start[r] + (n)))
#define SCALE(r, block) LOAD_f32(a + scales_at, start[r] + (block))
#define SUM(r, n) LOAD_f32(a + sums_at, 2 * start[r] + (n))
#endif
    LONG matrix = bv.at + place(bv, lead, batch);
    int known = 1;
#ifdef IDS
    const LONG id = LOAD_INDEX(ids + iv.at, place(iv, lead, batch), wide);
    known = id >= 0 && id < matrices;
    matrix += id * bv.stride[5];
#endif
    const int begin = (GROUP_X * COLUMNS + ITEM / LANES) * each;
    for (int column = begin; column < begin + each; ++column) {
        Parts sum[ROWS][CHAINS];
        float least[ROWS][CHAINS];
        UNROLLED
        for (int i = 0; i < ROWS * CHAINS; ++i) {
            sum[i / CHAINS][i % CHAINS] = 0;
            least[i / CHAINS][i % CHAINS] = 0;
        }
        if (known && column < columns) {
            Block w = (Block)b + matrix + (LONG)column * bv.stride[3];
            for (UINT n = lane * AT_ONCE; n < (UINT)depth / 16; n += LANES * AT_ONCE)
                UNROLLED
                for (int i = 0; i < AT_ONCE; ++i) {
                    const Decoded d = decoded(w, n + i);
                    UNROLLED
                    for (int r = 0; r < ROWS; ++r) {
                        const float scale = d.scale * SCALE(r, (n + i) / 2);
                        sum[r][i % CHAINS] += scale * DOT_STEPS(d, STEPS(r, n + i));
                        least[r][i % CHAINS] += d.least * SUM(r, n + i);
                    }
                }
        }
        UNROLLED
        for (int r = 0; r < ROWS; ++r) {
#if CHAINS == 2
            sum[r][0] += sum[r][1];
            least[r][0] += least[r][1];
#endif
            float total = TOTAL(sum[r][0]) - least[r][0];
#if LANES > 1
            LANES_SUM(part, total)
#endif
            if (lane == 0 && column < columns && first + r < rows)
                STORE(TYPE, y + y_at, ((LONG)batch * rows + first + r) * columns + column, total);
        }
    }
}
