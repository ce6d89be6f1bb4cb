# The steps of a pass over a block of rows, each split into tasks that threads share, included by
# network/network.pyx.
#
# Arrays are untyped addresses, of float32 or float64 numbers as the plan says; the kernels that the plan
# points to know the type.
#
# One thread is the leader: it runs the training loop and splits large steps into tasks. Helper threads, which
# may join and leave at any time, claim tasks. The leader claims tasks too and waits only for those that a
# helper has begun, so that a helper that is late or never comes delays nothing. Tasks depend on the shape of
# the work alone and write to disjoint memory: results have the same bits whichever thread runs a task.
#
# The upper half of the ticket is the number of the step, the lower half the number of unclaimed tasks. A
# thread that decrements it has claimed a task. It may then read the description of the step, which the leader
# changes only after the last task has finished.

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>

    typedef struct {
        uint64_t ticket;
        char padding[120];    /* keeps the counters on separate cache lines */
        uint64_t finished;
        char more_padding[120];
        int state;
    } sklloss_work_sharing;

    enum { SKLLOSS_WAITING, SKLLOSS_RUNNING, SKLLOSS_OVER };

    #if (defined(__GNUC__) || defined(__clang__)) && !defined(_WIN32)
    #include <sched.h>
    #include <time.h>
    #define SKLLOSS_CAN_SHARE_WORK 1

    static inline void sklloss_publish(sklloss_work_sharing* work_sharing, size_t tasks)
    {
        uint64_t step = __atomic_load_n(&work_sharing->ticket, __ATOMIC_RELAXED) >> 32;
        __atomic_store_n(&work_sharing->finished, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&work_sharing->ticket, (step + 1) << 32 | (uint64_t)tasks, __ATOMIC_RELEASE);
    }

    static inline ptrdiff_t sklloss_claim(sklloss_work_sharing* work_sharing)
    {
        uint64_t now = __atomic_load_n(&work_sharing->ticket, __ATOMIC_ACQUIRE);
        while (now & 0xffffffffu)
            if (__atomic_compare_exchange_n(
                    &work_sharing->ticket, &now, now - 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
                return (ptrdiff_t)(now & 0xffffffffu) - 1;
        return -1;
    }

    static inline void sklloss_finish(sklloss_work_sharing* work_sharing)
    {
        __atomic_fetch_add(&work_sharing->finished, 1, __ATOMIC_RELEASE);
    }

    static inline size_t sklloss_finished(sklloss_work_sharing* work_sharing)
    {
        return (size_t)__atomic_load_n(&work_sharing->finished, __ATOMIC_ACQUIRE);
    }

    static inline void sklloss_set_state(sklloss_work_sharing* work_sharing, int state)
    {
        __atomic_store_n(&work_sharing->state, state, __ATOMIC_RELEASE);
    }

    static inline int sklloss_state(sklloss_work_sharing* work_sharing)
    {
        return __atomic_load_n(&work_sharing->state, __ATOMIC_ACQUIRE);
    }

    /* One turn of waiting: spin at first, then yield the processor, and in the end sleep. */
    static inline void sklloss_idle(size_t turn, int sleeps)
    {
        if (turn < 4000) {
    #if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
    #endif
        } else if (turn < 8000 || !sleeps) {
            sched_yield();
        } else {
            struct timespec moment = {0, 50000};
            nanosleep(&moment, NULL);
        }
    }

    #else
    #define SKLLOSS_CAN_SHARE_WORK 0
    static void sklloss_publish(sklloss_work_sharing* work_sharing, size_t tasks) {}
    static ptrdiff_t sklloss_claim(sklloss_work_sharing* work_sharing) { return -1; }
    static void sklloss_finish(sklloss_work_sharing* work_sharing) {}
    static size_t sklloss_finished(sklloss_work_sharing* work_sharing) { return 0; }
    static void sklloss_set_state(sklloss_work_sharing* work, int state) { work->state = state; }
    static int sklloss_state(sklloss_work_sharing* work_sharing) { return SKLLOSS_OVER; }
    static void sklloss_idle(size_t turn, int sleeps) {}
    #endif
    """
    bint CAN_SHARE_WORK "SKLLOSS_CAN_SHARE_WORK"
    int WAITING "SKLLOSS_WAITING"
    int RUNNING "SKLLOSS_RUNNING"
    int ENDED "SKLLOSS_OVER"
    ctypedef struct WorkSharing "sklloss_work_sharing":
        pass
    void publish "sklloss_publish"(WorkSharing* work_sharing, size_t tasks) noexcept nogil
    Py_ssize_t claim "sklloss_claim"(WorkSharing* work_sharing) noexcept nogil
    void finish "sklloss_finish"(WorkSharing* work_sharing) noexcept nogil
    size_t finished "sklloss_finished"(WorkSharing* work_sharing) noexcept nogil
    void set_state "sklloss_set_state"(WorkSharing* work_sharing, int state) noexcept nogil
    int state_of "sklloss_state"(WorkSharing* work_sharing) noexcept nogil
    void idle "sklloss_idle"(size_t turn, bint sleeps) noexcept nogil


cdef enum:
    MAX_TASKS = 8                   # per step, and per gradient of a layer
    BLAS_UNITS = 32                 # tasks begin at multiples of so many units where BLAS multiplies
    STRIP_NUMBERS = 8192            # numbers of a gradient that the optimiser uses while they are in cache
    NARROW = 128                    # units of a layer whose rows are folded, see fold_of
    MAX_FOLDED = 512                # numbers of a folded row
    NARROW_SUM = 48                 # inputs of a layer of one output that a product takes, see forward_units

cdef double MIN_SHARED_WORK = 3e6   # multiplications of a step that is worth sharing: some 60 us
cdef double TASK_WORK = 8e6         # multiplications per task, if there are more than two
cdef size_t PREFETCH_BYTES = 1 << 20  # bytes of the next batch that are prefetched


cdef enum Kind:
    GATHER
    FORWARD
    DELTA
    GRADIENT


cdef struct Input:
    # X of the dataset, for threads that cannot access the dataset itself
    bint sparse
    const void* x                # dense numbers
    Py_ssize_t row_step          # in numbers
    Py_ssize_t column_step
    SparseRows csr               # the current block of rows, if sparse


cdef struct Work:
    # the current step
    Kind kind
    Py_ssize_t tasks
    Py_ssize_t layer
    const Py_ssize_t* order      # of all rows of the epoch, or NULL
    Py_ssize_t first             # the rows [first, first + rows), of the order if there is one
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
    bint additive                # the loss of a batch is the sum of those of its blocks
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
    Py_ssize_t* tasks            # layers: of the gradient of each matrix
    double* squares              # layers * MAX_TASKS: of the weights before the step
    void* folded                 # MAX_FOLDED: biases or their gradients, once for each of the rows in a fold
    void* gradient
    Workspace buffers            # targets, weights and codes of a gathered batch
    void* raw                    # scores of a whole batch, for a loss that is not additive
    const void* x                # what the forward pass read
    Py_ssize_t x_step
    Batch batch
    Input input
    Work current
    bint has_helpers             # other threads may take tasks
    WorkSharing work_sharing


cdef Py_ssize_t task_count(double work, Py_ssize_t size, Py_ssize_t unit) noexcept nogil:
    """The number of tasks to split ``size`` units into, for a number of multiplications.

    Tasks begin at multiples of ``unit`` and have two of them or more.
    """
    cdef Py_ssize_t tasks = 1
    if work >= MIN_SHARED_WORK:
        tasks = 2
        while tasks < MAX_TASKS and work >= 2 * tasks * TASK_WORK:
            tasks *= 2
    while tasks > 1 and size < 2 * unit * tasks:
        tasks //= 2
    return tasks


cdef Py_ssize_t task_start(Py_ssize_t size, Py_ssize_t k, Py_ssize_t tasks, Py_ssize_t unit) noexcept nogil:
    """The first unit of a task."""
    if k == tasks:
        return size
    return (size * k // tasks + unit // 2) // unit * unit


cdef inline Py_ssize_t columns_unit(Plan* plan) noexcept nogil:
    """Tasks over the columns of a product begin at multiples of this: whole panels of gemm.h."""
    return plan.kernels.panel if plan.kernels.panel else BLAS_UNITS


cdef inline Py_ssize_t rows_unit(Plan* plan) noexcept nogil:
    """Tasks over the rows of a product begin at multiples of this: whole tiles of gemm.h."""
    return plan.kernels.tile_rows if plan.kernels.panel else BLAS_UNITS


cdef inline char* at(const Plan* plan, const void* numbers, Py_ssize_t k) noexcept nogil:
    """The address of the k-th of some numbers."""
    return <char*>numbers + k * plan.item


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


cdef void add_folded(const real* folded, Py_ssize_t fold, Py_ssize_t width, real* total) noexcept nogil:
    cdef Py_ssize_t i, j
    for i in range(fold):
        for j in range(width):
            total[j] += folded[i * width + j]


cdef void activate(
    Plan* plan, const Activation* activation, void* z, void* slope, const void* bias, Py_ssize_t rows,
    Py_ssize_t width,
) noexcept nogil:
    """The activation's forward pass over all units of a layer."""
    cdef Py_ssize_t fold = fold_of(width), whole = rows // fold if fold > 1 else 0
    cdef Py_ssize_t done = whole * fold * width, i
    if whole > 0:
        for i in range(fold):
            memcpy(at(plan, plan.folded, i * width), bias, width * plan.item)
        activation.forward(z, slope, plan.folded, whole, fold * width)
    activation.forward(
        at(plan, z, done), at(plan, slope, done) if slope != NULL else NULL, bias, rows - whole * fold, width
    )


cdef void differentiate(
    Plan* plan, const Activation* activation, void* delta, const void* active, void* bias_gradient,
    Py_ssize_t rows, Py_ssize_t width,
) noexcept nogil:
    """The activation's backward pass over all units of a layer."""
    cdef Py_ssize_t fold = fold_of(width), whole = rows // fold if fold > 1 else 0
    cdef Py_ssize_t done = whole * fold * width
    if whole > 0:
        memset(plan.folded, 0, fold * width * plan.item)
        activation.backward(delta, active, plan.folded, whole, fold * width)
        if plan.single:
            add_folded(<const float*>plan.folded, fold, width, <float*>bias_gradient)
        else:
            add_folded(<const double*>plan.folded, fold, width, <double*>bias_gradient)
    activation.backward(
        at(plan, delta, done), at(plan, active, done), bias_gradient, rows - whole * fold, width
    )


cdef void copy_row(const real* row, Py_ssize_t step, Py_ssize_t features, real* out) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(features):
        out[j] = row[j * step]


cdef void gather_rows(Plan* plan, Py_ssize_t task) noexcept nogil:
    """Copy some rows of the block to contiguous memory."""
    cdef const Work* work = &plan.current
    cdef const Input* data = &plan.input
    cdef Py_ssize_t features = plan.widths[0], i, row
    cdef Py_ssize_t low = task_start(work.rows, task, work.tasks, 1)
    cdef Py_ssize_t high = task_start(work.rows, task + 1, work.tasks, 1)
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


cdef void forward_units(Plan* plan, Py_ssize_t task) noexcept nogil:
    """Some units of a layer, for all rows of the block."""
    cdef const Work* work = &plan.current
    cdef const LayerKernels* kernels = plan.kernels
    cdef Py_ssize_t layer = work.layer, rows = work.rows, i
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1]
    cdef Py_ssize_t unit = columns_unit(plan)
    cdef Py_ssize_t low = task_start(outputs, task, work.tasks, unit)
    cdef Py_ssize_t width = task_start(outputs, task + 1, work.tasks, unit) - low
    cdef const void* coef = at(plan, work.parameters, plan.coef_at[layer])
    cdef const void* bias = at(plan, work.parameters, plan.bias_at[layer] + low)
    cdef const void* x = plan.active[layer] if layer else plan.x
    cdef Py_ssize_t step = inputs if layer else plan.x_step
    cdef void* z = at(plan, plan.active[layer + 1], low)
    cdef void* slope = NULL
    cdef const Activation* activation = plan.activation if layer + 1 < plan.layers else plan.identity
    if work.training and plan.slope[layer + 1] != NULL:
        slope = at(plan, plan.slope[layer + 1], low)
    if layer == 0 and plan.input.sparse:
        kernels.sparse_forward(&plan.input.csr, coef, outputs, z)
    elif outputs == 1 and (inputs > NARROW_SUM or kernels.panel == 0):
        # a product would fill one lane of each vector, a sum over few inputs few of them
        kernels.forward_one(x, step, coef, z, rows, inputs)
    else:
        product(plan, rows, width, inputs, outputs, x, step, at(plan, coef, low), False, z)
    if width == outputs:
        activate(plan, activation, z, slope, bias, rows, outputs)
        return
    for i in range(rows):
        activation.forward(
            at(plan, z, i * outputs), at(plan, slope, i * outputs) if slope != NULL else NULL, bias, 1, width
        )


cdef void delta_units(Plan* plan, Py_ssize_t task) noexcept nogil:
    """Gradients of z and of the biases for some units of the layer below, for all rows of the block."""
    cdef const Work* work = &plan.current
    cdef Py_ssize_t layer = work.layer, rows = work.rows, i
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1]
    cdef Py_ssize_t unit = columns_unit(plan)
    cdef Py_ssize_t low = task_start(inputs, task, work.tasks, unit)
    cdef Py_ssize_t width = task_start(inputs, task + 1, work.tasks, unit) - low
    cdef const void* coef = at(plan, work.parameters, plan.coef_at[layer] + low * outputs)
    cdef void* below = at(plan, plan.delta[layer], low)
    cdef void* bias = at(plan, plan.gradient, plan.bias_at[layer - 1] + low)
    cdef const void* active = plan.slope[layer] if plan.slope[layer] != NULL else plan.active[layer]
    active = at(plan, active, low)
    if outputs != 1:
        product(plan, rows, width, outputs, inputs, plan.delta[layer + 1], outputs, coef, True, below)
    if width == inputs:
        differentiate(plan, plan.activation, below, active, bias, rows, inputs)
    else:
        for i in range(rows):
            plan.activation.backward(
                at(plan, below, i * inputs), at(plan, active, i * inputs), bias, 1, width
            )
    if must_pack(plan, layer - 1):
        plan.kernels.pack(below, inputs, rows, width, at(plan, plan.packed[layer], low * rows))


