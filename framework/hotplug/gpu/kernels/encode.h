// Numbers rounded to blocks of TARGET, as hotplug.quants does it, product by product: a multiply-add
// that rounds once would sometimes take the neighbouring level. T_encode(w, x, step) writes the block
// at w from elements of TYPE, `step` of them from one to the next. Nothing is refused: what is NaN or
// too large for a scale spoils its block.
typedef GLOBAL UCHAR *Target;
typedef GLOBAL const char *Numbers;

#define NUMBER(j) ((float)LOAD(TYPE, x, (j) * step))
#define LEVEL(v, least, most) ((v) < (least) ? (least) : (v) > (most) ? (most) : (v))

// 1 / scale, and 0 where that is no finite number.
FUNCTION float reciprocal(float scale)
{
    const float inverse = 1 / scale;
    return fabs(inverse) <= 3.402823466e38f ? inverse : 0;
}

// The number of largest magnitude, with its sign; the first of equals.
FUNCTION float extreme(Numbers x, LONG step, int count)
{
    float found = NUMBER(0);
    for (int j = 1; j < count; ++j)
        if (fabs(NUMBER(j)) > fabs(found))
            found = NUMBER(j);
    return found;
}

// Eight sums, to which numbers are added in turn: `part` is j % 8. Written so, as a single loop that
// Intel's compiler for processors vectorises loses some of what it adds.
#define IN_EIGHTS(j, part, count)                                                                  \
    for (int j = 0; j < (count);)                                                                  \
        for (int part = 0; part < 8; ++part, ++j)

// They as one, in NumPy's order.
FUNCTION float added(float *sum)
{
    for (int width = 1; width < 8; width *= 2)
        for (int j = 0; j < 8; j += 2 * width)
            sum[j] += sum[j + width];
    return sum[0];
}

FUNCTION void store_32(Target w, UINT bits)
{
    for (int i = 0; i < 4; ++i)
        w[i] = (UCHAR)(bits >> 8 * i);
}
