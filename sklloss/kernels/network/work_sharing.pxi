# A team of threads that works on one batch at a time, included by network/network.pyx.
#
# One thread leads: it runs the training loop and cuts large steps into pieces. Helpers, who come and go as
# they please, take pieces off it. The leader takes pieces too and waits only for those that a helper has
# begun, so that nothing hangs on a helper that is late or never comes. A piece is cut by the shape of the
# work alone and writes only what is its own: results are the same bits whoever does it.
#
# A ticket holds the number of the step in its upper half and how many pieces are left in the lower one.
# Who lowers it by one has a piece, and with it the right to read what the step is about, which the leader
# changes only after the last piece has ended.

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>

    typedef struct {
        uint64_t ticket;
        char apart[120];      /* on a cache line of its own */
        uint64_t ended;
        char again[120];
        int state;
    } sklloss_team;

    enum { SKLLOSS_WAITING, SKLLOSS_RUNNING, SKLLOSS_OVER };

    #if (defined(__GNUC__) || defined(__clang__)) && !defined(_WIN32)
    #include <sched.h>
    #include <time.h>
    #define SKLLOSS_TEAM 1

    static inline void sklloss_publish(sklloss_team* team, size_t pieces)
    {
        uint64_t step = __atomic_load_n(&team->ticket, __ATOMIC_RELAXED) >> 32;
        __atomic_store_n(&team->ended, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&team->ticket, (step + 1) << 32 | (uint64_t)pieces, __ATOMIC_RELEASE);
    }

    static inline ptrdiff_t sklloss_claim(sklloss_team* team)
    {
        uint64_t now = __atomic_load_n(&team->ticket, __ATOMIC_ACQUIRE);
        while (now & 0xffffffffu)
            if (__atomic_compare_exchange_n(
                    &team->ticket, &now, now - 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
                return (ptrdiff_t)(now & 0xffffffffu) - 1;
        return -1;
    }

    static inline void sklloss_end(sklloss_team* team)
    {
        __atomic_fetch_add(&team->ended, 1, __ATOMIC_RELEASE);
    }

    static inline size_t sklloss_ended(sklloss_team* team)
    {
        return (size_t)__atomic_load_n(&team->ended, __ATOMIC_ACQUIRE);
    }

    static inline void sklloss_set_state(sklloss_team* team, int state)
    {
        __atomic_store_n(&team->state, state, __ATOMIC_RELEASE);
    }

    static inline int sklloss_state(sklloss_team* team)
    {
        return __atomic_load_n(&team->state, __ATOMIC_ACQUIRE);
    }

    /* One turn of waiting: at first in place, then with the processor offered to others, at last asleep. */
    static inline void sklloss_idle(size_t turn, int sleeps)
    {
        if (turn < 4000) {
    #if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
    #endif
        } else if (turn < 8000 || !sleeps) {
            sched_yield();
        } else {
            struct timespec moment = {0, 50000};
            nanosleep(&moment, NULL);
        }
    }

    #else
    #define SKLLOSS_TEAM 0
    static void sklloss_publish(sklloss_team* team, size_t pieces) {}
    static ptrdiff_t sklloss_claim(sklloss_team* team) { return -1; }
    static void sklloss_end(sklloss_team* team) {}
    static size_t sklloss_ended(sklloss_team* team) { return 0; }
    static void sklloss_set_state(sklloss_team* team, int state) { team->state = state; }
    static int sklloss_state(sklloss_team* team) { return SKLLOSS_OVER; }
    static void sklloss_idle(size_t turn, int sleeps) {}
    #endif
    """
    bint HAS_TEAM "SKLLOSS_TEAM"
    int WAITING "SKLLOSS_WAITING"
    int RUNNING "SKLLOSS_RUNNING"
    int OVER "SKLLOSS_OVER"
    ctypedef struct Team "sklloss_team":
        pass
    void publish "sklloss_publish"(Team* team, size_t pieces) noexcept nogil
    Py_ssize_t claim "sklloss_claim"(Team* team) noexcept nogil
    void end "sklloss_end"(Team* team) noexcept nogil
    size_t ended "sklloss_ended"(Team* team) noexcept nogil
    void set_state "sklloss_set_state"(Team* team, int state) noexcept nogil
    int state_of "sklloss_state"(Team* team) noexcept nogil
    void idle "sklloss_idle"(size_t turn, bint sleeps) noexcept nogil


cdef enum:
    MOST_PIECES = 8              # of a step, and of a layer's gradient
    GRAIN = 32                   # units where a layer may be cut: whole panels of gemm.h
    STRIP = 8192                 # numbers of a gradient that is stepped by while it is in cache

cdef double LEAST = 1e6          # multiplications of a step that is worth cutting: some 20 us
cdef double PIECE = 8e6          # and of a piece, where there are more than two
cdef size_t PREFETCH_BYTES = 1 << 20      # bytes of the next batch that are prefetched during this one
cdef double OWN = 1e6            # and of a product of ours: BLAS has good kernels for small ones


cdef Py_ssize_t pieces_of(double work, Py_ssize_t size) noexcept nogil:
    """How many pieces to cut ``size`` units into, for so many multiplications."""
    cdef Py_ssize_t pieces = 1
    if work >= LEAST:
        pieces = 2
        while pieces < MOST_PIECES and work >= 2 * pieces * PIECE:
            pieces *= 2
    while pieces > 1 and size < GRAIN * pieces:
        pieces //= 2
    return pieces


cdef Py_ssize_t cut(Py_ssize_t size, Py_ssize_t k, Py_ssize_t pieces) noexcept nogil:
    """Where piece k begins."""
    if k == pieces:
        return size
    return (size * k // pieces + GRAIN // 2) // GRAIN * GRAIN
