// Blocks of quantised weights, as GGUF files hold them (ggml's block_q4_0 and so on). For a dtype T:
// T_BLOCK elements in T_BYTES bytes; T_at(w, j) is element j of the block at w; T_dot(w, x, sum) adds
// the products of a block with as many floats to the parts of a sum. Blocks lie at any address, even
// ones at best, so bytes and halves are all that is loaded.
typedef GLOBAL const UCHAR *Block;
typedef GLOBAL const float *Floats;

#define BYTE(w, i) ((int)(w)[i])
#define NIBBLE(w, j) ((j) < 16 ? BYTE(w, j) & 15 : BYTE(w, (j) - 16) >> 4)

#define q4_0_BLOCK 32
#define q4_0_BYTES 18
FUNCTION float q4_0_at(Block w, int j) { return LOAD_HALF(w, 0) * (float)(NIBBLE(w + 2, j) - 8); }
FUNCTION void q4_0_dot(Block w, Floats x, float *sum)
{
    const float scale = LOAD_HALF(w, 0);
    EACH_PART
    for (int j = 0; j < 16; ++j) {
        sum[PART(j)] += scale * (float)((BYTE(w, 2 + j) & 15) - 8) * x[j] +
                          scale * (float)((BYTE(w, 2 + j) >> 4) - 8) * x[j + 16];
    }
}

#define q4_1_BLOCK 32
#define q4_1_BYTES 20
FUNCTION float q4_1_at(Block w, int j)
{
    return LOAD_HALF(w, 0) * (float)NIBBLE(w + 4, j) + LOAD_HALF(w, 1);
}
FUNCTION void q4_1_dot(Block w, Floats x, float *sum)
{
    const float scale = LOAD_HALF(w, 0);
    const float least = LOAD_HALF(w, 1);
    EACH_PART
    for (int j = 0; j < 16; ++j) {
        sum[PART(j)] += (scale * (float)(BYTE(w, 4 + j) & 15) + least) * x[j] +
                          (scale * (float)(BYTE(w, 4 + j) >> 4) + least) * x[j + 16];
    }
}

// The fifth bits of 32 elements lie in four bytes before the nibbles.
#define FIFTHS(h) \
    ((UINT)(h)[0] | (UINT)(h)[1] << 8 | (UINT)(h)[2] << 16 | (UINT)(h)[3] << 24)
#define FIFTH(bits, j) ((bits) >> (j) << 4 & 16)

#define q5_0_BLOCK 32
#define q5_0_BYTES 22
FUNCTION float q5_0_at(Block w, int j)
{
    return LOAD_HALF(w, 0) * (float)((int)(NIBBLE(w + 6, j) | FIFTH(FIFTHS(w + 2), j)) - 16);
}
FUNCTION void q5_0_dot(Block w, Floats x, float *sum)
{
    const float scale = LOAD_HALF(w, 0);
    const UINT fifth = FIFTHS(w + 2);
    EACH_PART
    for (int j = 0; j < 16; ++j) {
        sum[PART(j)] += scale * (float)((int)((BYTE(w, 6 + j) & 15) | FIFTH(fifth, j)) - 16) * x[j] +
                          scale * (float)((int)((BYTE(w, 6 + j) >> 4) | FIFTH(fifth, j + 16)) - 16) * x[j + 16];
    }
}

#define q5_1_BLOCK 32
#define q5_1_BYTES 24
FUNCTION float q5_1_at(Block w, int j)
{
    return LOAD_HALF(w, 0) * (float)(NIBBLE(w + 8, j) | FIFTH(FIFTHS(w + 4), j)) + LOAD_HALF(w, 1);
}
FUNCTION void q5_1_dot(Block w, Floats x, float *sum)
{
    const float scale = LOAD_HALF(w, 0);
    const float least = LOAD_HALF(w, 1);
    const UINT fifth = FIFTHS(w + 4);
    EACH_PART
    for (int j = 0; j < 16; ++j) {
        sum[PART(j)] += (scale * (float)((BYTE(w, 8 + j) & 15) | FIFTH(fifth, j)) + least) * x[j] +
                          (scale * (float)((BYTE(w, 8 + j) >> 4) | FIFTH(fifth, j + 16)) + least) * x[j + 16];
    }
}

#define SIGNED(w, i) ((float)((GLOBAL const signed char *)(w))[i])

#define q8_0_BLOCK 32
#define q8_0_BYTES 34
FUNCTION float q8_0_at(Block w, int j) { return LOAD_HALF(w, 0) * SIGNED(w + 2, j); }
FUNCTION void q8_0_dot(Block w, Floats x, float *sum)
{
    const float scale = LOAD_HALF(w, 0);
    EACH_PART
    for (int j = 0; j < 16; ++j) {
        sum[PART(j)] += scale * SIGNED(w + 2, j) * x[j] +
                          scale * SIGNED(w + 2, j + 16) * x[j + 16];
    }
}

