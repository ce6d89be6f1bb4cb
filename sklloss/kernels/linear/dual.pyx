"""One pass of dual coordinate ascent over the rows of a sparse X, for linear models with an L2 penalty."""

import numpy as np

from cython cimport floating as real
from libc.math cimport fabs
from libc.stdint cimport int32_t
from libc.stdlib cimport free, realloc

from sklloss.kernels.data cimport Batch, batch_kernel
from sklloss.kernels.products cimport for_sparse
from sklloss.kernels.python_loss cimport FAILED, Call, bind
from sklloss.kernels.linear.sgd cimport load_targets, look_up
from sklloss.kernels.linear.gradient cimport index, sparse_scatter, sparse_scores

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define SKLLOSS_FETCH(p) __builtin_prefetch((const void*)(p), 0, 3)
    #else
    #define SKLLOSS_FETCH(p) ((void)(p))
    #endif
    """
    void SKLLOSS_FETCH(const void* p) noexcept nogil

# A step of a row moves its scores by no more than 1 / CAUTION: a second derivative at its start tells
# little of what is further away.
cdef double CAUTION = 0.25


cdef struct Part:
    # the rows of a block, one after the other, in double
    double* value
    void* column
    Py_ssize_t room


cdef inline bint enlarge(Part* part, Py_ssize_t numbers, Py_ssize_t size) noexcept nogil:
    """Make room; False if there is no memory. What there was is lost or kept, as it comes."""
    cdef void* value
    cdef void* column
    if numbers <= part.room:
        return True
    value = realloc(part.value, numbers * sizeof(double))
    if value != NULL:
        part.value = <double*>value
    column = realloc(part.column, numbers * size)
    if column != NULL:
        part.column = column
    if value == NULL or column == NULL:
        return False
    part.room = numbers
    return True


cdef inline void fetch(const void* p, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t at = 0
    while at < size:
        SKLLOSS_FETCH(<const char*>p + at)
        at += 64


cdef inline void one_step(
    double* change, double* m, const double* p, double scale, double norm, double crowd, bint coupled,
    Py_ssize_t K,
) noexcept nogil:
    """Turn the residuals of a row's dual variables into a step of them.

    With residuals r, second derivatives P of the loss and norm = ||x||**2 that is (I + crowd norm P)^-1 r:
    for ``crowd`` 1 Newton's step of the row by itself. It is held back where it would lead far. For coupled
    outputs P is scale (diag(p) - p p'), for separable ones it is scale p.
    """
    cdef Py_ssize_t k
    cdef double most = 0.0, a = 0.0, c = 0.0, q = scale * norm * crowd
    for k in range(K):
        most = max(most, fabs(change[k]))
    if not coupled:
        for k in range(K):
            m[k] = 1.0 / (1.0 + CAUTION * norm * fabs(change[k]) + q * p[k])
            change[k] *= m[k]
        return
    for k in range(K):
        m[k] = 1.0 / (1.0 + CAUTION * norm * most + q * p[k])
        change[k] *= m[k]
        a += p[k] * change[k]
        c += p[k] * p[k] * m[k]
    a = q * a / (1.0 - q * c)
    for k in range(K):
        change[k] += a * p[k] * m[k]


cdef inline void widen(
    Batch* batch, const real* target, const real* weight, double* y, double* s
) noexcept nogil:
    """Point a batch at copies in double of its targets and weights."""
    cdef Py_ssize_t i, numbers = batch.rows * batch.outputs
    if batch.target != NULL:
        for i in range(numbers):
            y[i] = <double>target[i]
        batch.target = y
    if batch.weight != NULL:
        for i in range(numbers if batch.weight_per_output else batch.rows):
            s[i] = <double>weight[i]
        batch.weight = s


def dual_epoch(
    loss,
    const real[::1] data,
    const index[::1] indices,
    const index[::1] indptr,
    const Py_ssize_t[::1] order,
    Py_ssize_t block,
    double[:, ::1] w,
    double[::1] intercept,
    double[::1] balance,
    const real[:, ::1] target,
    const Py_ssize_t[::1] codes,
    const real[::1] weight,
    bint weight_per_output,
    bint expand,
    double parameter,
    real[:, ::1] dual,
    double scale,
    double bias,
    double crowd,
    bint coupled,
    double[::1] sums,
    double[::1] promise,
):
    """Take each row in ``order`` once, blocks of them at a time, and let its dual variables ascend.

    The objective is scale * sum_i loss_i(x_i w + intercept) + ||w||**2 / 2, with w (features, outputs) padded
    as for ``sparse_gradient``, and equal to X' dual. At the optimum the dual variables of a row are minus the
    derivatives of scale * loss_i by its scores; a step leads from what they are towards what that is at the
    present w. It is as short as is safe if the rows of a block together move the scores of one by ``crowd``
    times what it does itself. The intercept follows the sum of the dual variables, ``balance``, by a
    factor of ``bias``. ``loss`` is a kernel for double. All of w, intercept, balance and dual change in
    place. Added to ``sums``: the losses as rows were met; to ``promise``: by how much the objective would
    fall if rows had no feature in common. Returns -1, or the first row found with a code out of range.
    """
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, False, &batch, &kernel)
    cdef Py_ssize_t K = intercept.shape[0], n = order.shape[0]
    cdef Py_ssize_t start = 0, count, i, j, k, t, row, numbers, bad = -1
    cdef bint padded = for_sparse(K), enough = True
    cdef double[::1] memory = np.zeros(5 * block * K + 5 * K + 64)
    cdef real[::1] gathered = np.zeros(2 * block * K, np.float32 if real is float else np.float64)
    cdef index[::1] heads = np.zeros(block + 1, np.int32 if index is int32_t else np.int64)
    cdef Py_ssize_t[::1] row_codes = np.zeros(block, np.intp)
    cdef double* raw = &memory[0]
    cdef double* change = raw + block * K
    cdef double* curve = change + block * K
    cdef double* y = curve + block * K
    cdef double* s = y + block * K
    cdef double* m = s + block * K
    cdef double* found = m + K
    cdef const real* targets = &target[0, 0] if target is not None else NULL
    cdef const Py_ssize_t* classes = &codes[0] if codes is not None else NULL
    cdef const real* weights = &weight[0] if weight is not None else NULL
    cdef const real* value = &data[0] if data.shape[0] else NULL
    cdef const index* column = &indices[0] if indices.shape[0] else NULL
    cdef real* own
    cdef real old
    cdef index* local
    cdef Part part
    cdef double norm, r, weighted, work = 0.0
    part.value = NULL
    part.column = NULL
    part.room = 0
    batch.parameter = parameter
    batch.outputs = K
    batch.raw = raw
    batch.sums = found
    batch.scratch = found + 2 * K
    batch.per_sample = NULL
    batch.curvature = curve
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
                bad = load_targets(
                    &batch, &order[start], count, targets, classes, weights, weight_per_output, expand,
                    &gathered[0], &row_codes[0], &gathered[block * K],
                )
                if bad < 0:
                    widen(&batch, &gathered[0], &gathered[block * K], y, s)
                    bad = kernel(&batch)
                if bad != -1:
                    bad = order[start + bad] if bad >= 0 else bad
                    break
                for k in range(K):
                    sums[k] += found[k]
                for i in range(count):
                    row = order[start + i]
                    own = &dual[row, 0]
                    norm = bias
                    for t in range(<Py_ssize_t>heads[i], <Py_ssize_t>heads[i + 1]):
                        norm += part.value[t] * part.value[t]
                    weighted = scale
                    if coupled and weights != NULL:
                        weighted *= s[i]
                    for k in range(K):
                        raw[i * K + k] = -scale * raw[i * K + k] - <double>own[k]
                        change[i * K + k] = raw[i * K + k]
                    one_step(change + i * K, m, curve + i * K, weighted, norm, crowd, coupled, K)
                    for k in range(K):
                        promise[k] += 0.5 * norm * raw[i * K + k] * change[i * K + k]
                        # w follows what the rounded dual variables are
                        old = own[k]
                        own[k] = <real>(<double>old + change[i * K + k])
                        r = <double>own[k] - <double>old
                        change[i * K + k] = r
                        balance[k] += r
                        intercept[k] += bias * r
                sparse_scatter(part.value, local, &heads[0], change, &w[0, 0], count, K, padded)
                work += 3.0 * <double>K * <double>(numbers + 8 * count)
                look_up(&work)
                start += count
    finally:
        free(part.value)
        free(part.column)
    if not enough:
        raise MemoryError()
    if bad == FAILED:
        call.raise_error()
    return bad
