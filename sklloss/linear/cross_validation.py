"""The base class of the linear classifiers with built-in cross-validation."""

from __future__ import annotations

import copy
import dataclasses
import functools
import numbers
from typing import Any, ClassVar, Self

import joblib
import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping, process_routing
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from sklloss._base import Estimator, VersionStamp, unchanged_on_error, warn
from sklloss._class_predictions import accuracy
from sklloss.arrays import threads
from sklloss.data.checks import MatrixLike, check_flag, check_integer, check_real
from sklloss.data.dataset import Dataset, add_offset, check_rows, with_offset
from sklloss.data.targets import hard_labels, scored_classes
from sklloss.linear.base import LinearPredictions
from sklloss.linear.features import monotonic_signs, penalty_weights
from sklloss.losses import Loss
from sklloss.metrics import argmax_accuracy
from sklloss.model_selection import StratifiedSoftKFold
from sklloss.solvers.newton_cg import PreconditionerCache
from sklloss.solvers.path import follow_path, newton_path


class LinearClassifierCV(VersionStamp, LinearPredictions, ClassifierMixin, Estimator):
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
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        *,
        offset: ArrayLike | None = None,
        **params: Any,
    ) -> Self:
        """Choose the penalty by cross-validation and fit the model with it.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
            Training rows. float32 and float64 are used without conversion; a sparse matrix is used as CSR
            and never made dense.
        y : array-like
            Targets, see the class.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, which count in the fits and are passed to the scorer.
        offset : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            A known term that is added to the raw scores, in the fits and for the scorer. Predictions of a
            model that was fitted with an offset need one too.
        **params : dict
            With metadata routing enabled, what the splitter and the scorer request, such as ``groups``.

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
            return self._fit(X, y, sample_weight, offset, params)

    def _fit(self, X, y, sample_weight, offset, params):
        Cs = self._check_Cs()
        l1_ratios = _real_numbers("l1_ratios", self.l1_ratios, "a list of numbers in [0, 1]", 0, 1)
        model = self._model()
        for model.l1_ratio in l1_ratios:
            loss = model._check_parameters()
        n_threads = threads.count(self.n_threads)
        checked = check_rows(self, X, sample_weight)
        model.n_features_in_ = self.n_features_in_
        # Scorers see the rows without the names of their columns.
        model.penalty_weights, model.monotonic_cst = penalty_weights(self), monotonic_signs(self)
        data = model._coder(self.class_weight)(checked, y, name="y")
        data = with_offset(data, offset, "offset")
        data = dataclasses.replace(data, y=scored_classes(y, data.n, data.labels))
        passes = model._passes(data, loss, n_threads)
        routed = self._route("fit", sample_weight=checked.weight, **params)
        splits = self._splits(data, routed.splitter.split)
        search = _Search(
            data, loss, Cs, l1_ratios,
            scoring=_scoring(self.scoring, data.y, loss), score_params=routed.scorer.score,
            n_threads=max(1, n_threads // min(joblib.effective_n_jobs(self.n_jobs), len(splits))),
            verbose=self.verbose > 0,
        )  # fmt: skip
        fits = []
        for fold, (seed, split) in enumerate(zip(self._seeds(len(splits)), splits)):
            fold_model = copy.copy(model)
            fold_model.random_state = seed
            fits.append(delayed(search.fit_fold)(fold_model, fold, *split))
        with threads.single_threaded_blas():
            try:
                paths = Parallel(n_jobs=self.n_jobs, prefer="threads")(fits)
            finally:
                search.cancelled = True
            self.Cs_, self.l1_ratios_ = Cs, l1_ratios
            self.coefs_paths_ = np.stack([path.coefs for path in paths]).astype(data.dtype)
            self.scores_ = np.stack([path.scores for path in paths])
            self.n_iter_ = np.stack([path.n_iter for path in paths])
            unsolved = [reason for path in paths for reason in path.unsolved]
            coef = self._refit(model, passes, unsolved) if self.refit else self._average(model)
        self.solver_ = model._choose_solver(model._objective(passes))
        self._set_model(data.labels, model._own_link(loss), coef, data.dtype)
        self._has_offset = offset is not None
        if unsolved:
            warn(
                f"{type(self).__name__} (solver={self.solver_!r}) has not converged in {len(unsolved)} of "
                f"{self.scores_.size + bool(self.refit)} fits. The first is {unsolved[0]}.",
                ConvergenceWarning,
            )
        return self

    def _refit(self, model, passes, unsolved):
        """Fit all rows with the penalty of the best mean score; return the parameters."""
        # Transposed to break ties as scikit-learn does: the first C, then the first l1_ratio.
        total = self.scores_.sum(axis=0).T
        best = np.unravel_index(_best(total), total.shape)
        self.C_, self.l1_ratio_ = float(self.Cs_[best[0]]), float(self.l1_ratios_[best[1]])
        model.C, model.l1_ratio = self.C_, self.l1_ratio_
        objective = model._objective(passes)
        near = self.coefs_paths_[:, best[1], best[0]].mean(axis=0, dtype=np.float64)
        features = passes.features
        start = model._start(objective, (near[:, :features], near[:, -1]))
        result = model._minimise(objective, start)
        why = model._why_unsolved(result)
        if why:
            unsolved.append(f"the last one, at C={self.C_:g}: {why}")
        self.loss_ = float(result.value.sum())
        self.loss_curve_ = result.curve
        return passes.uncentered(objective.coef(result.w))

    def _average(self, model):
        """The mean over the folds of the parameters at the best score of each."""
        scores = self.scores_.swapaxes(1, 2)
        best = [np.unravel_index(_best(fold), fold.shape) for fold in scores]
        self.C_ = float(np.mean([self.Cs_[c] for c, _ in best]))
        self.l1_ratio_ = float(np.mean([self.l1_ratios_[ratio] for _, ratio in best]))
        model.C, model.l1_ratio = self.C_, self.l1_ratio_
        for name in ("loss_", "loss_curve_"):
            vars(self).pop(name, None)  # of an earlier fit
        return np.mean([path[r, c] for path, (c, r) in zip(self.coefs_paths_, best)], axis=0, dtype=float)

    def _model(self):
        """The classifier with the parameters that it shares with this estimator."""
        check_flag("refit", self.refit)
        if self.n_jobs is not None:
            check_integer("n_jobs", self.n_jobs, -(2**31))
        shared = self._classifier().get_params(deep=False).keys() & self.get_params(deep=False).keys()
        return self._classifier(**{name: getattr(self, name) for name in shared})

    def _seeds(self, folds):
        """The random_state of each fold, so that their order of execution does not matter."""
        if self.random_state is None or isinstance(self.random_state, numbers.Integral):
            return [self.random_state] * folds
        return check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=folds).tolist()

    def _check_Cs(self):
        if isinstance(self.Cs, numbers.Integral) and not isinstance(self.Cs, (bool, np.bool_)):
            return np.logspace(-4, 4, check_integer("Cs", self.Cs, 1))
        return _real_numbers("Cs", self.Cs, "an integer, or a list of numbers > 0", 0, open_low=True)

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
            raise ValueError(f"cv={self.cv!r} gives no splits; an iterator is exhausted by the first fit")
        return splits

    def _route(self, method, sample_weight=None, **params):
        """The metadata for the splitter and for the scorer."""
        weight = {} if sample_weight is None else {"sample_weight": sample_weight}
        if get_config()["enable_metadata_routing"]:
            return process_routing(self, method, **weight, **params)
        if params:
            raise ValueError(
                f"{type(self).__name__}.{method} got {sorted(params)}, which it passes on only with metadata "
                "routing: sklearn.set_config(enable_metadata_routing=True). Without it, cv may be a list of "
                "splits"
            )
        return Bunch(splitter=Bunch(split={}), scorer=Bunch(score=weight))

    def score(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        offset: ArrayLike | None = None,
        **params: Any,
    ) -> float:
        """Score by ``scoring``: by default the accuracy.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
        y : array-like
            Targets of any kind that `fit` takes, if the scorer does.
        sample_weight : array-like of shape (n_samples,), default=None
        offset : array-like, default=None
            As for `decision_function`.
        **params : dict
            With metadata routing enabled, what the scorer requests.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        scorer = scorer_of(self.scoring)
        if sample_weight is not None:
            params["sample_weight"] = sample_weight
        routed = self._route("score", **params)
        model = copy.copy(self)
        model._test_offset = offset
        return float(scorer(model, X, y, **routed.scorer.score))

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


