"""One stochastic pass over the rows of X for a linear model: mini-batches, with a step after each.

The gradient of a batch is ``gain * sum(slope_i x_i) + anchor + ridge * w``. With the slopes at an earlier
point, of which ``anchor`` is the whole gradient, slope_i is the change since (variance reduction: Johnson and
Zhang, 2013); without, it is the slope itself. Steps are taken in coordinates in
which the objective is about as curved in every direction. No loop over batches holds the GIL, allocates or
meets a Python object, but for a loss that is one; every so often it asks whether the user pressed Ctrl-C.
"""

import numpy as np

from cython cimport floating as real
from libc.math cimport fabs, pow, sqrt
from libc.stdlib cimport free
from libc.string cimport memset
from scipy.linalg.cython_blas cimport dtrsm, dtrsv

from sklloss.kernels.common cimport adam_step, check_signals, column_sums
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
from sklloss.kernels.linear.gradient cimport dense_scatter, dense_scores


cdef class Steps:
    """The steps of a pass, from the attributes of the same names of an `EpochPlan`."""

    cdef const Py_ssize_t[::1] order
    cdef Py_ssize_t batch_rows
    cdef Py_ssize_t batches
    cdef const double[:, :, ::1] factors
    cdef const double[:, ::1] units
    cdef const double[:, ::1] ridge
    cdef const double[:, ::1] anchor
    cdef object anchor_slopes        # of X's dtype
    cdef const double[::1] gains
    cdef const double[:, ::1] rates
    cdef double curvature_bound
    cdef bint keep_mean
    cdef bint adaptive               # by Adam's moments
    cdef double[:, ::1] first
    cdef double[:, ::1] second
    cdef double decay
    cdef double decay_second
    cdef double epsilon
    cdef double[:, ::1] mean
    cdef const double[::1] mixing

    def __init__(self, plan):
        self.order, self.batch_rows = plan.order, plan.batch_rows
        self.factors, self.units = plan.coordinates
        self.ridge, self.anchor, self.anchor_slopes = plan.ridge, plan.anchor, plan.anchor_slopes
        self.gains, self.rates = np.ascontiguousarray(plan.gains), np.ascontiguousarray(plan.rates)
        self.batches = self.gains.shape[0]
        self.curvature_bound, self.keep_mean = plan.curvature_bound, plan.keep_mean
        self.adaptive = plan.moments is not None
        if self.adaptive:
            self.first, self.second = plan.moments
        self.decay, self.decay_second, self.epsilon = plan.decays
        self.mean, self.mixing = plan.mean, plan.mixing


cdef inline void subtract_reference(
    real* slopes, const real* reference, const Py_ssize_t* rows_at, Py_ssize_t rows, Py_ssize_t K
) noexcept nogil:
    """Take the slopes that the rows of a batch had at an earlier point from those they have now."""
    cdef Py_ssize_t i, k
    for i in range(rows):
        for k in range(K):
            slopes[i * K + k] -= reference[rows_at[i] * K + k]


cdef inline double squares(
    const real* z, const real* weight, bint weight_per_output, Py_ssize_t rows, Py_ssize_t K
) noexcept nogil:
    """The weighted sum of squares of z (rows, K)."""
    cdef Py_ssize_t i, k
    cdef double total = 0.0, square
    for i in range(rows):
        for k in range(K):
            square = <double>z[i * K + k] * <double>z[i * K + k]
            if weight != NULL:
                square *= <double>weight[i * K + k if weight_per_output else i]
            total += square
    return total


cdef inline double damping(double slope, double curvature) noexcept nogil:
    """The fraction t of a step that is short of the minimum of curvature t**2 / 2 - slope t.

    Against the slope, where momentum may lead, it is as far.
    """
    return fabs(slope) / curvature if fabs(slope) < curvature else 1.0


cdef inline void into_units(
    double* g, double* factors, Py_ssize_t count, const double* units, Py_ssize_t K, Py_ssize_t width,
    bint back,
) noexcept nogil:
    """Gradient to the coordinates of the steps, or ``back``: a step from them. g is (K, width).

    The curvature is ``units U' U units`` with U upper triangular (or 1): one for all outputs or one for each.
    """
    cdef Py_ssize_t k, j
    cdef const double* unit
    cdef int p = <int>width, columns = <int>K, one = 1
    cdef double alpha = 1.0
    cdef char* transposed = b"N" if back else b"T"
    if not back:
        for k in range(K):
            unit = units + (k * width if count > 1 else 0)
            for j in range(width):
                g[k * width + j] /= unit[j]
    if factors != NULL and count == 1 and K > 1:
        dtrsm(b"L", b"U", transposed, b"N", &p, &columns, &alpha, factors, &p, g, &p)
    elif factors != NULL:
        for k in range(K):
            dtrsv(
                b"U", transposed, b"N", &p, factors + (k * width * width if count > 1 else 0), &p,
                g + k * width, &one,
            )
    if back:
        for k in range(K):
            unit = units + (k * width if count > 1 else 0)
            for j in range(width):
                g[k * width + j] /= unit[j]


