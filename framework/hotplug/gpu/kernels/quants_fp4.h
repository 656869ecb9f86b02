// Floats of four bits, e2m1, whose groups share a scale of eight (hotplug.quants.fp4). Levels are
// twice the values, and scales are half of them.
FUNCTION UINT e2m1(UINT nibbles)
{
    const UINT b0 = nibbles & EVERY(1);
    const UINT b1 = nibbles >> 1 & EVERY(1);
    const UINT b2 = nibbles >> 2 & EVERY(1);
    const UINT sign = (nibbles >> 3 & EVERY(1)) * 255;
    // 0 1 2 3 4 6 8 12
    const UINT half_up = b2 & b0;
    const UINT value = (b0 ^ half_up) | ((b1 & ~b2) | (half_up & ~b1)) << 1 |
                       (b2 & (b0 | ~b1)) << 2 | (b2 & b1) << 3;
    return less(EVERY(16) + value - (value << 1 & sign), 16);
}

FUNCTION Sixteen mxfp4_sixteen(Block w, int g)
{
    const int exponent = BYTE(w, 0);
    Sixteen s = scaled(AS_FLOAT(exponent < 2 ? 0x00200000 << exponent : (exponent - 1) << 23));
    s.low = w + 1;
    s.shift = 4 * g;
    return s;
}
FUNCTION Word mxfp4_word(Sixteen s, int i) { return e2m1(low_bits(WORD_OF_1(s.low, i), s.shift, 4)); }

// e4m3 without its sign; the one NaN that there is counts as 0.
FUNCTION float half_e4m3(int bits)
{
    const int exponent = bits >> 3 & 15;
    const int mantissa = bits & 7;
    if (bits == 0x7f)
        return 0;
    return exponent ? AS_FLOAT((exponent + 119) << 23 | mantissa << 20) : (float)mantissa / 1024;
}
FUNCTION Sixteen nvfp4_sixteen(Block w, int g)
{
    Sixteen s = scaled(half_e4m3(BYTE(w, g)));
    s.low = w + 4 + 8 * g;
    return s;
}
FUNCTION Word nvfp4_word(Sixteen s, int i)
{
    const int half_ = WORDS / 2;
    return e2m1(low_bits(WORD_OF_4(s.low, i % half_), i / half_ * 4, 4));
}
