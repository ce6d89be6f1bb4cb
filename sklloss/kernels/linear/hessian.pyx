"""Second derivatives over the rows of X: the Hessian itself.

Blocks, chunks and threads are as in ``gradient.pyx``.
"""

import numpy as np

from cython cimport floating as real
from libc.math cimport sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from sklloss.kernels.common cimport add_gram, gather_sums, gemm
from sklloss.kernels.data cimport FAILED, Batch, Call, Dataset, Workspace, allocate, batch_kernel, bind
from sklloss.kernels.linear.gradient cimport Chunks, ChunkSums, has_products, index
from sklloss.kernels.dispatch cimport current


cdef inline void load_sparse(
    const real* value, const index* column, const index* indptr, bint shifted, double* z,
    Py_ssize_t rows, Py_ssize_t features, Py_ssize_t width,
) noexcept nogil:
    cdef Py_ssize_t i, j
    memset(z, 0, rows * width * sizeof(double))
    for i in range(rows):
        for j in range(<Py_ssize_t>indptr[i], <Py_ssize_t>indptr[i + 1]):
            z[i * width + column[j]] = <double>value[j]
        if shifted:
            z[i * width + features] = 1.0


cdef inline bint has_gram(Py_ssize_t step) noexcept nogil:
    """Whether the build in use is to make a Gram matrix of rows of so many numbers: BLAS is for wide ones."""
    return current.lanes_f64 > 0 and step <= 128


cdef inline void weighted_rows(
    const double* z, const double* factor, Py_ssize_t factor_step, double* out, Py_ssize_t rows,
    Py_ssize_t step,
) noexcept nogil:
    """out[i] = factor[i] z[i], a negative factor counting as 0."""
    cdef Py_ssize_t i, j
    cdef double f
    for i in range(rows):
        f = factor[i * factor_step]
        f = f if f > 0.0 else 0.0
        for j in range(step):
            out[i * step + j] = f * z[i * step + j]


cdef inline void scaled_rows(
    const double* z, Py_ssize_t z_step, const double* factor, Py_ssize_t factor_step, double* out,
    Py_ssize_t out_step, Py_ssize_t rows, Py_ssize_t width,
) noexcept nogil:
    """out[i] = sqrt(factor[i]) z[i], a negative factor counting as 0."""
    cdef Py_ssize_t i, j
    cdef double f
    for i in range(rows):
        f = factor[i * factor_step]
        f = sqrt(f) if f > 0.0 else 0.0
        for j in range(width):
            out[i * out_step + j] = f * z[i * z_step + j]


cdef void add_curvature(
    Batch* batch, const double* z, Py_ssize_t step, double* work, Py_ssize_t width, bint coupled, double* h
) noexcept nogil:
    """Add a block's rows, ``step`` apart, to the Hessian, from the curvature that the kernel left behind.

    Separable outputs have a Hessian each, z' diag(curvature) z, in rows of ``step`` numbers as z has, of
    which the build in use may have a product of its own. The outputs of a softmax are
    coupled: the Hessian of a row is weight * (diag(p) - p p') times z z', so the classes' own
    blocks are added one by one, and the outer products subtracted at once, from rows p_k z side by side.
    """
    cdef Py_ssize_t K = batch.outputs, rows = batch.rows
    cdef double* curvature = <double*>batch.curvature
    cdef const double* weight = <const double*>batch.weight
    cdef Py_ssize_t i, j, k, size = K * width
    cdef double f
    if not coupled:
        for k in range(K):
            if has_gram(step):
                weighted_rows(z, curvature + k, K, work, rows, step)
                current.gram_f64(work, z, step, rows, h + k * step * step)
            else:
                scaled_rows(z, step, curvature + k, K, work, step, rows, width)
                add_gram(1.0, work, step, rows, width, h + k * step * step, step)
        return
    for i in range(rows):
        f = sqrt(weight[i]) if weight != NULL else 1.0
        for k in range(K):
            for j in range(width):
                work[i * size + k * width + j] = f * curvature[i * K + k] * z[i * step + j]
    add_gram(-1.0, work, size, rows, size, h, size)
    for k in range(K):
        if weight != NULL:
            for i in range(rows):
                curvature[i * K + k] *= weight[i]
        scaled_rows(z, step, curvature + k, K, work, width, rows, width)
        add_gram(1.0, work, width, rows, width, h + k * width * size + k * width, size)


# A sparse block entry by entry: all in double, and the intercept, if any, after the last feature.

