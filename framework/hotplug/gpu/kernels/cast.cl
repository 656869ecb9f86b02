// Values of one dtype as those of another, which is an argument. What an integer cannot hold becomes
// the nearest that it can; NaN becomes 0.
#define IS_NAN(v) ((v) != (v))
#ifdef FROM_FLOAT
// A limit that the float type rounds up is itself out of range, hence >=.
#define LIMITED(v, low, high) \
    (IS_NAN(v) ? (LONG)0 : (v) <= (NUM)(low) ? (LONG)(low) : (v) >= (NUM)(high) ? (LONG)(high) : (LONG)(v))
#else
#define LIMITED(v, low, high) ((v) < (low) ? (LONG)(low) : (v) > (high) ? (LONG)(high) : (LONG)(v))
#endif
#define LEAST_LONG (-0x7fffffffffffffffL - 1)
#define LARGEST_LONG 0x7fffffffffffffffL

#ifdef WIDER // f64 and i64 do not fit into f32: rounding twice is avoided by rounding to odd first.
FUNCTION float to_odd(NUM value)
{
    const float near = (float)value;
    const NUM back = (NUM)near;
    UINT bits = AS_UINT(near);
    if (back == value || IS_NAN(value) || (bits & 0x7f800000) == 0x7f800000)
        return near;
    if ((value >= 0 && back > value) || (value < 0 && back < value))
        bits -= 1; // toward zero
    return AS_FLOAT(bits | 1);
}
#define NARROW(v) to_odd(v)
#else
#define NARROW(v) ((float)(v))
#endif

KERNEL(ITEMS)
cast(GLOBAL const char *x, const View xv, GLOBAL char *y, const LONG y_at, const Shape shape,
     const int target)
{
    const int i = GROUP_X * ITEMS + ITEM;
    if (i >= shape.size)
        return;
    const NUM v = LOAD(TYPE, x + xv.at, place(xv, shape, i));
    GLOBAL char *out = y + y_at;
    switch (target) {
    case 0: STORE_f32(out, i, v); break;
    case 1: STORE_f16(out, i, NARROW(v)); break;
    case 2: STORE_bf16(out, i, NARROW(v)); break;
#ifdef HAS_F64
    case 3: STORE_f64(out, i, v); break;
#endif
    case 4: STORE_i8(out, i, LIMITED(v, -128, 127)); break;
    case 5: STORE_i16(out, i, LIMITED(v, -32768, 32767)); break;
    case 6: STORE_i32(out, i, LIMITED(v, -2147483647 - 1, 2147483647)); break;
    case 7: STORE_i64(out, i, LIMITED(v, LEAST_LONG, LARGEST_LONG)); break;
    case 8: STORE_bool(out, i, v); break;
    }
}
