# What a pass does with a block of rows, in pieces that threads share, included by network/network.pyx.
#
# Wide layers are shared by their units. Between them pieces are rows, and go through several layers, the loss
# and back, as threads then wait for each other less often. In the end pieces are weights: their gradient over
# all rows of the block, and the optimiser's step. Pieces depend on shapes alone, and each number is written
# by one of them, as one sum: results have the same bits for any number of threads.
#
# Arrays are untyped addresses, of float32 or float64 numbers as the plan says; the kernels that the plan
# points to know the type.

cdef enum:
    MAX_PIECES = 8                  # of a block of rows, of a layer's units, and of its weights
    MIN_PIECE_ROWS = 32             # fewer would not be worth packing the weights for
    ROWS_UNIT = 4                   # pieces of a block begin at multiples of so many rows
    BLAS_UNITS = 32                 # where BLAS multiplies, pieces of a layer begin at multiples of so many
    STRIP_NUMBERS = 8192            # numbers of a gradient that the optimiser uses while they are in cache
    NARROW = 128                    # units of a layer whose rows are folded, see fold_of
    MAX_FOLDED = 512                # numbers of a folded row
    NARROW_SUM = 48                 # inputs of a layer of one output that a product takes, see forward_layer
    # What takes as long as so many multiplications: to read a number from memory, an activation or its
    # derivative, a loss for an output
    GATHER_WORK = 40
    ACTIVATION_WORK = 10
    LOSS_WORK = 100
    STEP_ROWS = 8                   # the step of a weight as long as its gradient over so many rows

cdef double PIECE_WORK = 2e5        # multiplications of a piece, or more: some 5 us
# The same where there are more than two pieces: of two, a thread has the same ones each time, which stay in
# its cache.
cdef double MANY_WORK = 8e6
# Multiplications from which on a layer is shared by units: each piece of rows would need all of the weights.
cdef double WIDE_WORK = 3e6
cdef size_t PREFETCH_BYTES = 1 << 20  # bytes of the next batch that are prefetched


cdef enum Kind:
    ROWS
    FORWARD
    BACKWARD
    WEIGHTS


cdef struct Input:
    # X of the dataset, for threads that cannot access the dataset itself
    bint sparse
    const void* x                # dense numbers
    Py_ssize_t row_step          # in numbers
    Py_ssize_t column_step
    SparseRows csr               # the current block of rows, if sparse
    const void* offset           # (rows, outputs), to be added to raw scores; or NULL


cdef struct Work:
    # what is done with the current block of rows
    Kind kind                    # rows; units of a layer, forward or backward; weights
    Py_ssize_t pieces
    Py_ssize_t layer             # whose units
    # what is done with a piece of rows: layers [low, high) forward, top to bottom + 1 backward
    bint gather
    Py_ssize_t low
    Py_ssize_t high
    bint loss
    bint pack                    # the gradient by the scores, see pack_delta
    Py_ssize_t top
    Py_ssize_t bottom
    const Py_ssize_t* order      # of all rows of the epoch, or NULL
    Py_ssize_t first             # the rows [first, first + rows), of the order if there is one
    Py_ssize_t done              # rows of the batch before them
    Py_ssize_t rows
    const void* parameters
    bint training                # the backward pass follows
    bint first_block             # of its batch: gradients are overwritten, not added to
    Py_ssize_t next_first        # the rows of the next batch
    Py_ssize_t next_rows
    const Step* step             # if the block is the last of its batch, else NULL
    step_kernel take_step
    const double* rates          # of each batch of the epoch
    const double* weight_decays  # likewise, or NULL


