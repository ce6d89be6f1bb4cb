# Separable losses: each output of a row by itself. A tile is whole rows, or part of a row longer than TILE.

cdef inline Py_ssize_t tile_rows(
    const Batch* batch, Py_ssize_t first, Py_ssize_t most, Py_ssize_t* width,
) noexcept nogil:
    """Rows and width of the tile of up to ``most`` numbers that begins at number ``first`` of the batch."""
    cdef Py_ssize_t rows
    if batch.outputs == 1:
        width[0] = 1
        return min(most, batch.rows - first)
    rows = most // batch.outputs
    if rows == 0:
        width[0] = min(most, batch.outputs - first % batch.outputs)
        return 1
    width[0] = batch.outputs
    if rows > 16:
        rows -= rows % 16  # whole vectors
    return min(rows, batch.rows - first // batch.outputs)


cdef inline void weigh(
    real* x, const Batch* batch, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t width,
) noexcept nogil:
    """Multiply a tile by the weights. Weight 0 leaves a row out whatever its loss: inf * 0 is 0 here."""
    cdef const real* weight = <const real*>batch.weight
    cdef real w
    cdef Py_ssize_t i, r
    if weight == NULL:
        return
    if batch.outputs == 1 or batch.weight_per_output:
        for i in range(rows * width):
            w = weight[first + i]
            x[i] = x[i] * w if w != <real>0.0 else <real>0.0
        return
    for r in range(rows):
        w = weight[first // batch.outputs + r]
        for i in range(r * width, (r + 1) * width):
            x[i] = x[i] * w if w != <real>0.0 else <real>0.0


cdef inline void clear_lanes(double* sums) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(SUMS):
        sums[j] = 0.0


cdef inline void add_lanes_to(double* sums, Batch* batch) noexcept nogil:
    """Add SUMS running sums, by halves, to the loss of a batch with one output."""
    cdef Py_ssize_t j, half = SUMS // 2
    while half > 0:
        for j in range(half):
            sums[j] = sums[j] + sums[half + j]
        half = half // 2
    if batch.outputs == 1:
        add_to(batch.sums, batch.sums + 1, sums[0])


cdef inline void add_losses(
    real* value, Batch* batch, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t width, double* sums,
) noexcept nogil:
    """Add a tile of losses, unweighted to per_sample and weighted to the sums. value is overwritten.

    With one output there are SUMS running sums, added to that of the batch now and then: a sum of few numbers
    is exact enough.
    """
    cdef real* per_sample = <real*>batch.per_sample
    cdef double part[TILE]
    cdef double total
    cdef Py_ssize_t row = first // batch.outputs
    cdef Py_ssize_t column = first - row * batch.outputs
    cdef Py_ssize_t r, k, whole
    if batch.outputs == 1:
        if per_sample != NULL and value != per_sample + first:
            memcpy(per_sample + first, value, rows * sizeof(real))
        weigh(value, batch, first, rows, 1)
        whole = rows - rows % SUMS
        r = 0
        while r < whole:
            for k in range(SUMS):
                sums[k] = sums[k] + <double>value[r + k]
            r += SUMS
        for k in range(rows - whole):
            sums[k] = sums[k] + <double>value[whole + k]
        if first // (16 * TILE) != (first + rows) // (16 * TILE):
            add_lanes_to(sums, batch)
            clear_lanes(sums)
        return
    if per_sample != NULL:
        for r in range(rows):
            total = lane_sum(value + r * width, width)
            per_sample[row + r] = <real>(total if column == 0 else total + <double>per_sample[row + r])
    weigh(value, batch, first, rows, width)
    for k in range(width):
        total = 0.0
        r = 0
        while True:
            total = total + <double>value[r * width + k]
            r += 1
            if r == rows:
                break
        part[k] = total
    for k in range(width):
        add_to(batch.sums + column + k, batch.sums + batch.outputs + column + k, part[k])


cdef inline real* losses_of(const Batch* batch, Py_ssize_t first, real* value) noexcept nogil:
    """Where the losses of a tile go: straight to per_sample if no copy of them is weighted, else to value."""
    if batch.per_sample == NULL or batch.weight != NULL or batch.outputs > 1:
        return value
    return <real*>batch.per_sample + first


cdef inline void log_loss_tile(
    real* z, const real* y, Py_ssize_t n, bint smoothed, real keep, real spread, real* share, real* value,
) noexcept nogil:
    """Loss, gradient (in z) and the smaller probability (in share) of n elements; smoothed is a constant."""
    cdef real e[TILE]
    cdef real rest[TILE]
    cdef real p, q
    cdef Py_ssize_t i
    # Several loops: in one, an element is a longer chain of operations than the processor can overlap.
    for i in range(n):
        e[i] = exp_of_minus(abs(z[i]), &rest[i])
    for i in range(n):
        p = y[i]
        q = <real>1.0 - p
        if smoothed:
            # smoothed separately: 1 - p of a smoothed p near 1 would lose digits
            p = p * keep + spread
            q = q * keep + spread
        share[i] = share_of(e[i], &rest[i])
        value[i] = log_loss_slope(&z[i], p, q, share[i])
    for i in range(n):
        value[i] = log1p_of(e[i], rest[i], value[i])


cdef inline Py_ssize_t log_loss_rows(real* raw, Batch* batch) noexcept nogil:
    """Log loss of independent sigmoids. target: (rows, outputs) probabilities; parameter: label smoothing.

    curvature: weight * p (1 - p).
    """
    cdef real share[TILE]
    cdef real buffer[TILE]
    cdef double sums[SUMS]
    cdef real* value
    cdef const real* y = <const real*>batch.target
    cdef real* curvature = <real*>batch.curvature
    cdef real keep = <real>(1.0 - batch.parameter)
    cdef real spread = <real>(0.5 * batch.parameter)
    cdef Py_ssize_t first, i, n, rows, width = 0
    cdef Py_ssize_t total = batch.rows * batch.outputs
    clear_sums(batch)
    clear_lanes(sums)
    first = 0
    while first < total:
        # Half a tile, because there are twice as many buffers as in separable_rows.
        rows = tile_rows(batch, first, TILE * 2 // sizeof(real), &width)
        n = rows * width
        value = losses_of(batch, first, buffer)
        if batch.parameter == 0.0:
            log_loss_tile(raw + first, y + first, n, False, keep, spread, share, value)
        else:
            log_loss_tile(raw + first, y + first, n, True, keep, spread, share, value)
        weigh(raw + first, batch, first, rows, width)
        if curvature != NULL:
            for i in range(n):
                curvature[first + i] = share[i] * (<real>1.0 - share[i])
            weigh(curvature + first, batch, first, rows, width)
        add_losses(value, batch, first, rows, width, sums)
        first += n
    add_lanes_to(sums, batch)
    return -1


cdef inline bint exp_is_normal(const real* z, Py_ssize_t n) noexcept nogil:
    """Whether exp of every z and -z is a normal number: |z| <= 708 (float: 87)."""
    cdef Py_ssize_t i
    cdef int64_t beyond = 0
    cdef int32_t beyond32 = 0
    # The sign bit of a difference says that it is beyond; a maximum of 64-bit numbers is no AVX2 instruction.
    if real is double:
        for i in range(n):
            beyond = beyond | (double_bits(708.0) - (double_bits(z[i]) & <int64_t>0x7FFFFFFFFFFFFFFF))
        return beyond >= 0
    else:
        for i in range(n):
            beyond32 = beyond32 | (float_bits(87.0) - (float_bits(z[i]) & <int32_t>0x7FFFFFFF))
        return beyond32 >= 0


cdef void focal_block(
    double g, double* z, const double* y, Py_ssize_t n, double* value, double* curvature,
) noexcept nogil:
    """Focal loss, derivative (in z) and second derivative (in curvature) of up to SMALL elements."""
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
    # A power is up to 16 multiplications, and an exponential for the rest of the exponent.
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
            right[i], right_lo[i], wrong[i], wrong_lo[i], &curvature[i],
        )


cdef inline void focal_tile(
    double g, real* z, const real* y, Py_ssize_t n, real* value, real* curvature,
) noexcept nogil:
    """focal_block by block, in double whatever the dtype."""
    cdef double wide_z[SMALL]
    cdef double wide_y[SMALL]
    cdef double wide_value[SMALL]
    cdef double wide_curvature[SMALL]
    cdef Py_ssize_t i, m, first = 0
    while first < n:
        m = min(n - first, <Py_ssize_t>SMALL)
        if real is double:
            focal_block(g, z + first, y + first, m, value + first, curvature + first)
        else:
            for i in range(m):
                wide_z[i] = z[first + i]
                wide_y[i] = y[first + i]
            focal_block(g, wide_z, wide_y, m, wide_value, wide_curvature)
            for i in range(m):
                z[first + i] = <float>wide_z[i]
                value[first + i] = <float>wide_value[i]
                curvature[first + i] = <float>wide_curvature[i]
        first += m


cdef inline void average(real* x, Py_ssize_t n, Py_ssize_t outputs) noexcept nogil:
    """Divide by the number of outputs, for their mean. A division, because it rounds once."""
    cdef real divisor = <real>outputs
    cdef Py_ssize_t i
    for i in range(n):
        x[i] = x[i] / divisor


cdef inline Py_ssize_t root_mean_squared_error_rows(real* raw, Batch* batch) noexcept nogil:
    """sqrt(mean((raw - y)**2)) over the whole batch, times the sum of weights like every other sum.

    The mean is weighted over rows and unweighted over outputs. Where all errors are 0 the root has no
    derivative, and the gradient is 0.
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
