// Indices in order (order.h): an element's place is the number of elements
// that come before it. Quadratic, which is the fastest way for the short rows that it is used for.

KERNEL(ITEMS)
sort(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG y_at, const Shape shape,
     const int count, const LONG stride, const int descending, const int kept)
{
    const LONG base = place(xv, shape, GROUP_X);
    const GLOBAL char *from = x + xv.at;
    for (int k = ITEM; k < count; k += ITEMS) {
        const NUM value = LOAD(TYPE, from, base + k * stride);
        int smaller = 0;
        for (int j = 0; j < count; ++j)
            smaller += before(LOAD(TYPE, from, base + j * stride), j, value, k, descending);
        if (smaller < kept)
            ((GLOBAL int *)(y + y_at))[(LONG)GROUP_X * kept + smaller] = k;
    }
}
