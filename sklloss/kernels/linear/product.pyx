"""The Hessian times a direction, over the rows of X, at a point where a gradient pass kept the curvature.

Blocks, chunks and threads are as in ``_sweep``.
"""

from cython cimport floating as real
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from sklloss.kernels.products cimport for_sparse
from sklloss.kernels.linear.gradient cimport (
    column_sums,
    dense_scatter,
    dense_scores,
    index,
    sparse_scatter,
    sparse_scores,
)


cdef inline void bend(
    real* raw, const real* curvature, const real* weight, bint coupled, Py_ssize_t rows, Py_ssize_t outputs
) noexcept nogil:
    """Raw directions become Hessian times direction, row by row.

    Separable: curvature (with its weight) times direction. Softmax: weight * (diag(p) - p p') u.
    """
    cdef Py_ssize_t i, k
    cdef real mean, w
    if not coupled:
        for i in range(rows * outputs):
            raw[i] = raw[i] * curvature[i]
        return
    for i in range(rows):
        mean = 0.0
        for k in range(outputs):
            mean = mean + curvature[i * outputs + k] * raw[i * outputs + k]
        w = weight[i] if weight != NULL else <real>1.0
        for k in range(outputs):
            raw[i * outputs + k] = w * curvature[i * outputs + k] * (raw[i * outputs + k] - mean)


def dense_product(
    const real[:, :] X,
    const real[:, ::1] direction,
    const real[::1] intercept,
    const real[:, ::1] curvature,
    const real[::1] weight,
    bint coupled,
    Py_ssize_t block,
    const Py_ssize_t[::1] bounds,
    Py_ssize_t chunk_first,
    Py_ssize_t chunk_last,
    double[:, :, ::1] product,
    double[:, ::1] shift,
):
    """Hessian times ``direction`` (outputs, features) and ``intercept`` (outputs,), chunk by chunk.

    ``curvature`` (rows, outputs) is what a gradient pass at the same point left behind.
    """
    cdef Py_ssize_t outputs = direction.shape[0], features = direction.shape[1]
    cdef bint by_rows = X.strides[1] == sizeof(real) and (X.strides[0] >= features * <Py_ssize_t>sizeof(real))
    cdef Py_ssize_t step = (X.strides[0] if by_rows else X.strides[1]) // <Py_ssize_t>sizeof(real)
    cdef real* x = <real*>&X[0, 0]
    cdef real* v = <real*>&direction[0, 0]
    cdef const real* s = NULL
    cdef real* raw = <real*>malloc(block * outputs * sizeof(real))
    cdef real* part = <real*>calloc(outputs * features, sizeof(real))
    cdef real* xb
    cdef Py_ssize_t chunk, first, rows
    cdef int ld = <int>max(step, 1)
    cdef int p = <int>features, K = <int>outputs, m
    if raw == NULL or part == NULL:
        free(raw)
        free(part)
        raise MemoryError()
    with nogil:
        for chunk in range(chunk_first, chunk_last):
            memset(&product[chunk, 0, 0], 0, outputs * features * sizeof(double))
            memset(&shift[chunk, 0], 0, outputs * sizeof(double))
            first = bounds[chunk]
            while first < bounds[chunk + 1]:
                rows = min(block, bounds[chunk + 1] - first)
                m = <int>rows
                xb = x + (first * step if by_rows else first)
                dense_scores(xb, by_rows, ld, v, &intercept[0], raw, m, p, K)
                if weight is not None and coupled:
                    s = &weight[first]
                bend(raw, &curvature[first, 0], s, coupled, rows, outputs)
                column_sums(raw, &shift[chunk, 0], rows, outputs)
                dense_scatter(xb, by_rows, ld, raw, part, &product[chunk, 0, 0], m, p, K)
                first += rows
        free(raw)
        free(part)
    return -1


def sparse_product(
    const real[::1] data,
    const index[::1] indices,
    const index[::1] indptr,
    const real[:, ::1] direction,
    const real[::1] intercept,
    const real[:, ::1] curvature,
    const real[::1] weight,
    bint coupled,
    Py_ssize_t block,
    const Py_ssize_t[::1] bounds,
    Py_ssize_t chunk_first,
    Py_ssize_t chunk_last,
    double[:, :, ::1] product,
    double[:, ::1] shift,
):
    """The same for a CSR X; ``direction`` and ``product[c]`` are (features, outputs), padded as there."""
    cdef Py_ssize_t outputs = intercept.shape[0]
    cdef bint padded = for_sparse(outputs)
    cdef Py_ssize_t numbers = product.shape[1] * product.shape[2]
    cdef const real* v = &direction[0, 0]
    cdef const real* value = &data[0] if data.shape[0] else NULL
    cdef const index* column = &indices[0] if indices.shape[0] else NULL
    cdef const real* s = NULL
    cdef real* raw = <real*>malloc(block * outputs * sizeof(real))
    cdef Py_ssize_t chunk, first, rows
    if raw == NULL:
        raise MemoryError()
    with nogil:
        for chunk in range(chunk_first, chunk_last):
            memset(&product[chunk, 0, 0], 0, numbers * sizeof(double))
            memset(&shift[chunk, 0], 0, outputs * sizeof(double))
            first = bounds[chunk]
            while first < bounds[chunk + 1]:
                rows = min(block, bounds[chunk + 1] - first)
                sparse_scores(value, column, &indptr[first], v, &intercept[0], raw, rows, outputs, padded)
                if weight is not None and coupled:
                    s = &weight[first]
                bend(raw, &curvature[first, 0], s, coupled, rows, outputs)
                column_sums(raw, &shift[chunk, 0], rows, outputs)
                sparse_scatter(
                    value, column, &indptr[first], raw, &product[chunk, 0, 0], rows, outputs, padded
                )
                first += rows
        free(raw)
    return -1
