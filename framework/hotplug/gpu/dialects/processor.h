// Words that processors have besides those of opencl.h: vectors, whose items are one work-item's.
#define PARTS8 float8

// Where an instruction does it, and the library's function is not compiled in its place.
#if defined(__F16C__) || defined(__aarch64__)
#define ONE_HALF(p, i) __builtin_load_halff((GLOBAL const half *)(p) + (i))
#endif

typedef uchar16 __attribute__((aligned(1))) Bytes16;
typedef short16 __attribute__((aligned(2))) Shorts16;
typedef float16 __attribute__((aligned(4))) Floats16;

// Sixteen signed bytes times as many shorts, neighbouring products added. Compilers know this for one
// instruction of a processor as long as the eight sums are not added to others.
FUNCTION float8 dot_pairs(const UCHAR *bytes, short16 steps)
{
    const int16 products =
        convert_int16(as_char16(*(const Bytes16 *)bytes)) * convert_int16(steps);
    return convert_float8(products.even + products.odd);
}
#define SHORTS16(local) (*(LOCAL const Shorts16 *)(local))

FUNCTION float sum_of_8(float8 parts)
{
    const float4 four = parts.lo + parts.hi;
    const float2 two = four.lo + four.hi;
    return two.lo + two.hi;
}

// A scalar product of floats, their number a multiple of 16.
FUNCTION float dot_floats(LOCAL const float *a, const float *b, int count)
{
    float16 sum = 0;
    for (int i = 0; i < count; i += 16)
        sum += *(LOCAL const Floats16 *)(a + i) * *(const Floats16 *)(b + i);
    return sum_of_8(sum.lo + sum.hi);
}

// The exponential function to some units in the last place, in what compilers make vectors of.
FUNCTION float exp_of(float x)
{
    const float bounded = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const float shifted = bounded * 1.44269504f + 12582912.0f; // rounded to an integer, as lower bits
    const float whole = shifted - 12582912.0f;
    const float rest = bounded - whole * 0.693145752f - whole * 1.42860677e-6f;
    float power = 1.0f / 720;
    power = power * rest + 1.0f / 120;
    power = power * rest + 1.0f / 24;
    power = power * rest + 1.0f / 6;
    power = power * rest + 0.5f;
    power = power * rest + 1;
    power = power * rest + 1;
    return power * as_float((as_uint(shifted) << 23) + 0x3f800000u);
}
