# Losses of a softmax: the outputs of a row together. The loops compute the cross-entropy; for another loss, a
# function of it, they call its formulas in formulas_softmax.pxd.
#
# With m = max(z) and S = sum of exp(z - m) over all but one maximum:
#     log sum exp(z) - z_c = log1p(S) + (m - z_c),   p_k = exp(z_k - m) / (1 + S),
#     p_c - 1 = -(1 + S - exp(z_c - m)) / (1 + S), which is -S / (1 + S) where c is the maximum.
# S leaves the maximum out, so a confident row keeps the relative accuracy of its small loss. S is summed
# with compensation, so no bound below grows with K before K = 1e5.
# An infinite maximum counts as equal to itself: the row's other probabilities are 0.
#
# Error of the cross-entropy, on top of the rounding of z - m, over K from 2 to 100 000: loss 1.9 ULP (float,
# K = 5, probabilities, baseline; codes: 1.7), gradient 1.7 ULP of itself for a code (double, K = 31) and 1.9
# of the larger of p and y for probabilities (double, K = 65, baseline). It does not grow with K.

cdef inline Py_ssize_t bad_code(const Batch* batch) noexcept nogil:
    """The first row whose code is not in [0, outputs), or -1."""
    cdef Py_ssize_t i
    cdef size_t worst = 0
    if batch.target != NULL:
        return -1
    for i in range(batch.rows):
        if <size_t>batch.codes[i] > worst:
            worst = <size_t>batch.codes[i]
    if worst < <size_t>batch.outputs:
        return -1
    for i in range(batch.rows):
        if <size_t>batch.codes[i] >= <size_t>batch.outputs:
            return i
    return -1


cdef inline double small_sum(Py_ssize_t K, bint single) noexcept nogil:
    """Below this, an S of lane_sums lacks relative accuracy."""
    return 3.814697265625e-06 if single else 3.552713678800501e-15 * <double>K * <double>K


cdef inline bint any_below(const real* x, Py_ssize_t n, real limit) noexcept nogil:
    """Whether one of n numbers is below the limit, by the sign bit of a difference."""
    cdef Py_ssize_t i
    cdef int64_t below = 0
    cdef int32_t below32 = 0
    if real is double:
        for i in range(n):
            below = below | double_bits(x[i] - limit)
        return below < 0
    else:
        for i in range(n):
            below32 = below32 | float_bits(x[i] - limit)
        return below32 < 0


cdef inline void normalise(
    real s, real s_lo, real cost, real e, real* d, real* d_lo,
    real* others, real* others_low, real* inverse, real* inverse_low,
) noexcept nogil:
    """1 + S as d + d_lo, and 1 / (1 + S) as inverse + inverse_low.

    S is s + s_lo, and e is exp(z - m) of the row's code. others + others_low becomes the sum of that over all
    other classes: S where the code is a maximum (cost 0).
    """
    cdef real x, lo
    two_sum(<real>1.0, s, &x, &lo)
    lo = lo + s_lo
    d[0] = x
    d_lo[0] = lo
    reciprocal(x, lo, inverse, inverse_low)
    two_sum(d[0], -e, &x, &lo)
    others[0] = s if cost == <real>0.0 else x
    others_low[0] = s_lo if cost == <real>0.0 else lo + d_lo[0]


cdef inline real finite_sum(real total, real error) noexcept nogil:
    """total + error, which is NaN where the total is infinite."""
    return total + (error if total - total == <real>0.0 else <real>0.0)