cdef inline void entry_scores(
    const real* value, const index* column, const index* indptr, bint shifted, const double* w, double* raw,
    Py_ssize_t rows, Py_ssize_t features, Py_ssize_t width, Py_ssize_t outputs,
) noexcept nogil:
    """raw = X w'."""
    cdef Py_ssize_t i, j, k
    cdef const double* wk
    cdef double s
    for i in range(rows):
        for k in range(outputs):
            wk = w + k * width
            s = wk[features] if shifted else 0.0
            for j in range(<Py_ssize_t>indptr[i], <Py_ssize_t>indptr[i + 1]):
                s += <double>value[j] * wk[column[j]]
            raw[i * outputs + k] = s


cdef inline void entry_scatter(
    const real* value, const index* column, const index* indptr, bint shifted, const double* raw, double* out,
    Py_ssize_t rows, Py_ssize_t features, Py_ssize_t width, Py_ssize_t outputs,
) noexcept nogil:
    """out += raw' X."""
    cdef Py_ssize_t i, j, k
    cdef double* ok
    cdef double g
    for i in range(rows):
        for k in range(outputs):
            ok = out + k * width
            g = raw[i * outputs + k]
            if shifted:
                ok[features] += g
            for j in range(<Py_ssize_t>indptr[i], <Py_ssize_t>indptr[i + 1]):
                ok[column[j]] += g * <double>value[j]


cdef inline void entry_curvature(
    const real* value, const index* column, const index* indptr, bint shifted, const double* curvature,
    Py_ssize_t rows, Py_ssize_t features, Py_ssize_t step, Py_ssize_t outputs, double* h,
) noexcept nogil:
    """The same as `add_curvature` of outputs that are not coupled."""
    cdef Py_ssize_t i, j, a, k, first, last
    cdef double* hk
    cdef double* line
    cdef double f, g
    for i in range(rows):
        first = <Py_ssize_t>indptr[i]
        last = <Py_ssize_t>indptr[i + 1]
        for k in range(outputs):
            f = curvature[i * outputs + k]
            if not f > 0.0:
                continue
            hk = h + k * step * step
            for a in range(first, last):
                line = hk + <Py_ssize_t>column[a] * step
                g = f * <double>value[a]
                for j in range(first, a + 1):
                    if column[j] <= column[a]:
                        line[column[j]] += g * <double>value[j]
                    else:
                        hk[<Py_ssize_t>column[j] * step + column[a]] += g * <double>value[j]
            if shifted:
                line = hk + features * step
                for j in range(first, last):
                    line[column[j]] += f * <double>value[j]
                line[features] += f


def hessian(
    loss,
    Dataset data,
    const double[:, ::1] coef,
    Chunks chunks,
    Py_ssize_t chunk_first,
    Py_ssize_t chunk_last,
    ChunkSums sums,
    bint coupled,
    bint softmax,
    bint as_dense,
):
    """Loss, gradient and Hessian over a range of chunks, all in double whatever X's dtype.

    ``coef`` and the chunks' gradients in ``sums`` are (outputs, width), the intercept as last column if width
    is one more than the features. The rows of a dense X are taken less its center. A block of a sparse X is
    copied ``as_dense``, which ``coupled`` outputs need, or taken entry by entry.

    The chunks' Hessians in ``sums`` are (outputs, step, step) for separable losses, where ``step`` is width
    or more, a multiple of 8, of which the first ``width`` count; or where the outputs are ``coupled`` they
    are (1, outputs * width, outputs * width). Only their lower triangles are filled. A ``softmax`` that is
    not asked to be coupled gets its diagonal blocks alone. Without Hessians in ``sums`` only the others are
    made.

    ``loss`` is for double: a `CompiledLoss` or a `PythonLoss`.
    Returns -1, or the first row with a code that is out of range.
    """
    if data.single and data.long_index:
        return _hessian(
            loss, data, <const float*>data.x, <const int64_t*>data.columns, <const int64_t*>data.row_starts,
            coef, chunks, chunk_first, chunk_last, sums, coupled, softmax, as_dense,
        )
    if data.single:
        return _hessian(
            loss, data, <const float*>data.x, <const int32_t*>data.columns, <const int32_t*>data.row_starts,
            coef, chunks, chunk_first, chunk_last, sums, coupled, softmax, as_dense,
        )
    if data.long_index:
        return _hessian(
            loss, data, <const double*>data.x, <const int64_t*>data.columns, <const int64_t*>data.row_starts,
            coef, chunks, chunk_first, chunk_last, sums, coupled, softmax, as_dense,
        )
    return _hessian(
        loss, data, <const double*>data.x, <const int32_t*>data.columns, <const int32_t*>data.row_starts,
        coef, chunks, chunk_first, chunk_last, sums, coupled, softmax, as_dense,
    )


