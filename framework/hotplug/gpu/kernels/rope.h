// A pair of a head's elements turned by position * coefficient (/ factor). `table` has a coefficient for
// each pair, and the row of positions that it goes by.
typedef struct {
    GLOBAL const char *positions;
    GLOBAL const char *factors;
    GLOBAL const NUM *coefficients;
    GLOBAL const int *rows;
    LONG row_step, token_step, factor_step;
    NUM magnitude;
    int pairs, interleaved, wide, has_factors;
} Rotation;

FUNCTION NUM angle_of(const Rotation r, int token, int pair)
{
    const LONG at = r.rows[pair] * r.row_step + token * r.token_step;
    NUM angle = (NUM)LOAD_INDEX(r.positions, at, r.wide) * r.coefficients[pair];
    if (r.has_factors)
        angle /= LOAD_f32(r.factors, pair * r.factor_step);
    return angle;
}

// The n-th of a head's items: a pair that is turned, or an element after those that is not.
#define TURN(r, token, n, from, base, stride, to_type, to, target)           \
    {                                                                        \
        const int n_ = (n);                                                  \
        if (n_ >= r.pairs) {                                                 \
            const int at_ = n_ + r.pairs;                                    \
            STORE(to_type, to, (target) + at_,                               \
                  LOAD(TYPE, from, (base) + at_ * (stride)));                \
        } else {                                                             \
            const NUM angle = angle_of(r, token, n_);                        \
            const NUM cosine = r.magnitude * cos(angle);                     \
            const NUM sine = r.magnitude * sin(angle);                       \
            const int one = r.interleaved ? 2 * n_ : n_;                     \
            const int two = r.interleaved ? 2 * n_ + 1 : n_ + r.pairs;       \
            const NUM a_ = LOAD(TYPE, from, (base) + one * (stride));        \
            const NUM b_ = LOAD(TYPE, from, (base) + two * (stride));        \
            STORE(to_type, to, (target) + one, a_ * cosine - b_ * sine);     \
            STORE(to_type, to, (target) + two, a_ * sine + b_ * cosine);     \
        }                                                                    \
    }