def block_epoch(loss, Dataset data, double[:, ::1] w, plan, Py_ssize_t block):
    """A step for each batch, with rows gathered as small dense blocks.

    Parameters
    ----------
    loss : CompiledLoss or PythonLoss
        Of X's dtype.
    data : Dataset
        The center, if any, is subtracted from each row of a dense X.
    w : array of shape (outputs, width)
        The intercept last, if width is one more than the features. It changes in place.
    plan : EpochPlan
    block : int
        Rows worked on at a time.

    Returns
    -------
    int
        -1, or the first row whose code is out of range.
    """
    if data.single:
        return _block_epoch(<float*>NULL, loss, data, w, Steps(plan), block)
    return _block_epoch(<double*>NULL, loss, data, w, Steps(plan), block)


cdef object _block_epoch(
    real* rows_of_x, object loss, Dataset data, double[:, ::1] w, Steps steps, Py_ssize_t block
):
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, data.single, &batch, &kernel)
    cdef Workspace space
    cdef const Py_ssize_t* order = &steps.order[0]
    cdef const real[:, ::1] anchor_slopes = steps.anchor_slopes
    cdef Py_ssize_t K = w.shape[0], width = w.shape[1], p = data.features
    cdef bint fit_intercept = width > p
    cdef Py_ssize_t n = steps.order.shape[0], batch_rows = steps.batch_rows
    cdef Py_ssize_t b, start, count, done, rows, j, k, bad = -1
    block = max(1, min(block, batch_rows))
    cdef real[::1] memory = np.zeros(block * p + 2 * K * p + K, np.float32 if real is float else np.float64)
    cdef double[::1] numbers = np.zeros(2 * K * width + K)
    cdef real* raw
    cdef real* coef
    cdef real* part
    cdef real* intercept
    cdef double* g = &numbers[0]
    cdef double* coef_gradient = g + K * width
    cdef double* shift = coef_gradient + K * p
    cdef double* matrices = <double*>&steps.factors[0, 0, 0] if steps.factors is not None else NULL
    cdef double work = 0.0, total, curvature, fraction
    rows_of_x = &memory[0]
    coef = rows_of_x + block * p
    part = coef + K * p
    intercept = part + K * p
    if not allocate(&space, block, K, data.single):
        raise MemoryError()
    raw = <real*>space.raw
    try:
        with nogil:
            for b in range(steps.batches):
                start = b * batch_rows
                count = min(batch_rows, n - start)
                memset(g, 0, (2 * K * width + K) * sizeof(double))
                for k in range(K):
                    for j in range(p):
                        coef[k * p + j] = <real>w[k, j]
                    intercept[k] = <real>w[k, p] if fit_intercept else <real>0.0
                done = 0
                while done < count:
                    rows = min(block, count - done)
                    data.load_rows(order, start + done, rows, rows_of_x, p, data.single)
                    dense_scores(rows_of_x, True, <int>p, coef, intercept, raw, <int>rows, <int>p, <int>K)
                    bad = data.set_batch(&batch, &space, order, start + done, rows)
                    if bad < 0:
                        bad = kernel(&batch)
                    if bad != -1:
                        break
                    if anchor_slopes is not None:
                        subtract_reference(raw, &anchor_slopes[0, 0], order + start + done, rows, K)
                    dense_scatter(
                        rows_of_x, True, <int>p, raw, part, coef_gradient, <int>rows, <int>p, <int>K
                    )
                    column_sums(raw, shift, rows, K)
                    done += rows
                    work += 3.0 * <double>rows * <double>(K * width)
                    check_signals(&work)
                if bad != -1:
                    bad = order[start + done + bad] if bad >= 0 else bad
                    break
                for k in range(K):
                    for j in range(p):
                        g[k * width + j] = steps.gains[b] * coef_gradient[k * p + j]
                    if fit_intercept:
                        g[k * width + p] = steps.gains[b] * shift[k]
                    for j in range(width):
                        g[k * width + j] += steps.ridge[k, j] * w[k, j]
                    if steps.anchor is not None:
                        for j in range(width):
                            g[k * width + j] += steps.anchor[k, j]
                into_units(g, matrices, steps.units.shape[0], &steps.units[0, 0], K, width, False)
                for k in range(K):
                    if steps.adaptive:
                        for j in range(width):
                            g[k * width + j] = adam_step(
                                g[k * width + j], &steps.first[k, j], &steps.second[k, j], steps.decay,
                                steps.decay_second, steps.rates[b, k], steps.epsilon,
                            )
                    else:
                        for j in range(width):
                            g[k * width + j] *= steps.rates[b, k]
                into_units(g, matrices, steps.units.shape[0], &steps.units[0, 0], K, width, True)
                if steps.keep_mean:
                    for j in range(width):
                        total = 0.0
                        for k in range(K):
                            total += g[k * width + j]
                        for k in range(K):
                            g[k * width + j] -= total / <double>K
                fraction = 1.0
                if steps.curvature_bound > 0.0:
                    # along the step: the decrease of the batch's loss to first order, and its curvature
                    total = 0.0
                    for k in range(K):
                        for j in range(p):
                            total += coef_gradient[k * p + j] * g[k * width + j]
                            coef[k * p + j] = <real>g[k * width + j]
                        intercept[k] = <real>0.0
                        if fit_intercept:
                            total += shift[k] * g[k * width + p]
                            intercept[k] = <real>g[k * width + p]
                    dense_scores(rows_of_x, True, <int>p, coef, intercept, raw, <int>rows, <int>p, <int>K)
                    curvature = steps.curvature_bound * squares(
                        raw, <const real*>batch.weight, data.weight_per_output, rows, K
                    )
                    fraction = damping(total, curvature * <double>count / <double>rows)
                for k in range(K):
                    for j in range(width):
                        w[k, j] -= fraction * g[k * width + j]
                    if steps.mean is not None:
                        for j in range(width):
                            steps.mean[k, j] += steps.mixing[b] * (w[k, j] - steps.mean[k, j])
                if matrices != NULL:
                    work += 2.0 * <double>K * <double>width * <double>width
                work += 10.0 * <double>K * <double>width
                check_signals(&work)
    finally:
        free(space.memory)
    if bad == FAILED:
        call.raise_error()
    return bad


