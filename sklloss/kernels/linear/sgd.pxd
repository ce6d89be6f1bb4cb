# What the stochastic passes over dense and over sparse rows share.

from cython cimport floating as real
from libc.math cimport fabs


cdef inline void subtract_reference(
    real* slopes, const real* reference, const Py_ssize_t* rows_at, Py_ssize_t rows, Py_ssize_t K
) noexcept nogil:
    """Take the slopes that the rows of a batch had at an earlier point from those they have now."""
    cdef Py_ssize_t i, k
    for i in range(rows):
        for k in range(K):
            slopes[i * K + k] -= reference[rows_at[i] * K + k]


cdef inline double squares(
    const real* z, const real* weight, bint weight_per_output, Py_ssize_t rows, Py_ssize_t K
) noexcept nogil:
    """The weighted sum of squares of z (rows, K)."""
    cdef Py_ssize_t i, k
    cdef double total = 0.0, square
    for i in range(rows):
        for k in range(K):
            square = <double>z[i * K + k] * <double>z[i * K + k]
            if weight != NULL:
                square *= <double>weight[i * K + k if weight_per_output else i]
            total += square
    return total


cdef inline double damping(double slope, double curvature) noexcept nogil:
    """The fraction t of a step that is short of the minimum of curvature t**2 / 2 - slope t.

    Against the slope, where momentum may lead, it is as far.
    """
    return fabs(slope) / curvature if fabs(slope) < curvature else 1.0