cdef inline void softmax_few(SoftmaxLoss loss, real* raw, Batch* batch) noexcept nogil:
    """Up to FEW classes: ROWS rows side by side, so that every step is a vector."""
    cdef real score[FEW * ROWS]    # z, then exp(z - m), then p, then the gradient
    cdef real target[FEW * ROWS]    # the target probabilities, where the target is no hard label
    cdef real top[ROWS]
    cdef real rest[ROWS]
    cdef real error[ROWS]
    cdef real ties[ROWS]
    cdef real s[ROWS]              # S and its smaller part, then 1 + S
    cdef real s_low[ROWS]
    cdef real lacking[ROWS]        # what exp(z - m) of a loss other than the cross-entropy lacks, summed up
    cdef real cost[ROWS]
    cdef real e[ROWS]              # exp(z - m) of the code
    cdef real others[ROWS]         # the sum of that over all other classes
    cdef real others_low[ROWS]
    cdef real inverse[ROWS]
    cdef real inverse_low[ROWS]
    cdef real weight[ROWS]
    cdef real value[ROWS]
    cdef const real* y = <const real*>batch.target
    cdef const real* weights = <const real*>batch.weight
    cdef real* curvature = <real*>batch.curvature if loss == CROSS_ENTROPY else NULL
    cdef real* per_sample = <real*>batch.per_sample
    cdef Py_ssize_t K = batch.outputs
    cdef double smoothing = batch.parameter if loss == CROSS_ENTROPY else 0.0
    cdef bint hard = y == NULL and smoothing == 0.0
    cdef real keep = <real>(1.0 - smoothing)
    cdef real spread = <real>(smoothing / <double>K)
    cdef real small = <real>small_sum(K, real is float)
    cdef real x, lo
    cdef const Py_ssize_t* code
    cdef Py_ssize_t first, n, r, k
    for r in range(ROWS):
        cost[r] = 0.0
        e[r] = 1.0
        weight[r] = 0.0
    first = 0
    while first < batch.rows:
        n = min(<Py_ssize_t>ROWS, batch.rows - first)
        code = batch.codes + first if y == NULL else NULL
        if n < ROWS:
            for k in range(K * ROWS):
                score[k] = 0.0
                target[k] = 0.0
        transpose(raw + first * K, n, K, K, score, ROWS)
        lane_maxima(score, K, ROWS, top)
        if hard:
            for r in range(n):
                cost[r] = score[code[r] * ROWS + r]
            # by itself, as a vector: a branch could not be predicted
            for r in range(ROWS):
                cost[r] = top[r] - cost[r] if cost[r] != top[r] else <real>0.0
        else:
            if y != NULL:
                transpose(y + first * K, n, K, K, target, ROWS)
                for k in range(K * ROWS):
                    target[k] = target[k] * keep + spread
            else:
                for k in range(K * ROWS):
                    target[k] = spread
                for r in range(n):
                    target[code[r] * ROWS + r] = keep + spread
            lane_costs(score, target, K, ROWS, top, cost, error)
            for r in range(ROWS):
                cost[r] = finite_sum(cost[r], error[r])
        if loss == CROSS_ENTROPY:
            lane_exps(score, K, ROWS, top)
        else:
            lane_exps_and_rest(score, K, ROWS, top, lacking)
        lane_sums(score, K, ROWS, rest, error)
        for r in range(ROWS):
            two_sum(rest[r] - <real>1.0, error[r], &s[r], &s_low[r])
        if any_below(s, ROWS, small):
            small_sums(score, K, ROWS, rest, error, ties)
            for r in range(ROWS):
                two_sum(rest[r], ties[r] - <real>1.0, &x, &lo)
                lo = lo + error[r]
                s_low[r] = lo if s[r] < small else s_low[r]
                s[r] = x if s[r] < small else s[r]
        if loss != CROSS_ENTROPY:
            for r in range(ROWS):
                s_low[r] = s_low[r] + lacking[r]
        if hard:
            for r in range(n):
                e[r] = score[code[r] * ROWS + r]
        for r in range(ROWS):
            normalise(
                s[r], s_low[r], cost[r], e[r], &s[r], &s_low[r],
                &others[r], &others_low[r], &inverse[r], &inverse_low[r],
            )
        for r in range(ROWS):
            value[r] = log_sum(s[r], s_low[r], inverse[r]) + cost[r]
        if loss != CROSS_ENTROPY:
            loss_of_codes(
                loss, batch.parameter, ROWS, cost, e, others, others_low, inverse, inverse_low, value
            )
        if curvature != NULL or hard:
            for k in range(K):
                for r in range(ROWS):
                    score[k * ROWS + r] = times_sum(score[k * ROWS + r], inverse[r], inverse_low[r])
            if curvature != NULL:
                transpose(score, K, n, ROWS, curvature + first * K, K)
            if hard:
                for r in range(n):
                    x = others[r] * inverse[r] + (others_low[r] * inverse[r] + others[r] * inverse_low[r])
                    score[code[r] * ROWS + r] = -x
            else:
                for k in range(K * ROWS):
                    score[k] = score[k] - target[k]
        else:
            for k in range(K):
                for r in range(ROWS):
                    score[k * ROWS + r] = times_sum_less(
                        score[k * ROWS + r], inverse[r], inverse_low[r], target[k * ROWS + r]
                    )
        if per_sample != NULL:
            for r in range(n):
                per_sample[first + r] = value[r]
        if weights != NULL:
            for r in range(n):
                weight[r] = weights[first + r]
            for r in range(ROWS):
                value[r] = value[r] * weight[r] if weight[r] != <real>0.0 else <real>0.0
            for k in range(K):
                for r in range(ROWS):
                    x = score[k * ROWS + r]
                    score[k * ROWS + r] = x * weight[r] if weight[r] != <real>0.0 else <real>0.0
        transpose(score, K, n, ROWS, raw + first * K, K)
        add_to(batch.sums, batch.sums + batch.outputs, lane_sum(value, n))
        first += ROWS


