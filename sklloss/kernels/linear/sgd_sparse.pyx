"""The stochastic pass of ``_stochastic`` for many sparse columns."""

import numpy as np

from cython cimport floating as real
from libc.math cimport pow, sqrt

from sklloss.kernels.data cimport Batch, batch_kernel
from sklloss.kernels.python_loss cimport FAILED, Call, bind
from sklloss.kernels.linear.sgd cimport held, load_targets, look_up, squares, subtract_kept
from sklloss.kernels.linear.gradient cimport index


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
    const real[::1] data,
    const index[::1] indices,
    const index[::1] indptr,
    const Py_ssize_t[::1] order,
    Py_ssize_t batch_rows,
    double[:, ::1] w,
    bint fit_intercept,
    const real[:, ::1] target,
    const Py_ssize_t[::1] codes,
    const real[::1] weight,
    bint weight_per_output,
    bint expand,
    double parameter,
    const real[:, ::1] kept,
    const double[:, ::1] anchor,
    const double[:, ::1] ridge,
    const double[::1] units,
    const double[::1] gains,
    const double[:, ::1] rates,
    double bend,
    bint together,
    double[:, ::1] first,
    double[:, ::1] second,
    double decay,
    double decay_second,
    double epsilon,
):
    """As ``block_epoch``, at a cost that goes with the numbers stored in a batch.

    ``w``, ``anchor``, ``ridge`` and the moments are (width, outputs) here: a column's are contiguous. A
    column that has no part in a batch takes no step then; it makes up for that when it next has one. With
    Adam its moments stay as they are meanwhile, and it makes up with plain steps at the pace they set. The
    rates of missed steps are taken to be the present one.
    """
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, real is float, &batch, &kernel)
    cdef Py_ssize_t width = w.shape[0], K = w.shape[1]
    cdef Py_ssize_t n = order.shape[0], batches = gains.shape[0]
    cdef Py_ssize_t b, start, count, i, j, k, t, row, end, columns, bad = -1
    dtype = np.float32 if real is float else np.float64
    batch_rows = max(1, min(batch_rows, n))
    cdef real[::1] memory = np.zeros(3 * batch_rows * K + 2 * K + 64, dtype)
    cdef double[:, ::1] sums = np.zeros((width, K))
    cdef double[::1] numbers = np.zeros(5 * K)
    cdef Py_ssize_t[::1] row_codes = np.zeros(batch_rows, np.intp)
    cdef Py_ssize_t[::1] taken = np.zeros(width, np.intp)
    cdef Py_ssize_t[::1] present = np.zeros(width, np.intp)
    cdef real* raw = &memory[0]
    cdef real* y = raw + batch_rows * K
    cdef real* s = y + batch_rows * K
    cdef double* speed = &numbers[0]
    cdef double* scores = speed + K
    cdef double* step = scores + K
    cdef double* first_of
    cdef double* second_of
    cdef const double* pull
    cdef const real* targets = &target[0, 0] if target is not None else NULL
    cdef const Py_ssize_t* classes = &codes[0] if codes is not None else NULL
    cdef const real* weights = &weight[0] if weight is not None else NULL
    cdef bint anchored = anchor is not None, adaptive = first is not None
    cdef double value, total, slope, curve, fraction, work = 0.0
    batch.parameter = parameter
    batch.outputs = K
    batch.raw = raw
    batch.sums = step + K
    batch.scratch = s + batch_rows * K
    batch.per_sample = NULL
    batch.curvature = NULL
    with nogil:
        for b in range(batches):
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
                        value = <double>data[t]
                    else:
                        j = width - 1
                        value = 1.0
                    # one more than the steps taken marks a column that is in this batch already
                    if taken[j] <= b:
                        if taken[j] < b:
                            pull = &anchor[j, 0] if anchored else NULL
                            for k in range(K):
                                speed[k] = rates[b, k]
                                if adaptive:
                                    speed[k] = min(1.0, speed[k] / (sqrt(second[j, k]) + epsilon))
                                speed[k] /= units[j] * units[j]
                            catch_up(&w[j, 0], pull, &ridge[j, 0], speed, b - taken[j], K)
                        taken[j] = b + 1
                        present[columns] = j
                        columns += 1
                    for k in range(K):
                        scores[k] += value * w[j, k]
                for k in range(K):
                    raw[i * K + k] = <real>scores[k]
                work += 3.0 * <double>K * <double>(indptr[row + 1] - indptr[row] + 8)
            bad = load_targets(
                &batch, &order[start], count, targets, classes, weights, weight_per_output, expand,
                y, &row_codes[0], s,
            )
            if bad < 0:
                bad = kernel(&batch)
            if bad != -1:
                bad = order[start + bad] if bad >= 0 else bad
                break
            if kept is not None:
                subtract_kept(raw, &kept[0, 0], &order[start], count, K)
            for i in range(count):
                row = order[start + i]
                for t in range(<Py_ssize_t>indptr[row], <Py_ssize_t>indptr[row + 1]):
                    value = <double>data[t]
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
                    first_of = &first[j, 0]
                    second_of = &second[j, 0]
                    for k in range(K):
                        value = step[k] / units[j]
                        first_of[k] = decay * first_of[k] + (1.0 - decay) * value
                        second_of[k] = decay_second * second_of[k] + (1.0 - decay_second) * value * value
                        step[k] = rates[b, k] * first_of[k] / (sqrt(second_of[k]) + epsilon) / units[j]
                        total += step[k]
                else:
                    for k in range(K):
                        step[k] *= rates[b, k] / (units[j] * units[j])
                        total += step[k]
                if together:
                    for k in range(K):
                        step[k] -= total / <double>K
                if bend > 0.0:
                    for k in range(K):
                        slope += sums[j, k] * step[k]
                for k in range(K):
                    sums[j, k] = step[k]
            fraction = 1.0
            if bend > 0.0:
                for i in range(count):
                    row = order[start + i]
                    for k in range(K):
                        scores[k] = sums[width - 1, k] if fit_intercept else 0.0
                    for t in range(<Py_ssize_t>indptr[row], <Py_ssize_t>indptr[row + 1]):
                        for k in range(K):
                            scores[k] += <double>data[t] * sums[indices[t], k]
                    for k in range(K):
                        raw[i * K + k] = <real>scores[k]
                curve = squares(raw, <const real*>batch.weight, weight_per_output, count, K)
                fraction = held(slope, bend * curve)
            for t in range(columns):
                j = present[t]
                for k in range(K):
                    w[j, k] -= fraction * sums[j, k]
                    sums[j, k] = 0.0
            work += 10.0 * <double>K * <double>columns
            look_up(&work)
        if bad == -1:
            for j in range(width):
                if taken[j] < batches:
                    pull = &anchor[j, 0] if anchored else NULL
                    for k in range(K):
                        speed[k] = rates[batches - 1, k]
                        if adaptive:
                            speed[k] = min(1.0, speed[k] / (sqrt(second[j, k]) + epsilon))
                        speed[k] /= units[j] * units[j]
                    catch_up(&w[j, 0], pull, &ridge[j, 0], speed, batches - taken[j], K)
    if bad == FAILED:
        call.raise_error()
    return bad
