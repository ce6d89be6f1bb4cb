"""What depends on the CPU: the builds it can run, the matrix products of the build in use, and short waits.

Compiled without flags for an instruction set, so that it imports on every CPU.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer

cdef extern from *:
    """
    #if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
    /* __builtin_cpu_supports also checks that the operating system saves the wide registers. */
    static int sklloss_has_avx2(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
            && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    }
    static int sklloss_has_avx512(void) {
        return sklloss_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl");
    }
    #else
    static int sklloss_has_avx2(void) { return 0; }
    static int sklloss_has_avx512(void) { return 0; }
    #endif
    """
    bint has_avx2 "sklloss_has_avx2"()
    bint has_avx512 "sklloss_has_avx512"()

cdef extern from *:
    """
    #if (defined(__GNUC__) || defined(__clang__)) && !defined(_WIN32)
    #include <time.h>
    static inline void sklloss_increment(int* count) { __atomic_fetch_add(count, 1, __ATOMIC_RELEASE); }
    static inline int sklloss_count(const int* count) { return __atomic_load_n(count, __ATOMIC_ACQUIRE); }
    /* Whether a count changes within a time, which this thread spends in a loop. */
    static int sklloss_changes(const int* count, int from, double seconds)
    {
        struct timespec start, now;
        clock_gettime(CLOCK_MONOTONIC, &start);
        do {
            for (int turn = 0; turn < 16; turn++) {
                if (__atomic_load_n(count, __ATOMIC_ACQUIRE) != from)
                    return 1;
    #if defined(__x86_64__) || defined(__i386__)
                __builtin_ia32_pause();
    #endif
            }
            clock_gettime(CLOCK_MONOTONIC, &now);
        } while ((now.tv_sec - start.tv_sec) + 1e-9 * (now.tv_nsec - start.tv_nsec) < seconds);
        return 0;
    }
    #else
    static void sklloss_increment(int* count) { ++*count; }
    static int sklloss_count(const int* count) { return *count; }
    static int sklloss_changes(const int* count, int from, double seconds) { return 0; }
    #endif
    """
    void increment "sklloss_increment"(int* count) noexcept nogil
    int count_of "sklloss_count"(const int* count) noexcept nogil
    bint changes "sklloss_changes"(const int* count, int value, double seconds) noexcept nogil


def supported():
    """The kernel builds that this CPU and operating system can run, best first."""
    names = []
    if has_avx512():
        names.append("avx512")
    if has_avx2():
        names.append("avx2")
    names.append("baseline")
    return names


def use_products(capsule):
    """Make every pass over X call the products of a build, given as the capsule of its ``products()``."""
    global current
    current = (<Products*>PyCapsule_GetPointer(capsule, "sklloss.products"))[0]


cdef bint for_sparse(Py_ssize_t outputs) noexcept nogil:
    """Whether the products in use take CSR rows with this number of outputs."""
    return current.lanes_f64 > 0 and 2 <= outputs <= 32


def padded(Py_ssize_t outputs, Py_ssize_t size):
    """Numbers of ``size`` bytes per feature in a sparse pass: one per output, padded to whole cache lines."""
    cdef Py_ssize_t line = 64 // size
    return (outputs + line - 1) // line * line if for_sparse(outputs) else outputs


cdef class Event:
    """A counter of notifications, for which threads wait without the GIL, in a loop instead of asleep."""

    cdef int notifications

    def count(self):
        """The number of notifications so far."""
        return count_of(&self.notifications)

    def notify(self):
        """Let the threads that wait go on."""
        increment(&self.notifications)

    def wait(self, int count, double seconds, Event other=None, double after=0.0):
        """Wait until there are more notifications than ``count``; False if there are none within ``seconds``.

        ``other`` is notified first, when the GIL is free for the thread that waits for it. The GIL is taken
        no sooner than ``after`` seconds after the notification.
        """
        cdef int* others = &other.notifications if other is not None else NULL
        cdef bint found
        with nogil:
            if others != NULL:
                increment(others)
            found = changes(&self.notifications, count, seconds)
            if found and after > 0.0:
                changes(&self.notifications, count_of(&self.notifications), after)
        return found
