"""Second derivatives over the rows of X: the Hessian itself.

Blocks, chunks and threads are as in ``_sweep``.
"""

import numpy as np

from cython cimport floating as real
from libc.math cimport sqrt
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from scipy.linalg.cython_blas cimport dsyrk

from sklloss.kernels.data cimport Batch, batch_kernel
from sklloss.kernels.common cimport gemm
from sklloss.kernels.products cimport current
from sklloss.kernels.python_loss cimport FAILED, Call, bind
from sklloss.kernels.linear.gradient cimport (
    Space,
    aim,
    gather_sums,
    has_products,
    index,
    take_space,
)


cdef inline void load_dense(
    const real* x, Py_ssize_t row_step, Py_ssize_t column_step, const double* center, bint shifted, double* z,
    Py_ssize_t rows, Py_ssize_t features, Py_ssize_t width,
) noexcept nogil:
    """Rows of X less the center in double, ``width`` apart; with an intercept, a column of ones."""
    cdef Py_ssize_t i, j
    if column_step == 1:
        for i in range(rows):
            for j in range(features):
                z[i * width + j] = <double>x[i * row_step + j] - center[j]
    else:
        for j in range(features):
            for i in range(rows):
                z[i * width + j] = <double>x[i * row_step + j * column_step] - center[j]
    if shifted:
        for i in range(rows):
            z[i * width + features] = 1.0


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