cdef struct Plan:
    # a network, its working memory, and the current block of rows
    const LayerKernels* kernels
    batch_kernel loss
    bint additive                # the loss of a batch is the sum of those of its rows
    bint single                  # numbers are float32, else float64
    Py_ssize_t item              # bytes of a number
    const Activation* activation    # of the hidden layers
    const Activation* identity      # of the last layer
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
    void** slope                 # layers + 1: f'(z) of each hidden layer, or NULL if not stored
    void** delta                 # layers + 1: the gradient by each layer's z
    void** packed                # layers + 1: delta in panels, for the build's matrix products
    Py_ssize_t* pieces           # layers: of each matrix
    double* squares              # layers * MAX_PIECES: of the weights before the step
    double* sums                 # MAX_PIECES * sums_step: of the loss, by pieces of rows
    Py_ssize_t sums_step
    char* scratch                # MAX_PIECES * scratch_step numbers, for the loss
    Py_ssize_t scratch_step
    void* gradient
    Workspace buffers            # targets, weights and codes of a gathered batch
    void* raw                    # scores of a whole batch, for a loss that is not additive
    const void* x                # what the forward pass reads: the block of rows, or a copy
    Py_ssize_t x_step
    bint copies                  # it is a copy
    Batch batch
    Input input
    Work current
    int helpers                  # threads that may join


cdef Py_ssize_t piece_count(double work, Py_ssize_t size, Py_ssize_t least) noexcept nogil:
    """The number of pieces to split ``size`` rows into, for a number of multiplications in all."""
    cdef Py_ssize_t pieces = 2 if work >= 2.0 * PIECE_WORK and size >= 2 * least else 1
    while 1 < pieces < MAX_PIECES and work >= 2 * pieces * MANY_WORK and size >= 2 * pieces * least:
        pieces *= 2
    return pieces


