# Losses of a softmax: the outputs of a row together. The loops compute the cross-entropy; for another loss, a
# function of it, they call its formulas in formulas_softmax.pxd.
#
# With m = max(z) and S = sum of exp(z - m) over all but one maximum:
#     log sum exp(z) - z_c = log1p(S) + (m - z_c),   p_k = exp(z_k - m) / (1 + S),
#     p_c - 1 = -(1 + S - exp(z_c - m)) / (1 + S), which is -S / (1 + S) where c is the maximum.
# S leaves the maximum out, so a confident row keeps the relative accuracy of its small loss. S is summed
# with compensation and every exp carried as hi + lo, so no bound below grows with K before K = 1e5.
# An infinite maximum counts as equal to itself: the row's other probabilities are 0.
#
# Error of the cross-entropy, on top of the rounding of z - m, over K from 2 to 100 000: loss 1.8 ULP (K = 33,
# probabilities; codes: 1.7), gradient 1.6 ULP of itself for a code (K = 100, baseline) and 1.8 ULP of the
# larger of p and y for probabilities. It does not grow with K: the terms of S keep their low parts, in double
# and in float.

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


cdef inline void normalise(
    real* rest, real* error, real ties, real cost, real e, real e_low,
    real* others, real* others_low, real* inverse, real* inverse_low,
) noexcept nogil:
    """1 / (1 + S) as inverse + inverse_low; rest + error becomes 1 + S.

    S is rest + error + ties - 1, and e + e_low is exp(z - m) of the row's code. others + others_low becomes
    the sum of that over all other classes: S where the code is a maximum (cost 0).
    """
    cdef real s, s_lo, d, d_lo, x, lo
    two_sum(rest[0], ties - <real>1.0, &s, &s_lo)
    s_lo = s_lo + error[0]
    two_sum(<real>1.0, s, &d, &d_lo)
    d_lo = d_lo + s_lo
    reciprocal(d, d_lo, inverse, inverse_low)
    two_sum(d, -e, &x, &lo)
    others[0] = s if cost == <real>0.0 else x
    others_low[0] = s_lo if cost == <real>0.0 else lo + (d_lo - e_low)
    rest[0] = d
    error[0] = d_lo


cdef inline void softmax_few(SoftmaxLoss loss, real* raw, Batch* batch) noexcept nogil:
    """Up to FEW classes: ROWS rows side by side, so that every step is a vector."""
    cdef real score[FEW * ROWS]    # z, then the high part of exp(z - m), then p, then the gradient
    cdef real low[FEW * ROWS]      # its low part
    cdef real target[FEW * ROWS]    # the target probabilities, where the target is no hard label
    cdef real top[ROWS]
    cdef real rest[ROWS]
    cdef real error[ROWS]
    cdef real ties[ROWS]
    cdef real cost[ROWS]
    cdef real e[ROWS]              # exp(z - m) of the code
    cdef real e_low[ROWS]
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
    cdef real x, lo
    cdef const Py_ssize_t* code
    cdef Py_ssize_t first, n, r, k
    for r in range(ROWS):
        cost[r] = 0.0
        e[r] = 1.0
        e_low[r] = 0.0
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
                x = score[code[r] * ROWS + r]
                cost[r] = top[r] - x if x != top[r] else <real>0.0
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
                cost[r] = cost[r] + (error[r] if cost[r] - cost[r] == <real>0.0 else <real>0.0)
        lane_exps(score, low, K, ROWS, top)
        lane_sums(score, low, K, ROWS, rest, error, ties)
        if hard:
            for r in range(n):
                e[r] = score[code[r] * ROWS + r]
                e_low[r] = low[code[r] * ROWS + r]
        for r in range(ROWS):
            normalise(
                &rest[r], &error[r], ties[r], cost[r], e[r], e_low[r],
                &others[r], &others_low[r], &inverse[r], &inverse_low[r],
            )
        for r in range(ROWS):
            value[r] = log_sum(rest[r], error[r], inverse[r]) + cost[r]
        if loss != CROSS_ENTROPY:
            loss_of_codes(
                loss, batch.parameter, ROWS, cost, e, others, others_low, inverse, inverse_low, value
            )
        if curvature != NULL or hard:
            for k in range(K):
                for r in range(ROWS):
                    x = score[k * ROWS + r]
                    lo = low[k * ROWS + r] * inverse[r] + x * inverse_low[r]
                    score[k * ROWS + r] = x * inverse[r] + lo
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
                    x = score[k * ROWS + r]
                    lo = low[k * ROWS + r] * inverse[r] + x * inverse_low[r]
                    score[k * ROWS + r] = x * inverse[r] + (lo - target[k * ROWS + r])
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


