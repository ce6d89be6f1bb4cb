# Sums in lanes. Lane j of z, n steps long, is z[j], z[width + j], z[2 * width + j], ...: rows side by side
# (transposed), or every width-th number of one long row.
#
# The compiler vectorises the outer loop, over the lanes, so that the sums of a lane stay in a register. For
# that the inner loop must run at least once (n >= 1) and exit at its end, the outer loop must hold no other
# condition, and no store may alias what is read.

cdef extern from "transpose.h" nogil:
    # to[j * n + i] = origin[i * m + j] for i and j below 4, in registers
    void transpose_float "sklloss_transpose_float"(
        const float* origin, Py_ssize_t m, float* to, Py_ssize_t n) noexcept
    void transpose_double "sklloss_transpose_double"(
        const double* origin, Py_ssize_t m, double* to, Py_ssize_t n) noexcept

cdef extern from *:
    """
    #if defined(__GNUC__) && !defined(__clang__)
    __attribute__((malloc, noipa)) static void* sklloss_apart(void* memory) { return memory; }
    #else
    #define sklloss_apart(memory) (memory)
    #endif
    """
    # The same address; the compiler may assume that no other pointer leads there.
    void* unaliased "sklloss_apart"(void* memory) noexcept nogil


cdef inline void transpose(
    const real* rows, Py_ssize_t n, Py_ssize_t columns, Py_ssize_t step, real* out, Py_ssize_t out_step,
) noexcept nogil:
    """out[k * out_step + r] = rows[r * step + k], in squares of 4; the last ones overlap their neighbours."""
    cdef Py_ssize_t r, k
    if n < 4 or columns < 4:
        for r in range(n):
            for k in range(columns):
                out[k * out_step + r] = rows[r * step + k]
        return
    r = 0
    while True:
        k = 0
        while True:
            if real is float:
                transpose_float(rows + r * step + k, step, out + k * out_step + r, out_step)
            else:
                transpose_double(rows + r * step + k, step, out + k * out_step + r, out_step)
            if k == columns - 4:
                break
            k = min(k + 4, columns - 4)
        if r == n - 4:
            break
        r = min(r + 4, n - 4)


cdef inline void lane_maxima(const real* z, Py_ssize_t n, Py_ssize_t width, real* top) noexcept nogil:
    """The largest number of each lane."""
    cdef real t
    cdef Py_ssize_t j, k
    for j in range(width):
        t = z[j]
        k = 0
        while True:
            t = z[k * width + j] if z[k * width + j] > t else t
            k += 1
            if k == n:
                break
        top[j] = t


cdef inline void lane_costs(
    const real* z, const real* target, Py_ssize_t n, Py_ssize_t width, const real* top,
    real* cost, real* error,
) noexcept nogil:
    """Sum of target * (top - z) in each lane, as cost + error; a target of 0 costs nothing, even at -inf."""
    cdef real d, total, low
    cdef Py_ssize_t j, k
    for j in range(width):
        total = 0.0
        low = 0.0
        k = 0
        while True:
            d = top[j] - z[k * width + j] if z[k * width + j] != top[j] else <real>0.0
            d = d if target[k * width + j] != <real>0.0 else <real>0.0
            compensated_add(target[k * width + j] * d, &total, &low)
            k += 1
            if k == n:
                break
        cost[j] = total
        error[j] = low


cdef inline void lane_exps(real* z, Py_ssize_t n, Py_ssize_t width, const real* top) noexcept nogil:
    """z becomes exp(z - top).

    Two loops, and a third for the sums: in one, a number is a longer chain of operations than the processor
    can overlap.
    """
    cdef real scale[ROWS]
    cdef real d
    cdef Py_ssize_t j, k
    for k in range(n):
        for j in range(width):
            d = z[k * width + j] - top[j] if z[k * width + j] != top[j] else <real>0.0
            z[k * width + j] = exp_split(d, &scale[j])
        for j in range(width):
            z[k * width + j] = exp_join(z[k * width + j], scale[j])


cdef void lane_exps_and_rest(
    real* z, Py_ssize_t n, Py_ssize_t width, const real* top, real* rest
) noexcept nogil:
    """The same to 0.8 ULP, with the sum over each lane of what the numbers lack. Not inline: it is rare."""
    cdef real d, lo
    cdef Py_ssize_t j, k
    for j in range(width):
        rest[j] = 0.0
    for k in range(n):
        for j in range(width):
            d = z[k * width + j] - top[j] if z[k * width + j] != top[j] else <real>0.0
            exp_nonpositive(d, &z[k * width + j], &lo)
            rest[j] = rest[j] + lo


cdef inline void lane_sums(
    const real* z, Py_ssize_t n, Py_ssize_t width, real* rest, real* error
) noexcept nogil:
    """The sum of each lane of lane_exps as rest + error, exact to a rounding of 1 in twice the digits."""
    cdef real total, lost
    cdef double sum
    cdef Py_ssize_t j, k
    for j in range(width):
        # no number is larger than 1, from which the sum therefore starts
        total = 1.0
        lost = 0.0
        sum = 0.0
        k = 0
        while True:
            if real is double:
                compensated_add(z[k * width + j], &total, &lost)
            else:
                sum = sum + <double>z[k * width + j]
            k += 1
            if k == n:
                break
        if real is double:
            rest[j] = total - 1.0
            error[j] = lost
        else:
            rest[j] = <float>sum
            error[j] = <float>(sum - <double>rest[j])


cdef inline void small_sums(
    const real* z, Py_ssize_t n, Py_ssize_t width, real* rest, real* error, real* ties
) noexcept nogil:
    """In each lane of lane_exps, ties counts the numbers that are 1; rest + error sums up the others.

    However small these are, their sum has its relative accuracy.
    """
    cdef real x, total, sum, lo, lost, ones
    cdef Py_ssize_t j, k
    for j in range(width):
        total = 0.0
        lost = 0.0
        ones = 0.0
        k = 0
        while True:
            x = z[k * width + j]
            ones = ones + (<real>0.0 if x != <real>1.0 else <real>1.0)
            two_sum(total, x if x != <real>1.0 else <real>0.0, &sum, &lo)
            total = sum
            lost = lost + lo
            k += 1
            if k == n:
                break
        rest[j] = total
        error[j] = lost
        ties[j] = ones


cdef inline void join_lanes(real* total, real* error) noexcept nogil:
    """Add the LANES sums, by halves, into the first."""
    cdef real x, lo
    cdef Py_ssize_t j, half = LANES // 2
    while half > 0:
        for j in range(half):
            two_sum(total[j], total[half + j], &x, &lo)
            total[j] = x
            error[j] = error[j] + (error[half + j] + lo)
        half = half // 2


cdef inline double lane_sum(const real* value, Py_ssize_t n) noexcept nogil:
    """Sum in double: SUMS running sums, added by halves; fewer than SUMS numbers are added one by one."""
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
