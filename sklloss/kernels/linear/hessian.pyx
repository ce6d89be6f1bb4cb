"""The Hessian of a linear model over the rows of X, and Newton steps over few rows.

Blocks, chunks and threads are as in ``gradient.pyx``. All is in double, whatever the dtype of X.
"""

from cython cimport floating as real
from libc.math cimport HUGE_VAL, fabs, isfinite, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from scipy.linalg.cython_lapack cimport dpotrf, dpotrs

from sklloss.kernels.common cimport (
    add_gram,
    add_pair_sums,
    coordinate_minimum,
    current,
    gather_sums,
    gemm,
    packed_width,
)
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
from sklloss.kernels.linear.gradient cimport Chunks, has_products, index
from sklloss.kernels.sharing cimport NO_MEMORY, Pieces, Task, next_piece, share


# Of the minimum of a quadratic model plus an L1 norm: the most sweeps before a step over the support, and the
# most such steps; the relative rounding error of a slope.
cdef enum:
    MAX_SWEEPS = 10
    MAX_TURNS = 30

cdef double ROUNDING = 1e-10

# Of a start from a sample: one of so many blocks of rows; the least rows in a sample, and for each parameter;
# the rows of a block; the most steps; and the relative gap, which need be no less than the sample's error.
cdef enum:
    SAMPLE_EVERY = 8
    LEAST_SAMPLE = 512
    SAMPLE_ROWS = 32
    SAMPLE_BLOCK = 32
    MAX_SAMPLE_STEPS = 30

cdef double SAMPLE_GAP = 1e-4

# Below this relative gap the next step may use the same Hessian, if it is the last: if it predicts no more
# than this share of the allowed gap.
cdef double NEAR = 1e-3
cdef double STALE_SHARE = 0.25


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


cdef bint make_model(
    Model* model, const Batch* batch, batch_kernel kernel, Dataset data, Py_ssize_t width, bint coupled,
    bint softmax, Py_ssize_t block, Py_ssize_t z_rows,
) noexcept nogil:
    """Set up a model for up to ``block`` rows at a time, with ``z_rows`` rows of z; the loss is as of `bind`.

    False if there is no memory.
    """
    cdef Py_ssize_t i, packed = block * packed_width(width)
    model.batch, model.kernel = batch[0], kernel
    model.outputs, model.features, model.width = data.outputs, data.features, width
    model.step = (width + 7) // 8 * 8
    model.pairs = data.outputs * (data.outputs + 1) // 2 if coupled else 0
    model.coupled, model.softmax = coupled, softmax
    # what lies between the end of a row of z and the next stays 0
    model.memory = <double*>calloc(
        data.outputs + packed + block * model.pairs + z_rows * model.step, sizeof(double)
    )
    if model.memory == NULL or not allocate(&model.work, block, data.outputs, False):
        free(model.memory)
        return False
    model.zero = model.memory
    model.packed = model.zero + data.outputs
    model.curvature = model.packed + packed
    model.z = model.curvature + block * model.pairs
    if width > data.features:
        for i in range(z_rows):
            model.z[i * model.step + data.features] = 1.0
    return True


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


cdef class HessianPass(Task):
    cdef Dataset data
    cdef Chunks chunks
    cdef Batch batch
    cdef batch_kernel kernel
    cdef const double[:, ::1] coef
    cdef double[:, ::1] sums
    cdef double[:, :, ::1] gradients
    cdef double[:, :, :, ::1] hessians
    cdef bint coupled, softmax, dense

    cdef void run(self, Pieces* pieces) noexcept nogil:
        add_hessians(self, self.data, self.chunks, pieces)


