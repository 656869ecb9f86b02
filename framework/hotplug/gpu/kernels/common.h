// What all kernels share. A tensor is a buffer and a View; its elements are loaded and stored by the
// name of their dtype: LOAD(f16, p, i). Indices count elements, `at` counts bytes.

#define AXES 6

// A processor runs the items of a group one after the other: there a group has one, and waits for
// none. Its sums have PARTS parts instead, which its vector registers hold. IN_REGISTERS stands before
// loops over what a GPU has to hold in registers: it must know each index when it compiles. BY_EIGHT
// stands where its compiler would unroll loops further, until registers are spilled.
#if ITEMS == 1
#undef BARRIER
#define BARRIER()
#define PARTS 16
#define PART(j) (j) // of a run of 16
#define EACH_PART VECTORISED
#define IN_REGISTERS
#define BY_EIGHT
#else
#define PARTS 1
#define PART(j) 0
#define EACH_PART UNROLLED
#define IN_REGISTERS UNROLLED
#define BY_EIGHT _Pragma("unroll 8")
#endif

// Where an operand's elements lie: bytes to the first, elements from one to the next per axis.
typedef struct {
    LONG at;
    LONG stride[AXES];
} View;

// What a kernel walks over, in row-major order.
typedef struct {
    int size;
    int rank;
    int length[AXES];
} Shape;

// The place of the i-th element of a shape, in elements from the view's first.
FUNCTION LONG place(const View view, const Shape shape, int i)
{
    LONG at = 0;
    IN_REGISTERS
    for (int axis = AXES - 1; axis > 0; --axis) {
        if (axis < shape.rank) {
            const int rest = i / shape.length[axis];
            at += (LONG)(i - rest * shape.length[axis]) * view.stride[axis];
            i = rest;
        }
    }
    return at + (LONG)i * view.stride[0];
}

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#if ITEMS == 1
// Compilers for processors turn one half at a time into a float; this they do for a vector at once.
FUNCTION float half_of(UINT bits)
{
    const UINT shifted = (bits & 0x7fff) << 13;
    const float value = AS_FLOAT(shifted) * 5192296858534827628530496329220096.0f; // 2^112
    const UINT magnitude = (bits & 0x7c00) == 0x7c00 ? shifted | 0x7f800000 : AS_UINT(value);
    return AS_FLOAT(magnitude | (bits & 0x8000) << 16);
}
#define LOAD_f16(p, i) half_of(((GLOBAL const USHORT *)(p))[i])
#ifndef ONE_HALF
#define ONE_HALF(p, i) LOAD_f16(p, i)
#endif
#undef LOAD_HALF
#define LOAD_HALF(p, i) ONE_HALF(p, i) // by itself, such as a scale
#else
#define LOAD_f16(p, i) LOAD_HALF(p, i)
#endif

