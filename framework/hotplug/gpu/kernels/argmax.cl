// The index of the largest (sign 1) or smallest (sign -1) element along an axis, the first of equals;
// NaN comes before all. A work-group per result.

FUNCTION int before(NUM a, int a_at, NUM b, int b_at, int smallest)
{
    const int a_nan = a != a;
    const int b_nan = b != b;
    if (a_nan != b_nan)
        return a_nan;
    if (!a_nan && a != b)
        return smallest ? a < b : a > b;
    return a_at < b_at;
}

KERNEL(ITEMS)
argmax(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG y_at, const Shape shape,
       const int count, const LONG stride, const int smallest)
{
    LOCAL NUM values[ITEMS];
    LOCAL int places[ITEMS];
    const LONG base = place(xv, shape, GROUP_X);
    const GLOBAL char *from = x + xv.at;
    NUM best = LOAD(TYPE, from, base);
    int at = 0;
    for (int k = ITEM; k < count; k += ITEMS) {
        const NUM value = LOAD(TYPE, from, base + k * stride);
        if (before(value, k, best, at, smallest)) {
            best = value;
            at = k;
        }
    }
    values[ITEM] = best;
    places[ITEM] = at;
    BARRIER();
    for (int half_ = ITEMS / 2; half_ > 0; half_ /= 2) {
        const int other = ITEM + half_;
        if (ITEM < half_ &&
            before(values[other], places[other], values[ITEM], places[ITEM], smallest)) {
            values[ITEM] = values[other];
            places[ITEM] = places[other];
        }
        BARRIER();
    }
    if (ITEM == 0)
        ((GLOBAL int *)(y + y_at))[GROUP_X] = places[0];
}