cdef inline void softmax_many(SoftmaxLoss loss, real* raw, Batch* batch) noexcept nogil:
    """More than FEW classes: LANES neighbours of a row side by side, the remainder in a padded piece."""
    cdef real top[LANES]
    cdef real rest[LANES]
    cdef real error[LANES]
    cdef real ties[LANES]
    cdef real cost[LANES]
    cdef real last[LANES]
    cdef real last_low[LANES]
    cdef real last_rest[LANES]
    cdef real last_error[LANES]
    cdef real last_ties[LANES]
    cdef real value[ROWS]
    cdef const real* y = <const real*>batch.target
    cdef const real* weights = <const real*>batch.weight
    cdef real* curvature = <real*>batch.curvature if loss == CROSS_ENTROPY else NULL
    cdef real* per_sample = <real*>batch.per_sample
    cdef real* low = <real*>unaliased(batch.scratch)
    cdef real* target = low + batch.outputs
    cdef real* z
    cdef Py_ssize_t K = batch.outputs
    cdef Py_ssize_t steps = K // LANES
    cdef Py_ssize_t whole = steps * LANES
    cdef double smoothing = batch.parameter if loss == CROSS_ENTROPY else 0.0
    cdef bint hard = y == NULL and smoothing == 0.0
    cdef real keep = <real>(1.0 - smoothing)
    cdef real spread = <real>(smoothing / <double>K)
    cdef real m, x, e, e_low, others, others_low, cost_of_row, weight, inverse, inverse_low
    cdef Py_ssize_t i, j, k, code = 0, filled = 0
    for i in range(batch.rows):
        z = raw + i * K
        lane_maxima(z, steps, LANES, top)
        m = top[0]
        for j in range(1, LANES):
            m = top[j] if top[j] > m else m
        for k in range(whole, K):
            m = z[k] if z[k] > m else m
        for j in range(LANES):
            top[j] = m
            last[j] = z[whole + j] if j < K - whole else m
        e = 1.0
        e_low = 0.0
        if y == NULL:
            code = batch.codes[i]
        if hard:
            x = m - z[code] if z[code] != m else <real>0.0
        else:
            if y != NULL:
                for k in range(K):
                    target[k] = y[i * K + k] * keep + spread
            else:
                for k in range(K):
                    target[k] = spread
                target[code] = keep + spread
            lane_costs(z, target, steps, LANES, top, cost, error)
            for k in range(whole, K):
                x = m - z[k] if z[k] != m and target[k] != <real>0.0 else <real>0.0
                compensated_add(target[k] * x, &cost[k - whole], &error[k - whole])
            join_lanes(cost, error)
            x = cost[0] + (error[0] if cost[0] - cost[0] == <real>0.0 else <real>0.0)
        lane_exps(z, low, steps, LANES, top)
        lane_sums(z, low, steps, LANES, rest, error, ties)
        lane_exps(last, last_low, 1, LANES, top)
        lane_sums(last, last_low, 1, LANES, last_rest, last_error, last_ties)
        for j in range(K - whole):
            z[whole + j] = last[j]
            low[whole + j] = last_low[j]
            compensated_add(last_rest[j], &rest[j], &error[j])
            error[j] = error[j] + last_error[j]
            ties[j] = ties[j] + last_ties[j]
        join_lanes(rest, error)
        for j in range(1, LANES):
            ties[0] = ties[0] + ties[j]
        if hard:
            e = z[code]
            e_low = low[code]
        normalise(
            &rest[0], &error[0], ties[0], x, e, e_low, &others, &others_low, &inverse, &inverse_low
        )
        cost_of_row = log_sum(rest[0], error[0], inverse) + x
        if loss != CROSS_ENTROPY:
            loss_of_codes(
                loss, batch.parameter, 1, &x, &e, &others, &others_low, &inverse, &inverse_low, &cost_of_row
            )
        if curvature != NULL or hard:
            for k in range(K):
                z[k] = z[k] * inverse + (low[k] * inverse + z[k] * inverse_low)
            if curvature != NULL:
                memcpy(curvature + i * K, z, K * sizeof(real))
            if hard:
                z[code] = -(others * inverse + (others_low * inverse + others * inverse_low))
            else:
                for k in range(K):
                    z[k] = z[k] - target[k]
        else:
            for k in range(K):
                z[k] = z[k] * inverse + ((low[k] * inverse + z[k] * inverse_low) - target[k])
        if per_sample != NULL:
            per_sample[i] = cost_of_row
        if weights != NULL:
            weight = weights[i]
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
    cdef double top[LANES]
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
            lane_exps(e + first, low, n // width, width, top)
            lane_sums(e + first, low, n // width, width, rests, errors, ties)
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