// Other blocks are summed element by element.
#define ADD_PRODUCTS(type, w, x, sum)            \
    BY_EIGHT                                     \
    for (int j = 0; j < JOIN(type, _BLOCK); ++j) \
        sum[j % PARTS] += JOIN(type, _at)(w, j) * (x)[j];

#define q8_1_BLOCK 32
#define q8_1_BYTES 36
FUNCTION float q8_1_at(Block w, int j) { return LOAD_HALF(w, 0) * SIGNED(w + 4, j); }
FUNCTION void q8_1_dot(Block w, Floats x, float *sum) { ADD_PRODUCTS(q8_1, w, x, sum) }

CONSTANT float iq4_nl_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};
#define iq4_nl_BLOCK 32
#define iq4_nl_BYTES 18
FUNCTION float iq4_nl_at(Block w, int j)
{
    return LOAD_HALF(w, 0) * iq4_nl_values[NIBBLE(w + 2, j)];
}
FUNCTION void iq4_nl_dot(Block w, Floats x, float *sum) { ADD_PRODUCTS(iq4_nl, w, x, sum) }

// Twice the values of e2m1, whose scale is a power of two with one taken off its exponent.
CONSTANT float mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
#define mxfp4_BLOCK 32
#define mxfp4_BYTES 17
FUNCTION float mxfp4_at(Block w, int j)
{
    const int exponent = BYTE(w, 0);
    const UINT bits = exponent < 2 ? (UINT)0x00200000 << exponent : (UINT)(exponent - 1) << 23;
    return AS_FLOAT(bits) * mxfp4_values[NIBBLE(w + 1, j)];
}
FUNCTION void mxfp4_dot(Block w, Floats x, float *sum) { ADD_PRODUCTS(mxfp4, w, x, sum) }

// Scale and least value of the eight parts of a q4_k or q5_k block: six bits each, in twelve bytes.
FUNCTION int k_scale(Block s, int part)
{
    return part < 4 ? BYTE(s, part) & 63 : (BYTE(s, part + 4) & 15) | (BYTE(s, part - 4) >> 6 << 4);
}
FUNCTION int k_least(Block s, int part)
{
    return part < 4 ? BYTE(s, part + 4) & 63
                    : (BYTE(s, part + 4) >> 4) | (BYTE(s, part) >> 6 << 4);
}
FUNCTION int k_nibble(Block q, int j)
{
    return BYTE(q, j / 64 * 32 + j % 32) >> (j % 64 < 32 ? 0 : 4) & 15;
}

#define q4_k_BLOCK 256
#define q4_k_BYTES 144
FUNCTION float q4_k_at(Block w, int j)
{
    const int part = j / 32;
    return LOAD_HALF(w, 0) * (float)(k_scale(w + 4, part) * k_nibble(w + 16, j)) -
           LOAD_HALF(w, 1) * (float)k_least(w + 4, part);
}
FUNCTION void q4_k_dot(Block w, Floats x, float *sum) { ADD_PRODUCTS(q4_k, w, x, sum) }

#define q5_k_BLOCK 256
#define q5_k_BYTES 176
FUNCTION float q5_k_at(Block w, int j)
{
    const int part = j / 32;
    const int q = k_nibble(w + 48, j) | (BYTE(w, 16 + j % 32) >> part & 1) << 4;
    return LOAD_HALF(w, 0) * (float)(k_scale(w + 4, part) * q) -
           LOAD_HALF(w, 1) * (float)k_least(w + 4, part);
}
FUNCTION void q5_k_dot(Block w, Floats x, float *sum) { ADD_PRODUCTS(q5_k, w, x, sum) }

#define q6_k_BLOCK 256
#define q6_k_BYTES 210
FUNCTION float q6_k_at(Block w, int j)
{
    const int half_ = j / 128;
    const int quarter = j % 128 / 32;
    const int l = j % 32;
    const int low = BYTE(w, half_ * 64 + (quarter & 1) * 32 + l) >> (quarter < 2 ? 0 : 4) & 15;
    const int high = BYTE(w, 128 + half_ * 32 + l) >> (2 * quarter) & 3;
    const float scale = SIGNED(w + 192, half_ * 8 + l / 16 + 2 * quarter);
    return LOAD_HALF(w, 104) * scale * (float)((low | high << 4) - 32);
}
FUNCTION void q6_k_dot(Block w, Floats x, float *sum) { ADD_PRODUCTS(q6_k, w, x, sum) }
