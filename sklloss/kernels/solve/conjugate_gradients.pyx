"""What conjugate gradients do between two products, for several systems side by side: steps, block solves."""

import numpy as np

from libc.math cimport sqrt
from libc.string cimport memset
from scipy.linalg.cython_blas cimport daxpy, ddot, dscal
from scipy.linalg.cython_lapack cimport dpotrs


def advance(
    const double[:, ::1] p,
    const double[:, ::1] product,
    double[:, ::1] d,
    double[:, ::1] residual,
    const double[::1] rz,
    double[::1] decrease,
    unsigned char[::1] running,
):
    """Go along each direction p to the minimum, given its product with the matrix.

    ``d`` and ``residual`` change; ``decrease`` is by how much the step lowers the quadratic. A system that
    does not bend along its direction stops running. ``rz`` is the residual times its preconditioned self.
    """
    cdef Py_ssize_t b
    cdef int size = <int>p.shape[1], one = 1
    cdef double bend, length, back
    with nogil:
        for b in range(p.shape[0]):
            decrease[b] = 0.0
            if not running[b]:
                continue
            bend = ddot(&size, <double*>&p[b, 0], &one, <double*>&product[b, 0], &one)
            if not bend > 0.0:
                running[b] = False
                continue
            length = rz[b] / bend
            back = -length
            daxpy(&size, &length, <double*>&p[b, 0], &one, &d[b, 0], &one)
            daxpy(&size, &back, <double*>&product[b, 0], &one, &residual[b, 0], &one)
            decrease[b] = 0.5 * length * rz[b]


def turn(
    double[:, ::1] p,
    const double[:, ::1] z,
    const double[:, ::1] residual,
    double[::1] rz,
    const double[::1] first,
    const double[::1] decrease,
    double[::1] lowered,
    const double[::1] size,
    const double[::1] gap,
    unsigned char[::1] running,
    unsigned char[::1] reached,
    unsigned char[::1] before,
    Py_ssize_t products,
    double loosest,
    double closest,
    double floor,
):
    """End the systems that are solved well enough and give the others their next direction, from z.

    The rule is `_ends`. Returns whether a system still runs.
    """
    cdef Py_ssize_t b
    cdef int width = <int>p.shape[1], one = 1
    cdef double newer, ratio, scale = 1.0
    cdef bint some = False
    with nogil:
        for b in range(p.shape[0]):
            if running[b]:
                newer = ddot(&width, <double*>&residual[b, 0], &one, <double*>&z[b, 0], &one)
                running[b] = not _ends(
                    newer, first[b], decrease[b], &lowered[b], size[b], gap[b], &reached[b], &before[b],
                    products, loosest, closest, floor,
                )
            if not running[b]:
                memset(&p[b, 0], 0, width * sizeof(double))
                continue
            some = True
            ratio = newer / rz[b]
            rz[b] = newer
            dscal(&width, &ratio, &p[b, 0], &one)
            daxpy(&width, &scale, <double*>&z[b, 0], &one, &p[b, 0], &one)
    return some


def settle(
    const double[::1] bend,
    const double[::1] newer,
    double[::1] rz,
    const double[::1] first,
    double[::1] decrease,
    double[::1] lowered,
    const double[::1] size,
    const double[::1] gap,
    unsigned char[::1] running,
    unsigned char[::1] reached,
    unsigned char[::1] before,
    Py_ssize_t products,
    double loosest,
    double closest,
    double floor,
):
    """What `advance` and `turn` decide, for systems whose vectors live elsewhere.

    ``bend`` is each direction times its product with the matrix, ``newer`` the residual after the step
    times its preconditioned self. Returns whether a system still runs.
    """
    cdef Py_ssize_t b
    cdef bint some = False
    with nogil:
        for b in range(bend.shape[0]):
            decrease[b] = 0.0
            if not running[b]:
                continue
            if not bend[b] > 0.0:
                running[b] = False
                continue
            decrease[b] = 0.5 * (rz[b] / bend[b]) * rz[b]
            running[b] = not _ends(
                newer[b], first[b], decrease[b], &lowered[b], size[b], gap[b], &reached[b], &before[b],
                products, loosest, closest, floor,
            )
            if running[b]:
                some = True
                rz[b] = newer[b]
    return some


cdef inline bint _ends(
    double newer,
    double first,
    double decrease,
    double* lowered,
    double size,
    double gap,
    unsigned char* reached,
    unsigned char* before,
    Py_ssize_t products,
    double loosest,
    double closest,
    double floor,
) noexcept nogil:
    """Whether a system ends; ``reached`` whether it is solved well enough.

    Each product lowers the quadratic. What is left is taken for as many times the last decrease as there
    were products (Nash and Sofer): a measure that, unlike the residual, does not depend on how good the
    preconditioner is. It may be ``loosest`` of what has been lowered, the closer to the end the less: the
    fourth root of the gap relative to ``size``. And ``closest`` of the allowed ``gap`` is never too much.
    One small decrease may be an accident of the spectrum; two in a row are taken for the end. So is a
    residual of mere rounding, ``floor`` times the ``first``: to go on would follow it along directions that
    do not matter.
    """
    cdef double left, share
    cdef bint small
    lowered[0] += decrease
    left = products * decrease
    share = min(loosest, sqrt(sqrt(min(lowered[0], size) / size)))
    small = left <= share * lowered[0] or left <= closest * gap
    if (small and before[0]) or newer <= floor * first:
        reached[0] = True
    before[0] = small
    return reached[0] or not newer > 0.0


def solve_blocks(const double[:, :, ::1] factors, const double[:, ::1] units, const double[:, ::1] x):
    """Solve with a matrix for each row of x: ``units[k] U' U units[k]``, U triangular in LAPACK's order."""
    cdef Py_ssize_t k, j
    cdef int n = <int>units.shape[1], one = 1, failed = 0
    solution = np.empty((units.shape[0], units.shape[1]))
    cdef double[:, ::1] d = solution
    with nogil:
        for k in range(units.shape[0]):
            for j in range(n):
                d[k, j] = x[k, j] / units[k, j]
            dpotrs(b"U", &n, &one, <double*>&factors[k, 0, 0], &n, &d[k, 0], &n, &failed)
            for j in range(n):
                d[k, j] /= units[k, j]
    return solution
