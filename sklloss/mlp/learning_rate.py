"""The learning rate range test for networks, and its plot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils import check_consistent_length, check_random_state, resample

from sklloss.arrays.device import device_of
from sklloss.data.checks import MatrixLike, check_integer, check_real, check_weight
from sklloss.mlp.base import STOCHASTIC, BaseMLP

__all__ = ["LearningRateFinderDisplay", "LearningRateSearch", "find_learning_rate"]

# Maximum number of rows on which the loss is evaluated after each step.
VALIDATION_ROWS = 2048
# The test ends when the loss has risen from its minimum by this fraction of its earlier decrease, and by at
# least MIN_INCREASE times the initial loss.
LOST_DECREASE = 0.5
MIN_INCREASE = 0.05
# Number of neighbouring losses averaged for the smoothed curve.
WINDOW = 5


@dataclass(frozen=True, eq=False)
class LearningRateSearch:
    """The result of `find_learning_rate`.

    Attributes
    ----------
    rates : ndarray of shape (n,)
        The learning rates that were tried, in increasing order.
    losses : ndarray of shape (n,)
        The loss after the step at each rate, without the penalty.
    smoothed_losses : ndarray of shape (n,)
        Averages over up to 5 neighbours.
    suggestion : float or None
        A rate to train with; None if the loss decreased at none of them.
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed_losses: NDArray[np.float64]
    suggestion: float | None


def find_learning_rate(
    estimator: BaseMLP,
    X: MatrixLike,
    y: MatrixLike,
    sample_weight: ArrayLike | None = None,
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    n_steps: int = 120,
) -> LearningRateSearch:
    """Run a learning rate range test and suggest a rate to train with.

    A new network takes ``n_steps`` steps, of one batch each, at rates that grow geometrically. At low rates
    the loss hardly changes, then it decreases faster and faster, and finally training diverges, which ends
    the test. The suggestion is the geometric mean of the rate at which the loss decreases fastest and the
    rate at which it is lowest.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        With a stochastic solver. It is neither changed nor required to be fitted. Its parameters for
        stopping and for learning rate schedules are ignored.
    X, y, sample_weight
        As for `fit`.
    lowest, highest : float, default=1e-7, 10
        The first and the last rate.
    n_steps : int, default=120
        Number of rates to try, at least 10.

    Returns
    -------
    LearningRateSearch

    Notes
    -----
    To avoid noise from batch to batch, the loss is evaluated on the training rows, or on 2048 of those with
    positive weight, drawn at random, if there are more. The test ends when the loss has risen again by half
    of its decrease. An integer ``random_state`` of the estimator makes the result reproducible.

    References
    ----------
    Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklloss import MLPRegressor, find_learning_rate
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = MLPRegressor(random_state=0)
    >>> rate = find_learning_rate(model, X, y).suggestion or 0.001  # None if the loss decreases at no rate
    >>> model = model.set_params(learning_rate_init=rate, learning_rate="one-cycle").fit(X, y)
    """
    if not isinstance(estimator, BaseMLP):
        raise TypeError(
            "estimator must be one of sklloss's networks (of a pipeline, its last step, with X as the steps "
            f"before transform it), got {type(estimator).__name__}"
        )
    if estimator.solver not in STOCHASTIC:
        raise ValueError(f"solver={estimator.solver!r} has no learning rate; it must be one of {STOCHASTIC}")
    lowest = check_real("lowest", lowest, 0.0, open_low=True, open_high=True)
    highest = check_real("highest", highest, lowest, open_low=True, open_high=True)
    rates = np.geomspace(lowest, highest, check_integer("n_steps", n_steps, 10))
    probe = clone(estimator).set_params(
        early_stopping=False, learning_rate="constant", verbose=False, warm_start=False
    )
    test = _RangeTest(rates)
    optimizer = probe._check_parameters()
    validation = _validation_rows(probe, X, y, sample_weight)
    datasets = probe._fit_data(X, y, sample_weight, validation, True)
    probe._train(optimizer, datasets, first=True, run=test)
    return test.result()


def _validation_rows(
    probe: BaseMLP, X: Any, y: Any, sample_weight: ArrayLike | None
) -> tuple[Any, Any, ArrayLike | None]:
    """The rows on which the loss is evaluated, and their weights: a sample of those with positive weight."""
    n = X.shape[0] if hasattr(X, "shape") else len(X)
    if n <= VALIDATION_ROWS or y is None:
        return X, y, sample_weight
    check_consistent_length(X, y)
    weight = check_weight(sample_weight, n, np.float64)
    rows = np.arange(n) if weight is None else np.flatnonzero(weight)
    rows = resample(
        rows,
        replace=False,
        n_samples=min(VALIDATION_ROWS, len(rows)),
        random_state=check_random_state(probe.random_state),
    )
    return _take(X, rows), _take(y, rows), None if weight is None else weight[rows]


