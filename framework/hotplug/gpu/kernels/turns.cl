// Cosine and sine of the angles by which rope.h turns pairs: position * coefficient (/ factor) for each
// token and pair, times a magnitude. `table` has a coefficient for each pair, and the row of positions that
// it goes by.

KERNEL(ITEMS)
turns(GLOBAL const char *positions, const View pv, GLOBAL const char *factors, const View fv,
      GLOBAL const char *table, const LONG coefficients, const LONG rows, GLOBAL char *y,
      const LONG y_at, const int tokens, const int pairs, const int wide, const int has_factors,
      const NUM magnitude)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= tokens * pairs)
        return;
    const int token = i / pairs;
    const int pair = i - token * pairs;
    const int row = ((GLOBAL const int *)(table + rows))[pair];
    const LONG at = row * pv.stride[0] + token * pv.stride[1];
    NUM angle = (NUM)LOAD_INDEX(positions + pv.at, at, wide) *
                ((GLOBAL const NUM *)(table + coefficients))[pair];
    if (has_factors)
        angle /= LOAD_f32(factors + fv.at, pair * fv.stride[0]);
    STORE(TYPE, y + y_at, 2 * i, magnitude * cos(angle));
    STORE(TYPE, y + y_at, 2 * i + 1, magnitude * sin(angle));
}
