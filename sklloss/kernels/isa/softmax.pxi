# Softmax cross-entropy: the outputs of a row together.
#
# With m = max(z) and S = sum of exp(z - m) over all but one maximum:
#     log sum exp(z) - z_c = log1p(S) + (m - z_c),   p_k = exp(z_k - m) / (1 + S),
#     p_c - 1 = -(1 + S - exp(z_c - m)) / (1 + S), which is -S / (1 + S) where c is the maximum.
# S leaves the maximum out, so a confident row keeps the relative accuracy of its small loss. S is summed
# with compensation and every exp carried as hi + lo, so no bound below grows with K before K = 1e5.
# An infinite maximum counts as equal to itself: the row's other probabilities are 0.
#
# Error, on top of the rounding of z - m, over K from 2 to 100 000: loss 1.8 ULP (K = 33, probabilities;
# codes: 1.1), gradient 1.4 ULP of itself for a code (K = 100, baseline) and 1.8 ULP of the larger of p and y
# for probabilities. No growth with K was met: the terms of S keep their low parts, in double and in float.

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


cdef inline real normalise(
    real rest, real error, real ties, real cost, real* own, real* own_low, real* inverse, real* inverse_low,
) noexcept nogil:
    """The loss of a row, log(1 + S) + cost, and 1 / (1 + S) as inverse + inverse_low.

    S is rest + error + ties - 1. On entry own + own_low is exp(z - m) of the row's code, on return the sum of
    that over all other classes: S where the code is a maximum (cost 0).
    """
    cdef real s, s_lo, d, d_lo, x, lo
    two_sum(rest, ties - <real>1.0, &s, &s_lo)
    s_lo = s_lo + error
    two_sum(<real>1.0, s, &d, &d_lo)
    d_lo = d_lo + s_lo
    reciprocal(d, d_lo, inverse, inverse_low)
    two_sum(d, -own[0], &x, &lo)
    own[0] = s if cost == <real>0.0 else x
    own_low[0] = s_lo if cost == <real>0.0 else lo + (d_lo - own_low[0])
    return log_sum(d, d_lo, inverse[0]) + cost


cdef inline void focus(
    double gamma, real e, real* own, real* own_low, real* inverse, real* inverse_low, real* value,
) noexcept nogil:
    """Make of a row's cross-entropy l = -log p_c its focal loss (1 - p_c)**gamma l.

    The gradient changes by a factor that all its entries share, (1 - p_c)**gamma times
    1 + gamma p_c l / (1 - p_c): inverse is multiplied by it. e is exp(z - m) of the code, own + own_low the
    sum of that over all other classes.
    """
    cdef double power, power_lo, f, p, hi, lo, other, other_lo
    cdef double cost = <double>value[0]
    hi = <double>inverse[0]
    lo = <double>inverse_low[0]
    two_product(<double>own[0], hi, &p, &other_lo)
    other_lo = other_lo + (<double>own_low[0] * hi + <double>own[0] * lo)
    other = p + other_lo
    other_lo = (p - other) + other_lo
    focal_power(other, other_lo, gamma, &power, &power_lo)
    p = <double>e * hi
    # What nothing is left for, l or 1 - p_c, has no quotient; its limit is 1. No p_c, no slope, even of inf.
    f = gamma * p * (cost / other) if other > 0.0 and cost - cost == 0.0 else gamma * p
    value[0] = <real>(power * cost + (power_lo * cost if cost - cost == 0.0 else 0.0))
    times(&power, &power_lo, 1.0 + f, ((1.0 - (1.0 + f)) + f) if f < 1.0 else ((f - (1.0 + f)) + 1.0))
    times(&hi, &lo, power, power_lo)
    inverse[0] = <real>hi
    inverse_low[0] = <real>((hi - <double>inverse[0]) + lo)


