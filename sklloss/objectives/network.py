"""The objective of the neural networks: a loss over a fully connected network, with an L2 penalty.

`NetworkObjective` is its interface, `NumpyNetworkObjective` the implementation by compiled kernels.
`sklloss.objectives.device_network` has the implementation for arrays of other libraries.
"""

from __future__ import annotations

import abc
import importlib
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from sklloss import kernels
from sklloss.arrays import threads
from sklloss.arrays.device import Device, to_numpy
from sklloss.arrays.ops import Array, Steps
from sklloss.arrays.threads import single_threaded_blas
from sklloss.data.dataset import Dataset
from sklloss.kernels import data as data_kernels
from sklloss.kernels.network import network as network_kernels  # type: ignore[attr-defined]
from sklloss.losses import Loss

# Numbers per block of X that is converted to another dtype, which bounds the size of the copy.
CONVERTED_NUMBERS = 1 << 18
# Multiplications of the epochs that one call takes, some 1 ms: what Python does between two calls is little
# beside that. What a row costs besides its own counts as so many.
CALL_WORK = 5e7
ROW_WORK = 1000.0


class NetworkObjective(abc.ABC):
    """The weighted mean of a loss, plus alpha / 2 times the squared weights over the sum of sample weights.

    Parameters are one flat vector: the weight matrices, each (inputs, outputs) in C order, then the biases,
    which are not penalised.

    Parameters
    ----------
    widths : sequence of int
        Inputs, units of each hidden layer, outputs.
    dtype : float32 or float64
    alpha : float
    device : Device, optional
        Where parameters live; None for NumPy.

    Attributes
    ----------
    size, coefs : int
        The number of parameters, and the number of weights, which come first.
    """

    def __init__(
        self, widths: Sequence[int], dtype: DTypeLike, alpha: float, device: Device | None = None
    ) -> None:
        self.widths: tuple[int, ...] = tuple(widths)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.alpha: float = float(alpha)
        self.device: Device | None = device
        self.coefs: int = sum(inputs * outputs for inputs, outputs in itertools.pairwise(self.widths))
        self.size: int = self.coefs + sum(self.widths[1:])
        self._xp: Any = np if device is None else device.xp
        # NumPy's method takes a fifth of the time of its function.
        self._reshape: Callable[..., Array] = np.ndarray.reshape if device is None else device.xp.reshape

    @abc.abstractmethod
    def put(self, array: Array) -> Array:
        """A writable array on the device of the parameters and in their dtype, from one of any namespace.

        It may be the same array.
        """

    def get(self, array: Array) -> np.ndarray:
        """A NumPy array from one on the device of the parameters."""
        return array if self.device is None or isinstance(array, np.ndarray) else self.device.get(array)

    def copy(self, array: Array) -> Array:
        """A copy of a flat vector of any namespace, on the device of the parameters."""
        moved = self.put(array)
        return self._xp.asarray(moved, copy=True) if moved is array else moved

    def is_finite(self, parameters: Array) -> bool:
        """Whether no parameter is NaN or infinite."""
        return bool(self._xp.all(self._xp.isfinite(parameters)))

    def pack(self, coefs: Sequence[Array], intercepts: Sequence[Array]) -> Array:
        """Weight matrices and biases, of any namespace, as a new flat vector."""
        flat = [self._reshape(self.put(coef), (-1,)) for coef in coefs]
        return self._xp.concat(flat + [self.put(intercept) for intercept in intercepts])

    def unpack(self, parameters: Array) -> tuple[list[Array], list[Array]]:
        """New arrays from a flat vector: the list of weight matrices and the list of biases."""
        coefs, intercepts = unpack(self.put(parameters), self.widths, self._reshape)
        return (
            [self._xp.asarray(part, copy=True) for part in coefs],
            [self._xp.asarray(part, copy=True) for part in intercepts],
        )

    @abc.abstractmethod
    def running(self) -> AbstractContextManager[Any]:
        """The context in which epochs must run."""

    @abc.abstractmethod
    def rows(self, data: Dataset) -> Any:
        """The data in the form that passes read, on the device of the parameters; X is not copied."""

    @abc.abstractmethod
    def epoch(
        self, rows: Any, order: np.ndarray | None, batch_size: int, parameters: Array, steps: Steps
    ) -> float:
        """Change parameters by one optimiser step per batch.

        Parameters
        ----------
        rows : object
            From `rows`.
        order : ndarray of intp or None
            The rows of the epoch, batch after batch; None for all of them in the order of X.
        batch_size : int
            Rows per batch; the last batch may be shorter.
        parameters : array of shape (size,)
        steps : Steps
            One for each batch.

        Returns
        -------
        float
            The objective before each step, averaged over rows.
        """

    def epochs_at_once(self, n: int) -> int:
        """How many epochs over n rows to take in one call of `epochs`."""
        return 1

    def epochs(
        self,
        rows: Any,
        order: np.ndarray | None,
        count: int,
        batch_size: int,
        parameters: Array,
        steps: Steps,
    ) -> list[float]:
        """Several epochs, no more than `epochs_at_once` says; what `epoch` returns, for each.

        ``order`` has the orders of all epochs, one after the other, and ``steps`` the steps of all of them.
        """
        assert count == 1
        return [self.epoch(rows, order, batch_size, parameters, steps)]

    @abc.abstractmethod
    def loss(self, rows: Any, parameters: Array) -> float:
        """The weighted mean of the loss, without the penalty."""

    @abc.abstractmethod
    def value_and_gradient(self, rows: Any, parameters: Array) -> tuple[float, np.ndarray]:
        """The objective over all rows as one batch, and its gradient as a NumPy array."""

    @abc.abstractmethod
    def predict(self, X: Array, parameters: Array) -> Array:
        """Raw scores of shape (n, outputs), computed in blocks of rows."""


