# The passes of a network over a batch of rows, included by _network.pyx.

cdef double PATIENCE = 2e8       # multiplications between two looks at Ctrl-C: some 20 ms
cdef size_t CACHE = 4 << 20      # bytes of activations in a block of rows


cdef struct Table:
    # the rows of X with their targets
    bint sparse
    const void* x                # dense values, or those of CSR
    Py_ssize_t row_step          # in numbers
    Py_ssize_t column_step
    const int32_t* columns
    const int64_t* starts
    const void* target           # (n, outputs), or NULL
    const Py_ssize_t* codes      # (n,), where target is NULL
    const void* weight           # (n,), or NULL


cdef struct Plan:
    # a network, its working memory, and the block of rows at hand
    const LayerKernels* kernels
    batch_kernel loss
    bint additive                # the loss of a batch is the sum of those of its blocks
    int activation
    Py_ssize_t layers            # matrices of weights
    Py_ssize_t* widths           # layers + 1
    Py_ssize_t* coef_at          # where each matrix starts, and each bias
    Py_ssize_t* bias_at
    Py_ssize_t size
    Py_ssize_t coefs
    Py_ssize_t block
    double row_work
    double work
    void** active                # layers + 1: the rows of X if gathered, then the output of each layer
    void** slope                 # layers + 1: f'(z) of each hidden layer, for gelu and silu; else NULL
    void* delta[2]
    void* gradient
    void* target                 # of a gathered batch
    void* weight
    Py_ssize_t* codes
    void* raw                    # scores of a whole batch, for a loss that is not additive
    const void* x                # what the forward pass read
    Py_ssize_t x_step
    Batch batch


# The passes -----------------------------------------------------------------------------------------------

cdef inline void gemm(
    char* ta, char* tb, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    const real* a, Py_ssize_t lda, const real* b, Py_ssize_t ldb, real beta, real* c, Py_ssize_t ldc,
) noexcept nogil:
    """c = op(a) op(b) + beta c, all in C order: to BLAS, the product of the transposes."""
    cdef int rows = <int>n, columns = <int>m, inner = <int>k
    cdef int step_a = <int>lda, step_b = <int>ldb, step_c = <int>ldc
    cdef real one = 1.0
    if real is double:
        dgemm(
            tb, ta, &rows, &columns, &inner, &one, <double*>b, &step_b, <double*>a, &step_a, &beta, c, &step_c
        )
    else:
        sgemm(
            tb, ta, &rows, &columns, &inner, &one, <float*>b, &step_b, <float*>a, &step_a, &beta, c, &step_c
        )


cdef void take_rows(
    Plan* plan, const Table* table, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows, real* unused
) noexcept nogil:
    """Point plan.x at a block of rows, gathered where they do not lie one after the other."""
    cdef Py_ssize_t features = plan.widths[0]
    cdef Py_ssize_t i, j, row
    cdef const real* line
    cdef const real* x = <const real*>table.x
    cdef real* out = <real*>plan.active[0]
    if table.sparse:
        return
    # BLAS wants rows that do not overlap, and a step that is an int
    cdef bint apart = table.row_step >= features and table.row_step <= 2147483647
    if order == NULL and table.column_step == 1 and apart:
        plan.x = x + first * table.row_step
        plan.x_step = table.row_step
        return
    plan.x = out
    plan.x_step = features
    for i in range(rows):
        row = order[first + i] if order != NULL else first + i
        line = x + row * table.row_step
        if table.column_step == 1:
            memcpy(out, line, features * sizeof(real))
        else:
            for j in range(features):
                out[j] = line[j * table.column_step]
        out += features


cdef void take_targets(
    Plan* plan, const Table* table, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows, real* unused
) noexcept nogil:
    """Point plan.batch at the targets and weights of a batch, gathered likewise."""
    cdef Py_ssize_t outputs = plan.widths[plan.layers]
    cdef Py_ssize_t i, j
    cdef const real* y = <const real*>table.target
    cdef const real* w = <const real*>table.weight
    cdef real* target = <real*>plan.target
    cdef real* weight = <real*>plan.weight
    if order == NULL:
        plan.batch.target = y + first * outputs if y != NULL else NULL
        plan.batch.weight = w + first if w != NULL else NULL
        plan.batch.codes = table.codes + first if table.codes != NULL else NULL
        return
    plan.batch.target = target if y != NULL else NULL
    plan.batch.weight = weight if w != NULL else NULL
    plan.batch.codes = plan.codes if table.codes != NULL else NULL
    for i in range(rows):
        if y != NULL:
            for j in range(outputs):
                target[i * outputs + j] = y[order[first + i] * outputs + j]
        else:
            plan.codes[i] = table.codes[order[first + i]]
        if w != NULL:
            weight[i] = w[order[first + i]]


