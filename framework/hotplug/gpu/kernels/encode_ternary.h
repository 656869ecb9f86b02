// 256 elements of -1, 0 and 1, and an f16 scale (hotplug.quants.ternary).
#define DIGIT(j) ((int)round(PRODUCT(NUMBER(j), inverse)) + 1)

// Digits of base 3, five to a byte at most, of numbers that lie `width` apart.
FUNCTION void store_digits(Target w, Numbers x, LONG step, float inverse, int first, int width,
                           int digits)
{
    for (int i = 0; i < width; ++i) {
        int number = 0;
        for (int k = 0; k < 5; ++k)
            number = number * 3 + (k < digits ? DIGIT(first + k * width + i) : 0);
        w[i] = (UCHAR)((number * 256 + 242) / 243);
    }
}
FUNCTION void tq1_0_encode(Target w, Numbers x, LONG step)
{
    const float scale = fabs(extreme(x, step, 256));
    const float inverse = reciprocal(scale);
    store_digits(w, x, step, inverse, 0, 32, 5);
    store_digits(w + 32, x, step, inverse, 160, 16, 5);
    store_digits(w + 48, x, step, inverse, 240, 4, 4);
    STORE_HALF(w, 26, scale);
}

FUNCTION void tq2_0_encode(Target w, Numbers x, LONG step)
{
    const float scale = fabs(extreme(x, step, 256));
    const float inverse = reciprocal(scale);
    for (int i = 0; i < 64; ++i) {
        const int first = i / 32 * 128 + i % 32;
        w[i] = (UCHAR)(DIGIT(first) | DIGIT(first + 32) << 2 | DIGIT(first + 64) << 4 |
                       DIGIT(first + 96) << 6);
    }
    STORE_HALF(w, 32, scale);
}
