// An f16 scale, and 1 or 2 bits an element one after the other (hotplug.quants.lowbit).
FUNCTION void q1_0_encode(Target w, Numbers x, LONG step)
{
    float sum = 0;
    for (int i = 0; i < 16; ++i) {
        int bits = 0;
        for (int k = 0; k < 8; ++k) {
            const float v = NUMBER(8 * i + k);
            sum += fabs(v);
            bits |= (v >= 0) << k;
        }
        w[2 + i] = (UCHAR)bits;
    }
    STORE_HALF(w, 0, sum / 128);
}

FUNCTION void q2_0_encode(Target w, Numbers x, LONG step)
{
    const float scale = fabs(extreme(x, step, 64));
    const float inverse = reciprocal(scale);
    STORE_HALF(w, 0, scale);
    for (int i = 0; i < 16; ++i) {
        int bits = 0;
        for (int k = 0; k < 4; ++k)
            bits |= ((int)round(PRODUCT(NUMBER(4 * i + k), inverse)) + 1) << 2 * k;
        w[2 + i] = (UCHAR)bits;
    }
}