@dataclasses.dataclass
class _Search:
    """What the fits of all folds share.

    Attributes
    ----------
    data : Dataset
    loss : Loss
    Cs, l1_ratios : ndarray
        The grid.
    scoring : {"accuracy", "neg_log_loss"} or callable
        From `_scoring`.
    score_params : dict
        The scorer's metadata, for all rows.
    n_threads : int
        For each fold.
    verbose : bool
    cancelled : bool
        Set after an interrupt, so that threads still running stop when their current fit ends.
    """

    data: Dataset
    loss: Loss
    Cs: NDArray[np.float64]
    l1_ratios: NDArray[np.float64]
    scoring: Any
    score_params: dict[str, Any]
    n_threads: int
    verbose: bool
    cancelled: bool = False

    @threads.single_threaded_blas()
    def fit_fold(self, model, fold, train, test):
        """The coefficients, scores and iterations at each point of the grid, for one fold.

        ``model`` is a classifier whose parameters and fitted attributes are changed from point to point.
        """
        passes = model._passes(self.data.take(train), self.loss, self.n_threads)
        model._test_offset = None if self.data.offset is None else self.data.offset[test]
        score = self._scorer(fold, test)
        shape = (len(self.l1_ratios), len(self.Cs))
        path = Bunch(
            coefs=np.empty((*shape, passes.outputs, passes.width)),
            scores=np.empty(shape),
            n_iter=np.empty(shape, dtype=np.int32),
            unsolved=[],
        )
        link = model._own_link(self.loss)
        # The strongest penalty comes first.
        order = np.argsort(self.Cs, kind="stable")
        for r, model.l1_ratio in enumerate(self.l1_ratios):
            for c, (objective, result) in zip(order, self._path(model, passes, self.Cs[order])):
                coef = passes.uncentered(objective.coef(result.w))
                model._set_model(self.data.labels, link, coef, passes.dtype)
                path.coefs[r, c] = coef
                path.scores[r, c] = score(model)
                path.n_iter[r, c] = result.n_iter.max()
                why = model._why_unsolved(result)
                if why:
                    path.unsolved.append(f"in fold {fold}, at C={model.C:g}: {why}")
            if self.verbose and not np.isnan(path.scores[r]).all():
                best = _best(path.scores[r])
                print(
                    f"fold {fold}, l1_ratio {model.l1_ratio:g}: best score {path.scores[r, best]:.6g} at "
                    f"C={self.Cs[best]:g}"
                )
        return path

    def _path(self, model, passes, Cs):
        """The objective and its minimum for each C, at the model's l1_ratio."""

        def objectives():
            for model.C in Cs:
                if self.cancelled:
                    raise RuntimeError("this fit was interrupted")
                yield model._objective(passes)

        model.C = Cs[0]
        first = model._objective(passes)
        start = np.zeros(first.shape)
        if model._choose_solver(first) == "proximal-newton":
            return follow_path(objectives(), start, model._minimise, smooth=False)
        # The compiled steps of a small problem cost less than the Python code around each step with a Hessian
        # that is reused.
        if model._choose_solver(first) == "newton-cholesky" and not first.takes_newton_steps:
            minimise = model._minimise
            return newton_path(objectives(), start, minimise, tol=model.tol, max_iter=model.max_iter)
        cache = PreconditionerCache()
        return follow_path(objectives(), start, functools.partial(model._minimise, cache=cache))

    def _scorer(self, fold, rows):
        """A function of a model that scores the test rows of a fold."""
        test, labels = self.data.take(rows), self.data.labels
        params = {name: _take(value, rows, self.data.n) for name, value in self.score_params.items()}
        weight = params.get("sample_weight")
        if weight is not None and not np.any(weight):
            raise ValueError(f"the test rows of fold {fold} of cv have no positive sample_weight")
        if self.scoring == "accuracy":
            correct = hard_labels(test.y, labels.kind, labels.classes)
            return functools.partial(_accuracy, test.X, correct, weight)
        if self.scoring == "neg_log_loss":
            return functools.partial(_neg_log_loss, test.X, np.searchsorted(labels.classes, test.y), weight)
        return functools.partial(_any_score, self.scoring, test, params)


