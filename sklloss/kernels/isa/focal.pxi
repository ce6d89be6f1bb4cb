# Focal losses: of independent sigmoids, and of a softmax.

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


cdef inline void add_block(const double* x, Py_ssize_t n, double* total, double* error) noexcept nogil:
    """Add up to SMALL numbers to total + error."""
    cdef double part[LANES]
    cdef double lost[LANES]
    cdef double t, t_lo, u, lo
    cdef Py_ssize_t j, k
    if n == SMALL:
        for j in range(LANES):
            t = 0.0
            t_lo = 0.0
            k = 0
            while True:
                two_sum(t, x[k + j], &u, &lo)
                t = u
                t_lo = t_lo + lo
                k += LANES
                if k == SMALL:
                    break
            part[j] = t
            lost[j] = t_lo
        join_lanes(part, lost)
        two_sum(total[0], part[0], &u, &lo)
        total[0] = u
        error[0] = error[0] + (lo + lost[0])
        return
    for k in range(n):
        two_sum(total[0], x[k], &u, &lo)
        total[0] = u
        error[0] = error[0] + lo


cdef inline void chance(
    double e, double low, double rest, double rest_lo, double inverse, double inverse_lo,
    double* p, double* p_lo, double* other, double* other_lo,
) noexcept nogil:
    """p = (e + low) / (1 + rest) and 1 - p, in two parts. Only the largest class, alone, has p beyond 1/2."""
    cdef double q, q_lo
    two_product(e, inverse, &q, &q_lo)
    q_lo = q_lo + (low * inverse + e * inverse_lo)
    p[0] = q + q_lo
    p_lo[0] = (q - p[0]) + q_lo
    two_product(rest, inverse, &q, &q_lo)
    q_lo = q_lo + (rest_lo * inverse + rest * inverse_lo)
    other[0] = q if p[0] > 0.5 else 1.0 - p[0]
    other_lo[0] = q_lo if p[0] > 0.5 else ((1.0 - other[0]) - p[0]) - p_lo[0]


