# BLAS through SciPy, for either dtype and with the arguments by value.

from cython cimport floating as real
from scipy.linalg.cython_blas cimport dgemm, dgemv, sgemm, sgemv


cdef inline void gemm(
    char* ta, char* tb, int m, int n, int k, real* a, int lda, real* b, int ldb, real beta, real* c, int ldc
) noexcept nogil:
    """c = op(a) op(b) + beta c, column-major as BLAS has it."""
    cdef real one = 1.0
    if real is double:
        dgemm(ta, tb, &m, &n, &k, &one, a, &lda, b, &ldb, &beta, c, &ldc)
    else:
        sgemm(ta, tb, &m, &n, &k, &one, a, &lda, b, &ldb, &beta, c, &ldc)


cdef inline void gemv(
    char* ta, int m, int n, real* a, int lda, real* x, real beta, real* y
) noexcept nogil:
    """y = op(a) x + beta y, column-major as BLAS has it."""
    cdef real one = 1.0
    cdef int step = 1
    if real is double:
        dgemv(ta, &m, &n, &one, a, &lda, x, &step, &beta, y, &step)
    else:
        sgemv(ta, &m, &n, &one, a, &lda, x, &step, &beta, y, &step)
