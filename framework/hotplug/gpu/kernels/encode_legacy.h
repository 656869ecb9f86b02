// 32 elements, an f16 scale, linear levels (hotplug.quants.legacy).

// Level 0 is the number of largest magnitude, whatever its sign; the middle level is 0.
FUNCTION int from_zero(float v, float inverse, int levels)
{
    const float level = PRODUCT(v, inverse) + ((float)levels / 2 + 0.5f);
    return (int)fmin(level, (float)(levels - 1));
}
FUNCTION float scale_from_zero(Target w, Numbers x, LONG step, int levels)
{
    const float scale = extreme(x, step, 32) / ((float)levels / -2);
    STORE_HALF(w, 0, scale);
    return reciprocal(scale);
}

// Levels go from the smallest to the largest number.
FUNCTION int from_least(float v, float least, float inverse, int levels)
{
    return (int)fmin(PRODUCT(v - least, inverse) + 0.5f, (float)(levels - 1));
}
FUNCTION float scale_from_least(Target w, Numbers x, LONG step, int levels, float *least)
{
    float most = NUMBER(0);
    *least = most;
    for (int j = 1; j < 32; ++j) {
        most = fmax(most, NUMBER(j));
        *least = fmin(*least, NUMBER(j));
    }
    const float scale = (most - *least) / (float)(levels - 1);
    STORE_HALF(w, 0, scale);
    STORE_HALF(w, 1, *least);
    return reciprocal(scale);
}

FUNCTION void q4_0_encode(Target w, Numbers x, LONG step)
{
    const float inverse = scale_from_zero(w, x, step, 16);
    for (int j = 0; j < 16; ++j)
        w[2 + j] = from_zero(NUMBER(j), inverse, 16) | from_zero(NUMBER(j + 16), inverse, 16) << 4;
}

FUNCTION void q4_1_encode(Target w, Numbers x, LONG step)
{
    float least;
    const float inverse = scale_from_least(w, x, step, 16, &least);
    for (int j = 0; j < 16; ++j)
        w[4 + j] = from_least(NUMBER(j), least, inverse, 16) |
                   from_least(NUMBER(j + 16), least, inverse, 16) << 4;
}

FUNCTION void q5_0_encode(Target w, Numbers x, LONG step)
{
    const float inverse = scale_from_zero(w, x, step, 32);
    UINT fifth = 0;
    for (int j = 0; j < 16; ++j) {
        const int low = from_zero(NUMBER(j), inverse, 32);
        const int high = from_zero(NUMBER(j + 16), inverse, 32);
        fifth |= (UINT)(low >> 4) << j | (UINT)(high >> 4) << (j + 16);
        w[6 + j] = (low & 15) | (high & 15) << 4;
    }
    store_32(w + 2, fifth);
}

FUNCTION void q5_1_encode(Target w, Numbers x, LONG step)
{
    float least;
    const float inverse = scale_from_least(w, x, step, 32, &least);
    UINT fifth = 0;
    for (int j = 0; j < 16; ++j) {
        const int low = from_least(NUMBER(j), least, inverse, 32);
        const int high = from_least(NUMBER(j + 16), least, inverse, 32);
        fifth |= (UINT)(low >> 4) << j | (UINT)(high >> 4) << (j + 16);
        w[8 + j] = (low & 15) | (high & 15) << 4;
    }
    store_32(w + 4, fifth);
}

// Signed bytes; the result is scale times their sum.
FUNCTION float store_bytes(Target w, Target quants, Numbers x, LONG step)
{
    const float scale = fabs(extreme(x, step, 32)) / 127;
    const float inverse = reciprocal(scale);
    int sum = 0;
    STORE_HALF(w, 0, scale);
    for (int j = 0; j < 32; ++j) {
        const int q = (int)round(PRODUCT(NUMBER(j), inverse));
        sum += q;
        quants[j] = (UCHAR)q;
    }
    return (float)sum * scale;
}
FUNCTION void q8_0_encode(Target w, Numbers x, LONG step) { store_bytes(w, w + 2, x, step); }
FUNCTION void q8_1_encode(Target w, Numbers x, LONG step)
{
    STORE_HALF(w, 1, store_bytes(w, w + 4, x, step));
}
