// Elements of WIDTH bytes taken from index (i - before) per axis: wrapped round (repeat, roll, pad),
// mirrored at the ends, or, outside, a constant; or from the same share of another length.
#define WORD_1 UCHAR
#define WORD_2 USHORT
#define WORD_4 UINT
#define WORD_8 ULONG
#define WORD JOIN(WORD_, WIDTH)
#define CONSTANT_MODE 0
#define WRAP_MODE 1
#define REFLECT_MODE 2
#define NEAREST_MODE 3

KERNEL(ITEMS)
remap(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG y_at, const Shape shape,
      const Shape source, const Shape before, const int mode, const ULONG value)
{
    int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size)
        return;
    const int target = i;
    LONG from = 0;
    int inside = 1;
    IN_REGISTERS
    for (int axis = AXES - 1; axis >= 0; --axis) {
        if (axis < shape.rank) {
            const int length = source.length[axis];
            const int rest = i / shape.length[axis];
            int at = i - rest * shape.length[axis] - before.length[axis];
            i = rest;
            if (mode == WRAP_MODE)
                at = ((at % length) + length) % length;
            else if (mode == REFLECT_MODE)
                at = at < 0 ? -at : at >= length ? 2 * (length - 1) - at : at;
            else if (mode == NEAREST_MODE)
                at = (int)((LONG)at * length / shape.length[axis]);
            else if (at < 0 || at >= length)
                inside = 0;
            from += (LONG)at * xv.stride[axis];
        }
    }
    ((GLOBAL WORD *)(y + y_at))[target] =
        inside ? ((GLOBAL const WORD *)(x + xv.at))[from] : (WORD)value;
}
