"""The rows' part of a step along a central path: what is neither a product with X nor a system of equations.

A row has the slacks u and v of its two sides, and a dual variable a between two bounds; ``inverse`` (2, n)
has the reciprocals of its distances s = high - a and t = a - low. The names are those of
`sklloss.solvers.interior_point`. All loops run in the order of the rows, so that sums have the same bits for
any number of threads.
"""

from libc.float cimport DBL_MIN
from libc.math cimport fabs


def distances(
    const double[::1] u, const double[::1] v, const double[::1] a, const double[::1] low,
    const double[::1] high, double[:, ::1] inverse,
):
    """Fill ``inverse``, and return the sum of the products u s and v t."""
    cdef Py_ssize_t i
    cdef double s, t, total = 0.0
    with nogil:
        for i in range(u.shape[0]):
            s = high[i] - a[i]
            t = a[i] - low[i]
            s = s if s > DBL_MIN else DBL_MIN
            t = t if t > DBL_MIN else DBL_MIN
            inverse[0, i] = 1.0 / s
            inverse[1, i] = 1.0 / t
            total += u[i] * s + v[i] * t
    return total


def weights(
    const double[::1] u, const double[::1] v, const double[:, ::1] inverse,
    const double[::1] curvature, double[::1] q,
):
    """Fill q, the weights of the rows in the system; ``curvature`` is that of their conjugates."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(u.shape[0]):
            q[i] = 1.0 / (u[i] * inverse[0, i] + v[i] * inverse[1, i] + curvature[i])


def predicted(
    const double[::1] u, const double[::1] v, const double[:, ::1] inverse,
    const double[::1] q, const double[::1] residual, const double[::1] xdw, double[::1] da,
):
    """Fill da, the change of a by a step that aims at products of 0 and changes X w by xdw.

    Returns
    -------
    tuple of two floats
        The reciprocal of the number of such steps that reach the boundary, and the sum of ``(du - dv) da``.
    """
    cdef Py_ssize_t i
    cdef double x, y, far, fastest = 0.0, total = 0.0
    with nogil:
        for i in range(u.shape[0]):
            da[i] = q[i] * (residual[i] - xdw[i])
        for i in range(u.shape[0]):
            x = da[i] * inverse[0, i] - 1.0  # du / u; a moves towards its upper bound by 1 + x
            y = -da[i] * inverse[1, i] - 1.0
            far = fabs(x + 0.5)
            if far > fastest:
                fastest = far
            far = fabs(y + 0.5)
            if far > fastest:
                fastest = far
            total += da[i] * (u[i] * x - v[i] * y)
    return 0.5 + fastest, total


def corrected(
    const double[::1] u, const double[::1] v, const double[:, ::1] inverse,
    const double[::1] q, const double[::1] residual, const double[::1] da, double aim, double[::1] new_u,
    double[::1] new_v, double[::1] right,
):
    """Fill what u and v are where their products are ``aim`` and a stays, and q times what is left of e.

    The products of the changes of the step ``da`` of `predicted` are taken into account.
    """
    cdef Py_ssize_t i
    with nogil:
        for i in range(u.shape[0]):
            new_u[i] = (aim + u[i] * (da[i] * inverse[0, i] - 1.0) * da[i]) * inverse[0, i]
            new_v[i] = (aim + v[i] * (da[i] * inverse[1, i] + 1.0) * da[i]) * inverse[1, i]
            right[i] = q[i] * (residual[i] - new_u[i] + new_v[i])


def changes(
    const double[::1] u, const double[::1] v, const double[:, ::1] inverse,
    const double[::1] q, const double[::1] right, const double[::1] xdw, double[::1] du, double[::1] dv,
    double[::1] da,
):
    """Fill da, and turn du and dv from what `corrected` made into the changes of u and v.

    Returns the reciprocal of the number of such steps that reach the boundary.
    """
    cdef Py_ssize_t i
    cdef double fastest = 0.0, share
    with nogil:
        for i in range(u.shape[0]):
            da[i] = right[i] - q[i] * xdw[i]
            du[i] += u[i] * (inverse[0, i] * da[i] - 1.0)
            dv[i] -= v[i] * (inverse[1, i] * da[i] + 1.0)
        for i in range(u.shape[0]):
            share = -du[i] / u[i]
            if share > fastest:
                fastest = share
            share = -dv[i] / v[i]
            if share > fastest:
                fastest = share
            share = da[i] * inverse[0, i]
            if share > fastest:
                fastest = share
            share = -da[i] * inverse[1, i]
            if share > fastest:
                fastest = share
    return fastest
