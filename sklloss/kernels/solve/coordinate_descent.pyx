"""Coordinate descent on a quadratic plus an L1 norm, the quadratic's matrix at hand."""

from libc.math cimport fabs


def descend(
    const double[:, ::1] matrix,
    double[::1] gradient,
    double[::1] z,
    const double[::1] l1,
    const double[::1] low,
    const double[::1] high,
    double[::1] decrease,
):
    """Minimise coordinate by coordinate, from ``low`` to ``high``: a sweep for each place of ``decrease``.

    ``matrix`` is symmetric, both triangles filled; ``gradient`` is the quadratic's at z. Both are kept up
    with each other, and ``decrease`` says what each sweep gained. A coordinate costs nothing unless it moves.
    """
    cdef Py_ssize_t size = matrix.shape[0], sweep, i, j
    cdef double h, u, t, g, moved, gained
    cdef const double* row
    with nogil:
        for sweep in range(decrease.shape[0]):
            gained = 0.0
            for j in range(size):
                h = matrix[j, j]
                g = gradient[j]
                if h > 0.0:
                    u = z[j] * h - g
                    t = fabs(u) - l1[j]
                    if t <= 0.0:
                        t = 0.0
                    elif u < 0.0:
                        t = -t
                    t = t / h
                else:
                    # the quadratic does not know this coordinate
                    t = 0.0 if l1[j] > 0.0 and fabs(g) <= l1[j] else z[j]
                t = min(max(t, low[j]), high[j])
                moved = t - z[j]
                if moved == 0.0:
                    continue
                gained -= moved * (g + 0.5 * h * moved) + l1[j] * (fabs(t) - fabs(z[j]))
                z[j] = t
                row = &matrix[j, 0]
                for i in range(size):
                    gradient[i] += moved * row[i]
            decrease[sweep] = gained
            if gained <= 0.0:
                for j in range(sweep + 1, decrease.shape[0]):
                    decrease[j] = 0.0
                break
