# What the stochastic passes over dense and over sparse rows share.

from cpython.exc cimport PyErr_CheckSignals
from cython cimport floating as real
from libc.math cimport fabs

from sklloss.kernels.data cimport Batch
from sklloss.kernels.linear.gradient cimport one_hot

cdef enum:
    PATIENCE = 50000000  # multiplications, some 20 ms


cdef inline Py_ssize_t load_targets(
    Batch* batch, const Py_ssize_t* rows_at, Py_ssize_t rows, const real* target, const Py_ssize_t* codes,
    const real* weight, bint weight_per_output, bint expand, real* target_out, Py_ssize_t* codes_out,
    real* weight_out,
) noexcept nogil:
    """Point a batch at gathered targets and weights. Returns -1, or the first of its rows with a bad code."""
    cdef Py_ssize_t i, k, K = batch.outputs, bad = -1
    batch.target = NULL
    batch.codes = NULL
    batch.weight = NULL
    batch.weight_per_output = weight_per_output
    batch.rows = rows
    if target != NULL:
        for i in range(rows):
            for k in range(K):
                target_out[i * K + k] = target[rows_at[i] * K + k]
        batch.target = target_out
    elif codes != NULL:
        for i in range(rows):
            codes_out[i] = codes[rows_at[i]]
        if expand:
            bad = one_hot(codes_out, target_out, rows, K)
            batch.target = target_out
        else:
            batch.codes = codes_out
    if weight != NULL:
        batch.weight = weight_out
        for i in range(rows):
            if weight_per_output:
                for k in range(K):
                    weight_out[i * K + k] = weight[rows_at[i] * K + k]
            else:
                weight_out[i] = weight[rows_at[i]]
    return bad


cdef inline void subtract_kept(
    real* slopes, const real* kept, const Py_ssize_t* rows_at, Py_ssize_t rows, Py_ssize_t K
) noexcept nogil:
    cdef Py_ssize_t i, k
    for i in range(rows):
        for k in range(K):
            slopes[i * K + k] -= kept[rows_at[i] * K + k]


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


cdef inline double held(double slope, double curve) noexcept nogil:
    """The fraction t of a step that is short of the least of curve t**2 / 2 - slope t.

    Against the slope, where momentum may lead, it is as far.
    """
    return fabs(slope) / curve if fabs(slope) < curve else 1.0


cdef inline int look_up(double* work) except -1 nogil:
    """After some 20 ms of work, let a pending Ctrl-C raise KeyboardInterrupt."""
    if work[0] > PATIENCE:
        work[0] = 0.0
        with gil:
            PyErr_CheckSignals()
    return 0
