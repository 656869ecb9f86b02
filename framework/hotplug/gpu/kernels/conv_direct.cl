// Convolution with few products in a sum, or few outputs of a group: an item per output.

BUSY_KERNEL(ITEMS)
conv_direct(GLOBAL const char *x, const View xv, GLOBAL const char *w, const View wv,
            GLOBAL const char *table, const LONG axes, GLOBAL char *y, const LONG y_at,
            const Shape in, const Shape out, const int size, const int places, const int groups,
            const int outputs, const int channels)
{
    GLOBAL const Axis *phase = (GLOBAL const Axis *)(table + axes) + 3 * GROUP_Y;
    const Axis a = phase[0];
    const Axis b = phase[1];
    const Axis c = phase[2];
    const int i = GROUP_X * ITEMS + ITEM;
    const int m = i % places;
    if (i >= size || m >= a.places * b.places * c.places)
        return;
    const int output = i / places % (groups * outputs);
    const int batch = i / places / (groups * outputs);
    const int group = output / outputs;
    const int m2 = m % c.places;
    const int m1 = m / c.places % b.places;
    const int m0 = m / c.places / b.places;
    const LONG x_base = batch * xv.stride[0] + group * channels * xv.stride[1];
    const LONG w_base = group * wv.stride[0] + output % outputs * wv.stride[1];
    NUM sum = 0;
    for (int channel = 0; channel < channels; ++channel)
        for (int j0 = 0; j0 < a.count; ++j0) {
            const int at0 = m0 * a.step + a.origin + j0 * a.move;
            if (at0 < 0 || at0 >= in.length[0])
                continue;
            for (int j1 = 0; j1 < b.count; ++j1) {
                const int at1 = m1 * b.step + b.origin + j1 * b.move;
                if (at1 < 0 || at1 >= in.length[1])
                    continue;
                const LONG x_at = x_base + channel * xv.stride[1] + at0 * xv.stride[2] +
                                  at1 * xv.stride[3];
                const LONG w_at = w_base + channel * wv.stride[2] +
                                  (a.first + j0 * a.skip) * wv.stride[3] +
                                  (b.first + j1 * b.skip) * wv.stride[4];
                for (int j2 = 0; j2 < c.count; ++j2) {
                    const int at2 = m2 * c.step + c.origin + j2 * c.move;
                    if (at2 >= 0 && at2 < in.length[2])
                        sum += (NUM)LOAD(X, x + xv.at, x_at + at2 * xv.stride[4]) *
                               (NUM)LOAD(W, w + wv.at,
                                         w_at + (c.first + j2 * c.skip) * wv.stride[5]);
                }
            }
        }
    const LONG line = ((LONG)batch * groups * outputs + output) * out.length[0] + a.to + m0 * a.stride;
    const LONG row = line * out.length[1] + b.to + m1 * b.stride;
    STORE(TYPE, y + y_at, row * out.length[2] + c.to + m2 * c.stride, sum);
}
