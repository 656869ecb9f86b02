// Words that processors have besides those of opencl.h: vectors, whose items are one work-item's.
#define PARTS8 float8
#define INTEGERS8 int8
#define FLOATS8(integers) convert_float8(integers)

// Where an instruction does it, and the library's function is not compiled in its place.
#if defined(__F16C__) || defined(__aarch64__)
#define ONE_HALF(p, i) __builtin_load_halff((GLOBAL const half *)(p) + (i))
#endif

typedef uchar16 __attribute__((aligned(1))) Bytes16;
typedef short8 __attribute__((aligned(2))) Shorts8;
typedef short16 __attribute__((aligned(2))) Shorts16;
typedef float16 __attribute__((aligned(4))) Floats16;

// Has bytes fetched that will be needed soon, wherever they are.
#if defined(__x86_64__) || defined(__aarch64__)
#define PREFETCH(p, bytes)                            \
    for (int byte_ = 0; byte_ < (bytes); byte_ += 64) \
        __builtin_prefetch((const void *)((size_t)(p) + byte_));
#else
#define PREFETCH(p, bytes)
#endif

// Sixteen elements beside each other as floats.
typedef ushort16 __attribute__((aligned(2))) Words16;
#define SIXTEEN_f32(p, i) (*(GLOBAL const Floats16 *)((GLOBAL const float *)(p) + (i)))
#define SIXTEEN_bf16(p, i) \
    as_float16(convert_uint16(*(GLOBAL const Words16 *)((GLOBAL const ushort *)(p) + (i))) << 16)
#define SIXTEEN_f16(p, i) sixteen_halves((GLOBAL const ushort *)(p) + (i))
#ifdef __F16C__
FUNCTION float16 sixteen_halves(GLOBAL const ushort *p)
{
    return (float16)(__builtin_ia32_vcvtph2ps256(*(GLOBAL const Shorts8 *)p),
                     __builtin_ia32_vcvtph2ps256(*(GLOBAL const Shorts8 *)(p + 8)));
}
#else
FUNCTION float16 sixteen_halves(GLOBAL const ushort *p) // as half_of does it
{
    const uint16 bits = convert_uint16(*(GLOBAL const Words16 *)p);
    const uint16 shifted = (bits & 0x7fff) << 13;
    const uint16 magnitude = as_uint16(as_float16(shifted) * 5192296858534827628530496329220096.0f);
    const int16 special = (bits & 0x7c00) == 0x7c00;
    return as_float16(select(magnitude, shifted | 0x7f800000, special) | (bits & 0x8000) << 16);
}
#endif

// Sixteen bytes of a table by numbers, which are the nibbles of as many bytes from `shift` on.
#ifdef __SSSE3__
FUNCTION uchar16 looked_up(CONSTANT const char *table, GLOBAL const UCHAR *nibbles, int shift)
{
    const uchar16 numbers = *(GLOBAL const Bytes16 *)nibbles >> (uchar16)(shift) & (uchar16)(15);
    return as_uchar16(__builtin_ia32_pshufb128(vload16(0, table), as_char16(numbers)));
}
#define LOOK_UP(words, table, nibbles, shift) \
    (*(Bytes16 *)(words) = looked_up(table, nibbles, shift))
#endif

// Sixteen signed bytes times as many shorts, neighbouring products added: an instruction of AVX2, which
// compilers know elsewhere as long as the eight sums are not added to others.
FUNCTION int8 dot_pairs(const UCHAR *bytes, LOCAL const short *steps)
{
    const short16 weights = convert_short16(as_char16(*(const Bytes16 *)bytes));
#ifdef __AVX2__
    return __builtin_ia32_pmaddwd256(weights, *(LOCAL const Shorts16 *)steps);
#else
    const int16 products = convert_int16(weights) * convert_int16(*(LOCAL const Shorts16 *)steps);
    return products.even + products.odd;
#endif
}

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
