// 256 elements whose groups of 16 or 32 have small scales of their own (hotplug.quants.kquants).
#define q2_k_LEAST 1
#define q4_k_LEAST 1
#define q5_k_LEAST 1

// The two bits of q2_k and q3_k: four pairs of a byte belong to elements 32 apart.
FUNCTION Sixteen pairs_of(float scale, Block low, int g)
{
    Sixteen s = scaled(scale);
    s.low = low + g / 8 * 32 + g % 2 * 16;
    s.shift = g % 8 / 2 * 2;
    return s;
}

FUNCTION Sixteen q2_k_sixteen(Block w, int g)
{
    const int both = BYTE(w, g);
    Sixteen s = pairs_of(LOAD_HALF(w, 40) * (float)(both & 15), w + 16, g);
    s.least = LOAD_HALF(w, 41) * (float)(both >> 4);
    return s;
}
FUNCTION Word q2_k_word(Sixteen s, int i) { return low_bits(WORD_OF_4(s.low, i), s.shift, 2); }

// 16 scales of 6 bits: lower halves of 8 bytes, then upper ones; 4 bytes have the two high bits.
FUNCTION Sixteen q3_k_sixteen(Block w, int g)
{
    const int low = BYTE(w, 96 + g % 8) >> g / 8 * 4 & 15;
    const int high = BYTE(w, 104 + g % 4) >> g / 4 * 2 & 3;
    Sixteen s = pairs_of(LOAD_HALF(w, 54) * (float)((low | high << 4) - 32), w + 32, g);
    s.high = w + g % 2 * 16;
    s.lift = g / 2;
    return s;
}
FUNCTION Word q3_k_word(Sixteen s, int i)
{
    const UINT high = low_bits(WORD_OF_2(s.high, i), s.lift, 1);
    return less(low_bits(WORD_OF_2(s.low, i), s.shift, 2) | high << 2, 4);
}

// Scale and least value of groups of 32: six bits each, in twelve bytes.
FUNCTION Sixteen q4_k_sixteen(Block w, int g)
{
    const int group = g / 2;
    const int at = group % 4;
    const int last = BYTE(w, 12 + at);
    const int scale = group < 4 ? BYTE(w, 4 + at) & 63 : (last & 15) | BYTE(w, 4 + at) >> 6 << 4;
    const int least = group < 4 ? BYTE(w, 8 + at) & 63 : last >> 4 | BYTE(w, 8 + at) >> 6 << 4;
    Sixteen s = scaled(LOAD_HALF(w, 0) * (float)scale);
    s.least = LOAD_HALF(w, 1) * (float)least;
    s.low = w + 16 + g / 4 * 32 + g % 2 * 16;
    s.shift = g % 4 / 2 * 4;
    return s;
}
FUNCTION Word q4_k_word(Sixteen s, int i) { return low_bits(WORD_OF_4(s.low, i), s.shift, 4); }

FUNCTION Sixteen q5_k_sixteen(Block w, int g)
{
    Sixteen s = q4_k_sixteen(w, g);
    s.low += 32;
    s.high = w + 16 + g % 2 * 16;
    s.lift = g / 2;
    return s;
}
FUNCTION Word q5_k_word(Sixteen s, int i)
{
    return q4_k_word(s, i) | low_bits(WORD_OF_4(s.high, i), s.lift, 1) << 4;
}

FUNCTION Sixteen q6_k_sixteen(Block w, int g)
{
    Sixteen s = scaled(LOAD_HALF(w, 104) * SIGNED(w + 192, g));
    s.low = w + g / 8 * 64 + g % 4 * 16;
    s.shift = g % 8 / 4 * 4;
    s.high = w + 128 + g / 8 * 32 + g % 2 * 16;
    s.lift = g % 8 / 2 * 2;
    return s;
}
FUNCTION Word q6_k_word(Sixteen s, int i)
{
    const UINT high = low_bits(WORD_OF_2(s.high, i), s.lift, 2);
    return less(low_bits(WORD_OF_2(s.low, i), s.shift, 4) | high << 4, 32);
}

FUNCTION Sixteen q8_k_sixteen(Block w, int g)
{
    Sixteen s = scaled(LOAD_f32(w, 0));
    s.low = w + 4 + 16 * g;
    return s;
}
FUNCTION Word q8_k_word(Sixteen s, int i) { return WORD_OF_4(s.low, i); }
