"""The stochastic pass of ``sgd.pyx`` for many sparse columns."""

import numpy as np

from cython cimport floating as real
from libc.math cimport pow, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free

from sklloss.kernels.common cimport adam_step, check_signals
from sklloss.kernels.data cimport FAILED, Batch, Call, Dataset, Workspace, allocate, batch_kernel, bind
from sklloss.kernels.linear.gradient cimport index
from sklloss.kernels.linear.sgd cimport damping, squares, subtract_reference


cdef inline void catch_up(
    double* w, const double* anchor, const double* ridge, const double* speed, Py_ssize_t steps,
    Py_ssize_t K,
) noexcept nogil:
    """Take the steps that the parameters of a column missed, in which no row of theirs had a part.

    Each is w -= speed * (anchor + ridge * w), for which there is a closed form. Its power of one output
    mostly serves the next.
    """
    cdef Py_ssize_t k
    cdef double a, before = -1.0, left = 1.0
    for k in range(K):
        if ridge[k] == 0.0:
            if anchor != NULL:
                w[k] -= <double>steps * speed[k] * anchor[k]
            continue
        a = 1.0 - speed[k] * ridge[k]
        if a != before:
            left = pow(a, <double>steps) if steps > 1 else a
            before = a
        if anchor != NULL:
            w[k] = left * w[k] - (1.0 - left) * anchor[k] / ridge[k]
        else:
            w[k] = left * w[k]


def sparse_epoch(
    loss,
    Dataset data,
    double[:, ::1] w,
    batches,
    const double[::1] units,
    const double[:, ::1] ridge,
    steps,
    reference=None,
    adam=None,
):
    """As ``block_epoch``, at a cost that goes with the numbers stored in a batch.

    ``batches`` is ``order`` and ``batch_rows``. ``w``, ``anchor``, ``ridge`` and the moments are (width,
    outputs) here: a column's are contiguous. A column that has no part in a batch takes no step then; it
    makes up for that when it next has one. With Adam its moments stay as they are meanwhile, and it makes up
    with plain steps at the pace they set. The rates of missed steps are taken to be the present one.
    """
    if data.single and data.long_index:
        return _sparse_epoch(
            <const float*>data.x, <const int64_t*>data.columns, <const int64_t*>data.row_starts, loss, data,
            w, batches, units, ridge, steps, reference, adam,
        )
    if data.single:
        return _sparse_epoch(
            <const float*>data.x, <const int32_t*>data.columns, <const int32_t*>data.row_starts, loss, data,
            w, batches, units, ridge, steps, reference, adam,
        )
    if data.long_index:
        return _sparse_epoch(
            <const double*>data.x, <const int64_t*>data.columns, <const int64_t*>data.row_starts, loss, data,
            w, batches, units, ridge, steps, reference, adam,
        )
    return _sparse_epoch(
        <const double*>data.x, <const int32_t*>data.columns, <const int32_t*>data.row_starts, loss, data,
        w, batches, units, ridge, steps, reference, adam,
    )