cdef object _hessian(
    object loss, Dataset data, const real* x, const index* column, const index* indptr,
    const double[:, ::1] coef, Chunks chunks, Py_ssize_t chunk_first, Py_ssize_t chunk_last, ChunkSums sums,
    bint coupled, bint softmax, bint as_dense,
):
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, False, &batch, &kernel)
    cdef Workspace work
    cdef bint entries = data.sparse and not as_dense
    cdef bint curved = sums.hessian is not None
    cdef Py_ssize_t outputs = coef.shape[0], width = coef.shape[1], features = data.features
    cdef bint shifted = width > features
    cdef double* w = <double*>&coef[0, 0]
    cdef double* raw
    cdef double* z
    cdef double* scaled
    cdef double* hessian = NULL
    cdef double* total
    cdef double* curvature
    cdef const double* weight
    cdef Py_ssize_t chunk, first, rows, i, bad = -1
    cdef Py_ssize_t step = (width + 7) // 8 * 8
    cdef Py_ssize_t size = outputs * width if coupled else step
    cdef int d = <int>width, ld = <int>step, K = <int>outputs, m
    cdef bint skinny = has_products(<double*>NULL, True, width)
    cdef double[::1] zero = np.zeros(outputs)
    # what lies between the end of a row and the next stays 0
    z = <double*>calloc(1 if entries else chunks.block * (step + size), sizeof(double))
    if z == NULL or not allocate(&work, chunks.block, outputs, False):
        free(z)
        raise MemoryError()
    with nogil:
        scaled = z if entries else z + chunks.block * step
        raw = <double*>work.raw
        for chunk in range(chunk_first, chunk_last):
            sums.clear(chunk)
            total = &sums.gradient[chunk, 0, 0]
            if curved:
                hessian = &sums.hessian[chunk, 0, 0, 0]
            first = chunks.bounds[chunk]
            while first < chunks.bounds[chunk + 1]:
                rows = min(chunks.block, chunks.bounds[chunk + 1] - first)
                m = <int>rows
                if entries:
                    entry_scores(x, column, indptr + first, shifted, w, raw, rows, features, width, outputs)
                elif data.sparse:
                    load_sparse(x, column, indptr + first, shifted, z, rows, features, step)
                else:
                    load_dense(
                        x + first * data.row_step, data.row_step, data.column_step, data.center, shifted, z,
                        rows, features, step,
                    )
                if entries:
                    pass
                elif skinny:
                    current.scores_f64(z, step, w, width, &zero[0], raw, rows, outputs)
                else:
                    gemm(b"T", b"N", K, m, d, w, d, z, ld, <double>0.0, raw, K)
                bad = data.set_batch(&batch, &work, NULL, first, rows)
                if curved:
                    batch.curvature = work.curvature
                if bad < 0:
                    bad = kernel(&batch)
                if bad != -1:
                    bad += first if bad >= 0 else 0
                    break
                gather_sums(work.sums, &sums.loss[chunk, 0], outputs)
                if entries:
                    entry_scatter(
                        x, column, indptr + first, shifted, raw, total, rows, features, width, outputs
                    )
                elif skinny:
                    current.scatter_f64(z, step, raw, total, rows, width, outputs)
                else:
                    gemm(b"N", b"T", d, K, m, z, ld, raw, K, <double>1.0, total, d)
                if not curved:
                    first += rows
                    continue
                if softmax and not coupled:
                    curvature = <double*>batch.curvature
                    weight = <const double*>batch.weight
                    for i in range(rows * outputs):
                        curvature[i] = curvature[i] * (1.0 - curvature[i])
                        if weight != NULL:
                            curvature[i] = curvature[i] * weight[i // outputs]
                if entries:
                    entry_curvature(
                        x, column, indptr + first, shifted, <double*>batch.curvature, rows, features, step,
                        outputs, hessian,
                    )
                else:
                    add_curvature(&batch, z, step, scaled, width, coupled, hessian)
                first += rows
            if bad != -1:
                break
        free(work.memory)
        free(z)
    if bad == FAILED:
        call.raise_error()
    return bad
