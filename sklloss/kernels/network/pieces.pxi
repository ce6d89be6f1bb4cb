# The steps of a pass over a block of rows, each cut into pieces, included by network/network.pyx.

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
    # what the pieces of the step at hand need to know
    Kind kind
    Py_ssize_t pieces
    Py_ssize_t layer
    const Py_ssize_t* order      # of all rows of the epoch, or NULL
    Py_ssize_t first             # the rows [first, first + rows), by way of the order if there is one
    Py_ssize_t rows
    const void* parameters
    bint keeps                   # the block goes backward next
    bint fresh                   # it is the first of its batch
    Py_ssize_t next_first        # the rows of the batch that comes next
    Py_ssize_t next_rows
    const Step* step             # where the block is the last of its batch, else NULL
    step_kernel take_step


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
    void** delta                 # layers + 1: the gradient by each layer's z
    void** packed                # layers + 1: the same in panels, for products of our own
    Py_ssize_t* pieces           # layers: of the gradient of each matrix
    double* squares              # layers * MOST_PIECES: of the weights before the step
    void* gradient
    Workspace buffers            # targets, weights and codes of a gathered batch
    void* raw                    # scores of a whole batch, for a loss that is not additive
    const void* x                # what the forward pass read
    Py_ssize_t x_step
    Batch batch
    Input input
    Work at_hand
    bint helped                  # there may be helpers
    Team team


cdef inline SparseRows sparse_rows(const Plan* plan) noexcept nogil:
    """The rows of a CSR matrix in the block at hand."""
    cdef const Work* work = &plan.at_hand
    cdef SparseRows rows
    rows.values = plan.input.x
    rows.columns = plan.input.columns
    rows.row_starts = plan.input.row_starts
    rows.long_index = plan.input.long_index
    rows.order = work.order + work.first if work.order != NULL else NULL
    rows.first = work.first
    rows.rows = work.rows
    return rows


