"""The linear regressor with a penalty chosen by cross-validation."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any, Self

import joblib
import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import check_cv
from sklearn.utils.parallel import Parallel, delayed

from sklloss._base import Estimator, Movable, VersionStamp, unchanged_on_error, warn
from sklloss.arrays import threads
from sklloss.arrays.device import full_precision, to_device, to_numpy
from sklloss.data.checks import MatrixLike, check_flag, check_integer, check_real
from sklloss.data.dataset import Dataset, Origin, check_data
from sklloss.linear.features import monotonic_signs, penalty_weights
from sklloss.linear.regressors import LinearRegressor, RegressorPredictions
from sklloss.losses import Loss
from sklloss.solvers.path import follow_path, newton_path

__all__ = ["LinearRegressorCV"]

# The least l1_ratio for which the largest alpha of a grid is computed, as for any less it would be boundless.
LEAST_L1_RATIO = 1e-3


class LinearRegressorCV(Movable, VersionStamp, RegressorPredictions, RegressorMixin, Estimator):
    """`LinearRegressor` with alpha and l1_ratio chosen by cross-validation, along a path of values.

    Parameters
    ----------
    loss : str or Loss, default="squared_error"
        As in `LinearRegressor`.
    alphas : int or list of float, default=100
        Values of alpha to choose from. An integer is the number of values, evenly spaced on a logarithmic
        scale from the least that holds all coefficients at 0, for ``l1_ratio`` or 1e-3 if that is more, to
        ``eps`` times that.
    eps : float, default=1e-4
        The smallest alpha of a grid, as a share of the largest.
    l1_ratios : list of float, default=(0.0,)
        Shares of L1 in the penalty, in [0, 1], to choose from.
    fit_intercept : bool, default=True
        Whether to learn an intercept, which is not penalised.
    cv : int, splitter, iterable of (train, test) or None, default=None
        How to split the rows; an integer is a number of folds, None means 5.
    scoring : str, callable or None, default=None
        The score to maximise: the name of a scikit-learn scorer, or a callable ``scorer(estimator, X, y)``.
        None is the loss, of the test rows and with a minus sign.
    solver : str, default="auto"
        As in `LinearRegressor`.
    tol : float, default=1e-4
        Accuracy of each fit, as in `LinearRegressor`.
    max_iter : int, default=100
        Maximum number of iterations of each fit; reaching it issues a ConvergenceWarning.
    n_jobs : int or None, default=None
        Number of folds fitted in parallel, by threads of this process that share ``n_threads``. None means 1,
        except in a `joblib.parallel_config` context; -1 means one per CPU.
    verbose : int, default=0
        Positive to print the best score of each fold.
    random_state : int, RandomState instance or None, default=None
        For the solvers that draw random numbers. It is not passed to ``cv``.
    penalty_weights, monotonic_cst : array-like or dict, default=None
        As in `LinearRegressor`.
    n_threads : int or None, default=None
        Total number of threads for the passes over X; None uses as many as OMP_NUM_THREADS or the machine
        allows. The results are bitwise the same for any number.
    device : None, str or torch.device, default=None
        As in `LinearRegressor`.
    device_dtype : {"float32", "float64"}, default="float32"
        As in `LinearRegressor`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
    intercept_ : float or ndarray of shape (n_outputs,)
    alpha_ : float
        The alpha chosen.
    l1_ratio_ : float
        The l1_ratio chosen.
    alphas_ : ndarray of shape (n_alphas,), or (n_l1_ratios, n_alphas) for grids of several l1_ratios
        All values of alpha; those of a grid in descending order.
    l1_ratios_ : ndarray of shape (n_l1_ratios,)
    scores_ : ndarray of shape (n_folds, n_l1_ratios, n_alphas)
        The scores of the test rows.
    loss_path_ : ndarray of shape (n_l1_ratios, n_alphas, n_folds)
        The mean loss of the test rows, as ``mse_path_`` of scikit-learn's `ElasticNetCV`.
    coefs_paths_ : ndarray of shape (n_folds, n_l1_ratios, n_alphas, n_outputs, n_features + fit_intercept)
        The coefficients of each fit, the intercept last.
    n_iter_ : ndarray of int32 of shape (n_folds, n_l1_ratios, n_alphas)
        Iterations of each fit, which starts from the solution for the next larger alpha; the maximum over
        outputs.
    loss_ : float
        The final objective, penalty included.
    loss_curve_ : list of float
        The objective at the start and after each iteration of the last fit.
    solver_ : str
        The solver used.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X had string column names.

    See Also
    --------
    LinearRegressor : The model with a given penalty.

    Notes
    -----
    Every fit is as accurate as a separate one would be. `score` is R², as that of `LinearRegressor`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklloss import LinearRegressorCV
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = LinearRegressorCV("poisson", alphas=20).fit(X, y)
    >>> model.scores_.shape
    (5, 1, 20)
    """

    def __init__(
        self,
        loss: str | Loss = "squared_error",
        *,
        alphas: int | ArrayLike = 100,
        eps: float = 1e-4,
        l1_ratios: ArrayLike = (0.0,),
        fit_intercept: bool = True,
        cv: Any = None,
        scoring: str | Callable[..., float] | None = None,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iter: int = 100,
        n_jobs: int | None = None,
        verbose: int | bool = 0,
        random_state: int | RandomState | None = None,
        penalty_weights: ArrayLike | dict[str, float] | None = None,
        monotonic_cst: ArrayLike | dict[str, int] | None = None,
        n_threads: int | None = None,
        device: Any = None,
        device_dtype: str = "float32",
    ) -> None:
        self.loss = loss
        self.alphas = alphas
        self.eps = eps
        self.l1_ratios = l1_ratios
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.scoring = scoring
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state
        self.penalty_weights = penalty_weights
        self.monotonic_cst = monotonic_cst
        self.n_threads = n_threads
        self.device = device
        self.device_dtype = device_dtype

    def fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        *,
        offset: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Choose the penalty by cross-validation and fit the model with it.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
            Training rows, as for `LinearRegressor`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, which count in the fits and in the loss of the test rows, and are passed to
            the scorer.
        offset : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            As for `LinearRegressor`, and for the scorer too.
        groups : array-like of shape (n_samples,), default=None
            Passed to ``cv``.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is invalid; the message names it. The estimator is left unchanged.
        """
        with unchanged_on_error(self):
            return self._fit(X, y, sample_weight, offset, groups)

    def _fit(self, X, y, sample_weight, offset, groups):
        model = self._model()
        ratios = _numbers("l1_ratios", self.l1_ratios, 0.0, 1.0)
        for model.l1_ratio in ratios:
            loss = model._check_parameters()
        scorer = None if self.scoring is None else get_scorer(self.scoring)
        n_threads = threads.count(self.n_threads)
        data = check_data(self, X, y, sample_weight, model._training_coder(), offset=offset)
        model.n_features_in_ = self.n_features_in_
        # Scorers see the rows without the names of their columns.
        model.penalty_weights, model.monotonic_cst = penalty_weights(self), monotonic_signs(self)
        with threads.single_threaded_blas(), full_precision(data.device):
            passes = model._passes(data, loss, n_threads)
            alphas = self._grid(model, passes, ratios)
            host = np.empty((data.n, 0))
            splits = [
                (np.arange(data.n)[train], np.arange(data.n)[test])
                for train, test in check_cv(self.cv, data.y, classifier=False).split(host, data.y, groups)
            ]
            jobs = min(joblib.effective_n_jobs(self.n_jobs), len(splits))
            search = _Search(
                data, loss, ratios, alphas, scorer, max(1, n_threads // jobs), bool(self.verbose)
            )
            folds = [
                delayed(search.fit_fold)(_copy(model), fold, train, test)
                for fold, (train, test) in enumerate(splits)
            ]
            paths = Parallel(n_jobs=self.n_jobs, prefer="threads")(folds)
            explicit = len(ratios) == 1 or not isinstance(self.alphas, numbers.Integral)
            found = {
                "l1_ratios_": ratios,
                "alphas_": alphas[0] if explicit else alphas,
                "coefs_paths_": np.stack([path.coefs for path in paths]).astype(data.origin.dtype),
                "scores_": np.stack([path.scores for path in paths]),
                "loss_path_": np.stack([path.losses for path in paths], axis=-1),
                "n_iter_": np.stack([path.n_iter for path in paths]),
            }
            unsolved = [reason for path in paths for reason in path.unsolved]
            self.alpha_, self.l1_ratio_, near = _best(found, alphas)
            self._refit(model, passes, near, unsolved, loss)
        for name, array in found.items():
            setattr(self, name, to_device(array, data.origin.device))
        if unsolved:
            warn(
                f"{type(self).__name__} (solver={self.solver_!r}) has not converged in {len(unsolved)} of "
                f"{found['scores_'].size + 1} fits. The first is {unsolved[0]}.",
                ConvergenceWarning,
            )
        return self

    def _model(self):
        """The regressor with the parameters that it shares with this estimator."""
        if self.n_jobs is not None:
            check_integer("n_jobs", self.n_jobs, -(2**31))
        check_flag("fit_intercept", self.fit_intercept)
        shared = LinearRegressor().get_params(deep=False).keys() & self.get_params(deep=False).keys()
        return LinearRegressor(**{name: getattr(self, name) for name in shared})

    def _grid(self, model, passes, ratios):
        """The values of alpha for each l1_ratio, in the order given; those of a grid fall."""
        if not isinstance(self.alphas, numbers.Integral) or isinstance(self.alphas, (bool, np.bool_)):
            given = _numbers("alphas", self.alphas, 0.0)
            return np.tile(given, (len(ratios), 1))
        count = check_integer("alphas", self.alphas, 1)
        eps = check_real("eps", self.eps, 0.0, 1.0, open_low=True)
        model.alpha, model.l1_ratio = 0.0, 0.0
        objective = model._objective(passes)
        start = objective.mean_target()
        gradient = objective.coef(objective.value_and_gradient(start)[1])[:, : passes.features]
        largest = float(np.abs(gradient).max()) / objective.total_weight
        tops = largest / np.maximum(ratios, LEAST_L1_RATIO)
        return np.stack([top * np.geomspace(1.0, eps, count) for top in np.where(tops > 0, tops, 1.0)])

    def _refit(self, model, passes, near, unsolved, loss):
        """Fit all rows with the penalty chosen, starting near coefficients."""
        model.alpha, model.l1_ratio = self.alpha_, self.l1_ratio_
        objective = model._objective(passes)
        result = model._minimise(objective, passes.centered(near).reshape(objective.shape))
        why = model._why_unsolved(result)
        if why:
            unsolved.append(f"the last one, at alpha={self.alpha_:g}: {why}")
        self.loss_ = model._reported_value(float(result.value.sum()), objective)
        self.loss_curve_ = [model._reported_value(value, objective) for value in result.curve]
        self.solver_ = model._choose_solver(objective)
        coef = passes.uncentered(objective.coef(result.w))
        self._set_parameters(coef, data=passes.data, loss=loss, dtype=passes.data.origin.dtype)
        self._has_offset = passes.data.offset is not None


@dataclasses.dataclass
class _Path:
    """The fits of a fold: what `LinearRegressorCV` keeps of them, by l1_ratio and alpha."""

    coefs: NDArray[Any]
    scores: NDArray[Any]
    losses: NDArray[Any]
    n_iter: NDArray[np.int32]
    unsolved: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Search:
    """What the fits of all folds share."""

    data: Dataset
    loss: Loss
    ratios: NDArray[np.float64]
    alphas: NDArray[np.float64]
    scorer: Any
    n_threads: int
    verbose: bool

    @threads.single_threaded_blas()
    def fit_fold(self, model: LinearRegressor, fold: int, train: Any, test: Any) -> _Path:
        """The fits of one fold; the parameters and attributes of ``model`` change from point to point."""
        rows = self.data.take(train)
        passes = model._passes(rows, self.loss, self.n_threads)
        held_out = model._passes(self.data.take(test), self.loss, self.n_threads)
        total = float(held_out.row_weights().sum())
        if not total > 0 or not passes.row_weights().any():
            raise ValueError(f"fold {fold} of cv has no positive sample_weight")
        shape = self.alphas.shape
        # Scorers see the model and the test rows in main memory.
        on_host = dataclasses.replace(rows, origin=Origin(None, passes.dtype))
        test_rows, test_y = held_out.data.on_host(), to_numpy(held_out.data.y)
        model._test_offset = held_out.data.offset
        weighted = {} if self.data.weight is None else {"sample_weight": self.data.weight[test]}
        path = _Path(
            np.empty((*shape, passes.outputs, passes.width)), np.empty(shape), np.empty(shape),
            np.empty(shape, dtype=np.int32),
        )  # fmt: skip
        for r, model.l1_ratio in enumerate(self.ratios):
            order = np.argsort(-self.alphas[r], kind="stable")
            for a, (objective, result) in zip(order, _follow(model, passes, self.alphas[r][order])):
                coef = passes.uncentered(objective.coef(result.w))
                path.coefs[r, a], path.n_iter[r, a] = coef, result.n_iter.max()
                sums, _ = held_out.value_and_gradient(held_out.centered(coef))
                path.losses[r, a] = float(np.sum(sums)) / total
                path.scores[r, a] = -path.losses[r, a]
                if self.scorer is not None:
                    model._set_parameters(coef, data=on_host, loss=self.loss, dtype=passes.dtype)
                    model.device = None
                    path.scores[r, a] = self.scorer(model, test_rows, test_y, **weighted)
                why = model._why_unsolved(result)
                if why:
                    path.unsolved.append(f"in fold {fold}, at alpha={self.alphas[r, a]:g}: {why}")
            if self.verbose:
                best = int(np.nanargmax(path.scores[r]))
                print(
                    f"fold {fold}, l1_ratio {self.ratios[r]:g}: best score {path.scores[r, best]:.6g} at "
                    f"alpha={self.alphas[r, best]:g}"
                )
        return path


def _best(found, alphas):
    """The alpha and l1_ratio of the best mean score, and the mean of the folds' coefficients there."""
    total = found["scores_"].mean(axis=0)
    if np.isnan(total).all():
        raise ValueError("scoring gives NaN for every alpha")
    r, a = np.unravel_index(np.argmax(np.where(np.isnan(total), -np.inf, total)), total.shape)
    near = found["coefs_paths_"][:, r, a].mean(axis=0, dtype=np.float64)
    return float(alphas[r, a]), float(found["l1_ratios_"][r]), near


def _follow(model, passes, alphas):
    """The objective and its minimum for each alpha, from the largest to the smallest, at an l1_ratio."""

    def objectives():
        for model.alpha in alphas:
            yield model._objective(passes)

    model.alpha = alphas[0]
    first = model._objective(passes)
    start = model._null_start(first)
    solver = model._choose_solver(first)
    if solver == "newton-cholesky" and not first.takes_newton_steps:
        return newton_path(objectives(), start, model._minimise, tol=model.tol, max_iter=model.max_iter)
    smooth = solver not in ("proximal-newton", "interior-point")
    return follow_path(objectives(), start, model._minimise, smooth=smooth)


def _copy(model):
    """A regressor with the same parameters and attributes."""
    other = LinearRegressor.__new__(LinearRegressor)
    vars(other).update(vars(model))
    return other


def _numbers(name: str, values: Any, *bounds: float) -> NDArray[np.float64]:
    """A list of numbers within bounds, at least one of them, as an array."""
    if isinstance(values, (str, bytes, dict)) or np.ndim(values) != 1 or len(values) == 0:
        wanted = "a list of numbers, or how many" if name == "alphas" else "a list of numbers"
        raise ValueError(f"{name} must be {wanted}, got {values!r}")
    return np.array([check_real(f"{name}[{k}]", x, *bounds) for k, x in enumerate(values)])
