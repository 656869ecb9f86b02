// Integer arithmetic that wraps around and never traps.

FUNCTION LONG divide(LONG x, LONG w)
{
    if (w == 0)
        return 0;
    return w == -1 ? (LONG)(0 - (ULONG)x) : x / w; // the least integer by -1 would trap
}

FUNCTION LONG power(LONG x, LONG w)
{
    ULONG result = 1;
    ULONG base = (ULONG)x;
    if (w < 0)
        return 0;
    for (; w > 0; w >>= 1) {
        if (w & 1)
            result *= base;
        base *= base;
    }
    return (LONG)result;
}
