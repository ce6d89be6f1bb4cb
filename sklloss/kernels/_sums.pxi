# Sums in double, in an order that depends on the shape alone.

cdef inline double lane_sum(const real* value, Py_ssize_t n) noexcept nogil:
    """Sum in double, by halves."""
    cdef double part[TILE]
    cdef Py_ssize_t i
    cdef Py_ssize_t half = (n + 1) // 2
    if n == 0:
        return 0.0
    part[half - 1] = <double>value[half - 1]
    for i in range(n - half):
        part[i] = <double>value[i] + <double>value[half + i]
    n = half
    while n > 1:
        half = (n + 1) // 2
        for i in range(n - half):
            part[i] += part[half + i]
        n = half
    return part[0]


cdef inline void add_to(double* total, double* carry, double x) noexcept nogil:
    """Add x to total, with the rounding carried along (Kahan)."""
    cdef double y = x - carry[0]
    cdef double t = total[0] + y
    # An infinite loss stays infinite: its carry would be inf - inf.
    carry[0] = (t - total[0]) - y if t - t == 0.0 else 0.0
    total[0] = t


cdef inline void clear_sums(Batch* batch) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(2 * batch.outputs):
        batch.sums[i] = 0.0
