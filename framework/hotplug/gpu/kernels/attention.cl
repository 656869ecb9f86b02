// Attention of QUERIES queries by a work-group: heads that share keys and values, of as many tokens as
// are left, so that what is read of the cache serves all. Rows of the cache come in tiles, one to an
// item, the softmax kept online (arXiv 1805.02867, 2205.14135). Rows that nobody sees are not visited.
// With several `splits` each takes its share of the rows and leaves (largest score, sum, weighted
// values) for combine.cl. Strides 0 to 2 of a view are those of leading axes; 3 to 5 are token or row,
// head, element for q, k and v, and head, token, row for the mask. Of a quantised cache strides count
// bytes. With DENSE elements of keys and values lie beside each other; with ALIGNED, those of keys at
// multiples of 16 bytes.
#define HIDDEN -3.0e38f

// LANES items reduce the scores of one query together.
#if ITEMS == 1
#define LANES 1
#define TILE 32
#define AHEAD 16 // rows, whose distance a processor does not guess
#define EXP(x) exp_of(x)
#else
#define LANES (QUERIES == 1 ? ITEMS : QUERIES == 2 ? ITEMS / 2 : QUERIES <= 4 ? ITEMS / 4 : ITEMS / 8)
#define TILE ITEMS
#define EXP(x) exp(x)
#endif

#ifdef DENSE
#define STEP(view) 1
#else
#define STEP(view) (view).stride[5]
#endif

#if ITEMS == 1
// A row of keys or values as floats.
#ifdef QUANT
#define LOAD_ROW(type, p, view, from, length, row)                            \
    for (int n_ = 0; n_ < (length) / 16; ++n_) {                            \
        const Decoded d_ = decoded((Block)(p) + (view).at + (from), n_);      \
        EACH_PART                                                           \
        for (int j_ = 0; j_ < 16; ++j_)                                     \
            row[16 * n_ + j_] = DECODED(d_, j_);                            \
    }
#elif defined(DENSE)
#define LOAD_ROW(type, p, view, from, length, row)                            \
    {                                                                       \
        const int whole_ = (length) / 16 * 16;                              \
        PREFETCH((p) + (view).at + BYTES_OF(type) * ((from) + AHEAD * (view).stride[3]), \
                 BYTES_OF(type) * (length))                                 \
        for (int e_ = 0; e_ < whole_; e_ += 16)                             \
            *(Floats16 *)(row + e_) = JOIN(SIXTEEN_, type)((p) + (view).at, (from) + e_); \
        for (int e_ = whole_; e_ < (length); ++e_)                          \
            row[e_] = LOAD(type, (p) + (view).at, (from) + e_);             \
    }
#else
#define LOAD_ROW(type, p, view, from, length, row)                            \
    EACH_PART                                                               \
    for (int e_ = 0; e_ < (length); ++e_)                                   \
        row[e_] = LOAD(type, (p) + (view).at, (from) + e_ * STEP(view));
#endif
#else
// RUN elements of a row of keys from e on; those behind its end are 0.
#ifdef QUANT
#define RUN 16
#define LOAD_RUN(p, view, from, e, length, values)                            \
    {                                                                       \
        const Decoded d_ = decoded((Block)(p) + (view).at + (from), (e) / 16); \
        UNROLLED                                                            \
        for (int j_ = 0; j_ < RUN; ++j_)                                    \
            values[j_] = DECODED(d_, j_);                                   \
    }
#elif defined(ALIGNED)
#define RUN 8
#define LOAD_RUN(p, view, from, e, length, values)                            \
    {                                                                       \
        const UINT4 w_ = *(GLOBAL const UINT4 *)((p) + (view).at + 2 * ((from) + (e))); \
        const UINT two_[4] = {w_.x, w_.y, w_.z, w_.w};                      \
        UNROLLED                                                            \
        for (int j_ = 0; j_ < RUN; ++j_)                                    \
            values[j_] = half_to_float((USHORT)(two_[j_ / 2] >> 16 * (j_ % 2))); \
    }
