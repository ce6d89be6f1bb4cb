"""The base classes of the linear estimators, `fit` among them, and of the linear classifiers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sklloss import losses
from sklloss._base import (
    CallbackSupport,
    Estimator,
    FitCallbacks,
    Movable,
    VersionStamp,
    unchanged_on_error,
    warn,
    with_callbacks,
)
from sklloss._class_predictions import ClassPredictions, has_probabilities, log_of
from sklloss.arrays import threads
from sklloss.arrays.device import device_of, full_precision, to_device
from sklloss.data.checks import (
    Array,
    MatrixLike,
    check_choice,
    check_flag,
    check_integer,
    check_real,
    check_verbose,
    check_X,
    on_host,
)
from sklloss.data.dataset import DEVICE_DTYPES, add_offset, check_data, check_validation_data
from sklloss.data.targets import code_classes
from sklloss.linear.features import monotonic_signs, penalty_weights
from sklloss.linear.partial_fit import (
    STOCHASTIC,
    PartialFitMixin,
    check_stochastic,
    remember_fit,
    stochastic_options,
)
from sklloss.objectives.classification import (
    bind_loss,
    check_classification_loss,
    has_custom_link,
    newton_refusal,
)
from sklloss.objectives.linear import LinearObjective
from sklloss.objectives.passes import make_passes
from sklloss.solvers.base import Result
from sklloss.solvers.interior_point import interior_point
from sklloss.solvers.lbfgs import lbfgs
from sklloss.solvers.newton import newton_cholesky
from sklloss.solvers.newton_cg import lbfgs_newton_cg, newton_cg
from sklloss.solvers.proximal_newton import proximal_newton
from sklloss.solvers.root import minimise_root
from sklloss.solvers.signs import with_signs

SOLVERS: dict[str, Callable[..., Result]] = {
    "newton-cholesky": newton_cholesky,
    "newton-cg": newton_cg,
    "lbfgs": lbfgs,
    "proximal-newton": proximal_newton,
    "interior-point": interior_point,
    **STOCHASTIC,
}

NEWTON = ("newton-cholesky", "newton-cg", "proximal-newton")

# "auto" chooses newton-cholesky up to this many parameters per problem; the Hessian has the square of them.
LARGEST_HESSIAN = 200
# With this many parameters per problem or more, Hessians of several problems cost more than gradient passes.
LARGE_HESSIANS = 64


def split_intercept(coef: Array, fit_intercept: bool) -> tuple[Array, Array]:
    """Coefficients (outputs, features) and intercepts (outputs,), 0 without any, from (outputs, width)."""
    if not fit_intercept:
        return coef, np.zeros_like(coef[:, 0])
    # Copies, which keep no memory of the whole.
    return coef[:, :-1].copy(), coef[:, -1].copy()


def raw_scores(X: Any, coef: Array, intercept: Any) -> Array:
    """The raw scores ``X @ coef.T + intercept`` of checked rows, on the device of ``coef``."""
    origin = device_of(coef)
    if origin is None:
        # BLAS may read beyond the end of X and flag what it computes of that, and discards, as invalid.
        with np.errstate(invalid="ignore"):
            return X.dot(coef.T) + intercept
    xp = origin.xp
    dtype = xp.result_type(X.dtype, coef.dtype)
    X, coef = xp.astype(X, dtype, copy=False), xp.astype(coef, dtype, copy=False)
    if not isinstance(intercept, float):
        intercept = xp.astype(intercept, dtype, copy=False)
    with full_precision(origin):
        return X @ (coef.T if coef.ndim == 2 else coef) + intercept


class LinearPredictions(ClassPredictions):
    """Mixin: the fitted model ``X @ coef_.T + intercept_`` and its predictions."""

    classes_: Array
    coef_: Array
    intercept_: Array

    # Whether the outputs are the classes of one softmax rather than independent sigmoids.
    _softmax = None

    def _set_model(self, labels, link, coef, dtype, device=None):
        """Set the attributes that `predict` needs.

        Parameters
        ----------
        labels : Labels
        link : str, Loss or None
            See ``_link``.
        coef : ndarray of shape (outputs, width)
            The coefficients, and the intercepts as the last column if there are any.
        dtype : dtype
        device : Device, optional
            Of the fitted arrays; None for NumPy.
        """
        self.classes_ = to_device(labels.classes, device)
        self._kind = labels.kind
        self._link = link
        coef, intercept = split_intercept(coef.astype(dtype), self.fit_intercept)
        self.coef_, self.intercept_ = to_device(coef, device), to_device(intercept, device)

    def decision_function(self, X: MatrixLike, offset: ArrayLike | None = None) -> Array:
        """Raw scores of each row.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
        offset : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            What is added to the scores; needed if `fit` had one.

        Returns
        -------
        ndarray of shape (n_samples,) for two classes, else (n_samples, n_outputs)
            Positive scores favour ``classes_[1]``; with more outputs, the class or label of the output.
        """
        self._check_ready(X, "decision_function")
        return self._of_scores(lambda scores: scores, X, offset)

    def predict(self, X: MatrixLike, offset: ArrayLike | None = None) -> Array:
        """The likeliest class of each row, or a 0/1 row of labels for a multi-label model.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
        offset : array-like, default=None
            As for `decision_function`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        self._check_ready(X, "predict")
        return self._of_scores(self._decide, X, offset)

    @available_if(has_probabilities)
    def predict_proba(self, X: MatrixLike, offset: ArrayLike | None = None) -> Array:
        """Probabilities of the classes, or of each label.

        Only if the loss has probabilities (`Loss.has_probabilities`).

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
        offset : array-like, default=None
            As for `decision_function`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples, n_labels) for a multi-label model
            The sigmoids or the softmax of the scores; for a loss with another inverse link, that link,
            clipped to [0, 1]. One-vs-rest probabilities are divided by their sum, so that rows sum to 1,
            except those of a multi-label model, whose labels are independent.
        """
        self._check_ready(X, "predict_proba")
        return self._of_scores(self._probabilities, X, offset)

    @available_if(has_probabilities)
    def predict_log_proba(self, X: MatrixLike, offset: ArrayLike | None = None) -> Array:
        """Logarithms of `predict_proba`, finite even where a sigmoid or softmax rounds to 0.

        Only if the loss has probabilities (`Loss.has_probabilities`).

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
        offset : array-like, default=None
            As for `decision_function`.

        Returns
        -------
        ndarray of the shape of ``predict_proba(X)``
        """
        self._check_ready(X, "predict_log_proba")
        if self._link is not None:
            return log_of(self.predict_proba(X, offset))
        return self._of_scores(self._log_probabilities, X, offset)

    def score(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        offset: ArrayLike | None = None,
    ) -> float:
        """Accuracy; probabilities in y count as the most likely class or labels.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
        y : array-like
            Targets of any kind that `fit` accepts. A multi-label row is correct if all of its labels are.
        sample_weight : array-like of shape (n_samples,), default=None
        offset : array-like, default=None
            As for `decision_function`.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        return self._accuracy(self.predict(X, offset), y, sample_weight)

    def _of_scores(self, function, X, offset=None):
        """Apply a function of each row to the scores of X."""
        return function(add_offset(self, self._raw(check_X(self, X, reset=False)), offset))

    def _raw(self, X):
        """The raw scores of checked rows."""
        scores = raw_scores(X, self.coef_, self.intercept_)
        return scores[:, 0] if self._kind == "binary" else scores

    def _model_array(self):
        """A fitted attribute, to ask for its device."""
        return self.coef_

    def __sklearn_tags__(self) -> Tags:
        """Tags for scikit-learn: sparse input, and a 2-D y of labels for independent outputs."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = not self._softmax
        return tags


