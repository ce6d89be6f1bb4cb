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
    """Point plan.x at the block of rows, or at a copy if they are not contiguous."""
    cdef const Work* work = &plan.current
    cdef Input* data = &plan.input
    cdef Py_ssize_t features = plan.widths[0]
    if data.sparse:
        data.csr.order = work.order + work.first if work.order != NULL else NULL
        data.csr.first = work.first
        data.csr.rows = work.rows
        return
    if not must_copy(data, work.order != NULL, features):
        plan.x = at(plan, data.x, work.first * data.row_step)
        plan.x_step = data.row_step
        return
    plan.x = plan.active[0]
    plan.x_step = features
    # reading a number from memory takes about as long as 40 multiplications
    run_step(plan, GATHER, 0, task_count(40.0 * work.rows * features, work.rows, 1))


cdef void forward(Plan* plan) noexcept nogil:
    """Fill the outputs of each layer for the current block; those of the last are the raw scores."""
    cdef Py_ssize_t layer, inputs, outputs, tasks
    take_rows(plan)
    for layer in range(plan.layers):
        inputs = plan.widths[layer]
        outputs = plan.widths[layer + 1]
        tasks = 1
        if outputs > 1 and not (layer == 0 and plan.input.sparse):
            tasks = task_count(
                <double>plan.current.rows * inputs * outputs, outputs, columns_unit(plan)
            )
        run_step(plan, FORWARD, layer, tasks)


cdef void backward(Plan* plan, void* delta) noexcept nogil:
    """Add the gradient of the block after its forward pass; after the last block, take the optimiser step."""
    cdef const Work* work = &plan.current
    cdef const LayerKernels* kernels = plan.kernels
    cdef Py_ssize_t rows = work.rows, last = plan.layers - 1, layer, inputs, outputs, tasks = 0
    cdef char* gradient
    if work.first_block:
        memset(at(plan, plan.gradient, plan.coefs), 0, (plan.size - plan.coefs) * plan.item)
    plan.delta[plan.layers] = delta
    outputs = plan.widths[plan.layers]
    differentiate(
        plan, plan.identity, delta, plan.active[plan.layers], at(plan, plan.gradient, plan.bias_at[last]),
        rows, outputs,
    )
    if must_pack(plan, last):
        kernels.pack(delta, outputs, rows, outputs, plan.packed[plan.layers])
    for layer in range(last, -1, -1):
        inputs = plan.widths[layer]
        outputs = plan.widths[layer + 1]
        gradient = at(plan, plan.gradient, plan.coef_at[layer])
        if work.first_block and (outputs == 1 or (layer == 0 and plan.input.sparse)):
            memset(gradient, 0, inputs * outputs * plan.item)
        if layer == 0 and plan.input.sparse:
            kernels.sparse_backward(&plan.input.csr, plan.delta[1], outputs, gradient)
        elif outputs == 1:
            kernels.backward_one(
                plan.active[layer] if layer else plan.x, inputs if layer else plan.x_step,
                plan.delta[layer + 1], at(plan, work.parameters, plan.coef_at[layer]), gradient,
                plan.delta[layer] if layer else NULL, rows, inputs,
            )
        if layer:
            run_step(
                plan, DELTA, layer, task_count(<double>rows * inputs * outputs, inputs, columns_unit(plan))
            )
    for layer in range(plan.layers):
        inputs = plan.widths[layer]
        plan.tasks[layer] = task_count(
            (<double>rows + 8.0) * inputs * plan.widths[layer + 1], inputs, rows_unit(plan)
        )
        tasks += plan.tasks[layer]
    run_step(plan, GRADIENT, 0, tasks)
    if work.step != NULL:
        work.take_step(work.step, plan.coefs, plan.size)


