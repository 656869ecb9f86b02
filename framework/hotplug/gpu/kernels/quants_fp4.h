// Floats of four bits, e2m1, whose groups share a scale of eight (hotplug.quants.fp4). Levels are
// twice the values, and scales are half of them.
FUNCTION UINT e2m1(UINT numbers)
{
    const UINT number = numbers & EVERY(7);
    const UINT upper = number >> 2 & EVERY(1);
    const UINT last = (number + EVERY(1)) >> 3 & EVERY(1);
    const UINT level = number + (number & upper * 3) + last * 2; // 0 1 2 3 4 6 8 12
    return with_signs(level, numbers >> 3 & EVERY(1));
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
    s.codes = FOUR_BYTES(w + 4, 2 * g);
    s.more = FOUR_BYTES(w + 4, 2 * g + 1);
    return s;
}
FUNCTION Word nvfp4_word(Sixteen s, int i) { return e2m1(nibbles(s.codes, s.more, i)); }