cdef Py_ssize_t piece_start(Py_ssize_t size, Py_ssize_t k, Py_ssize_t pieces, Py_ssize_t unit) noexcept nogil:
    """The first row of a piece."""
    if k == pieces:
        return size
    return (size * k // pieces + unit // 2) // unit * unit


cdef inline Py_ssize_t units_unit(Plan* plan) noexcept nogil:
    """Pieces of units begin at multiples of this: whole panels of gemm.h."""
    return plan.kernels.panel if plan.kernels.panel else BLAS_UNITS


cdef inline Py_ssize_t weights_unit(Plan* plan) noexcept nogil:
    """Pieces of weights begin at multiples of so many rows: whole tiles of gemm.h."""
    return plan.kernels.tile_rows if plan.kernels.panel else BLAS_UNITS


cdef inline double products_of(Plan* plan, Py_ssize_t layer) noexcept nogil:
    """The multiplications of a layer for a row; sparse rows are taken for empty."""
    if layer == 0 and plan.input.sparse:
        return 0.0
    return <double>plan.widths[layer] * <double>plan.widths[layer + 1]


cdef Py_ssize_t unit_pieces(Plan* plan, Py_ssize_t layer, Py_ssize_t units, Py_ssize_t rows) noexcept nogil:
    """The number of pieces of a layer's units, for a block of so many rows; 1 if it is not wide."""
    cdef double work = <double>rows * products_of(plan, layer)
    return piece_count(work, units, 2 * units_unit(plan)) if work >= WIDE_WORK else 1


cdef Py_ssize_t weight_pieces(Plan* plan, Py_ssize_t layer, Py_ssize_t rows) noexcept nogil:
    """The number of pieces of a matrix of weights, whose gradient is over so many rows."""
    cdef Py_ssize_t inputs = plan.widths[layer]
    return piece_count(
        (<double>rows + STEP_ROWS) * inputs * plan.widths[layer + 1], inputs, 2 * weights_unit(plan)
    )


cdef inline char* at(const Plan* plan, const void* numbers, Py_ssize_t k) noexcept nogil:
    """The address of the k-th of some numbers; NULL if there are none."""
    return <char*>numbers + k * plan.item if numbers != NULL else NULL


cdef inline bint use_tiled_outer(Plan* plan, Py_ssize_t layer) noexcept nogil:
    """Whether the gradient of a weight matrix is computed by the build's matrix product.

    A layer of one output and sparse rows have loops of their own.
    """
    return plan.kernels.panel != 0 and plan.widths[layer + 1] > 1 and (layer > 0 or not plan.input.sparse)


cdef inline bint must_pack(Plan* plan, Py_ssize_t layer) noexcept nogil:
    """Whether the gradient of a weight matrix needs the deltas of its outputs in panels."""
    cdef Py_ssize_t size = plan.current.rows * plan.widths[layer + 1] * plan.item
    return use_tiled_outer(plan, layer) and size > plan.kernels.in_place


cdef void blas_product(
    bint single, char* ta, char* tb, int m, int n, int k, const void* a, int lda, const void* b, int ldb,
    bint add, void* c, int ldc,
) noexcept nogil:
    """c = op(a) op(b), or += if add, column-major as BLAS has it."""
    if single:
        gemm(ta, tb, m, n, k, <float*>a, lda, <float*>b, ldb, <float>add, <float*>c, ldc)
    else:
        gemm(ta, tb, m, n, k, <double*>a, lda, <double*>b, ldb, <double>add, <double*>c, ldc)


cdef inline void product(
    Plan* plan, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, Py_ssize_t ldc, const void* a, Py_ssize_t lda,
    const void* b, bint transposed, void* c,
) noexcept nogil:
    """c (rows, n) = a b for a (rows, k) and b (k, n) by ldc, or b (n, k) if transposed."""
    cdef Py_ssize_t ldb = k if transposed else ldc
    if plan.kernels.panel != 0:
        plan.kernels.product(a, lda, b, ldb, transposed, c, ldc, rows, n, k)
    else:
        # to BLAS, whose matrices are column-major, this is the product of the transposes
        blas_product(
            plan.single, b"T" if transposed else b"N", b"N", n, rows, k, b, ldb, a, lda, False, c, ldc
        )


cdef inline Py_ssize_t fold_of(Py_ssize_t width) noexcept nogil:
    """How many rows of a layer an activation takes as one, to fill vectors where one row would not."""
    if width >= NARROW or width % 16 == 0:
        return 1
    return 4 if width >= 64 else 8 if width >= 8 else 64


cdef void activate(
    Plan* plan, const Activation* activation, char* z, char* slope, const void* bias, Py_ssize_t rows,
    Py_ssize_t width,
) noexcept nogil:
    """The activation of all units of a layer."""
    cdef Py_ssize_t fold = fold_of(width), whole = rows // fold if fold > 1 else 0
    cdef Py_ssize_t done = whole * fold * width, i
    cdef double folded[MAX_FOLDED]
    if whole > 0:
        for i in range(fold):
            memcpy(at(plan, folded, i * width), bias, width * plan.item)
        activation.forward(z, slope, folded, whole, fold * width)
    activation.forward(at(plan, z, done), at(plan, slope, done), bias, rows - whole * fold, width)


cdef void copy_row(const real* row, Py_ssize_t step, Py_ssize_t features, real* out) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(features):
        out[j] = row[j * step]


cdef void gather_rows(Plan* plan, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    """Copy some rows of the block to contiguous memory."""
    cdef const Work* work = &plan.current
    cdef const Input* data = &plan.input
    cdef Py_ssize_t features = plan.widths[0], i, row
    cdef const char* source
    cdef char* out = at(plan, plan.active[0], low * features)
    for i in range(low, high):
        row = work.order[work.first + i] if work.order != NULL else work.first + i
        source = at(plan, data.x, row * data.row_step)
        if data.column_step == 1:
            memcpy(out, source, features * plan.item)
        elif plan.single:
            copy_row(<const float*>source, data.column_step, features, <float*>out)
        else:
            copy_row(<const double*>source, data.column_step, features, <double*>out)
        out += features * plan.item


cdef void forward_layer(
    Plan* plan, Py_ssize_t layer, Py_ssize_t low, Py_ssize_t high, Py_ssize_t first, Py_ssize_t width
) noexcept nogil:
    """Some units of a layer, ``width`` of them, for the rows [low, high) of the block."""
    cdef const Work* work = &plan.current
    cdef const LayerKernels* kernels = plan.kernels
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1], rows = high - low, i
    cdef Py_ssize_t step = inputs if layer else plan.x_step
    cdef const void* coef = at(plan, work.parameters, plan.coef_at[layer] + first)
    cdef const void* bias = at(plan, work.parameters, plan.bias_at[layer] + first)
    cdef const void* x = at(plan, plan.active[layer] if layer else plan.x, low * step)
    cdef char* z = at(plan, plan.active[layer + 1], low * outputs + first)
    cdef char* slope = at(plan, plan.slope[layer + 1], low * outputs + first) if work.training else NULL
    cdef const Activation* activation = plan.activation if layer + 1 < plan.layers else plan.identity
    cdef SparseRows csr
    if layer == 0 and plan.input.sparse:
        csr = plan.input.csr
        if csr.order != NULL:
            csr.order += low
        csr.first += low
        csr.rows = rows
        kernels.sparse_forward(&csr, coef, outputs, z)
    elif outputs == 1 and (inputs > NARROW_SUM or kernels.panel == 0):
        # a product would fill one lane of each vector, a sum over few inputs few of them
        kernels.forward_one(x, step, coef, z, rows, inputs)
    else:
        product(plan, rows, width, inputs, outputs, x, step, coef, False, z)
    if width == outputs:
        activate(plan, activation, z, slope, bias, rows, outputs)
        return
    for i in range(rows):
        activation.forward(at(plan, z, i * outputs), at(plan, slope, i * outputs), bias, 1, width)


cdef void pack_delta(
    Plan* plan, Py_ssize_t layer, Py_ssize_t low, Py_ssize_t high, Py_ssize_t first, Py_ssize_t width
) noexcept nogil:
    """Put some rows and units of a layer's delta into panels, if the gradient of its weights needs them."""
    cdef Py_ssize_t units = plan.widths[layer], rows = plan.current.rows
    if must_pack(plan, layer - 1):
        plan.kernels.pack(
            at(plan, plan.delta[layer], low * units + first), units, high - low, width,
            at(plan, plan.packed[layer], first * rows), low, rows,
        )


cdef void backward_layer(
    Plan* plan, Py_ssize_t layer, Py_ssize_t low, Py_ssize_t high, Py_ssize_t first, Py_ssize_t width
) noexcept nogil:
    """The gradients by the z of some units of the layer below, for the rows [low, high) of the block."""
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1], rows = high - low, i
    cdef const void* coef = at(plan, plan.current.parameters, plan.coef_at[layer] + first * outputs)
    cdef const void* above = at(plan, plan.delta[layer + 1], low * outputs)
    cdef char* below = at(plan, plan.delta[layer], low * inputs + first)
    cdef const void* active = plan.slope[layer] if plan.slope[layer] != NULL else plan.active[layer]
    active = at(plan, active, low * inputs + first)
    if outputs == 1:
        plan.kernels.outer_one(above, coef, below, rows, inputs)
    else:
        product(plan, rows, width, outputs, inputs, above, outputs, coef, True, below)
    if width == inputs:
        plan.activation.backward(below, active, rows * inputs)
    else:
        for i in range(rows):
            plan.activation.backward(at(plan, below, i * inputs), at(plan, active, i * inputs), width)
    pack_delta(plan, layer, low, high, first, width)


