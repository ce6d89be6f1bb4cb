"""Coordinate descent on a linear model's quadratic model plus an L1 norm, over the columns of a sparse X.

No Hessian is made: what the moves so far have changed in the rows' scores is kept up to date, and a
coordinate reads and changes it in the rows of its column alone.
"""

from cython cimport floating as real
from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t

from sklloss.kernels.common cimport check_signals, coordinate_minimum, shift_minimum


# A coordinate that gains less than this share of what all gained on average in the sweep before is left out
# of the next SKIPPED_SWEEPS sweeps.
cdef double SKIPPED_SHARE = 0.3
cdef Py_ssize_t SKIPPED_SWEEPS = 3


cdef struct Rows:
    # What a model keeps of the rows, for one output.
    const double* curvature  # the second derivatives; of a softmax the probabilities, times the row's weight
    const double* p          # the probabilities of a softmax; NULL for separable outputs
    double* change           # of the scores; times the curvature for separable outputs
    double* mean             # of a softmax: the changes' mean over outputs, by their probabilities
    Py_ssize_t count


cdef inline double dense_slope(Rows rows) noexcept nogil:
    """The derivative of the quadratic term by the intercept: `sparse_slope` of a column of ones."""
    cdef Py_ssize_t i
    cdef double a = 0.0, b = 0.0, c = 0.0, d = 0.0
    if rows.p == NULL:
        for i in range(0, rows.count - 3, 4):
            a += rows.change[i]
            b += rows.change[i + 1]
            c += rows.change[i + 2]
            d += rows.change[i + 3]
        for i in range(rows.count // 4 * 4, rows.count):
            a += rows.change[i]
        return (a + b) + (c + d)
    for i in range(0, rows.count - 3, 4):
        a += rows.curvature[i] * (rows.change[i] - rows.mean[i])
        b += rows.curvature[i + 1] * (rows.change[i + 1] - rows.mean[i + 1])
        c += rows.curvature[i + 2] * (rows.change[i + 2] - rows.mean[i + 2])
        d += rows.curvature[i + 3] * (rows.change[i + 3] - rows.mean[i + 3])
    for i in range(rows.count // 4 * 4, rows.count):
        a += rows.curvature[i] * (rows.change[i] - rows.mean[i])
    return (a + b) + (c + d)


cdef inline void dense_move(Rows rows, double step) noexcept nogil:
    cdef Py_ssize_t i
    if rows.p == NULL:
        for i in range(rows.count):
            rows.change[i] += step * rows.curvature[i]
        return
    for i in range(rows.count):
        rows.change[i] += step
        rows.mean[i] += step * rows.p[i]


cdef inline double sparse_slope(
    Rows rows, const real* x, const int32_t* row, Py_ssize_t count
) noexcept nogil:
    """The derivative of the quadratic term by the coefficient of a column."""
    cdef Py_ssize_t t
    cdef int32_t i, j
    cdef double a = 0.0, b = 0.0
    if rows.p == NULL:
        for t in range(0, count - 1, 2):
            a += <double>x[t] * rows.change[row[t]]
            b += <double>x[t + 1] * rows.change[row[t + 1]]
        if count & 1:
            a += <double>x[count - 1] * rows.change[row[count - 1]]
        return a + b
    for t in range(0, count - 1, 2):
        i = row[t]
        j = row[t + 1]
        a += <double>x[t] * rows.curvature[i] * (rows.change[i] - rows.mean[i])
        b += <double>x[t + 1] * rows.curvature[j] * (rows.change[j] - rows.mean[j])
    if count & 1:
        i = row[count - 1]
        a += <double>x[count - 1] * rows.curvature[i] * (rows.change[i] - rows.mean[i])
    return a + b


cdef inline void sparse_move(
    Rows rows, const real* x, const int32_t* row, Py_ssize_t count, double step
) noexcept nogil:
    cdef Py_ssize_t t
    cdef int32_t i
    cdef double moved
    if rows.p == NULL:
        for t in range(count):
            i = row[t]
            rows.change[i] += step * <double>x[t] * rows.curvature[i]
        return
    for t in range(count):
        i = row[t]
        moved = step * <double>x[t]
        rows.change[i] += moved
        rows.mean[i] += moved * rows.p[i]


def diagonal(
    const real[::1] values,
    const int32_t[::1] indices,
    const int64_t[::1] starts,
    const double[:, ::1] curvature,
    const double[:, ::1] p,
    const Py_ssize_t[::1] columns,
    const Py_ssize_t[::1] outputs,
    double[::1] result,
):
    """The diagonal of the Hessian, of the parameters and by the rows that `descend` takes."""
    cdef Py_ssize_t features = starts.shape[0] - 1, m, k, i, j, n = curvature.shape[1]
    cdef int64_t t
    cdef double total, c, x
    with nogil:
        for m in range(columns.shape[0]):
            k = outputs[m]
            j = columns[m]
            total = 0.0
            if j == features:
                for i in range(n):
                    c = curvature[k, i]
                    total += c * (1.0 - p[k, i]) if p is not None else c
            else:
                for t in range(starts[j], starts[j + 1]):
                    i = indices[t]
                    x = <double>values[t]
                    c = curvature[k, i]
                    total += x * x * (c * (1.0 - p[k, i]) if p is not None else c)
            result[m] = total


def descend(
    const real[::1] values,
    const int32_t[::1] indices,
    const int64_t[::1] starts,
    model,
    const Py_ssize_t[::1] columns,
    const Py_ssize_t[::1] outputs,
    parameters,
    Py_ssize_t[:, ::1] moving,
    double negligible,
    double[::1] decrease,
):
    """Minimise the model plus an L1 norm coordinate by coordinate, between bounds.

    There is one sweep per entry of ``decrease``, which is filled with what each gained, until one gains no
    more than ``negligible``. The first visits all coordinates, the others those that are not 0 after it. A
    sweep ends with common shifts of the coordinates in each row of ``shifts``, which have the same ``l1``:
    what a column has in all outputs of a softmax, whose scores relative to each other do not change.

    Parameters
    ----------
    values, indices, starts : ndarrays
        X in CSC format.
    model : tuple
        ``curvature`` and ``p`` (outputs, rows), or None for separable outputs, ``change`` (outputs, rows) and
        ``mean`` (rows,), or None. See `Rows`. These two change in place. The last are ``shifts``.
    columns, outputs : ndarray of shape (size,)
        What each parameter belongs to; the column after the last feature is the intercept.
    parameters : tuple
        Of shape (size,): ``gradient`` where change is 0, ``start``, ``z``, which changes in place, ``l1``,
        ``second`` derivatives and ``extra``, what is added to those of the rows in them, and the bounds
        ``low`` and ``high``.
    moving : ndarray of shape (2, size)
        Overwritten.
    """
    cdef const double[:, ::1] curvature, p
    cdef double[:, ::1] change
    cdef double[::1] mean, z
    cdef const double[::1] gradient, start, l1, second, extra, low, high
    cdef const Py_ssize_t[:, ::1] shifts
    curvature, p, change, mean, shifts = model
    gradient, start, z, l1, second, extra, low, high = parameters
    cdef Py_ssize_t features = starts.shape[0] - 1, sweep, j, k, m, s, count, moved_count = 0
    cdef int64_t first
    cdef double g, h, t, moved, gain, gained, idle = 0.0, work = 0.0
    cdef Rows rows
    cdef const Py_ssize_t* at
    rows.count = curvature.shape[1]
    rows.p = NULL
    rows.mean = NULL
    with nogil:
        for sweep in range(decrease.shape[0]):
            gained = 0.0
            count = columns.shape[0] if sweep == 0 else moved_count
            moved_count = 0 if sweep == 0 else moved_count
            for s in range(count):
                m = s if sweep == 0 else moving[0, s]
                if sweep > 0 and moving[1, s] > sweep:
                    continue
                j = columns[m]
                k = outputs[m]
                rows.curvature = &curvature[k, 0]
                rows.change = &change[k, 0]
                if p is not None:
                    rows.p = &p[k, 0]
                    rows.mean = &mean[0]
                if j == features:
                    g = dense_slope(rows)
                    work += <double>rows.count
                else:
                    first = starts[j]
                    g = sparse_slope(rows, &values[0] + first, &indices[0] + first, starts[j + 1] - first)
                    work += <double>(starts[j + 1] - first)
                g += gradient[m] + extra[m] * (z[m] - start[m])
                h = second[m]
                t = coordinate_minimum(z[m], g, h, l1[m], low[m], high[m])
                moved = t - z[m]
                gain = 0.0
                if moved != 0.0:
                    gain = -(moved * (g + 0.5 * h * moved) + l1[m] * (fabs(t) - fabs(z[m])))
                    gained += gain
                    z[m] = t
                    if j == features:
                        dense_move(rows, moved)
                    else:
                        sparse_move(
                            rows, &values[0] + first, &indices[0] + first, starts[j + 1] - first, moved
                        )
                if sweep == 0 and (t != 0.0 or moved != 0.0 or l1[m] == 0.0):
                    moving[0, moved_count] = m
                    moving[1, moved_count] = 0
                    moved_count += 1
                elif sweep > 0 and gain < idle:
                    moving[1, s] = sweep + 1 + SKIPPED_SWEEPS
            for s in range(shifts.shape[0]):
                at = &shifts[s, 0]
                g = h = 0.0
                for k in range(shifts.shape[1]):
                    m = at[k]
                    g += gradient[m] + extra[m] * (z[m] - start[m])
                    h += extra[m]
                moved = shift_minimum(&z[0], at, shifts.shape[1], g, h, l1[at[0]], &low[0], &high[0])
                if moved == 0.0:
                    continue
                gained -= moved * (g + 0.5 * h * moved)
                for k in range(shifts.shape[1]):
                    m = at[k]
                    gained -= l1[m] * (fabs(z[m] + moved) - fabs(z[m]))
                    z[m] += moved
            idle = SKIPPED_SHARE * gained / max(moved_count, 1)
            check_signals(&work)
            decrease[sweep] = gained
            if gained <= negligible:
                for j in range(sweep + 1, decrease.shape[0]):
                    decrease[j] = 0.0
                break
