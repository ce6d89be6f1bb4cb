# The steps of a pass over a block of rows, each split into tasks, included by network/network.pyx.

cdef struct Input:
    # X of the dataset that is read, for threads that cannot hold the dataset itself
    bint sparse
    const void* x                # dense values, or those of CSR
    Py_ssize_t row_step          # in numbers
    Py_ssize_t column_step
    const void* columns
    const void* row_starts
    bint long_index


cdef enum Kind:
    GATHER
    FORWARD
    DELTA
    GRADIENT


cdef struct Work:
    # the current step, as its tasks see it
    Kind kind
    Py_ssize_t tasks
    Py_ssize_t layer
    const Py_ssize_t* order      # of all rows of the epoch, or NULL
    Py_ssize_t first             # the rows [first, first + rows), by way of the order if there is one
    Py_ssize_t rows
    const void* parameters
    bint training                   # the backward pass follows
    bint first_block                   # of its batch: gradients are overwritten, not added to
    Py_ssize_t next_first        # the rows of the next batch
    Py_ssize_t next_rows
    const Step* step             # if the block is the last of its batch, else NULL
    step_kernel take_step


cdef struct Plan:
    # a network, its working memory, and the current block of rows
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
    void** active                # layers + 1: the rows of X if copied, then the output of each layer
    void** slope                 # layers + 1: f'(z) of each hidden layer, for gelu and silu; else NULL
    void** delta                 # layers + 1: the gradient by each layer's z
    void** packed                # layers + 1: delta in panels, for the build's matrix products
    Py_ssize_t* tasks           # layers: of the gradient of each matrix
    double* squares              # layers * MAX_TASKS: of the weights before the step
    void* gradient
    Workspace buffers            # targets, weights and codes of a gathered batch
    void* raw                    # scores of a whole batch, for a loss that is not additive
    const void* x                # what the forward pass read
    Py_ssize_t x_step
    Batch batch
    Input input
    Work current
    bint has_helpers                  # other threads may take tasks
    WorkSharing work_sharing


cdef inline SparseRows sparse_rows(const Plan* plan) noexcept nogil:
    """The rows of a CSR matrix in the block at hand."""
    cdef const Work* work = &plan.current
    cdef SparseRows rows
    rows.values = plan.input.x
    rows.columns = plan.input.columns
    rows.row_starts = plan.input.row_starts
    rows.long_index = plan.input.long_index
    rows.order = work.order + work.first if work.order != NULL else NULL
    rows.first = work.first
    rows.rows = work.rows
    return rows


cdef inline bint use_tiled_product(Plan* plan, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Whether to use the build's matrix product: not for small ones, or if columns fill no panel."""
    cdef double work = <double>rows * <double>n * <double>k
    cdef const LayerKernels* kernels = plan.kernels
    return kernels.panel != 0 and work >= MIN_TILED_WORK and n >= kernels.panel and rows >= kernels.tile_rows


cdef inline bint use_tiled_outer(Plan* plan, Py_ssize_t layer) noexcept nogil:
    """Whether the gradient of a weight matrix is computed by the build's matrix product."""
    if layer == 0 and plan.input.sparse:
        return False
    return use_tiled_product(plan, plan.current.rows, plan.widths[layer + 1], plan.widths[layer])


cdef inline void product(
    Plan* plan, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, Py_ssize_t ldc, const real* a, Py_ssize_t lda,
    const real* b, bint transposed, real* c,
) noexcept nogil:
    """c (rows, n) = a b for a (rows, k) and b (k, n) by ldc, or b (n, k) if transposed."""
    if use_tiled_product(plan, rows, n, k):
        plan.kernels.product(a, lda, b, k if transposed else ldc, transposed, c, ldc, rows, n, k)
    elif transposed:
        # BLAS expects column-major matrices: to it, this is the product of the transposes
        gemm(b"T", b"N", n, rows, k, <real*>b, k, <real*>a, lda, <real>0.0, c, ldc)
    else:
        gemm(b"N", b"N", n, rows, k, <real*>b, ldc, <real*>a, lda, <real>0.0, c, ldc)


cdef void gather_rows(Plan* plan, Py_ssize_t task, real* unused) noexcept nogil:
    """Copy some rows of the block to contiguous memory."""
    cdef const Work* work = &plan.current
    cdef const Input* data = &plan.input
    cdef Py_ssize_t features = plan.widths[0]
    cdef Py_ssize_t i, j, row
    cdef Py_ssize_t low = task_start(work.rows, task, work.tasks)
    cdef Py_ssize_t high = task_start(work.rows, task + 1, work.tasks)
    cdef const real* line
    cdef real* out = <real*>plan.active[0] + low * features
    for i in range(low, high):
        row = work.order[work.first + i] if work.order != NULL else work.first + i
        line = <const real*>data.x + row * data.row_step
        if data.column_step == 1:
            memcpy(out, line, features * sizeof(real))
        else:
            for j in range(features):
                out[j] = line[j * data.column_step]
        out += features


cdef void forward_units(Plan* plan, Py_ssize_t task, real* unused) noexcept nogil:
    """Some units of a layer, for all rows of the block."""
    cdef const Work* work = &plan.current
    cdef const Input* data = &plan.input
    cdef const LayerKernels* kernels = plan.kernels
    cdef SparseRows csr
    cdef Py_ssize_t layer = work.layer, rows = work.rows, i
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1]
    cdef Py_ssize_t low = task_start(outputs, task, work.tasks)
    cdef Py_ssize_t width = task_start(outputs, task + 1, work.tasks) - low
    cdef const real* coef = <const real*>work.parameters + plan.coef_at[layer]
    cdef const real* bias = <const real*>work.parameters + plan.bias_at[layer] + low
    cdef const void* x = plan.active[layer] if layer else plan.x
    cdef Py_ssize_t step = inputs if layer else plan.x_step
    cdef real* z = <real*>plan.active[layer + 1] + low
    cdef real* slope = <real*>plan.slope[layer + 1] if work.training else NULL
    cdef int activation = plan.activation if layer + 1 < plan.layers else IDENTITY
    if layer == 0 and data.sparse:
        csr = sparse_rows(plan)
        kernels.sparse_forward(&csr, coef, outputs, z)
    elif outputs == 1:
        kernels.forward_one(x, step, coef, z, rows, inputs)
    else:
        product(plan, rows, width, inputs, outputs, <const real*>x, step, coef + low, False, z)
    if width == outputs:
        kernels.activate(z, slope, bias, rows, outputs, activation)
        return
    if slope != NULL:
        slope += low
    for i in range(rows):
        kernels.activate(z + i * outputs, slope, bias, 1, width, activation)
        if slope != NULL:
            slope += outputs