def _best(scores):
    """The flat index of the largest score; NaN counts as smaller than all others."""
    if np.isnan(scores).all():
        raise ValueError("scoring gives NaN for every C")
    return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))


def _real_numbers(name, values, wanted, *bounds, **open_bounds):
    """A list of numbers within bounds, at least one of them, as an array."""
    if isinstance(values, (str, bytes, dict)) or np.ndim(values) != 1:
        raise TypeError(f"{name} must be {wanted}, got {values!r}")
    if len(values) == 0:
        raise ValueError(f"{name} must be {wanted}, got an empty one")
    return np.array([check_real(f"{name}[{k}]", x, *bounds, **open_bounds) for k, x in enumerate(values)])


def _row_numbers(rows, n, name):
    rows = np.asarray(rows)
    if rows.size == 0:
        raise ValueError(f"{name} are none")
    try:
        numbers = np.arange(n)[rows]
    except IndexError as error:
        raise ValueError(f"{name} must be row numbers in [0, {n}), or a mask: {error}") from error
    if rows.ndim != 1:
        raise ValueError(f"{name} must be a list of row numbers, got {rows!r}")
    return numbers


def _check_classes(data, train, number):
    """Raise if the training rows of a fold have no weight, or only one class."""
    if data.weight is not None:
        train = train[data.weight[train].reshape(len(train), -1).any(axis=1)]
        if not len(train):
            raise ValueError(f"the training rows of fold {number} of cv have no positive sample_weight")
    values = (data.codes if data.values is None else data.values)[train]
    certain = data.values is None or np.isin(values[0], (0, 1)).all()
    if data.labels.kind != "multilabel" and certain and (values == values[0]).all():
        raise ValueError(
            f"the training rows of fold {number} of cv are of one class only; use a stratified cv or fewer "
            "folds"
        )


