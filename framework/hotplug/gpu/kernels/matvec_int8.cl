// As matvec.cl with quantised weights, for activations in steps of 8 bits (int8.h): integers are
// multiplied and scaled by sixteens. An item has `each` columns. On a processor, where a launch costs
// more than rounding a row, each group rounds its rows itself; there `a` is what is to be rounded, and
// with NORM what is first divided by its root mean square, and scaled by `norm`.
//
// With BESIDE up to three matrices meet the same rows, their columns one after the other, each with a
// result of its own. With GATED there are two, a gate and what it lets through, and one result. With ADDED
// something is added to each result: row by row, or one row to all where its rows are 0 columns apart.
#define COLUMNS (ITEMS / LANES)
#define SILU(x) ((x) / (1 + EXP(-(x))))

// A processor decodes a whole block at a time, and adds to two sums in turn, not to wait for either. Where
// the sixteens of a block have scale and least value in common, its products are added up as integers, and
// SUM is that of both.
#if ITEMS == 1
#define ALIKE JOIN(QUANT, _ALIKE)
#define AT_ONCE SIXTEENS
#define CHAINS 2
#define EXP(x) exp_of(x)
#else
#define ALIKE 0
#define AT_ONCE 1
#define CHAINS 1
#define EXP(x) exp(x)
#endif

// Where the matrices after the first one lie, their results, and what is added to all three.
typedef struct {
    LONG b1_at, b2_at;
    LONG y1_at, y2_at;
    LONG plus_at, plus1_at, plus2_at;
    int columns1, columns2;
    int plus_step; // from row to row, in columns of the matrix
    float eps;
} More;

#ifdef GATED
#define SUMS (2 * ROWS)
#else
#define SUMS ROWS
#endif

#if HAS_LEAST
#define ADD_LEAST(total, least, sum) total += least * sum;
#else
#define ADD_LEAST(total, least, sum)
#endif

// Products of the n-th sixteen of a column with each row, or on a processor of two.
#if ALIKE
#define TOGETHER 2
#define ADD_PRODUCTS(w, n, sums, leasts)                                          \
    {                                                                             \
        const Decoded d_ = decoded(w, n);                                         \
        const Decoded e_ = decoded(w, (n) + 1);                                   \
        UNROLLED                                                                  \
        for (int r_ = 0; r_ < ROWS; ++r_) {                                       \
            const INTEGERS8 dot_ = dot_pairs(d_.word, STEPS(r_, n)) +             \
                                   dot_pairs(e_.word, STEPS(r_, (n) + 1));        \
            sums[r_] += d_.scale * SCALE(r_, (n) / 2) * FLOATS8(dot_);            \
            ADD_LEAST(leasts[r_], d_.least, SUM(r_, n))                           \
        }                                                                         \
    }
#else
#define TOGETHER 1
#if ITEMS == 1
#define DOT_STEPS(d, x) FLOATS8(dot_pairs((d).word, x))
#else
#define DOT_STEPS(d, x) dot_steps(d, x)
#endif
#define ADD_PRODUCTS(w, n, sums, leasts)                                          \
    {                                                                             \
        const Decoded d_ = decoded(w, n);                                         \
        UNROLLED                                                                  \
        for (int r_ = 0; r_ < ROWS; ++r_) {                                       \
            const float scale_ = d_.scale * SCALE(r_, (n) / 2);                   \
            sums[r_] += scale_ * DOT_STEPS(d_, STEPS(r_, n));                     \
            ADD_LEAST(leasts[r_], d_.least, SUM(r_, n))                           \
        }                                                                         \
    }
#endif

// This item's part of the products of ROWS rows with the column of weights that begins at w.
#define PRODUCTS(w, there, total)                                                 \
    {                                                                             \
        Parts sum_[CHAINS][ROWS];                                                 \
        float least_[CHAINS][ROWS];                                               \
        UNROLLED                                                                  \
        for (int i_ = 0; i_ < ROWS * CHAINS; ++i_) {                              \
            sum_[i_ % CHAINS][i_ / CHAINS] = 0;                                   \
            least_[i_ % CHAINS][i_ / CHAINS] = 0;                                 \
        }                                                                         \
        if (there)                                                                \
            for (UINT n_ = lane * AT_ONCE; n_ < (UINT)depth / 16; n_ += LANES * AT_ONCE) \
                UNROLLED                                                          \
                for (int i_ = 0; i_ < AT_ONCE; i_ += TOGETHER)                    \
                    ADD_PRODUCTS(w, n_ + i_, sum_[i_ % CHAINS], least_[i_ % CHAINS]) \
        UNROLLED                                                                  \
        for (int r_ = 0; r_ < ROWS; ++r_) {                                       \
            for (int i_ = 1; i_ < CHAINS; ++i_) {                                 \
                sum_[0][r_] += sum_[i_][r_];                                      \
                least_[0][r_] += least_[i_][r_];                                  \
            }                                                                     \
            (total)[r_] = TOTAL(sum_[0][r_]) - least_[0][r_];                     \
        }                                                                         \
    }