class NumpyNetworkObjective(NetworkObjective):
    """A `NetworkObjective` over NumPy arrays and CSR matrices, by compiled kernels.

    Parameters
    ----------
    widths, dtype, alpha
        See `NetworkObjective`.
    activation : str
        Activation of the hidden layers, a key of `sklloss.arrays.ops.ACTIVATIONS`.
    loss : Loss, optional
        None for a network that only predicts.
    n_threads : int or None
        See `sklloss.arrays.threads.count`. Small networks and batches stay on one thread; results are the
        same bits for any number.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str,
        dtype: DTypeLike,
        loss: Loss | None = None,
        alpha: float = 0.0,
        n_threads: int | None = None,
    ) -> None:
        super().__init__(widths, dtype, alpha)
        self._n_threads = threads.check(n_threads)
        self._threads: int | None = None
        function, parameter, additive = None, 0.0, True
        self._compiled = loss is None or loss.kernel is not None
        if loss is not None and loss.kernel is not None:
            function, parameter = kernels.get(loss.kernel, dtype), loss.kernel_parameter
            additive = loss.additive
        elif loss is not None:
            function = loss.evaluate_batch
        build = importlib.import_module(f"sklloss.kernels.isa.{kernels.chosen}")
        layers = build.network_table()[self.dtype.name]
        self._network = network_kernels.Network(
            self.widths, activation, self.dtype, layers, function, parameter=parameter, additive=additive
        )

    def put(self, array: Array) -> np.ndarray:
        """See `NetworkObjective.put`."""
        array = to_numpy(array)
        if array.dtype != self.dtype or not array.flags.writeable:
            array = array.astype(self.dtype)
        return array

    def running(self) -> AbstractContextManager[Any]:
        """A context that limits BLAS to one thread."""
        return single_threaded_blas()

    def rows(self, data: Dataset) -> data_kernels.Dataset:
        """See `NetworkObjective.rows`; nothing is copied."""
        return data_kernels.Dataset(
            data.X, data.values, data.codes, data.weight, outputs=data.outputs, offset=data.offset
        )

    def epoch(
        self,
        rows: data_kernels.Dataset,
        order: np.ndarray | None,
        batch_size: int,
        parameters: Array,
        steps: Steps,
    ) -> float:
        """See `NetworkObjective.epoch`."""
        return self.epochs(rows, order, 1, batch_size, parameters, steps)[0]

    def epochs_at_once(self, n: int) -> int:
        """See `NetworkObjective.epochs_at_once`."""
        if not self._compiled:
            return 1
        return max(1, int(CALL_WORK / ((3.0 * self.size + ROW_WORK) * n)))

    def epochs(
        self,
        rows: data_kernels.Dataset,
        order: np.ndarray | None,
        count: int,
        batch_size: int,
        parameters: Array,
        steps: Steps,
    ) -> list[float]:
        """See `NetworkObjective.epochs`."""
        n_threads = self._threads_for(batch_size)
        losses: list[float] = self._network.epochs(
            rows, order, count, batch_size, parameters, steps, self.alpha, n_threads
        )
        return losses

    def loss(self, rows: data_kernels.Dataset, parameters: Array) -> float:
        """See `NetworkObjective.loss`."""
        with single_threaded_blas():
            total, weights = self._network.loss_and_gradient(
                rows, parameters, None, self._threads_for(rows.rows)
            )
        return float(total / weights)

    def value_and_gradient(self, rows: data_kernels.Dataset, parameters: Array) -> tuple[float, np.ndarray]:
        """See `NetworkObjective.value_and_gradient`."""
        gradient = np.empty_like(parameters)
        with single_threaded_blas():
            total, weights = self._network.loss_and_gradient(
                rows, parameters, gradient, self._threads_for(rows.rows)
            )
        coefs = parameters[: self.coefs]
        gradient[: self.coefs] += self.alpha * coefs
        gradient /= weights
        squares = float(np.dot(coefs.astype(np.float64, copy=False), coefs))
        return (total + 0.5 * self.alpha * squares) / weights, gradient

    def predict(self, X: Array, parameters: Array) -> np.ndarray:
        """See `NetworkObjective.predict`."""
        n, features = X.shape
        sparse = hasattr(X, "indptr")
        with single_threaded_blas():
            if X.dtype == self.dtype and not sparse:
                return self._scores(X, parameters)
            # X of another dtype, or CSR with indices of another width, is converted block by block.
            scores = np.empty((n, self.widths[-1]), dtype=self.dtype)
            numbers_per_row = 4 + 2 * X.nnz // max(n, 1) if sparse else features
            step = max(64, CONVERTED_NUMBERS // numbers_per_row)
            for first in range(0, n, step):
                block = X[first : first + step].astype(self.dtype, copy=False)
                scores[first : first + step] = self._scores(block, parameters)
            return scores

    def _scores(self, X: Array, parameters: Array) -> np.ndarray:
        rows = data_kernels.Dataset(X, outputs=self.widths[-1])
        scores: np.ndarray = self._network.predict(rows, parameters, self._threads_for(rows.rows))
        return scores

    def _threads_for(self, batch_rows: int) -> int:
        """How many threads to share batches of that many rows among; CPUs are counted if there can be any."""
        if not self._network.can_share_work(batch_rows):
            return 1
        if self._threads is None:
            self._threads = threads.count(self._n_threads)
        return self._threads


def initial_parameters(
    widths: Sequence[int], activation: str, random_state: np.random.RandomState, dtype: DTypeLike
) -> np.ndarray:
    """Initial parameters by Glorot and Bengio's uniform distribution, drawn layer by layer.

    Parameters
    ----------
    widths : sequence of int
    activation : str
    random_state : RandomState
    dtype : dtype

    Returns
    -------
    ndarray
        A flat vector, as `NetworkObjective` takes it.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    factor = 2.0 if activation == "logistic" else 6.0
    coefs, intercepts = [], []
    for inputs, outputs in itertools.pairwise(widths):
        bound = np.sqrt(factor / (inputs + outputs))
        # Drawn in scikit-learn's order: the weights of a layer, then its biases.
        coefs.append(random_state.uniform(-bound, bound, inputs * outputs))
        intercepts.append(random_state.uniform(-bound, bound, outputs))
    return np.concatenate([*coefs, *intercepts], dtype=np.dtype(dtype))


def unpack(
    parameters: Array, widths: Sequence[int], reshape: Callable[..., Array] = np.ndarray.reshape
) -> tuple[list[Array], list[Array]]:
    """Views of a flat vector: the list of weight matrices and the list of biases."""
    coefs, intercepts, start = [], [], 0
    for inputs, outputs in itertools.pairwise(widths):
        coefs.append(reshape(parameters[start : start + inputs * outputs], (inputs, outputs)))
        start += inputs * outputs
    for outputs in widths[1:]:
        intercepts.append(parameters[start : start + outputs])
        start += outputs
    return coefs, intercepts
