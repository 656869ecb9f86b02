// What im2col takes apart, added up: an item per element of (batch, channels, lengths). The columns
// have strides of batch, three axes of places, and column.

KERNEL(ITEMS)
col2im(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG y_at, const Window window,
       const int size, const int channels)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= size)
        return;
    int rest = i;
    int at[3];
    IN_REGISTERS
    for (int axis = 2; axis >= 0; --axis) {
        at[axis] = rest % window.length[axis] + window.padding[axis];
        rest /= window.length[axis];
    }
    const LONG base = rest / channels * xv.stride[0];
    const int first = rest % channels * window.size[0];
    NUM sum = 0;
    for (int j0 = 0; j0 < window.size[0]; ++j0) {
        const int m0 = (at[0] - j0 * window.dilation[0]) / window.stride[0];
        if (met(window, 0, m0, j0) != at[0] - window.padding[0] || m0 < 0 || m0 >= window.places[0])
            continue;
        for (int j1 = 0; j1 < window.size[1]; ++j1) {
            const int m1 = (at[1] - j1 * window.dilation[1]) / window.stride[1];
            if (met(window, 1, m1, j1) != at[1] - window.padding[1] || m1 < 0 ||
                m1 >= window.places[1])
                continue;
            for (int j2 = 0; j2 < window.size[2]; ++j2) {
                const int m2 = (at[2] - j2 * window.dilation[2]) / window.stride[2];
                if (met(window, 2, m2, j2) != at[2] - window.padding[2] || m2 < 0 ||
                    m2 >= window.places[2])
                    continue;
                const int column = ((first + j0) * window.size[1] + j1) * window.size[2] + j2;
                sum += LOAD(TYPE, x + xv.at,
                            base + m0 * xv.stride[1] + m1 * xv.stride[2] + m2 * xv.stride[3] +
                                column * xv.stride[4]);
            }
        }
    }
    STORE(TYPE, y + y_at, i, sum);
}
