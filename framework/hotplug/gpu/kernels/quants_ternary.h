// 256 elements of -1, 0 and 1, and an f16 scale (hotplug.quants.ternary).

// Digits of base 3, five to a byte, the leading one first: `shift` is the power of 3 that brings the
// wanted one there. Only the last four bytes have the four digits that they hold in one sixteen.
FUNCTION int power_of_3(int digit)
{
    return digit == 0 ? 1 : digit == 1 ? 3 : digit == 2 ? 9 : digit == 3 ? 27 : 81;
}
FUNCTION Sixteen tq1_0_sixteen(Block w, int g)
{
    Sixteen s = scaled(LOAD_HALF(w, 26));
    s.low = g < 10 ? w + g % 2 * 16 : g < 15 ? w + 32 : w + 48;
    s.shift = g < 10 ? power_of_3(g / 2) : power_of_3(g - 10);
    s.lift = g < 15 ? 0 : 1;
    return s;
}
FUNCTION Word tq1_0_word(Sixteen s, int i)
{
    const UINT word = WORD_OF_2(s.low, s.lift ? i % (4 / PER_WORD) : i);
    const UINT power = s.lift ? power_of_3(i / (4 / PER_WORD)) : s.shift;
    // Every second byte has room for its product.
    const UINT even = ((word & 0x00ff00ff) * power & 0x00ff00ff) * 3 >> 8 & 0x00030003;
    const UINT odd = ((word >> 8 & 0x00ff00ff) * power & 0x00ff00ff) * 3 & 0x03000300;
    return less(even | odd, 1);
}

FUNCTION Sixteen tq2_0_sixteen(Block w, int g)
{
    Sixteen s = scaled(LOAD_HALF(w, 32));
    s.low = w + g / 8 * 32 + g % 2 * 16;
    s.shift = g % 8 / 2 * 2;
    return s;
}
FUNCTION Word tq2_0_word(Sixteen s, int i)
{
    return less(low_bits(WORD_OF_2(s.low, i), s.shift, 2), 1);
}
