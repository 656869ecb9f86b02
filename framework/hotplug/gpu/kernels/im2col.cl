// Elements of WIDTH bytes that each place of a window meets, zeros outside: an item per element of
// (batch, places, channels, kernel).
#define WORD_1 UCHAR
#define WORD_2 USHORT
#define WORD_4 UINT
#define WORD_8 ULONG
#define WORD JOIN(WORD_, WIDTH)

KERNEL(ITEMS)
im2col(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG y_at, const Window window,
       const int size, const int channels)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= size)
        return;
    int rest = i;
    int element[3];
    int met_at[3];
    IN_REGISTERS
    for (int axis = 2; axis >= 0; --axis) {
        element[axis] = rest % window.size[axis];
        rest /= window.size[axis];
    }
    const int channel = rest % channels;
    rest /= channels;
    int there = 1;
    IN_REGISTERS
    for (int axis = 2; axis >= 0; --axis) {
        met_at[axis] = met(window, axis, rest % window.places[axis], element[axis]);
        there = there && inside(window, axis, met_at[axis]);
        rest /= window.places[axis];
    }
    const LONG from = rest * xv.stride[0] + channel * xv.stride[1] + met_at[0] * xv.stride[2] +
                      met_at[1] * xv.stride[3] + met_at[2] * xv.stride[4];
    ((GLOBAL WORD *)(y + y_at))[i] = there ? ((GLOBAL const WORD *)(x + xv.at))[from] : 0;
}
