# Softmax cross-entropy: the outputs of a row together.
#
# With m = max(z) and S = sum of exp(z - m) over all but one maximum:
#     log sum exp(z) - z_c = log1p(S) + (m - z_c),   p_k = exp(z_k - m) / (1 + S),
#     p_c - 1 = -(1 + S - exp(z_c - m)) / (1 + S), which is -S / (1 + S) where c is the maximum.
# S leaves the maximum out, so a confident row keeps the relative accuracy of its small loss. S is summed
# with compensation and every exp carried as hi + lo, so no bound below grows with K before K = 1e5.
# An infinite maximum counts as equal to itself: the row's other probabilities are 0.
#
# Error, on top of the rounding of z - m, over K from 2 to 100 000: loss 1.8 ULP (K = 33), gradient 2.0 ULP
# of itself for a code (K = 100, baseline) and 1.8 ULP of the larger of p and y for probabilities. No
# growth with K was met: in double the terms of S keep their low parts, and in float too.

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


cdef inline void level_infinite(real* score, real* top, Py_ssize_t K) noexcept nogil:
    """Rows whose maximum is infinite: what equals it becomes 0, all else -inf, the maximum 0."""
    cdef Py_ssize_t r, k
    for r in range(ROWS):
        if top[r] - top[r] != 0.0 and top[r] == top[r]:
            for k in range(K):
                if score[k * ROWS + r] == top[r]:
                    score[k * ROWS + r] = 0.0
                elif score[k * ROWS + r] == score[k * ROWS + r]:
                    score[k * ROWS + r] = -INFINITY
            top[r] = 0.0


