# Separable losses: each output of a row on its own.

cdef inline void weigh(real* x, const Batch* batch, Py_ssize_t first, Py_ssize_t n) noexcept nogil:
    """Multiply n numbers, of which the first is element ``first`` of the batch, by the weights.

    Weight 0 leaves a row out whatever its loss: inf * 0 is 0 here.
    """
    cdef const real* weight = <const real*>batch.weight
    cdef Py_ssize_t i, row, column
    if weight == NULL:
        return
    if batch.outputs == 1 or batch.weight_per_output:
        weight = weight + first
        for i in range(n):
            x[i] = x[i] * weight[i] if weight[i] != <real>0.0 else <real>0.0
        return
    row = first // batch.outputs
    column = first - row * batch.outputs
    for i in range(n):
        x[i] = x[i] * weight[row] if weight[row] != <real>0.0 else <real>0.0
        column += 1
        if column == batch.outputs:
            column = 0
            row += 1


cdef inline void collect(real* value, Batch* batch, Py_ssize_t first, Py_ssize_t n) noexcept nogil:
    """Take up n unweighted losses: per sample as they are, in the sums by weight. Overwrites value."""
    cdef real* per_sample = <real*>batch.per_sample
    cdef Py_ssize_t i, row, column
    if per_sample != NULL and batch.outputs == 1:
        memcpy(per_sample + first, value, n * sizeof(real))
    elif per_sample != NULL:
        row = first // batch.outputs
        column = first - row * batch.outputs
        for i in range(n):
            per_sample[row] = per_sample[row] + value[i] if column else value[i]
            column += 1
            if column == batch.outputs:
                column = 0
                row += 1
    weigh(value, batch, first, n)
    if batch.outputs == 1:
        add_to(batch.sums, batch.sums + 1, lane_sum(value, n))
        return
    column = first % batch.outputs
    for i in range(n):
        add_to(batch.sums + column, batch.sums + batch.outputs + column, <double>value[i])
        column += 1
        if column == batch.outputs:
            column = 0


cdef inline Py_ssize_t log_loss_rows(real* raw, Batch* batch) noexcept nogil:
    """Log loss of independent sigmoids. target: (rows, outputs) probabilities; parameter: label smoothing.

    curvature: weight * p (1 - p).
    """
    cdef real e[TILE]
    cdef real low[TILE]
    cdef real value[TILE]
    cdef const real* y = <const real*>batch.target
    cdef real* curvature = <real*>batch.curvature
    cdef real keep = <real>(1.0 - batch.parameter)
    cdef real spread = <real>(0.5 * batch.parameter)
    cdef Py_ssize_t first, i, n
    cdef Py_ssize_t total = batch.rows * batch.outputs
    clear_sums(batch)
    first = 0
    while first < total:
        n = min(<Py_ssize_t>TILE, total - first)
        # Two loops, because one would be a chain of operations longer than a processor looks ahead.
        for i in range(n):
            exp_nonpositive(-abs(raw[first + i]), &e[i], &low[i])
        for i in range(n):
            # smoothed apart: 1 - y of a smoothed y near 1 would lose digits
            value[i] = log_loss(
                &raw[first + i], y[first + i] * keep + spread, (<real>1.0 - y[first + i]) * keep + spread,
                &e[i], low[i],
            )
        weigh(raw + first, batch, first, n)
        if curvature != NULL:
            for i in range(n):
                curvature[first + i] = e[i] * (<real>1.0 - e[i])
            weigh(curvature + first, batch, first, n)
        collect(value, batch, first, n)
        first += TILE
    return -1


cdef inline Py_ssize_t squared_error_rows(real* raw, Batch* batch) noexcept nogil:
    """parameter * (raw - y)**2 averaged over the outputs; parameter is 0.5 or 1.

    curvature: 2 * parameter * weight / outputs.

    Error: 2 ULP in the value, 1.5 in the gradient, on top of the rounding of raw - y.
    """
    cdef real value[TILE]
    cdef const real* y = <const real*>batch.target
    cdef real* curvature = <real*>batch.curvature
    cdef real scale = <real>(batch.parameter / <double>batch.outputs)
    cdef real slope = <real>(2.0 * batch.parameter / <double>batch.outputs)
    cdef real d
    cdef Py_ssize_t first, i, n
    cdef Py_ssize_t total = batch.rows * batch.outputs
    clear_sums(batch)
    first = 0
    while first < total:
        n = min(<Py_ssize_t>TILE, total - first)
        for i in range(n):
            d = raw[first + i] - y[first + i]
            value[i] = scale * d * d
            raw[first + i] = slope * d
        weigh(raw + first, batch, first, n)
        if curvature != NULL:
            for i in range(n):
                curvature[first + i] = slope
            weigh(curvature + first, batch, first, n)
        collect(value, batch, first, n)
        first += TILE
    return -1


cdef inline Py_ssize_t root_mean_squared_error_rows(real* raw, Batch* batch) noexcept nogil:
    """sqrt(mean((raw - y)**2)) over the whole batch, times the sum of weights like every other sum.

    The mean is weighted by row and plain over outputs. Where every row is met exactly the root has no
    derivative; the gradient there is 0.
    """
    cdef const real* y = <const real*>batch.target
    cdef const real* weight = <const real*>batch.weight
    cdef double total = 0.0, carry = 0.0, weights = 0.0, largest = 0.0, row_sum, w, d, root
    cdef Py_ssize_t i, k
    clear_sums(batch)
    # Scaled by the largest error, so that its square neither overflows nor underflows.
    for i in range(batch.rows):
        w = 1.0 if weight == NULL else <double>weight[i]
        weights += w
        for k in range(batch.outputs):
            d = <double>raw[i * batch.outputs + k] - <double>y[i * batch.outputs + k]
            d = -d if d < 0.0 else d
            if w > 0.0 and not (d <= largest):
                largest = d
    if largest == 0.0 or not (largest - largest == 0.0):
        for i in range(batch.rows * batch.outputs):
            raw[i] = <real>(largest - largest)
        batch.sums[0] = largest
        return -1
    for i in range(batch.rows):
        w = 1.0 if weight == NULL else <double>weight[i]
        if w == 0.0:
            continue
        row_sum = 0.0
        for k in range(batch.outputs):
            d = (<double>raw[i * batch.outputs + k] - <double>y[i * batch.outputs + k]) / largest
            row_sum += d * d
        add_to(&total, &carry, w * row_sum)
    root = sqrt(total / (weights * <double>batch.outputs))
    for i in range(batch.rows):
        w = (1.0 if weight == NULL else <double>weight[i]) / (root * largest * <double>batch.outputs)
        for k in range(batch.outputs):
            d = <double>raw[i * batch.outputs + k] - <double>y[i * batch.outputs + k]
            raw[i * batch.outputs + k] = <real>(w * d) if w != 0.0 else <real>0.0
    batch.sums[0] = root * largest * weights
    return -1
