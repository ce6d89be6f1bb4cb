"""One pass over the rows of X for a linear model: block of rows -> raw scores -> kernel -> gradient.

A block is small enough to stay in cache between the two products that read it, so X comes from memory
once per pass. Blocks belong to chunks: each chunk adds up its own gradient and loss, and the caller
adds the chunks in their order. Chunks are cut by the shape of the problem alone, so the result has
the same bits however many threads share them. Every function here releases the GIL for its whole range.

Parameters are a matrix ``coef`` of shape (outputs, features) and ``intercept`` of shape (outputs,).
"""

import numpy as np

from libc.stdint cimport int32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from sklloss.kernels.data cimport Batch, batch_kernel
from sklloss.kernels.products cimport for_sparse
from sklloss.kernels.python_loss cimport FAILED, Call, bind


def dense_gradient(
    loss,
    const real[:, :] X,
    const real[:, ::1] coef,
    const real[::1] intercept,
    const real[:, ::1] target,
    const Py_ssize_t[::1] codes,
    const real[::1] weight,
    bint weight_per_output,
    bint expand,
    double parameter,
    Py_ssize_t block,
    const Py_ssize_t[::1] bounds,
    Py_ssize_t chunk_first,
    Py_ssize_t chunk_last,
    double[:, :, ::1] gradient,
    double[:, ::1] shift,
    double[:, ::1] sums,
    real[:, ::1] curvature,
    real[:, ::1] slopes=None,
):
    """Loss and gradient over the chunks [chunk_first, chunk_last) of a dense X, by rows or by columns.

    Row i of chunk c lies in [bounds[c], bounds[c + 1]); ``gradient[c]`` (outputs, features), ``shift[c]``
    (outputs, for the intercept) and ``sums[c]`` (2 * outputs) are overwritten, and ``curvature`` (rows,
    outputs) if it is given; so are ``slopes``, with the derivatives of rows by their scores, times weights.
    ``weight`` holds a number per row, or per row and output. ``expand`` makes codes into 0/1 targets for a
    loss over such. ``loss`` is a kernel's PyCapsule or a `PythonLoss`, whose
    errors come out as they are.
    Returns -1, or the first row with a code that is out of range.
    """
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, real is float, &batch, &kernel)
    cdef Space space
    cdef Py_ssize_t outputs = coef.shape[0], features = coef.shape[1]
    cdef bint by_rows = X.strides[1] == sizeof(real) and (X.strides[0] >= features * <Py_ssize_t>sizeof(real))
    cdef Py_ssize_t step = (X.strides[0] if by_rows else X.strides[1]) // <Py_ssize_t>sizeof(real)
    cdef real* x = <real*>&X[0, 0]
    cdef real* w = <real*>&coef[0, 0]
    cdef real* raw
    cdef const real* y = &target[0, 0] if target is not None else NULL
    cdef const Py_ssize_t* c = &codes[0] if codes is not None else NULL
    cdef const real* s = &weight[0] if weight is not None else NULL
    cdef Py_ssize_t chunk, first, rows, bad = -1
    cdef int ld = <int>max(step, 1)
    cdef int p = <int>features, K = <int>outputs, m
    cdef real* xb
    cdef real* part = <real*>calloc(outputs * features, sizeof(real))
    if part == NULL or not take_space(&space, block, outputs, sizeof(real)):
        free(part)
        raise MemoryError()
    with nogil:
        raw = <real*>space.raw
        batch.parameter = parameter
        for chunk in range(chunk_first, chunk_last):
            memset(&gradient[chunk, 0, 0], 0, outputs * features * sizeof(double))
            memset(&shift[chunk, 0], 0, outputs * sizeof(double))
            memset(&sums[chunk, 0], 0, 2 * outputs * sizeof(double))
            first = bounds[chunk]
            while first < bounds[chunk + 1]:
                rows = min(block, bounds[chunk + 1] - first)
                m = <int>rows
                xb = x + (first * step if by_rows else first)
                dense_scores(xb, by_rows, ld, w, &intercept[0], raw, m, p, K)
                bad = aim(&batch, &space, y, c, s, weight_per_output, expand, first, rows, outputs)
                if curvature is not None:
                    batch.curvature = &curvature[first, 0]
                if bad < 0:
                    bad = kernel(&batch)
                if bad != -1:
                    bad += first if bad >= 0 else 0
                    break
                if slopes is not None:
                    memcpy(&slopes[first, 0], raw, rows * outputs * sizeof(real))
                gather_sums(space.sums, &sums[chunk, 0], outputs)
                column_sums(raw, &shift[chunk, 0], rows, outputs)
                dense_scatter(xb, by_rows, ld, raw, part, &gradient[chunk, 0, 0], m, p, K)
                first += rows
            if bad != -1:
                break
        free(space.memory)
        free(part)
    if bad == FAILED:
        call.raise_error()
    return bad


