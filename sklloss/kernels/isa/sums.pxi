# Sums in double, in an order that depends on the shape alone.

cdef inline double lane_sum(const real* value, Py_ssize_t n) noexcept nogil:
    """Sum in double: SUMS running sums, then their sum by halves; below SUMS numbers, one after the other."""
    cdef double part[SUMS]
    cdef double total = 0.0
    cdef Py_ssize_t whole = n - n % SUMS
    cdef Py_ssize_t i, j, half
    for i in range(whole, n):
        total = total + <double>value[i]
    if whole == 0:
        return total
    for j in range(SUMS):
        part[j] = 0.0
        i = 0
        while True:
            part[j] = part[j] + <double>value[i + j]
            i += SUMS
            if i == whole:
                break
    half = SUMS // 2
    while half > 0:
        for j in range(half):
            part[j] = part[j] + part[half + j]
        half = half // 2
    return part[0] + total


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
