// Attention of one query by a work-group: rows of the cache in tiles of ITEMS, the softmax kept online
// (arXiv 1805.02867, 2205.14135). Rows that cannot be seen are not visited. With several `splits`
// each takes its share of the rows and leaves (largest score, sum, weighted values) for combine.cl.
// Strides 0 to 2 of a view are those of leading axes; 3 to 5 are token or row, head, element for q, k
// and v, and head, token, row for the mask. Of a quantised cache strides count bytes.
#define HIDDEN -3.0e38f

#ifdef QUANT
#define CACHED(type, p, at, e, step)                                                         \
    JOIN(QUANT, _at)((Block)(p) + (at) + (LONG)((e) / JOIN(QUANT, _BLOCK)) * JOIN(QUANT, _BYTES), \
                     (e) % JOIN(QUANT, _BLOCK))
#else
#define CACHED(type, p, at, e, step) LOAD(type, p, (at) + (e) * (step))
#endif

BUSY_KERNEL(ITEMS)
attention(GLOBAL const char *q, const View qv, GLOBAL const char *k, const View kv,
          GLOBAL const char *v, const View vv, GLOBAL const char *mask, const View mv,
          GLOBAL const char *positions, const View pv, GLOBAL const char *sinks, const View sv,
          GLOBAL const char *slopes, const LONG slopes_at, GLOBAL char *y, const LONG y_at,
          const Shape lead, const Attention p)
{
    LOCAL float query[WIDTH];
    LOCAL float weights[ITEMS];
    LOCAL float part[ITEMS];
    const int head = GROUP_X % p.heads;
    const int token = GROUP_X / p.heads % p.tokens;
    const int batch = GROUP_X / p.heads / p.tokens;
    const LONG q_at = place(qv, lead, batch) + token * qv.stride[3] + head * qv.stride[4];
    const LONG k_at = place(kv, lead, batch) + head / p.sharing * kv.stride[4];
    const LONG v_at = place(vv, lead, batch) + head / p.sharing * vv.stride[4];
    for (int e = ITEM; e < p.width; e += ITEMS)
        query[e] = p.scale * LOAD(Q, q + qv.at, q_at + e * qv.stride[5]);
    const LONG position = p.has_positions
                              ? LOAD_INDEX(positions + pv.at, token * pv.stride[0], p.wide)
                              : p.rows - p.tokens + token;
    LONG last = p.causal && position + 1 < p.rows ? position + 1 : p.rows;
    LONG first = p.window > 0 && position - p.window + 1 > 0 ? position - p.window + 1 : 0;
    if (p.has_positions && position < 0)
        last = 0;
    if (p.splits > 1) {
        const LONG share = last > first ? (last - first + p.splits - 1) / p.splits : 0;
        first += GROUP_Y * share;
        last = first + share < last ? first + share : last;
    }
#ifdef MASK
    const LONG m_at = place(mv, lead, batch) + head * mv.stride[3] + token * mv.stride[4];
    const float slope = p.has_slopes ? LOAD_f32(slopes + slopes_at, head) : 1;
#endif
    float most = HIDDEN;
    float total = 0;
    float sum[EACH];
    for (int c = 0; c < EACH; ++c)
        sum[c] = 0;
    BARRIER();
    for (LONG start = first; start < last; start += ITEMS) {
        const LONG row = start + ITEM;
        float score = HIDDEN;
        int seen = row < last;
        if (seen) {
            const LONG at = k_at + row * kv.stride[3];
            score = 0;
            for (int e = 0; e < p.width; ++e)
                score += query[e] * CACHED(KEYS, k + kv.at, at, e, kv.stride[5]);
            if (p.softcap > 0)
                score = p.softcap * tanh(score / p.softcap);
#ifdef MASK_IS_BOOL
            seen = LOAD_bool(mask + mv.at, m_at + row * mv.stride[5]);
#elif defined(MASK)
            score += slope * LOAD(MASK, mask + mv.at, m_at + row * mv.stride[5]);
#endif
            seen = seen && score > HIDDEN;
            score = seen ? score : HIDDEN;
        }
        float top;
        GROUP_MAX(part, score, top)
        top = fmax(top, most);
        weights[ITEM] = seen ? exp(score - top) : 0;
        float tile;
        GROUP_SUM(part, weights[ITEM], tile)
        const float shrink = exp(most - top);
        most = top;
        total = total * shrink + tile;
        const int rows = last - start < ITEMS ? (int)(last - start) : ITEMS;
        for (int c = 0; c < EACH; ++c) {
            const int e = c * ITEMS + ITEM;
            if (e < p.value_width) {
                float value = 0;
                for (int r = 0; r < rows; ++r)
                    value += weights[r] * CACHED(VALUES, v + vv.at, v_at + (start + r) * vv.stride[3],
                                                 e, vv.stride[5]);
                sum[c] = sum[c] * shrink + value;
            }
        }
        BARRIER();
    }
    if (p.splits > 1) {
        GLOBAL float *out = (GLOBAL float *)(y + y_at) +
                            ((LONG)GROUP_X * p.splits + GROUP_Y) * (p.value_width + 2);
        if (ITEM == 0) {
            out[0] = most;
            out[1] = total;
        }
        for (int c = 0; c < EACH; ++c)
            if (c * ITEMS + ITEM < p.value_width)
                out[2 + c * ITEMS + ITEM] = sum[c];
        return;
    }
    float factor = total > 0 ? 1 / total : 0;
    if (p.has_sinks && total > 0) {
        const float sink = LOAD_f32(sinks + sv.at, head * sv.stride[0]);
        const float top = fmax(most, sink);
        const float shrink = exp(most - top);
        factor = shrink / (total * shrink + exp(sink - top));
    }
    for (int c = 0; c < EACH; ++c)
        if (c * ITEMS + ITEM < p.value_width)
            STORE_f32(y + y_at, (LONG)GROUP_X * p.value_width + c * ITEMS + ITEM, sum[c] * factor);
}