cdef inline void softmax_focal_shares(real* raw, Batch* batch) noexcept nogil:
    """Probability rows, row by row and in double.

    A row costs sum_k y_k (1 - p_k)**g l_k, with l = -log p. With
    h_k = y_k (1 - p_k)**g (1 + g p_k l_k / (1 - p_k)) the gradient is p_j sum_k h_k - h_j =
    p_j (sum of all h but h_j) - h_j (1 - p_j).
    """
    cdef double top[LANES]
    cdef double rests[LANES]
    cdef double errors[LANES]
    cdef double ties[LANES]
    cdef double lows[SMALL]      # of exp(z - m), where there is no room to keep them: for float
    cdef double power[SMALL]
    cdef double power_lo[SMALL]
    cdef double other[SMALL]
    cdef double other_lo[SMALL]
    cdef double part[SMALL]
    cdef double cost[SMALL]
    cdef real value[ROWS]
    cdef const real* y
    cdef const real* weights = <const real*>batch.weight
    cdef real* per_sample = <real*>batch.per_sample
    # room for outputs + 32 numbers in double; those of float may begin between two of them
    cdef double* e = <double*>apart(<void*>((<size_t>batch.scratch + 7) & ~<size_t>7))
    cdef double* low
    cdef real* z
    cdef Py_ssize_t K = batch.outputs
    cdef double g = batch.parameter
    cdef int _factor
    cdef int whole = <int>min(g, 16.0)
    cdef double left = g - <double>whole
    cdef double x, far, m, p, p_lo, o, o_lo, rest, rest_lo, tied, d, d_lo, inverse, inverse_lo, log_d
    cdef double total, lost, sum, sum_lo
    cdef real loss, weight
    cdef Py_ssize_t i, j, k, n, first, width, filled = 0
    for i in range(batch.rows):
        z = raw + i * K
        y = <const real*>batch.target + i * K
        m = <double>z[0]
        for k in range(1, K):
            m = <double>z[k] if <double>z[k] > m else m
        for j in range(LANES):
            top[j] = m
        rest = 0.0
        rest_lo = 0.0
        tied = 0.0
        first = 0
        while first < K:
            n = min(K - first, <Py_ssize_t>SMALL)
            width = LANES if n == SMALL else 1
            if real is float:
                low = lows
            else:
                low = e + K + first
            for k in range(n):
                e[first + k] = <double>z[first + k]
            lane_exps(e + first, low, n // width, width, top, rests, errors, ties)
            for j in range(width):
                two_sum(rest, rests[j], &sum, &sum_lo)
                rest = sum
                rest_lo = rest_lo + (errors[j] + sum_lo)
                tied = tied + ties[j]
            first += n
        two_sum(rest, tied - 1.0, &sum, &sum_lo)
        two_sum(sum, rest_lo + sum_lo, &rest, &rest_lo)
        two_sum(1.0, rest, &d, &d_lo)
        d_lo = d_lo + rest_lo
        reciprocal(d, d_lo, &inverse, &inverse_lo)
        log_d = log_sum(d, d_lo, inverse)
        total = 0.0
        lost = 0.0
        sum = 0.0
        sum_lo = 0.0
        first = 0
        while first < K:
            n = min(K - first, <Py_ssize_t>SMALL)
            if real is float:
                for k in range(n):
                    lows[k] = 0.0
                low = lows
            else:
                low = e + K + first
            for k in range(n):
                chance(
                    e[first + k], low[k], rest, rest_lo, inverse, inverse_lo,
                    &p, &p_lo, &other[k], &other_lo[k],
                )
                power[k] = 1.0
                power_lo[k] = 0.0
            if left > 0.0:
                for k in range(n):
                    focal_power(other[k], other_lo[k], left, &power[k], &power_lo[k])
            for _factor in range(whole):
                for k in range(n):
                    times(&power[k], &power_lo[k], other[k], other_lo[k])
            for k in range(n):
                x = m - <double>z[first + k] if <double>z[first + k] != m else 0.0
                # No share costs nothing, even at -inf.
                far = log_d + x if y[first + k] != <real>0.0 else 0.0
                cost[k] = <double>y[first + k] * (power[k] * far)
                # What nothing is left for has l / (1 - p) = 1; at l = inf p is 0, and so is p l.
                x = far if far - far == 0.0 else 0.0
                o = other[k] if other[k] > 0.0 else 1.0
                x = x if other[k] > 0.0 else 1.0
                p = e[first + k] * inverse
                part[k] = <double>y[first + k] * (power[k] + (power_lo[k] + g * p * (x / o) * power[k]))
            for k in range(n):
                # Rounded before it is summed: the sum of a single part must be that part.
                z[first + k] = <real>part[k]
                part[k] = <double>z[first + k]
            add_block(part, n, &total, &lost)
            add_block(cost, n, &sum, &sum_lo)
            first += n
        loss = <real>(sum + (sum_lo if sum - sum == 0.0 else 0.0))
        weight = weights[i] if weights != NULL else <real>1.0
        first = 0
        while first < K:
            n = min(K - first, <Py_ssize_t>SMALL)
            if real is float:
                for k in range(n):
                    lows[k] = 0.0
                low = lows
            else:
                low = e + K + first
            for k in range(n):
                chance(e[first + k], low[k], rest, rest_lo, inverse, inverse_lo, &p, &p_lo, &o, &o_lo)
                x = <double>z[first + k]
                d = (total - x) + lost
                z[first + k] = <real>((p * d - x * o) + (p_lo * d - x * o_lo))
            first += n
        if per_sample != NULL:
            per_sample[i] = loss
        if weights != NULL:
            loss = loss * weight if weight != <real>0.0 else <real>0.0
            for k in range(K):
                z[k] = z[k] * weight if weight != <real>0.0 else <real>0.0
        value[filled] = loss
        filled += 1
        if filled == ROWS:
            add_to(batch.sums, batch.sums + batch.outputs, lane_sum(value, filled))
            filled = 0
    if filled > 0:
        add_to(batch.sums, batch.sums + batch.outputs, lane_sum(value, filled))


cdef inline Py_ssize_t softmax_focal_rows(real* raw, Batch* batch) noexcept nogil:
    """Focal loss of a softmax. codes, or target: probability rows; parameter: gamma.

    With codes c it is -(1 - p_c)**gamma log p_c, a cross-entropy times a power; see focus. curvature is not
    written.

    Error on top of the rounding of z - m, gamma up to 3, of the larger term for probabilities. double: loss
    2.6 ULP (codes, gamma = 3, K = 2), gradient 3.8 (probabilities, gamma = 2.5, K = 2). float: 2.4 and 2.6
    for codes, 0.5 and 1.5 for probabilities, which are computed in double. At gamma = 5 with codes 4.1 and
    4.0.
    """
    cdef Py_ssize_t bad = bad_code(batch)
    if bad >= 0:
        return bad
    clear_sums(batch)
    if batch.target != NULL:
        softmax_focal_shares(raw, batch)
    elif batch.outputs <= FEW:
        softmax_few(raw, batch, True)
    else:
        softmax_many(raw, batch, True)
    return -1