def hessian(
    loss,
    Dataset data,
    Chunks chunks,
    const double[:, ::1] coef,
    double[:, ::1] sums,
    double[:, :, ::1] gradients,
    double[:, :, :, ::1] hessians,
    *,
    bint coupled,
    bint softmax,
    bint as_dense,
):
    """Loss, gradient and Hessian of each chunk.

    ``coef`` and the chunks' ``gradients`` are (outputs, width), the intercept as last column if width is one
    more than the features. The rows of a dense X are taken less its center. A block of a sparse X is copied
    ``as_dense``, which ``coupled`` outputs need, or taken entry by entry. The chunks' ``sums`` are
    2 * outputs numbers: weighted losses, and what rounding left over.

    The chunks' ``hessians`` are (outputs, width, width) for separable losses, in their lower triangles at
    least; or where the outputs are ``coupled`` they are (1, pairs of outputs, pairs of columns), which
    `coupled_hessian` unfolds. A ``softmax`` that is not to be coupled gets its diagonal blocks alone. If they
    are None, only the others are made.

    ``loss`` is for double: a `CompiledLoss` or a `PythonLoss`.
    Returns -1, or the first row with a code that is out of range.
    """
    cdef HessianPass task = HessianPass()
    cdef Call call = bind(loss, False, &task.batch, &task.kernel)
    task.data, task.chunks, task.coef = data, chunks, coef
    task.sums, task.gradients, task.hessians = sums, gradients, hessians
    task.coupled, task.softmax, task.dense = coupled, softmax, as_dense or not data.sparse
    share(task, chunks.count, chunks.n_threads)
    if task.status == FAILED:
        call.raise_error()
    return task.status


cdef void add_hessians(HessianPass task, Dataset data, Chunks chunks, Pieces* pieces) noexcept nogil:
    """The part of one thread in `hessian`: pieces are chunks."""
    cdef Py_ssize_t chunk = next_piece(pieces), block = chunks.block, first, last, rows, bad
    cdef Py_ssize_t numbers = task.gradients.shape[1] * task.gradients.shape[2], hessian_numbers = 0
    cdef const double* w = &task.coef[0, 0]
    cdef double* hessian = NULL
    cdef double* gradient
    cdef double* total
    cdef Model model
    if chunk < 0:
        return
    if not make_model(
        &model, &task.batch, task.kernel, data, task.coef.shape[1], task.coupled, task.softmax, block,
        block if task.dense else 0,
    ):
        task.fail(pieces, NO_MEMORY)
        return
    if task.hessians is not None:
        hessian_numbers = task.hessians.shape[1] * task.hessians.shape[2] * task.hessians.shape[3]
    while chunk >= 0:
        total = &task.sums[chunk, 0]
        gradient = &task.gradients[chunk, 0, 0]
        memset(total, 0, 2 * data.outputs * sizeof(double))
        memset(gradient, 0, numbers * sizeof(double))
        if hessian_numbers:
            hessian = &task.hessians[chunk, 0, 0, 0]
            memset(hessian, 0, hessian_numbers * sizeof(double))
        first = chunks.bounds[chunk]
        last = chunks.bounds[chunk + 1]
        while first < last:
            rows = min(block, last - first)
            if task.dense:
                data.load_rows(NULL, first, rows, model.z, model.step, False)
                bad = add_block(data, &model, w, model.z, first, rows, total, gradient, hessian)
            elif data.single and data.long_index:
                bad = add_entries(
                    <const float*>data.x, <const int64_t*>data.columns, data, &model, w, first, rows, total,
                    gradient, hessian,
                )
            elif data.single:
                bad = add_entries(
                    <const float*>data.x, <const int32_t*>data.columns, data, &model, w, first, rows, total,
                    gradient, hessian,
                )
            elif data.long_index:
                bad = add_entries(
                    <const double*>data.x, <const int64_t*>data.columns, data, &model, w, first, rows, total,
                    gradient, hessian,
                )
            else:
                bad = add_entries(
                    <const double*>data.x, <const int32_t*>data.columns, data, &model, w, first, rows, total,
                    gradient, hessian,
                )
            if bad != -1:
                task.fail(pieces, bad)
                break
            first += rows
        chunk = next_piece(pieces)
    free_model(&model)


