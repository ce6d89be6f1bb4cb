"""Passes over the rows of X for a linear model: loss and gradient, and the Hessian times a direction.

A block is small enough to stay in cache between the two products that read it, so X comes from memory
once per pass. Blocks belong to chunks: each chunk adds up its own gradient and loss, and the caller
adds the chunks in their order. Chunk boundaries depend on the shape of the problem alone, so the result has
the same bits however many threads share the chunks, which they do without the GIL.
"""

import numpy as np

from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from sklloss.kernels.common cimport current, for_sparse, gather_sums, padded
from sklloss.kernels.data cimport FAILED, Batch, Call, Dataset, Workspace, allocate, batch_kernel, bind
from sklloss.kernels.sharing cimport NO_MEMORY, Pieces, Task, next_piece, share
from sklloss.kernels.solve cimport Operator


cdef class Chunks:
    """Rows cut into chunks, which threads share, and these into blocks, which stay in cache.

    Parameters
    ----------
    bounds : ndarray of intp of shape (chunks + 1,)
        Row i of chunk c lies in [bounds[c], bounds[c + 1]).
    block : int
        Rows per block; the last of a chunk may have fewer.
    n_threads : int
        How many threads may share the chunks.
    """

    def __init__(self, bounds, Py_ssize_t block, Py_ssize_t n_threads=1):
        self.bounds = bounds
        self.block = block
        self.count = self.bounds.shape[0] - 1
        self.n_threads = n_threads


cdef class PassBuffers:
    """What a pass needs beside the rows: coefficients in X's dtype, and what each chunk adds up by itself.

    Of a sparse X, the outputs of a feature are contiguous. Where `common.for_sparse` says so, they are padded
    to a line of 64 bytes.

    Parameters
    ----------
    data : Dataset
    chunks : int
    outputs : int
        Those of the data, or fewer in a product.
    """

    def __cinit__(self, Dataset data, Py_ssize_t chunks, Py_ssize_t outputs):
        cdef Py_ssize_t size = sizeof(float) if data.single else sizeof(double)
        cdef Py_ssize_t step = padded(outputs, size) if data.sparse else outputs
        cdef Py_ssize_t coef = lines(data.features * step * size), intercept = lines(outputs * size)
        self.chunks, self.outputs, self.padded = chunks, outputs, for_sparse(outputs)
        self.numbers = data.features * (padded(outputs, 8) if data.sparse else outputs)
        self.memory = <char*>malloc(
            64 + coef + intercept + chunks * (self.numbers + 3 * outputs) * <Py_ssize_t>sizeof(double)
        )
        if self.memory == NULL:
            raise MemoryError()
        self.coef = self.memory + 64 - <size_t>self.memory % 64
        self.intercept = <char*>self.coef + coef
        self.gradient = <double*>(<char*>self.intercept + intercept)
        self.shift = self.gradient + chunks * self.numbers
        self.loss = self.shift + chunks * outputs
        # what pads the coefficients stays 0
        memset(self.coef, 0, coef)

    def __dealloc__(self):
        free(self.memory)

    cdef void set_coef(self, Dataset data, const double[:, :] coef) noexcept nogil:
        """Take over coefficients (outputs, features) of centered rows, an intercept last if there is one."""
        if data.single:
            convert(data, coef, <float*>self.coef, <float*>self.intercept)
        else:
            convert(data, coef, <double*>self.coef, <double*>self.intercept)

    cdef void add_up(self, Dataset data, double[:, ::1] total) noexcept nogil:
        """Set the gradient of centered rows, as `set_coef` takes coefficients, to the sum of the chunks'."""
        cdef Py_ssize_t features = data.features, k, j, c
        cdef double shift
        if data.sparse:
            sum_by_output(self.gradient, self.chunks, features, self.numbers, total)
        else:
            for k in range(self.outputs):
                memcpy(&total[k, 0], self.gradient + k * features, features * sizeof(double))
                for c in range(1, self.chunks):
                    for j in range(features):
                        total[k, j] += self.gradient[c * self.numbers + k * features + j]
        if total.shape[1] == features:
            return
        for k in range(self.outputs):
            shift = self.shift[k]
            for c in range(1, self.chunks):
                shift += self.shift[c * self.outputs + k]
            total[k, features] = shift
            if data.centered:
                for j in range(features):
                    total[k, j] -= shift * data.center[j]


cdef inline Py_ssize_t lines(Py_ssize_t size) noexcept nogil:
    """A number of bytes that fills whole cache lines."""
    return (size + 63) // 64 * 64


