"""The Hessian times a direction, over the rows of X, at a point where a gradient pass kept the curvature.

Blocks, chunks and threads are as in ``gradient.pyx``.
"""

from cython cimport floating as real
from libc.stdlib cimport calloc, free, malloc

from sklloss.kernels.common cimport column_sums
from sklloss.kernels.data cimport Dataset
from sklloss.kernels.linear.gradient cimport Chunks, ChunkSums, block_scatter, block_scores
from sklloss.kernels.dispatch cimport for_sparse


cdef inline void apply_curvature(
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


def product(
    Dataset data,
    const real[:, ::1] direction,
    const real[::1] intercept,
    const real[:, ::1] curvature,
    bint coupled,
    Chunks chunks,
    Py_ssize_t chunk_first,
    Py_ssize_t chunk_last,
    ChunkSums sums,
):
    """Hessian times ``direction`` and ``intercept``, shaped as ``coef`` and ``intercept`` of `gradient`.

    ``curvature`` (rows, outputs) is what a gradient pass at the same point left behind. Overwritten are the
    chunks' gradient and shift in ``sums``, with the product.
    """
    cdef Py_ssize_t outputs = intercept.shape[0]
    cdef bint padded = for_sparse(outputs)
    cdef const real* weight = NULL
    cdef real* raw = <real*>malloc(chunks.block * outputs * sizeof(real))
    cdef real* part = NULL
    cdef Py_ssize_t chunk, first, rows
    if not data.sparse:
        part = <real*>calloc(outputs * data.features, sizeof(real))
    if raw == NULL or (part == NULL and not data.sparse):
        free(raw)
        free(part)
        raise MemoryError()
    with nogil:
        for chunk in range(chunk_first, chunk_last):
            sums.clear(chunk)
            first = chunks.bounds[chunk]
            while first < chunks.bounds[chunk + 1]:
                rows = min(chunks.block, chunks.bounds[chunk + 1] - first)
                block_scores(data, &direction[0, 0], &intercept[0], raw, first, rows, outputs, padded)
                if data.weight != NULL and coupled:
                    weight = <const real*>data.weight + first
                apply_curvature(raw, &curvature[first, 0], weight, coupled, rows, outputs)
                column_sums(raw, &sums.shift[chunk, 0], rows, outputs)
                block_scatter(data, raw, part, &sums.gradient[chunk, 0, 0], first, rows, outputs, padded)
                first += rows
        free(raw)
        free(part)
    return -1
