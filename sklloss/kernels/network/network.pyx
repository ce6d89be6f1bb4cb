"""Trains a fully connected network on batches of rows: forward, loss, backward, optimiser step.

Parameters are one flat vector: the weight matrices, each (inputs, outputs) in C order, then the biases.
A batch is processed in blocks of rows that stay in cache. No loop over batches holds the GIL, allocates
memory or touches a Python object; Ctrl-C is checked for about every 20 ms.
"""

import numpy as np

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.pycapsule cimport PyCapsule_GetPointer
from cython cimport floating as real
from libc.string cimport memcmp, memcpy, memset

from sklloss.kernels.common cimport check_signals, gemm
from sklloss.kernels.data cimport FAILED, Batch, Call, Dataset, Workspace, batch_kernel, bind
from sklloss.kernels.network.types cimport (
    Activation,
    LayerKernels,
    Prefetch,
    SparseRows,
    Step,
    step_kernel,
)
from sklloss.kernels.sharing cimport Pieces, Task, helpers_of, next_piece, share_with

cdef enum:
    MAX_PANEL_BYTES = 128

include "pieces.pxi"


cdef struct Capacity:
    # rows for which memory is allocated, and whether there is memory for a backward pass
    Py_ssize_t working           # of a block
    Py_ssize_t copied            # of X
    Py_ssize_t gathered          # of targets
    Py_ssize_t scored
    Py_ssize_t trains


cdef void* address(array, bint single, tuple shape, name) except? NULL:
    """The address of a writable, C-contiguous array of that shape, in float32 or float64."""
    cdef float[::1] floats
    cdef double[::1] doubles
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if len(shape) > 1:
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} must be C-contiguous")
        array = array.reshape(-1)
    if single:
        floats = array
        return &floats[0]
    doubles = array
    return &doubles[0]


cdef const LayerKernels* layers_of(capsule) except NULL:
    return <const LayerKernels*>PyCapsule_GetPointer(capsule, "sklloss.layer_kernels")


cdef const Activation* activation_of(const LayerKernels* kernels, str name) except NULL:
    """The activation of that name."""
    cdef const Activation* activation = kernels.activations
    while activation.name != NULL:
        if activation.name.decode() == name:
            return activation
        activation += 1
    raise ValueError(f"unknown activation {name!r}")


def activation_names(layers):
    """The names of a build's activations."""
    cdef const Activation* activation = layers_of(layers).activations
    names = []
    while activation.name != NULL:
        names.append(activation.name.decode())
        activation += 1
    return names