cdef void convert(Dataset data, const double[:, :] coef, real* w, real* intercept) noexcept nogil:
    """Coefficients and intercepts in X's dtype and in the layout of a pass, from those of centered rows."""
    cdef Py_ssize_t outputs = coef.shape[0], features = data.features, first, last, j, k, step
    cdef double b
    if data.sparse:
        step = padded(outputs, sizeof(real))
        # as many features at a time as stay in cache
        for first in range(0, features, 64):
            last = min(first + 64, features)
            for k in range(outputs):
                for j in range(first, last):
                    w[j * step + k] = <real>coef[k, j]
    else:
        for k in range(outputs):
            for j in range(features):
                w[k * features + j] = <real>coef[k, j]
    for k in range(outputs):
        b = coef[k, features] if coef.shape[1] > features else 0.0
        if data.centered and coef.shape[1] > features:
            for j in range(features):
                b -= coef[k, j] * data.center[j]
        intercept[k] = <real>b


cdef class Pass(Task):
    cdef Dataset data
    cdef Chunks chunks
    cdef PassBuffers buffers
    cdef void* curvature     # (rows, outputs), or NULL
    cdef void* slopes        # likewise
    cdef bint coupled
    cdef Batch batch
    cdef batch_kernel kernel


cdef class GradientPass(Pass):
    cdef void run(self, Pieces* pieces) noexcept nogil:
        if self.data.single:
            add_gradients(self, self.data, self.chunks, self.buffers, pieces, <float*>self.buffers.coef)
        else:
            add_gradients(self, self.data, self.chunks, self.buffers, pieces, <double*>self.buffers.coef)


cdef class ProductPass(Pass):
    cdef void run(self, Pieces* pieces) noexcept nogil:
        if self.data.single:
            add_products(self, self.data, self.chunks, self.buffers, pieces, <float*>self.buffers.coef)
        else:
            add_products(self, self.data, self.chunks, self.buffers, pieces, <double*>self.buffers.coef)


cdef void set_up(Pass task, Dataset data, Chunks chunks, PassBuffers buffers, object curvature):
    task.data, task.chunks, task.buffers = data, chunks, buffers
    task.curvature = address(curvature, data.single)


cdef void* address(object array, bint single) except? NULL:
    """Where the numbers of a C-ordered matrix are, which the caller keeps; NULL for None."""
    cdef float[:, ::1] floats
    cdef double[:, ::1] doubles
    if array is None:
        return NULL
    if single:
        floats = array
        return &floats[0, 0]
    doubles = array
    return &doubles[0, 0]


def gradient(
    loss,
    Dataset data,
    Chunks chunks,
    PassBuffers buffers,
    const double[:, :] coef,
    double[::1] sums,
    double[:, ::1] total,
    curvature=None,
    slopes=None,
):
    """Loss and gradient over all chunks.

    ``loss`` is of X's dtype: a `CompiledLoss`, or a `PythonLoss`, whose errors come out as they are. ``coef``
    is (outputs, features) for the rows less their center, the intercepts as last column if there are any.
    Overwritten are ``sums`` (outputs,) with weighted losses, ``total`` with the gradient, shaped as ``coef``;
    and, where they are given, (rows, outputs) and of X's dtype: ``curvature``, and ``slopes`` with the
    derivatives of rows by their scores, times weights.

    Returns -1, or the first row with a code that is out of range.
    """
    cdef GradientPass task = GradientPass()
    cdef Call call = bind(loss, data.single, &task.batch, &task.kernel)
    cdef Py_ssize_t k, c
    set_up(task, data, chunks, buffers, curvature)
    task.slopes = address(slopes, data.single)
    buffers.set_coef(data, coef)
    share(task, chunks.count, chunks.n_threads)
    if task.status == FAILED:
        call.raise_error()
    if task.status == -1:
        buffers.add_up(data, total)
        for k in range(buffers.outputs):
            sums[k] = 0.0
            for c in range(buffers.chunks):
                sums[k] += buffers.loss[2 * c * buffers.outputs + k]
    return task.status


