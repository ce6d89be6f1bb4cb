"""Passes over the rows of X for a linear model: loss and gradient, and the Hessian times a direction.

A block is small enough to stay in cache between the two products that read it, so X comes from memory
once per pass. Blocks belong to chunks: each chunk adds up its own gradient and loss, and the caller
adds the chunks in their order. Chunk boundaries depend on the shape of the problem alone, so the result has
the same bits however many threads share the chunks. Every function here releases the GIL for its whole range.

Parameters are a matrix ``coef`` of shape (outputs, features) and ``intercept`` of shape (outputs,).
"""

import numpy as np

from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from sklloss.kernels.common cimport current, for_sparse, gather_sums
from sklloss.kernels.data cimport FAILED, Batch, Call, Dataset, Workspace, allocate, batch_kernel, bind


cdef class Chunks:
    """Rows cut into chunks, which threads share, and these into blocks, which stay in cache.

    Parameters
    ----------
    bounds : ndarray of intp of shape (chunks + 1,)
        Row i of chunk c lies in [bounds[c], bounds[c + 1]).
    block : int
        Rows per block; the last of a chunk may have fewer.
    """

    def __init__(self, bounds, Py_ssize_t block):
        self.bounds = bounds
        self.block = block


cdef class ChunkSums:
    """What each chunk of rows adds up by itself: arrays of float64 that a pass overwrites.

    Parameters
    ----------
    gradient : ndarray of shape (chunks, outputs, features), or for a sparse X (chunks, features, outputs)
        Where `common.for_sparse` says so, the outputs of a feature are padded to a line of 64 bytes.
    shift : ndarray of shape (chunks, outputs), optional
        The gradient by the intercepts, where ``gradient`` has none.
    loss : ndarray of shape (chunks, 2 * outputs), optional
        Weighted losses, and what rounding left over.
    hessian : ndarray of shape (chunks, matrices, size, size), optional
    """

    def __init__(self, gradient, shift=None, loss=None, hessian=None):
        self.gradient = gradient
        self.shift = shift
        self.loss = loss
        self.hessian = hessian

    cdef void clear(self, Py_ssize_t chunk) noexcept nogil:
        """Set the sums of a chunk to 0."""
        memset(
            &self.gradient[chunk, 0, 0], 0,
            self.gradient.shape[1] * self.gradient.shape[2] * sizeof(double),
        )
        if self.shift is not None:
            memset(&self.shift[chunk, 0], 0, self.shift.shape[1] * sizeof(double))
        if self.loss is not None:
            memset(&self.loss[chunk, 0], 0, self.loss.shape[1] * sizeof(double))
        if self.hessian is not None:
            memset(
                &self.hessian[chunk, 0, 0, 0], 0,
                self.hessian.shape[1] * self.hessian.shape[2] * self.hessian.shape[3] * sizeof(double),
            )


def gradient(
    loss,
    Dataset data,
    const real[:, ::1] coef,
    const real[::1] intercept,
    Chunks chunks,
    Py_ssize_t chunk_first,
    Py_ssize_t chunk_last,
    ChunkSums sums,
    real[:, ::1] curvature=None,
    real[:, ::1] slopes=None,
):
    """Loss and gradient over the chunks [chunk_first, chunk_last).

    ``loss`` is of X's dtype: a `CompiledLoss`, or a `PythonLoss`, whose errors come out as they are. For a
    sparse X, ``coef`` is (features, outputs), padded as the gradient is: a feature is contiguous.
    Overwritten are the chunks' gradient, shift and loss in ``sums``; ``curvature`` (rows, outputs), if it is
    given; and ``slopes`` with the derivatives of rows by their scores, times weights.

    Returns -1, or the first row with a code that is out of range.
    """
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, real is float, &batch, &kernel)
    cdef Workspace work
    cdef Py_ssize_t outputs = intercept.shape[0]
    cdef bint padded = for_sparse(outputs)
    cdef Py_ssize_t chunk, first, rows, bad = -1
    cdef real* raw
    cdef DenseBuffers buffers
    if not allocate_dense(&buffers, data, chunks.block):
        raise MemoryError()
    if not allocate(&work, chunks.block, outputs, real is float):
        free(buffers.memory)
        raise MemoryError()
    with nogil:
        raw = <real*>work.raw
        pack_coef(data, &buffers, &coef[0, 0], &intercept[0])
        for chunk in range(chunk_first, chunk_last):
            sums.clear(chunk)
            first = chunks.bounds[chunk]
            while first < chunks.bounds[chunk + 1]:
                rows = min(chunks.block, chunks.bounds[chunk + 1] - first)
                block_scores(
                    data, &buffers, &coef[0, 0], &intercept[0], raw, first, rows, outputs, padded
                )
                bad = data.set_batch(&batch, &work, NULL, first, rows)
                if curvature is not None:
                    batch.curvature = &curvature[first, 0]
                if bad < 0:
                    bad = kernel(&batch)
                if bad != -1:
                    bad += first if bad >= 0 else 0
                    break
                if slopes is not None:
                    memcpy(&slopes[first, 0], raw, rows * outputs * sizeof(real))
                gather_sums(work.sums, &sums.loss[chunk, 0], outputs)
                add_column_sums(raw, &sums.shift[chunk, 0], rows, outputs)
                block_scatter(
                    data, &buffers, raw, &sums.gradient[chunk, 0, 0], first, rows, outputs, padded
                )
                first += rows
            if bad != -1:
                break
        free(work.memory)
        free(buffers.memory)
    if bad == FAILED:
        call.raise_error()
    return bad


