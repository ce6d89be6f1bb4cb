"""One pass of dual coordinate ascent over the rows of a sparse X, for linear models with an L2 penalty."""

import numpy as np

from cython cimport floating as real
from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, realloc

from sklloss.kernels.common cimport check_signals
from sklloss.kernels.data cimport FAILED, Batch, Call, Dataset, Workspace, allocate, batch_kernel, bind
from sklloss.kernels.linear.gradient cimport index, sparse_scatter, sparse_scores
from sklloss.kernels.dispatch cimport for_sparse

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define SKLLOSS_FETCH(p) __builtin_prefetch((const void*)(p), 0, 3)
    #else
    #define SKLLOSS_FETCH(p) ((void)(p))
    #endif
    """
    void SKLLOSS_FETCH(const void* p) noexcept nogil

# A step of a row moves its scores by no more than 1 / DAMPING: the second derivative at its start says
# little about the loss further away.
cdef double DAMPING = 0.25


cdef struct BlockRows:
    # the rows of a block, one after the other, in double
    double* value
    void* column
    Py_ssize_t capacity


cdef inline bint enlarge(BlockRows* part, Py_ssize_t numbers, Py_ssize_t size) noexcept nogil:
    """Grow to so many numbers; False if there is no memory. The contents need not survive."""
    cdef void* value
    cdef void* column
    if numbers <= part.capacity:
        return True
    value = realloc(part.value, numbers * sizeof(double))
    if value != NULL:
        part.value = <double*>value
    column = realloc(part.column, numbers * size)
    if column != NULL:
        part.column = column
    if value == NULL or column == NULL:
        return False
    part.capacity = numbers
    return True


cdef inline void fetch(const void* p, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t at = 0
    while at < size:
        SKLLOSS_FETCH(<const char*>p + at)
        at += 64


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
    state,
    const Py_ssize_t[::1] order,
    Py_ssize_t block,
    double scale,
    double bias,
    double overlap,
    bint coupled,
    double[:, ::1] totals,
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
    state : tuple
        w (features, outputs) padded as for `gradient`, intercept (outputs,), balance (outputs,), all of
        float64, and dual (rows, outputs) of X's dtype. They change in place.
    totals : array of shape (2, outputs)
        Added to: the losses as rows were met, and by how much the objective would fall if rows had no feature
        in common.

    Returns
    -------
    int
        -1, or the first row found with a code out of range.
    """
    if data.single and data.long_index:
        return _dual_epoch(
            <const float*>data.x, <const int64_t*>data.columns, <const int64_t*>data.row_starts, loss, data,
            state, order, block, scale, bias, overlap, coupled, totals,
        )
    if data.single:
        return _dual_epoch(
            <const float*>data.x, <const int32_t*>data.columns, <const int32_t*>data.row_starts, loss, data,
            state, order, block, scale, bias, overlap, coupled, totals,
        )
    if data.long_index:
        return _dual_epoch(
            <const double*>data.x, <const int64_t*>data.columns, <const int64_t*>data.row_starts, loss, data,
            state, order, block, scale, bias, overlap, coupled, totals,
        )
    return _dual_epoch(
        <const double*>data.x, <const int32_t*>data.columns, <const int32_t*>data.row_starts, loss, data,
        state, order, block, scale, bias, overlap, coupled, totals,
    )


cdef object _dual_epoch(
    const real* value, const index* column, const index* indptr, object loss, Dataset data, tuple state,
    const Py_ssize_t[::1] order, Py_ssize_t block, double scale, double bias, double overlap, bint coupled,
    double[:, ::1] totals,
):
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, False, &batch, &kernel)
    cdef Workspace space
    cdef double[:, ::1] w = state[0]
    cdef double[::1] intercept = state[1]
    cdef double[::1] balance = state[2]
    cdef real[:, ::1] dual = state[3]
    cdef Py_ssize_t K = intercept.shape[0], n = order.shape[0]
    cdef Py_ssize_t start = 0, count, i, j, k, t, row, numbers, bad = -1
    cdef bint padded = for_sparse(K), enough = True
    cdef double[::1] memory = np.zeros(block * K + K)
    cdef index[::1] heads = np.zeros(block + 1, np.int32 if index is int32_t else np.int64)
    cdef double* change = &memory[0]
    cdef double* m = change + block * K
    cdef double* raw
    cdef double* curvature
    cdef real* dual_row
    cdef real old
    cdef index* local
    cdef BlockRows part
    cdef double norm, r, weighted, work = 0.0
    part.value = NULL
    part.column = NULL
    part.capacity = 0
    if not allocate(&space, block, K, False):
        raise MemoryError()
    raw = <double*>space.raw
    curvature = <double*>space.curvature
    try:
        with nogil:
            while start < n:
                count = min(block, n - start)
                numbers = 0
                for i in range(count):
                    row = order[start + i]
                    numbers += <Py_ssize_t>indptr[row + 1] - <Py_ssize_t>indptr[row]
                if not enlarge(&part, numbers, sizeof(index)):
                    enough = False
                    break
                local = <index*>part.column
                t = 0
                for i in range(count):
                    row = order[start + i]
                    for j in range(<Py_ssize_t>indptr[row], <Py_ssize_t>indptr[row + 1]):
                        part.value[t] = <double>value[j]
                        local[t] = column[j]
                        t += 1
                    heads[i + 1] = <index>t
                # the rows of the next block are on their way while this one is worked on
                for i in range(start + count, min(start + count + block, n)):
                    row = order[i]
                    t = <Py_ssize_t>indptr[row + 1] - <Py_ssize_t>indptr[row]
                    fetch(value + indptr[row], t * sizeof(real))
                    fetch(column + indptr[row], t * sizeof(index))
                    fetch(&dual[row, 0], K * sizeof(real))
                sparse_scores(part.value, local, &heads[0], &w[0, 0], &intercept[0], raw, count, K, padded)
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
                    for t in range(<Py_ssize_t>heads[i], <Py_ssize_t>heads[i + 1]):
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
                sparse_scatter(part.value, local, &heads[0], change, &w[0, 0], count, K, padded)
                work += 3.0 * <double>K * <double>(numbers + 8 * count)
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
    return bad
