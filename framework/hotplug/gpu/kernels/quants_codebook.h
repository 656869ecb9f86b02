// Points of a codebook, GRID: 4 or 8 elements each, with signs and group scales
// (hotplug.quants.codebook). A point is held as the numbers of its levels, 3 or 2 bits each.
CONSTANT USHORT grid[GRID_SIZE] = {GRID};

// Signs of two points of 8, from 7 bits each: the eighth makes the number of signs even.
FUNCTION UINT even_signs(UINT sevens)
{
    const UINT bits = (sevens & 0x7f) | (sevens & 0x3f80) << 1;
    UINT odd = bits ^ bits >> 4;
    odd ^= odd >> 2;
    odd ^= odd >> 1;
    return bits | (odd & 0x0101) << 7;
}

FUNCTION Sixteen points_of_8(float scale, UINT first, UINT second, UINT signs)
{
    Sixteen s = scaled(scale);
    s.codes = (UINT)grid[first] | (UINT)grid[second] << 16;
    s.signs = signs;
    return s;
}
// 8, 25 or 43
FUNCTION Word iq2_word(Sixteen s, int i)
{
    const UINT number = spread_2(s.codes, i);
    return negated(number * 17 + (number >> 1 & EVERY(1)) + EVERY(8), spread_1(s.signs, i));
}

FUNCTION Sixteen iq2_xxs_sixteen(Block w, int g)
{
    Block group = w + 2 + g / 2 * 8;
    const UINT word = FOUR_BYTES(group, 1);
    const float scale = LOAD_HALF(w, 0) * ((float)(word >> 28) + 0.5f) * 0.25f;
    const int at = g % 2 * 2;
    return points_of_8(scale, BYTE(group, at), BYTE(group, at + 1), even_signs(word >> 7 * at));
}
FUNCTION Word iq2_xxs_word(Sixteen s, int i) { return iq2_word(s, i); }

FUNCTION float iq2_scale(Block w, int scales_at, int g)
{
    const int step = BYTE(w, scales_at + g / 2) >> g % 2 * 4 & 15;
    return LOAD_HALF(w, 0) * ((float)step + 0.5f) * 0.25f;
}
FUNCTION Sixteen iq2_xs_sixteen(Block w, int g)
{
    const UINT first = TWO_BYTES(w + 2, 2 * g);
    const UINT second = TWO_BYTES(w + 2, 2 * g + 1);
    const UINT signs = even_signs(first >> 9 | second >> 9 << 7);
    return points_of_8(iq2_scale(w, 66, g), first & 511, second & 511, signs);
}
FUNCTION Word iq2_xs_word(Sixteen s, int i) { return iq2_word(s, i); }

FUNCTION Sixteen iq2_s_sixteen(Block w, int g)
{
    const int high = BYTE(w, 66 + g / 2) >> g % 2 * 4;
    const UINT first = BYTE(w, 2 + 2 * g) | (high & 3) << 8;
    const UINT second = BYTE(w, 3 + 2 * g) | (high >> 2 & 3) << 8;
    return points_of_8(iq2_scale(w, 74, g), first, second, TWO_BYTES(w + 34, g));
}
FUNCTION Word iq2_s_word(Sixteen s, int i) { return iq2_word(s, i); }

// Four points of 4, numbered by the bytes at `low` and the bits of `high`.
FUNCTION Sixteen points_of_4(float scale, Block low, int high, UINT signs)
{
    Sixteen s = scaled(scale);
    s.codes = grid[BYTE(low, 0) | (high & 1) << 8] | (UINT)grid[BYTE(low, 1) | (high & 2) << 7] << 12;
    s.more = grid[BYTE(low, 2) | (high & 4) << 6] | (UINT)grid[BYTE(low, 3) | (high & 8) << 5] << 12;
    s.signs = signs;
    return s;
}

FUNCTION Sixteen iq3_xxs_sixteen(Block w, int g)
{
    const UINT word = FOUR_BYTES(w + 66, g / 2);
    const float scale = LOAD_HALF(w, 0) * ((float)(word >> 28) + 0.5f) * 0.5f;
    return points_of_4(scale, w + 2 + 4 * g, 0, even_signs(word >> g % 2 * 14));
}
// 4 to 52 in steps of 8, and 62
FUNCTION Word iq3_xxs_word(Sixteen s, int i)
{
    const UINT number = spread_3(s.codes, s.more, i);
    const UINT last = (number + EVERY(1)) >> 3 & EVERY(1);
    return negated(number * 8 + EVERY(4) + last * 2, spread_1(s.signs, i));
}

FUNCTION Sixteen iq3_s_sixteen(Block w, int g)
{
    const int step = BYTE(w, 106 + g / 4) >> g % 4 / 2 * 4 & 15;
    const int high = BYTE(w, 66 + g / 2) >> g % 2 * 4;
    const float scale = LOAD_HALF(w, 0) * (float)(2 * step + 1);
    return points_of_4(scale, w + 2 + 4 * g, high, TWO_BYTES(w + 74, g));
}
// 1 to 15 in steps of 2
FUNCTION Word iq3_s_word(Sixteen s, int i)
{
    return negated(spread_3(s.codes, s.more, i) * 2 + EVERY(1), spread_1(s.signs, i));
}

// -1, 0 or 1, and 1/8 or -1/8 added to all of a point: eight times that. A point's four bits are the
// upper three of its number, and whether an eighth is taken off.
FUNCTION Sixteen eighths(float scale, int step, int first, int second, int fours)
{
    const UINT one = first | (fours & 7) << 8;
    const UINT other = second | (fours & 0x70) << 4;
    const UINT minus = (fours >> 3 & 1) * 0xff | (fours >> 7 & 1) * 0xff00;
    return points_of_8(scale * (float)(2 * step + 1) * 0.125f, one, other, minus);
}
FUNCTION Word iq1_word(Sixteen s, int i)
{
    return less(spread_2(s.codes, i) * 8 + EVERY(2) - spread_1(s.signs, i) * 2, 9);
}

FUNCTION Sixteen iq1_s_sixteen(Block w, int g)
{
    const int group = TWO_BYTES(w + 34, g / 2);
    const int threes = group >> g % 2 * 6;
    const int minus = group >> 15;
    const int fours = (threes & 7) | (threes >> 3 & 7) << 4 | minus * 0x88;
    return eighths(LOAD_HALF(w, 0), group >> 12 & 7, BYTE(w, 2 + 2 * g), BYTE(w, 3 + 2 * g), fours);
}
FUNCTION Word iq1_s_word(Sixteen s, int i) { return iq1_word(s, i); }

FUNCTION Sixteen iq1_m_sixteen(Block w, int g)
{
    Block words = w + 48;
    const UINT bits = TWO_BYTES(words, 0) >> 12 | TWO_BYTES(words, 1) >> 12 << 4 |
                      TWO_BYTES(words, 2) >> 12 << 8 | TWO_BYTES(words, 3) >> 12 << 12;
    const int step = TWO_BYTES(words, g / 4) >> g % 4 * 3 & 7;
    return eighths(half_to_float((USHORT)bits), step, BYTE(w, 2 * g), BYTE(w, 2 * g + 1), BYTE(w, 32 + g));
}
FUNCTION Word iq1_m_word(Sixteen s, int i) { return iq1_word(s, i); }