// bf16 is the upper half of an f32; rounded to nearest, ties to even, and NaN stays NaN.
FUNCTION USHORT bf16_bits(float value)
{
    const UINT bits = AS_UINT(value);
    if (value != value)
        return (USHORT)((bits >> 16) | 0x40);
    return (USHORT)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#define LOAD_f32(p, i) (((GLOBAL const float *)(p))[i])
#define LOAD_bf16(p, i) AS_FLOAT((UINT)((GLOBAL const USHORT *)(p))[i] << 16)
#define LOAD_f64(p, i) (((GLOBAL const double *)(p))[i])
#define LOAD_i8(p, i) ((LONG)((GLOBAL const signed char *)(p))[i])
#define LOAD_i16(p, i) ((LONG)((GLOBAL const short *)(p))[i])
#define LOAD_i32(p, i) ((LONG)((GLOBAL const int *)(p))[i])
#define LOAD_i64(p, i) (((GLOBAL const LONG *)(p))[i])
#define LOAD_bool(p, i) ((LONG)(((GLOBAL const UCHAR *)(p))[i] != 0))

#define STORE_f32(p, i, v) (((GLOBAL float *)(p))[i] = (float)(v))
#define STORE_f16(p, i, v) STORE_HALF(p, i, v)
#define STORE_bf16(p, i, v) (((GLOBAL USHORT *)(p))[i] = bf16_bits(v))
#define STORE_f64(p, i, v) (((GLOBAL double *)(p))[i] = (double)(v))
#define STORE_i8(p, i, v) (((GLOBAL signed char *)(p))[i] = (signed char)(v))
#define STORE_i16(p, i, v) (((GLOBAL short *)(p))[i] = (short)(v))
#define STORE_i32(p, i, v) (((GLOBAL int *)(p))[i] = (int)(v))
#define STORE_i64(p, i, v) (((GLOBAL LONG *)(p))[i] = (LONG)(v))
#define STORE_bool(p, i, v) (((GLOBAL UCHAR *)(p))[i] = (UCHAR)((v) != 0))

#define LOAD(type, p, i) JOIN(LOAD_, type)(p, i)
#define STORE(type, p, i, v) JOIN(STORE_, type)(p, i, v)

#define BYTES_f32 4
#define BYTES_f16 2
#define BYTES_bf16 2
#define BYTES_f64 8
#define BYTES_i8 1
#define BYTES_i16 2
#define BYTES_i32 4
#define BYTES_i64 8
#define BYTES_bool 1
#define BYTES_OF(type) JOIN(BYTES_, type)

// What elements of a dtype are computed in, and literals of it.
#define NUM_f32 float
#define NUM_f16 float
#define NUM_bf16 float
#define NUM_f64 double
#define NUM_i8 LONG
#define NUM_i16 LONG
#define NUM_i32 LONG
#define NUM_i64 LONG
#define NUM_bool LONG
#define NUM JOIN(NUM_, TYPE)
#define K_f32(x) x##f
#define K_f16(x) x##f
#define K_bf16(x) x##f
#define K_f64(x) x
#define K(x) JOIN(K_, TYPE)(x)

// Indices are i32 or i64.
#define LOAD_INDEX(p, i, wide) \
    ((wide) ? ((GLOBAL const LONG *)(p))[i] : (LONG)((GLOBAL const int *)(p))[i])

// The sum of one value per item, known to all of them; `part` holds one value per item.
#define GROUP_SUM(part, value, result)                     \
    {                                                      \
        BARRIER();                                         \
        part[ITEM] = (value);                              \
        BARRIER();                                         \
        for (int half_ = ITEMS / 2; half_ > 0; half_ /= 2) { \
            if (ITEM < half_)                              \
                part[ITEM] += part[ITEM + half_];          \
            BARRIER();                                     \
        }                                                  \
        result = part[0];                                  \
    }
#define GROUP_MAX(part, value, result)                     \
    {                                                      \
        BARRIER();                                         \
        part[ITEM] = (value);                              \
        BARRIER();                                         \
        for (int half_ = ITEMS / 2; half_ > 0; half_ /= 2) { \
            if (ITEM < half_ && part[ITEM] < part[ITEM + half_]) \
                part[ITEM] = part[ITEM + half_];           \
            BARRIER();                                     \
        }                                                  \
        result = part[0];                                  \
    }

// The sums of some values of each of LANES neighbouring items, known to the first of them; `part` holds
// as many for each item.
#define LANES_SUMS(part, values, count)                      \
    {                                                        \
        BARRIER();                                           \
        UNROLLED                                             \
        for (int n_ = 0; n_ < (count); ++n_)                 \
            part[n_][ITEM] = values[n_];                     \
        BARRIER();                                           \
        for (int half_ = LANES / 2; half_ > 0; half_ /= 2) { \
            if (ITEM % LANES < half_)                        \
                UNROLLED                                     \
                for (int n_ = 0; n_ < (count); ++n_)         \
                    part[n_][ITEM] += part[n_][ITEM + half_]; \
            BARRIER();                                       \
        }                                                    \
        UNROLLED                                             \
        for (int n_ = 0; n_ < (count); ++n_)                 \
            values[n_] = part[n_][ITEM];                     \
    }
