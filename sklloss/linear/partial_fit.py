"""The stochastic solvers of the linear estimators, and `partial_fit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if

from sklloss._base import unchanged_on_error
from sklloss.arrays import threads
from sklloss.arrays.device import full_precision, to_device
from sklloss.data.checks import Array, MatrixLike, check_integer, check_real, dtype_of, is_auto, on_host
from sklloss.data.dataset import Dataset, Labels
from sklloss.data.targets import check_class_stream
from sklloss.linear.features import penalty_weights
from sklloss.objectives.linear import LinearObjective
from sklloss.solvers.base import Result
from sklloss.solvers.stochastic import Stream, adam, descend, sgd

STOCHASTIC: dict[str, Callable[..., Result]] = {"sgd": sgd, "adam": adam}


def check_stochastic(estimator: Any) -> None:
    """Check the parameters that only the stochastic solvers and `partial_fit` use, whatever the solver."""
    if not is_auto("batch_size", estimator.batch_size, "integer"):
        check_integer("batch_size", estimator.batch_size, 1)
    if not is_auto("learning_rate_init", estimator.learning_rate_init):
        check_real("learning_rate_init", estimator.learning_rate_init, 0.0, open_low=True, open_high=True)
    check_random_state(estimator.random_state)
    if estimator.solver in STOCHASTIC and estimator.l1_ratio != 0:
        raise ValueError(
            f"solver={estimator.solver!r} does not take an L1 penalty, got l1_ratio={estimator.l1_ratio}; "
            "use solver='auto', or l1_ratio=0"
        )


def stochastic_options(estimator: Any) -> dict[str, Any]:
    """The additional arguments of a stochastic solver, in which None is "auto"."""
    given = {name: getattr(estimator, name) for name in ("batch_size", "learning_rate_init")}
    options = {name: None if isinstance(value, str) else value for name, value in given.items()}
    return {**options, "random_state": check_random_state(estimator.random_state)}


def remember_fit(estimator: Any, data: Dataset) -> None:
    """Record how many rows a fit has seen, and the sum of their weights, for a later `partial_fit`."""
    n = data.n
    estimator.t_, estimator._weight_seen = n, float(n)
    if data.weight is not None:
        weight = data.weight.reshape(n, -1).mean(axis=1, dtype=np.float64)
        estimator.t_, estimator._weight_seen = int(np.count_nonzero(weight)), float(weight.sum())
    if hasattr(estimator, "_stream"):
        del estimator._stream


def _precise(part: Any) -> Any:
    """Part of a stream's state, in float64 even if a device had reduced it to float32."""
    return part.astype(np.float64) if isinstance(part, np.ndarray) else part


def has_no_l1(estimator: Any) -> bool:
    """Whether `partial_fit` is available; for `available_if`, an AttributeError that says why not."""
    if estimator.l1_ratio != 0:
        raise AttributeError(f"partial_fit does not take an L1 penalty, got l1_ratio={estimator.l1_ratio}")
    if estimator.monotonic_cst is not None:
        raise AttributeError("partial_fit does not take constraints, got monotonic_cst")
    return True


