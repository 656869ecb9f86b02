// Words that processors have besides those of opencl.h: vectors, whose items are one work-item's.
#define PARTS8 float8

// Where an instruction does it, and the library's function is not compiled in its place.
#if defined(__F16C__) || defined(__aarch64__)
#define ONE_HALF(p, i) __builtin_load_halff((GLOBAL const half *)(p) + (i))
#endif

typedef uchar16 __attribute__((aligned(1))) Bytes16;
typedef short16 __attribute__((aligned(2))) Shorts16;

// Sixteen signed bytes times as many shorts, neighbouring products added. Compilers know this for one
// instruction of a processor as long as the eight sums are not added to others.
FUNCTION float8 dot_pairs(const UCHAR *bytes, GLOBAL const short *steps)
{
    const int16 products = convert_int16(as_char16(*(const Bytes16 *)bytes)) *
                           convert_int16(*(GLOBAL const Shorts16 *)steps);
    return convert_float8(products.even + products.odd);
}

FUNCTION float sum_of_8(float8 parts)
{
    const float4 four = parts.lo + parts.hi;
    const float2 two = four.lo + four.hi;
    return two.lo + two.hi;
}
