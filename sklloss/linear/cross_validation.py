"""The base class of the linear classifiers with built-in cross-validation."""

import copy
import dataclasses
import numbers
from collections.abc import Callable
from typing import Any, ClassVar, Self

import joblib
import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping, process_routing
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from sklloss._base import VersionStamp, unchanged_on_error
from sklloss._warnings import warn
from sklloss.arrays import threads
from sklloss.data.checks import MatrixLike, check_flag, check_integer, check_real
from sklloss.data.dataset import check_rows
from sklloss.data.targets import hard_labels, scored_classes
from sklloss.linear.base import LinearPredictions
from sklloss.losses import Loss
from sklloss.metrics import argmax_accuracy
from sklloss.model_selection import StratifiedSoftKFold
from sklloss.solvers.path import follow_path, newton_path

# Solvers in whose place a path may keep a Hessian, and up to which ratio between neighbouring Cs: beyond
# it newton-cg, which needs no Hessian, does better.
KEEP_HESSIAN = {"newton-cholesky": np.inf, "newton-cg": 3.0}
# Up to this many parameters of a problem they keep it.
LARGEST_KEPT_HESSIAN = 1000


class LinearClassifierCV(VersionStamp, LinearPredictions, ClassifierMixin, BaseEstimator):
    """The base class of the linear classifiers with built-in cross-validation."""

    C_: float
    Cs_: NDArray[np.float64]
    l1_ratio_: float
    l1_ratios_: NDArray[np.float64]
    coefs_paths_: NDArray[Any]
    scores_: NDArray[np.float64]
    n_iter_: NDArray[np.int32]
    loss_: float
    loss_curve_: list[float]
    solver_: str

    # The classifier that is fitted at each point of the grid.
    _classifier = None

    # `score` passes weights to the scorer, which has a metadata request of its own.
    __metadata_request__score: ClassVar = {"sample_weight": UNUSED}

    def fit(
        self, X: MatrixLike, y: MatrixLike, sample_weight: ArrayLike | None = None, **params: Any
    ) -> Self:
        """Choose the penalty by cross-validation and fit the model with it.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
            Training rows. float32 and float64 are used as they are; a sparse matrix is used as CSR and
            never made dense.
        y : array-like
            Targets, see the class.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights. They count in the fits, and go on to the scorer.
        **params : dict
            With metadata routing enabled, what the splitter and the scorer ask for, as ``groups``.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is invalid, which the message names. The estimator then keeps
            the state that it had.
        """
        with unchanged_on_error(self):
            return self._fit(X, y, sample_weight, params)

    def _fit(self, X, y, sample_weight, params):
        grid = _Grid(self._check_Cs(), self._check_l1_ratios())
        model = self._model()
        for model.l1_ratio in grid.l1_ratios:
            loss = model._check_parameters()
        n_threads = threads.count(self.n_threads)
        checked = check_rows(self, X, sample_weight)
        data = model._code(checked, y)
        data = dataclasses.replace(data, y=scored_classes(y, data.n, data.labels))
        rows = model._rows(data, loss, n_threads)
        routed = self._route("fit", sample_weight=checked.weight, **params)
        splits = self._splits(data, routed.splitter.split)
        n_threads = max(1, n_threads // min(joblib.effective_n_jobs(self.n_jobs), len(splits)))
        folds = [
            _Fold(
                number,
                copy.copy(model),
                loss,
                grid,
                *split,
                fold_scorer(self.scoring, data.y, loss),
                n_threads,
                self.verbose > 0,
            )
            for number, split in enumerate(splits)
        ]
        for fold, seed in zip(folds, self._seeds(len(folds))):
            fold.model.random_state = seed
        parallel = Parallel(n_jobs=self.n_jobs, prefer="threads")
        cancelled = []
        with threads.single_threaded_blas():
            try:
                fit = delayed(_Fold.fit)
                parts = parallel(fit(fold, data, routed.scorer.score, cancelled) for fold in folds)
            finally:
                # After an interrupt, threads still running stop when their current fit ends.
                cancelled.append(True)
            self.Cs_ = grid.Cs
            self.l1_ratios_ = grid.l1_ratios
            self.coefs_paths_ = np.stack([part.coefs for part in parts]).astype(data.dtype)
            self.scores_ = np.stack([part.scores for part in parts])
            self.n_iter_ = np.stack([part.n_iter for part in parts])
            unsolved = [reason for part in parts for reason in part.unsolved]
            coef = self._refit(model, rows, unsolved) if self.refit else self._average(model)
        self.solver_ = model._choose_solver(rows)
        self._set_model(data.labels, model._own_link(loss), coef, data.dtype)
        if unsolved:
            warn(
                f"{type(self).__name__} (solver={self.solver_!r}) has not converged in {len(unsolved)} of "
                f"{self.scores_.size + bool(self.refit)} fits. The first is {unsolved[0]}.",
                ConvergenceWarning,
            )
        return self

    def _refit(self, model, rows, unsolved):
        """The parameters at the best mean score, fitted to all rows."""
        # Transposed to break ties as scikit-learn does: the first C, then the first l1_ratio.
        total = self.scores_.sum(axis=0).T
        best = np.unravel_index(_best(total), total.shape)
        self.C_, self.l1_ratio_ = float(self.Cs_[best[0]]), float(self.l1_ratios_[best[1]])
        model.C, model.l1_ratio = self.C_, self.l1_ratio_
        objective = model._objective(rows)
        near = self.coefs_paths_[:, best[1], best[0]].mean(axis=0, dtype=np.float64)
        features = rows.features
        start = model._start(objective, (near[:, :features], near[:, -1]))
        result = model._minimise(objective, start)
        why = model._why_unsolved(result)
        if why:
            unsolved.append(f"the last one, at C={self.C_:g}: {why}")
        self.loss_ = float(result.value.sum())
        self.loss_curve_ = result.curve
        return rows.uncentered(objective.coef(result.w))

    def _average(self, model):
        """The mean over folds of the parameters at each fold's best score."""
        scores = self.scores_.swapaxes(1, 2)
        best = [np.unravel_index(_best(fold), fold.shape) for fold in scores]
        self.C_ = float(np.mean([self.Cs_[c] for c, _ in best]))
        self.l1_ratio_ = float(np.mean([self.l1_ratios_[ratio] for _, ratio in best]))
        model.C, model.l1_ratio = self.C_, self.l1_ratio_
        for name in ("loss_", "loss_curve_"):  # of an earlier fit
            vars(self).pop(name, None)
        return np.mean([path[r, c] for path, (c, r) in zip(self.coefs_paths_, best)], axis=0, dtype=float)

    def _model(self):
        """The classifier with the parameters that do not belong to the grid."""
        check_flag("refit", self.refit)
        if self.n_jobs is not None:
            check_integer("n_jobs", self.n_jobs, -(2**31))
        if not isinstance(self.verbose, (numbers.Integral, np.bool_)):
            raise TypeError(f"verbose must be an integer or a bool, got {self.verbose!r}")
        return self._classifier(
            loss=self.loss,
            dual=self.dual,
            tol=self.tol,
            fit_intercept=self.fit_intercept,
            intercept_scaling=self.intercept_scaling,
            class_weight=self.class_weight,
            random_state=self.random_state,
            solver=self.solver,
            max_iter=self.max_iter,
            label_smoothing=self.label_smoothing,
            n_threads=self.n_threads,
        )

    def _seeds(self, folds):
        """The random_state of each fold, such that it does not matter which one runs first."""
        if self.random_state is None or isinstance(self.random_state, numbers.Integral):
            return [self.random_state] * folds
        return check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=folds).tolist()

    def _check_Cs(self):
        if isinstance(self.Cs, numbers.Integral) and not isinstance(self.Cs, (bool, np.bool_)):
            return np.logspace(-4, 4, check_integer("Cs", self.Cs, 1))
        values = _numbers("Cs", self.Cs, "an integer, or a list of numbers > 0")
        return np.array([check_real(f"Cs[{k}]", C, 0, open_low=True) for k, C in enumerate(values)])

    def _check_l1_ratios(self):
        values = _numbers("l1_ratios", self.l1_ratios, "a list of numbers in [0, 1]")
        return np.array([check_real(f"l1_ratios[{k}]", ratio, 0, 1) for k, ratio in enumerate(values)])

    def _splits(self, data, params):
        """The train and test rows of each fold."""
        cv, y = self.cv, data.y
        soft = data.labels.kind != "multilabel" and (y.ndim == 2 or type_of_target(y) == "continuous")
        if soft and (cv is None or isinstance(cv, numbers.Integral)):
            cv = StratifiedSoftKFold(5 if cv is None else cv)
        splits = []
        for number, (train, test) in enumerate(check_cv(cv, y, classifier=True).split(data.X, y, **params)):
            train = _row_numbers(train, len(y), f"the training rows of fold {number} of cv")
            test = _row_numbers(test, len(y), f"the test rows of fold {number} of cv")
            _check_classes(data, train, number)
            splits.append((train, test))
        if not splits:
            raise ValueError(f"cv={self.cv!r} gives no splits; an iterator is used up by the first fit")
        return splits

    def _route(self, method, sample_weight=None, **params):
        """The metadata for the splitter and for the scorer."""
        weight = {} if sample_weight is None else {"sample_weight": sample_weight}
        if get_config()["enable_metadata_routing"]:
            return process_routing(self, method, **weight, **params)
        if params:
            raise ValueError(
                f"{type(self).__name__}.{method} got {sorted(params)}, which it hands on with metadata "
                "routing only: sklearn.set_config(enable_metadata_routing=True). Without it, cv may be a "
                "list of splits"
            )
        return Bunch(splitter=Bunch(split={}), scorer=Bunch(score=weight))

    def score(
        self, X: MatrixLike, y: MatrixLike, sample_weight: ArrayLike | None = None, **params: Any
    ) -> float:
        """Score by ``scoring``: by default the accuracy.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
        y : array-like
            Targets of any kind that `fit` takes, if the scorer does.
        sample_weight : array-like of shape (n_samples,), default=None
        **params : dict
            With metadata routing enabled, what the scorer asks for.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        scorer = scorer_of(self.scoring)
        if sample_weight is not None:
            params["sample_weight"] = sample_weight
        routed = self._route("score", **params)
        return float(scorer(self, X, y, **routed.scorer.score))

    def get_metadata_routing(self) -> MetadataRouter:
        """The metadata routing: to the splitter in `fit`, to the scorer in `fit` and `score`.

        Returns
        -------
        MetadataRouter
        """
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(splitter=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))
            .add(
                scorer=scorer_of(self.scoring),
                method_mapping=MethodMapping()
                .add(caller="score", callee="score")
                .add(caller="fit", callee="score"),
            )
        )


class _Grid:
    """The penalties, and the order in which a path takes them: from the strongest to the weakest."""

    def __init__(self, Cs, l1_ratios):
        self.Cs, self.l1_ratios = Cs, l1_ratios
        self.order = np.argsort(Cs, kind="stable")


@dataclasses.dataclass
class _Fold:
    """The rows of a fold, with all that fitting and scoring its paths needs."""

    number: int
    model: object
    loss: object
    grid: _Grid
    train: np.ndarray
    test: np.ndarray
    scorer: object
    n_threads: int
    verbose: bool

    def fit(self, data, score_params, cancelled):
        """The coefficients, scores and iterations at each point of the grid."""
        with threads.single_threaded_blas():
            return self._fit(data, score_params, cancelled)

    def _fit(self, data, score_params, cancelled):
        model, grid = self.model, self.grid
        rows = model._rows(data.take(self.train), self.loss, self.n_threads)
        test = data.take(self.test)
        params = {name: _take(value, self.test, data.n) for name, value in score_params.items()}
        weight = params.get("sample_weight")
        if weight is not None and not np.any(weight):
            raise ValueError(f"the test rows of fold {self.number} of cv have no positive sample_weight")
        model.n_features_in_ = rows.features
        shape = (len(grid.l1_ratios), len(grid.Cs))
        found = Bunch(
            coefs=np.empty((*shape, rows.outputs, rows.width)),
            scores=np.empty(shape),
            n_iter=np.empty(shape, dtype=np.int32),
            unsolved=[],
        )
        link = model._own_link(self.loss)
        for r, model.l1_ratio in enumerate(grid.l1_ratios):
            path = self._path(rows, cancelled)
            for c, (objective, result) in zip(grid.order, path):
                coef = rows.uncentered(objective.coef(result.w))
                model._set_model(data.labels, link, coef, rows.dtype)
                found.coefs[r, c] = coef
                found.scores[r, c] = self.scorer(model, test.X, test.y, **params)
                found.n_iter[r, c] = result.n_iter.max()
                why = model._why_unsolved(result)
                if why:
                    found.unsolved.append(f"in fold {self.number}, at C={model.C:g}: {why}")
            if self.verbose and not np.isnan(found.scores[r]).all():
                best = _best(found.scores[r])
                print(
                    f"fold {self.number}, l1_ratio {model.l1_ratio:g}: "
                    f"best score {found.scores[r, best]:.6g} at C={grid.Cs[best]:g}"
                )
        return found

    def _path(self, rows, cancelled):
        """The objective and its minimum for each C, at the l1_ratio that the model has."""
        model = self.model
        Cs = self.grid.Cs[self.grid.order]

        def objectives():
            for model.C in Cs:
                if cancelled:
                    raise RuntimeError("this fit was interrupted")
                yield model._objective(rows)

        model.C = Cs[0]
        start = np.zeros(model._objective(rows).shape)
        if model.l1_ratio > 0:
            return follow_path(objectives(), start, model._minimise, smooth=False)
        solver = model._choose_solver(rows)
        size = rows.width if rows.separable else rows.outputs * rows.width
        if solver not in KEEP_HESSIAN or size > LARGEST_KEPT_HESSIAN:
            return follow_path(objectives(), start, model._minimise)
        return newton_path(
            objectives(), start, model._minimise,
            tol=model.tol, max_iter=model.max_iter, widest=KEEP_HESSIAN[solver],
        )  # fmt: skip


def _best(scores):
    """The flat index of the largest score; NaN is less than any."""
    if np.isnan(scores).all():
        raise ValueError("scoring gives NaN for every C")
    return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))


def _numbers(name, values, wanted):
    """A list of numbers, of which there is at least one."""
    if isinstance(values, (str, bytes, dict)) or np.ndim(values) != 1:
        raise TypeError(f"{name} must be {wanted}, got {values!r}")
    if len(values) == 0:
        raise ValueError(f"{name} must be {wanted}, got an empty one")
    return values


def _row_numbers(rows, n, name):
    rows = np.asarray(rows)
    if rows.dtype == bool and rows.shape == (n,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be a list of row numbers, got {rows!r}")
    if rows.size == 0:
        raise ValueError(f"{name} are none")
    if rows.min() < -n or rows.max() >= n:
        raise ValueError(f"{name} must be in [0, {n}), got {rows.min()} to {rows.max()}")
    return rows


def _check_classes(data, train, number):
    """Raise if nothing can be learnt from the training rows of a fold."""
    if data.weight is not None:
        train = train[data.weight[train].reshape(len(train), -1).any(axis=1)]
        if not len(train):
            raise ValueError(f"the training rows of fold {number} of cv have no positive sample_weight")
    values = (data.codes if data.values is None else data.values)[train]
    certain = data.values is None or np.isin(values[0], (0, 1)).all()
    if data.labels.kind != "multilabel" and certain and (values == values[0]).all():
        raise ValueError(
            f"the training rows of fold {number} of cv are of one class only; use a stratified cv, or "
            "fewer folds"
        )


def _take(value, rows, n):
    """The given rows of a value that has one entry per row of X; any other value whole."""
    if not hasattr(value, "__len__") or isinstance(value, (str, dict)) or np.shape(value)[:1] != (n,):
        return value
    if hasattr(value, "iloc"):
        return value.iloc[rows]
    return value.tocsr()[rows] if scipy.sparse.issparse(value) else np.asarray(value)[rows]


def scorer_of(scoring: Any) -> Any:
    """The scorer that ``scoring`` is or names; for None the accuracy, which also takes soft targets."""
    if scoring is None:
        return argmax_accuracy
    if not isinstance(scoring, str) and not callable(scoring):
        raise TypeError(f"scoring must be one scorer, a name, a callable or None, got {scoring!r}")
    return get_scorer(scoring)


# scikit-learn's scorers check their arguments, which takes a few milliseconds: on small data, most of the
# time of a path. So the accuracy and the log loss are computed here, with the same result, from checked rows
# and from targets coded once for a fold.
def fold_scorer(scoring: Any, y: NDArray[Any], loss: Loss) -> Callable[..., float]:
    """A scorer for the models of one fold, which minimise ``loss``."""
    if scoring is None:
        return _Accuracy()
    if isinstance(scoring, str) and y.ndim == 1 and type_of_target(y) != "continuous":
        if scoring == "accuracy":
            return _Accuracy()
        if scoring == "neg_log_loss" and loss.has_probabilities:
            return _LogLoss()
    return _AnyScorer(scorer_of(scoring))


class _AnyScorer:
    """Any scorer, whose result must be a number."""

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer

    def __call__(self, model: Any, X: Any, y: Any, **params: Any) -> float:
        score = self._scorer(model, X, y, **params)
        if not isinstance(score, numbers.Real):
            raise TypeError(f"scoring must give a number, got {score!r} of type {type(score).__name__}")
        return score  # type: ignore[return-value]


class _Accuracy:
    def __init__(self) -> None:
        self._labels: NDArray[Any] | None = None

    def __call__(self, model: Any, X: Any, y: Any, sample_weight: NDArray[Any] | None = None) -> float:
        if self._labels is None:
            self._labels = hard_labels(y, model._kind, model.classes_)
        right = model._decide(model._raw(X)) == self._labels
        if right.ndim == 2:
            right = right.all(axis=1)
        return np.average(right, weights=sample_weight)


class _LogLoss:
    """The negated log loss; y may lack a class, and probabilities are clipped as in scikit-learn."""

    def __init__(self) -> None:
        self._codes: NDArray[np.intp] | None = None

    def __call__(self, model: Any, X: Any, y: Any, sample_weight: NDArray[Any] | None = None) -> float:
        if self._codes is None:
            self._codes = np.searchsorted(model.classes_, y)
        p = model._probabilities(model._raw(X))
        if p.shape[1] == 2:
            p[:, 0] = 1 - p[:, 1]
        p = p[np.arange(len(y)), self._codes]
        eps = np.finfo(p.dtype).eps
        return np.average(np.log(np.clip(p, eps, 1 - eps).astype(np.float64)), weights=sample_weight)