def coupled_hessian(const double[:, ::1] sums, Py_ssize_t outputs, double[:, ::1] total):
    """Write the sums of `hessian` over coupled outputs as a matrix, its lower triangle at least."""
    with nogil:
        unfold_pairs(&sums[0, 0], &total[0, 0], outputs, total.shape[0] // outputs)


cdef struct Newton:
    # A problem over few rows, the rule of its steps (see `newton_steps`), and memory.
    Model model
    Py_ssize_t block, size
    double scale
    const double* ridge
    const double* l1
    bint has_l1
    bint lazy            # whether a Hessian costs so much that steps near the end may use an earlier one
    double gap, vanished, start, enough, noise
    double* memory       # of all that follow; the caller frees it
    double* hessian      # (size, size)
    double* pair_sums    # of coupled outputs
    double* gradient
    double* new_gradient
    double* direction
    double* point
    double* loss         # the loss's sums, and what rounding left over
    double* scratch      # of `factorise` and `l1_direction`


cdef void make_newton(Newton* newton, Py_ssize_t size):
    cdef Py_ssize_t width = newton.model.width, sums = newton.model.pairs * (width * (width + 1) // 2)
    cdef Py_ssize_t scratch = size * (size + 5) if newton.has_l1 else size
    newton.size = size
    newton.memory = <double*>calloc(
        size * size + sums + 4 * size + 2 * newton.model.outputs + scratch, sizeof(double)
    )
    if newton.memory == NULL:
        free_model(&newton.model)
        raise MemoryError()
    newton.hessian = newton.memory
    newton.pair_sums = newton.hessian + size * size
    newton.gradient = newton.pair_sums + sums
    newton.new_gradient = newton.gradient + size
    newton.direction = newton.new_gradient + size
    newton.point = newton.direction + size
    newton.loss = newton.point + size
    newton.scratch = newton.loss + 2 * newton.model.outputs


cdef bint evaluate(
    Dataset data, Newton* newton, Py_ssize_t every, const double* w, double* value, double* gradient,
    bint curved,
) noexcept nogil:
    """Objective, gradient and, if it is ``curved``, the Hessian's lower triangle; False for bad codes.

    Only ``every``-th block of rows is used, in place of all. The gradient is that without the L1 norm. The
    rows of X are in ``model.z``. Over all rows the results have the same bits as those of `hessian`.
    """
    cdef Model* model = &newton.model
    cdef Py_ssize_t K = model.outputs, width = model.width, parameters = K * width, line = parameters
    cdef Py_ssize_t first = 0, rows, i, j, k, a
    cdef double penalty_slope, mean, scale = newton.scale * every, total = 0.0, norm = 0.0
    cdef double* hessian = newton.hessian
    cdef double* sums = NULL
    memset(newton.loss, 0, 2 * K * sizeof(double))
    memset(gradient, 0, parameters * sizeof(double))
    if curved and model.coupled:
        sums = newton.pair_sums
        memset(sums, 0, model.pairs * (width * (width + 1) // 2) * sizeof(double))
    elif curved:
        sums = hessian
        memset(hessian, 0, line * line * sizeof(double))
    while first < data.rows:
        rows = min(newton.block, data.rows - first)
        if add_block(
            data, model, w, model.z + first * model.step, first, rows, newton.loss, gradient, sums
        ) != -1:
            return False
        first += every * newton.block
    for i in range(parameters):
        penalty_slope = newton.ridge[i] * w[i]
        total += penalty_slope * w[i]
        norm += newton.l1[i] * fabs(w[i])
        gradient[i] = gradient[i] * scale + penalty_slope
    value[0] = scale * newton.loss[0]
    value[0] += 0.5 * total
    value[0] += norm
    if not curved:
        return True
    if model.coupled:
        unfold_pairs(sums, hessian, K, width)
    for i in range(parameters):
        for j in range(i + 1):
            hessian[i * line + j] *= scale
    if model.coupled:
        for j in range(width):
            if newton.ridge[j] == 0.0 and newton.l1[j] == 0.0:
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
        hessian[i * line + i] += newton.ridge[i]
    return True


cdef bint factorise(double* matrix, Py_ssize_t size, double* root) noexcept nogil:
    """Replace a lower triangle, scaled by ``root`` to a unit diagonal, by its factor; False without one."""
    cdef Py_ssize_t i, j
    cdef int failed = 0, n = <int>size
    cdef double f
    for i in range(size):
        f = matrix[i * size + i]
        root[i] = 1.0 / sqrt(f) if f > 0.0 else 1.0
    for i in range(size):
        for j in range(i):
            matrix[i * size + j] *= root[i] * root[j]
        matrix[i * size + i] = 1.0
    if size > 0:
        # row-major lower is column-major upper
        dpotrf(b"U", &n, matrix, &n, &failed)
    return not failed


cdef bint solve_factor(
    const double* factor, const double* root, const double* gradient, Py_ssize_t size, double* d
) noexcept nogil:
    """d = -matrix**-1 gradient, by the matrix's factor; False if d is not finite."""
    cdef Py_ssize_t i
    cdef int failed = 0, n = <int>size, one = 1
    for i in range(size):
        d[i] = -gradient[i] * root[i]
    if size > 0:
        dpotrs(b"U", &n, &one, <double*>factor, &n, d, &n, &failed)
    for i in range(size):
        d[i] *= root[i]
        if not isfinite(d[i]):
            return False
    return True


cdef bint flat_slope(const double* matrix, const double* gradient, Py_ssize_t size) noexcept nogil:
    """Whether there is a slope along which there is no curvature."""
    cdef Py_ssize_t i
    for i in range(size):
        if not matrix[i * size + i] > 0.0 and gradient[i] != 0.0:
            return True
    return False


cdef bint l1_direction(Newton* newton, const double* w) noexcept nogil:
    """Set the direction to the minimum of the quadratic model plus the L1 norm; False if it is not found.

    Sweeps of coordinate descent find the support and the signs. Once these stay the same, Newton's step over
    the support goes to its minimum, or as far as the signs allow. The minimum is found where such a step is
    whole and no parameter at 0 would leave it.
    """
    cdef Py_ssize_t size = newton.size, _turn, _sweep, i, j
    cdef const double* l1 = newton.l1
    cdef double* hessian = newton.hessian
    cdef double* slope = newton.scratch
    cdef double* z = slope + size
    cdef double t
    cdef bint found = False
    for i in range(size):
        for j in range(i):
            hessian[j * size + i] = hessian[i * size + j]
    memcpy(slope, newton.gradient, size * sizeof(double))
    memcpy(z, w, size * sizeof(double))
    for _turn in range(MAX_TURNS):
        for _sweep in range(MAX_SWEEPS):
            if not descend_all(hessian, size, l1, slope, z):
                break
        if not move_on_face(hessian, size, l1, slope, z, &found):
            return False
        # anew, since rounding would add up
        memcpy(slope, newton.gradient, size * sizeof(double))
        for j in range(size):
            t = z[j] - w[j]
            newton.direction[j] = t
            if t != 0.0:
                for i in range(size):
                    slope[i] += t * hessian[j * size + i]
        for i in range(size):
            if z[i] == 0.0 and fabs(slope[i]) > l1[i] * (1.0 + ROUNDING):
                found = False
        if found:
            break
    return found


cdef bint descend_all(
    const double* hessian, Py_ssize_t size, const double* l1, double* slope, double* z
) noexcept nogil:
    """Minimise along each coordinate in turn; returns whether the sign of one has changed."""
    cdef Py_ssize_t i, j
    cdef double t, moved
    cdef bint changed = False
    for j in range(size):
        t = coordinate_minimum(z[j], slope[j], hessian[j * size + j], l1[j], -HUGE_VAL, HUGE_VAL)
        moved = t - z[j]
        if moved != 0.0:
            changed = changed or (t > 0.0) != (z[j] > 0.0) or (t < 0.0) != (z[j] < 0.0)
            z[j] = t
            for i in range(size):
                slope[i] += moved * hessian[j * size + i]
    return changed


cdef bint move_on_face(
    const double* hessian, Py_ssize_t size, const double* l1, const double* slope, double* z, bint* whole
) noexcept nogil:
    """Move z towards the minimum for its signs, up to where one changes; False if there is no such step.

    Parameters at 0 that have an L1 norm stay there. ``slope`` is that of the quadratic at z, and the memory
    behind z is used.
    """
    cdef double* part = z + size
    cdef double* move = part + size
    cdef double* root = move + size
    cdef double* block = root + size
    cdef double length = 1.0, to_zero
    cdef Py_ssize_t i, j, a = 0, b, k = 0
    for i in range(size):
        k += z[i] != 0.0 or l1[i] == 0.0
    for i in range(size):
        if z[i] == 0.0 and l1[i] > 0.0:
            continue
        part[a] = slope[i] + (l1[i] if z[i] > 0.0 else -l1[i] if z[i] < 0.0 else 0.0)
        b = 0
        for j in range(i + 1):
            if z[j] != 0.0 or l1[j] == 0.0:
                block[a * k + b] = hessian[i * size + j]
                b += 1
        a += 1
    if flat_slope(block, part, k) or not factorise(block, k, root):
        return False
    if not solve_factor(block, root, part, k, move):
        return False
    a = 0
    for i in range(size):
        part[i] = z[i]
        if z[i] != 0.0 or l1[i] == 0.0:
            part[i] += move[a]
            if l1[i] > 0.0 and part[i] * z[i] <= 0.0:
                length = min(length, -z[i] / move[a])
            a += 1
    whole[0] = length == 1.0
    for i in range(size):
        to_zero = z[i] / (z[i] - part[i]) if l1[i] > 0.0 and part[i] * z[i] <= 0.0 and z[i] != 0.0 else 2.0
        z[i] = 0.0 if to_zero <= length else part[i] if whole[0] else z[i] + length * (part[i] - z[i])
    return True


cdef bint newton_direction(Newton* newton, const double* w, bint fresh) noexcept nogil:
    """Set the direction of the next step from w; ``fresh`` if the Hessian has not been used yet."""
    if newton.has_l1:
        return l1_direction(newton, w)
    if fresh and (
        flat_slope(newton.hessian, newton.gradient, newton.size)
        or not factorise(newton.hessian, newton.size, newton.scratch)
    ):
        return False
    return solve_factor(newton.hessian, newton.scratch, newton.gradient, newton.size, newton.direction)


cdef Py_ssize_t take_steps(
    Dataset data, Newton* newton, Py_ssize_t every, double* w, double* values, Py_ssize_t most,
    bint* solved,
) noexcept nogil:
    """Steps from w over ``every``-th block of the rows; their number, see `newton_steps`."""
    cdef Py_ssize_t taken = 0, size = newton.size, i
    cdef double value, new_value = 0.0, slope, predicted_decrease, least
    cdef bint fresh = True
    solved[0] = False
    if not evaluate(data, newton, every, w, &value, newton.gradient, True):
        return 0
    values[0] = value
    least = newton.vanished * min(value, newton.start)
    if not value <= newton.start:
        return 0
    while taken < most and not solved[0] and value > least and isfinite(value):
        if not newton_direction(newton, w, fresh):
            break
        predicted_decrease = slope = 0.0
        for i in range(size):
            slope -= newton.gradient[i] * newton.direction[i]
            newton.point[i] = w[i] + newton.direction[i]
        predicted_decrease = slope / 2
        if newton.has_l1:
            # ``scratch`` has the slope of the quadratic model at its minimum
            for i in range(size):
                predicted_decrease -= 0.5 * newton.scratch[i] * newton.direction[i]
                predicted_decrease -= newton.l1[i] * (fabs(newton.point[i]) - fabs(w[i]))
            slope = predicted_decrease
        solved[0] = predicted_decrease <= newton.gap * fabs(value) * (1.0 if fresh else STALE_SHARE)
        if not (fresh or solved[0]):
            # an earlier Hessian is good for the last step alone
            if not evaluate(data, newton, every, w, &value, newton.gradient, True):
                break
            fresh = True
            continue
        # Near the end a step squares the error, so the last one is taken too.
        fresh = not solved[0] and not (newton.lazy and predicted_decrease <= NEAR * fabs(value))
        if not (
            evaluate(data, newton, every, newton.point, &new_value, newton.new_gradient, fresh)
            and new_value <= value - newton.enough * slope + newton.noise * fabs(value)
        ):
            solved[0] = False
            break
        taken += 1
        value = values[taken] = new_value
        memcpy(w, newton.point, size * sizeof(double))
        memcpy(newton.gradient, newton.new_gradient, size * sizeof(double))
    return taken


def newton_steps(
    loss,
    Dataset data,
    bint coupled,
    Py_ssize_t block,
    double scale,
    const double[::1] ridge,
    const double[::1] l1,
    double[::1] w,
    double[::1] values,
    rule,
):
    """Whole Newton steps from ``w``, which they change, for as long as each one lowers the value enough.

    For few rows, where all that surrounds the arithmetic would cost more than the arithmetic. With an L1 norm
    each step goes to the minimum of the quadratic model plus the norm (proximal Newton). If the rows are many
    enough for it, a start at 0 is first replaced by the minimum over every 8th block of them.

    ``rule`` is (gap, vanished, start, enough, noise). A problem counts as solved where the decrease that a
    step predicts, half the Newton decrement, is no more than ``gap`` times its value, and a step is taken
    that lowers the value by ``enough`` of what its slope predicts, less the relative ``noise``. Anything less
    simple ends the steps: a value that is more than ``start`` before the first, a Hessian without a factor, a
    slope along which there is no curvature, a step that is too long, a value of ``vanished`` times the first
    or less (or times ``start``, if that is lower), a number that is not finite.

    ``loss`` is a `CompiledLoss` for double, X is dense with a center, and there is a single problem: one
    output, or ``coupled`` ones. ``block`` is the number of rows per block. ``scale``, ``ridge`` and ``l1``
    make the objective of the loss. ``values`` is filled with the value at the start and after each step; no
    more steps are taken than it has places for.

    Returns the number of steps, and whether the problem is solved.
    """
    cdef Batch batch
    cdef batch_kernel kernel
    cdef Newton newton
    cdef Py_ssize_t size = ridge.shape[0], taken = 0, most = values.shape[0] - 1, i
    cdef bint solved = False, at_zero = True
    cdef double gap
    cdef double[MAX_SAMPLE_STEPS + 1] sample_values
    gap, newton.vanished, newton.start, newton.enough, newton.noise = rule
    newton.block, newton.scale, newton.ridge, newton.l1 = block, scale, &ridge[0], &l1[0]
    newton.has_l1 = False
    newton.lazy = data.rows >= SAMPLE_EVERY * max(LEAST_SAMPLE, SAMPLE_ROWS * size)
    for i in range(size):
        newton.has_l1 = newton.has_l1 or l1[i] != 0.0
        at_zero = at_zero and w[i] == 0.0
    bind(loss, False, &batch, &kernel)  # a compiled kernel keeps no Python object
    if not make_model(
        &newton.model, &batch, kernel, data, size // data.outputs, coupled, coupled, block, data.rows
    ):
        raise MemoryError()
    make_newton(&newton, size)
    with nogil:
        data.load_rows(NULL, 0, data.rows, newton.model.z, newton.model.step, False)
        if at_zero and most > 0 and newton.lazy:
            newton.gap = SAMPLE_GAP
            newton.block = SAMPLE_BLOCK
            take_steps(data, &newton, SAMPLE_EVERY, &w[0], sample_values, MAX_SAMPLE_STEPS, &solved)
            newton.block = block
            if solved:
                newton.start = min(newton.start, sample_values[0])
            else:
                memset(&w[0], 0, size * sizeof(double))
        newton.gap = gap
        taken = take_steps(data, &newton, 1, &w[0], &values[0], most, &solved)
        free_model(&newton.model)
        free(newton.memory)
    return taken, solved