cdef inline void softmax_few(real* raw, Batch* batch) noexcept nogil:
    """Up to FEW classes: ROWS rows side by side, so that every step is a vector over rows."""
    cdef real score[FEW * ROWS]    # z, then the high part of exp(z - m), then the gradient
    cdef real low[FEW * ROWS]      # its low part
    cdef real share[FEW * ROWS]    # the target probabilities, where the target is not a plain code
    cdef real top[ROWS]
    cdef real total[ROWS]
    cdef real carry[ROWS]
    cdef real ties[ROWS]
    cdef real cost[ROWS]
    cdef real own[ROWS]
    cdef real own_low[ROWS]
    cdef real inverse[ROWS]
    cdef real inverse_low[ROWS]
    cdef real value[ROWS]
    cdef const real* y = <const real*>batch.target
    cdef const real* weight = <const real*>batch.weight
    cdef real* curvature = <real*>batch.curvature
    cdef real* per_sample = <real*>batch.per_sample
    cdef Py_ssize_t K = batch.outputs
    cdef bint plain = y == NULL and batch.parameter == 0.0
    cdef real keep = <real>(1.0 - batch.parameter)
    cdef real spread = <real>(batch.parameter / <double>K)
    cdef real x, lo, d, d_lo, s, s_lo
    cdef Py_ssize_t first, n, r, k, infinite
    for k in range(K * ROWS):
        score[k] = 0.0
        share[k] = 0.0
    for r in range(ROWS):
        cost[r] = 0.0
        own[r] = 0.0
        own_low[r] = 0.0
    first = 0
    while first < batch.rows:
        n = min(<Py_ssize_t>ROWS, batch.rows - first)
        for r in range(n):
            for k in range(K):
                score[k * ROWS + r] = raw[(first + r) * K + k]
        infinite = 0
        for r in range(ROWS):
            top[r] = score[r]
            total[r] = 0.0
            carry[r] = 0.0
            ties[r] = -1.0
        for k in range(1, K):
            for r in range(ROWS):
                top[r] = score[k * ROWS + r] if score[k * ROWS + r] > top[r] else top[r]
        for r in range(ROWS):
            infinite += 1 if top[r] - top[r] != 0.0 else 0
        if infinite > 0:
            level_infinite(score, top, K)
        if plain:
            for r in range(n):
                cost[r] = top[r] - score[batch.codes[first + r] * ROWS + r]
        else:
            if y != NULL:
                for r in range(n):
                    for k in range(K):
                        share[k * ROWS + r] = y[(first + r) * K + k] * keep + spread
            else:
                for r in range(n):
                    for k in range(K):
                        share[k * ROWS + r] = spread
                    share[batch.codes[first + r] * ROWS + r] += keep
            for k in range(K):
                for r in range(ROWS):
                    d = (top[r] - score[k * ROWS + r]) * share[k * ROWS + r]
                    d = d if share[k * ROWS + r] != <real>0.0 else <real>0.0
                    compensated_add_any(d, &total[r], &carry[r])
            for r in range(ROWS):
                cost[r] = total[r] - carry[r]
                total[r] = 0.0
                carry[r] = 0.0
        for k in range(K):
            for r in range(ROWS):
                d = score[k * ROWS + r] - top[r]
                exp_nonpositive(d, &x, &lo)
                score[k * ROWS + r] = x
                low[k * ROWS + r] = lo
                ties[r] += <real>1.0 if d == <real>0.0 else <real>0.0
                x = <real>0.0 if d == <real>0.0 else x
                compensated_add(x, lo, &total[r], &carry[r])
        if plain:
            for r in range(n):
                own[r] = score[batch.codes[first + r] * ROWS + r]
                own_low[r] = low[batch.codes[first + r] * ROWS + r]
        for r in range(ROWS):
            two_sum(total[r], ties[r], &s, &s_lo)
            s_lo = s_lo - carry[r]
            value[r] = log1p_positive(s, s_lo) + cost[r]
            two_sum(<real>1.0, s, &d, &d_lo)
            d_lo = d_lo + s_lo
            reciprocal(d, d_lo, &inverse[r], &inverse_low[r])
            # the gradient at the code: minus the probability of all other classes
            x = s if cost[r] == <real>0.0 else d - own[r]
            lo = s_lo if cost[r] == <real>0.0 else d_lo - own_low[r]
            own[r] = -(x * inverse[r] + (lo * inverse[r] + x * inverse_low[r]))
        for k in range(K):
            for r in range(ROWS):
                x = score[k * ROWS + r]
                score[k * ROWS + r] = x * inverse[r] + (low[k * ROWS + r] * inverse[r] + x * inverse_low[r])
        if curvature != NULL:
            for r in range(n):
                for k in range(K):
                    curvature[(first + r) * K + k] = score[k * ROWS + r]
        if plain:
            for r in range(n):
                score[batch.codes[first + r] * ROWS + r] = own[r]
        else:
            for k in range(K * ROWS):
                score[k] = score[k] - share[k]
        for r in range(n):
            for k in range(K):
                raw[(first + r) * K + k] = score[k * ROWS + r]
        if per_sample != NULL:
            for r in range(n):
                per_sample[first + r] = value[r]
        if weight != NULL:
            for r in range(n):
                x = weight[first + r]
                value[r] = value[r] * x if x != <real>0.0 else <real>0.0
                for k in range(K):
                    raw[(first + r) * K + k] = raw[(first + r) * K + k] * x if x != <real>0.0 else <real>0.0
        add_to(batch.sums, batch.sums + batch.outputs, lane_sum(value, n))
        first += ROWS


cdef inline void softmax_strip(
    real* z, real* low, const real* y, Py_ssize_t n, real top, real keep, real spread,
    real* rest, real* carry, real* ties, real* cost, real* cost_carry,
) noexcept nogil:
    """exp(z - top) of up to LANES neighbours, in place, and their share of the row's sums, lane by lane."""
    cdef real x, lo, d, share
    cdef Py_ssize_t j
    for j in range(n):
        d = z[j] - top if z[j] != top else <real>0.0
        exp_nonpositive(d, &x, &lo)
        z[j] = x
        low[j] = lo
        ties[j] += <real>0.0 if d != <real>0.0 else <real>1.0
        x = x if d != <real>0.0 else <real>0.0
        lo = lo if d != <real>0.0 else <real>0.0
        compensated_add(x, lo, &rest[j], &carry[j])
        if y != NULL:
            share = y[j] * keep + spread
            share = -d * share if share != <real>0.0 else <real>0.0
            compensated_add_any(share, &cost[j], &cost_carry[j])
        elif spread != <real>0.0:
            compensated_add_any(-d * spread, &cost[j], &cost_carry[j])


