"""One pass of dual coordinate ascent over the rows of a sparse X, for linear models with an L2 penalty."""

import numpy as np

from cython cimport floating as real
from libc.math cimport fabs
from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc

from sklloss.kernels.common cimport check_signals, for_sparse, prefetch
from sklloss.kernels.data cimport (
    FAILED,
    Batch,
    Call,
    Dataset,
    Workspace,
    allocate,
    batch_kernel,
    bind,
    column_at,
    row_start,
    value_at,
)
from sklloss.kernels.linear.gradient cimport sparse_scatter, sparse_scores

# A step of a row moves its scores by no more than 1 / DAMPING: the second derivative at its start says
# little about the loss further away.
cdef double DAMPING = 0.25


cdef struct BlockRows:
    # What a CSR X stores of the rows of a block, one after the other.
    double* value
    int64_t* column
    int64_t* row_start
    Py_ssize_t capacity


cdef inline bint enlarge(BlockRows* part, Py_ssize_t numbers) noexcept nogil:
    """Grow to so many numbers; False if there is no memory. The contents need not survive."""
    cdef void* value
    cdef void* column
    if numbers <= part.capacity:
        return True
    value = realloc(part.value, numbers * sizeof(double))
    if value != NULL:
        part.value = <double*>value
    column = realloc(part.column, numbers * sizeof(int64_t))
    if column != NULL:
        part.column = <int64_t*>column
    if value == NULL or column == NULL:
        return False
    part.capacity = numbers
    return True


cdef inline bint load(BlockRows* part, Dataset data, const Py_ssize_t* order, Py_ssize_t rows) noexcept nogil:
    """Copy the rows that ``order`` names; False if there is no memory."""
    cdef Py_ssize_t i, j, row, count = 0
    for i in range(rows):
        count += row_start(data, order[i] + 1) - row_start(data, order[i])
    if not enlarge(part, count):
        return False
    count = 0
    for i in range(rows):
        row = order[i]
        for j in range(row_start(data, row), row_start(data, row + 1)):
            part.value[count] = value_at(data, j)
            part.column[count] = column_at(data, j)
            count += 1
        part.row_start[i + 1] = count
    return True


cdef inline void prefetch_row(Dataset data, Py_ssize_t row) noexcept nogil:
    """Prefetch what a CSR X stores of a row."""
    cdef Py_ssize_t start = row_start(data, row), count = row_start(data, row + 1) - start
    cdef Py_ssize_t size = sizeof(float) if data.single else sizeof(double)
    cdef Py_ssize_t index_size = sizeof(int64_t) if data.long_index else sizeof(int)
    prefetch(<const char*>data.x + start * size, count * size)
    prefetch(<const char*>data.columns + start * index_size, count * index_size)


cdef inline void one_step(
    double* change, double* m, const double* p, double scale, double norm, double overlap, bint coupled,
    Py_ssize_t K,
) noexcept nogil:
    """Turn the residuals of a row's dual variables into a step of them.

    With residuals r, second derivatives P of the loss and norm = ||x||**2 that is (I + overlap norm P)^-1 r:
    for ``overlap`` 1 Newton's step of the row by itself. It is held back where it would lead far. For coupled
    outputs P is scale (diag(p) - p p'), for separable ones it is scale p.
    """
    cdef Py_ssize_t k
    cdef double most = 0.0, a = 0.0, c = 0.0, q = scale * norm * overlap
    for k in range(K):
        most = max(most, fabs(change[k]))
    if not coupled:
        for k in range(K):
            m[k] = 1.0 / (1.0 + DAMPING * norm * fabs(change[k]) + q * p[k])
            change[k] *= m[k]
        return
    for k in range(K):
        m[k] = 1.0 / (1.0 + DAMPING * norm * most + q * p[k])
        change[k] *= m[k]
        a += p[k] * change[k]
        c += p[k] * p[k] * m[k]
    a = q * a / (1.0 - q * c)
    for k in range(K):
        change[k] += a * p[k] * m[k]


