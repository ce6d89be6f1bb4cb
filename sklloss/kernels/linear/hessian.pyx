"""The Hessian of a linear model over the rows of X, and Newton steps over few rows.

Blocks, chunks and threads are as in ``gradient.pyx``. All is in double, whatever the dtype of X.
"""

from cython cimport floating as real
from libc.math cimport fabs, isfinite, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from scipy.linalg.cython_lapack cimport dpotrf, dpotrs

from sklloss.kernels.common cimport add_gram, add_pair_sums, current, gather_sums, gemm, packed_width
from sklloss.kernels.data cimport (
    FAILED,
    Batch,
    Call,
    Dataset,
    Workspace,
    allocate,
    batch_kernel,
    bind,
)
from sklloss.kernels.linear.gradient cimport Chunks, ChunkSums, has_products, index


cdef struct Model:
    # A loss, the shape of its parameters, and the buffers for blocks of rows.
    Batch batch
    batch_kernel kernel
    Workspace work
    double* memory       # of the following four; the caller frees it
    double* zero         # ``outputs`` zeros
    double* packed       # what `add_gram` and `add_pair_sums` use
    double* curvature    # (block, pairs of outputs) if coupled
    double* z            # rows of X less its center, with an intercept a column of ones, ``step`` apart
    Py_ssize_t outputs, features, width, step
    Py_ssize_t pairs     # of outputs, each with itself too
    bint coupled, softmax


cdef Call make_model(
    Model* model, loss, Dataset data, Py_ssize_t width, bint coupled, bint softmax, Py_ssize_t block,
    Py_ssize_t z_rows,
):
    """Set up a model for up to ``block`` rows at a time, with ``z_rows`` rows of z. Returns as `bind`."""
    cdef Call call = bind(loss, False, &model.batch, &model.kernel)
    cdef Py_ssize_t i, packed = block * packed_width(width)
    model.outputs, model.features, model.width = data.outputs, data.features, width
    model.step = (width + 7) // 8 * 8
    model.pairs = data.outputs * (data.outputs + 1) // 2 if coupled else 0
    model.coupled, model.softmax = coupled, softmax
    cdef bint allocated
    # without the GIL, which a thread that is to share the work waits for
    with nogil:
        # what lies between the end of a row of z and the next stays 0
        model.memory = <double*>calloc(
            data.outputs + packed + block * model.pairs + z_rows * model.step, sizeof(double)
        )
        allocated = model.memory != NULL and allocate(&model.work, block, data.outputs, False)
        if not allocated:
            free(model.memory)
    if not allocated:
        raise MemoryError()
    model.zero = model.memory
    model.packed = model.zero + data.outputs
    model.curvature = model.packed + packed
    model.z = model.curvature + block * model.pairs
    with nogil:
        if width > data.features:
            for i in range(z_rows):
                model.z[i * model.step + data.features] = 1.0
    return call


cdef void free_model(Model* model) noexcept nogil:
    free(model.memory)
    free(model.work.memory)