cdef void small_row_sum(const real* e, Py_ssize_t K, real* s, real* s_low) noexcept nogil:
    """S of one row as s + s_low, from exp(z - m)."""
    cdef real rest[LANES]
    cdef real error[LANES]
    cdef real ties[LANES]
    cdef real x, lo
    cdef Py_ssize_t whole = K // LANES * LANES
    cdef Py_ssize_t j, k
    small_sums(e, K // LANES, LANES, rest, error, ties)
    join_lanes(rest, error)
    for j in range(1, LANES):
        ties[0] = ties[0] + ties[j]
    for k in range(whole, K):
        if e[k] == <real>1.0:
            ties[0] = ties[0] + <real>1.0
        else:
            two_sum(rest[0], e[k], &x, &lo)
            rest[0] = x
            error[0] = error[0] + lo
    two_sum(rest[0], ties[0] - <real>1.0, s, &lo)
    s_low[0] = lo + error[0]


cdef inline void softmax_many(SoftmaxLoss loss, real* raw, Batch* batch) noexcept nogil:
    """More than FEW classes: LANES neighbours of a row side by side, the remainder in a padded piece.

    What is done once for a row is done for several, side by side, that stay in the cache until then.
    """
    cdef real top[LANES]
    cdef real rest[LANES]
    cdef real error[LANES]
    cdef real last[LANES]
    cdef real lacking[LANES]
    cdef real last_lacking[LANES]
    cdef real s[ROWS]
    cdef real s_low[ROWS]
    cdef real cost[ROWS]
    cdef real e[ROWS]
    cdef real others[ROWS]
    cdef real others_low[ROWS]
    cdef real inverse[ROWS]
    cdef real inverse_low[ROWS]
    cdef real value[ROWS]
    cdef const real* y = <const real*>batch.target
    cdef const real* weights = <const real*>batch.weight
    cdef real* curvature = <real*>batch.curvature if loss == CROSS_ENTROPY else NULL
    cdef real* per_sample = <real*>batch.per_sample
    cdef real* target = <real*>unaliased(batch.scratch)
    cdef real* z
    cdef Py_ssize_t K = batch.outputs
    cdef Py_ssize_t steps = K // LANES
    cdef Py_ssize_t whole = steps * LANES
    cdef double smoothing = batch.parameter if loss == CROSS_ENTROPY else 0.0
    cdef bint hard = y == NULL and smoothing == 0.0
    cdef real keep = <real>(1.0 - smoothing)
    cdef real spread = <real>(smoothing / <double>K)
    cdef real small = <real>small_sum(K, real is float)
    cdef real m, x, lo, weight
    cdef Py_ssize_t first, n, r, i, j, k
    cdef Py_ssize_t most = max(<Py_ssize_t>1, min(<Py_ssize_t>ROWS, MANY // K))
    for r in range(ROWS):
        cost[r] = 0.0
        e[r] = 1.0
    first = 0
    while first < batch.rows:
        n = min(most, batch.rows - first)
        for r in range(n):
            i = first + r
            z = raw + i * K
            lane_maxima(z, steps, LANES, top)
            m = top[0]
            for j in range(1, LANES):
                m = top[j] if top[j] > m else m
            for k in range(whole, K):
                m = z[k] if z[k] > m else m
            for j in range(LANES):
                top[j] = m
            if hard:
                x = z[batch.codes[i]]
                cost[r] = m - x if x != m else <real>0.0
            else:
                set_target(target, y + i * K if y != NULL else NULL, batch.codes, i, K, keep, spread)
                lane_costs(z, target, steps, LANES, top, rest, error)
                for k in range(whole, K):
                    x = m - z[k] if z[k] != m and target[k] != <real>0.0 else <real>0.0
                    compensated_add(target[k] * x, &rest[k - whole], &error[k - whole])
                join_lanes(rest, error)
                cost[r] = finite_sum(rest[0], error[0])
            if loss == CROSS_ENTROPY:
                lane_exps(z, steps, LANES, top)
            else:
                lane_exps_and_rest(z, steps, LANES, top, lacking)
            lane_sums(z, steps, LANES, rest, error)
            if whole < K:
                for j in range(LANES):
                    last[j] = z[whole + j] if j < K - whole else m
                if loss == CROSS_ENTROPY:
                    lane_exps(last, 1, LANES, top)
                else:
                    lane_exps_and_rest(last, 1, LANES, top, last_lacking)
                    for j in range(K - whole):
                        lacking[j] = lacking[j] + last_lacking[j]
                for j in range(K - whole):
                    z[whole + j] = last[j]
                for j in range(LANES):
                    two_sum(rest[j], last[j] if j < K - whole else <real>0.0, &x, &lo)
                    rest[j] = x
                    error[j] = error[j] + lo
            join_lanes(rest, error)
            two_sum(rest[0] - <real>1.0, error[0], &s[r], &s_low[r])
            if s[r] < small:
                small_row_sum(z, K, &s[r], &s_low[r])
            if loss != CROSS_ENTROPY:
                for j in range(LANES):
                    s_low[r] = s_low[r] + lacking[j]
            if hard:
                e[r] = z[batch.codes[i]]
        for r in range(n):
            normalise(
                s[r], s_low[r], cost[r], e[r], &s[r], &s_low[r],
                &others[r], &others_low[r], &inverse[r], &inverse_low[r],
            )
        for r in range(n):
            value[r] = log_sum(s[r], s_low[r], inverse[r]) + cost[r]
        if loss != CROSS_ENTROPY:
            loss_of_codes(
                loss, batch.parameter, n, cost, e, others, others_low, inverse, inverse_low, value
            )
        for r in range(n):
            i = first + r
            z = raw + i * K
            if curvature != NULL or hard:
                for k in range(K):
                    z[k] = times_sum(z[k], inverse[r], inverse_low[r])
                if curvature != NULL:
                    memcpy(curvature + i * K, z, K * sizeof(real))
            if hard:
                x = others[r] * inverse[r] + (others_low[r] * inverse[r] + others[r] * inverse_low[r])
                z[batch.codes[i]] = -x
            else:
                set_target(target, y + i * K if y != NULL else NULL, batch.codes, i, K, keep, spread)
                if curvature != NULL:
                    for k in range(K):
                        z[k] = z[k] - target[k]
                else:
                    for k in range(K):
                        z[k] = times_sum_less(z[k], inverse[r], inverse_low[r], target[k])
            if weights != NULL:
                weight = weights[i]
                for k in range(K):
                    z[k] = z[k] * weight if weight != <real>0.0 else <real>0.0
        if per_sample != NULL:
            for r in range(n):
                per_sample[first + r] = value[r]
        if weights != NULL:
            for r in range(n):
                weight = weights[first + r]
                value[r] = value[r] * weight if weight != <real>0.0 else <real>0.0
        add_to(batch.sums, batch.sums + batch.outputs, lane_sum(value, n))
        first += n


cdef inline void set_target(
    real* target, const real* y, const Py_ssize_t* codes, Py_ssize_t row, Py_ssize_t K, real keep,
    real spread,
) noexcept nogil:
    """The smoothed target probabilities of a row: of its probabilities y or, if that is NULL, of its code."""
    cdef Py_ssize_t k
    if y != NULL:
        for k in range(K):
            target[k] = y[k] * keep + spread
    else:
        for k in range(K):
            target[k] = spread
        target[codes[row]] = keep + spread


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


cdef inline void probability_parts(
    double e, double low, double rest, double rest_lo, double inverse, double inverse_lo,
    double* p, double* p_lo, double* other, double* other_lo,
) noexcept nogil:
    """p = (e + low) / (1 + rest) and 1 - p, in two parts. Only a single largest class has p above 1/2."""
    cdef double q, q_lo
    two_product(e, inverse, &q, &q_lo)
    q_lo = q_lo + (low * inverse + e * inverse_lo)
    p[0] = q + q_lo
    p_lo[0] = (q - p[0]) + q_lo
    two_product(rest, inverse, &q, &q_lo)
    q_lo = q_lo + (rest_lo * inverse + rest * inverse_lo)
    other[0] = q if p[0] > 0.5 else 1.0 - p[0]
    other_lo[0] = q_lo if p[0] > 0.5 else ((1.0 - other[0]) - p[0]) - p_lo[0]


cdef inline void softmax_terms(SoftmaxLoss loss, real* raw, Batch* batch) noexcept nogil:
    """Probability rows of a loss other than the cross-entropy, row by row and in double.

    A row costs sum_k y_k f(l_k), with l = -log p. With h_k = y_k f'(l_k) the gradient is p_j sum_k h_k - h_j,
    which is p_j (sum of all h but h_j) - h_j (1 - p_j).
    """
    cdef double rests[LANES]
    cdef double errors[LANES]
    cdef double ties[LANES]
    cdef double lows[SMALL]      # of exp(z - m), which the buffer has no space for in float
    cdef double below_max[SMALL]    # m - z
    cdef double other[SMALL]
    cdef double other_lo[SMALL]
    cdef double part[SMALL]
    cdef double cost[SMALL]
    cdef real value[ROWS]
    cdef const real* y
    cdef const real* weights = <const real*>batch.weight
    cdef real* per_sample = <real*>batch.per_sample
    # A buffer for outputs + 32 numbers in double; that of float may begin between two of them.
    cdef double* e = <double*>unaliased(<void*>((<size_t>batch.scratch + 7) & ~<size_t>7))
    cdef double* low
    cdef real* z
    cdef Py_ssize_t K = batch.outputs
    cdef SoftmaxRow row
    cdef double x, m, p, p_lo, o, o_lo, rest, rest_lo, tied, d, d_lo
    cdef double total, lost, sum, sum_lo
    cdef real cost_of_row, weight
    cdef Py_ssize_t i, j, k, n, first, width, filled = 0
    for i in range(batch.rows):
        z = raw + i * K
        y = <const real*>batch.target + i * K
        m = <double>z[0]
        for k in range(1, K):
            m = <double>z[k] if <double>z[k] > m else m
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
                x = <double>z[first + k] - m if <double>z[first + k] != m else 0.0
                exp_nonpositive(x, &e[first + k], &low[k])
            small_sums(e + first, n // width, width, rests, errors, ties)
            for k in range(n):
                rest_lo = rest_lo + low[k]
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
        reciprocal(d, d_lo, &row.inverse, &row.inverse_low)
        row.log_total = log_sum(d, d_lo, row.inverse)
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
                probability_parts(
                    e[first + k], low[k], rest, rest_lo, row.inverse, row.inverse_low,
                    &p, &p_lo, &other[k], &other_lo[k],
                )
                x = m - <double>z[first + k] if <double>z[first + k] != m else 0.0
                # A class of probability 0 costs nothing, even at -inf.
                below_max[k] = x if y[first + k] != <real>0.0 else 0.0
            loss_of_terms(loss, batch.parameter, &row, n, below_max, e + first, other, other_lo, cost, part)
            for k in range(n):
                cost[k] = <double>y[first + k] * cost[k]
                # Rounded before it is summed: the sum of a single part must be that part.
                z[first + k] = <real>(<double>y[first + k] * part[k])
                part[k] = <double>z[first + k]
            add_block(part, n, &total, &lost)
            add_block(cost, n, &sum, &sum_lo)
            first += n
        cost_of_row = <real>(sum + (sum_lo if sum - sum == 0.0 else 0.0))
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
                probability_parts(
                    e[first + k], low[k], rest, rest_lo, row.inverse, row.inverse_low, &p, &p_lo, &o, &o_lo
                )
                x = <double>z[first + k]
                d = (total - x) + lost
                z[first + k] = <real>((p * d - x * o) + (p_lo * d - x * o_lo))
            first += n
        if per_sample != NULL:
            per_sample[i] = cost_of_row
        if weights != NULL:
            cost_of_row = cost_of_row * weight if weight != <real>0.0 else <real>0.0
            for k in range(K):
                z[k] = z[k] * weight if weight != <real>0.0 else <real>0.0
        value[filled] = cost_of_row
        filled += 1
        if filled == ROWS:
            add_to(batch.sums, batch.sums + batch.outputs, lane_sum(value, filled))
            filled = 0
    if filled > 0:
        add_to(batch.sums, batch.sums + batch.outputs, lane_sum(value, filled))


cdef inline Py_ssize_t softmax_rows(SoftmaxLoss loss, real* raw, Batch* batch) noexcept nogil:
    """A loss of a softmax. codes, or target: probability rows; parameter: label smoothing, or the loss's own.

    curvature: of the cross-entropy the probabilities p, unweighted; a row's Hessian is weight * (diag(p) -
    p p'). Other losses do not write it.
    """
    cdef Py_ssize_t bad = bad_code(batch)
    if bad >= 0:
        return bad
    clear_sums(batch)
    if loss != CROSS_ENTROPY and batch.target != NULL:
        softmax_terms(loss, raw, batch)
    elif batch.outputs <= FEW:
        softmax_few(loss, raw, batch)
    else:
        softmax_many(loss, raw, batch)
    return -1
