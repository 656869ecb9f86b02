// 256 elements whose groups of 16 or 32 have small scales of their own (hotplug.quants.kquants). How
// scales are searched for is told in hotplug.quants.fitting, whose names functions have here.
typedef struct {
    float scale;
    float minimum;
} Line;

#define GROUP(all, first) ((all) + (first) * step * BYTES_OF(TYPE))

FUNCTION float round_to_steps(float v, float size, float least, float most)
{
    return size == 0 ? LEVEL(0, least, most) : LEVEL(rint(v / size), least, most);
}

// The power of 2 that brings a magnitude into [1/2, 1), so that squares neither overflow nor vanish.
FUNCTION float without_exponent(float magnitude)
{
    const int exponent = magnitude > 0 ? (int)(AS_UINT(magnitude) >> 23) - 126 : 0;
    return AS_FLOAT((127 - LEVEL(exponent, -125, 125)) << 23);
}

FUNCTION float fit_signed(Numbers x, LONG step, int limit)
{
    const float largest = extreme(x, step, 16);
    const float factor = without_exponent(fabs(largest));
    float scale = 0;
    float gain = 0;
    for (int trial = 0; trial < 19; ++trial) {
        const int tenths = (trial + 1) / 2 * (trial % 2 ? -1 : 1);
        const float inverse = -((float)limit + (float)tenths / 10) * reciprocal(largest * factor);
        float products[8] = {0};
        float norms[8] = {0};
        IN_EIGHTS(j, part, 16) {
            const float v = NUMBER(j) * factor;
            const float q = LEVEL(rint(PRODUCT(v, inverse)), -limit, limit - 1);
            products[part] += PRODUCT(PRODUCT(PRODUCT(v, v), v), q);
            norms[part] += PRODUCT(PRODUCT(PRODUCT(v, v), q), q);
        }
        const float product = added(products);
        const float norm = added(norms);
        if (PRODUCT(product, product) > PRODUCT(gain, norm)) {
            scale = PRODUCT(product, reciprocal(norm));
            gain = PRODUCT(scale, product);
        }
    }
    return scale / factor;
}

// Numbers of a group, brought near 1, and how much their errors weigh.
typedef struct {
    int size;
    int levels;
    float factor;
    float root; // mean square, which is added to weights
    float offset;
    float total;
    float first;
} Group;

FUNCTION float weight_of(const Group group, float v) { return fabs(v) + group.root; }

FUNCTION float squared_error(const Group group, Numbers x, LONG step, const UCHAR *quants,
                             float scale, float offset)
{
    float errors[8] = {0};
    IN_EIGHTS(j, part, group.size) {
        const float v = NUMBER(j) * group.factor;
        const float difference = PRODUCT(scale, (float)quants[j]) + offset - v;
        errors[part] += PRODUCT(PRODUCT(weight_of(group, v), difference), difference);
    }
    return added(errors);
}

// Scale and offset, which is not above 0, of the line through (quant, number).
FUNCTION Line least_squares(const Group group, Numbers x, LONG step, const UCHAR *quants)
{
    float linears[8] = {0};
    float squares[8] = {0};
    float products[8] = {0};
    IN_EIGHTS(j, part, group.size) {
        const float v = NUMBER(j) * group.factor;
        const float weighted = PRODUCT(weight_of(group, v), (float)quants[j]);
        linears[part] += weighted;
        squares[part] += PRODUCT(weighted, (float)quants[j]);
        products[part] += PRODUCT(weighted, v);
    }
    const float linear = added(linears);
    const float square = added(squares);
    const float product = added(products);
    const float inverse = reciprocal(PRODUCT(group.total, square) - PRODUCT(linear, linear));
    Line line;
    line.scale = PRODUCT(PRODUCT(group.total, product) - PRODUCT(group.first, linear), inverse);
    line.minimum = PRODUCT(PRODUCT(square, group.first) - PRODUCT(linear, product), inverse);
    if (line.minimum > 0) {
        line.scale = PRODUCT(product, reciprocal(square));
        line.minimum = 0;
    }
    return line;
}

FUNCTION Group measured(Numbers x, LONG step, int size, int levels, int base, float *high)
{
    Group group;
    float squares[8] = {0};
    float weights[8] = {0};
    float firsts[8] = {0};
    group.size = size;
    group.levels = levels;
    group.factor = without_exponent(fabs(extreme(x, step, size)));
    group.offset = 0;
    *high = NUMBER(0) * group.factor;
    IN_EIGHTS(j, part, size) {
        const float v = NUMBER(j) * group.factor;
        squares[part] += PRODUCT(v, v);
        group.offset = fmin(group.offset, v);
        *high = fmax(*high, v);
    }
    group.root = base ? sqrt(added(squares) / (float)size) : 0;
    IN_EIGHTS(j, part, size) {
        const float v = NUMBER(j) * group.factor;
        weights[part] += weight_of(group, v);
        firsts[part] += PRODUCT(weight_of(group, v), v);
    }
    group.total = added(weights);
    group.first = added(firsts);
    return group;
}