cdef inline void apply_curvature(
    const real* raw, const real* curvature, const real* weight, bint coupled, real* out, Py_ssize_t rows,
    Py_ssize_t outputs,
) noexcept nogil:
    """out = Hessian times the direction raw, row by row.

    Separable: curvature (with its weight) times direction. Softmax: weight * (diag(p) - p p') u.
    """
    cdef Py_ssize_t i, k
    cdef real mean, w
    if current.lanes_f64 > 0:
        if real is double:
            current.curvature_product_f64(raw, curvature, weight, coupled, out, rows, outputs)
        else:
            current.curvature_product_f32(raw, curvature, weight, coupled, out, rows, outputs)
        return
    if not coupled:
        for i in range(rows * outputs):
            out[i] = raw[i] * curvature[i]
        return
    for i in range(rows):
        mean = 0.0
        for k in range(outputs):
            mean = mean + curvature[i * outputs + k] * raw[i * outputs + k]
        w = weight[i] if weight != NULL else <real>1.0
        for k in range(outputs):
            out[i * outputs + k] = w * curvature[i * outputs + k] * (raw[i * outputs + k] - mean)


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
    # two blocks, and behind each memory for a vector
    cdef Py_ssize_t size = chunks.block * outputs + 64 // sizeof(real), chunk, first, rows
    cdef real* raw = <real*>malloc(2 * size * sizeof(real))
    cdef real* curved = raw + size
    cdef DenseBuffers buffers
    if raw == NULL or not allocate_dense(&buffers, data, chunks.block):
        free(raw)
        raise MemoryError()
    with nogil:
        pack_coef(data, &buffers, &direction[0, 0], &intercept[0])
        for chunk in range(chunk_first, chunk_last):
            sums.clear(chunk)
            first = chunks.bounds[chunk]
            while first < chunks.bounds[chunk + 1]:
                rows = min(chunks.block, chunks.bounds[chunk + 1] - first)
                block_scores(
                    data, &buffers, &direction[0, 0], &intercept[0], raw, first, rows, outputs, padded
                )
                if data.weight != NULL and coupled:
                    weight = <const real*>data.weight + first
                apply_curvature(raw, &curvature[first, 0], weight, coupled, curved, rows, outputs)
                add_column_sums(curved, &sums.shift[chunk, 0], rows, outputs)
                block_scatter(
                    data, &buffers, curved, &sums.gradient[chunk, 0, 0], first, rows, outputs, padded
                )
                first += rows
        free(raw)
        free(buffers.memory)
    return -1


def uses_blas(Dataset data):
    """Whether the products of a dense X are those of BLAS."""
    return not data.sparse and not own_products(data)


def by_feature(const double[:, :] coef, real[:, ::1] w):
    """Write coefficients (outputs, features or more) as w (features, outputs or more); what is more stays."""
    cdef Py_ssize_t outputs = coef.shape[0], features = w.shape[0], first, last, j, k
    with nogil:
        # as many features at a time as stay in cache
        for first in range(0, features, 64):
            last = min(first + 64, features)
            for k in range(outputs):
                for j in range(first, last):
                    w[j, k] = <real>coef[k, j]


def by_output(const double[:, :, ::1] parts, double[:, :] total):
    """Make total (outputs, features or more) of the sum of (features, outputs or more) matrices, in order."""
    cdef Py_ssize_t outputs = total.shape[0], chunks = parts.shape[0], features = parts.shape[1]
    cdef Py_ssize_t first, last, j, k, c
    cdef double x
    with nogil:
        for first in range(0, features, 64):
            last = min(first + 64, features)
            for k in range(outputs):
                for j in range(first, last):
                    x = parts[0, j, k]
                    for c in range(1, chunks):
                        x = x + parts[c, j, k]
                    total[k, j] = x


def weighted_columns(
    const real[::1] data,
    const index[::1] indices,
    const index[::1] indptr,
    const double[::1] weight,
    double[::1] squares,
    double[::1] sums=None,
):
    """Add weight * x**2 over the rows of a CSR X to its columns' squares, and weight * x to their sums."""
    cdef Py_ssize_t i, j
    cdef double x
    with nogil:
        for i in range(weight.shape[0]):
            for j in range(<Py_ssize_t>indptr[i], <Py_ssize_t>indptr[i + 1]):
                x = <double>data[j]
                squares[indices[j]] += weight[i] * x * x
                if sums is not None:
                    sums[indices[j]] += weight[i] * x


def repeats(const index[::1] indices, const index[::1] indptr, Py_ssize_t features):
    """Whether a row of a CSR X, checked by SciPy, has an index twice."""
    cdef index[::1] seen = np.zeros(features, np.int32 if index is int32_t else np.int64)
    cdef Py_ssize_t i, j
    cdef bint found = False
    with nogil:
        for i in range(indptr.shape[0] - 1):
            for j in range(<Py_ssize_t>indptr[i], <Py_ssize_t>indptr[i + 1]):
                # one more than the row, as rows count from 0
                found = found or seen[indices[j]] == <index>(i + 1)
                seen[indices[j]] = <index>(i + 1)
            if found:
                break
    return found