cdef inline void catch_up(
    double* w, Steps steps, Py_ssize_t column, Py_ssize_t missed, Py_ssize_t batch, double* speed
) noexcept nogil:
    """Take the steps that the parameters of a column missed, in which no row of theirs had a part.

    Each is w -= speed * (anchor + ridge * w), at the speed of ``batch``, for which there is a closed form.
    Its power for one output mostly serves the next.
    """
    cdef Py_ssize_t K = steps.ridge.shape[1], k
    cdef double unit = steps.units[0, column], a, before = -1.0, left = 1.0
    cdef const double* ridge = &steps.ridge[column, 0]
    cdef const double* anchor = &steps.anchor[column, 0] if steps.anchor is not None else NULL
    cdef const double* second = &steps.second[column, 0] if steps.adaptive else NULL
    for k in range(K):
        speed[k] = steps.rates[batch, k]
        if second != NULL:
            speed[k] = min(1.0, speed[k] / (sqrt(second[k]) + steps.epsilon))
        speed[k] /= unit * unit
    for k in range(K):
        if ridge[k] == 0.0:
            if anchor != NULL:
                w[k] -= <double>missed * speed[k] * anchor[k]
            continue
        a = 1.0 - speed[k] * ridge[k]
        if a != before:
            left = pow(a, <double>missed) if missed > 1 else a
            before = a
        if anchor != NULL:
            w[k] = left * w[k] - (1.0 - left) * anchor[k] / ridge[k]
        else:
            w[k] = left * w[k]


def sparse_epoch(loss, Dataset data, double[:, ::1] w, plan):
    """As `block_epoch` for a CSR X, at a cost that goes with the numbers stored in a batch.

    ``w`` and the matrices of the plan are (width, outputs) here: those of a column are contiguous. A column
    that has no part in a batch takes no step then; it makes up for that when it next has one. With Adam its
    moments stay as they are meanwhile, and it makes up with plain steps at the pace they set. The rates of
    missed steps are taken to be the present one. The coordinates have no factors and the same units for all
    outputs, and no mean is kept.
    """
    if data.single:
        return _sparse_epoch(<float*>NULL, loss, data, w, Steps(plan))
    return _sparse_epoch(<double*>NULL, loss, data, w, Steps(plan))


