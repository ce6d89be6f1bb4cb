# The passes of a network over a batch of rows, included by network/network.pyx.

cdef size_t MAX_BLOCK_BYTES = 4 << 20  # bytes of activations in a block of rows

cdef enum:
    MIN_BLOCK_ROWS = 128            # of a block


cdef bint must_copy(const Input* data, bint ordered, Py_ssize_t features) noexcept nogil:
    """Whether rows must be copied to contiguous memory, as BLAS requires."""
    # BLAS's leading dimension: rows do not overlap, and the step is an int
    cdef bint leading_dimension_fits = data.row_step >= features and data.row_step <= 2147483647
    return not data.sparse and (ordered or data.column_step != 1 or not leading_dimension_fits)


cdef void take_rows(Plan* plan) noexcept nogil:
    """Point plan.x at the block of rows, or at where they are copied if they are not contiguous."""
    cdef const Work* work = &plan.current
    cdef Input* data = &plan.input
    plan.copies = must_copy(data, work.order != NULL, plan.widths[0])
    if data.sparse:
        data.csr.order = work.order + work.first if work.order != NULL else NULL
        data.csr.first = work.first
        data.csr.rows = work.rows
    elif plan.copies:
        plan.x = plan.active[0]
        plan.x_step = plan.widths[0]
    else:
        plan.x = at(plan, data.x, work.first * data.row_step)
        plan.x_step = data.row_step


cdef void share_pieces(Network network, Kind kind, Py_ssize_t pieces) noexcept nogil:
    network.plan.current.kind = kind
    network.plan.current.pieces = pieces
    share_with(network, pieces, network.plan.helpers)


cdef int share_rows(Network network, double* total) except -1 nogil:
    """What is to be done with rows, if anything is; adds their loss. After it nothing is to be done."""
    cdef Plan* plan = &network.plan
    cdef Work* work = &plan.current
    cdef Py_ssize_t piece, layer, k
    cdef double products = 0.0
    if not (work.gather or work.loss or work.pack or work.low < work.high or work.top > work.bottom):
        return 0
    if work.gather:
        products += GATHER_WORK * plan.widths[0]
    for layer in range(work.low, work.high):
        products += products_of(plan, layer) + ACTIVATION_WORK * plan.widths[layer + 1]
    if work.loss:
        products += LOSS_WORK * plan.batch.outputs
    for layer in range(work.top, work.bottom, -1):
        products += products_of(plan, layer) + ACTIVATION_WORK * plan.widths[layer]
    network.status = -1
    share_pieces(network, ROWS, piece_count(work.rows * products, work.rows, MIN_PIECE_ROWS))
    if network.status != -1:
        raise_code(plan, network.status)
    if work.loss:
        for piece in range(work.pieces):
            for k in range(plan.batch.outputs):
                total[0] += plan.sums[piece * plan.sums_step + k]
    work.gather = work.loss = work.pack = False
    work.low = work.high
    work.top = work.bottom
    return 0


cdef int run_block(Network network, bint forward, bint loss, bint backward, double* total) except -1 nogil:
    """Forward, loss and backward for the current block, or some of them; adds its loss."""
    cdef Plan* plan = &network.plan
    cdef Work* work = &plan.current
    cdef Py_ssize_t layer, pieces
    work.gather = forward and plan.copies
    work.loss = work.pack = False
    work.low = work.high = 0
    work.top = work.bottom = plan.layers - 1
    for layer in range(plan.layers if forward else 0):
        pieces = unit_pieces(plan, layer, plan.widths[layer + 1], work.rows)
        if pieces > 1:
            share_rows(network, total)
            work.layer = layer
            share_pieces(network, FORWARD, pieces)
            work.low = layer + 1
        work.high = layer + 1
    work.loss = loss
    work.pack = backward
    for layer in range(plan.layers - 1 if backward else 0, 0, -1):
        pieces = unit_pieces(plan, layer, plan.widths[layer], work.rows)
        if pieces > 1:
            share_rows(network, total)
            work.layer = layer
            share_pieces(network, BACKWARD, pieces)
            work.top = layer - 1
        work.bottom = layer - 1
    share_rows(network, total)
    return 0


cdef void share_weights(Network network) noexcept nogil:
    """The gradient of the current block; after the last block of a batch, the optimiser's step."""
    cdef Plan* plan = &network.plan
    cdef Work* work = &plan.current
    cdef Py_ssize_t layer, pieces = 0
    if plan.input.sparse:
        if work.first_block:
            memset(plan.gradient, 0, plan.widths[0] * plan.widths[1] * plan.item)
        plan.kernels.sparse_backward(&plan.input.csr, plan.delta[1], plan.widths[1], plan.gradient)
    for layer in range(plan.layers):
        plan.pieces[layer] = weight_pieces(plan, layer, work.rows)
        pieces += plan.pieces[layer]
    share_pieces(network, WEIGHTS, pieces)
    if work.step != NULL:
        work.take_step(work.step, plan.coefs, plan.size)


cdef int raise_code(Plan* plan, Py_ssize_t row) except -1 nogil:
    with gil:
        raise ValueError(f"class code {plan.batch.codes[row]} is not in [0, {plan.batch.outputs})")