cdef inline void softmax_few(real* raw, Batch* batch, bint focal) noexcept nogil:
    """Up to FEW classes: ROWS rows side by side, so that every step is a vector. focal is a constant."""
    cdef real score[FEW * ROWS]    # z, then the high part of exp(z - m), then p, then the gradient
    cdef real low[FEW * ROWS]      # its low part
    cdef real share[FEW * ROWS]    # the target probabilities, where the target is not a plain code
    cdef real top[ROWS]
    cdef real rest[ROWS]
    cdef real error[ROWS]
    cdef real ties[ROWS]
    cdef real cost[ROWS]
    cdef real own[ROWS]
    cdef real own_low[ROWS]
    cdef real before[ROWS]
    cdef real inverse[ROWS]
    cdef real inverse_low[ROWS]
    cdef real weight[ROWS]
    cdef real value[ROWS]
    cdef const real* y = <const real*>batch.target
    cdef const real* weights = <const real*>batch.weight
    cdef real* curvature = NULL if focal else <real*>batch.curvature
    cdef real* per_sample = <real*>batch.per_sample
    cdef Py_ssize_t K = batch.outputs
    cdef double smoothing = 0.0 if focal else batch.parameter
    cdef bint plain = y == NULL and smoothing == 0.0
    cdef real keep = <real>(1.0 - smoothing)
    cdef real spread = <real>(smoothing / <double>K)
    cdef real x, lo
    cdef const Py_ssize_t* code
    cdef Py_ssize_t first, n, r, k
    for r in range(ROWS):
        cost[r] = 0.0
        own[r] = 1.0
        own_low[r] = 0.0
        weight[r] = 0.0
    first = 0
    while first < batch.rows:
        n = min(<Py_ssize_t>ROWS, batch.rows - first)
        code = batch.codes + first if y == NULL else NULL
        if n < ROWS:
            for k in range(K * ROWS):
                score[k] = 0.0
                share[k] = 0.0
        transpose(raw + first * K, n, K, K, score, ROWS)
        lane_tops(score, K, ROWS, top)
        if plain:
            for r in range(n):
                x = score[code[r] * ROWS + r]
                cost[r] = top[r] - x if x != top[r] else <real>0.0
        else:
            if y != NULL:
                transpose(y + first * K, n, K, K, share, ROWS)
                for k in range(K * ROWS):
                    share[k] = share[k] * keep + spread
            else:
                for k in range(K * ROWS):
                    share[k] = spread
                for r in range(n):
                    share[code[r] * ROWS + r] = keep + spread
            lane_costs(score, share, K, ROWS, top, cost, error)
            for r in range(ROWS):
                cost[r] = cost[r] + (error[r] if cost[r] - cost[r] == <real>0.0 else <real>0.0)
        lane_exps(score, low, K, ROWS, top, rest, error, ties)
        if plain:
            for r in range(n):
                own[r] = score[code[r] * ROWS + r]
                own_low[r] = low[code[r] * ROWS + r]
        if focal:
            for r in range(ROWS):
                before[r] = own[r]
        for r in range(ROWS):
            value[r] = normalise(
                rest[r], error[r], ties[r], cost[r], &own[r], &own_low[r], &inverse[r], &inverse_low[r]
            )
        if focal:
            for r in range(ROWS):
                focus(
                    batch.parameter, before[r], &own[r], &own_low[r], &inverse[r], &inverse_low[r], &value[r]
                )
        if curvature != NULL or plain:
            for k in range(K):
                for r in range(ROWS):
                    x = score[k * ROWS + r]
                    lo = low[k * ROWS + r] * inverse[r] + x * inverse_low[r]
                    score[k * ROWS + r] = x * inverse[r] + lo
            if curvature != NULL:
                transpose(score, K, n, ROWS, curvature + first * K, K)
            if plain:
                for r in range(n):
                    x = own[r] * inverse[r] + (own_low[r] * inverse[r] + own[r] * inverse_low[r])
                    score[code[r] * ROWS + r] = -x
            else:
                for k in range(K * ROWS):
                    score[k] = score[k] - share[k]
        else:
            for k in range(K):
                for r in range(ROWS):
                    x = score[k * ROWS + r]
                    lo = low[k * ROWS + r] * inverse[r] + x * inverse_low[r]
                    score[k * ROWS + r] = x * inverse[r] + (lo - share[k * ROWS + r])
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