cdef void delta_units(Plan* plan, Py_ssize_t task, real* unused) noexcept nogil:
    """Gradients of z and of the biases for some units of the layer below, for all rows of the block."""
    cdef const Work* work = &plan.current
    cdef Py_ssize_t layer = work.layer, rows = work.rows, i
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1]
    cdef Py_ssize_t low = task_start(inputs, task, work.tasks)
    cdef Py_ssize_t width = task_start(inputs, task + 1, work.tasks) - low
    cdef const real* coef = <const real*>work.parameters + plan.coef_at[layer] + low * outputs
    cdef real* below = <real*>plan.delta[layer] + low
    cdef real* bias = <real*>plan.gradient + plan.bias_at[layer - 1] + low
    cdef const real* active = <const real*>plan.slope[layer]
    if active == NULL:
        active = <const real*>plan.active[layer]
    active += low
    if outputs != 1:
        product(
            plan, rows, width, outputs, inputs, <const real*>plan.delta[layer + 1], outputs, coef, True, below
        )
    if width == inputs:
        plan.kernels.backward(below, active, bias, rows, inputs, plan.activation)
    else:
        for i in range(rows):
            plan.kernels.backward(below + i * inputs, active + i * inputs, bias, 1, width, plan.activation)
    if use_tiled_outer(plan, layer - 1):
        plan.kernels.pack(below, inputs, rows, width, <real*>plan.packed[layer] + low * rows)


cdef void step_range(
    Plan* plan, const Step* step, Py_ssize_t low, Py_ssize_t high, double* squares, real* unused
) noexcept nogil:
    """The optimiser's step for some weights; the sum of their squares before it is added to ``squares``."""
    if step.penalty != 0.0:
        squares[0] += plan.kernels.squares(<real*>step.parameters + low, high - low)
    plan.current.take_step(step, low, high)