cdef inline bint own_product(Plan* plan, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Whether to take our product: not for little work, or columns that fill no panel."""
    cdef double work = <double>rows * <double>n * <double>k
    return plan.kernels.panel != 0 and work >= OWN and n >= plan.kernels.panel and rows >= plan.kernels.tall


cdef inline bint own_outer(Plan* plan, Py_ssize_t layer) noexcept nogil:
    """Whether the gradient by a matrix of weights is a product of our own."""
    if layer == 0 and plan.input.sparse:
        return False
    return own_product(plan, plan.at_hand.rows, plan.widths[layer + 1], plan.widths[layer])


cdef inline void product(
    Plan* plan, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, Py_ssize_t ldc, const real* a, Py_ssize_t lda,
    const real* b, bint transposed, real* c,
) noexcept nogil:
    """c (rows, n) = a b for a (rows, k) and b (k, n) by ldc, or b (n, k) if transposed."""
    if own_product(plan, rows, n, k):
        plan.kernels.product(a, lda, b, k if transposed else ldc, transposed, c, ldc, rows, n, k)
    elif transposed:
        # BLAS has matrices by columns: to it, this is the product of the transposes
        gemm(b"T", b"N", n, rows, k, <real*>b, k, <real*>a, lda, <real>0.0, c, ldc)
    else:
        gemm(b"N", b"N", n, rows, k, <real*>b, ldc, <real*>a, lda, <real>0.0, c, ldc)


cdef void gather_piece(Plan* plan, Py_ssize_t piece, real* unused) noexcept nogil:
    """Copy some of the rows of the block to where they lie one after the other."""
    cdef const Work* work = &plan.at_hand
    cdef const Input* data = &plan.input
    cdef Py_ssize_t features = plan.widths[0]
    cdef Py_ssize_t i, j, row
    cdef Py_ssize_t low = cut(work.rows, piece, work.pieces)
    cdef Py_ssize_t high = cut(work.rows, piece + 1, work.pieces)
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


cdef void forward_piece(Plan* plan, Py_ssize_t piece, real* unused) noexcept nogil:
    """Some units of a layer, for all rows of the block."""
    cdef const Work* work = &plan.at_hand
    cdef const Input* data = &plan.input
    cdef const LayerKernels* kernels = plan.kernels
    cdef SparseRows csr
    cdef Py_ssize_t layer = work.layer, rows = work.rows, i
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1]
    cdef Py_ssize_t low = cut(outputs, piece, work.pieces)
    cdef Py_ssize_t width = cut(outputs, piece + 1, work.pieces) - low
    cdef const real* coef = <const real*>work.parameters + plan.coef_at[layer]
    cdef const real* bias = <const real*>work.parameters + plan.bias_at[layer] + low
    cdef const void* x = plan.active[layer] if layer else plan.x
    cdef Py_ssize_t step = inputs if layer else plan.x_step
    cdef real* z = <real*>plan.active[layer + 1] + low
    cdef real* slope = <real*>plan.slope[layer + 1] if work.keeps else NULL
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


cdef void delta_piece(Plan* plan, Py_ssize_t piece, real* unused) noexcept nogil:
    """The gradient by z of some units of the layer below, for all rows of the block, and by their biases."""
    cdef const Work* work = &plan.at_hand
    cdef Py_ssize_t layer = work.layer, rows = work.rows, i
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1]
    cdef Py_ssize_t low = cut(inputs, piece, work.pieces)
    cdef Py_ssize_t width = cut(inputs, piece + 1, work.pieces) - low
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
    if own_outer(plan, layer - 1):
        plan.kernels.pack(below, inputs, rows, width, <real*>plan.packed[layer] + low * rows)


cdef void step_range(
    Plan* plan, const Step* step, Py_ssize_t low, Py_ssize_t high, double* squares, real* unused
) noexcept nogil:
    """The optimiser's step for some weights; the sum of their squares before it is added to ``squares``."""
    if step.penalty != 0.0:
        squares[0] += plan.kernels.squares(<real*>step.parameters + low, high - low)
    plan.at_hand.take_step(step, low, high)


cdef void plan_prefetch(
    Plan* plan, Py_ssize_t piece, Py_ssize_t tiles, Prefetch* prefetch, real* unused
) noexcept nogil:
    """Have the rows of X that come next fetched, some of them beside each tile of a piece of the gradient."""
    cdef const Work* work = &plan.at_hand
    cdef const Input* data = &plan.input
    cdef Py_ssize_t rows, first, outputs = plan.widths[1]
    prefetch.size = plan.widths[0] * sizeof(real)
    # as much as the cache holds beside the rest
    rows = min(work.next_rows, min(plan.block, <Py_ssize_t>PREFETCH_BYTES // prefetch.size))
    if work.order == NULL or data.column_step != 1:
        return
    first = rows * piece // plan.pieces[0]
    prefetch.rows = <const char*>data.x
    prefetch.order = work.order + work.next_first + first
    prefetch.left = rows * (piece + 1) // plan.pieces[0] - first
    prefetch.step = data.row_step * sizeof(real)
    tiles *= (outputs + plan.kernels.panel - 1) // plan.kernels.panel
    prefetch.lines = 1 + prefetch.left * ((prefetch.size + 63) // 64) // tiles


cdef void own_gradient(
    Plan* plan, Py_ssize_t layer, Py_ssize_t piece, double* squares, real* unused
) noexcept nogil:
    """The gradient by some rows of a matrix of weights and their step, a few rows after the other.

    A gradient that is complete and stepped by at once is in cache only: each strip overwrites the one before.
    """
    cdef const Work* work = &plan.at_hand
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1]
    cdef Py_ssize_t low = cut(inputs, piece, plan.pieces[layer])
    cdef Py_ssize_t high = cut(inputs, piece + 1, plan.pieces[layer])
    cdef Py_ssize_t tall = plan.kernels.tall
    cdef Py_ssize_t strip = max(1, <Py_ssize_t>STRIP // (tall * outputs)) * tall
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
            plan_prefetch(plan, piece, (high - low + tall - 1) // tall, &prefetch, <real*>NULL)
    while low < high:
        m = min(strip, high - low)
        at = plan.coef_at[layer] + low * outputs
        gradient = <real*>plan.gradient + at
        if work.step != NULL:
            prefetch.same_shape[0] = <real*>step.parameters + at
            prefetch.same_shape[1] = <real*>step.first + at
            prefetch.same_shape[2] = <real*>step.second + at if step.second != NULL else NULL
            if work.fresh:
                gradient = scratch
        plan.kernels.outer(
            x + low, inputs if layer else plan.x_step, plan.packed[layer + 1], gradient, outputs, m, outputs,
            work.rows, not work.fresh, &prefetch if work.step != NULL else NULL,
        )
        if work.step != NULL:
            # the step counts from the first parameter
            step.gradient = gradient - at
            step_range(plan, &step, at, at + m * outputs, squares, <real*>NULL)
        low += m


cdef void gradient_piece(Plan* plan, Py_ssize_t piece, real* unused) noexcept nogil:
    """The gradient by some rows of a matrix of weights, and their step while it is in cache."""
    cdef const Work* work = &plan.at_hand
    cdef Py_ssize_t layer = 0, low, high, inputs, outputs, at, slot
    while piece >= plan.pieces[layer]:
        piece -= plan.pieces[layer]
        layer += 1
    inputs = plan.widths[layer]
    outputs = plan.widths[layer + 1]
    low = cut(inputs, piece, plan.pieces[layer])
    high = cut(inputs, piece + 1, plan.pieces[layer])
    at = plan.coef_at[layer] + low * outputs
    slot = layer * MOST_PIECES + piece
    plan.squares[slot] = 0.0
    if own_outer(plan, layer):
        own_gradient(plan, layer, piece, &plan.squares[slot], <real*>NULL)
        return
    if outputs != 1 and not (layer == 0 and plan.input.sparse):
        gemm(
            b"N", b"T", outputs, high - low, work.rows, <real*>plan.delta[layer + 1], outputs,
            (<real*>plan.active[layer] if layer else <real*>plan.x) + low,
            inputs if layer else plan.x_step, <real>(not work.fresh), <real*>plan.gradient + at, outputs,
        )
    if work.step != NULL:
        step_range(plan, work.step, at, at + (high - low) * outputs, &plan.squares[slot], <real*>NULL)


cdef void run_piece(Plan* plan, Py_ssize_t piece, real* unused) noexcept nogil:
    cdef Kind kind = plan.at_hand.kind
    if kind == GATHER:
        gather_piece(plan, piece, <real*>NULL)
    elif kind == FORWARD:
        forward_piece(plan, piece, <real*>NULL)
    elif kind == DELTA:
        delta_piece(plan, piece, <real*>NULL)
    else:
        gradient_piece(plan, piece, <real*>NULL)


cdef void run_step(Plan* plan, Kind kind, Py_ssize_t layer, Py_ssize_t pieces, real* unused) noexcept nogil:
    """All pieces of a step, with whoever helps."""
    cdef Py_ssize_t piece
    cdef size_t turn = 0
    plan.at_hand.kind = kind
    plan.at_hand.layer = layer
    plan.at_hand.pieces = pieces
    if pieces == 1 or not plan.helped:
        for piece in range(pieces):
            run_piece(plan, piece, <real*>NULL)
        return
    publish(&plan.team, pieces)
    while True:
        piece = claim(&plan.team)
        if piece < 0:
            break
        run_piece(plan, piece, <real*>NULL)
        end(&plan.team)
    while <Py_ssize_t>ended(&plan.team) < pieces:
        idle(turn, False)
        turn += 1


cdef void help_out(Plan* plan, real* unused) noexcept nogil:
    """Take pieces until the leader has done; leave if none turns up."""
    cdef Py_ssize_t piece
    cdef size_t turn = 0
    cdef int state
    while True:
        state = state_of(&plan.team)
        # some 20 ms: an interrupt may have kept the leader from starting
        if state == OVER or (state == WAITING and turn > 8400):
            return
        piece = claim(&plan.team) if state == RUNNING else -1
        if piece < 0:
            idle(turn, True)
            turn += 1
        else:
            run_piece(plan, piece, <real*>NULL)
            end(&plan.team)
            turn = 0
