// The largest or the mean of what each place of a window meets: an item per place.

KERNEL(ITEMS)
pool(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG y_at, const Window window,
     const int size, const int channels, const int largest, const int padded)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= size)
        return;
    int rest = i;
    int place[3];
    IN_REGISTERS
    for (int axis = 2; axis >= 0; --axis) {
        place[axis] = rest % window.places[axis];
        rest /= window.places[axis];
    }
    const LONG base = rest / channels * xv.stride[0] + rest % channels * xv.stride[1];
    NUM sum = 0;
    int count = 0;
    for (int j0 = 0; j0 < window.size[0]; ++j0) {
        const int at0 = met(window, 0, place[0], j0);
        if (!inside(window, 0, at0))
            continue;
        for (int j1 = 0; j1 < window.size[1]; ++j1) {
            const int at1 = met(window, 1, place[1], j1);
            if (!inside(window, 1, at1))
                continue;
            for (int j2 = 0; j2 < window.size[2]; ++j2) {
                const int at2 = met(window, 2, place[2], j2);
                if (!inside(window, 2, at2))
                    continue;
                const NUM value = LOAD(TYPE, x + xv.at,
                                       base + at0 * xv.stride[2] + at1 * xv.stride[3] +
                                           at2 * xv.stride[4]);
                if (!largest)
                    sum += value;
                else if (count == 0 || value > sum || value != value) // NaN wins, and stays
                    sum = value;
                ++count;
            }
        }
    }
    const int divisor = padded ? window.size[0] * window.size[1] * window.size[2] : count;
    STORE(TYPE, y + y_at, i, largest ? sum : sum / (NUM)divisor);
}