def _take(value, rows, n):
    """The given rows of a value that has one entry per row of X; any other value unchanged."""
    if not hasattr(value, "__len__") or isinstance(value, (str, dict)) or np.shape(value)[:1] != (n,):
        return value
    if hasattr(value, "iloc"):
        return value.iloc[rows]
    return value.tocsr()[rows] if scipy.sparse.issparse(value) else np.asarray(value)[rows]


def scorer_of(scoring: Any) -> Any:
    """The scorer for ``scoring``; for None the accuracy, which also accepts soft targets."""
    if scoring is None:
        return argmax_accuracy
    if not isinstance(scoring, str) and not callable(scoring):
        raise TypeError(f"scoring must be one scorer, a name, a callable or None, got {scoring!r}")
    return get_scorer(scoring)


# scikit-learn's scorers check their arguments, which takes a few milliseconds: on small data, most of the
# time of a path. So the accuracy and the log loss are computed here, with the same result, from checked rows
# and from targets that are coded once for each fold.
def _scoring(scoring, y, loss):
    """What scores the folds: a scorer, or the name of a metric that is computed here."""
    if scoring is None:
        return "accuracy"
    computed = {"accuracy": True, "neg_log_loss": loss.has_probabilities}
    if isinstance(scoring, str) and computed.get(scoring) and y.ndim == 1:
        return scorer_of(scoring) if type_of_target(y) == "continuous" else scoring
    return scorer_of(scoring)


def _accuracy(X, correct, weight, model):
    return accuracy(model._decide(add_offset(model, model._raw(X), None)), correct, weight)


def _neg_log_loss(X, codes, weight, model):
    """The negated log loss; y may lack a class, and probabilities are clipped as in scikit-learn."""
    p = model._probabilities(add_offset(model, model._raw(X), None))
    if p.shape[1] == 2:
        p[:, 0] = 1 - p[:, 1]
    p = p[np.arange(len(codes)), codes]
    eps = np.finfo(p.dtype).eps
    return np.average(np.log(np.clip(p, eps, 1 - eps).astype(np.float64)), weights=weight)


def _any_score(scorer, test, params, model):
    score = scorer(model, test.X, test.y, **params)
    if not isinstance(score, numbers.Real):
        raise TypeError(f"scoring must give a number, got {score!r} of type {type(score).__name__}")
    return score
