// Two axes of x at once times sparse matrices of weights; an item per element of y. Those axes have
// stride 0 in the View. `table` has, for each of them, the indices of x that an element is made from,
// and their weights, tap by tap: (taps, length).
#define NUMBERS(offset) ((GLOBAL const NUM *)(table + (offset)))
#define INDICES(offset) ((GLOBAL const int *)(table + (offset)))

KERNEL(ITEMS)
resample(GLOBAL const char *x, const View xv, const LONG row_stride, const LONG column_stride,
         GLOBAL const char *table, const LONG row_indices, const LONG row_weights,
         const LONG column_indices, const LONG column_weights, GLOBAL char *y, const LONG y_at,
         const Shape shape, const int rows, const int below, const int row_taps, const int columns,
         const int beside, const int column_taps)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size)
        return;
    const LONG base = place(xv, shape, i);
    const int row = i / below % rows;
    const int column = i / beside % columns;
    NUM sum = 0;
    for (int s = 0; s < row_taps; ++s) {
        const LONG line = base + INDICES(row_indices)[s * rows + row] * row_stride;
        NUM part = 0;
        for (int t = 0; t < column_taps; ++t)
            part += NUMBERS(column_weights)[t * columns + column] *
                    LOAD(TYPE, x + xv.at,
                         line + INDICES(column_indices)[t * columns + column] * column_stride);
        sum += NUMBERS(row_weights)[s * rows + row] * part;
    }
    STORE(RESULT, y + y_at, i, sum);
}
