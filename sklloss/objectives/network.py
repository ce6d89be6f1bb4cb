"""The objective of the neural networks: a loss over a fully connected network, with an L2 penalty."""

import importlib
import itertools

import numpy as np

from sklloss import kernels
from sklloss.arrays import threads
from sklloss.arrays.device import to_numpy
from sklloss.arrays.threads import single_threaded_blas
from sklloss.kernels.network import network as network_kernels
from sklloss.kernels.network.network import Rows

ACTIVATIONS = tuple(network_kernels.ACTIVATIONS)

# Numbers that are brought to another dtype at a time.
CAST = 1 << 18
# Threads that a network can make use of.
MOST_THREADS = 8


class NetworkObjective:
    """The weighted mean of a loss, plus alpha / 2 times the squared weights over the sum of sample weights.

    Parameters are one flat vector: the weight matrices, each (inputs, outputs) in C order, then the biases,
    which are not penalised.

    Parameters
    ----------
    widths : sequence of int
        Inputs, units of each hidden layer, outputs.
    activation : {"identity", "logistic", "tanh", "relu", "gelu", "silu"}
        Of the hidden layers; "gelu" is ``z * Phi(z)`` with the normal distribution function itself, "silu"
        ``z / (1 + exp(-z))``.
    dtype : float32 or float64
    loss : Loss, optional
        None for a network that only predicts.
    alpha : float
    n_threads : int or None
        As for `sklloss.arrays.threads.count`. Small networks and batches stay on one thread; results are
        the same bits for any number.
    """

    # where parameters live: NumPy has no `Device`
    device = None

    def __init__(self, widths, activation, dtype, loss=None, alpha=0.0, n_threads=None):
        self.widths = tuple(widths)
        self.dtype = np.dtype(dtype)
        self.alpha = float(alpha)
        self._n_threads = threads.check(n_threads)
        self._threads = None
        function, parameter, additive = None, 0.0, True
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
        self.size = self._network.size
        self.coefs = self._network.coefs

    def put(self, array):
        """An array, which may live elsewhere, as parameters are, to be written to; it may be the same."""
        array = to_numpy(array).astype(self.dtype, copy=False)
        return array if array.flags.writeable else array.copy()

    def get(self, array):
        """An array that lives there as NumPy's."""
        return array

    def copy(self, array):
        """A copy of a flat vector."""
        return array.copy()

    def is_finite(self, parameters):
        """Whether no parameter is NaN or infinite."""
        return bool(np.isfinite(parameters).all())

    def pack(self, coefs, intercepts):
        """Weight matrices and biases, which may live elsewhere, as a new flat vector."""
        return pack([to_numpy(part) for part in coefs], [to_numpy(part) for part in intercepts], self.dtype)

    def unpack(self, parameters):
        """New arrays from a flat vector: the list of weight matrices and the list of biases."""
        return unpack(parameters, self.widths)

    def running(self):
        """The context that epochs run in."""
        return single_threaded_blas()

    def rows(self, X, target=None, weight=None, codes=None):
        """Rows of X with their targets, ready for passes; none of them is copied."""
        return Rows(X, target, weight, codes)

    def epoch(self, rows, order, batch_size, parameters, **step):
        """Change parameters by one optimiser step per batch; the objective before each step, averaged."""
        return self._share(
            batch_size,
            lambda: self._network.epoch(rows, order, batch_size, parameters, penalty=self.alpha, **step),
        )

    def loss(self, rows, parameters):
        """The weighted mean of the loss, without the penalty."""
        with single_threaded_blas():
            total, weights = self._share(rows.n, lambda: self._network.loss_and_gradient(rows, parameters))
        return total / weights

    def value_and_gradient(self, rows, parameters):
        """The objective over all rows as one batch, and its gradient."""
        gradient = np.empty_like(parameters)
        with single_threaded_blas():
            total, weights = self._share(
                rows.n, lambda: self._network.loss_and_gradient(rows, parameters, gradient)
            )
        coefs = parameters[: self.coefs]
        gradient[: self.coefs] += self.alpha * coefs
        gradient /= weights
        squares = float(np.dot(coefs.astype(np.float64, copy=False), coefs))
        return (total + 0.5 * self.alpha * squares) / weights, gradient

    def predict(self, X, parameters):
        """Raw scores of shape (n, outputs), worked out in blocks of rows."""
        n, features = X.shape
        sparse = hasattr(X, "indptr")
        with single_threaded_blas():
            if X.dtype == self.dtype and not sparse:
                return self._scores(Rows(X), parameters)
            # Another dtype or width of indices is brought to ours block by block.
            scores = np.empty((n, self.widths[-1]), dtype=self.dtype)
            row = 4 + 2 * X.nnz // max(n, 1) if sparse else features
            step = max(64, CAST // row)
            for first in range(0, n, step):
                block = Rows(X[first : first + step].astype(self.dtype, copy=False))
                scores[first : first + step] = self._scores(block, parameters)
            return scores

    def _scores(self, rows, parameters):
        return self._share(rows.n, lambda: self._network.predict(rows, parameters))

    def _share(self, rows, run):
        """What ``run`` returns, which passes over batches of so many rows, with threads to help it."""
        if not self._network.divisible(rows):
            return run()
        if self._threads is None:
            self._threads = min(threads.count(self._n_threads), MOST_THREADS)
        if self._threads == 1:
            return run()
        self._network.gather()
        # The first range is the caller's own; the network needs no helper to come. One that comes too late
        # finds an empty list: its job must not keep the rows alive.
        own = [run]
        del run
        return threads.share(
            lambda first, _: self._network.help() if first else own.pop()(), self._threads, self._threads
        )[0]


def initial_parameters(widths, activation, random_state, dtype):
    """Glorot and Bengio's uniform start, drawn layer by layer: weights, then biases.

    Parameters
    ----------
    widths : sequence of int
    activation : str
    random_state : RandomState
    dtype : dtype

    Returns
    -------
    ndarray
        Flat, as `NetworkObjective` has it.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    factor = 2.0 if activation == "logistic" else 6.0
    coefs, intercepts = [], []
    for inputs, outputs in itertools.pairwise(widths):
        bound = np.sqrt(factor / (inputs + outputs))
        coefs.append(random_state.uniform(-bound, bound, (inputs, outputs)))
        intercepts.append(random_state.uniform(-bound, bound, outputs))
    return pack(coefs, intercepts, dtype)


def pack(coefs, intercepts, dtype):
    """Weight matrices and biases as a new flat vector."""
    return np.concatenate([np.ravel(part) for part in (*coefs, *intercepts)], dtype=dtype)


def unpack(parameters, widths):
    """New arrays from a flat vector: the list of weight matrices and the list of biases."""
    coefs, intercepts, at = [], [], 0
    for inputs, outputs in itertools.pairwise(widths):
        coefs.append(parameters[at : at + inputs * outputs].reshape(inputs, outputs).copy())
        at += inputs * outputs
    for outputs in widths[1:]:
        intercepts.append(parameters[at : at + outputs].copy())
        at += outputs
    return coefs, intercepts
