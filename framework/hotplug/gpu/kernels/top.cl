// Indices of the first elements of long rows in their order (order.h): a work-group sorts a chunk of CHUNK
// elements in local memory and keeps the first ones of it, value and place, from which the next launch
// chooses again, or all, which merge.cl merges. With PLACES, elements have places of their own; -1 is none.
#define CHUNK 1024

KERNEL(ITEMS)
top(GLOBAL const char *x, const View xv, GLOBAL const char *found, const LONG found_at,
    GLOBAL char *y, const LONG y_at, GLOBAL char *kept_values, const LONG values_at,
    const Shape shape, const int count, const LONG stride, const int kept, const int descending)
{
    LOCAL NUM value[CHUNK];
    LOCAL int at[CHUNK];
    const int chunks = (count + CHUNK - 1) / CHUNK;
    const int row = GROUP_X / chunks;
    const int start = GROUP_X % chunks * CHUNK;
    const LONG base = place(xv, shape, row);
    for (int j = ITEM; j < CHUNK; j += ITEMS) {
        const int k = start + j;
        const int there = k < count;
        value[j] = there ? LOAD(TYPE, x + xv.at, base + k * stride) : 0;
#ifdef PLACES
        at[j] = there ? ((GLOBAL const int *)(found + found_at))[(LONG)row * count + k] : -1;
#else
        at[j] = there ? k : -1;
#endif
    }
    // Bitonic: runs of `size` elements are sorted, one up and one down, and made into twice as long ones.
    for (int size = 2; size <= CHUNK; size *= 2)
        for (int step = size / 2; step > 0; step /= 2) {
            BARRIER();
            for (int pair = ITEM; pair < CHUNK / 2; pair += ITEMS) {
                const int one = 2 * pair - (pair & (step - 1));
                const int two = one + step;
                const int up = (one & size) == 0;
                const int wrong = before(value[two], at[two], value[one], at[one], descending);
                if (wrong == up) {
                    const NUM value_one = value[one];
                    const int at_one = at[one];
                    value[one] = value[two];
                    at[one] = at[two];
                    value[two] = value_one;
                    at[two] = at_one;
                }
            }
        }
    BARRIER();
    for (int j = ITEM; j < kept; j += ITEMS) {
        ((GLOBAL int *)(y + y_at))[(LONG)GROUP_X * kept + j] = at[j];
#ifdef VALUES
        ((GLOBAL NUM *)(kept_values + values_at))[(LONG)GROUP_X * kept + j] = value[j];
#endif
    }
}