class LinearModel(CallbackSupport, Movable, VersionStamp, Estimator):
    """The base class of the linear estimators: `fit`, for what a subclass makes of y and its parameters.

    A subclass defines `_check_parameters`, `_training_coder`, `_validation_coder`, `_passes`, `_objective`,
    `_set_parameters`, `_has_l1`, `_penalise_more` and `_why_vanished`.
    """

    n_iter_: Array
    loss_: float
    loss_curve_: list[float]
    validation_loss_curve_: list[float]
    solver_: str

    # The values of ``solver`` beside "auto".
    _solvers = tuple(name for name in SOLVERS if name != "interior-point")

    @with_callbacks
    def fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        *,
        offset: ArrayLike | None = None,
        X_val: MatrixLike | None = None,
        y_val: MatrixLike | None = None,
        sample_weight_val: ArrayLike | None = None,
        offset_val: ArrayLike | None = None,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
            Training rows. float32 and float64 are used without conversion, in row or column order; a sparse
            matrix is used as CSR and never made dense. With a torch tensor, or an array of another array API
            namespace, the fit runs on its device (by the compiled kernels if that is main memory), and fitted
            attributes are arrays of the same namespace on the same device.
        y : array-like
            Targets, see the class.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a weight of 2 counts as the row given twice, 0 leaves it out.
        offset : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            A known term that is added to the raw scores, such as the logarithm of the exposure of a count.
            Predictions of a model that was fitted with an offset need one too.
        X_val, y_val, sample_weight_val, offset_val : array-like, default=None
            A validation set, which has no influence on the fit. Its mean loss after each iteration, weighted
            by ``sample_weight_val`` without class weights, becomes ``validation_loss_curve_``.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is invalid; the message names it. The estimator is left unchanged.
        """
        callbacks = FitCallbacks(self, X, y, sample_weight, self.max_iter)
        with unchanged_on_error(self):
            loss = self._check_parameters()
            earlier = self._earlier_parameters()
            data = check_data(self, X, y, sample_weight, self._training_coder(), offset=offset)
            objective = self._objective(self._passes(data, loss, threads.check(self.n_threads)))
            solvers = [self._choose_solver(objective)]
            held_out = check_validation_data(
                self, X_val, y_val, sample_weight_val, self._validation_coder(data), data, dtype=data.dtype,
                offset_val=offset_val,
            )  # fmt: skip
            learned = functools.partial(self._learned, objective=objective, data=data, loss=loss)
            monitor = _Monitor(
                objective, self.verbose, callbacks.steps("iteration", learned), self._reported_value
            )
            if held_out is not None:
                monitor.validate_on(
                    held_out, self._passes(held_out, loss, objective.passes.n_threads, "y_val")
                )
            start = self._start(objective, earlier)
            # Called here rather than in a method, to keep the stack between `fit` and the passes short.
            minimise = self._solver(objective, solvers[0], start, monitor.callback, solvers.append)
            with threads.single_threaded_blas(), full_precision(objective.passes.device):
                try:
                    result = self._check_result(minimise(), objective)
                except _Stopped as stop:
                    if monitor.at_start is None:
                        monitor.begin(objective.value_and_gradient(start)[0])
                    result = stop.result(monitor.at_start)
            self._warn_if_unsolved(result, solvers[-1])
            self._become(result.w, objective=objective, data=data, loss=loss)
            remember_fit(self, data)
            self._has_offset = data.offset is not None
            self.n_iter_ = to_device(result.n_iter.astype(np.int32), data.origin.device)
            self.loss_ = self._reported_value(float(result.value.sum()), objective)
            self.loss_curve_ = [self._reported_value(value, objective) for value in result.curve]
            self.solver_ = solvers[-1]
            vars(self).pop("validation_loss_curve_", None)
            if monitor.curve is not None:
                self.validation_loss_curve_ = monitor.curve
            callbacks.end()
        return self

    def _earlier_parameters(self):
        """Coefficients and intercepts of the last fit as NumPy arrays, if this one starts from them."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        return self._parameters()

    def _parameters(self):
        """The fitted coefficients (outputs, features) and intercepts (outputs,), in NumPy."""
        return on_host(self.coef_, "coef_"), on_host(self.intercept_, "intercept_")

    def _learned(self, w, *, objective, data, loss):
        """The attributes that `predict` needs, from the parameters of an unfinished fit, for callbacks."""
        model = type(self).__new__(type(self))
        model.loss, model.fit_intercept = self.loss, self.fit_intercept
        model._become(w, objective=objective, data=data, loss=loss)
        return vars(model)

    def _become(self, w, *, objective, data, loss):
        """Set the attributes that `predict` needs, from a solver's parameters ``w``."""
        coef = objective.passes.uncentered(objective.coef(w))
        self._set_parameters(coef, data=data, loss=loss, dtype=data.origin.dtype)

    def _reported_value(self, value, objective):
        """A value of the objective, summed over problems, in the unit of ``loss_``."""
        return value

    def _check_shared_parameters(self):
        """Check the parameters that all linear estimators have."""
        check_real("l1_ratio", self.l1_ratio, 0, 1)
        check_real("tol", self.tol, 0)
        check_integer("max_iter", self.max_iter, 0)
        check_flag("fit_intercept", self.fit_intercept)
        check_flag("warm_start", self.warm_start)
        check_choice("solver", self.solver, ("auto", *self._solvers))
        check_stochastic(self)
        check_choice("device_dtype", self.device_dtype, DEVICE_DTYPES)
        check_verbose(self.verbose)

    def _null_start(self, objective):
        """The parameters to start from without an earlier fit."""
        return np.zeros(objective.shape)

    def _stream_start(self, objective):
        """The parameters that `partial_fit` starts from."""
        return self._null_start(objective)

    def _start(self, objective, earlier):
        """The parameters to start from, those of the last fit with warm_start."""
        if earlier is None:
            return self._null_start(objective)
        start = np.zeros(objective.shape)
        coef, intercept = earlier
        outputs, width = objective.coef(start).shape
        features = width - bool(self.fit_intercept)
        if coef.shape != (outputs, features):
            raise ValueError(
                f"warm_start=True: the fitted coef_ has shape {coef.shape}, the new problem needs "
                f"{(outputs, features)}; use warm_start=False or a new estimator"
            )
        start = objective.coef(start)
        start[:, :features] = coef
        if self.fit_intercept:
            start[:, -1] = intercept
        # A common shift of all outputs of a softmax changes nothing, so its rounding errors would accumulate.
        return objective.without_shift(objective.passes.centered(start).reshape(objective.shape))

    def _choose_solver(self, objective):
        """The name of the solver; a ValueError if ``solver`` does not fit the loss or the penalty."""
        refusal = newton_refusal(objective.passes.loss)
        constrained = monotonic_signs(self) is not None
        if self._has_l1 or constrained:
            what, without, asks = "monotonic_cst", "monotonic_cst=None", "constraints"
            if self._has_l1:
                what, without, asks = f"l1_ratio={self.l1_ratio}", "l1_ratio=0", "an L1 penalty"
            if refusal:
                raise ValueError(f"{what} does not fit loss={self.loss!r}, which {refusal}; use {without}")
            if self.solver not in ("auto", "proximal-newton"):
                raise ValueError(
                    f"solver={self.solver!r} minimises smooth objectives, and {what} asks for {asks}; use "
                    "solver='proximal-newton' or 'auto'"
                )
            return "proximal-newton"
        if self.solver == "auto":
            if refusal:
                return "lbfgs"
            return "newton-cholesky" if objective.size <= LARGEST_HESSIAN else "newton-cg"
        if refusal and self.solver in NEWTON:
            raise ValueError(
                f"solver={self.solver!r} does not fit loss={self.loss!r}, which {refusal}; "
                "use solver='lbfgs' or 'auto'"
            )
        return self.solver

    def _solver(self, objective, name, start, callback=None, begins=None, cache=None):
        """A function without arguments that minimises the objective; for ``cache`` see `newton_cg`.

        If "auto" runs two solvers one after the other, ``begins`` is called with the name of each.
        """
        options, minimise = stochastic_options(self) if name in STOCHASTIC else {}, SOLVERS[name]
        if self._begins_by_lbfgs(objective, name, start):
            minimise, options = lbfgs_newton_cg, {"begins": begins}
        elif name == "newton-cg":
            options["cache"] = cache
        signs = monotonic_signs(self)
        if signs is not None:
            minimise = functools.partial(with_signs, minimise, signs=signs)
        if objective.passes.loss.root_of is not None and name in NEWTON:
            minimise = functools.partial(minimise_root, minimise)
        return functools.partial(
            minimise, objective, start, tol=self.tol, max_iter=self.max_iter, callback=callback, **options
        )

    def _minimise(self, objective, start, cache=None):
        """The result of the solver for this objective."""
        name = self._choose_solver(objective)
        minimise = self._solver(objective, name, start, cache=cache if start.any() else None)
        return self._check_result(minimise(), objective)

    def _check_result(self, result, objective):
        """The result of a solver; a ValueError if a number in it is not finite."""
        if not np.isfinite(result.w).all():
            raise ValueError("the fit ended at parameters that are not finite: rescale the columns of X")
        if not np.isfinite(result.value).all():
            raise ValueError(f"the objective is not finite: {result.value.sum()}, with loss={self.loss!r}")
        return result

    def _warn_if_unsolved(self, result, solver):
        why = self._why_unsolved(result)
        if why:
            warn(f"{type(self).__name__} (solver={solver!r}) has not converged: {why}.", ConvergenceWarning)

    def _begins_by_lbfgs(self, objective, solver, start):
        """Whether "auto" runs a few steps of L-BFGS before the Newton method that it chose."""
        heavy = solver == "newton-cg"
        if solver == "newton-cholesky":
            heavy = objective.problems > 1 and objective.size >= LARGE_HESSIANS
        return self.solver == "auto" and heavy and objective.suits_lbfgs and not start.any()

    def _why_unsolved(self, result):
        """Why the solver has not converged, and what the user can do about it; None if it has."""
        why = self._why_vanished() if result.vanished.any() else None
        if why or (result.converged | result.vanished).all():
            return why
        if result.n_iter.max(initial=0) >= self.max_iter:
            return (
                f"it stopped after max_iter={self.max_iter} iterations. Increase max_iter, scale the "
                f"features or {self._penalise_more}"
            )
        return "it found no step that decreases the objective. Scale the features, or increase tol"