class StreamMixin:
    """What `partial_fit` of all linear estimators does with checked rows."""

    n_iter_: Array
    t_: int
    solver_: str

    def _learn(self, data, loss):
        """Make a pass over checked rows, from where the model is."""
        first = not hasattr(self, "coef_")
        if not first and self._has_offset:
            raise ValueError("partial_fit does not continue a fit with an offset")
        dtype = data.origin.dtype if first else dtype_of(self.coef_)
        learned = None if first else self._parameters()
        if learned is not None and learned[0].shape[0] != data.outputs:
            raise ValueError(f"y has {data.outputs} outputs, but the model has {learned[0].shape[0]}")
        if hasattr(self, "_stream"):
            # `to` moves the stream with the model.
            stream = Stream(**{name: _precise(on_host(part, name)) for name, part in self._stream.items()})
        else:
            stream = Stream() if first else Stream(self.t_, self._weight_seen)
        width = data.X.shape[1] + bool(self.fit_intercept)
        continues = stream.w is not None and stream.w.shape[1] == width
        if hasattr(data.X, "nnz") and continues:
            continues = not stream.center.any()
        # The parameters of the stream are those of X less the offsets that its first rows had.
        center = stream.center if continues else True
        passes = self._passes(data, loss, threads.count(self.n_threads), center=center)
        objective = self._stream_objective(passes, stream.weight + float(passes.row_weights().sum()))
        if first:
            stream.start(objective.coef(self._stream_start(objective)), passes.center)
        elif not continues:
            coef = np.column_stack(learned)[:, : passes.width].astype(np.float64)
            stream.start(passes.centered(coef), passes.center)
        with threads.single_threaded_blas(), full_precision(passes.device):
            mean = descend(objective, stream, adaptive=self.solver == "adam", **stochastic_options(self))
        if not np.isfinite(mean).all():
            raise ValueError(
                "partial_fit ended at parameters that are not finite: rescale the columns of X, or use a "
                "smaller learning_rate_init"
            )
        self._set_parameters(passes.uncentered(mean), data=data, loss=loss, dtype=dtype)
        self.n_iter_ = to_device(np.ones(objective.problems, dtype=np.int32), data.origin.device)
        self.t_ = stream.rows
        self.solver_ = "adam" if self.solver == "adam" else "sgd"
        self._stream, self._has_offset = stream.state(), False
        for name in ("_weight_seen", "loss_", "loss_curve_", "validation_loss_curve_"):
            if hasattr(self, name):
                delattr(self, name)
        return self


class PartialFitMixin(StreamMixin):
    """`partial_fit` for a linear classifier."""

    @available_if(has_no_l1)
    def partial_fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn from more rows: one pass over them in mini-batches.

        Available with every ``solver``, without an L1 penalty. With ``solver="adam"`` the steps are those of
        Adam, otherwise those of SGD, which are better for streams of small batches; both use ``batch_size``
        and ``learning_rate_init``. Training continues from the last `partial_fit`, or from a `fit` by any
        solver.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
            The rows, which are shuffled by ``random_state``.
        y : array-like
            Targets as for `fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever occur; required on the first call if y holds labels. If y is a matrix,
            whose columns are the classes, they must be sorted unless the columns have these names.
        sample_weight : array-like of shape (n_samples,), default=None
            As for `fit`.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is invalid, if ``classes`` is missing on the first call, or if y
            has other classes; the message names it. The estimator is left unchanged.

        Notes
        -----
        The objective is that of `fit` on all rows passed so far, including those of an earlier `fit`:
        ``C * sum_i w_i loss_i + 0.5 * ||coef||**2``. So the penalty counts once for the whole stream, and its
        share per row decreases. A row that is passed again counts again, as it does for `fit`: k passes over
        the same rows approach the optimum for ``k * C``, which is close to that for C if there are many more
        rows than features; to compensate, divide C by k. Learning rates fall with the number of rows seen,
        and the coefficients are a running mean of those after each batch, in which early ones fade.

        ``t_`` counts the rows. ``loss_``, ``loss_curve_`` and ``validation_loss_curve_``, which describe a
        fit, are removed.
        """
        with unchanged_on_error(self):
            return self._partial_fit(X, y, classes, sample_weight)

    def _partial_fit(self, X, y, classes, sample_weight):
        loss = self._check_parameters()
        first = not hasattr(self, "coef_")
        labels, learned = (None, None) if first else (Labels(self._kind, self._labels()), self.coef_)
        data = check_class_stream(self, X, y, sample_weight, classes, self._coder, labels, learned)
        return self._learn(data, loss)

    def _stream_objective(self, passes, weight):
        """The objective over the latest rows of a stream, of ``weight`` in all."""
        return LinearObjective(passes, self.C, penalty_weights=penalty_weights(self))
