// What attention reads of few new tokens, at once: queries turned (rope.h), keys turned and put into
// rows of the cache, and values put there. An item per pair or element of queries, then of keys, then of
// values. Of tokens with the same row the last wins, as in scatter.cl. Strides of heads are those of
// tokens, of heads, and within a head; those of values are walked by `inner`.

KERNEL(ITEMS)
cached_heads(GLOBAL const char *q, const View qv, GLOBAL const char *k, const View kv,
             GLOBAL const char *v, const View vv, GLOBAL const char *turns, const LONG turns_at,
             GLOBAL const char *ids, const View iv, GLOBAL char *y, const LONG y_at,
             GLOBAL char *keys, const LONG keys_at, GLOBAL char *values, const LONG values_at,
             const Shape inner, const int tokens, const int heads, const int key_heads,
             const int width, const int pairs, const int interleaved, const int wide_ids,
             const int count)
{
    const int items = width - pairs;
    GLOBAL const NUM *turned = (GLOBAL const NUM *)(turns + turns_at);
    int i = GROUP_X * ITEMS + ITEM;
    if (i < tokens * heads * items) {
        const int head = i / items;
        const int token = head / heads;
        const LONG base = token * qv.stride[0] + head % heads * qv.stride[1];
        TURN(turned + (LONG)2 * token * pairs, pairs, interleaved, i % items, q + qv.at, base,
             qv.stride[2], TYPE, y + y_at, (LONG)head * width)
        return;
    }
    i -= tokens * heads * items;
    const int of_keys = i < tokens * key_heads * items;
    i -= of_keys ? 0 : tokens * key_heads * items;
    const int each = of_keys ? key_heads * items : inner.size;
    const int token = i / each;
    if (token >= tokens)
        return;
    const LONG id = LOAD_INDEX(ids + iv.at, token * iv.stride[0], wide_ids);
    int dropped = id < 0 || id >= count;
    for (int later = token + 1; later < tokens; ++later)
        dropped |= LOAD_INDEX(ids + iv.at, later * iv.stride[0], wide_ids) == id;
    if (dropped)
        return;
    i -= token * each;
    if (of_keys) {
        const LONG base = token * kv.stride[0] + i / items * kv.stride[1];
        const LONG target = (id * key_heads + i / items) * width;
        TURN(turned + (LONG)2 * token * pairs, pairs, interleaved, i % items, k + kv.at, base,
             kv.stride[2], KEYS, keys + keys_at, target)
    } else {
        const LONG at = token * vv.stride[AXES - 1] + place(vv, inner, i);
        STORE(VALUES, values + values_at, id * inner.size + i, LOAD(NEW, v + vv.at, at));
    }
}