BUSY_KERNEL(ITEMS)
matvec_int8(GLOBAL const char *a, const View av, const LONG scales_at, const LONG sums_at,
            GLOBAL const char *b, const View bv, GLOBAL const char *ids, const View iv,
            GLOBAL char *y, const LONG y_at, const Shape lead, const int rows, const int columns,
            const int depth, const int blocks, const int wide, const int matrices, const int each,
            GLOBAL const char *norm, const LONG norm_at, GLOBAL const char *b1,
            GLOBAL const char *b2, GLOBAL char *y1, GLOBAL char *y2, GLOBAL const char *plus,
            GLOBAL const char *plus1, GLOBAL const char *plus2, const More more)
{
#if LANES > 1
    LOCAL float part[SUMS][ITEMS];
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
#define ELEMENT_OF(k) LOAD(A, a + av.at, at + ELEMENT(k, av.stride[4]))
#ifdef NORM
        float squares[PARTS];
        for (int j = 0; j < PARTS; ++j)
            squares[j] = 0;
        for (int k = 0; k < depth; k += PARTS) {
            EACH_PART
            for (int j = 0; j < PARTS; ++j)
                squares[j] += ELEMENT_OF(k + j) * ELEMENT_OF(k + j);
        }
        for (int j = 1; j < PARTS; ++j)
            squares[0] += squares[j];
        const float factor = 1 / sqrt(squares[0] / (float)depth + more.eps);
#define ACTIVATION(k) \
    ELEMENT_OF(STEPS_BLOCK * block + (k)) * factor * LOAD_f32(norm + norm_at, STEPS_BLOCK * block + (k))
#else
#define ACTIVATION(k) ELEMENT_OF(STEPS_BLOCK * block + (k))
#endif
        for (int block = 0; block < depth / STEPS_BLOCK; ++block)
        {
            QUANTISE_BLOCK(ACTIVATION, steps[r] + STEPS_BLOCK * block, scales[r] + block,
                           sums[r] + 2 * block)
#if ALIKE
            sums[r][2 * block] += sums[r][2 * block + 1];
#endif
        }
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
#ifdef BESIDE
    const int all = columns + more.columns1 + more.columns2;
#else
    const int all = columns;
#endif
#if defined(GATED) && ITEMS == 1
    float gates[ROWS][PARTS]; // those of so many columns are activated at once
    float through[ROWS][PARTS];
    for (int i = 0; i < ROWS * PARTS; ++i)
        gates[i / PARTS][i % PARTS] = through[i / PARTS][i % PARTS] = 0;
#endif
#if ITEMS == 1
    const int end = begin + each < all ? begin + each : all;
#else
    const int end = begin + each; // barriers wait for all items
#endif
    for (int beside = begin; beside < end; ++beside) {
        const int there = known && beside < all;
        int column = beside;
        int width = columns;
        Block w = (Block)b + matrix;
        GLOBAL char *to = y + y_at;
        GLOBAL const char *added = plus + more.plus_at;
#ifdef BESIDE
        if (beside >= columns) {
            const int third = beside >= columns + more.columns1;
            column = beside - columns - (third ? more.columns1 : 0);
            width = third ? more.columns2 : more.columns1;
            w = (Block)(third ? b2 + more.b2_at : b1 + more.b1_at);
            to = third ? y2 + more.y2_at : y1 + more.y1_at;
            added = third ? plus2 + more.plus2_at : plus1 + more.plus1_at;
        }
#endif
        w += (LONG)column * bv.stride[3];
        float total[SUMS];
        PRODUCTS(w, there, total)
#ifdef GATED
        w = (Block)(b1 + more.b1_at) + (LONG)column * bv.stride[3];
        PRODUCTS(w, there, total + ROWS)
#endif
#if LANES > 1
        LANES_SUMS(part, total, SUMS)
#endif
#if defined(GATED) && ITEMS == 1
        const int last = (beside - begin) % PARTS;
        for (int r = 0; r < ROWS; ++r) {
            gates[r][last] = total[r];
            through[r][last] = total[ROWS + r];
        }
        if (last + 1 < PARTS && beside + 1 < end)
            continue;
        for (int r = 0; r < ROWS && first + r < rows; ++r) {
            EACH_PART
            for (int j = 0; j < PARTS; ++j)
                gates[r][j] = SILU(gates[r][j]) * through[r][j];
            for (int j = 0; j <= last; ++j)
                STORE(TYPE, to, ((LONG)batch * rows + first + r) * width + column - last + j,
                      gates[r][j]);
        }
#else
        UNROLLED
        for (int r = 0; r < ROWS; ++r)
            if (lane == 0 && beside < all && first + r < rows) {
                float value = total[r];
#ifdef GATED
                value = SILU(value) * total[ROWS + r];
#endif
#ifdef ADDED
                value += LOAD_f32(added, (first + r) * more.plus_step * width + column);
#endif
                STORE(TYPE, to, ((LONG)batch * rows + first + r) * width + column, value);
            }
#endif
    }
}
