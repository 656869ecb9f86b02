// y = f(a, b) with broadcasting. CASES holds one case per function that the dtype has; which one is
// wanted is an argument, so that a dtype takes one compilation and not one per op.

KERNEL(ITEMS)
elementwise(GLOBAL const char *a, const View av, GLOBAL const char *b, const View bv,
            GLOBAL char *y, const LONG y_at, const Shape shape, const int function,
            const NUM p0, const NUM p1, const NUM p2, const NUM p3)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size)
        return;
    const NUM x = LOAD(TYPE, a + av.at, place(av, shape, i));
    const NUM w = LOAD(TYPE, b + bv.at, place(bv, shape, i));
    NUM r = 0;
    switch (function) {
        CASES
    }
    STORE(RESULT, y + y_at, i, r);
}