cdef void forward(
    Plan* plan, const Table* table, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows,
    const real* parameters, bint gradient,
) noexcept nogil:
    """Fill the outputs of each layer for a block of rows; those of the last are the raw scores.

    gradient: the block goes backward next.
    """
    cdef const LayerKernels* kernels = plan.kernels
    cdef Py_ssize_t layer, inputs, outputs
    cdef const void* x
    cdef Py_ssize_t step
    cdef const real* coef
    take_rows(plan, table, order, first, rows, <real*>NULL)
    for layer in range(plan.layers):
        inputs = plan.widths[layer]
        outputs = plan.widths[layer + 1]
        coef = parameters + plan.coef_at[layer]
        x = plan.active[layer] if layer else plan.x
        step = inputs if layer else plan.x_step
        if layer == 0 and table.sparse:
            kernels.sparse_forward(
                table.x, table.columns, table.starts, order + first if order != NULL else NULL, first,
                rows, coef, outputs, plan.active[1],
            )
        elif outputs == 1:
            kernels.forward_one(x, step, coef, plan.active[layer + 1], rows, inputs)
        else:
            gemm(
                "N", "N", rows, outputs, inputs, <const real*>x, step, coef, outputs, <real>0.0,
                <real*>plan.active[layer + 1], outputs,
            )
        kernels.activate(
            plan.active[layer + 1], plan.slope[layer + 1] if gradient else NULL,
            parameters + plan.bias_at[layer], rows, outputs,
            plan.activation if layer + 1 < plan.layers else IDENTITY,
        )


cdef void backward(
    Plan* plan, const Table* table, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t rows,
    const real* parameters, void* delta, bint fresh,
) noexcept nogil:
    """Add the gradient of the block that went forward last; fresh: it is the first of its batch."""
    cdef const LayerKernels* kernels = plan.kernels
    cdef real* gradient = <real*>plan.gradient
    cdef Py_ssize_t layer, inputs, outputs, step
    cdef const void* x
    cdef const void* active
    cdef const real* coef
    cdef void* below
    cdef bint plain
    if fresh:
        memset(gradient + plan.coefs, 0, (plan.size - plan.coefs) * sizeof(real))
    for layer in range(plan.layers - 1, -1, -1):
        inputs = plan.widths[layer]
        outputs = plan.widths[layer + 1]
        coef = parameters + plan.coef_at[layer]
        x = plan.active[layer] if layer else plan.x
        step = inputs if layer else plan.x_step
        below = plan.delta[layer % 2] if layer else NULL
        active = plan.slope[layer + 1] if plan.slope[layer + 1] != NULL else plan.active[layer + 1]
        kernels.backward(
            delta, active, gradient + plan.bias_at[layer], rows, outputs,
            plan.activation if layer + 1 < plan.layers else IDENTITY,
        )
        plain = outputs != 1 and not (layer == 0 and table.sparse)
        if fresh and not plain:
            memset(gradient + plan.coef_at[layer], 0, inputs * outputs * sizeof(real))
        if plain:
            gemm(
                "T", "N", inputs, outputs, rows, <const real*>x, step, <const real*>delta, outputs,
                <real>(not fresh), gradient + plan.coef_at[layer], outputs,
            )
            if layer:
                gemm(
                    "N", "T", rows, inputs, outputs, <const real*>delta, outputs, coef, outputs, <real>0.0,
                    <real*>below, inputs,
                )
        elif layer == 0 and table.sparse:
            kernels.sparse_backward(
                table.x, table.columns, table.starts, order + first if order != NULL else NULL, first,
                rows, delta, outputs, gradient,
            )
        else:
            kernels.backward_one(x, step, delta, coef, gradient + plan.coef_at[layer], below, rows, inputs)
        delta = below


