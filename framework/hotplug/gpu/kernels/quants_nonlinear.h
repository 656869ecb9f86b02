// Nibbles that number unevenly spaced levels (hotplug.quants.nonlinear), which LEVELS are.
CONSTANT signed char levels[16] = {LEVELS};

FUNCTION Word levels_of(Sixteen s, int i)
{
    const UINT number = low_bits(WORD_OF_2(s.low, i), s.shift, 4);
    UINT word = 0;
    UNROLLED
    for (int k = 0; k < PER_WORD; ++k)
        word |= (UINT)(UCHAR)levels[number >> 8 * k & 15] << 8 * k;
    return word;
}

FUNCTION Sixteen iq4_nl_sixteen(Block w, int g)
{
    Sixteen s = scaled(LOAD_HALF(w, 0));
    s.low = w + 2;
    s.shift = 4 * g;
    return s;
}
FUNCTION Word iq4_nl_word(Sixteen s, int i) { return levels_of(s, i); }

FUNCTION Sixteen iq4_xs_sixteen(Block w, int g)
{
    const int group = g / 2;
    const int low = BYTE(w, 4 + group / 2) >> group % 2 * 4 & 15;
    const int high = TWO_BYTES(w, 1) >> 2 * group & 3;
    Sixteen s = scaled(LOAD_HALF(w, 0) * (float)((low | high << 4) - 32));
    s.low = w + 8 + 16 * group;
    s.shift = g % 2 * 4;
    return s;
}
FUNCTION Word iq4_xs_word(Sixteen s, int i) { return levels_of(s, i); }

// All words of a sixteen, where a processor looks bytes up.
#ifdef LOOK_UP
#define ALL_WORDS(s, words) LOOK_UP(words, (CONSTANT const char *)levels, (s).low, (s).shift)
#endif