def _take(data: Any, rows: NDArray[np.intp]) -> Any:
    """The given rows of an array of any namespace, a data frame, a sparse matrix or a list."""
    device = device_of(data)
    if device is not None:
        return device.xp.take(data, device.put(rows, np.int64), axis=0)
    if hasattr(data, "iloc"):
        return data.iloc[rows]
    if scipy.sparse.issparse(data):
        return data.tocsr()[rows]
    return data[rows] if hasattr(data, "shape") else [data[row] for row in rows]


class _RangeTest:
    """Replaces `sklloss.solvers.stochastic.train`; takes one step at each rate."""

    def __init__(self, rates: NDArray[np.float64]) -> None:
        self.rates = rates
        self.losses: list[float] = []

    def __call__(
        self,
        objective: Any,
        optimizer: Any,
        rows: Any,
        order: Any,
        parameters: Any,
        history: Any,
        options: Any,
    ) -> tuple[Any, int]:
        with objective.running():
            start = best = options.validate(parameters)[0]
            batch_at = len(order)
            for rate in self.rates:
                if batch_at >= len(order):
                    order, batch_at = order[options.random_state.permutation(len(order))], 0
                batch = order[batch_at : batch_at + options.batch_size]
                batch_at += options.batch_size
                steps = optimizer.steps(1, rate / optimizer.learning_rate_init)
                value = objective.epoch(rows, batch, len(batch), parameters, steps)
                loss = options.validate(parameters)[0]
                if not np.isfinite(value) or not np.isfinite(loss):
                    break
                self.losses.append(loss)
                best = min(best, loss)
                if loss - best > max(LOST_DECREASE * (start - best), MIN_INCREASE * abs(start)):
                    break
        history.loss_curve.append(best)
        return parameters, 1

    def result(self) -> LearningRateSearch:
        """The rates that were tried, their losses, and the suggested rate."""
        losses = np.array(self.losses)
        n = len(losses)
        if n < WINDOW:
            raise ValueError(
                f"training diverges at all learning rates from lowest={self.rates[0]:.3g} on: try a "
                "smaller one, or bring the columns of X (in a regression y too) to a common scale, "
                "such as with StandardScaler"
            )
        sums = np.convolve(losses, np.ones(WINDOW), mode="same")
        smoothed = sums / np.convolve(np.ones(n), np.ones(WINDOW), mode="same")
        low = int(np.argmin(smoothed))
        suggestion = None
        if low > 0:
            # Averages at the end may include the divergence: only the decrease up to the lowest one counts.
            steepest = int(np.argmin(np.diff(smoothed[: low + 1])))
            suggestion = float(np.sqrt(self.rates[steepest] * self.rates[low]))
        return LearningRateSearch(self.rates[:n].copy(), losses, smoothed, suggestion)


class LearningRateFinderDisplay:
    """The result of `find_learning_rate` as a matplotlib plot.

    Parameters
    ----------
    search : LearningRateSearch

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D
        The smoothed losses.
    points_ : matplotlib Line2D
        The losses.
    suggestion_line_ : matplotlib Line2D or None
        The vertical line at the suggested rate.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklloss import LearningRateFinderDisplay, MLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> display = LearningRateFinderDisplay.from_estimator(MLPRegressor(), X, y)  # doctest: +SKIP
    """

    ax_: Any
    figure_: Any
    line_: Any
    points_: Any
    suggestion_line_: Any

    def __init__(self, search: LearningRateSearch) -> None:
        self.search = search

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseMLP,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        *,
        lowest: float = 1e-7,
        highest: float = 10.0,
        n_steps: int = 120,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Run `find_learning_rate` and plot the result.

        Parameters
        ----------
        estimator, X, y, sample_weight, lowest, highest, n_steps
            As for `find_learning_rate`.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs
            Passed to the ``plot`` call for the smoothed losses.

        Returns
        -------
        LearningRateFinderDisplay
        """
        _pyplot()  # raises before the training if matplotlib is missing
        search = find_learning_rate(
            estimator, X, y, sample_weight, lowest=lowest, highest=highest, n_steps=n_steps
        )
        return cls(search).plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Plot the losses against the rates, on a logarithmic axis.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs
            Passed to the ``plot`` call for the smoothed losses.

        Returns
        -------
        LearningRateFinderDisplay
            This display, with its attributes set.
        """
        pyplot = _pyplot()
        if ax is None:
            _, ax = pyplot.subplots()
        search = self.search
        (self.points_,) = ax.plot(search.rates, search.losses, ".", color="0.7", label="loss")
        (self.line_,) = ax.plot(search.rates, search.smoothed_losses, **{"label": "smoothed", **kwargs})
        self.suggestion_line_ = None
        if search.suggestion is not None:
            self.suggestion_line_ = ax.axvline(
                search.suggestion, color="0.3", linestyle="--", label=f"suggestion: {search.suggestion:.2g}"
            )
        ax.set(xscale="log", xlabel="Learning rate", ylabel="Loss after the step")
        ax.legend(loc="best")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "LearningRateFinderDisplay needs matplotlib (pip install matplotlib); find_learning_rate returns "
            "the same curve as arrays without it"
        ) from error
    return pyplot