cdef inline void softmax_many(real* raw, Batch* batch, bint focal) noexcept nogil:
    """More than FEW classes: LANES neighbours of a row side by side, what is left over in a padded piece.

    focal is a constant.
    """
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
    cdef real* curvature = NULL if focal else <real*>batch.curvature
    cdef real* per_sample = <real*>batch.per_sample
    cdef real* low = <real*>apart(batch.scratch)
    cdef real* share = low + batch.outputs
    cdef real* z
    cdef Py_ssize_t K = batch.outputs
    cdef Py_ssize_t steps = K // LANES
    cdef Py_ssize_t whole = steps * LANES
    cdef double smoothing = 0.0 if focal else batch.parameter
    cdef bint plain = y == NULL and smoothing == 0.0
    cdef real keep = <real>(1.0 - smoothing)
    cdef real spread = <real>(smoothing / <double>K)
    cdef real m, x, own, own_low, before, loss, weight, inverse, inverse_low
    cdef Py_ssize_t i, j, k, code = 0, filled = 0
    for i in range(batch.rows):
        z = raw + i * K
        lane_tops(z, steps, LANES, top)
        m = top[0]
        for j in range(1, LANES):
            m = top[j] if top[j] > m else m
        for k in range(whole, K):
            m = z[k] if z[k] > m else m
        for j in range(LANES):
            top[j] = m
            last[j] = z[whole + j] if j < K - whole else m
        own = 1.0
        own_low = 0.0
        if y == NULL:
            code = batch.codes[i]
        if plain:
            x = m - z[code] if z[code] != m else <real>0.0
        else:
            if y != NULL:
                for k in range(K):
                    share[k] = y[i * K + k] * keep + spread
            else:
                for k in range(K):
                    share[k] = spread
                share[code] = keep + spread
            lane_costs(z, share, steps, LANES, top, cost, error)
            for k in range(whole, K):
                x = m - z[k] if z[k] != m and share[k] != <real>0.0 else <real>0.0
                compensated_add(share[k] * x, &cost[k - whole], &error[k - whole])
            join_lanes(cost, error)
            x = cost[0] + (error[0] if cost[0] - cost[0] == <real>0.0 else <real>0.0)
        lane_exps(z, low, steps, LANES, top, rest, error, ties)
        lane_exps(last, last_low, 1, LANES, top, last_rest, last_error, last_ties)
        for j in range(K - whole):
            z[whole + j] = last[j]
            low[whole + j] = last_low[j]
            compensated_add(last_rest[j], &rest[j], &error[j])
            error[j] = error[j] + last_error[j]
            ties[j] = ties[j] + last_ties[j]
        join_lanes(rest, error)
        for j in range(1, LANES):
            ties[0] = ties[0] + ties[j]
        if plain:
            own = z[code]
            own_low = low[code]
        before = own
        loss = normalise(rest[0], error[0], ties[0], x, &own, &own_low, &inverse, &inverse_low)
        if focal:
            focus(batch.parameter, before, &own, &own_low, &inverse, &inverse_low, &loss)
        if curvature != NULL or plain:
            for k in range(K):
                z[k] = z[k] * inverse + (low[k] * inverse + z[k] * inverse_low)
            if curvature != NULL:
                memcpy(curvature + i * K, z, K * sizeof(real))
            if plain:
                z[code] = -(own * inverse + (own_low * inverse + own * inverse_low))
            else:
                for k in range(K):
                    z[k] = z[k] - share[k]
        else:
            for k in range(K):
                z[k] = z[k] * inverse + ((low[k] * inverse + z[k] * inverse_low) - share[k])
        if per_sample != NULL:
            per_sample[i] = loss
        if weights != NULL:
            weight = weights[i]
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


cdef inline Py_ssize_t cross_entropy_rows(real* raw, Batch* batch) noexcept nogil:
    """Cross-entropy of a softmax. codes, or target: probability rows; parameter: label smoothing.

    curvature: the probabilities p, unweighted; a row's Hessian is weight * (diag(p) - p p').
    """
    cdef Py_ssize_t bad = bad_code(batch)
    if bad >= 0:
        return bad
    clear_sums(batch)
    if batch.outputs <= FEW:
        softmax_few(raw, batch, False)
    else:
        softmax_many(raw, batch, False)
    return -1