def dual_epoch(
    loss,
    Dataset data,
    model,
    real[:, ::1] dual,
    const Py_ssize_t[::1] order,
    Py_ssize_t block,
    double scale,
    double bias,
    double overlap,
    bint coupled,
):
    """Take each row in ``order`` once, blocks of them at a time, and let its dual variables ascend.

    The objective is scale * sum_i loss_i(x_i w + intercept) + ||w||**2 / 2 with X sparse and w = X' dual. At
    the optimum the dual variables of a row are minus the derivatives of scale * loss_i by its scores; a step
    leads from what they are towards what that is at the present w. It is as short as is safe if the rows of a
    block together move the scores of one by ``overlap`` times what it does itself. The intercept follows the
    sum of the dual variables, ``balance``, by a factor of ``bias``.

    Parameters
    ----------
    loss : CompiledLoss or PythonLoss
        For double.
    data : Dataset
    model : tuple
        w (features, outputs) padded as for `gradient`, intercept (outputs,) and balance (outputs,), all of
        float64. They change in place.
    dual : array of shape (rows, outputs)
        Of X's dtype. It changes in place.

    Returns
    -------
    int
        -1, or the first row found with a code out of range.
    ndarray of shape (2, outputs)
        The losses as rows were met, and by how much the objective would fall if rows had no feature in
        common.
    """
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, False, &batch, &kernel)
    cdef Workspace space
    cdef double[:, ::1] w
    cdef double[::1] intercept, balance
    w, intercept, balance = model
    cdef Py_ssize_t K = intercept.shape[0], n = order.shape[0]
    cdef Py_ssize_t start = 0, count, i, k, t, row, bad = -1
    cdef bint padded = for_sparse(K), enough = True
    cdef double[::1] memory = np.zeros(block * K + K)
    cdef int64_t[::1] starts = np.zeros(block + 1, np.int64)
    cdef double[:, ::1] totals = np.zeros((2, K))
    cdef double* change = &memory[0]
    cdef double* m = change + block * K
    cdef double* raw
    cdef double* curvature
    cdef real* dual_row
    cdef real old
    cdef BlockRows part
    cdef double norm, r, weighted, work = 0.0
    part.value = NULL
    part.column = NULL
    part.capacity = 0
    part.row_start = &starts[0]
    if not allocate(&space, block, K, False):
        raise MemoryError()
    raw = <double*>space.raw
    curvature = <double*>space.curvature
    try:
        with nogil:
            while start < n:
                count = min(block, n - start)
                enough = load(&part, data, &order[start], count)
                if not enough:
                    break
                # the rows of the next block are on their way while this one is worked on
                for i in range(start + count, min(start + count + block, n)):
                    prefetch_row(data, order[i])
                    prefetch(&dual[order[i], 0], K * sizeof(real))
                sparse_scores(
                    part.value, part.column, part.row_start, &w[0, 0], &intercept[0], raw, count, K, padded
                )
                bad = data.set_batch(&batch, &space, &order[0], start, count)
                batch.curvature = curvature
                if bad < 0:
                    bad = kernel(&batch)
                if bad != -1:
                    bad = order[start + bad] if bad >= 0 else bad
                    break
                for k in range(K):
                    totals[0, k] += space.sums[k]
                for i in range(count):
                    row = order[start + i]
                    dual_row = &dual[row, 0]
                    norm = bias
                    for t in range(part.row_start[i], part.row_start[i + 1]):
                        norm += part.value[t] * part.value[t]
                    weighted = scale
                    if coupled and batch.weight != NULL:
                        weighted *= (<const double*>batch.weight)[i]
                    for k in range(K):
                        raw[i * K + k] = -scale * raw[i * K + k] - <double>dual_row[k]
                        change[i * K + k] = raw[i * K + k]
                    one_step(change + i * K, m, curvature + i * K, weighted, norm, overlap, coupled, K)
                    for k in range(K):
                        totals[1, k] += 0.5 * norm * raw[i * K + k] * change[i * K + k]
                        # w follows what the rounded dual variables are
                        old = dual_row[k]
                        dual_row[k] = <real>(<double>old + change[i * K + k])
                        r = <double>dual_row[k] - <double>old
                        change[i * K + k] = r
                        balance[k] += r
                        intercept[k] += bias * r
                sparse_scatter(part.value, part.column, part.row_start, change, &w[0, 0], count, K, padded)
                work += 3.0 * <double>K * <double>(part.row_start[count] + 8 * count)
                check_signals(&work)
                start += count
    finally:
        free(space.memory)
        free(part.value)
        free(part.column)
    if not enough:
        raise MemoryError()
    if bad == FAILED:
        call.raise_error()
    return bad, np.asarray(totals)
