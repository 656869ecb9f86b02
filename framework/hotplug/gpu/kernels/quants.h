// Quantised weights in blocks, as GGUF files hold them. What is decoded at once is a sixteen: 16
// neighbouring elements of a block, each scale * q - least with q a signed byte. The page of a
// family, included after this one, has two functions for each dtype T of it, and quants_use.h makes
// the others from them:
//     T_sixteen(w, g)  what the elements of the g-th sixteen of the block at w have in common
//     T_word(s, i)     the bytes q of its elements from PER_WORD * i on
// and T_LEAST where sixteens have least values. A word has four elements, and one where a processor's
// compiler makes vectors of what is written for one. So that both are written once, words are computed
// with byte by byte, with no carry from one to the next. T_BLOCK and T_BYTES, the elements and bytes of
// a block, are defined where sources are put together, and T_ALIKE where all its sixteens have the same
// scale and least value.
typedef GLOBAL const UCHAR *Block;
typedef GLOBAL const float *Floats;

#define BYTE(w, i) ((int)(w)[i])
#define SIGNED(w, i) ((float)((GLOBAL const signed char *)(w))[i])
#define TWO_BYTES(w, i) ((UINT)((GLOBAL const USHORT *)(w))[i])
#define FOUR_BYTES(w, i) (TWO_BYTES(w, 2 * (i)) | TWO_BYTES(w, 2 * (i) + 1) << 16)

#if ITEMS == 1
typedef UCHAR Word;
#define WORDS 16
#define EVERY(byte) (byte)
#define WORD_OF_1(w, i) ((UINT)(w)[i])
#define WORD_OF_2(w, i) WORD_OF_1(w, i)
#define WORD_OF_4(w, i) WORD_OF_1(w, i)
#else
typedef UINT Word;
#define WORDS 4
#define EVERY(byte) ((UINT)(byte) * 0x01010101u)
// By what the address is a multiple of. Blocks begin at a multiple of their size.
#define WORD_OF_1(w, i) \
    ((UINT)(w)[4 * (i)] | (UINT)(w)[4 * (i) + 1] << 8 | (UINT)(w)[4 * (i) + 2] << 16 | \
     (UINT)(w)[4 * (i) + 3] << 24)
#define WORD_OF_2(w, i) FOUR_BYTES(w, i)
#define WORD_OF_4(w, i) (((GLOBAL const UINT *)(w))[i])
#endif
#define PER_WORD (16 / WORDS)

typedef struct {
    float scale;
    float least;
    Block low;
    Block high;
    int shift;
    int lift; // the shift of `high`
    UINT codes;
    UINT more;
    UINT signs;
} Sixteen;

FUNCTION Sixteen scaled(float scale)
{
    Sixteen s;
    s.scale = scale;
    s.least = 0;
    return s;
}

// Bits of a word at the bottom of all its bytes.
FUNCTION UINT low_bits(UINT word, int shift, int bits)
{
    return word >> shift & EVERY((1 << bits) - 1);
}

// Bytes below 128, less a number: signed bytes.
FUNCTION UINT less(UINT word, int number)
{
#if ITEMS == 1
    return word - (UINT)number;
#else
    return ((word | EVERY(128)) - EVERY(number)) ^ EVERY(128);
#endif
}

// Bytes of 0 to 31, those negated whose byte of `signs` is 1.
FUNCTION UINT with_signs(UINT word, UINT signs)
{
#if ITEMS == 1
    return (word ^ (0 - signs)) + signs;
#else
    return less(EVERY(32) + word - (word << 1 & signs * 255), 32);
#endif
}

// Fields of 1, 2 or 3 bits for each element of a sixteen, first ones lowest: those of word i, a byte
// each. Of 3 bits, `more` has the last eight.
FUNCTION UINT spread_1(UINT bits, int i)
{
#if ITEMS == 1
    return bits >> i & 1;
#else
    return (bits >> 4 * i & 15) * 0x00204081u & 0x01010101u;
#endif
}
FUNCTION UINT spread_2(UINT codes, int i)
{
#if ITEMS == 1
    return codes >> 2 * i & 3;
#else
    const UINT four = codes >> 8 * i & 255;
    return (four | four << 6 | four << 12 | four << 18) & 0x03030303u;
#endif
}
FUNCTION UINT spread_3(UINT codes, UINT more, int i)
{
#if ITEMS == 1
    return (i < 8 ? codes : more) >> 3 * (i % 8) & 7;
#else
    const UINT four = (i < 2 ? codes : more) >> 12 * (i % 2) & 4095;
    const UINT twos = (four | four << 10) & 0x003f003fu;
    return (twos | twos << 5) & 0x07070707u;
#endif
}

// Bytes of 1 to 127, those negated whose byte of `signs` is 1.
FUNCTION UINT negated(UINT word, UINT signs) { return (word ^ signs * 255) + signs; }

// Nibbles of eight bytes, of which `more` are the last four: lower halves, then upper ones.
FUNCTION UINT nibbles(UINT codes, UINT more, int i)
{
    const UINT word = i % (8 / PER_WORD) < 4 / PER_WORD ? codes : more;
    return low_bits(word, i % (4 / PER_WORD) * 8 + i / (8 / PER_WORD) * 4, 4);
}