cdef void add_gradients(
    GradientPass task, Dataset data, Chunks chunks, PassBuffers sums, Pieces* pieces, const real* coef
) noexcept nogil:
    """The part of one thread in `gradient`: pieces are chunks."""
    cdef Py_ssize_t chunk = next_piece(pieces), outputs = sums.outputs, first, last, rows, bad
    cdef const real* intercept = <const real*>sums.intercept
    cdef real* raw
    cdef Batch batch = task.batch
    cdef Workspace work
    cdef DenseBuffers buffers
    if chunk < 0:
        return
    if not allocate_dense(&buffers, data, chunks.block):
        task.fail(pieces, NO_MEMORY)
        return
    if not allocate(&work, chunks.block, outputs, data.single):
        free(buffers.memory)
        task.fail(pieces, NO_MEMORY)
        return
    raw = <real*>work.raw
    pack_coef(data, &buffers, coef, intercept)
    while chunk >= 0:
        memset(sums.gradient + chunk * sums.numbers, 0, sums.numbers * sizeof(double))
        memset(sums.shift + chunk * outputs, 0, outputs * sizeof(double))
        memset(sums.loss + 2 * chunk * outputs, 0, 2 * outputs * sizeof(double))
        first = chunks.bounds[chunk]
        last = chunks.bounds[chunk + 1]
        while first < last:
            rows = min(chunks.block, last - first)
            block_scores(data, &buffers, coef, intercept, raw, first, rows, outputs, sums.padded)
            bad = data.set_batch(&batch, &work, NULL, first, rows)
            if task.curvature != NULL:
                batch.curvature = <real*>task.curvature + first * outputs
            if bad < 0:
                bad = task.kernel(&batch)
            if bad != -1:
                task.fail(pieces, bad + first if bad >= 0 else bad)
                break
            if task.slopes != NULL:
                memcpy(<real*>task.slopes + first * outputs, raw, rows * outputs * sizeof(real))
            gather_sums(work.sums, sums.loss + 2 * chunk * outputs, outputs)
            add_column_sums(raw, sums.shift + chunk * outputs, rows, outputs)
            block_scatter(
                data, &buffers, raw, sums.gradient + chunk * sums.numbers, first, rows, outputs, sums.padded
            )
            first += rows
        chunk = next_piece(pieces)
    free(work.memory)
    free(buffers.memory)


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
    Chunks chunks,
    PassBuffers buffers,
    const double[:, :] direction,
    curvature,
    bint coupled,
    double[:, ::1] total,
):
    """Set ``total`` to the Hessian times ``direction``, both shaped as ``coef`` of `gradient`.

    ``curvature`` (rows, outputs) is what a gradient pass at the same point left behind.
    """
    cdef ProductPass task = ProductPass()
    set_up(task, data, chunks, buffers, curvature)
    task.coupled = coupled
    buffers.set_coef(data, direction)
    share(task, chunks.count, chunks.n_threads)
    buffers.add_up(data, total)


cdef void add_products(
    ProductPass task, Dataset data, Chunks chunks, PassBuffers sums, Pieces* pieces, const real* direction
) noexcept nogil:
    """The part of one thread in `product`: pieces are chunks."""
    cdef Py_ssize_t chunk = next_piece(pieces), outputs = sums.outputs, first, last, rows
    # two blocks, and behind each memory for a vector
    cdef Py_ssize_t size = chunks.block * outputs + 64 // sizeof(real)
    cdef const real* intercept = <const real*>sums.intercept
    cdef const real* weight = NULL
    cdef real* raw
    cdef real* curved
    cdef DenseBuffers buffers
    if chunk < 0:
        return
    raw = <real*>malloc(2 * size * sizeof(real))
    curved = raw + size
    if raw == NULL or not allocate_dense(&buffers, data, chunks.block):
        free(raw)
        task.fail(pieces, NO_MEMORY)
        return
    pack_coef(data, &buffers, direction, intercept)
    while chunk >= 0:
        memset(sums.gradient + chunk * sums.numbers, 0, sums.numbers * sizeof(double))
        memset(sums.shift + chunk * outputs, 0, outputs * sizeof(double))
        first = chunks.bounds[chunk]
        last = chunks.bounds[chunk + 1]
        while first < last:
            rows = min(chunks.block, last - first)
            block_scores(data, &buffers, direction, intercept, raw, first, rows, outputs, sums.padded)
            if data.weight != NULL and task.coupled:
                weight = <const real*>data.weight + first
            apply_curvature(
                raw, <const real*>task.curvature + first * outputs, weight, task.coupled, curved, rows,
                outputs,
            )
            add_column_sums(curved, sums.shift + chunk * outputs, rows, outputs)
            block_scatter(
                data, &buffers, curved, sums.gradient + chunk * sums.numbers, first, rows, outputs,
                sums.padded,
            )
            first += rows
        chunk = next_piece(pieces)
    free(raw)
    free(buffers.memory)


