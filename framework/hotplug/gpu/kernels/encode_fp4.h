// Floats of four bits, e2m1, whose groups share a scale of eight (hotplug.quants.fp4).
CONSTANT float borders[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10};

// The nearest value times twice the scale; of two as near, the smaller one.
FUNCTION int nearest_e2m1(float v, float scale)
{
    int found = 0;
    for (int i = 0; i < 7; ++i)
        found += scale > 0 && fabs(v) > scale * borders[i];
    return v < 0 && found ? found | 8 : found;
}

FUNCTION void mxfp4_encode(Target w, Numbers x, LONG step)
{
    const float largest = fabs(extreme(x, step, 32));
    const int byte = largest > 0 ? (int)fmax(floor(log2(largest)) + 125, 0.0f) : 0;
    const float scale = AS_FLOAT(byte < 2 ? 0x00200000 << byte : (byte - 1) << 23);
    w[0] = (UCHAR)byte;
    for (int j = 0; j < 16; ++j)
        w[1 + j] = nearest_e2m1(NUMBER(j), scale) | nearest_e2m1(NUMBER(j + 16), scale) << 4;
}

// The nearest e4m3 of what is at least 0, up to 448; halves go up. It has eight steps to a power of
// two, none below 2^-9.
FUNCTION int nearest_e4m3(float v)
{
    const float held = fmin(v, 448.0f);
    const int exponent = (int)(AS_UINT(held) >> 23) - 130;
    const int lowest = exponent > -9 ? exponent : -9;
    const int steps = (int)(held * AS_FLOAT((127 - lowest) << 23) + 0.5f);
    return (lowest + 9) * 8 + steps;
}
FUNCTION float half_e4m3(int bits)
{
    const int exponent = bits >> 3;
    return exponent ? AS_FLOAT((exponent + 119) << 23 | (bits & 7) << 20) : (float)bits / 1024;
}
FUNCTION void nvfp4_encode(Target w, Numbers all, LONG step)
{
    for (int g = 0; g < 4; ++g) {
        Numbers x = all + 16 * g * step * BYTES_OF(TYPE);
        const int byte = nearest_e4m3(fabs(extreme(x, step, 16)) / 6);
        const float scale = half_e4m3(byte);
        w[g] = (UCHAR)byte;
        for (int j = 0; j < 8; ++j)
            w[4 + 8 * g + j] = nearest_e2m1(NUMBER(j), scale) | nearest_e2m1(NUMBER(j + 8), scale) << 4;
    }
}