class LinearClassifier(PartialFitMixin, LinearPredictions, ClassifierMixin, LinearModel):
    """The base class of the linear classifiers."""

    _penalise_more = "lower C"

    @property
    def _has_l1(self):
        """Whether the penalty has an L1 part."""
        return self.l1_ratio > 0 and np.isfinite(self.C)

    def _set_parameters(self, coef, *, data, loss, dtype):
        """Set the attributes that `predict` needs, from coefficients (outputs, width)."""
        self._set_model(data.labels, self._own_link(loss), coef, dtype, data.origin.device)

    def _check_parameters(self):
        """Check the parameters; return the loss to minimise."""
        loss = losses.get(self.loss)
        smoothing = check_real("label_smoothing", self.label_smoothing, 0, 1, open_high=True)
        loss = check_classification_loss(loss, smoothing, softmax=self._softmax)
        check_real("C", self.C, 0, open_low=True)
        self._check_shared_parameters()
        if check_flag("dual", self.dual):
            raise ValueError(
                f"dual={self.dual!r} is for solver='liblinear', which sklloss does not have; use dual=False"
            )
        if self.intercept_scaling != 1:
            raise ValueError(
                f"intercept_scaling={self.intercept_scaling!r} is for solver='liblinear', which sklloss does "
                "not have; the intercept is not penalised, leave it at 1"
            )
        return loss

    def _coder(self, class_weight=None, kind=None, classes=None):
        """A function that codes targets; ``kind`` and ``classes`` are those they must have, if known."""
        return functools.partial(
            code_classes, output="softmax" if self._softmax else "sigmoid",
            class_weight=class_weight, kind=kind, classes=classes,
        )  # fmt: skip

    def _passes(self, data, loss, n_threads, name="y", center=True):
        """The passes over the rows; ``name`` is that of y in errors, ``center`` see `make_passes`."""
        loss, data = bind_loss(loss, data, self.label_smoothing, softmax=self._softmax, name=name)
        return make_passes(
            data, loss, fit_intercept=bool(self.fit_intercept), n_threads=n_threads, center=center
        )

    def _objective(self, passes):
        return LinearObjective(passes, self.C, self.l1_ratio, penalty_weights(self))

    def _training_coder(self):
        """What codes the targets of `fit`."""
        return self._coder(self.class_weight)

    def _validation_coder(self, data):
        """What codes the targets of the validation set, to which class weights do not apply."""
        return self._coder(kind=data.labels.kind, classes=data.labels.classes)

    def _why_vanished(self):
        """Why an output has no finite optimum, and what the user can do about it."""
        if np.isfinite(self.C):
            return "an output has rows of one class only, so that no finite intercept is optimal"
        return (
            "the classes can be separated without error, so that without a penalty there is no finite "
            "optimum. Lower C"
        )

    def _own_link(self, loss):
        """The ``loss`` parameter if its inverse link gives the probabilities, else None."""
        return self.loss if has_custom_link(loss, softmax=self._softmax) else None


