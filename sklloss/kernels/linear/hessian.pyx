"""The Hessian of a linear model over the rows of X.

Blocks, chunks and threads are as in ``gradient.pyx``. All is in double, whatever the dtype of X.
"""

from cython cimport floating as real
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from sklloss.kernels.common cimport add_gram, add_pair_sums, current, gather_sums, gemm, packed_width
from sklloss.kernels.data cimport (
    FAILED,
    Batch,
    Call,
    Dataset,
    allocate,
    batch_kernel,
    bind,
)
from sklloss.kernels.linear.gradient cimport Chunks, has_products, index
from sklloss.kernels.sharing cimport NO_MEMORY, Pieces, Task, next_piece, share


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
    model.coupled, model.softmax, model.negligible = coupled, softmax, 0.0
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
    cdef Py_ssize_t i, k, bad = data.set_batch(batch, &model.work, NULL, first, rows)
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
        for k in range(model.outputs if model.negligible > 0.0 else 0):
            leave_out_flat(model.negligible, curvature + k, rows, model.outputs)
    return -1


cdef void leave_out_flat(
    double negligible, double* curvature, Py_ssize_t rows, Py_ssize_t step
) noexcept nogil:
    """Set curvature below a share of the rows' mean to 0; `add_gram` leaves such rows out."""
    cdef Py_ssize_t i
    cdef double total = 0.0, least
    for i in range(rows):
        total += curvature[i * step]
    least = negligible * total / rows
    for i in range(rows):
        if curvature[i * step] < least:
            curvature[i * step] = 0.0


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
    cdef double negligible

    cdef void run(self, Pieces* pieces) noexcept nogil:
        add_hessians(self, self.data, self.chunks, pieces)


def hessian(
    loss,
    Dataset data,
    Chunks chunks,
    const double[:, ::1] coef,
    results,
    *,
    bint coupled,
    bint softmax,
    bint as_dense,
    double negligible=0.0,
):
    """Loss, gradient and Hessian of each chunk.

    ``results`` are the arrays ``sums``, ``gradients`` and ``hessians``, which are filled. ``coef`` and the
    chunks' ``gradients`` are (outputs, width), the intercept as last column if width is one
    more than the features. The rows of a dense X are taken less its center. A block of a sparse X is copied
    ``as_dense``, which ``coupled`` outputs need, or taken entry by entry. The chunks' ``sums`` are
    2 * outputs numbers: weighted losses, and what rounding left over.

    The chunks' ``hessians`` are (outputs, width, width) for separable losses, in their lower triangles at
    least; or where the outputs are ``coupled`` they are (1, pairs of outputs, pairs of columns), which
    `coupled_hessian` unfolds. A ``softmax`` that is not to be coupled gets its diagonal blocks alone,
    without rows whose curvature by an output is less than a ``negligible`` share of a block's mean. If they
    are None, only the others are made.

    ``loss`` is for double: a `CompiledLoss` or a `PythonLoss`.
    Returns -1, or the first row with a code that is out of range.
    """
    cdef HessianPass task = HessianPass()
    cdef Call call = bind(loss, False, &task.batch, &task.kernel)
    task.data, task.chunks, task.coef = data, chunks, coef
    task.sums, task.gradients, task.hessians = results
    task.coupled, task.softmax, task.dense = coupled, softmax, as_dense or not data.sparse
    task.negligible = negligible
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
    model.negligible = task.negligible
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