#else
#define RUN 4
#define LOAD_RUN(p, view, from, e, length, values)                            \
    UNROLLED                                                                \
    for (int j_ = 0; j_ < RUN; ++j_)                                        \
        values[j_] = (e) + j_ < (length)                                    \
                         ? LOAD(KEYS, (p) + (view).at, (from) + ((e) + j_) * STEP(view)) \
                         : 0;
#endif

#ifdef QUANT
#define AT_ONCE _Pragma("unroll 1") // rows of which an item decodes its element
#define VALUE(from, e)                                                        \
    JOIN(QUANT, _at)((Block)v + vv.at + (from) +                              \
                         (LONG)((e) / JOIN(QUANT, _BLOCK)) * JOIN(QUANT, _BYTES), \
                     (e) % JOIN(QUANT, _BLOCK))
#else
#define AT_ONCE _Pragma("unroll 4")
#define VALUE(from, e) LOAD(VALUES, v + vv.at, (from) + (e) * STEP(vv))
#endif
#endif

// The most or the sum of the values of LANES neighbouring items, known to all of them.
#if ITEMS == 1
#define SHARED_BY_LANES(part, value, JOINED)
#else
#define SHARED_BY_LANES(part, value, JOINED)                                \
    part[ITEM] = value;                                                     \
    BARRIER();                                                              \
    for (int half_ = LANES / 2; half_ > 0; half_ /= 2) {                    \
        if (ITEM % LANES < half_)                                           \
            part[ITEM] = JOINED(part[ITEM], part[ITEM + half_]);            \
        BARRIER();                                                          \
    }                                                                       \
    value = part[ITEM - ITEM % LANES];                                      \
    BARRIER();
#endif
#define ADDED(a, b) ((a) + (b))

