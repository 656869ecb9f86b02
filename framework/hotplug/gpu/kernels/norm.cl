// Normalisation of groups of elements: rows of the last axis, or groups of channels. A work-group per
// group; `inner` is the group's own shape. May be in place. Element k of group g is scaled by weight
// (g % sets) * step + k / run.
#define RMS 0
#define LAYER 1
#define L2 2

KERNEL(ITEMS)
normalise(GLOBAL const char *x, const View xv, const View kv, GLOBAL const char *w, const View wv,
     GLOBAL const char *b, const View bv, GLOBAL char *y, const LONG y_at, const Shape shape,
     const Shape inner, const int sets, const int step, const int run, const int method,
     const int scaled, const int biased, const NUM eps)
{
    LOCAL NUM part[ITEMS];
    const GLOBAL char *from = x + xv.at;
    const LONG base = place(xv, shape, GROUP_X);
    const NUM count = (NUM)inner.size;
    NUM mean = 0;
    NUM sum = 0;
    NUM squares;
    if (method == LAYER) {
        for (int k = ITEM; k < inner.size; k += ITEMS)
            sum += LOAD(TYPE, from, base + place(kv, inner, k));
        GROUP_SUM(part, sum, mean)
        mean /= count;
        sum = 0;
    }
    for (int k = ITEM; k < inner.size; k += ITEMS) {
        const NUM value = LOAD(TYPE, from, base + place(kv, inner, k)) - mean;
        sum += value * value;
    }
    GROUP_SUM(part, sum, squares)
    NUM factor;
    if (method == L2)
        factor = 1 / fmax(sqrt(squares), eps);
    else
        factor = 1 / sqrt(squares / count + eps);
    for (int k = ITEM; k < inner.size; k += ITEMS) {
        const int channel = (GROUP_X % sets) * step + k / run;
        NUM value = (LOAD(TYPE, from, base + place(kv, inner, k)) - mean) * factor;
        if (scaled)
            value *= LOAD(SCALE, w + wv.at, channel * wv.stride[0]);
        if (biased)
            value += LOAD(SCALE, b + bv.at, channel * bv.stride[0]);
        STORE(TYPE, y + y_at, (LONG)GROUP_X * inner.size + k, value);
    }
}
