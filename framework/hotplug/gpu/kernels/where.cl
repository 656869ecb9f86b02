// Elements of WIDTH bytes of a where the condition holds, else of b.
#define WORD_1 UCHAR
#define WORD_2 USHORT
#define WORD_4 UINT
#define WORD_8 ULONG
#define WORD JOIN(WORD_, WIDTH)

KERNEL(ITEMS)
choose(GLOBAL const char *c, const View cv, GLOBAL const char *a, const View av,
       GLOBAL const char *b, const View bv, GLOBAL char *y, const LONG y_at, const Shape shape)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size)
        return;
    ((GLOBAL WORD *)(y + y_at))[i] =
        LOAD_bool(c + cv.at, place(cv, shape, i))
            ? ((GLOBAL const WORD *)(a + av.at))[place(av, shape, i)]
            : ((GLOBAL const WORD *)(b + bv.at))[place(bv, shape, i)];
}
