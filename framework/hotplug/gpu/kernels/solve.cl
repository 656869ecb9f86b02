// a x = b for lower triangles: a work-group has some columns of b, an item one of them, on a processor
// PARTS. Rows are solved SIDE at a time in registers, after what is known was subtracted; blocks of a
// lie in local memory. Upper triangles come with their rows and columns in reverse.
#define SIDE 8
#define COLUMN(j) (first + (j))

// The block of a at a row and a column, known to all items.
#define LOAD_BLOCK(row, column)                                                          \
    BARRIER();                                                                           \
    for (int e = ITEM; e < SIDE * SIDE; e += ITEMS)                                      \
        block[e / SIDE][e % SIDE] =                                                      \
            (row) + e / SIDE < n && (column) + e % SIDE < n                              \
                ? (NUM)LOAD(A, a + av.at, a_base + ((row) + e / SIDE) * a_row +          \
                                              ((column) + e % SIDE) * a_column)          \
                : 0;                                                                     \
    BARRIER();

BUSY_KERNEL(ITEMS)
solve(GLOBAL const char *a, const View av, GLOBAL const char *b, const View bv, GLOBAL char *y,
      const LONG y_at, const Shape lead, const LONG a_row, const LONG a_column, const LONG b_row,
      const LONG b_column, const LONG y_row, const int n, const int m, const int across,
      const int unit)
{
    LOCAL NUM block[SIDE][SIDE];
    const int matrix = GROUP_X / across;
    const int first = (GROUP_X % across * ITEMS + ITEM) * PARTS;
    const LONG a_base = place(av, lead, matrix);
    const LONG b_base = place(bv, lead, matrix);
    const LONG to = (LONG)matrix * n * m;
    NUM rest[SIDE][PARTS];
    for (int row = 0; row < n; row += SIDE) {
        IN_REGISTERS
        for (int r = 0; r < SIDE; ++r)
            for (int j = 0; j < PARTS; ++j)
                rest[r][PART(j)] =
                    row + r < n && COLUMN(j) < m
                        ? (NUM)LOAD(B, b + bv.at,
                                    b_base + (row + r) * b_row + COLUMN(j) * b_column)
                        : 0;
        for (int known = 0; known < row; known += SIDE) {
            LOAD_BLOCK(row, known)
            for (int k = 0; k < SIDE; ++k) {
                NUM x[PARTS];
                for (int j = 0; j < PARTS; ++j)
                    x[PART(j)] = COLUMN(j) < m ? LOAD(TYPE, y + y_at,
                                                      to + (known + k) * y_row + COLUMN(j))
                                               : 0;
                IN_REGISTERS
                for (int r = 0; r < SIDE; ++r)
                    EACH_PART
                    for (int j = 0; j < PARTS; ++j)
                        rest[r][PART(j)] -= block[r][k] * x[PART(j)];
            }
        }
        LOAD_BLOCK(row, row)
        IN_REGISTERS
        for (int k = 0; k < SIDE; ++k)
            if (row + k < n) {
                const NUM diagonal = unit ? 1 : block[k][k];
                EACH_PART
                for (int j = 0; j < PARTS; ++j)
                    rest[k][PART(j)] /= diagonal;
                IN_REGISTERS
                for (int r = k + 1; r < SIDE; ++r)
                    EACH_PART
                    for (int j = 0; j < PARTS; ++j)
                        rest[r][PART(j)] -= block[r][k] * rest[k][PART(j)];
                for (int j = 0; j < PARTS; ++j)
                    if (COLUMN(j) < m)
                        STORE(TYPE, y + y_at, to + (row + k) * y_row + COLUMN(j), rest[k][PART(j)]);
            }
    }
}