// The range of a group is tried as some tenths more levels than there are.
FUNCTION Line fit_affine(Numbers x, LONG step, int size, int levels, int tenths, int base)
{
    UCHAR quants[32];
    float high;
    const Group group = measured(x, step, size, levels, base, &high);
    Line best;
    best.scale = (high - group.offset) / (float)levels;
    best.minimum = group.offset;
    for (int j = 0; j < size; ++j)
        quants[j] = (UCHAR)round_to_steps(NUMBER(j) * group.factor - group.offset, best.scale, 0, levels);
    float error = squared_error(group, x, step, quants, best.scale, best.minimum);
    for (; tenths <= 10; ++tenths) {
        const float inverse = (float)(10 * levels + tenths) / 10 * reciprocal(high - best.minimum);
        for (int j = 0; j < size; ++j)
            quants[j] = (UCHAR)LEVEL(
                rint(PRODUCT(NUMBER(j) * group.factor - best.minimum, inverse)), 0, levels);
        const Line line = least_squares(group, x, step, quants);
        const float other = squared_error(group, x, step, quants, line.scale, line.minimum);
        if (other < error) {
            error = other;
            best = line;
        }
    }
    best.scale /= group.factor;
    best.minimum = (0 - best.minimum) / group.factor;
    return best;
}

// Scales of groups as whole numbers of the block's, which is stored as the half at `at`.
FUNCTION void store_scales(Target w, int at, const float *scales, int count, int levels,
                           UCHAR *numbers)
{
    float most = scales[0];
    for (int g = 1; g < count; ++g)
        most = fmax(most, scales[g]);
    const float size = most / (float)levels;
    STORE_HALF(w, at, size);
    for (int g = 0; g < count; ++g)
        numbers[g] = (UCHAR)round_to_steps(scales[g], size, 0, levels);
}

typedef struct {
    UCHAR scale[16];
    UCHAR minimum[16];
} Steps;

// Fits all groups of a block; its own two scales are the halves from `at` on.
FUNCTION Steps affine_steps(Target w, int at, Numbers all, LONG step, int groups, int levels,
                            int tenths)
{
    Steps steps;
    float scales[16];
    float minima[16];
    const int size = 256 / groups;
    for (int g = 0; g < groups; ++g) {
        const Line line = fit_affine(GROUP(all, g * size), step, size, levels, tenths, groups == 8);
        scales[g] = line.scale;
        minima[g] = line.minimum;
    }
    store_scales(w, at, scales, groups, groups == 8 ? 63 : 15, steps.scale);
    store_scales(w, at + 1, minima, groups, groups == 8 ? 63 : 15, steps.minimum);
    return steps;
}

// The level of element j, for the scales that were stored.
FUNCTION int affine_quant(Target w, int at, const Steps *steps, Numbers x, LONG step, int j, int size,
                          int levels)
{
    const float scale = LOAD_HALF(w, at) * (float)steps->scale[j / size];
    const float minimum = LOAD_HALF(w, at + 1) * (float)steps->minimum[j / size];
    return (int)round_to_steps(NUMBER(j) + minimum, scale, 0, levels);
}

FUNCTION void q2_k_encode(Target w, Numbers x, LONG step)
{
    const Steps steps = affine_steps(w, 40, x, step, 16, 3, -5);
    for (int g = 0; g < 16; ++g)
        w[g] = (UCHAR)(steps.scale[g] | steps.minimum[g] << 4);
    for (int i = 0; i < 64; ++i) {
        int bits = 0;
        for (int k = 0; k < 4; ++k)
            bits |= affine_quant(w, 40, &steps, x, step, i / 32 * 128 + k * 32 + i % 32, 16, 3) << 2 * k;
        w[16 + i] = (UCHAR)bits;
    }
}

FUNCTION Steps eight_groups(Target w, Numbers x, LONG step, int levels, int tenths)
{
    const Steps s = affine_steps(w, 0, x, step, 8, levels, tenths);
    for (int i = 0; i < 4; ++i) {
        w[4 + i] = (UCHAR)(s.scale[i] | s.scale[i + 4] >> 4 << 6);
        w[8 + i] = (UCHAR)(s.minimum[i] | s.minimum[i + 4] >> 4 << 6);
        w[12 + i] = (UCHAR)((s.scale[i + 4] & 15) | s.minimum[i + 4] << 4);
    }
    return s;
}

FUNCTION void q4_k_encode(Target w, Numbers x, LONG step)
{
    const Steps steps = eight_groups(w, x, step, 15, -10);
    for (int i = 0; i < 128; ++i) {
        const int j = i / 32 * 64 + i % 32;
        w[16 + i] = (UCHAR)(affine_quant(w, 0, &steps, x, step, j, 32, 15) |
                            affine_quant(w, 0, &steps, x, step, j + 32, 32, 15) << 4);
    }
}

