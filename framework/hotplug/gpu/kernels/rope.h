// A pair of a head's elements turned by what turns.cl left for it: `turns` has cosine and sine of each
// token's pairs.

// The n-th of a head's items: a pair that is turned, or an element after those that is not.
#define TURN(turns, pairs, interleaved, n, from, base, stride, to_type, to, target) \
    {                                                                        \
        const int n_ = (n);                                                  \
        if (n_ >= (pairs)) {                                                 \
            const int at_ = n_ + (pairs);                                    \
            STORE(to_type, to, (target) + at_,                               \
                  LOAD(TYPE, from, (base) + at_ * (stride)));                \
        } else {                                                             \
            const NUM cosine_ = (turns)[2 * n_];                             \
            const NUM sine_ = (turns)[2 * n_ + 1];                           \
            const int one_ = (interleaved) ? 2 * n_ : n_;                    \
            const int two_ = (interleaved) ? 2 * n_ + 1 : n_ + (pairs);      \
            const NUM a_ = LOAD(TYPE, from, (base) + one_ * (stride));       \
            const NUM b_ = LOAD(TYPE, from, (base) + two_ * (stride));       \
            STORE(to_type, to, (target) + one_, a_ * cosine_ - b_ * sine_);  \
            STORE(to_type, to, (target) + two_, a_ * sine_ + b_ * cosine_);  \
        }                                                                    \
    }
