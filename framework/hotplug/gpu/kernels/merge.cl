// Sorted runs of `size` elements, two by two, made into twice as long ones: an element's place is its own
// in its run, and the number of those in the other run that come before it. Elements are values and
// places in their rows; -1 is none, and lies in the last run alone. With LAST only the first `kept` places
// of a row are left.

KERNEL(ITEMS)
merge(GLOBAL const char *x, const LONG values_at, const LONG places_at, GLOBAL char *to,
      const LONG to_values, GLOBAL char *y, const LONG y_at, const int total, const int row_size,
      const int size, const int descending, const int kept)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= total)
        return;
    const int row = i / row_size;
    const int run = (i - row * row_size) / size;
    const int start = row * row_size + (run ^ 1) * size;
    const int left = row_size - (run ^ 1) * size;
    GLOBAL const NUM *values = (GLOBAL const NUM *)(x + values_at);
    GLOBAL const int *places = (GLOBAL const int *)(x + places_at);
    const NUM value = values[i];
    const int at = places[i];
    int low = 0;
    int high = left < 0 ? 0 : left < size ? left : size;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (before(values[start + middle], places[start + middle], value, at, descending))
            low = middle + 1;
        else
            high = middle;
    }
    const int target = i - row * row_size - run % 2 * size + low;
#ifdef LAST
    if (target < kept)
        ((GLOBAL int *)(y + y_at))[(LONG)row * kept + target] = at;
#else
    ((GLOBAL NUM *)(to + to_values))[row * row_size + target] = value;
    ((GLOBAL int *)(y + y_at))[row * row_size + target] = at;
#endif
}
