"""What depends on the CPU: the builds it can run, and the matrix products of the build in use.

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


cpdef Py_ssize_t padded(Py_ssize_t outputs, Py_ssize_t size) noexcept nogil:
    """Numbers of ``size`` bytes per feature in a sparse pass: one per output, padded to whole cache lines."""
    cdef Py_ssize_t line = 64 // size
    return (outputs + line - 1) // line * line if for_sparse(outputs) else outputs
