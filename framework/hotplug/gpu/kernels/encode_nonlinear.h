// Nibbles that number unevenly spaced levels (hotplug.quants.nonlinear), which LEVELS are.
CONSTANT float levels[16] = {LEVELS};

FUNCTION int nearest_level(float v)
{
    int found = 0;
    for (int half_ = 8; half_ > 0; half_ /= 2)
        if (2 * v >= levels[found + half_ - 1] + levels[found + half_])
            found += half_;
    return found;
}

// Weighted products of a group with its levels, and of the levels with themselves.
FUNCTION void project(Numbers x, LONG step, float inverse, float *product, float *norm)
{
    float products[8] = {0};
    float norms[8] = {0};
    IN_EIGHTS(j, part, 32) {
        const float v = NUMBER(j);
        const float level = levels[nearest_level(PRODUCT(v, inverse))];
        const float weighted = PRODUCT(PRODUCT(v, v), level);
        products[part] += PRODUCT(weighted, v);
        norms[part] += PRODUCT(weighted, level);
    }
    *product = added(products);
    *norm = added(norms);
}

// The scale of 32 numbers that leaves the least error, weighted by the squares: each trial maps the
// number of largest magnitude near the outermost level and asks which scale fits the levels best.
FUNCTION float fitted_scale(Numbers x, LONG step)
{
    const float largest = extreme(x, step, 32);
    float product;
    float norm;
    if (fabs(largest) < 1e-15f)
        return 0;
    project(x, step, reciprocal(largest / -levels[0]), &product, &norm);
    float scale = PRODUCT(product, reciprocal(norm));
    float gain = PRODUCT(scale, product);
    for (int trial = -7; trial < 8; ++trial) {
        project(x, step, PRODUCT((float)trial + levels[0], reciprocal(largest)), &product, &norm);
        if (PRODUCT(product, product) > PRODUCT(gain, norm)) {
            scale = PRODUCT(product, reciprocal(norm));
            gain = PRODUCT(scale, product);
        }
    }
    return scale;
}

FUNCTION void store_levels(Target low, Numbers x, LONG step, float inverse)
{
    for (int j = 0; j < 16; ++j)
        low[j] = nearest_level(PRODUCT(NUMBER(j), inverse)) |
                 nearest_level(PRODUCT(NUMBER(j + 16), inverse)) << 4;
}

FUNCTION void iq4_nl_encode(Target w, Numbers x, LONG step)
{
    const float scale = fitted_scale(x, step);
    STORE_HALF(w, 0, scale);
    store_levels(w + 2, x, step, reciprocal(scale));
}

FUNCTION void iq4_xs_encode(Target w, Numbers all, LONG step)
{
    float fitted[8];
    float largest = 0;
    UINT high = 0;
    for (int g = 0; g < 8; ++g) {
        fitted[g] = fitted_scale(all + 32 * g * step * BYTES_OF(TYPE), step);
        largest = fabs(fitted[g]) > fabs(largest) ? fitted[g] : largest;
    }
    const float scale = largest / -32;
    STORE_HALF(w, 0, scale);
    for (int g = 0; g < 8; ++g) {
        const float number = LEVEL(rint(PRODUCT(fitted[g], reciprocal(scale))), -32, 31);
        const int bits = (int)number + 32;
        high |= (UINT)(bits >> 4) << 2 * g;
        w[4 + g / 2] = (UCHAR)(g % 2 ? w[4 + g / 2] | (bits & 15) << 4 : bits & 15);
        store_levels(w + 8 + 16 * g, all + 32 * g * step * BYTES_OF(TYPE), step,
                     reciprocal(PRODUCT(scale, number)));
    }
    w[2] = (UCHAR)high;
    w[3] = (UCHAR)(high >> 8);
}
