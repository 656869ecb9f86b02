// 32 elements, an f16 scale, linear levels (hotplug.quants.legacy): a sixteen is a half of the block,
// of whose nibbles the first has the lower ones.
#define q4_1_LEAST 1
#define q5_1_LEAST 1

FUNCTION Sixteen nibbles_of(Block w, int least_at, int low_at, int g)
{
    Sixteen s = scaled(LOAD_HALF(w, 0));
    s.least = least_at ? -LOAD_HALF(w, 1) : 0;
    s.low = w + low_at;
    s.shift = 4 * g;
    return s;
}

FUNCTION Sixteen q4_0_sixteen(Block w, int g) { return nibbles_of(w, 0, 2, g); }
FUNCTION Word q4_0_word(Sixteen s, int i) { return less(low_bits(WORD_OF_2(s.low, i), s.shift, 4), 8); }

FUNCTION Sixteen q4_1_sixteen(Block w, int g) { return nibbles_of(w, 1, 4, g); }
FUNCTION Word q4_1_word(Sixteen s, int i) { return low_bits(WORD_OF_4(s.low, i), s.shift, 4); }

// The fifth bits lie before the nibbles.
FUNCTION Sixteen q5_0_sixteen(Block w, int g)
{
    Sixteen s = nibbles_of(w, 0, 6, g);
    s.codes = TWO_BYTES(w + 2, g);
    return s;
}
FUNCTION Word q5_0_word(Sixteen s, int i)
{
    return less(low_bits(WORD_OF_2(s.low, i), s.shift, 4) | spread_1(s.codes, i) << 4, 16);
}

FUNCTION Sixteen q5_1_sixteen(Block w, int g)
{
    Sixteen s = nibbles_of(w, 1, 8, g);
    s.codes = TWO_BYTES(w + 4, g);
    return s;
}
FUNCTION Word q5_1_word(Sixteen s, int i)
{
    return low_bits(WORD_OF_4(s.low, i), s.shift, 4) | spread_1(s.codes, i) << 4;
}

FUNCTION Sixteen bytes_of(float scale, Block quants)
{
    Sixteen s = scaled(scale);
    s.low = quants;
    return s;
}
FUNCTION Sixteen q8_0_sixteen(Block w, int g) { return bytes_of(LOAD_HALF(w, 0), w + 2 + 16 * g); }
FUNCTION Word q8_0_word(Sixteen s, int i) { return WORD_OF_2(s.low, i); }

FUNCTION Sixteen q8_1_sixteen(Block w, int g) { return bytes_of(LOAD_HALF(w, 0), w + 4 + 16 * g); }
FUNCTION Word q8_1_word(Sixteen s, int i) { return WORD_OF_4(s.low, i); }
