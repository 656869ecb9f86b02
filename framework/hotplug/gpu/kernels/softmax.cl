// exp(s) / sum(exp(s)) of rows, s = scale * x + slope * mask. A work-group per row; may be in place.
// The mask's last stride is that of its last axis; the row's head is (row / tokens) % heads.
#define LOWEST K(-3.0e38)

FUNCTION NUM score(const GLOBAL char *x, LONG at, const GLOBAL char *mask, LONG mask_at, NUM scale,
                   NUM slope)
{
    NUM s = scale * LOAD(TYPE, x, at);
#ifdef MASK
#ifdef MASK_IS_BOOL
    if (!LOAD_bool(mask, mask_at))
        s = AS_FLOAT(0xff800000); // -infinity, which a bare NVRTC has no name for
#else
    s += slope * LOAD(MASK, mask, mask_at);
#endif
#endif
    return s;
}

KERNEL(ITEMS)
softmax(GLOBAL const char *x, const View xv, GLOBAL const char *mask, const View mv,
        GLOBAL const char *sinks, const View sv, GLOBAL const char *slopes, const LONG slopes_at,
        GLOBAL char *y, const LONG y_at, const Shape shape, const int count, const LONG stride,
        const LONG mask_stride, const int tokens, const int heads, const int has_sinks,
        const int has_slopes, const NUM scale)
{
    LOCAL NUM part[ITEMS];
    const GLOBAL char *from = x + xv.at;
    const GLOBAL char *hide = mask + mv.at;
    const LONG base = place(xv, shape, GROUP_X);
    const LONG mask_base = place(mv, shape, GROUP_X);
    const int head = (GROUP_X / tokens) % heads;
    const NUM slope = has_slopes ? LOAD_f32(slopes + slopes_at, head) : 1;
    NUM top = LOWEST;
    NUM most;
    NUM sum = 0;
    NUM total;
    for (int k = ITEM; k < count; k += ITEMS)
        top = fmax(top, score(from, base + k * stride, hide, mask_base + k * mask_stride, scale, slope));
    GROUP_MAX(part, top, most)
    NUM sink = LOWEST;
    if (has_sinks) {
        sink = LOAD_f32(sinks + sv.at, head * sv.stride[0]);
        most = fmax(most, sink);
    }
    for (int k = ITEM; k < count; k += ITEMS)
        sum += exp(score(from, base + k * stride, hide, mask_base + k * mask_stride, scale, slope) - most);
    GROUP_SUM(part, sum, total)
    if (has_sinks)
        total += exp(sink - most);
    const NUM factor = total > 0 ? 1 / total : 0;
    for (int k = ITEM; k < count; k += ITEMS) {
        const NUM s =
            score(from, base + k * stride, hide, mask_base + k * mask_stride, scale, slope);
        STORE(TYPE, y + y_at, (LONG)GROUP_X * count + k, exp(s - most) * factor);
    }
}