cdef object _sparse_epoch(
    const real* x, const index* indices, const index* indptr, object loss, Dataset data, double[:, ::1] w,
    tuple batches, const double[::1] units, const double[:, ::1] ridge, tuple steps, tuple reference,
    tuple adam,
):
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, data.single, &batch, &kernel)
    cdef Workspace space
    cdef const Py_ssize_t[::1] order = batches[0]
    cdef Py_ssize_t n = order.shape[0], batch_rows = max(1, min(<Py_ssize_t>batches[1], n))
    cdef const double[::1] gains = steps[0]
    cdef const double[:, ::1] rates = steps[1]
    cdef double curvature_bound = steps[2]
    cdef bint keep_sums = steps[3]
    cdef const real[:, ::1] slopes = None
    cdef const double[:, ::1] anchor = None
    cdef double[:, ::1] first = None, second = None
    cdef double decay = 0.0, decay_second = 0.0, epsilon = 0.0
    if reference is not None:
        slopes, anchor = reference
    if adam is not None:
        first, second, decay, decay_second, epsilon = adam
    cdef Py_ssize_t width = w.shape[0], K = w.shape[1], count_batches = gains.shape[0]
    cdef bint fit_intercept = width > data.features
    cdef Py_ssize_t b, start, count, i, j, k, t, row, end, columns, bad = -1
    cdef double[:, ::1] sums = np.zeros((width, K))
    cdef double[::1] numbers = np.zeros(3 * K)
    cdef Py_ssize_t[::1] taken = np.zeros(width, np.intp)
    cdef Py_ssize_t[::1] present = np.zeros(width, np.intp)
    cdef real* raw
    cdef double* speed = &numbers[0]
    cdef double* scores = speed + K
    cdef double* step = scores + K
    cdef const double* anchor_of
    cdef bint anchored = anchor is not None, adaptive = first is not None
    cdef double value, total, slope, fraction, work = 0.0
    if not allocate(&space, batch_rows, K, data.single):
        raise MemoryError()
    raw = <real*>space.raw
    try:
        with nogil:
            for b in range(count_batches):
                start = b * batch_rows
                count = min(batch_rows, n - start)
                columns = 0
                for i in range(count):
                    row = order[start + i]
                    for k in range(K):
                        scores[k] = 0.0
                    end = <Py_ssize_t>indptr[row + 1]
                    for t in range(<Py_ssize_t>indptr[row], end + (1 if fit_intercept else 0)):
                        if t < end:
                            j = indices[t]
                            value = <double>x[t]
                        else:
                            j = width - 1
                            value = 1.0
                        # one more than the steps taken marks a column that is in this batch already
                        if taken[j] <= b:
                            if taken[j] < b:
                                anchor_of = &anchor[j, 0] if anchored else NULL
                                for k in range(K):
                                    speed[k] = rates[b, k]
                                    if adaptive:
                                        speed[k] = min(1.0, speed[k] / (sqrt(second[j, k]) + epsilon))
                                    speed[k] /= units[j] * units[j]
                                catch_up(&w[j, 0], anchor_of, &ridge[j, 0], speed, b - taken[j], K)
                            taken[j] = b + 1
                            present[columns] = j
                            columns += 1
                        for k in range(K):
                            scores[k] += value * w[j, k]
                    for k in range(K):
                        raw[i * K + k] = <real>scores[k]
                    work += 3.0 * <double>K * <double>(indptr[row + 1] - indptr[row] + 8)
                bad = data.set_batch(&batch, &space, &order[0], start, count)
                if bad < 0:
                    bad = kernel(&batch)
                if bad != -1:
                    bad = order[start + bad] if bad >= 0 else bad
                    break
                if slopes is not None:
                    subtract_reference(raw, &slopes[0, 0], &order[start], count, K)
                for i in range(count):
                    row = order[start + i]
                    for t in range(<Py_ssize_t>indptr[row], <Py_ssize_t>indptr[row + 1]):
                        value = <double>x[t]
                        for k in range(K):
                            sums[indices[t], k] += value * <double>raw[i * K + k]
                    if fit_intercept:
                        for k in range(K):
                            sums[width - 1, k] += <double>raw[i * K + k]
                slope = 0.0
                for t in range(columns):
                    j = present[t]
                    for k in range(K):
                        step[k] = gains[b] * sums[j, k] + ridge[j, k] * w[j, k]
                    if anchored:
                        for k in range(K):
                            step[k] += anchor[j, k]
                    total = 0.0
                    if adaptive:
                        for k in range(K):
                            value = step[k] / units[j]
                            step[k] = adam_step(
                                value, &first[j, k], &second[j, k], decay, decay_second, rates[b, k], epsilon
                            ) / units[j]
                            total += step[k]
                    else:
                        for k in range(K):
                            step[k] *= rates[b, k] / (units[j] * units[j])
                            total += step[k]
                    if keep_sums:
                        for k in range(K):
                            step[k] -= total / <double>K
                    if curvature_bound > 0.0:
                        for k in range(K):
                            slope += sums[j, k] * step[k]
                    for k in range(K):
                        sums[j, k] = step[k]
                fraction = 1.0
                if curvature_bound > 0.0:
                    for i in range(count):
                        row = order[start + i]
                        for k in range(K):
                            scores[k] = sums[width - 1, k] if fit_intercept else 0.0
                        for t in range(<Py_ssize_t>indptr[row], <Py_ssize_t>indptr[row + 1]):
                            for k in range(K):
                                scores[k] += <double>x[t] * sums[indices[t], k]
                        for k in range(K):
                            raw[i * K + k] = <real>scores[k]
                    total = squares(raw, <const real*>batch.weight, data.weight_per_output, count, K)
                    fraction = damping(slope, curvature_bound * total)
                for t in range(columns):
                    j = present[t]
                    for k in range(K):
                        w[j, k] -= fraction * sums[j, k]
                        sums[j, k] = 0.0
                work += 10.0 * <double>K * <double>columns
                check_signals(&work)
            if bad == -1:
                for j in range(width):
                    if taken[j] < count_batches:
                        anchor_of = &anchor[j, 0] if anchored else NULL
                        for k in range(K):
                            speed[k] = rates[count_batches - 1, k]
                            if adaptive:
                                speed[k] = min(1.0, speed[k] / (sqrt(second[j, k]) + epsilon))
                            speed[k] /= units[j] * units[j]
                        catch_up(&w[j, 0], anchor_of, &ridge[j, 0], speed, count_batches - taken[j], K)
    finally:
        free(space.memory)
    if bad == FAILED:
        call.raise_error()
    return bad
