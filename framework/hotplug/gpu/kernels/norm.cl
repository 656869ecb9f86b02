// Normalisation of groups of elements: rows of the last axis, or groups of channels. A work-group per
// group; `inner` is the group's own shape. May be in place. Element k of group g is scaled by weight
// (g % sets) * step + k / run. With SUM, what is normalised is x + d, which is stored too, over either
// of them maybe: an item reads back what it wrote itself. With ROUNDED rows leave in steps of 8 bits alone
// (int8.h). With DENSE groups are rows whose elements lie beside each other everywhere. METHOD is a
// definition, because PoCL 3 goes wrong at barriers behind a condition.
#define RMS 0
#define LAYER 1
#define L2 2

#ifdef DENSE
#define WITHIN(view, k) (k)
#define CHANNEL(view, k) (k)
#else
#define WITHIN(view, k) place(view, inner, k)
#define CHANNEL(view, k) (((GROUP_X % sets) * step + (k) / run) * (view).stride[0])
#endif

// This item's part of a sum over the elements.
#define ADD_UP(VALUE, sum)                                                   \
    {                                                                        \
        NUM parts_[PARTS];                                                   \
        for (int j_ = 0; j_ < PARTS; ++j_)                                   \
            parts_[j_] = 0;                                                  \
        const int whole_ = inner.size / PARTS * PARTS;                       \
        for (int k_ = ITEM * PARTS; k_ < whole_; k_ += ITEMS * PARTS) {      \
            EACH_PART                                                        \
            for (int j_ = 0; j_ < PARTS; ++j_)                               \
                parts_[j_] += VALUE(k_ + j_);                                \
        }                                                                    \
        for (int k_ = whole_ + ITEM; k_ < inner.size; k_ += ITEMS)           \
            parts_[0] += VALUE(k_);                                          \
        sum = 0;                                                             \
        for (int j_ = 0; j_ < PARTS; ++j_)                                   \
            sum += parts_[j_];                                               \
    }

KERNEL(ITEMS)
normalise(GLOBAL const char *x, const View xv, const View kv, GLOBAL const char *d, const View dv,
          const View dkv, GLOBAL char *s, const LONG s_at, GLOBAL const char *w, const View wv,
          GLOBAL const char *b, const View bv, GLOBAL char *y, const LONG y_at, const LONG scales_at,
          const LONG sums_at, const Shape shape, const Shape inner, const int sets, const int step,
          const int run, const int scaled, const int biased, const NUM eps)
{
    LOCAL NUM part[ITEMS];
    const LONG base = place(xv, shape, GROUP_X);
#ifdef SUM
    const LONG d_base = place(dv, shape, GROUP_X);
    const LONG first = (LONG)GROUP_X * inner.size;
    for (int k = ITEM; k < inner.size; k += ITEMS)
        STORE(TYPE, s + s_at, first + k,
              LOAD(TYPE, x + xv.at, base + WITHIN(kv, k)) +
                  LOAD(TYPE, d + dv.at, d_base + WITHIN(dkv, k)));
#define NORMALISED(k) LOAD(TYPE, s + s_at, first + (k))
#else
#define NORMALISED(k) LOAD(TYPE, x + xv.at, base + WITHIN(kv, k))
#endif
    const NUM count = (NUM)inner.size;
    NUM mean = 0;
    NUM sum;
    NUM squares;
#if METHOD == LAYER
    ADD_UP(NORMALISED, sum)
    GROUP_SUM(part, sum, mean)
    mean /= count;
#endif
#define SQUARE(k) ((NORMALISED(k) - mean) * (NORMALISED(k) - mean))
    ADD_UP(SQUARE, sum)
    GROUP_SUM(part, sum, squares)
#if METHOD == L2
    const NUM factor = 1 / fmax(sqrt(squares), eps);
#else
    const NUM factor = 1 / sqrt(squares / count + eps);
#endif
#ifdef ROUNDED
#define ACTIVATION(k)                                              \
    (NORMALISED(STEPS_BLOCK * block + (k)) - mean) * factor *      \
        LOAD(SCALE, w + wv.at, (STEPS_BLOCK * block + (k)) * wv.stride[0])
    const int row_blocks = inner.size / STEPS_BLOCK;
    for (int block = ITEM; block < row_blocks; block += ITEMS) {
        const LONG to = (LONG)GROUP_X * row_blocks + block;
        QUANTISE_BLOCK(ACTIVATION, (GLOBAL Step *)(y + y_at) + to * STEPS_BLOCK,
                       (GLOBAL float *)(y + scales_at) + to, (GLOBAL float *)(y + sums_at) + 2 * to)
    }
#else
    for (int k = ITEM; k < inner.size; k += ITEMS) {
        NUM value = (NORMALISED(k) - mean) * factor;
        if (scaled)
            value *= LOAD(SCALE, w + wv.at, CHANNEL(wv, k));
        if (biased)
            value += LOAD(SCALE, b + bv.at, CHANNEL(bv, k));
        STORE(TYPE, y + y_at, (LONG)GROUP_X * inner.size + k, value);
    }
#endif
}