cdef int run_whole_loss(Plan* plan, Py_ssize_t rows, void* raw, double* total) except -1 nogil:
    """Turn the raw scores of a batch into the gradient by them, and add its loss."""
    cdef Py_ssize_t bad = run_loss(plan, 0, rows, raw, 0), k
    if bad == FAILED:
        with gil:
            (<Call>plan.batch.context).raise_error()
    if bad >= 0:
        raise_code(plan, bad)
    for k in range(plan.batch.outputs):
        total[0] += plan.sums[k]
    return 0


cdef double sum_of(const real* numbers, Py_ssize_t n) noexcept nogil:
    cdef double total = 0.0
    cdef Py_ssize_t i
    for i in range(n):
        total += <double>numbers[i]
    return total


cdef double total_weight(Plan* plan, Py_ssize_t count) noexcept nogil:
    """The sum of the weights of the batch; the weight of a row is the mean over its outputs."""
    cdef const void* weight = plan.batch.weight
    cdef Py_ssize_t per_row = plan.batch.outputs if plan.batch.weight_per_output else 1
    if weight == NULL:
        return <double>count
    count *= per_row
    return (
        sum_of(<const float*>weight, count) if plan.single else sum_of(<const double*>weight, count)
    ) / <double>per_row


cdef int run_batch(
    Network network, Dataset data, Py_ssize_t first, Py_ssize_t count, bint gradient, Step* step,
    double* loss, double* weights,
) except -1 nogil:
    """The loss of a batch summed by weight, the sum of its weights, and in plan.gradient its gradient.

    The order, the parameters and the optimiser's kernel are in plan.current. With a step, which changes the
    parameters, the loss includes the penalty.
    """
    cdef Plan* plan = &network.plan
    cdef Py_ssize_t outputs = plan.widths[plan.layers]
    cdef Py_ssize_t done, i, layer
    cdef void* scores = plan.active[plan.layers]
    cdef Work* work = &plan.current
    # A loss that is not additive needs the scores of all blocks before the first backward pass.
    cdef bint blocks_apart = not plan.additive and count > plan.block
    cdef bint again
    loss[0] = 0.0
    work.training = gradient
    data.set_batch(&plan.batch, &plan.buffers, work.order, first, count)
    weights[0] = total_weight(plan, count)
    if step != NULL:
        step.inverse = 1.0 / weights[0]
    for again in range(2 if blocks_apart and gradient else 1):
        done = 0
        while done < count:
            work.first = first + done
            work.done = done
            work.rows = min(plan.block, count - done)
            work.first_block = done == 0
            work.step = step if done + work.rows == count else NULL
            take_rows(plan)
            plan.delta[plan.layers] = scores
            if plan.additive:
                run_block(network, True, True, gradient, loss)
            elif again:
                plan.delta[plan.layers] = at(plan, plan.raw, done * outputs)
                run_block(network, True, False, True, loss)
            elif blocks_apart:
                run_block(network, True, False, False, loss)
                memcpy(at(plan, plan.raw, done * outputs), scores, work.rows * outputs * plan.item)
            else:
                run_block(network, True, False, False, loss)
                run_whole_loss(plan, count, scores, loss)
                if gradient:
                    run_block(network, False, False, True, loss)
            if gradient and (again or not blocks_apart):
                share_weights(network)
            done += work.rows
            plan.work += work.rows * plan.row_work
            check_signals(&plan.work)
        if blocks_apart and not again:
            run_whole_loss(plan, count, plan.raw, loss)
    if step != NULL and step.penalty != 0.0:
        for layer in range(plan.layers):
            for i in range(plan.pieces[layer]):
                loss[0] += 0.5 * step.penalty * plan.squares[layer * MAX_PIECES + i]
    return 0


cdef double run_epoch(
    Network network, Dataset data, Py_ssize_t n, Py_ssize_t batch_rows, Step* step
) except? -1.0 nogil:
    """Take one step per batch; return the mean over rows of the loss before each step."""
    cdef double total = 0.0, loss, weights
    cdef Py_ssize_t first = 0, count, b = 0
    cdef Work* work = &network.plan.current
    while first < n:
        count = min(batch_rows, n - first)
        step.rate = work.rates[b]
        step.weight_decay = work.weight_decays[b] if work.weight_decays != NULL else 0.0
        work.next_first = first + count
        work.next_rows = min(batch_rows, n - first - count)
        run_batch(network, data, first, count, True, step, &loss, &weights)
        total += loss / weights * <double>count
        b += 1
        first += count
    return total / <double>n


cdef void next_epoch(Plan* plan, Py_ssize_t n, Py_ssize_t batches) noexcept nogil:
    """Go on to the order and the rates of the epoch after one of n rows."""
    cdef Work* work = &plan.current
    if work.order != NULL:
        work.order += n
    work.rates += batches
    if work.weight_decays != NULL:
        work.weight_decays += batches


cdef int run_predict(Network network, Py_ssize_t n, void* out) except -1 nogil:
    """Raw scores of the first n rows."""
    cdef Plan* plan = &network.plan
    cdef Py_ssize_t outputs = plan.widths[plan.layers]
    cdef Py_ssize_t done = 0
    cdef Work* work = &plan.current
    work.training = False
    while done < n:
        work.first = done
        work.rows = min(plan.block, n - done)
        take_rows(plan)
        run_block(network, True, False, False, NULL)
        memcpy(at(plan, out, done * outputs), plan.active[plan.layers], work.rows * outputs * plan.item)
        done += work.rows
        plan.work += work.rows * plan.row_work
        check_signals(&plan.work)
    return 0