cdef void add_offset(
    const Plan* plan, const real* offset, Py_ssize_t done, Py_ssize_t rows, real* raw
) noexcept nogil:
    """Add the offset of rows of the batch, from ``done`` on, to their raw scores."""
    cdef const Work* work = &plan.current
    cdef Py_ssize_t outputs = plan.batch.outputs, first = work.first - work.done + done, i, k, row
    for i in range(rows):
        row = work.order[first + i] if work.order != NULL else first + i
        for k in range(outputs):
            raw[i * outputs + k] += offset[row * outputs + k]


cdef Py_ssize_t run_loss(
    Plan* plan, Py_ssize_t done, Py_ssize_t rows, void* raw, Py_ssize_t piece
) noexcept nogil:
    """Turn raw scores into the gradient by them, for rows of the batch from ``done`` on.

    Their loss becomes that of the piece. Returns -1, or as the loss kernel what is wrong.
    """
    cdef Batch batch = plan.batch
    cdef Py_ssize_t bad, per_row = batch.outputs if batch.weight_per_output else 1
    batch.raw = raw
    batch.rows = rows
    batch.sums = plan.sums + piece * plan.sums_step
    batch.scratch = at(plan, plan.scratch, piece * plan.scratch_step)
    if batch.target != NULL:
        batch.target = at(plan, batch.target, done * batch.outputs)
    if batch.codes != NULL:
        batch.codes = batch.codes + done
    if batch.weight != NULL:
        batch.weight = at(plan, batch.weight, done * per_row)
    if plan.input.offset != NULL:
        if plan.single:
            add_offset(plan, <const float*>plan.input.offset, done, rows, <float*>raw)
        else:
            add_offset(plan, <const double*>plan.input.offset, done, rows, <double*>raw)
    bad = plan.loss(&batch)
    return bad if bad < 0 else done + bad