cdef object _sparse_epoch(
    real* raw, object loss, Dataset data, double[:, ::1] w, Steps steps
):
    cdef batch_kernel kernel
    cdef Batch batch
    cdef Call call = bind(loss, data.single, &batch, &kernel)
    cdef Workspace space
    cdef const Py_ssize_t* order = &steps.order[0]
    cdef const real[:, ::1] anchor_slopes = steps.anchor_slopes
    cdef Py_ssize_t n = steps.order.shape[0], batch_rows = max(1, min(steps.batch_rows, n))
    cdef Py_ssize_t width = w.shape[0], K = w.shape[1], batches = steps.batches
    cdef bint fit_intercept = width > data.features
    cdef Py_ssize_t b, start, count, i, j, k, t, row, end, columns, bad = -1
    cdef double[:, ::1] sums = np.zeros((width, K))
    cdef double[::1] numbers = np.zeros(3 * K)
    cdef Py_ssize_t[::1] taken = np.zeros(width, np.intp)
    cdef Py_ssize_t[::1] present = np.zeros(width, np.intp)
    cdef double* speed = &numbers[0]
    cdef double* scores = speed + K
    cdef double* step = scores + K
    cdef const double[:, ::1] rates = steps.rates
    cdef double[:, ::1] first = steps.first, second = steps.second
    cdef double decay = steps.decay, decay_second = steps.decay_second, epsilon = steps.epsilon
    cdef double value, unit, total, slope, fraction, work = 0.0
    if not allocate(&space, batch_rows, K, data.single):
        raise MemoryError()
    raw = <real*>space.raw
    try:
        with nogil:
            for b in range(batches):
                start = b * batch_rows
                count = min(batch_rows, n - start)
                columns = 0
                for i in range(count):
                    row = order[start + i]
                    for k in range(K):
                        scores[k] = 0.0
                    end = row_start(data, row + 1)
                    for t in range(row_start(data, row), end + (1 if fit_intercept else 0)):
                        if t < end:
                            j = column_at(data, t)
                            value = value_at(data, t)
                        else:
                            j = width - 1
                            value = 1.0
                        # one more than the steps taken marks a column that is in this batch already
                        if taken[j] <= b:
                            if taken[j] < b:
                                catch_up(&w[j, 0], steps, j, b - taken[j], b, speed)
                            taken[j] = b + 1
                            present[columns] = j
                            columns += 1
                        for k in range(K):
                            scores[k] += value * w[j, k]
                    for k in range(K):
                        raw[i * K + k] = <real>scores[k]
                    work += 3.0 * <double>K * <double>(end - row_start(data, row) + 8)
                bad = data.set_batch(&batch, &space, order, start, count)
                if bad < 0:
                    bad = kernel(&batch)
                if bad != -1:
                    bad = order[start + bad] if bad >= 0 else bad
                    break
                if anchor_slopes is not None:
                    subtract_reference(raw, &anchor_slopes[0, 0], order + start, count, K)
                for i in range(count):
                    row = order[start + i]
                    for t in range(row_start(data, row), row_start(data, row + 1)):
                        j = column_at(data, t)
                        value = value_at(data, t)
                        for k in range(K):
                            sums[j, k] += value * <double>raw[i * K + k]
                    if fit_intercept:
                        for k in range(K):
                            sums[width - 1, k] += <double>raw[i * K + k]
                slope = 0.0
                for t in range(columns):
                    j = present[t]
                    unit = steps.units[0, j]
                    for k in range(K):
                        step[k] = steps.gains[b] * sums[j, k] + steps.ridge[j, k] * w[j, k]
                    if steps.anchor is not None:
                        for k in range(K):
                            step[k] += steps.anchor[j, k]
                    total = 0.0
                    if steps.adaptive:
                        for k in range(K):
                            step[k] = adam_step(
                                step[k] / unit, &first[j, k], &second[j, k], decay, decay_second, rates[b, k],
                                epsilon,
                            ) / unit
                            total += step[k]
                    else:
                        for k in range(K):
                            step[k] *= rates[b, k] / (unit * unit)
                            total += step[k]
                    if steps.keep_mean:
                        for k in range(K):
                            step[k] -= total / <double>K
                    if steps.curvature_bound > 0.0:
                        for k in range(K):
                            slope += sums[j, k] * step[k]
                    for k in range(K):
                        sums[j, k] = step[k]
                fraction = 1.0
                if steps.curvature_bound > 0.0:
                    for i in range(count):
                        row = order[start + i]
                        for k in range(K):
                            scores[k] = sums[width - 1, k] if fit_intercept else 0.0
                        for t in range(row_start(data, row), row_start(data, row + 1)):
                            j = column_at(data, t)
                            value = value_at(data, t)
                            for k in range(K):
                                scores[k] += value * sums[j, k]
                        for k in range(K):
                            raw[i * K + k] = <real>scores[k]
                    total = squares(raw, <const real*>batch.weight, data.weight_per_output, count, K)
                    fraction = damping(slope, steps.curvature_bound * total)
                for t in range(columns):
                    j = present[t]
                    for k in range(K):
                        w[j, k] -= fraction * sums[j, k]
                        sums[j, k] = 0.0
                work += 10.0 * <double>K * <double>columns
                check_signals(&work)
            for j in range(width):
                if bad == -1 and taken[j] < batches:
                    catch_up(&w[j, 0], steps, j, batches - taken[j], batches - 1, speed)
    finally:
        free(space.memory)
    if bad == FAILED:
        call.raise_error()
    return bad