cdef int run_loss(Plan* plan, Py_ssize_t done, Py_ssize_t rows, void* raw, double* loss) except -1 nogil:
    """Turn raw scores into the gradient of the rows from ``done`` on, and add their loss."""
    cdef Batch batch = plan.batch
    cdef Py_ssize_t bad, k, per_row = batch.outputs if batch.weight_per_output else 1
    batch.raw = raw
    batch.rows = rows
    if batch.target != NULL:
        batch.target = at(plan, batch.target, done * batch.outputs)
    if batch.codes != NULL:
        batch.codes = batch.codes + done
    if batch.weight != NULL:
        batch.weight = at(plan, batch.weight, done * per_row)
    bad = plan.loss(&batch)
    for k in range(batch.outputs):
        loss[0] += batch.sums[k]
    if bad == FAILED:
        with gil:
            (<Call>batch.context).raise_error()
    if bad >= 0:
        with gil:
            raise ValueError(f"class code {batch.codes[bad]} is not in [0, {batch.outputs})")
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
    Plan* plan, Dataset data, Py_ssize_t first, Py_ssize_t count, bint gradient, Step* step, double* loss,
    double* weights,
) except -1 nogil:
    """The loss of a batch summed by weight, the sum of its weights, and in plan.gradient its gradient.

    The order, the parameters and the optimiser's kernel are in plan.current. With a step, which changes the
    parameters, the loss includes the penalty.
    """
    cdef Py_ssize_t outputs = plan.widths[plan.layers]
    cdef Py_ssize_t done, rows, i, layer
    cdef void* scores = plan.active[plan.layers]
    cdef void* delta
    cdef Work* work = &plan.current
    cdef bint whole = not plan.additive and count > plan.block
    cdef bint again
    loss[0] = 0.0
    data.set_batch(&plan.batch, &plan.buffers, work.order, first, count)
    weights[0] = total_weight(plan, count)
    if step != NULL:
        step.inverse = 1.0 / weights[0]
    # A loss that is not additive needs the scores of all blocks before the first backward pass.
    for again in range(2 if whole and gradient else 1):
        done = 0
        while done < count:
            rows = min(plan.block, count - done)
            work.first = first + done
            work.rows = rows
            work.training = gradient and (again or not whole)
            work.first_block = done == 0
            work.step = step if done + rows == count else NULL
            forward(plan)
            delta = at(plan, plan.raw, done * outputs) if whole else scores
            if not whole:
                run_loss(plan, done, rows, scores, loss)
            elif not again:
                memcpy(delta, scores, rows * outputs * plan.item)
            if work.training:
                backward(plan, delta)
            done += rows
            plan.work += rows * plan.row_work
            check_signals(&plan.work)
        if whole and not again:
            run_loss(plan, 0, count, plan.raw, loss)
    if step != NULL and step.penalty != 0.0:
        for layer in range(plan.layers):
            for i in range(plan.tasks[layer]):
                loss[0] += 0.5 * step.penalty * plan.squares[layer * MAX_TASKS + i]
    return 0


cdef double run_epoch(
    Plan* plan, Dataset data, Py_ssize_t n, Py_ssize_t batch_rows, Step* step
) except? -1.0 nogil:
    """Take one step per batch; return the mean over rows of the loss before each step."""
    cdef double total = 0.0, loss, weights
    cdef Py_ssize_t first = 0, count, b = 0
    cdef Work* work = &plan.current
    while first < n:
        count = min(batch_rows, n - first)
        step.rate = work.rates[b]
        step.weight_decay = work.weight_decays[b] if work.weight_decays != NULL else 0.0
        work.next_first = first + count
        work.next_rows = min(batch_rows, n - first - count)
        run_batch(plan, data, first, count, True, step, &loss, &weights)
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


cdef int run_predict(Plan* plan, Py_ssize_t n, void* out) except -1 nogil:
    """Raw scores of the first n rows."""
    cdef Py_ssize_t outputs = plan.widths[plan.layers]
    cdef Py_ssize_t done = 0, rows
    cdef Work* work = &plan.current
    work.training = False
    while done < n:
        rows = min(plan.block, n - done)
        work.first = done
        work.rows = rows
        forward(plan)
        memcpy(at(plan, out, done * outputs), plan.active[plan.layers], rows * outputs * plan.item)
        done += rows
        plan.work += rows * plan.row_work
        check_signals(&plan.work)
    return 0
