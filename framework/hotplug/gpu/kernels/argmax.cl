// The index of the largest (sign 1) or smallest (sign -1) element along an axis, the first of equals;
// NaN comes before all. A work-group per chunk of `chunk` elements of a row. With VALUES, what it finds
// goes to the next launch, value and place; with PLACES, elements have places of their own.

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
argmax(GLOBAL const char *x, const View xv, GLOBAL const char *found, const LONG found_at,
       GLOBAL char *y, const LONG y_at, GLOBAL char *best_of, const LONG best_at, const Shape shape,
       const int count, const LONG stride, const int chunk, const int smallest)
{
    LOCAL NUM values[ITEMS];
    LOCAL int places[ITEMS];
    const int chunks = (count + chunk - 1) / chunk;
    const int row = GROUP_X / chunks;
    const int start = GROUP_X % chunks * chunk;
    const int stop = start + chunk < count ? start + chunk : count;
    const LONG base = place(xv, shape, row);
    const GLOBAL char *from = x + xv.at;
#ifdef PLACES
#define PLACE(k) ((GLOBAL const int *)(found + found_at))[(LONG)row * count + (k)]
#else
#define PLACE(k) (k)
#endif
    NUM best = LOAD(TYPE, from, base + start * stride);
    int at = PLACE(start);
    for (int k = start + ITEM; k < stop; k += ITEMS) {
        const NUM value = LOAD(TYPE, from, base + k * stride);
        if (before(value, PLACE(k), best, at, smallest)) {
            best = value;
            at = PLACE(k);
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
    if (ITEM == 0) {
        ((GLOBAL int *)(y + y_at))[GROUP_X] = places[0];
#ifdef VALUES
        ((GLOBAL NUM *)(best_of + best_at))[GROUP_X] = values[0];
#endif
    }
}
