"""What this CPU can run. Built for the baseline, so that it imports everywhere."""

cdef extern from *:
    """
    #if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
    /* __builtin_cpu_supports asks the operating system too: it must save the wide registers. */
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


def supported():
    """The kernel builds that this CPU and operating system can run, best first."""
    names = []
    if has_avx512():
        names.append("avx512")
    if has_avx2():
        names.append("avx2")
    names.append("baseline")
    return names
