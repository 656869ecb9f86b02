// Rows of a product's left operand in steps of 8 bits (see int8.h), a block for each item. `step` is from
// element to element of a row.
KERNEL(ITEMS)
quantise(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG steps_at,
         const LONG scales_at, const LONG sums_at, const Shape rows, const LONG step,
         const int row_blocks)
{
    const int block = GROUP_X * ITEMS + ITEM;
    if (block < rows.size * row_blocks) {
        const LONG at = place(xv, rows, block / row_blocks) +
                        (LONG)(block % row_blocks) * STEPS_BLOCK * step;
        GLOBAL Step *steps = (GLOBAL Step *)(y + steps_at) + (LONG)block * STEPS_BLOCK;
        GLOBAL float *scale = (GLOBAL float *)(y + scales_at) + block;
        GLOBAL float *sums = (GLOBAL float *)(y + sums_at) + 2 * block;
#define ACTIVATION(k) LOAD(A, x + xv.at, at + ELEMENT(k, step))
        QUANTISE_BLOCK(ACTIVATION, steps, scale, sums)
    }
}