BUSY_KERNEL(ITEMS)
attention(GLOBAL const char *q, const View qv, GLOBAL const char *k, const View kv,
          GLOBAL const char *v, const View vv, GLOBAL const char *mask, const View mv,
          GLOBAL const char *positions, const View pv, GLOBAL const char *sinks, const View sv,
          GLOBAL const char *slopes, const LONG slopes_at, GLOBAL char *y, const LONG y_at,
          const Shape lead, const Attention p)
{
    LOCAL float query[QUERIES][WIDTH];
    LOCAL float weights[QUERIES][TILE];
    LOCAL float shrink[QUERIES];
    LOCAL float most[QUERIES];
    LOCAL float total[QUERIES];
    LOCAL int begins[QUERIES];
    LOCAL int ends[QUERIES];
#if ITEMS > 1
    LOCAL float part[ITEMS];
#endif
    // A group's queries are neighbours in the list of all tokens' heads that share keys.
    const int here = p.tokens * p.sharing;
    const int blocks = (here + QUERIES - 1) / QUERIES;
    const int key_heads = p.heads / p.sharing;
    const int start = GROUP_X % blocks * QUERIES;
    const int key_head = GROUP_X / blocks % key_heads;
    const int batch = GROUP_X / blocks / key_heads;
    const LONG q_at = place(qv, lead, batch);
    const LONG k_at = place(kv, lead, batch) + key_head * kv.stride[4];
    const LONG v_at = place(vv, lead, batch) + key_head * vv.stride[4];
#define TOKEN(g) ((start + (g)) / p.sharing)
#define HEAD(g) (key_head * p.sharing + (start + (g)) % p.sharing)
    for (int i = ITEM; i < QUERIES * WIDTH; i += ITEMS) {
        const int g = i / WIDTH;
        const int e = i % WIDTH;
        const LONG at = q_at + TOKEN(g) * qv.stride[3] + HEAD(g) * qv.stride[4];
        query[g][e] =
            start + g < here && e < p.width ? p.scale * LOAD(Q, q + qv.at, at + e * qv.stride[5]) : 0;
    }
    for (int g = ITEM; g < QUERIES; g += ITEMS) {
        most[g] = HIDDEN;
        total[g] = 0;
        begins[g] = 0;
        ends[g] = 0;
        if (start + g < here) {
            const LONG position = p.has_positions
                                      ? LOAD_INDEX(positions + pv.at, TOKEN(g) * pv.stride[0], p.wide)
                                      : p.rows - p.tokens + TOKEN(g);
            if (position >= 0 || !p.has_positions)
                ends[g] = p.causal && position + 1 < p.rows ? (int)(position + 1) : p.rows;
            if (p.window > 0 && position - p.window + 1 > 0)
                begins[g] = position - p.window + 1 < p.rows ? (int)(position - p.window + 1) : p.rows;
        }
    }
    BARRIER();
    int first = p.rows;
    int last = 0;
    for (int g = 0; g < QUERIES; ++g)
        if (begins[g] < ends[g]) {
            first = begins[g] < first ? begins[g] : first;
            last = ends[g] > last ? ends[g] : last;
        }
    if (p.splits > 1) {
        const int share = last > first ? (last - first + p.splits - 1) / p.splits : 0;
        first += GROUP_Y * share;
        last = first + share < last ? first + share : last;
    }
#ifdef MASK
    const LONG m_at = place(mv, lead, batch);
#endif
    float sum[QUERIES][EACH];
    for (int g = 0; g < QUERIES; ++g)
        for (int c = 0; c < EACH; ++c)
            sum[g][c] = 0;
    for (int tile = first; tile < last; tile += TILE) {
        const int rows = last - tile < TILE ? last - tile : TILE;
#if ITEMS == 1
        for (int r = 0; r < rows; ++r) {
            float row[WIDTH];
            LOAD_ROW(KEYS, k, kv, k_at + (tile + r) * kv.stride[3], p.width, row)
            for (int e = p.width; e < WIDTH; ++e)
                row[e] = 0;
            for (int g = 0; g < QUERIES; ++g)
                weights[g][r] = dot_floats(query[g], row, WIDTH);
        }
#else
        if (ITEM < rows) {
            const LONG at = k_at + (LONG)(tile + ITEM) * kv.stride[3];
            float score[QUERIES];
            UNROLLED
            for (int g = 0; g < QUERIES; ++g)
                score[g] = 0;
            _Pragma("unroll 1")
            for (int e = 0; e < p.width; e += RUN) {
                float values[RUN];
                LOAD_RUN(k, kv, at, e, p.width, values)
                UNROLLED
                for (int g = 0; g < QUERIES; ++g)
                    UNROLLED
                    for (int j = 0; j < RUN; ++j)
                        score[g] += query[g][e + j] * values[j];
            }
            UNROLLED
            for (int g = 0; g < QUERIES; ++g)
                weights[g][ITEM] = score[g];
        }
#endif
        BARRIER();
        for (int g = ITEM / LANES; g < ITEMS / LANES || g < QUERIES; g += ITEMS / LANES) {
            const int mine = g < QUERIES ? g : QUERIES - 1;
            const int used = g < QUERIES && start + g < here ? rows : 0;
            float top = most[mine];
            for (int r = ITEM % LANES; r < used; r += LANES) {
                float score = weights[mine][r];
                if (p.softcap > 0)
                    score = p.softcap * tanh(score / p.softcap);
                int seen = tile + r >= begins[mine] && tile + r < ends[mine];
#ifdef MASK
                const LONG at = m_at + HEAD(mine) * mv.stride[3] + TOKEN(mine) * mv.stride[4];
#ifdef MASK_IS_BOOL
                seen = seen && LOAD_bool(mask + mv.at, at + (tile + r) * mv.stride[5]);
#else
                const float slope = p.has_slopes ? LOAD_f32(slopes + slopes_at, HEAD(mine)) : 1;
                score += slope * LOAD(MASK, mask + mv.at, at + (tile + r) * mv.stride[5]);
#endif
#endif
                score = seen && score > HIDDEN ? score : HIDDEN;
                weights[mine][r] = score;
                top = fmax(top, score);
            }
            SHARED_BY_LANES(part, top, fmax)
            float added = 0;
#if ITEMS == 1
            for (int r = used; r < TILE; ++r)
                weights[mine][r] = HIDDEN;
            for (int r = 0; r < TILE; r += PARTS) {
                EACH_PART
                for (int j = 0; j < PARTS; ++j)
                    weights[mine][r + j] =
                        weights[mine][r + j] > HIDDEN ? EXP(weights[mine][r + j] - top) : 0;
            }
#endif
            for (int r = ITEM % LANES; r < used; r += LANES) {
#if ITEMS > 1
                const float score = weights[mine][r];
                weights[mine][r] = score > HIDDEN ? EXP(score - top) : 0;
#endif
                added += weights[mine][r];
            }
            SHARED_BY_LANES(part, added, ADDED)
            if (ITEM % LANES == 0 && g < QUERIES) {
                const float factor = EXP(most[mine] - top);
                shrink[mine] = factor;
                total[mine] = total[mine] * factor + added;
                most[mine] = top;
            }
        }
        BARRIER();
#if ITEMS == 1
        for (int g = 0; g < QUERIES; ++g)
            EACH_PART
            for (int e = 0; e < EACH; ++e)
                sum[g][e] *= shrink[g];
        for (int r = 0; r < rows; ++r) {
            float row[EACH];
            LOAD_ROW(VALUES, v, vv, v_at + (tile + r) * vv.stride[3], p.value_width, row)
            for (int g = 0; g < QUERIES; ++g)
                EACH_PART
                for (int e = 0; e < EACH; ++e)
                    sum[g][e] += weights[g][r] * row[e];
        }
#else
        UNROLLED
        for (int c = 0; c < EACH; ++c) {
            const int e = c * ITEMS + ITEM;
            if (e < p.value_width) {
                UNROLLED
                for (int g = 0; g < QUERIES; ++g)
                    sum[g][c] *= shrink[g];
                AT_ONCE
                for (int r = 0; r < rows; ++r) {
                    const float value = VALUE(v_at + (LONG)(tile + r) * vv.stride[3], e);
                    UNROLLED
                    for (int g = 0; g < QUERIES; ++g)
                        sum[g][c] += weights[g][r] * value;
                }
            }
        }
#endif
        BARRIER();
    }
    UNROLLED
    for (int g = 0; g < QUERIES; ++g)
        if (start + g < here) {
            const LONG index = ((LONG)batch * p.tokens + TOKEN(g)) * p.heads + HEAD(g);
            GLOBAL float *out = (GLOBAL float *)(y + y_at) + index * p.value_width;
            float factor = total[g] > 0 ? 1 / total[g] : 0;
            if (p.splits > 1) {
                out = (GLOBAL float *)(y + y_at) + (index * p.splits + GROUP_Y) * (p.value_width + 2);
                if (ITEM == 0) {
                    out[0] = most[g];
                    out[1] = total[g];
                }
                out += 2;
                factor = 1;
            } else if (p.has_sinks && total[g] > 0) {
                const float sink = LOAD_f32(sinks + sv.at, HEAD(g) * sv.stride[0]);
                const float top = fmax(most[g], sink);
                const float less = EXP(most[g] - top);
                factor = less / (total[g] * less + EXP(sink - top));
            }
            UNROLLED
            for (int c = 0; c < EACH; ++c) {
#if ITEMS == 1
                const int e = c;
#else
                const int e = c * ITEMS + ITEM;
#endif
                if (e < p.value_width)
                    out[e] = sum[g][c] * factor;
            }
        }
}
