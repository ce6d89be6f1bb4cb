# Threads that share the steps of one pass, included by network/network.pyx.
#
# One thread is the leader: it runs the training loop and splits large steps into tasks. Helper threads, which
# may join and leave at any time, claim tasks. The leader claims tasks too and waits only for those that a
# helper has begun, so that a helper that is late or never comes delays nothing. Tasks depend on the shape of
# the work alone and write to disjoint memory: results have the same bits whichever thread runs a task.
#
# The upper half of the ticket is the number of the step, the lower half the number of unclaimed tasks. A
# thread that decrements it has claimed a task. It may then read the description of the step, which the leader
# changes only after the last task has finished.

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>

    typedef struct {
        uint64_t ticket;
        char padding[120];    /* keeps the counters on separate cache lines */
        uint64_t finished;
        char more_padding[120];
        int state;
    } sklloss_work_sharing;

    enum { SKLLOSS_WAITING, SKLLOSS_RUNNING, SKLLOSS_OVER };

    #if (defined(__GNUC__) || defined(__clang__)) && !defined(_WIN32)
    #include <sched.h>
    #include <time.h>
    #define SKLLOSS_CAN_SHARE_WORK 1

    static inline void sklloss_publish(sklloss_work_sharing* work_sharing, size_t tasks)
    {
        uint64_t step = __atomic_load_n(&work_sharing->ticket, __ATOMIC_RELAXED) >> 32;
        __atomic_store_n(&work_sharing->finished, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&work_sharing->ticket, (step + 1) << 32 | (uint64_t)tasks, __ATOMIC_RELEASE);
    }

    static inline ptrdiff_t sklloss_claim(sklloss_work_sharing* work_sharing)
    {
        uint64_t now = __atomic_load_n(&work_sharing->ticket, __ATOMIC_ACQUIRE);
        while (now & 0xffffffffu)
            if (__atomic_compare_exchange_n(
                    &work_sharing->ticket, &now, now - 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
                return (ptrdiff_t)(now & 0xffffffffu) - 1;
        return -1;
    }

    static inline void sklloss_finish(sklloss_work_sharing* work_sharing)
    {
        __atomic_fetch_add(&work_sharing->finished, 1, __ATOMIC_RELEASE);
    }

    static inline size_t sklloss_finished(sklloss_work_sharing* work_sharing)
    {
        return (size_t)__atomic_load_n(&work_sharing->finished, __ATOMIC_ACQUIRE);
    }

    static inline void sklloss_set_state(sklloss_work_sharing* work_sharing, int state)
    {
        __atomic_store_n(&work_sharing->state, state, __ATOMIC_RELEASE);
    }

    static inline int sklloss_state(sklloss_work_sharing* work_sharing)
    {
        return __atomic_load_n(&work_sharing->state, __ATOMIC_ACQUIRE);
    }

    /* One turn of waiting: spin at first, then yield the processor, and in the end sleep. */
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
    #define SKLLOSS_CAN_SHARE_WORK 0
    static void sklloss_publish(sklloss_work_sharing* work_sharing, size_t tasks) {}
    static ptrdiff_t sklloss_claim(sklloss_work_sharing* work_sharing) { return -1; }
    static void sklloss_finish(sklloss_work_sharing* work_sharing) {}
    static size_t sklloss_finished(sklloss_work_sharing* work_sharing) { return 0; }
    static void sklloss_set_state(sklloss_work_sharing* work, int state) { work->state = state; }
    static int sklloss_state(sklloss_work_sharing* work_sharing) { return SKLLOSS_OVER; }
    static void sklloss_idle(size_t turn, int sleeps) {}
    #endif
    """
    bint CAN_SHARE_WORK "SKLLOSS_CAN_SHARE_WORK"
    int WAITING "SKLLOSS_WAITING"
    int RUNNING "SKLLOSS_RUNNING"
    int ENDED "SKLLOSS_OVER"
    ctypedef struct WorkSharing "sklloss_work_sharing":
        pass
    void publish "sklloss_publish"(WorkSharing* work_sharing, size_t tasks) noexcept nogil
    Py_ssize_t claim "sklloss_claim"(WorkSharing* work_sharing) noexcept nogil
    void finish "sklloss_finish"(WorkSharing* work_sharing) noexcept nogil
    size_t finished "sklloss_finished"(WorkSharing* work_sharing) noexcept nogil
    void set_state "sklloss_set_state"(WorkSharing* work_sharing, int state) noexcept nogil
    int state_of "sklloss_state"(WorkSharing* work_sharing) noexcept nogil
    void idle "sklloss_idle"(size_t turn, bint sleeps) noexcept nogil


cdef enum:
    MAX_TASKS = 8                   # per step, and per gradient of a layer
    TASK_UNITS = 32                 # tasks begin at multiples of so many units: whole panels of gemm.h
    STRIP_NUMBERS = 8192            # numbers of a gradient that is used by the optimiser while in cache

cdef double MIN_SHARED_WORK = 1e6   # multiplications of a step that is worth sharing: some 20 us
cdef double TASK_WORK = 8e6         # multiplications per task, where there are more than two
cdef size_t PREFETCH_BYTES = 1 << 20  # bytes of the next batch that are prefetched
cdef double MIN_TILED_WORK = 1e6    # multiplications of a build's matrix product: BLAS is faster below


cdef Py_ssize_t task_count(double work, Py_ssize_t size) noexcept nogil:
    """The number of tasks to split ``size`` units into, for a number of multiplications."""
    cdef Py_ssize_t tasks = 1
    if work >= MIN_SHARED_WORK:
        tasks = 2
        while tasks < MAX_TASKS and work >= 2 * tasks * TASK_WORK:
            tasks *= 2
    while tasks > 1 and size < TASK_UNITS * tasks:
        tasks //= 2
    return tasks


cdef Py_ssize_t task_start(Py_ssize_t size, Py_ssize_t k, Py_ssize_t tasks) noexcept nogil:
    """The first unit of a task."""
    if k == tasks:
        return size
    return (size * k // tasks + TASK_UNITS // 2) // TASK_UNITS * TASK_UNITS
