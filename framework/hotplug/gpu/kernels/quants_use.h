// What kernels do with blocks of QUANT, from the two functions of its family's page.
#define HAS_LEAST JOIN(QUANT, _LEAST)
#define SIXTEENS (JOIN(QUANT, _BLOCK) / 16)

FUNCTION float value_of(const Sixteen s, Word word, int k)
{
    return s.scale * (float)(signed char)(word >> 8 * k) - s.least;
}

// Element j of a block.
FUNCTION float JOIN(QUANT, _at)(Block w, int j)
{
    const Sixteen s = JOIN(QUANT, _sixteen)(w, j / 16);
    return value_of(s, JOIN(QUANT, _word)(s, j % 16 / PER_WORD), j % PER_WORD);
}

// A sixteen in registers: the bytes of its elements in order, and what they count in.
typedef struct {
    Word word[WORDS];
    float scale;
    float least;
} Decoded;

// The n-th sixteen of a row of blocks.
FUNCTION Decoded decoded(Block row, int n)
{
    Block w = row + (LONG)(n / SIXTEENS) * JOIN(QUANT, _BYTES);
    const Sixteen s = JOIN(QUANT, _sixteen)(w, n % SIXTEENS);
    Decoded d;
#ifdef ALL_WORDS
    ALL_WORDS(s, d.word);
#else
    EACH_PART
    for (int i = 0; i < WORDS; ++i)
        d.word[i] = JOIN(QUANT, _word)(s, i);
#endif
    d.scale = s.scale;
    d.least = s.least;
    return d;
}

#define DECODED(d, j) \
    ((d).scale * (float)(signed char)((d).word[(j) / PER_WORD] >> (j) % PER_WORD * 8) - (d).least)

// Adds products of a sixteen with as many floats to the parts of a sum.
FUNCTION void add_products(const Decoded d, Floats x, float *sum)
{
    EACH_PART
    for (int j = 0; j < 16; ++j)
        sum[PART(j)] += DECODED(d, j) * x[j];
}

// The same of a whole block, without bytes in between, which a processor would store.
FUNCTION void JOIN(QUANT, _dot)(Block w, Floats x, float *sum)
{
    UNROLLED
    for (int g = 0; g < SIXTEENS; ++g) {
        const Sixteen s = JOIN(QUANT, _sixteen)(w, g);
        EACH_PART
        for (int j = 0; j < 16; ++j) {
            const Word word = JOIN(QUANT, _word)(s, j / PER_WORD);
            sum[PART(j)] += value_of(s, word, j % PER_WORD) * x[16 * g + j];
        }
    }
}
