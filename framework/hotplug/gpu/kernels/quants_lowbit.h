// An f16 scale, and 1 or 2 bits an element one after the other (hotplug.quants.lowbit).
FUNCTION Sixteen q1_0_sixteen(Block w, int g)
{
    Sixteen s = scaled(LOAD_HALF(w, 0));
    s.codes = TWO_BYTES(w + 2, g);
    return s;
}
FUNCTION Word q1_0_word(Sixteen s, int i) { return less(spread_1(s.codes, i) << 1, 1); }

FUNCTION Sixteen q2_0_sixteen(Block w, int g)
{
    Sixteen s = scaled(LOAD_HALF(w, 0));
    s.codes = FOUR_BYTES(w + 2, g);
    return s;
}
FUNCTION Word q2_0_word(Sixteen s, int i) { return less(spread_2(s.codes, i), 1); }