cdef class HessianOperator(Operator):
    """``scale`` times the Hessian of the loss sums, plus ``ridge`` times the direction.

    Parameters
    ----------
    data, chunks, buffers, curvature, coupled
        See `product`.
    scale : float
    ridge : ndarray of shape (outputs, width)
    varying : ndarray of shape (width,) or None
        0 for columns that are left out of the Hessian of the loss, else 1.
    """

    cdef ProductPass task
    cdef object curvature  # which the task points to
    cdef double scale
    cdef const double[:, ::1] ridge
    cdef const double[::1] varying
    cdef double[:, ::1] direction, total

    def __init__(
        self, Dataset data, Chunks chunks, PassBuffers buffers, curvature, bint coupled, *, double scale,
        ridge, varying,
    ):
        self.task, self.curvature = ProductPass(), curvature
        set_up(self.task, data, chunks, buffers, curvature)
        self.task.coupled = coupled
        self.scale, self.ridge, self.varying = scale, ridge, varying
        self.direction, self.total = np.empty_like(ridge), np.empty_like(ridge)

    cdef int apply(self, const double[:, ::1] x, double[:, ::1] out) except -1:
        cdef Py_ssize_t k, j, width = self.ridge.shape[1]
        cdef const double* v = &x[0, 0]
        cdef double* product = &out[0, 0]
        cdef double kept
        cdef bint some_left_out = self.varying is not None
        for k in range(self.ridge.shape[0]):
            for j in range(width):
                self.direction[k, j] = v[k * width + j] * (self.varying[j] if some_left_out else 1.0)
        self.task.buffers.set_coef(self.task.data, self.direction)
        share(self.task, self.task.chunks.count, self.task.chunks.n_threads)
        self.task.buffers.add_up(self.task.data, self.total)
        for k in range(self.ridge.shape[0]):
            for j in range(width):
                kept = self.varying[j] if some_left_out else 1.0
                product[k * width + j] = (
                    self.scale * kept * self.total[k, j] + self.ridge[k, j] * v[k * width + j]
                )
        return 0


def select_rows(
    const real[:, ::1] curvature, const real[:] weight, bint softmax, double negligible,
    Py_ssize_t[::1] rows,
):
    """Set the first of ``rows`` to those whose curvature is more than a ``negligible`` share of the mean.

    The curvature of a row is the sum over its outputs; of a ``softmax``, whose probabilities are given, the
    trace of its matrix, times the weight.

    Returns
    -------
    count : int
        How many rows are set.
    mean : float
        Without weights.
    largest : float
    """
    cdef Py_ssize_t n = curvature.shape[0], outputs = curvature.shape[1], i, k, count = 0
    cdef double total = 0.0, weighted = 0.0, largest = 0.0, least, of_row
    cdef const real* row
    cdef double[::1] of_rows = np.empty(n)
    with nogil:
        for i in range(n):
            row = &curvature[i, 0]
            of_row = 0.0
            if softmax:
                for k in range(outputs):
                    of_row += <double>row[k] * row[k]
                of_row = 1.0 - of_row
            else:
                for k in range(outputs):
                    of_row += row[k]
            total += of_row
            if weight is not None:
                of_row *= weight[i]
            weighted += of_row
            largest = max(largest, of_row)
            of_rows[i] = of_row
        least = negligible * weighted / n
        for i in range(n):
            rows[count] = i
            count += of_rows[i] > least
    return count, total / n, largest


def uses_blas(Dataset data):
    """Whether the products of a dense X are those of BLAS."""
    return not data.sparse and not own_products(data)


cdef void sum_by_output(
    const double* parts, Py_ssize_t chunks, Py_ssize_t features, Py_ssize_t numbers, double[:, :] total
) noexcept nogil:
    """Make total (outputs, features or more) of the sum of (features, outputs or more) matrices, in order."""
    cdef Py_ssize_t outputs = total.shape[0], step = numbers // max(features, 1), first, last, j, k, c
    cdef double x
    for first in range(0, features, 64):
        last = min(first + 64, features)
        for k in range(outputs):
            for j in range(first, last):
                x = parts[j * step + k]
                for c in range(1, chunks):
                    x = x + parts[c * numbers + j * step + k]
                total[k, j] = x


def by_output(const double[:, ::1] w, double[:, :] total):
    """Set total (outputs, features or more) to w (features, outputs or more)."""
    with nogil:
        sum_by_output(&w[0, 0], 1, w.shape[0], w.shape[0] * w.shape[1], total)


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