cdef void plan_prefetch(
    Plan* plan, Py_ssize_t task, Py_ssize_t tiles, Prefetch* prefetch, real* unused
) noexcept nogil:
    """Plan to prefetch the rows of the next batch, some of them with each tile of a gradient."""
    cdef const Work* work = &plan.current
    cdef const Input* data = &plan.input
    cdef Py_ssize_t rows, first, outputs = plan.widths[1]
    prefetch.size = plan.widths[0] * sizeof(real)
    # as much as the cache holds next to the gradient and the activations
    rows = min(work.next_rows, min(plan.block, <Py_ssize_t>PREFETCH_BYTES // prefetch.size))
    if work.order == NULL or data.column_step != 1:
        return
    first = rows * task // plan.tasks[0]
    prefetch.rows = <const char*>data.x
    prefetch.order = work.order + work.next_first + first
    prefetch.left = rows * (task + 1) // plan.tasks[0] - first
    prefetch.step = data.row_step * sizeof(real)
    tiles *= (outputs + plan.kernels.panel - 1) // plan.kernels.panel
    prefetch.lines = 1 + prefetch.left * ((prefetch.size + 63) // 64) // tiles


cdef void tiled_gradient(
    Plan* plan, Py_ssize_t layer, Py_ssize_t task, double* squares, real* unused
) noexcept nogil:
    """The gradient of some rows of a weight matrix and their optimiser step, strip by strip.

    If the step follows at once, each strip's gradient overwrites the previous one's and stays in cache.
    """
    cdef const Work* work = &plan.current
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1]
    cdef Py_ssize_t low = task_start(inputs, task, plan.tasks[layer])
    cdef Py_ssize_t high = task_start(inputs, task + 1, plan.tasks[layer])
    cdef Py_ssize_t tile_rows = plan.kernels.tile_rows
    cdef Py_ssize_t strip = max(1, <Py_ssize_t>STRIP_NUMBERS // (tile_rows * outputs)) * tile_rows
    cdef Py_ssize_t m, at
    cdef const real* x = <const real*>plan.active[layer] if layer else <const real*>plan.x
    cdef real* scratch = <real*>plan.gradient + plan.coef_at[layer] + low * outputs
    cdef real* gradient
    cdef Prefetch prefetch
    cdef Step step
    memset(&prefetch, 0, sizeof(Prefetch))
    if work.step != NULL:
        memcpy(&step, work.step, sizeof(Step))
        if layer == 0:
            plan_prefetch(plan, task, (high - low + tile_rows - 1) // tile_rows, &prefetch, <real*>NULL)
    while low < high:
        m = min(strip, high - low)
        at = plan.coef_at[layer] + low * outputs
        gradient = <real*>plan.gradient + at
        if work.step != NULL:
            prefetch.same_shape[0] = <real*>step.parameters + at
            prefetch.same_shape[1] = <real*>step.first + at
            prefetch.same_shape[2] = <real*>step.second + at if step.second != NULL else NULL
            if work.first_block:
                gradient = scratch
        plan.kernels.outer(
            x + low, inputs if layer else plan.x_step, plan.packed[layer + 1], gradient, outputs, m, outputs,
            work.rows, not work.first_block, &prefetch if work.step != NULL else NULL,
        )
        if work.step != NULL:
            # the step indexes the gradient from the first parameter
            step.gradient = gradient - at
            step_range(plan, &step, at, at + m * outputs, squares, <real*>NULL)
        low += m


cdef void gradient_rows(Plan* plan, Py_ssize_t task, real* unused) noexcept nogil:
    """The gradient of some rows of a weight matrix, and their optimiser step while it is in cache."""
    cdef const Work* work = &plan.current
    cdef Py_ssize_t layer = 0, low, high, inputs, outputs, at, slot
    while task >= plan.tasks[layer]:
        task -= plan.tasks[layer]
        layer += 1
    inputs = plan.widths[layer]
    outputs = plan.widths[layer + 1]
    low = task_start(inputs, task, plan.tasks[layer])
    high = task_start(inputs, task + 1, plan.tasks[layer])
    at = plan.coef_at[layer] + low * outputs
    slot = layer * MAX_TASKS + task
    plan.squares[slot] = 0.0
    if use_tiled_outer(plan, layer):
        tiled_gradient(plan, layer, task, &plan.squares[slot], <real*>NULL)
        return
    if outputs != 1 and not (layer == 0 and plan.input.sparse):
        gemm(
            b"N", b"T", outputs, high - low, work.rows, <real*>plan.delta[layer + 1], outputs,
            (<real*>plan.active[layer] if layer else <real*>plan.x) + low,
            inputs if layer else plan.x_step, <real>(not work.first_block), <real*>plan.gradient + at,
            outputs,
        )
    if work.step != NULL:
        step_range(plan, work.step, at, at + (high - low) * outputs, &plan.squares[slot], <real*>NULL)


cdef void run_task(Plan* plan, Py_ssize_t task, real* unused) noexcept nogil:
    cdef Kind kind = plan.current.kind
    if kind == GATHER:
        gather_rows(plan, task, <real*>NULL)
    elif kind == FORWARD:
        forward_units(plan, task, <real*>NULL)
    elif kind == DELTA:
        delta_units(plan, task, <real*>NULL)
    else:
        gradient_rows(plan, task, <real*>NULL)


cdef void run_step(Plan* plan, Kind kind, Py_ssize_t layer, Py_ssize_t tasks, real* unused) noexcept nogil:
    """Run all tasks of a step, shared with the helpers if there are any."""
    cdef Py_ssize_t task
    cdef size_t turn = 0
    plan.current.kind = kind
    plan.current.layer = layer
    plan.current.tasks = tasks
    if tasks == 1 or not plan.has_helpers:
        for task in range(tasks):
            run_task(plan, task, <real*>NULL)
        return
    publish(&plan.work_sharing, tasks)
    while True:
        task = claim(&plan.work_sharing)
        if task < 0:
            break
        run_task(plan, task, <real*>NULL)
        finish(&plan.work_sharing)
    while <Py_ssize_t>finished(&plan.work_sharing) < tasks:
        idle(turn, False)
        turn += 1


cdef void run_helper(Plan* plan, real* unused) noexcept nogil:
    """Run tasks until the leader's pass ends; return if none begins."""
    cdef Py_ssize_t task
    cdef size_t turn = 0
    cdef int state
    while True:
        state = state_of(&plan.work_sharing)
        # some 20 ms: an interrupt may have kept the leader from starting
        if state == ENDED or (state == WAITING and turn > 8400):
            return
        task = claim(&plan.work_sharing) if state == RUNNING else -1
        if task < 0:
            idle(turn, True)
            turn += 1
        else:
            run_task(plan, task, <real*>NULL)
            finish(&plan.work_sharing)
            turn = 0