cdef int run_loss(
    Plan* plan, Py_ssize_t done, Py_ssize_t rows, void* raw, double* loss, real* unused
) except -1 nogil:
    """Turn raw scores into the gradient of the rows from ``done`` on, and add their loss."""
    cdef Batch batch = plan.batch
    cdef Py_ssize_t bad, k
    batch.raw = raw
    batch.rows = rows
    if batch.target != NULL:
        batch.target = <const real*>batch.target + done * batch.outputs
    if batch.codes != NULL:
        batch.codes = batch.codes + done
    if batch.weight != NULL:
        batch.weight = <const real*>batch.weight + done
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


cdef inline int look_up(Plan* plan, Py_ssize_t rows) except -1 nogil:
    """After some 20 ms of work, let a pending Ctrl-C raise KeyboardInterrupt."""
    plan.work += rows * plan.row_work
    if plan.work > PATIENCE:
        plan.work = 0.0
        with gil:
            PyErr_CheckSignals()
    return 0


cdef int run_batch(
    Plan* plan, const Table* table, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t count,
    const real* parameters, bint gradient, double* loss, double* weights,
) except -1 nogil:
    """The loss of a batch summed by weight, the sum of its weights, and in plan.gradient its gradient."""
    cdef Py_ssize_t outputs = plan.widths[plan.layers]
    cdef Py_ssize_t done, rows, i
    cdef const real* weight
    cdef real* raw = <real*>plan.raw
    loss[0] = 0.0
    take_targets(plan, table, order, first, count, <real*>NULL)
    weight = <const real*>plan.batch.weight
    weights[0] = <double>count
    if weight != NULL:
        weights[0] = 0.0
        for i in range(count):
            weights[0] += <double>weight[i]
    done = 0
    if plan.additive or count <= plan.block:
        while done < count:
            rows = min(plan.block, count - done)
            forward(plan, table, order, first + done, rows, parameters, gradient)
            run_loss(plan, done, rows, plan.active[plan.layers], loss, <real*>NULL)
            if gradient:
                backward(
                    plan, table, order, first + done, rows, parameters, plan.active[plan.layers], done == 0
                )
            done += rows
            look_up(plan, rows)
        return 0
    while done < count:
        rows = min(plan.block, count - done)
        forward(plan, table, order, first + done, rows, parameters, False)
        memcpy(raw + done * outputs, plan.active[plan.layers], rows * outputs * sizeof(real))
        done += rows
        look_up(plan, rows)
    run_loss(plan, 0, count, raw, loss, <real*>NULL)
    done = 0
    while gradient and done < count:
        rows = min(plan.block, count - done)
        forward(plan, table, order, first + done, rows, parameters, True)
        backward(plan, table, order, first + done, rows, parameters, raw + done * outputs, done == 0)
        done += rows
        look_up(plan, rows)
    return 0


cdef double run_epoch(
    Plan* plan, const Table* table, const Py_ssize_t* order, Py_ssize_t n, Py_ssize_t batch_rows,
    Step* step, step_kernel take_step, const double* rates, const double* shrinks, real* unused,
) except? -1.0 nogil:
    """One step for each batch; the loss before each step, averaged by rows."""
    cdef real* parameters = <real*>step.parameters
    cdef double total = 0.0, loss, weights
    cdef Py_ssize_t first = 0, count, b = 0
    while first < n:
        count = min(batch_rows, n - first)
        run_batch(plan, table, order, first, count, parameters, True, &loss, &weights)
        if step.penalty != 0.0:
            loss += 0.5 * step.penalty * plan.kernels.squares(parameters, plan.coefs)
        total += loss / weights * <double>count
        step.inverse = 1.0 / weights
        step.rate = rates[b]
        step.shrink = shrinks[b] if shrinks != NULL else 0.0
        take_step(step)
        b += 1
        first += count
    return total / <double>n


cdef int run_predict(
    Plan* plan, const Table* table, Py_ssize_t n, const real* parameters, real* out
) except -1 nogil:
    cdef Py_ssize_t outputs = plan.widths[plan.layers]
    cdef Py_ssize_t done = 0, rows
    while done < n:
        rows = min(plan.block, n - done)
        forward(plan, table, NULL, done, rows, parameters, False)
        memcpy(out + done * outputs, plan.active[plan.layers], rows * outputs * sizeof(real))
        done += rows
        look_up(plan, rows)
    return 0