class _Stopped(Exception):  # noqa: N818 - not an error
    """Raised when a callback stops the fit; carries the state of the solver."""

    def __init__(self, iteration, w, value, values):
        super().__init__()
        self._state = iteration, w.copy(), value.copy(), values

    def result(self, at_start):
        """The result of a solver that converged here; ``at_start`` is the objective at the start."""
        iteration, w, value, values = self._state
        problems = len(w)
        done = np.ones(problems, dtype=bool)
        return Result(w, value, np.full(problems, iteration), done, [at_start, *values], ~done)


class _Monitor:
    """What happens after each iteration: printing, the validation loss, the callbacks.

    Attributes
    ----------
    curve : list of float or None
        The validation loss after each iteration, if there is a validation set.
    at_start : float or None
        The objective at the start, if a solver has told.
    """

    def __init__(self, objective, verbose, steps, report):
        self.curve, self.at_start = None, None
        self._objective, self._report = objective, report
        self._verbose = bool(verbose)
        self._steps = steps
        self._values = []

    @property
    def callback(self):
        """What the solver calls after each iteration; None if there is nothing to do."""
        needed = self._verbose or self._steps is not None or self.curve is not None
        return self if needed else None

    def begin(self, value):
        """Record the values at the start, if a solver has found a better one than that of the estimator."""
        self.at_start = float(value.sum())

    def validate_on(self, data, passes):
        """Record the mean loss of these rows."""
        self.curve = []
        self._passes = passes
        self._total = data.n if data.weight is None else float(data.weight.sum(dtype=np.float64))

    def __call__(self, iteration, w, value):
        line = f"iteration {iteration}: objective {self._report(float(value.sum()), self._objective):.10g}"
        if self.curve is not None:
            coef = self._objective.passes.uncentered(self._objective.coef(w))
            sums, _ = self._passes.value_and_gradient(self._passes.centered(coef))
            self.curve.append(float(sums.sum()) / self._total)
            line += f", validation loss {self.curve[-1]:.10g}"
        if self._verbose:
            print(line)
        if self._steps is not None:
            self._values.append(float(value.sum()))
            self._steps.begin()
            if self._steps.end(w):
                raise _Stopped(iteration, w, value, self._values)