cdef void step_range(
    Plan* plan, const Step* step, Py_ssize_t low, Py_ssize_t high, double* squares
) noexcept nogil:
    """The optimiser's step for some weights; the sum of their squares before it is added to ``squares``."""
    if step.penalty != 0.0:
        squares[0] += plan.kernels.squares(at(plan, step.parameters, low), high - low)
    plan.current.take_step(step, low, high)


cdef void plan_prefetch(Plan* plan, Py_ssize_t task, Py_ssize_t tiles, Prefetch* prefetch) noexcept nogil:
    """Plan to prefetch the rows of the next batch, some of them with each tile of a gradient."""
    cdef const Work* work = &plan.current
    cdef const Input* data = &plan.input
    cdef Py_ssize_t rows, first, outputs = plan.widths[1]
    prefetch.size = plan.widths[0] * plan.item
    # as much as the cache holds next to the gradient and the activations
    rows = min(work.next_rows, min(plan.block, <Py_ssize_t>PREFETCH_BYTES // prefetch.size))
    if work.order == NULL or data.column_step != 1:
        return
    first = rows * task // plan.tasks[0]
    prefetch.rows = <const char*>data.x
    prefetch.order = work.order + work.next_first + first
    prefetch.left = rows * (task + 1) // plan.tasks[0] - first
    prefetch.step = data.row_step * plan.item
    tiles *= (outputs + plan.kernels.panel - 1) // plan.kernels.panel
    prefetch.lines = 1 + prefetch.left * ((prefetch.size + 63) // 64) // tiles


cdef void tiled_gradient(Plan* plan, Py_ssize_t layer, Py_ssize_t task, double* squares) noexcept nogil:
    """The gradient of some rows of a weight matrix and their optimiser step, strip by strip.

    If the step follows at once, each strip's gradient overwrites the previous one's and stays in cache.
    """
    cdef const Work* work = &plan.current
    cdef Py_ssize_t inputs = plan.widths[layer], outputs = plan.widths[layer + 1]
    cdef Py_ssize_t low = task_start(inputs, task, plan.tasks[layer], rows_unit(plan))
    cdef Py_ssize_t high = task_start(inputs, task + 1, plan.tasks[layer], rows_unit(plan))
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
            plan_prefetch(plan, task, (high - low + tile_rows - 1) // tile_rows, &prefetch)
    while low < high:
        m = min(strip, high - low)
        first = plan.coef_at[layer] + low * outputs
        gradient = at(plan, plan.gradient, first)
        if work.step != NULL:
            prefetch.same_shape[0] = at(plan, step.parameters, first)
            prefetch.same_shape[1] = at(plan, step.first, first)
            prefetch.same_shape[2] = at(plan, step.second, first) if step.second != NULL else NULL
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


cdef void gradient_rows(Plan* plan, Py_ssize_t task) noexcept nogil:
    """The gradient of some rows of a weight matrix, and their optimiser step while it is in cache."""
    cdef const Work* work = &plan.current
    cdef Py_ssize_t layer = 0, low, high, inputs, outputs, first
    cdef double* squares
    while task >= plan.tasks[layer]:
        task -= plan.tasks[layer]
        layer += 1
    inputs = plan.widths[layer]
    outputs = plan.widths[layer + 1]
    squares = &plan.squares[layer * MAX_TASKS + task]
    squares[0] = 0.0
    if use_tiled_outer(plan, layer):
        tiled_gradient(plan, layer, task, squares)
        return
    low = task_start(inputs, task, plan.tasks[layer], rows_unit(plan))
    high = task_start(inputs, task + 1, plan.tasks[layer], rows_unit(plan))
    first = plan.coef_at[layer] + low * outputs
    if outputs != 1 and not (layer == 0 and plan.input.sparse):
        blas_product(
            plan.single, b"N", b"T", outputs, high - low, work.rows, plan.delta[layer + 1], outputs,
            at(plan, plan.active[layer] if layer else plan.x, low), inputs if layer else plan.x_step,
            not work.first_block, at(plan, plan.gradient, first), outputs,
        )
    if work.step != NULL:
        step_range(plan, work.step, first, first + (high - low) * outputs, squares)


cdef void run_task(Plan* plan, Py_ssize_t task) noexcept nogil:
    cdef Kind kind = plan.current.kind
    if kind == GATHER:
        gather_rows(plan, task)
    elif kind == FORWARD:
        forward_units(plan, task)
    elif kind == DELTA:
        delta_units(plan, task)
    else:
        gradient_rows(plan, task)


cdef void run_step(Plan* plan, Kind kind, Py_ssize_t layer, Py_ssize_t tasks) noexcept nogil:
    """Run all tasks of a step, shared with the helpers if there are any."""
    cdef Py_ssize_t task
    cdef size_t turn = 0
    plan.current.kind = kind
    plan.current.layer = layer
    plan.current.tasks = tasks
    if tasks == 1 or not plan.has_helpers:
        for task in range(tasks):
            run_task(plan, task)
        return
    publish(&plan.work_sharing, tasks)
    while True:
        task = claim(&plan.work_sharing)
        if task < 0:
            break
        run_task(plan, task)
        finish(&plan.work_sharing)
    while <Py_ssize_t>finished(&plan.work_sharing) < tasks:
        idle(turn, False)
        turn += 1


cdef void run_helper(Plan* plan) noexcept nogil:
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
            run_task(plan, task)
            finish(&plan.work_sharing)
            turn = 0
