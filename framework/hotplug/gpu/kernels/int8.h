// Activations in steps of 8 bits, as quantise.cl leaves them: each block of 32 elements has a scale,
// and each sixteen the sum of its values, for weights with least values. A processor multiplies
// 16-bit numbers, so there a step lies in as many.
#define STEPS_BLOCK 32

#if ITEMS == 1
typedef short Step;
typedef PARTS8 Parts;
#define TOTAL(parts) sum_of_8(parts)
#else
typedef signed char Step;
typedef float Parts;
#define TOTAL(parts) (parts)
#endif

#ifdef DENSE
#define ELEMENT(k, step) (k)
#else
#define ELEMENT(k, step) ((k) * (step))
#endif
#define SMALLEST 1.0e-35f // of less the inverse overflows

// A block of elements, of which VALUE(k) is the k-th. Its scale is the largest magnitude over 127;
// magnitudes are compared as bits, of which those of NaN are the largest. Added to 1.5 * 2^23 a number is
// rounded, and its lower bits are those of an integer.
#define QUANTISE_BLOCK(VALUE, steps, scale, sums)                                    \
    {                                                                                \
        float value_[STEPS_BLOCK];                                                   \
        UINT most_ = 0;                                                              \
        EACH_PART                                                                    \
        for (int k_ = 0; k_ < STEPS_BLOCK; ++k_)                                     \
            value_[k_] = VALUE(k_);                                                  \
        EACH_PART                                                                    \
        for (int k_ = 0; k_ < STEPS_BLOCK; ++k_) {                                   \
            const UINT magnitude_ = AS_UINT(value_[k_]) & 0x7fffffff;                \
            most_ = magnitude_ > most_ ? magnitude_ : most_;                         \
        }                                                                            \
        const float largest_ = AS_FLOAT(most_);                                      \
        const float inverse_ = largest_ > SMALLEST ? 127 / largest_ : 0;             \
        for (int half_ = 0; half_ < 2; ++half_) {                                    \
            int sum_ = 0;                                                            \
            EACH_PART                                                                \
            for (int k_ = 0; k_ < 16; ++k_) {                                        \
                const float rounded_ = value_[16 * half_ + k_] * inverse_ + 12582912.0f; \
                const Step q_ = (Step)(signed char)AS_UINT(rounded_);                \
                (steps)[16 * half_ + k_] = q_;                                       \
                sum_ += q_;                                                          \
            }                                                                        \
            (sums)[half_] = largest_ / 127 * (float)sum_;                            \
        }                                                                            \
        *(scale) = largest_ / 127;                                                   \
    }

#ifdef QUANT
// Products of a sixteen of weights with as many steps.
#if ITEMS > 1
FUNCTION float dot_steps(const Decoded d, GLOBAL const Step *steps)
{
    const UINT4 x = *(GLOBAL const UINT4 *)steps;
    int sum = DOT4(d.word[0], x.x, 0);
    sum = DOT4(d.word[1], x.y, sum);
    sum = DOT4(d.word[2], x.z, sum);
    return (float)DOT4(d.word[3], x.w, sum);
}
#endif
#endif