cdef Py_ssize_t add_block(
    Dataset data, Model* model, const double* w, const double* z, Py_ssize_t first, Py_ssize_t rows,
    double* loss, double* gradient, double* hessian,
) noexcept nogil:
    """Add the loss, the gradient and, unless it is NULL, the Hessian of the rows [first, first + rows) at w.

    ``w`` and ``gradient`` are (outputs, width); ``z`` has these rows of X. Returns as the kernel of the loss
    does, with the row's number in X.
    """
    cdef double* raw = <double*>model.work.raw
    cdef Py_ssize_t bad, k
    cdef int width = <int>model.width, step = <int>model.step, K = <int>model.outputs, m = <int>rows
    cdef bint skinny = has_products(z, True, width)
    if skinny:
        current.scores_f64(z, step, w, NULL, width, model.zero, raw, rows, K)
    else:
        gemm(b"T", b"N", K, m, width, <double*>w, width, <double*>z, step, <double>0.0, raw, K)
    bad = evaluate_loss(data, model, first, rows, loss, hessian != NULL)
    if bad != -1:
        return bad
    if skinny:
        current.scatter_f64(z, step, raw, gradient, rows, width, K)
    else:
        gemm(b"N", b"T", width, K, m, <double*>z, step, raw, K, <double>1.0, gradient, width)
    if hessian != NULL and model.coupled:
        if model.batch.weight != NULL:
            for k in range(rows):
                if (<const double*>model.batch.weight)[k] == 0.0:
                    # Its products of columns may overflow, and 0 times that is not 0. The 1 of the intercept
                    # stays, because later blocks use it.
                    memset(<double*>z + k * step, 0, model.features * sizeof(double))
        pair_curvature(model, rows)
        add_pair_sums(z, step, rows, width, model.curvature, model.pairs, hessian, model.packed)
    elif hessian != NULL:
        for k in range(K):
            add_gram(
                1.0, z, step, rows, width, <double*>model.batch.curvature + k, K, hessian + k * width * width,
                width, model.packed,
            )
    return -1


