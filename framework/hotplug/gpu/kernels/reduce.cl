// One value from `count` elements along an axis: a work-group per result.
#define SUM 0
#define PROD 1
#define MEAN 2
#define LARGEST 3
#define SMALLEST 4

FUNCTION NUM combine(int function, NUM a, NUM b)
{
    if (function == PROD)
        return a * b;
    if (function == LARGEST)
        return b != b || b > a ? b : a; // NaN wins, and stays
    if (function == SMALLEST)
        return b != b || b < a ? b : a;
    return a + b;
}

KERNEL(ITEMS)
reduce(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG y_at, const Shape shape,
       const int count, const LONG stride, const int function)
{
    LOCAL NUM part[ITEMS];
    const LONG base = place(xv, shape, GROUP_X);
    const GLOBAL char *from = x + xv.at;
    NUM value = function == PROD ? 1 : 0;
    if (function >= LARGEST)
        value = LOAD(TYPE, from, base);
    for (int k = ITEM; k < count; k += ITEMS)
        value = combine(function, value, LOAD(TYPE, from, base + k * stride));
    part[ITEM] = value;
    BARRIER();
    for (int half_ = ITEMS / 2; half_ > 0; half_ /= 2) {
        if (ITEM < half_)
            part[ITEM] = combine(function, part[ITEM], part[ITEM + half_]);
        BARRIER();
    }
    if (ITEM == 0)
        STORE(TYPE, y + y_at, GROUP_X, function == MEAN ? part[0] / (NUM)count : part[0]);
}
