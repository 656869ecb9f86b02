// Pairs of a head's elements turned by position * coefficient (/ factor). An item per pair, and per
// element that is not turned. `rows` tells each pair's row of positions. May be in place. With IDS,
// tokens become the rows of a table of TABLE that these name: what scatter.cl would do next.
#ifndef TABLE
#define TABLE TYPE
#endif

KERNEL(ITEMS)
rope(GLOBAL const char *x, const View xv, GLOBAL const char *positions, const View pv,
     GLOBAL const char *factors, const View fv, GLOBAL const char *table, const LONG coefficients,
     const LONG rows, GLOBAL const char *ids, const View iv, GLOBAL char *y, const LONG y_at, const Shape shape, const LONG stride,
     const int width, const int pairs, const int tokens, const int heads, const int interleaved,
     const int wide, const int has_factors, const int count, const int wide_ids,
     const NUM magnitude)
{
    const int items = width - pairs;
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size * items)
        return;
    const int head = i / items;
    const int pair = i - head * items;
    const GLOBAL char *from = x + xv.at;
    const LONG base = place(xv, shape, head);
    const int token = (head / heads) % tokens;
#ifdef IDS
    const LONG id = LOAD_INDEX(ids + iv.at, token * iv.stride[0], wide_ids);
    int dropped = id < 0 || id >= count;
    for (int later = token + 1; later < tokens; ++later) // of equal ids the last one wins
        dropped |= LOAD_INDEX(ids + iv.at, later * iv.stride[0], wide_ids) == id;
    if (dropped)
        return;
    const LONG target = (id * heads + head % heads) * width;
#else
    const LONG target = (LONG)head * width;
#endif
    if (pair >= pairs) {
        const int k = pair + pairs;
        STORE(TABLE, y + y_at, target + k, LOAD(TYPE, from, base + k * stride));
        return;
    }
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
    STORE(TABLE, y + y_at, target + one, a * cosine - b * sine);
    STORE(TABLE, y + y_at, target + two, a * sine + b * cosine);
}
