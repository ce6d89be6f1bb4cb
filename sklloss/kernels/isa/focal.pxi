# The focal loss of independent sigmoids.

cdef void focal_block(
    double g, double* z, const double* y, Py_ssize_t n, double* value, double* bend,
) noexcept nogil:
    """Focal loss, derivative (in z) and second derivative (in bend) of up to SMALL elements."""
    cdef double l[SMALL]
    cdef double l_lo[SMALL]
    cdef double s[SMALL]
    cdef double s_lo[SMALL]
    cdef double right[SMALL]
    cdef double right_lo[SMALL]
    cdef double wrong[SMALL]
    cdef double wrong_lo[SMALL]
    cdef double a, big, low
    cdef Py_ssize_t i, _factor
    # A power is a whole number, up to 16, of multiplications, and an exponential for what is left over.
    cdef Py_ssize_t whole = <Py_ssize_t>min(g, 16.0)
    cdef double left = g - <double>whole
    for i in range(n):
        exp_parts(-abs(z[i]), &right[i], &wrong[i])
    for i in range(n):
        log1p_parts(right[i], wrong[i], &l[i], &l_lo[i], &s[i], &s_lo[i])
    if left > 0.0:
        for i in range(n):
            a = abs(z[i])
            a = 1000.0 if a > 1000.0 else a
            two_sum(a, l[i], &big, &low)
            power_parts(big, low + l_lo[i], left, &right[i], &right_lo[i])
        for i in range(n):
            power_parts(l[i], l_lo[i], left, &wrong[i], &wrong_lo[i])
    else:
        for i in range(n):
            right[i] = 1.0
            right_lo[i] = 0.0
            wrong[i] = 1.0
            wrong_lo[i] = 0.0
    for _factor in range(whole):
        for i in range(n):
            times(&right[i], &right_lo[i], s[i], s_lo[i])
        for i in range(n):
            big = 1.0 - s[i]
            times(&wrong[i], &wrong_lo[i], big, ((1.0 - big) - s[i]) - s_lo[i])
    for i in range(n):
        value[i] = focal(
            &z[i], y[i], g, l[i], l_lo[i], s[i], s_lo[i],
            right[i], right_lo[i], wrong[i], wrong_lo[i], &bend[i],
        )


cdef inline void focal_tile(
    double g, real* z, const real* y, Py_ssize_t n, real* value, real* bend,
) noexcept nogil:
    """focal_block by block, in double whatever the dtype."""
    cdef double wide_z[SMALL]
    cdef double wide_y[SMALL]
    cdef double wide_value[SMALL]
    cdef double wide_bend[SMALL]
    cdef Py_ssize_t i, m, first = 0
    while first < n:
        m = min(n - first, <Py_ssize_t>SMALL)
        if real is double:
            focal_block(g, z + first, y + first, m, value + first, bend + first)
        else:
            for i in range(m):
                wide_z[i] = z[first + i]
                wide_y[i] = y[first + i]
            focal_block(g, wide_z, wide_y, m, wide_value, wide_bend)
            for i in range(m):
                z[first + i] = <float>wide_z[i]
                value[first + i] = <float>wide_value[i]
                bend[first + i] = <float>wide_bend[i]
        first += m
