// Convolution as a product of matrices that are never written down: w (outputs x depth) times what
// the kernel covers (depth x places), depth counting channels and kernel elements. A work-group makes
// OUTS x PLACES outputs from slices in local memory; an item has DOWN x ACROSS of them at a time in
// registers, neighbouring items neighbouring places.
#define ITEMS_ACROSS (ITEMS / ITEMS_DOWN)
#define HIGH (DOWN * ITEMS_DOWN)
#define WIDE (ACROSS * ITEMS_ACROSS)
#define PLACE_STEP (ITEMS < PLACES ? ITEMS : PLACES)
#define DEPTH_STEP (ITEMS < PLACES ? 1 : ITEMS / PLACES)

KERNEL(ITEMS)
conv(GLOBAL const char *x, const View xv, GLOBAL const char *w, const View wv,
     GLOBAL const char *table, const LONG axes, GLOBAL char *y, const LONG y_at,
     const Shape in, const Shape out, const int down, const int across, const int groups,
     const int outputs, const int channels, const int batches)
{
    LOCAL NUM left[DEPTH][OUTS + 1];
    LOCAL NUM right[DEPTH][PLACES];
    LOCAL LONG w_from[DEPTH]; // of a depth: from the first element of an output
    LOCAL LONG x_from[DEPTH]; // from the element that a place's first kernel element meets
    LOCAL int reach[3][DEPTH];
    LOCAL LONG base[PLACES]; // of a place: its first element of x, and where that is
    LOCAL int spot[3][PLACES];
    int rest = GROUP_X;
    const int output = rest % down * OUTS;
    rest /= down;
    const int place = rest % across * PLACES;
    rest /= across;
    const int group = rest % groups;
    rest /= groups;
    const int batch = rest % batches;
    GLOBAL const Axis *phase = (GLOBAL const Axis *)(table + axes) + 3 * (rest / batches);
    const Axis a = phase[0];
    const Axis b = phase[1];
    const Axis c = phase[2];
    const int places = a.places * b.places * c.places;
    const int elements = a.count * b.count * c.count;
    const int depth = channels * elements;
    if (place >= places)
        return;
    const LONG w_base = group * wv.stride[0] + output * wv.stride[1];
    for (int p = ITEM; p < PLACES; p += ITEMS) {
        const int m = place + p < places ? place + p : places - 1;
        const int at0 = m / c.places / b.places * a.step + a.origin;
        const int at1 = m / c.places % b.places * b.step + b.origin;
        const int at2 = m % c.places * c.step + c.origin;
        spot[0][p] = at0;
        spot[1][p] = at1;
        spot[2][p] = at2;
        base[p] = batch * xv.stride[0] + group * channels * xv.stride[1] + at0 * xv.stride[2] +
                  at1 * xv.stride[3] + at2 * xv.stride[4];
    }
    const int item_down = ITEM / ITEMS_ACROSS;
    const int item_across = ITEM % ITEMS_ACROSS;
    NUM sum[OUTS / HIGH][PLACES / WIDE][DOWN][ACROSS];
    IN_REGISTERS
    for (int r0 = 0; r0 < OUTS / HIGH; ++r0)
        IN_REGISTERS
        for (int c0 = 0; c0 < PLACES / WIDE; ++c0)
            IN_REGISTERS
            for (int r = 0; r < DOWN; ++r)
                IN_REGISTERS
                for (int q = 0; q < ACROSS; ++q)
                    sum[r0][c0][r][q] = 0;

    for (int start = 0; start < depth; start += DEPTH) {
        for (int d = ITEM; d < DEPTH; d += ITEMS) {
            const int channel = (start + d) / elements;
            const int element = (start + d) % elements;
            const int j0 = element / c.count / b.count;
            const int j1 = element / c.count % b.count;
            const int j2 = element % c.count;
            reach[0][d] = j0 * a.move;
            reach[1][d] = j1 * b.move;
            reach[2][d] = j2 * c.move;
            x_from[d] = channel * xv.stride[1] + j0 * a.move * xv.stride[2] +
                        j1 * b.move * xv.stride[3] + j2 * c.move * xv.stride[4];
            w_from[d] = channel * wv.stride[2] + (a.first + j0 * a.skip) * wv.stride[3] +
                        (b.first + j1 * b.skip) * wv.stride[4] +
                        (c.first + j2 * c.skip) * wv.stride[5];
        }
        BARRIER();
        for (int e = ITEM; e < OUTS * DEPTH; e += ITEMS) {
            const int d = e % DEPTH;
            const int o = e / DEPTH;
            const int there = output + o < outputs && start + d < depth;
            left[d][o] = there ? (NUM)LOAD(W, w + wv.at, w_base + o * wv.stride[1] + w_from[d]) : 0;
        }
        for (int d = ITEM / PLACES; d < DEPTH; d += DEPTH_STEP) {
            const int there = start + d < depth;
            const int reach0 = reach[0][d];
            const int reach1 = reach[1][d];
            const int reach2 = reach[2][d];
            const LONG from = x_from[d];
            EACH_PART
            for (int p = ITEM % PLACES; p < PLACES; p += PLACE_STEP) {
                const int at0 = spot[0][p] + reach0;
                const int at1 = spot[1][p] + reach1;
                const int at2 = spot[2][p] + reach2;
                const int met = there && at0 >= 0 && at0 < in.length[0] && at1 >= 0 &&
                                at1 < in.length[1] && at2 >= 0 && at2 < in.length[2];
                right[d][p] = met ? (NUM)LOAD(X, x + xv.at, from + base[p]) : 0;
            }
        }
        BARRIER();
        IN_REGISTERS
        for (int r0 = 0; r0 < OUTS / HIGH; ++r0)
            IN_REGISTERS
            for (int c0 = 0; c0 < PLACES / WIDE; ++c0) {
                NUM few[DOWN][ACROSS];
                UNROLLED
                for (int r = 0; r < DOWN; ++r)
                    UNROLLED
                    for (int q = 0; q < ACROSS; ++q)
                        few[r][q] = sum[r0][c0][r][q];
                BY_EIGHT
                for (int d = 0; d < DEPTH; ++d)
                    UNROLLED
                    for (int r = 0; r < DOWN; ++r)
                        UNROLLED
                        for (int q = 0; q < ACROSS; ++q)
                            few[r][q] += left[d][r0 * HIGH + item_down * DOWN + r] *
                                         right[d][c0 * WIDE + q * ITEMS_ACROSS + item_across];
                UNROLLED
                for (int r = 0; r < DOWN; ++r)
                    UNROLLED
                    for (int q = 0; q < ACROSS; ++q)
                        sum[r0][c0][r][q] = few[r][q];
            }
        BARRIER();
    }

    IN_REGISTERS
    for (int c0 = 0; c0 < PLACES / WIDE; ++c0)
        IN_REGISTERS
        for (int q = 0; q < ACROSS; ++q) {
            const int m = place + c0 * WIDE + q * ITEMS_ACROSS + item_across;
            const int to0 = a.to + m / c.places / b.places * a.stride;
            const int to1 = b.to + m / c.places % b.places * b.stride;
            const int to2 = c.to + m % c.places * c.stride;
            const LONG to = ((LONG)to0 * out.length[1] + to1) * out.length[2] + to2;
            IN_REGISTERS
            for (int r0 = 0; r0 < OUTS / HIGH; ++r0)
                IN_REGISTERS
                for (int r = 0; r < DOWN; ++r) {
                    const int o = output + r0 * HIGH + item_down * DOWN + r;
                    if (m < places && o < outputs)
                        STORE(TYPE, y + y_at,
                              (((LONG)batch * groups + group) * outputs + o) * out.size + to,
                              sum[r0][c0][r][q]);
                }
        }
}
