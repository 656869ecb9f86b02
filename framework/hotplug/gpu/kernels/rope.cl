// Pairs of a head's elements turned by position * coefficient (/ factor). An item per pair, and per
// element that is not turned. `rows` tells each pair's row of positions. May be in place.

KERNEL(ITEMS)
rope(GLOBAL const char *x, const View xv, GLOBAL const char *positions, const View pv,
     GLOBAL const char *factors, const View fv, GLOBAL const char *table, const LONG coefficients,
     const LONG rows, GLOBAL char *y, const LONG y_at, const Shape shape, const LONG stride,
     const int width, const int pairs, const int tokens, const int heads, const int interleaved,
     const int wide, const int has_factors, const NUM magnitude)
{
    const int items = width - pairs;
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size * items)
        return;
    const int head = i / items;
    const int pair = i - head * items;
    const GLOBAL char *from = x + xv.at;
    const LONG base = place(xv, shape, head);
    const LONG target = (LONG)head * width;
    if (pair >= pairs) {
        const int k = pair + pairs;
        STORE(TYPE, y + y_at, target + k, LOAD(TYPE, from, base + k * stride));
        return;
    }
    const int token = (head / heads) % tokens;
    const LONG row = ((GLOBAL const int *)(table + rows))[pair];
    const LONG at = row * pv.stride[0] + token * pv.stride[1];
    NUM angle = (NUM)LOAD_INDEX(positions + pv.at, at, wide) *
                ((GLOBAL const NUM *)(table + coefficients))[pair];
    if (has_factors)
        angle /= LOAD_f32(factors + fv.at, pair * fv.stride[0]);
    const NUM cosine = magnitude * cos(angle);
    const NUM sine = magnitude * sin(angle);
    const int one = interleaved ? 2 * pair : pair;
    const int two = interleaved ? 2 * pair + 1 : pair + pairs;
    const NUM a = LOAD(TYPE, from, base + one * stride);
    const NUM b = LOAD(TYPE, from, base + two * stride);
    STORE(TYPE, y + y_at, target + one, a * cosine - b * sine);
    STORE(TYPE, y + y_at, target + two, a * sine + b * cosine);
}
