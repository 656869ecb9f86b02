// The parts of an attention put together, a work-group per query and head.
#define HIDDEN -3.0e38f

KERNEL(ITEMS)
combine(GLOBAL const char *x, const LONG x_at, GLOBAL const char *sinks, const View sv,
        GLOBAL char *y, const LONG y_at, const Attention p)
{
    const int stride = p.value_width + 2;
    const int head = GROUP_X % p.heads;
    GLOBAL const float *from = (GLOBAL const float *)(x + x_at) + (LONG)GROUP_X * p.splits * stride;
    float most = HIDDEN;
    for (int s = 0; s < p.splits; ++s)
        most = fmax(most, from[s * stride]);
    float total = 0;
    for (int s = 0; s < p.splits; ++s)
        total += from[s * stride + 1] * exp(from[s * stride] - most);
    float factor = total > 0 ? 1 / total : 0;
    if (p.has_sinks && total > 0) {
        const float sink = LOAD_f32(sinks + sv.at, head * sv.stride[0]);
        const float top = fmax(most, sink);
        factor = exp(most - top) / (total * exp(most - top) + exp(sink - top));
    }
    for (int e = ITEM; e < p.value_width; e += ITEMS) {
        float sum = 0;
        for (int s = 0; s < p.splits; ++s)
            sum += from[s * stride + 2 + e] * exp(from[s * stride] - most);
        STORE_f32(y + y_at, (LONG)GROUP_X * p.value_width + e, sum * factor);
    }
}