cdef Py_ssize_t run_rows(Plan* plan, Py_ssize_t piece) noexcept nogil:
    """What is to be done with a piece of the block's rows. Returns as run_loss."""
    cdef const Work* work = &plan.current
    cdef Py_ssize_t low = piece_start(work.rows, piece, work.pieces, ROWS_UNIT)
    cdef Py_ssize_t high = piece_start(work.rows, piece + 1, work.pieces, ROWS_UNIT)
    cdef Py_ssize_t layer, bad, outputs = plan.widths[plan.layers]
    if work.gather:
        gather_rows(plan, low, high)
    for layer in range(work.low, work.high):
        forward_layer(plan, layer, low, high, 0, plan.widths[layer + 1])
    if work.loss:
        bad = run_loss(
            plan, work.done + low, high - low, at(plan, plan.active[plan.layers], low * outputs), piece
        )
        if bad != -1:
            return bad
    if work.pack:
        pack_delta(plan, plan.layers, low, high, 0, outputs)
    for layer in range(work.top, work.bottom, -1):
        backward_layer(plan, layer, low, high, 0, plan.widths[layer])
    return -1


cdef void run_units(Plan* plan, Py_ssize_t piece) noexcept nogil:
    """Some units of a layer, or of the layer below, for all rows of the block."""
    cdef const Work* work = &plan.current
    cdef bint is_forward = work.kind == FORWARD
    cdef Py_ssize_t units = plan.widths[work.layer + 1 if is_forward else work.layer]
    cdef Py_ssize_t first = piece_start(units, piece, work.pieces, units_unit(plan))
    cdef Py_ssize_t width = piece_start(units, piece + 1, work.pieces, units_unit(plan)) - first
    if is_forward:
        forward_layer(plan, work.layer, 0, work.rows, first, width)
    else:
        backward_layer(plan, work.layer, 0, work.rows, first, width)


cdef void step_range(
    Plan* plan, const Step* step, Py_ssize_t low, Py_ssize_t high, double* squares
) noexcept nogil:
    """The optimiser's step for some weights; the sum of their squares before it is added to ``squares``."""
    if step.penalty != 0.0:
        squares[0] += plan.kernels.squares(at(plan, step.parameters, low), high - low)
    plan.current.take_step(step, low, high)