cdef Py_ssize_t evaluate_loss(
    Dataset data, Model* model, Py_ssize_t first, Py_ssize_t rows, double* loss, bint curved
) noexcept nogil:
    """Turn raw scores into derivatives, with the curvature if that is wanted, and add to the loss."""
    cdef Batch* batch = &model.batch
    cdef double* curvature = <double*>model.work.curvature
    cdef const double* weight
    cdef Py_ssize_t i, bad = data.set_batch(batch, &model.work, NULL, first, rows)
    if curved:
        batch.curvature = curvature
    if bad < 0:
        bad = model.kernel(batch)
    if bad != -1:
        return first + bad if bad >= 0 else bad
    gather_sums(model.work.sums, loss, model.outputs)
    if curved and model.softmax and not model.coupled:
        weight = <const double*>batch.weight
        for i in range(rows * model.outputs):
            curvature[i] = curvature[i] * (1.0 - curvature[i])
            if weight != NULL:
                curvature[i] = curvature[i] * weight[i // model.outputs]
    return -1


cdef void pair_curvature(Model* model, Py_ssize_t rows) noexcept nogil:
    """The second derivatives of a softmax, weight * (diag(p) - p p'), a lower triangle for each row."""
    cdef Py_ssize_t K = model.outputs, i, k, m
    cdef const double* p = <double*>model.batch.curvature
    cdef const double* weight = <const double*>model.batch.weight
    cdef double* out = model.curvature
    cdef double f
    for i in range(rows):
        for k in range(K):
            f = p[k] * weight[i] if weight != NULL else p[k]
            for m in range(k):
                out[m] = -f * p[m]
            out[k] = f * (1.0 - p[k])
            out += k + 1
        p += K


cdef void unfold_pairs(const double* sums, double* h, Py_ssize_t outputs, Py_ssize_t width) noexcept nogil:
    """Write the sums of `add_pair_sums` as a matrix, its lower triangle at least.

    The block of any two outputs is symmetric, so that half of it has been summed.
    """
    cdef Py_ssize_t size = outputs * width, k, m, a, b
    cdef double* to
    for k in range(outputs):
        for m in range(k + 1):
            to = h + k * width * size + m * width
            for a in range(width):
                for b in range(a + 1):
                    to[a * size + b] = to[b * size + a] = sums[b]
                sums += a + 1


cdef Py_ssize_t add_entries(
    const real* x, const index* column, Dataset data, Model* model, const double* w, Py_ssize_t first,
    Py_ssize_t rows, double* loss, double* gradient, double* hessian,
) noexcept nogil:
    """`add_block` for rows of a CSR X, taken entry by entry; outputs are not coupled."""
    cdef const index* row_starts = <const index*>data.row_starts + first
    cdef double* raw = <double*>model.work.raw
    cdef const double* curvature = <double*>model.work.curvature
    cdef Py_ssize_t K = model.outputs, width = model.width, features = model.features
    cdef Py_ssize_t i, j, a, k, start, end, bad
    cdef bint intercept = width > features
    cdef const double* wk
    cdef double* gk
    cdef double* hk
    cdef double* line
    cdef double s, f
    for i in range(rows):
        for k in range(K):
            wk = w + k * width
            s = wk[features] if intercept else 0.0
            for j in range(<Py_ssize_t>row_starts[i], <Py_ssize_t>row_starts[i + 1]):
                s += <double>x[j] * wk[column[j]]
            raw[i * K + k] = s
    bad = evaluate_loss(data, model, first, rows, loss, hessian != NULL)
    if bad != -1:
        return bad
    for i in range(rows):
        for k in range(K):
            gk = gradient + k * width
            s = raw[i * K + k]
            if intercept:
                gk[features] += s
            for j in range(<Py_ssize_t>row_starts[i], <Py_ssize_t>row_starts[i + 1]):
                gk[column[j]] += s * <double>x[j]
    if hessian == NULL:
        return -1
    for i in range(rows):
        start = <Py_ssize_t>row_starts[i]
        end = <Py_ssize_t>row_starts[i + 1]
        for k in range(K):
            f = curvature[i * K + k]
            if not f > 0.0:
                continue
            hk = hessian + k * width * width
            for a in range(start, end):
                line = hk + <Py_ssize_t>column[a] * width
                s = f * <double>x[a]
                for j in range(start, a + 1):
                    if column[j] <= column[a]:
                        line[column[j]] += s * <double>x[j]
                    else:
                        hk[<Py_ssize_t>column[j] * width + column[a]] += s * <double>x[j]
            if intercept:
                line = hk + features * width
                for j in range(start, end):
                    line[column[j]] += f * <double>x[j]
                line[features] += f
    return -1


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
    """Loss, gradient and Hessian over the chunks [chunk_first, chunk_last).

    ``coef`` and the chunks' gradients in ``sums`` are (outputs, width), the intercept as last column if width
    is one more than the features. The rows of a dense X are taken less its center. A block of a sparse X is
    copied ``as_dense``, which ``coupled`` outputs need, or taken entry by entry.

    The chunks' Hessians in ``sums`` are (outputs, width, width) for separable losses, in their lower
    triangles at least; or where the outputs are ``coupled`` they are (1, pairs of outputs, pairs of columns),
    which `coupled_hessian` unfolds. A ``softmax`` that is not to be coupled gets its diagonal blocks alone.
    Without Hessians in ``sums`` only the others are made.

    ``loss`` is for double: a `CompiledLoss` or a `PythonLoss`.
    Returns -1, or the first row with a code that is out of range.
    """
    cdef Model model
    cdef bint dense = as_dense or not data.sparse
    cdef Call call = make_model(
        &model, loss, data, coef.shape[1], coupled, softmax, chunks.block, chunks.block if dense else 0
    )
    cdef double* w = <double*>&coef[0, 0]
    cdef double* hessian = NULL
    cdef double* gradient
    cdef double* total
    cdef Py_ssize_t chunk, first, rows, bad = -1
    with nogil:
        for chunk in range(chunk_first, chunk_last):
            sums.clear(chunk)
            total = &sums.loss[chunk, 0]
            gradient = &sums.gradient[chunk, 0, 0]
            if sums.hessian is not None:
                hessian = &sums.hessian[chunk, 0, 0, 0]
            first = chunks.bounds[chunk]
            while first < chunks.bounds[chunk + 1] and bad == -1:
                rows = min(chunks.block, chunks.bounds[chunk + 1] - first)
                if dense:
                    data.load_rows(NULL, first, rows, model.z, model.step, False)
                    bad = add_block(data, &model, w, model.z, first, rows, total, gradient, hessian)
                elif data.single and data.long_index:
                    bad = add_entries(
                        <const float*>data.x, <const int64_t*>data.columns, data, &model, w, first, rows,
                        total, gradient, hessian,
                    )
                elif data.single:
                    bad = add_entries(
                        <const float*>data.x, <const int32_t*>data.columns, data, &model, w, first, rows,
                        total, gradient, hessian,
                    )
                elif data.long_index:
                    bad = add_entries(
                        <const double*>data.x, <const int64_t*>data.columns, data, &model, w, first, rows,
                        total, gradient, hessian,
                    )
                else:
                    bad = add_entries(
                        <const double*>data.x, <const int32_t*>data.columns, data, &model, w, first, rows,
                        total, gradient, hessian,
                    )
                first += rows
            if bad != -1:
                break
        free_model(&model)
    if bad == FAILED:
        call.raise_error()
    return bad


def coupled_hessian(const double[:, ::1] sums, Py_ssize_t outputs, double[:, ::1] total):
    """Write the sums of `hessian` over coupled outputs as a matrix, its lower triangle at least."""
    with nogil:
        unfold_pairs(&sums[0, 0], &total[0, 0], outputs, total.shape[0] // outputs)


cdef bint evaluate(
    Dataset data, Model* model, Py_ssize_t block, double scale, const double[::1] ridge, const double* w,
    double* value, double* gradient, double* hessian, double* sums,
) noexcept nogil:
    """Objective, gradient and, unless it is NULL, the Hessian in its lower triangle; False for bad codes.

    The rows of X are in ``model.z``; ``sums`` are those of pairs, if outputs are coupled. The results have
    the same bits as those of `hessian`.
    """
    cdef Py_ssize_t K = model.outputs, width = model.width, parameters = K * width, line = parameters
    cdef Py_ssize_t first = 0, rows, i, j, k, a
    cdef double penalty_slope, mean, total = 0.0
    # the loss's sums and what rounding left over
    cdef double* loss = value
    memset(loss, 0, 2 * K * sizeof(double))
    memset(gradient, 0, parameters * sizeof(double))
    if hessian == NULL:
        sums = NULL
    elif model.coupled:
        memset(sums, 0, model.pairs * (width * (width + 1) // 2) * sizeof(double))
    else:
        sums = hessian
        memset(hessian, 0, line * line * sizeof(double))
    while first < data.rows:
        rows = min(block, data.rows - first)
        if add_block(
            data, model, w, model.z + first * model.step, first, rows, loss, gradient, sums
        ) != -1:
            return False
        first += rows
    for i in range(parameters):
        penalty_slope = ridge[i] * w[i]
        total += penalty_slope * w[i]
        gradient[i] = gradient[i] * scale + penalty_slope
    value[0] = scale * loss[0]
    value[0] += 0.5 * total
    if hessian == NULL:
        return True
    if model.coupled:
        unfold_pairs(sums, hessian, K, width)
    for i in range(parameters):
        for j in range(i + 1):
            hessian[i * line + j] *= scale
    if model.coupled:
        for j in range(width):
            if ridge[j] == 0.0:
                # nothing holds what the outputs share: a multiple of its square does, see LinearObjective
                mean = 0.0
                for k in range(K):
                    i = k * width + j
                    mean += hessian[i * line + i]
                mean /= K
                for k in range(K):
                    for a in range(k + 1):
                        hessian[(k * width + j) * line + a * width + j] += mean
    for i in range(parameters):
        hessian[i * line + i] += ridge[i]
    return True


cdef bint newton_direction(
    double* hessian, const double* gradient, Py_ssize_t size, double* root, double* d
) noexcept nogil:
    """d = -hessian**-1 gradient, by a factor made in place; False if there is none or d is not finite.

    The matrix is first scaled to a unit diagonal.
    """
    cdef Py_ssize_t i, j
    cdef int failed = 0, n = <int>size, one = 1
    cdef double f
    for i in range(size):
        f = hessian[i * size + i]
        if not f > 0.0 and gradient[i] != 0.0:
            return False
        root[i] = 1.0 / sqrt(f) if f > 0.0 else 1.0
    for i in range(size):
        for j in range(i):
            hessian[i * size + j] *= root[i] * root[j]
        hessian[i * size + i] = 1.0
        d[i] = -gradient[i] * root[i]
    # row-major lower is column-major upper
    dpotrf(b"U", &n, hessian, &n, &failed)
    if failed:
        return False
    dpotrs(b"U", &n, &one, hessian, &n, d, &n, &failed)
    for i in range(size):
        d[i] *= root[i]
        if not isfinite(d[i]):
            return False
    return True


def newton_steps(
    loss,
    Dataset data,
    bint coupled,
    Py_ssize_t block,
    double scale,
    const double[::1] ridge,
    double[::1] w,
    double[::1] values,
    rule,
):
    """Whole Newton steps from ``w``, which they change, for as long as each one lowers the value enough.

    For few rows, where all that surrounds the arithmetic would cost more than the arithmetic.

    ``rule`` is (gap, vanished, start, enough, noise). A problem counts as solved where half its Newton
    decrement is no more than ``gap`` times its value, and a step is taken that lowers the value by ``enough``
    of what its slope predicts, less the relative ``noise``. Anything less simple ends the steps: a value that
    is more than ``start`` before the first, a Hessian without a factor, a slope along which there is no
    curvature, a step that is too long, a value of ``vanished`` times the first or less (or times ``start``,
    if that is lower), a number that is not finite.

    ``loss`` is a `CompiledLoss` for double, X is dense with a center, and there is a single problem: one
    output, or ``coupled`` ones. ``block`` is the number of rows per block. ``scale`` and ``ridge`` make the
    objective of the loss. ``values`` is filled with the value at the start and after each step; no more steps
    are taken than it has places for.

    Returns the number of steps, and whether the problem is solved.
    """
    cdef double gap, vanished, start, enough, noise
    gap, vanished, start, enough, noise = rule
    cdef Model model
    cdef Py_ssize_t size = ridge.shape[0], sums, taken = 0, most = values.shape[0] - 1, i
    cdef bint solved = False
    cdef double value, decrement, least
    cdef double* memory
    cdef double* hessian
    cdef double* pair_sums
    cdef double* gradient
    cdef double* new_gradient
    cdef double* direction
    cdef double* point
    cdef double* root
    cdef double* new_value  # and, after it, what `evaluate` needs
    # a compiled kernel keeps no Python object
    make_model(&model, loss, data, size // data.outputs, coupled, coupled, block, data.rows)
    sums = model.pairs * (model.width * (model.width + 1) // 2)
    memory = <double*>calloc(size * size + sums + 5 * size + 2 * data.outputs, sizeof(double))
    if memory == NULL:
        free_model(&model)
        raise MemoryError()
    with nogil:
        hessian = memory
        pair_sums = hessian + size * size
        gradient = pair_sums + sums
        new_gradient = gradient + size
        direction = new_gradient + size
        point = direction + size
        root = point + size
        new_value = root + size
        data.load_rows(NULL, 0, data.rows, model.z, model.step, False)
        if evaluate(data, &model, block, scale, ridge, &w[0], new_value, gradient, hessian, pair_sums):
            value = values[0] = new_value[0]
            least = vanished * min(value, start)
            if not value <= start:
                most = 0
            while taken < most and not solved and value > least and isfinite(value):
                if not newton_direction(hessian, gradient, size, root, direction):
                    break
                decrement = 0.0
                for i in range(size):
                    decrement -= gradient[i] * direction[i]
                    point[i] = w[i] + direction[i]
                solved = decrement / 2 <= gap * fabs(value)
                # near the end a step squares the error, so the last one is taken too
                if not (
                    evaluate(
                        data, &model, block, scale, ridge, point, new_value, new_gradient,
                        NULL if solved else hessian, pair_sums,
                    )
                    and new_value[0] <= value - enough * decrement + noise * fabs(value)
                ):
                    solved = False
                    break
                taken += 1
                value = values[taken] = new_value[0]
                memcpy(&w[0], point, size * sizeof(double))
                memcpy(gradient, new_gradient, size * sizeof(double))
        free_model(&model)
        free(memory)
    return taken, solved
