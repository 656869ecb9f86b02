// Running sums along an axis: a work-group per row, each item a run of neighbours. May be in place.

KERNEL(ITEMS)
scan(GLOBAL const char *x, const View xv, GLOBAL char *y, const View yv, const Shape shape,
     const int count, const LONG stride, const LONG y_stride)
{
    LOCAL NUM part[ITEMS];
    const GLOBAL char *from = x + xv.at;
    const LONG base = place(xv, shape, GROUP_X);
    const LONG target = place(yv, shape, GROUP_X);
    const int run = (count + ITEMS - 1) / ITEMS;
    const int first = ITEM * run;
    const int last = first + run < count ? first + run : count;
    NUM sum = 0;
    for (int k = first; k < last; ++k)
        sum += LOAD(TYPE, from, base + k * stride);
    part[ITEM] = sum;
    BARRIER();
    if (ITEM == 0) {
        NUM before = 0;
        for (int item = 0; item < ITEMS; ++item) {
            const NUM own = part[item];
            part[item] = before;
            before += own;
        }
    }
    BARRIER();
    sum = part[ITEM];
    for (int k = first; k < last; ++k) {
        sum += LOAD(TYPE, from, base + k * stride);
        STORE(TYPE, y + yv.at, target + k * y_stride, sum);
    }
}