FUNCTION void q5_k_encode(Target w, Numbers x, LONG step)
{
    const Steps steps = eight_groups(w, x, step, 31, -5);
    for (int i = 0; i < 32; ++i) {
        int fifth = 0;
        for (int k = 0; k < 4; ++k) {
            const int low = affine_quant(w, 0, &steps, x, step, 64 * k + i, 32, 31);
            const int high = affine_quant(w, 0, &steps, x, step, 64 * k + 32 + i, 32, 31);
            fifth |= low >> 4 << 2 * k | high >> 4 << (2 * k + 1);
            w[48 + 32 * k + i] = (UCHAR)((low & 15) | (high & 15) << 4);
        }
        w[16 + i] = (UCHAR)fifth;
    }
}

// Fits 16 groups; numbers of their scales, of which `most` is stored as the half at `at`.
FUNCTION void signed_steps(Target w, int at, Numbers all, LONG step, int limit, int most,
                           signed char *numbers)
{
    float scales[16];
    float largest = 0;
    for (int g = 0; g < 16; ++g) {
        scales[g] = fit_signed(GROUP(all, 16 * g), step, limit);
        largest = fabs(scales[g]) > fabs(largest) ? scales[g] : largest;
    }
    const float inverse = (float)-most * reciprocal(largest);
    STORE_HALF(w, at, largest / (float)-most);
    for (int g = 0; g < 16; ++g)
        numbers[g] = (signed char)LEVEL(rint(PRODUCT(scales[g], inverse)), -most, most - 1);
}
FUNCTION int signed_quant(Target w, int at, const signed char *numbers, Numbers x, LONG step, int j,
                          int limit)
{
    const float size = LOAD_HALF(w, at) * (float)numbers[j / 16];
    return (int)round_to_steps(NUMBER(j), size, -limit, limit - 1) + limit;
}

FUNCTION void q3_k_encode(Target w, Numbers x, LONG step)
{
    signed char numbers[16];
    signed_steps(w, 54, x, step, 4, 32, numbers);
    for (int i = 0; i < 8; ++i)
        w[96 + i] = (UCHAR)(((numbers[i] + 32) & 15) | ((numbers[i + 8] + 32) & 15) << 4);
    for (int i = 0; i < 4; ++i) {
        int high = 0;
        for (int k = 0; k < 4; ++k)
            high |= (numbers[i + 4 * k] + 32) >> 4 << 2 * k;
        w[104 + i] = (UCHAR)high;
    }
    for (int i = 0; i < 32; ++i) {
        int high = 0;
        for (int half_ = 0; half_ < 2; ++half_) {
            int low = 0;
            for (int k = 0; k < 4; ++k) {
                const int q = signed_quant(w, 54, numbers, x, step, 128 * half_ + 32 * k + i, 4);
                low |= (q & 3) << 2 * k;
                high |= q >> 2 << (4 * half_ + k);
            }
            w[32 + 32 * half_ + i] = (UCHAR)low;
        }
        w[i] = (UCHAR)high;
    }
}

FUNCTION void q6_k_encode(Target w, Numbers x, LONG step)
{
    signed char numbers[16];
    signed_steps(w, 104, x, step, 32, 128, numbers);
    for (int g = 0; g < 16; ++g)
        w[192 + g] = (UCHAR)numbers[g];
    for (int i = 0; i < 64; ++i) {
        const int half_ = i / 32;
        int q[4];
        for (int k = 0; k < 4; ++k)
            q[k] = signed_quant(w, 104, numbers, x, step, 128 * half_ + 32 * k + i % 32, 32);
        w[64 * half_ + i % 32] = (UCHAR)((q[0] & 15) | (q[2] & 15) << 4);
        w[64 * half_ + 32 + i % 32] = (UCHAR)((q[1] & 15) | (q[3] & 15) << 4);
        w[128 + i] = (UCHAR)(q[0] >> 4 | q[1] >> 4 << 2 | q[2] >> 4 << 4 | q[3] >> 4 << 6);
    }
}

FUNCTION void q8_k_encode(Target w, Numbers x, LONG step)
{
    const float largest = extreme(x, step, 256);
    const float inverse = largest == 0 ? 0 : -127 / largest;
    STORE_f32(w, 0, reciprocal(inverse));
    for (int g = 0; g < 16; ++g) {
        int sum = 0;
        for (int j = 16 * g; j < 16 * g + 16; ++j) {
            const int q = (int)LEVEL(rint(PRODUCT(NUMBER(j), inverse)), -127, 127);
            sum += q;
            w[4 + j] = (UCHAR)q;
        }
        STORE_i16(w + 260, g, sum);
    }
}
