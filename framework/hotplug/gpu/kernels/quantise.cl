// Rows of a product's left operand in steps of 8 bits (see int8.h). A block's scale is its largest
// magnitude over 127; an item has `each` blocks. `step` is from element to element of a row.
#ifdef DENSE
#define ELEMENT(k) (k)
#else
#define ELEMENT(k) ((k) * step)
#endif
#define SMALLEST 1.0e-35f // of less the inverse overflows

KERNEL(ITEMS)
quantise(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG steps_at,
         const LONG scales_at, const LONG sums_at, const Shape rows, const LONG step,
         const int row_blocks, const int each)
{
    const int first = (GROUP_X * ITEMS + ITEM) * each;
    for (int block = first; block < first + each && block < rows.size * row_blocks; ++block) {
        const LONG at = place(xv, rows, block / row_blocks) +
                        (LONG)(block % row_blocks) * STEPS_BLOCK * step;
        GLOBAL Step *steps = (GLOBAL Step *)(y + steps_at) + (LONG)block * STEPS_BLOCK;
        float value[STEPS_BLOCK];
        UINT most = 0; // of magnitudes as bits, which are in order, NaN above all
        EACH_PART
        for (int k = 0; k < STEPS_BLOCK; ++k)
            value[k] = LOAD(A, x + xv.at, at + ELEMENT(k));
        EACH_PART
        for (int k = 0; k < STEPS_BLOCK; ++k) {
            const UINT magnitude = AS_UINT(value[k]) & 0x7fffffff;
            most = magnitude > most ? magnitude : most;
        }
        const float largest = AS_FLOAT(most);
        const float inverse = largest > SMALLEST ? 127 / largest : 0;
        for (int sixteen = 0; sixteen < 2; ++sixteen) {
            int sum = 0;
            EACH_PART
            for (int k = 0; k < 16; ++k) {
                // Added to 1.5 * 2^23 a number is rounded, and its lower bits are those of an integer.
                const float rounded = value[16 * sixteen + k] * inverse + 12582912.0f;
                const Step q = (Step)(signed char)AS_UINT(rounded);
                steps[16 * sixteen + k] = q;
                sum += q;
            }
            ((GLOBAL float *)(y + sums_at))[2 * block + sixteen] = largest / 127 * (float)sum;
        }
        ((GLOBAL float *)(y + scales_at))[block] = largest / 127;
    }
}
