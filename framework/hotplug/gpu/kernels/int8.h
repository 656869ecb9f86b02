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
typedef GLOBAL const Step *Steps;

#ifdef QUANT
// Products of a sixteen of weights with as many steps.
FUNCTION Parts dot_steps(const Decoded d, Steps x)
{
#if ITEMS == 1
    return dot_pairs(d.word, x);
#else
    int sum = 0;
    UNROLLED
    for (int i = 0; i < WORDS; ++i)
        sum = DOT4(d.word[i], ((GLOBAL const UINT *)x)[i], sum);
    return (float)sum;
#endif
}
#endif