cdef inline void join_lanes(real* total, real* carry, real* hi, real* lo) noexcept nogil:
    """The exact-to-rounding sum of LANES compensated sums, as hi + lo."""
    cdef real x, error
    cdef Py_ssize_t j
    hi[0] = total[0]
    lo[0] = -carry[0]
    for j in range(1, LANES):
        two_sum(hi[0], total[j], &x, &error)
        hi[0] = x
        lo[0] = lo[0] + (error - carry[j])
    # the rounding of an infinite sum is inf - inf
    lo[0] = lo[0] if lo[0] == lo[0] else <real>0.0


cdef inline void softmax_many(real* raw, Batch* batch) noexcept nogil:
    """More than FEW classes: along the row, LANES neighbours at a time."""
    cdef real lane[LANES]
    cdef real rest[LANES]
    cdef real carry[LANES]
    cdef real ties[LANES]
    cdef real cost[LANES]
    cdef real cost_carry[LANES]
    cdef real value[ROWS]
    cdef const real* y = <const real*>batch.target
    cdef const real* targets = y
    cdef const real* weights = <const real*>batch.weight
    cdef real* curvature = <real*>batch.curvature
    cdef real* per_sample = <real*>batch.per_sample
    cdef real* low = <real*>batch.scratch
    cdef real* z
    cdef Py_ssize_t K = batch.outputs
    cdef Py_ssize_t whole = K - K % LANES
    cdef real keep = <real>(1.0 - batch.parameter)
    cdef real spread = <real>(batch.parameter / <double>K)
    cdef real top, s, s_lo, d, d_lo, x, lo, inverse, inverse_low, own, loss, weight
    cdef Py_ssize_t i, j, k, code = 0, filled = 0
    for i in range(batch.rows):
        z = raw + i * K
        for j in range(LANES):
            lane[j] = z[j]
            rest[j] = 0.0
            carry[j] = 0.0
            ties[j] = 0.0
            cost[j] = 0.0
            cost_carry[j] = 0.0
        k = 0
        while k < whole:
            for j in range(LANES):
                lane[j] = z[k + j] if z[k + j] > lane[j] else lane[j]
            k += LANES
        for k in range(whole, K):
            lane[k - whole] = z[k] if z[k] > lane[k - whole] else lane[k - whole]
        top = lane[0]
        for j in range(1, LANES):
            top = lane[j] if lane[j] > top else top
        own = 0.0
        if y == NULL:
            code = batch.codes[i]
            own = z[code]
        else:
            targets = y + i * K
        k = 0
        while k < whole:
            softmax_strip(
                z + k, low + k, targets + k if y != NULL else targets, LANES, top, keep, spread,
                rest, carry, ties, cost, cost_carry,
            )
            k += LANES
        softmax_strip(
            z + whole, low + whole, targets + whole if y != NULL else targets, K - whole, top, keep, spread,
            rest, carry, ties, cost, cost_carry,
        )
        join_lanes(rest, carry, &s, &s_lo)
        x = -1.0
        for j in range(LANES):
            x += ties[j]
        d_lo = s_lo
        two_sum(s, x, &s, &s_lo)
        s_lo = s_lo + d_lo
        join_lanes(cost, cost_carry, &x, &lo)
        if y == NULL:
            # the code's own share: exact where it is all there is (no smoothing)
            x = x + keep * (top - own if own != top else <real>0.0)
        loss = log1p_positive(s, s_lo) + (x + lo)
        two_sum(<real>1.0, s, &d, &d_lo)
        d_lo = d_lo + s_lo
        reciprocal(d, d_lo, &inverse, &inverse_low)
        if y == NULL and batch.parameter == 0.0:
            x = s if own == top else d - z[code]
            lo = s_lo if own == top else d_lo - low[code]
            own = -(x * inverse + (lo * inverse + x * inverse_low))
        for k in range(K):
            z[k] = z[k] * inverse + (low[k] * inverse + z[k] * inverse_low)
        if curvature != NULL:
            for k in range(K):
                curvature[i * K + k] = z[k]
        if y != NULL:
            for k in range(K):
                z[k] = z[k] - (targets[k] * keep + spread)
        elif batch.parameter == 0.0:
            z[code] = own
        else:
            for k in range(K):
                z[k] = z[k] - spread
            z[code] = z[code] - keep
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
        softmax_few(raw, batch)
    else:
        softmax_many(raw, batch)
    return -1
