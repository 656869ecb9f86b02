// Recurrences along tokens, as hotplug.ops.recurrence defines them. A head's state has n rows, one
// per element of a key, and d columns, which know nothing of each other. An item keeps ROWS x COLUMNS
// values of it in registers from the first token to the last. SPLIT items share a column's rows; a
// group has LANES items of COLUMNS columns each, for HEADS heads. Views have the axes batch, token,
// head, and row or column.
#define OWNERS (HEADS * LANES)

#if SPLIT == 1
#define OVER_ROWS(slot, sum)
#else
// Sums over the rows of a column, known to all items that share it. A slot may be written again once
// every item has passed the barrier of another.
#define OVER_ROWS(slot, sum)                                    \
    IN_REGISTERS                                                \
    for (int c = 0; c < COLUMNS; ++c)                           \
        part[slot][ITEM / OWNERS][c * OWNERS + owner] = sum[c]; \
    BARRIER();                                                  \
    IN_REGISTERS                                                \
    for (int c = 0; c < COLUMNS; ++c) {                         \
        sum[c] = 0;                                             \
        for (int s = 0; s < SPLIT; ++s)                         \
            sum[c] += part[slot][s][c * OWNERS + owner];        \
    }
#endif

#define ORIGIN(view, h) (batch * (view).stride[0] + (h) * (view).stride[2])
#define VALUE(p, view, start) LOAD(TYPE, (p) + (view).at, (start) + token * (view).stride[1])
#define ROW(p, view, start, i) VALUE(p, view, (start) + (first + (i)) * (view).stride[3])

KERNEL(ITEMS)
recurrence(GLOBAL const char *query, const View qv, GLOBAL const char *key, const View kv,
           GLOBAL const char *value, const View vv, GLOBAL const char *decay, const View dv,
           GLOBAL const char *extra, const View ev, GLOBAL const char *more, const View mv,
           GLOBAL const char *state, const View sv, GLOBAL char *y, const LONG y_at,
           const int tokens, const int heads, const int share, const int n, const int d,
           const int across, const int down, const NUM scale)
{
#if SPLIT > 1
    LOCAL NUM part[3][SPLIT][OWNERS * COLUMNS];
#endif
    const int owner = ITEM % OWNERS;
    const int first = ITEM / OWNERS * ROWS;
    const int lane = GROUP_X % across * LANES * COLUMNS + owner % LANES;
    const int head = GROUP_X / across % down * HEADS + owner / LANES;
    const LONG batch = GROUP_X / across / down;
    const LONG h = head < heads ? head : heads - 1; // what is beyond is computed and not stored
    const LONG q_at = ORIGIN(qv, h / share);
    const LONG k_at = ORIGIN(kv, h / share);
    const LONG v_at = ORIGIN(vv, h);
    const LONG d_at = ORIGIN(dv, h);
    const LONG e_at = ORIGIN(ev, h);
    const LONG m_at = ORIGIN(mv, h);
    const LONG to = (batch * (tokens + n) * heads + h) * d;
    const LONG line = (LONG)heads * d;
    LONG column[COLUMNS];
    NUM s[ROWS][COLUMNS];
    IN_REGISTERS
    for (int c = 0; c < COLUMNS; ++c)
        column[c] = lane + c * LANES < d ? lane + c * LANES : d - 1;
    IN_REGISTERS
    for (int i = 0; i < ROWS; ++i)
        EACH_PART
        for (int c = 0; c < COLUMNS; ++c)
            s[i][c] = first + i < n ? LOAD(STATE, state + sv.at,
                                           batch * sv.stride[0] + (first + i) * sv.stride[1] +
                                               h * sv.stride[2] + column[c] * sv.stride[3])
                                    : 0;

    for (LONG token = 0; token < tokens; ++token) {
        NUM given[COLUMNS]; // what a key's element is multiplied with
        NUM result[COLUMNS];
        EACH_PART
        for (int c = 0; c < COLUMNS; ++c) {
            given[c] = VALUE(value, vv, v_at + column[c] * vv.stride[3]);
            result[c] = 0;
        }
#ifdef SELECTIVE_SCAN
        const NUM x = VALUE(extra, ev, e_at);
        const NUM span = (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
        const NUM alike = exp(span * VALUE(decay, dv, d_at));
        EACH_PART
        for (int c = 0; c < COLUMNS; ++c)
            given[c] *= span;
#endif
#ifdef WKV7
        NUM removed[COLUMNS];
        EACH_PART
        for (int c = 0; c < COLUMNS; ++c)
            removed[c] = 0;
        IN_REGISTERS
        for (int i = 0; i < ROWS; ++i)
            if (first + i < n) {
                const NUM a = ROW(extra, ev, e_at, i);
                EACH_PART
                for (int c = 0; c < COLUMNS; ++c)
                    removed[c] += a * s[i][c];
            }
        OVER_ROWS(2, removed)
#endif
#ifdef GATED_DELTA_RULE
        const NUM alike = exp(VALUE(decay, dv, d_at));
        NUM known[COLUMNS];
        EACH_PART
        for (int c = 0; c < COLUMNS; ++c)
            known[c] = 0;
        IN_REGISTERS
        for (int i = 0; i < ROWS; ++i)
            if (first + i < n) {
                const NUM w = dv.stride[3] ? exp(ROW(decay, dv, d_at, i)) : alike;
                const NUM k = ROW(key, kv, k_at, i);
                EACH_PART
                for (int c = 0; c < COLUMNS; ++c) {
                    s[i][c] *= w;
                    known[c] += k * s[i][c];
                }
            }
        OVER_ROWS(2, known)
        EACH_PART
        for (int c = 0; c < COLUMNS; ++c)
            given[c] = VALUE(extra, ev, e_at) * (given[c] - known[c]);
#endif
        IN_REGISTERS
        for (int i = 0; i < ROWS; ++i)
            if (first + i < n) {
                const NUM q = ROW(query, qv, q_at, i);
                const NUM k = ROW(key, kv, k_at, i);
#ifdef SELECTIVE_SCAN
                const NUM w = dv.stride[3] ? exp(span * ROW(decay, dv, d_at, i)) : alike;
#elif defined(GATED_DELTA_RULE)
                const NUM w = 1;
#else
                const NUM w = ROW(decay, dv, d_at, i);
#endif
#ifdef WKV6
                const NUM bonus = ROW(extra, ev, e_at, i);
#endif
#ifdef WKV7
                const NUM b = ROW(more, mv, m_at, i);
#endif
                EACH_PART
                for (int c = 0; c < COLUMNS; ++c) {
                    const NUM now = k * given[c];
#ifdef WKV6
                    result[c] += q * (bonus * now + s[i][c]);
                    s[i][c] = w * s[i][c] + now;
#else
                    s[i][c] = w * s[i][c] + now;
#ifdef WKV7
                    s[i][c] += b * removed[c];
#endif
                    result[c] += q * s[i][c];
#endif
                }
            }
        OVER_ROWS(token & 1, result)
        if (first == 0 && head < heads)
            IN_REGISTERS
            for (int c = 0; c < COLUMNS; ++c)
                if (lane + c * LANES < d)
                    STORE(STATE, y + y_at, to + token * line + column[c], scale * result[c]);
    }

    if (head < heads)
        IN_REGISTERS
        for (int i = 0; i < ROWS; ++i)
            for (int c = 0; c < COLUMNS; ++c)
                if (first + i < n && lane + c * LANES < d)
                    STORE(STATE, y + y_at, to + (tokens + first + i) * line + column[c], s[i][c]);
}
