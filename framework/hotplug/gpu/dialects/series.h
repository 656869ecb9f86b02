// Kernels that the threads of a processor do one after the other in one launch. Each thread is a group of
// that; it takes groups of the kernel that is due until none is left, then waits for those that others have
// taken. For what nobody has begun nobody waits, so that a thread may come late, or not at all.
#define COUNTER(n) (counters + 16 * (n)) // in a cache line of its own
#define FENCE() __sync_synchronize()

// Somebody who is waited for may wait for this processor.
#define TRIES 256
#if defined(__x86_64__) && defined(__linux__)
#define PAUSE() __builtin_ia32_pause()
#define YIELD()                                                              \
    {                                                                        \
        LONG call_ = 24; /* sched_yield */                                   \
        __asm__ volatile("syscall" : "+a"(call_) : : "rcx", "r11", "memory"); \
    }
#elif defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#define YIELD() PAUSE()
#else
#define PAUSE()
#define YIELD()
#endif

// Of ROUNDS rounds with STEPS kernels each has its part of a table of numbers, which is so many bytes long.
#define EACH_ROUND(bytes)                                                    \
    GLOBAL const char *numbers = table + at;                                 \
    for (int round = 0; round < ROUNDS; ++round, numbers += (bytes))

// The n-th kernel, whose groups along x and y are the n-th two of `numbers`; `call` computes one of them.
#define STEP(n, call)                                                        \
    {                                                                        \
        const int across_ = ((GLOBAL const int *)numbers)[2 * (n)];          \
        const int all_ = across_ * ((GLOBAL const int *)numbers)[2 * (n) + 1]; \
        GLOBAL volatile int *taken_ = COUNTER(2 * (round * STEPS + (n)));    \
        GLOBAL volatile int *done_ = COUNTER(2 * (round * STEPS + (n)) + 1); \
        int mine_ = 0;                                                       \
        for (int i_; (i_ = atomic_inc(taken_)) < all_; ++mine_) {            \
            const int group_x = i_ % across_;                                \
            const int group_y = i_ / across_;                                \
            call;                                                            \
        }                                                                    \
        FENCE();                                                             \
        atomic_add(done_, mine_);                                            \
        for (int try_ = 0; *done_ < all_; ++try_) {                          \
            PAUSE();                                                         \
            if (try_ >= TRIES)                                               \
                YIELD();                                                     \
        }                                                                    \
        FENCE();                                                             \
    }

// At the end: who leaves last has the counters as they were.
#define LEAVE()                                                              \
    if (atomic_inc(COUNTER(2 * ROUNDS * STEPS)) == (int)get_num_groups(0) - 1) \
        for (int i_ = 0; i_ <= 2 * ROUNDS * STEPS; ++i_)                     \
            *COUNTER(i_) = 0;