cdef class Network(Task):
    """A fully connected network with a loss, and its working memory.

    One thread at a time runs a pass. Large blocks of rows are shared with up to ``n_threads - 1`` others, at
    most 7; the result has the same bits.

    Parameters
    ----------
    widths : sequence of int
        Inputs, units of each hidden layer, outputs.
    activation : str
        Activation of the hidden layers, one of `activation_names`.
    dtype : float32 or float64
    layers : PyCapsule
        The kernels of that dtype, from a build's ``network_table()``.
    loss : PyCapsule or callable, optional
        A loss kernel of that dtype; or ``f(raw, target, codes, weight)``, which overwrites raw scores with
        the gradient of the weighted sum of losses and returns that sum.
    parameter : float
        The parameter of the loss.
    additive : bool
        True if the loss of a batch is the sum over its rows. A callable always receives whole batches.
    """

    cdef Plan plan
    cdef Capacity capacity
    cdef list memory              # of arrays whose size is known from the start
    cdef list buffers             # of those whose size the batches determine
    cdef Call call
    cdef object dtype
    cdef bint single
    cdef bint has_loss
    cdef readonly tuple widths

    def __init__(
        self, widths, activation, dtype, layers, loss=None, *, double parameter=0.0, bint additive=True
    ):
        cdef Plan* plan = &self.plan
        cdef Py_ssize_t layer, at = 0
        memset(plan, 0, sizeof(Plan))
        memset(&self.capacity, 0, sizeof(Capacity))
        self.dtype = np.dtype(dtype)
        self.single = self.dtype == np.float32
        self.widths = tuple(int(width) for width in widths)
        if len(self.widths) < 2 or min(self.widths) < 1 or max(self.widths) > 2**31 - 1:
            raise ValueError(f"widths must be two or more positive integers, got {self.widths}")
        self.memory = []
        self.buffers = []
        plan.single = self.single
        plan.item = self.dtype.itemsize
        plan.kernels = layers_of(layers)
        plan.activation = activation_of(plan.kernels, activation)
        plan.identity = activation_of(plan.kernels, "identity")
        plan.layers = len(self.widths) - 1
        plan.widths = <Py_ssize_t*>self._allocate(self.memory, plan.layers + 1, sizeof(Py_ssize_t))
        plan.coef_at = <Py_ssize_t*>self._allocate(self.memory, plan.layers, sizeof(Py_ssize_t))
        plan.bias_at = <Py_ssize_t*>self._allocate(self.memory, plan.layers, sizeof(Py_ssize_t))
        for layer in range(plan.layers + 1):
            plan.widths[layer] = self.widths[layer]
        for layer in range(plan.layers):
            plan.coef_at[layer] = at
            at += plan.widths[layer] * plan.widths[layer + 1]
            plan.row_work += 3.0 * <double>plan.widths[layer] * <double>plan.widths[layer + 1]
        plan.coefs = at
        for layer in range(plan.layers):
            plan.bias_at[layer] = at
            at += plan.widths[layer + 1]
        plan.size = at
        plan.active = <void**>self._allocate(self.memory, plan.layers + 1, sizeof(void*))
        plan.slope = <void**>self._allocate(self.memory, plan.layers + 1, sizeof(void*))
        plan.delta = <void**>self._allocate(self.memory, plan.layers + 1, sizeof(void*))
        plan.packed = <void**>self._allocate(self.memory, plan.layers + 1, sizeof(void*))
        plan.pieces = <Py_ssize_t*>self._allocate(self.memory, plan.layers, sizeof(Py_ssize_t))
        plan.squares = <double*>self._allocate(self.memory, plan.layers * MAX_PIECES, sizeof(double))
        plan.batch.outputs = plan.widths[plan.layers]
        plan.batch.parameter = parameter
        plan.buffers.single = self.single
        # a piece's numbers in cache lines of their own
        plan.sums_step = (2 * plan.batch.outputs + 7) // 8 * 8
        plan.scratch_step = (2 * plan.batch.outputs + 64 + 15) // 16 * 16
        plan.sums = <double*>self._allocate(self.memory, MAX_PIECES * plan.sums_step, sizeof(double))
        plan.scratch = self._allocate(self.memory, MAX_PIECES * plan.scratch_step, plan.item)
        self.has_loss = loss is not None
        if loss is not None:
            self.call = bind(loss, self.single, &plan.batch, &plan.loss)
        plan.additive = additive and self.call is None

    @property
    def size(self):
        """The number of parameters: ``coefs`` weights, then the biases."""
        return self.plan.size

    @property
    def coefs(self):
        """The number of weights."""
        return self.plan.coefs

    cdef char* _allocate(self, list store, Py_ssize_t count, size_t size) except? NULL:
        """Zeroed memory, aligned to a cache line, that lives as long as the list; NULL if ``count`` is 0.

        After it comes as much as a panel of gemm.h may read beyond a row.
        """
        if count == 0:
            return NULL
        block = bytearray(count * size + 64 + MAX_PANEL_BYTES)
        store.append(block)
        cdef size_t address = <size_t>PyByteArray_AS_STRING(block)
        return <char*>((address + 63) & ~<size_t>63)

    cdef int _reserve(self, Dataset data, Py_ssize_t count, bint ordered, bint gradient) except -1:
        """Allocate working memory for batches of up to ``count`` rows, unless there is enough.

        The capacity is recorded after the memory is allocated: a MemoryError leaves a consistent state.
        """
        cdef Plan* plan = &self.plan
        cdef Capacity need = self.capacity
        cdef Py_ssize_t layer, panel = plan.kernels.panel, item = plan.item, outputs = plan.batch.outputs
        cdef Py_ssize_t block = self.block(data.sparse), rows = min(block, max(count, 1))
        plan.block = block
        plan.input.sparse = data.sparse
        plan.input.x = data.x
        plan.input.offset = data.offset
        plan.input.row_step = data.row_step
        plan.input.column_step = data.column_step
        plan.input.csr.values = data.x
        plan.input.csr.columns = data.columns
        plan.input.csr.row_starts = data.row_starts
        plan.input.csr.long_index = data.long_index
        need.working = max(need.working, rows)
        need.trains = need.trains or gradient
        if must_copy(&plan.input, ordered, plan.widths[0]):
            need.copied = max(need.copied, rows)
        if ordered:
            need.gathered = max(need.gathered, count)
        if not plan.additive and count > block:
            need.scored = max(need.scored, count)
        if memcmp(&need, &self.capacity, sizeof(Capacity)) == 0:
            return 0
        memset(&self.capacity, 0, sizeof(Capacity))
        self.buffers = []
        for layer in range(1, plan.layers + 1):
            plan.active[layer] = self._allocate(self.buffers, need.working * plan.widths[layer], item)
        plan.active[0] = self._allocate(self.buffers, need.copied * plan.widths[0], item)
        if need.trains:
            plan.gradient = self._allocate(self.buffers, plan.size, item)
            for layer in range(1, plan.layers):
                plan.delta[layer] = self._allocate(self.buffers, need.working * plan.widths[layer], item)
                if plan.activation.stores_slope:
                    plan.slope[layer] = self._allocate(self.buffers, need.working * plan.widths[layer], item)
            for layer in range(1, plan.layers + 1 if panel else 0):
                plan.packed[layer] = self._allocate(
                    self.buffers, need.working * ((plan.widths[layer] + panel - 1) // panel * panel), item
                )
        plan.buffers.target = self._allocate(self.buffers, need.gathered * outputs, item)
        plan.buffers.weight = self._allocate(self.buffers, need.gathered * outputs, item)
        plan.buffers.codes = <Py_ssize_t*>self._allocate(self.buffers, need.gathered, sizeof(Py_ssize_t))
        plan.raw = self._allocate(self.buffers, need.scored * outputs, item)
        self.capacity = need
        return 0

    cdef int _check(self, Dataset data, bint targets) except -1:
        if data.single != self.single:
            raise ValueError(f"X is {data.arrays[0].dtype}, the network is {self.dtype}")
        if data.features != self.widths[0]:
            raise ValueError(f"X has {data.features} columns, the network takes {self.widths[0]}")
        if not targets:
            return 0
        if not self.has_loss:
            raise ValueError("this network was made without a loss")
        if data.target == NULL and data.codes == NULL:
            raise ValueError("the rows have no targets")
        if data.outputs != self.plan.batch.outputs:
            raise ValueError(f"the target has {data.outputs} columns, the network {self.plan.batch.outputs}")
        return 0

    def can_share_work(self, Py_ssize_t rows):
        """Whether batches of this many rows are large enough to be split among threads."""
        rows = min(rows, self.block(False))
        return piece_count((<double>rows + STEP_ROWS) * self.plan.coefs, MAX_PIECES, 1) > 1

    cdef void run(self, Pieces* pieces) noexcept nogil:
        cdef Py_ssize_t piece = next_piece(pieces), bad
        while piece >= 0:
            bad = run_piece(&self.plan, piece)
            if bad != -1:
                self.fail(pieces, bad)
            piece = next_piece(pieces)

    cdef void* _vector(self, array, name) except NULL:
        """The address of a flat vector of parameters."""
        return address(array, self.single, (self.plan.size,), name)

    cpdef Py_ssize_t block(self, bint sparse) noexcept:
        """Rows per block, so that the activations of a block stay in cache.

        There are at least enough rows to outweigh reading and writing the gradient once per block.
        """
        cdef Py_ssize_t layer, total = 0
        # rows of a CSR matrix are not copied
        for layer in range(1 if sparse else 0, self.plan.layers + 1):
            total += self.plan.widths[layer]
        total *= <Py_ssize_t>self.dtype.itemsize
        return max(MIN_BLOCK_ROWS, min(1024, <Py_ssize_t>MAX_BLOCK_BYTES // total))

    def epochs(
        self,
        Dataset data,
        const Py_ssize_t[::1] order,
        Py_ssize_t count,
        Py_ssize_t batch_rows,
        parameters,
        steps,
        double penalty=0.0,
        Py_ssize_t n_threads=1,
    ):
        """Epochs one after the other, without Python between them: an optimiser step for each batch of rows.

        Parameters and moments change in place.

        Parameters
        ----------
        data : Dataset of sklloss.kernels.data
        order : array of intp, or None for the rows in the order of X
            The orders of all epochs, each of the same length, one after the other.
        count : int
            The number of epochs.
        batch_rows : int
            Rows per batch; the last of an epoch may be shorter.
        parameters : array of shape (size,)
        steps : AdamSteps or SGDSteps of sklloss.arrays.ops
            One for each batch of all epochs.
        penalty : float
            alpha: each batch's loss gains alpha / 2 times the sum of squared weights, divided by the sum of
            the batch's sample weights.
        n_threads : int

        Returns
        -------
        list of float
            For each epoch the penalised loss before each step, averaged over the batches by their numbers of
            rows.
        """
        cdef Plan* plan = &self.plan
        cdef Step step
        cdef Py_ssize_t n = data.rows, batches, i
        cdef double[::1] losses
        self._check(data, True)
        if count < 1:
            raise ValueError(f"count must be 1 or more, got {count}")
        if order is not None:
            n = order.shape[0] // count
            if n * count != order.shape[0]:
                raise ValueError(f"an order of {order.shape[0]} rows is not that of {count} epochs")
            for i in range(n * count):
                if not 0 <= order[i] < data.rows:
                    raise ValueError(f"order has {order[i]}, but there are {data.rows} rows")
        if n < 1 or batch_rows < 1:
            raise ValueError(f"an epoch needs rows and batches of rows, got {n} and {batch_rows}")
        memset(&step, 0, sizeof(Step))
        batches = (n + batch_rows - 1) // batch_rows
        self._read_steps(steps, batches * count, &step)
        batch_rows = min(batch_rows, n)
        losses = np.empty(count)
        self._reserve(data, batch_rows, order is not None, True)
        step.parameters = self._vector(parameters, "parameters")
        step.gradient = plan.gradient
        step.size = plan.size
        step.penalised = plan.coefs
        step.penalty = penalty
        plan.current.order = &order[0] if order is not None else NULL
        plan.current.parameters = step.parameters
        plan.helpers = helpers_of(min(n_threads, MAX_PIECES))
        with nogil:
            for i in range(count):
                losses[i] = run_epoch(self, data, n, batch_rows, &step)
                next_epoch(plan, n, batches)
        return [losses[i] for i in range(count)]

    cdef int _read_steps(self, steps, Py_ssize_t batches, Step* step) except -1:
        """Read what all steps of an epoch share into ``step``, and what differs into the plan."""
        cdef Work* work = &self.plan.current
        cdef const double[::1] rates = steps.rates
        cdef const double[::1] decays
        if rates.shape[0] != batches:
            raise ValueError(f"rates must hold one number for each batch, got {rates.shape[0]}")
        work.rates = &rates[0]
        work.weight_decays = NULL
        if steps.kernel == "adam":
            work.take_step = self.plan.kernels.adam
            step.first = self._vector(steps.first, "first")
            step.second = self._vector(steps.second, "second")
            step.decay = steps.beta_1
            step.decay_second = steps.beta_2
            step.epsilon = steps.epsilon
            if steps.weight_decays is not None:
                decays = steps.weight_decays
                if decays.shape[0] != batches:
                    raise ValueError(
                        f"weight_decays must hold one number for each batch, got {decays.shape[0]}"
                    )
                work.weight_decays = &decays[0]
        elif steps.kernel == "sgd":
            work.take_step = self.plan.kernels.sgd
            step.first = self._vector(steps.velocity, "velocity")
            step.decay = steps.momentum
            step.nesterov = steps.nesterov
        else:
            raise ValueError(f"there is a kernel for the steps of 'adam' and 'sgd', not {steps.kernel!r}")
        return 0

    def loss_and_gradient(self, Dataset data, parameters, gradient=None, Py_ssize_t n_threads=1):
        """The loss summed by weight over all rows, and the sum of the weights.

        Parameters
        ----------
        data : Dataset of sklloss.kernels.data
        parameters : array of shape (size,)
        gradient : array of shape (size,), optional
            Filled with the gradient of that sum.
        n_threads : int

        Returns
        -------
        tuple of float
        """
        cdef Plan* plan = &self.plan
        cdef double loss = 0.0, weights = 0.0
        cdef void* gradient_out = NULL
        self._check(data, True)
        self._reserve(data, data.rows, False, gradient is not None)
        plan.current.order = NULL
        plan.current.parameters = self._vector(parameters, "parameters")
        if gradient is not None:
            gradient_out = self._vector(gradient, "gradient")
        if data.rows == 0:
            raise ValueError("there are no rows")
        plan.helpers = helpers_of(min(n_threads, MAX_PIECES))
        with nogil:
            run_batch(self, data, 0, data.rows, gradient_out != NULL, NULL, &loss, &weights)
        if gradient_out != NULL:
            memcpy(gradient_out, plan.gradient, plan.size * plan.item)
        return loss, weights

    def predict(self, Dataset data, parameters, Py_ssize_t n_threads=1):
        """Raw scores of shape (n, outputs)."""
        cdef Plan* plan = &self.plan
        cdef void* scores
        self._check(data, False)
        self._reserve(data, data.rows, False, False)
        out = np.empty((data.rows, self.plan.batch.outputs), dtype=self.dtype)
        plan.current.order = NULL
        plan.current.parameters = self._vector(parameters, "parameters")
        scores = address(out, self.single, out.shape, "out")
        plan.helpers = helpers_of(min(n_threads, MAX_PIECES))
        with nogil:
            run_predict(self, data.rows, scores)
        return out


include "passes.pxi"


# For tests of a build's kernels:


def apply_layer(layers, z, bias, activation, slope=None):
    """Overwrite z of shape (rows, width) with f(z + bias), as a layer does, and slope with f'."""
    cdef bint single = z.dtype == np.float32
    activation_of(layers_of(layers), activation).forward(
        address(z, single, z.shape, "z"), NULL if slope is None else address(slope, single, z.shape, "slope"),
        address(bias, single, z.shape[1:], "bias"), z.shape[0], z.shape[1],
    )


def has_products(layers):
    """Whether a build has its own matrix products, rather than using BLAS."""
    return layers_of(layers).panel != 0


def multiply(layers, a, b, bint transposed=False):
    """a @ b, or a @ b.T if transposed, by the matrix product of a build."""
    cdef bint single = a.dtype == np.float32
    if not has_products(layers):
        raise ValueError("this build has no matrix products")
    out = np.empty((a.shape[0], b.shape[0 if transposed else 1]), a.dtype)
    layers_of(layers).product(
        address(a, single, a.shape, "a"), a.shape[1], address(b, single, b.shape, "b"), b.shape[1],
        transposed, address(out, single, out.shape, "out"), out.shape[1], out.shape[0], out.shape[1],
        a.shape[1],
    )
    return out


def multiply_outer(layers, a, b, out=None, bint packed=True):
    """a.T @ b, added to ``out`` if that is given; b is packed, or read in place."""
    cdef const LayerKernels* kernels = layers_of(layers)
    cdef bint single = a.dtype == np.float32, add = out is not None
    cdef Py_ssize_t k = len(b), n = b.shape[1]
    cdef void* memory
    if not has_products(layers):
        raise ValueError("this build has no matrix products")
    # where b is not packed there is memory of a panel after it
    panels = np.zeros(k * ((n + kernels.panel - 1) // kernels.panel * kernels.panel) + kernels.panel, a.dtype)
    memory = address(panels, single, panels.shape, "panels")
    out = np.empty((a.shape[1], n), a.dtype) if out is None else out.copy()
    if packed:
        kernels.pack(address(b, single, b.shape, "b"), n, k, n, memory, 0, k)
    else:
        panels[: b.size] = b.reshape(-1)
    kernels.outer(
        address(a, single, a.shape, "a"), a.shape[1], memory, 0 if packed else n,
        address(out, single, out.shape, "out"), a.shape[1], n, k, add, NULL,
    )
    return out