cdef void plan_prefetch(Plan* plan, Py_ssize_t piece, Py_ssize_t tiles, Prefetch* prefetch) noexcept nogil:
    """Plan to prefetch the rows of the next batch, some of them with each tile of a gradient."""
    cdef const Work* work = &plan.current
    cdef const Input* data = &plan.input
    cdef Py_ssize_t rows, first, outputs = plan.widths[1]
    prefetch.size = plan.widths[0] * plan.item
    # as much as the cache holds next to the gradient and the activations
    rows = min(work.next_rows, min(plan.block, <Py_ssize_t>PREFETCH_BYTES // prefetch.size))
    if work.order == NULL or data.column_step != 1:
        return
    first = rows * piece // plan.pieces[0]
    prefetch.rows = <const char*>data.x
    prefetch.order = work.order + work.next_first + first
    prefetch.left = rows * (piece + 1) // plan.pieces[0] - first
    prefetch.step = data.row_step * plan.item
    tiles *= (outputs + plan.kernels.panel - 1) // plan.kernels.panel
    prefetch.lines = 1 + prefetch.left * ((prefetch.size + 63) // 64) // tiles


cdef void tiled_gradient(
    Plan* plan, Py_ssize_t layer, Py_ssize_t piece, Py_ssize_t low, Py_ssize_t high, double* squares
) noexcept nogil:
    """The gradient of some rows of a weight matrix and their optimiser step, strip by strip.

    If the step follows at once, each strip's gradient overwrites the previous one's and stays in cache.
    """
    cdef const Work* work = &plan.current
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1]
    cdef Py_ssize_t tile_rows = plan.kernels.tile_rows
    cdef Py_ssize_t strip = max(1, <Py_ssize_t>STRIP_NUMBERS // (tile_rows * outputs)) * tile_rows
    cdef Py_ssize_t m, first
    cdef bint packed = must_pack(plan, layer)
    cdef const void* x = plan.active[layer] if layer else plan.x
    cdef char* scratch = at(plan, plan.gradient, plan.coef_at[layer] + low * outputs)
    cdef char* gradient
    cdef Prefetch prefetch
    cdef Step step
    memset(&prefetch, 0, sizeof(Prefetch))
    if work.step != NULL:
        memcpy(&step, work.step, sizeof(Step))
        if layer == 0:
            plan_prefetch(plan, piece, (high - low + tile_rows - 1) // tile_rows, &prefetch)
    while low < high:
        m = min(strip, high - low)
        first = plan.coef_at[layer] + low * outputs
        gradient = at(plan, plan.gradient, first)
        if work.step != NULL:
            prefetch.same_shape[0] = at(plan, step.parameters, first)
            prefetch.same_shape[1] = at(plan, step.first, first)
            prefetch.same_shape[2] = at(plan, step.second, first)
            if work.first_block:
                gradient = scratch
        plan.kernels.outer(
            at(plan, x, low), inputs if layer else plan.x_step,
            plan.packed[layer + 1] if packed else plan.delta[layer + 1], 0 if packed else outputs, gradient,
            m, outputs, work.rows, not work.first_block, &prefetch if work.step != NULL else NULL,
        )
        if work.step != NULL:
            # the step indexes the gradient from the first parameter
            step.gradient = at(plan, gradient, -first)
            step_range(plan, &step, first, first + m * outputs, squares)
        low += m


cdef void bias_gradient(Plan* plan, Py_ssize_t layer) noexcept nogil:
    """The gradient of a layer's biases."""
    cdef const Work* work = &plan.current
    cdef Py_ssize_t outputs = plan.widths[layer + 1], first = plan.bias_at[layer]
    cdef void* gradient = at(plan, plan.gradient, first)
    if work.first_block:
        memset(gradient, 0, outputs * plan.item)
    plan.kernels.add_rows(plan.delta[layer + 1], work.rows, outputs, gradient)


cdef void run_weights(Plan* plan, Py_ssize_t piece) noexcept nogil:
    """The gradient of some rows of a weight matrix, and their optimiser step while it is in cache.

    The first piece of a layer has its biases too.
    """
    cdef const Work* work = &plan.current
    cdef Py_ssize_t layer = 0, low, high, inputs, outputs, first, step
    cdef const void* x
    cdef char* gradient
    cdef double* squares
    while piece >= plan.pieces[layer]:
        piece -= plan.pieces[layer]
        layer += 1
    if piece == 0:
        bias_gradient(plan, layer)
    inputs = plan.widths[layer]
    outputs = plan.widths[layer + 1]
    squares = &plan.squares[layer * MAX_PIECES + piece]
    squares[0] = 0.0
    low = piece_start(inputs, piece, plan.pieces[layer], weights_unit(plan))
    high = piece_start(inputs, piece + 1, plan.pieces[layer], weights_unit(plan))
    if use_tiled_outer(plan, layer):
        tiled_gradient(plan, layer, piece, low, high, squares)
        return
    first = plan.coef_at[layer] + low * outputs
    gradient = at(plan, plan.gradient, first)
    # that of sparse rows is there already
    if layer > 0 or not plan.input.sparse:
        x = at(plan, plan.active[layer] if layer else plan.x, low)
        step = inputs if layer else plan.x_step
        if outputs > 1:
            blas_product(
                plan.single, b"N", b"T", outputs, high - low, work.rows, plan.delta[layer + 1], outputs, x,
                step, not work.first_block, gradient, outputs,
            )
        else:
            if work.first_block:
                memset(gradient, 0, (high - low) * plan.item)
            plan.kernels.gradient_one(x, step, plan.delta[layer + 1], gradient, work.rows, high - low)
    if work.step != NULL:
        step_range(plan, work.step, first, first + (high - low) * outputs, squares)


cdef Py_ssize_t run_piece(Plan* plan, Py_ssize_t piece) noexcept nogil:
    """Returns as run_loss."""
    if plan.current.kind == ROWS:
        return run_rows(plan, piece)
    if plan.current.kind == WEIGHTS:
        run_weights(plan, piece)
    else:
        run_units(plan, piece)
    return -1