def sparse_gradient(
    loss,
    const real[::1] data,
    const index[::1] indices,
    const index[::1] indptr,
    const real[:, ::1] coef,
    const real[::1] intercept,
    const real[:, ::1] target,
    const Py_ssize_t[::1] codes,
    const real[::1] weight,
    bint weight_per_output,
    bint expand,
    double parameter,
    Py_ssize_t block,
    const Py_ssize_t[::1] bounds,
    Py_ssize_t chunk_first,
    Py_ssize_t chunk_last,
    double[:, :, ::1] gradient,
    double[:, ::1] shift,
    double[:, ::1] sums,
    real[:, ::1] curvature,
    real[:, ::1] slopes=None,
):
    """The same for a CSR X. ``coef`` and ``gradient[c]`` are (features, outputs): a feature is contiguous.

    Where `_products.for_sparse` says so, the outputs of a feature are padded to a whole line of 64 bytes.
    """
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, real is float, &batch, &kernel)
    cdef Space space
    cdef Py_ssize_t outputs = intercept.shape[0]
    cdef bint padded = for_sparse(outputs)
    cdef Py_ssize_t numbers = gradient.shape[1] * gradient.shape[2]
    cdef const real* w = &coef[0, 0]
    cdef const real* value = &data[0] if data.shape[0] else NULL
    cdef const index* column = &indices[0] if indices.shape[0] else NULL
    cdef real* raw
    cdef double* g
    cdef const real* y = &target[0, 0] if target is not None else NULL
    cdef const Py_ssize_t* c = &codes[0] if codes is not None else NULL
    cdef const real* s = &weight[0] if weight is not None else NULL
    cdef Py_ssize_t chunk, first, rows, bad = -1
    if not take_space(&space, block, outputs, sizeof(real)):
        raise MemoryError()
    with nogil:
        raw = <real*>space.raw
        batch.parameter = parameter
        for chunk in range(chunk_first, chunk_last):
            g = &gradient[chunk, 0, 0]
            memset(g, 0, numbers * sizeof(double))
            memset(&shift[chunk, 0], 0, outputs * sizeof(double))
            memset(&sums[chunk, 0], 0, 2 * outputs * sizeof(double))
            first = bounds[chunk]
            while first < bounds[chunk + 1]:
                rows = min(block, bounds[chunk + 1] - first)
                sparse_scores(value, column, &indptr[first], w, &intercept[0], raw, rows, outputs, padded)
                bad = aim(&batch, &space, y, c, s, weight_per_output, expand, first, rows, outputs)
                if curvature is not None:
                    batch.curvature = &curvature[first, 0]
                if bad < 0:
                    bad = kernel(&batch)
                if bad != -1:
                    bad += first if bad >= 0 else 0
                    break
                if slopes is not None:
                    memcpy(&slopes[first, 0], raw, rows * outputs * sizeof(real))
                gather_sums(space.sums, &sums[chunk, 0], outputs)
                column_sums(raw, &shift[chunk, 0], rows, outputs)
                sparse_scatter(value, column, &indptr[first], raw, g, rows, outputs, padded)
                first += rows
            if bad != -1:
                break
        free(space.memory)
    if bad == FAILED:
        call.raise_error()
    return bad


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