cdef inline void add_gram(
    double alpha, const double* z, Py_ssize_t ldz, int rows, int width, double* h, int ldh
) noexcept nogil:
    """h += alpha z' z, the lower triangle of a row-major h."""
    cdef double one = 1.0
    cdef int step = <int>ldz
    dsyrk(b"U", b"N", &width, &rows, &alpha, <double*>z, &step, &one, h, &ldh)


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
                add_gram(1.0, work, step, <int>rows, <int>width, h + k * step * step, <int>step)
        return
    for i in range(rows):
        f = sqrt(weight[i]) if weight != NULL else 1.0
        for k in range(K):
            for j in range(width):
                work[i * size + k * width + j] = f * curvature[i * K + k] * z[i * step + j]
    add_gram(-1.0, work, size, <int>rows, <int>size, h, <int>size)
    for k in range(K):
        if weight != NULL:
            for i in range(rows):
                curvature[i * K + k] *= weight[i]
        scaled_rows(z, step, curvature + k, K, work, width, rows, width)
        add_gram(1.0, work, width, <int>rows, <int>width, h + k * width * size + k * width, <int>size)


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
    const real[:, :] X,
    const real[::1] data,
    const index[::1] indices,
    const index[::1] indptr,
    const double[::1] center,
    const double[:, ::1] coef,
    const real[:, ::1] target,
    const Py_ssize_t[::1] codes,
    const real[::1] weight,
    bint weight_per_output,
    bint expand,
    bint shifted,
    bint coupled,
    bint softmax,
    bint curved,
    bint written_out,
    double parameter,
    Py_ssize_t block,
    const Py_ssize_t[::1] bounds,
    Py_ssize_t chunk_first,
    Py_ssize_t chunk_last,
    double[:, :, ::1] gradient,
    double[:, ::1] sums,
    double[:, :, :, ::1] curvature,
):
    """Loss, gradient and Hessian over a range of chunks, all in double whatever X's dtype.

    X is dense, and ``center`` (features,) is subtracted from its rows; or it is empty, where (data, indices,
    indptr) hold a CSR matrix. A block of that is ``written_out`` as a dense one, which ``coupled`` outputs
    need, or taken entry by entry.
    ``coef`` and ``gradient[c]`` are (outputs, width), the intercept as last column if ``shifted``.
    ``curvature[c]`` is (outputs, step, step) for separable losses, where ``step`` is width or more, a
    multiple of 8, of which the first ``width`` count; or (1, outputs * width, outputs * width) where the
    outputs are ``coupled``; only its lower triangles are filled. A ``softmax`` that
    is not asked to be coupled gets its diagonal blocks alone. Unless ``curved``, there is no Hessian, and
    ``curvature`` has no numbers. ``loss`` is the PyCapsule of the
    kernel for float64, or a `PythonLoss`.
    Returns -1, or the first row with a code that is out of range.
    """
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, False, &batch, &kernel)
    cdef Space space
    cdef bint sparse = X.shape[0] == 0
    cdef bint entries = sparse and not written_out
    cdef Py_ssize_t outputs = coef.shape[0], width = coef.shape[1]
    cdef Py_ssize_t features = width - (1 if shifted else 0)
    cdef Py_ssize_t row_step = 0 if sparse else X.strides[0] // <Py_ssize_t>sizeof(real)
    cdef Py_ssize_t column_step = 0 if sparse else X.strides[1] // <Py_ssize_t>sizeof(real)
    cdef const real* x = NULL
    cdef const real* value = &data[0] if data.shape[0] else NULL
    cdef const index* column = &indices[0] if indices.shape[0] else NULL
    cdef const real* y = &target[0, 0] if target is not None else NULL
    cdef const Py_ssize_t* c = &codes[0] if codes is not None else NULL
    cdef const real* s = &weight[0] if weight is not None else NULL
    cdef double* w = <double*>&coef[0, 0]
    cdef double* raw
    cdef double* wide
    cdef double* z
    cdef double* work
    cdef Py_ssize_t chunk, first, rows, i, bad = -1
    cdef Py_ssize_t per_row = outputs if weight_per_output else 1
    cdef Py_ssize_t step = (width + 7) // 8 * 8
    cdef Py_ssize_t size = outputs * width if coupled else step
    cdef int d = <int>width, ld = <int>step, K = <int>outputs, m
    cdef bint own = has_products(<double*>NULL, True, width)
    cdef double[::1] zero = np.zeros(outputs)
    if not sparse:
        x = &X[0, 0]
    # what lies between the end of a row and the next stays 0
    z = <double*>calloc(1 if entries else block * (step + size), sizeof(double))
    if z == NULL or not take_space(&space, block, outputs, sizeof(double)):
        free(z)
        raise MemoryError()
    with nogil:
        work = z if entries else z + block * step
        raw = <double*>space.raw
        batch.parameter = parameter
        for chunk in range(chunk_first, chunk_last):
            memset(&gradient[chunk, 0, 0], 0, outputs * width * sizeof(double))
            memset(&sums[chunk, 0], 0, 2 * outputs * sizeof(double))
            if curved:
                memset(&curvature[chunk, 0, 0, 0], 0, curvature.shape[1] * size * size * sizeof(double))
            first = bounds[chunk]
            while first < bounds[chunk + 1]:
                rows = min(block, bounds[chunk + 1] - first)
                m = <int>rows
                if entries:
                    entry_scores(
                        value, column, &indptr[first], shifted, w, raw, rows, features, width, outputs
                    )
                elif sparse:
                    load_sparse(value, column, &indptr[first], shifted, z, rows, features, step)
                else:
                    load_dense(
                        x + first * row_step, row_step, column_step, &center[0], shifted, z, rows, features,
                        step,
                    )
                if entries:
                    pass
                elif own:
                    current.scores_f64(z, step, w, width, &zero[0], raw, rows, outputs)
                else:
                    gemm(b"T", b"N", K, m, d, w, d, z, ld, <double>0.0, raw, K)
                # the batch in double: X's dtype is that of the targets and weights too
                bad = aim(
                    &batch, &space, <double*>NULL, c, <double*>NULL, weight_per_output, expand,
                    first, rows, outputs,
                )
                if y != NULL:
                    wide = <double*>space.target
                    for i in range(rows * outputs):
                        wide[i] = <double>y[first * outputs + i]
                    batch.target = wide
                if s != NULL:
                    wide = <double*>space.weight
                    for i in range(rows * per_row):
                        wide[i] = <double>s[first * per_row + i]
                    batch.weight = wide
                if curved:
                    batch.curvature = space.curvature
                if bad < 0:
                    bad = kernel(&batch)
                if bad != -1:
                    bad += first if bad >= 0 else 0
                    break
                gather_sums(space.sums, &sums[chunk, 0], outputs)
                if entries:
                    entry_scatter(
                        value, column, &indptr[first], shifted, raw, &gradient[chunk, 0, 0], rows, features,
                        width, outputs,
                    )
                elif own:
                    current.scatter_f64(z, step, raw, &gradient[chunk, 0, 0], rows, width, outputs)
                else:
                    gemm(b"N", b"T", d, K, m, z, ld, raw, K, <double>1.0, &gradient[chunk, 0, 0], d)
                if not curved:
                    first += rows
                    continue
                if softmax and not coupled:
                    for i in range(rows * outputs):
                        raw = <double*>batch.curvature
                        raw[i] = raw[i] * (1.0 - raw[i])
                        if s != NULL:
                            raw[i] = raw[i] * <double>s[first + i // outputs]
                    raw = <double*>space.raw
                if entries:
                    entry_curvature(
                        value, column, &indptr[first], shifted, <double*>batch.curvature, rows, features,
                        step, outputs, &curvature[chunk, 0, 0, 0],
                    )
                else:
                    add_curvature(&batch, z, step, work, width, coupled, &curvature[chunk, 0, 0, 0])
                first += rows
            if bad != -1:
                break
        free(space.memory)
        free(z)
    if bad == FAILED:
        call.raise_error()
    return bad
