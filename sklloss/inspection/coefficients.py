"""Standard errors of the coefficients of linear models."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from sklloss._base import warn
from sklloss.data.checks import MatrixLike, check_choice, check_real, is_sparse, on_host
from sklloss.data.dataset import Dataset, check_rows, with_offset
from sklloss.linear.base import LinearClassifier
from sklloss.linear.features import monotonic_signs, penalty_weights
from sklloss.linear.regressors import LinearRegressor
from sklloss.objectives.classification import bind_loss

Floats = NDArray[np.float64]

ROBUST = ("HC0", "HC1", "HC2", "HC3")
COVARIANCES = ("model", "robust", "cluster", *ROBUST)
# A direction in which the information is less than this share of the largest, with columns scaled to 1, has
# none.
NO_INFORMATION = 1e-11
# Rows whose products with X are made at a time.
BLOCK_ROWS = 1 << 14

# Links with an exponential tail, by which the loss of a row can fall without end.
TAILS = ("logistic", "softmax", "exp")
# The least change of a raw score by a Newton step that tells of a falling tail, and the share of the largest
# change that counts as one.
LEAST_MOVE, MOVED = 0.3, 0.1
# A row has determined its own prediction if its leverage is within this of 1.
LEAST_FREEDOM = 1e-9
# The distance from the optimum at which numbers are warned of, in standard errors.
FAR_OFF = 1.0
# A step that is rounding, as a share of the coefficient.
ROUNDING = 1e-8

COLUMNS = ("estimate", "std_error", "z", "p", "lower", "upper")


def coefficient_table(
    est: Any,
    X: MatrixLike,
    y: MatrixLike,
    sample_weight: ArrayLike | None = None,
    *,
    offset: ArrayLike | None = None,
    covariance: str = "model",
    groups: ArrayLike | None = None,
    level: float = 0.95,
) -> Any:
    """Estimates, standard errors, z, p and confidence intervals of the coefficients of a linear model.

    Parameters
    ----------
    est : LinearRegressor, LogisticClassifier or SoftmaxClassifier
        Fitted to these rows with a smooth loss and no L1 penalty.
    X, y, sample_weight, offset : array-like
        What it was fitted to. A weight of 2 counts as the row given twice.
    covariance : {"model", "robust", "cluster", "HC0", "HC1", "HC2", "HC3"}, default="model"
        "model" is right if the model is: the inverse of the Fisher information, times the dispersion
        (Pearson's estimate) where the loss does not determine it; for a loss of errors that is no likelihood,
        such as "huber", errors are taken to be alike in all rows; for any other, such as "focal" or with
        label smoothing, it is "robust". "robust" is the sandwich of White and Huber, which is right for any
        variance of the rows; "HC0" is another name for it, and "HC1", "HC2" and "HC3" correct it for few rows
        (the last two by leverages, which the rows of a softmax do not have). "cluster" allows rows of one
        group to depend on each other, with the correction of few groups.
    groups : array-like of shape (n_samples,), default=None
        The group of each row, for "cluster".
    level : float, default=0.95
        Of the intervals.

    Returns
    -------
    table : DataFrame, or dict of lists without pandas
        A row for each coefficient, "(intercept)" first, of each output; of a softmax for each class but the
        first, relative to the first. Columns are "estimate", "std_error", "z", "p", "lower" and "upper"; p
        and the intervals are those of Student's t for the squared error with covariance="model", else of the
        normal distribution. ``table.attrs["note"]`` (the entry "note" of a dict) says what the numbers mean
        with a penalty, and with a loss that is neither a likelihood nor one of errors.

    Raises
    ------
    ValueError, TypeError
        If the loss is not smooth, for an L1 penalty or constraints, for columns that are linear combinations
        of others without a penalty, for classes that can be separated without error or counts that some rows
        hold at 0, for as many coefficients as rows, or for invalid arguments.

    Warns
    -----
    ConvergenceWarning
        If the coefficients are more than a standard error from the optimum of these rows.

    Notes
    -----
    With an L2 penalty the estimates are biased towards 0, and the standard errors are those of the biased
    estimates: ``(H + P)**-1 H (H + P)**-1`` with the information H and the penalty P. Intervals then cover
    the mean of the estimate, not the true coefficient.

    References
    ----------
    White, "A heteroskedasticity-consistent covariance matrix estimator", Econometrica 48 (1980); Liang and
    Zeger, "Longitudinal data analysis using generalized linear models", Biometrika 73 (1986).

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklloss import LinearRegressor
    >>> from sklloss.inspection import coefficient_table
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = LinearRegressor(alpha=0.0).fit(X, y)
    >>> table = coefficient_table(model, X, y)
    """
    check_choice("covariance", covariance, COVARIANCES)
    check_real("level", level, 0.0, 1.0, open_low=True, open_high=True)
    check_is_fitted(est)
    fitted = _fitted(est, X, y, sample_weight, offset)
    if (groups is None) == (covariance == "cluster"):
        raise ValueError("groups and covariance='cluster' go together")
    names = getattr(est, "feature_names_in_", None)
    names = [f"x{j}" for j in range(est.n_features_in_)] if names is None else list(names)
    names = (["(intercept)"] if est.fit_intercept else []) + names
    if covariance == "model" and not fitted.models:
        covariance = "robust"
        fitted.notes.append("the loss is neither a likelihood nor one of errors: standard errors are robust")
    outputs = range(len(fitted.coef)) if isinstance(est, LinearRegressor) else on_host(est.classes_, "")
    outputs = [str(label) for label in outputs]
    if fitted.softmax:
        estimate, cov, step = _softmax(fitted, covariance, groups)
        outputs = outputs[1:]
    else:
        parts = [_one_output(fitted, k, covariance, groups) for k in range(len(fitted.coef))]
        estimate, step = np.stack([part[0] for part in parts]), np.stack([part[2] for part in parts])
        cov = [part[1] for part in parts]
        outputs = outputs if len(parts) > 1 else [""]
    error = np.stack([np.sqrt(np.maximum(part.diagonal(), 0.0)) for part in cov])
    if (np.abs(step) > FAR_OFF * error + ROUNDING * np.abs(estimate)).any():
        warn(
            "the coefficients are more than a standard error from the optimum of these rows, weights and "
            "offset: they were fitted to others, or not to the optimum",
            ConvergenceWarning,
        )
    student = covariance == "model" and fitted.student
    degrees = fitted.residual_degrees if student else np.inf
    return _table(estimate, error, names, outputs, level, degrees, "; ".join(fitted.notes))


@dataclasses.dataclass
class _Fitted:
    """A fitted model with the rows that it was fitted to, in NumPy.

    Attributes
    ----------
    X : ndarray or CSR matrix of float64
    loss : Loss
    y : ndarray of shape (n, outputs), or (n,) of codes
    weight : ndarray of shape (n, outputs)
    raw : ndarray of shape (n, outputs)
    coef : ndarray of shape (outputs, width)
        The intercept first.
    ridge : ndarray of shape (width,)
        The second derivative of the penalty.
    student : bool
        Whether estimates have Student's t distribution.
    models : bool
        Whether the loss says how y varies: it is a likelihood, or one of errors.
    notes : list of str
        What the numbers mean.
    """

    X: Any
    loss: Any
    y: Any
    weight: Floats
    raw: Floats
    coef: Floats
    ridge: Floats
    intercept: bool
    softmax: bool
    student: bool
    models: bool
    notes: list[str]

    @property
    def rows(self) -> float:
        """The number of rows, by their weights."""
        return float(self.weight[:, 0].sum())

    @property
    def residual_degrees(self) -> float:
        """Rows less the coefficients of an output."""
        return self.degrees_left(self.coef.shape[1])

    def degrees_left(self, parameters: int) -> float:
        """Rows less parameters; a ValueError if there are no more."""
        if not self.rows > parameters:
            raise ValueError(
                f"{parameters} coefficients leave nothing of {self.rows:g} rows (the sum of sample_weight, "
                "which counts rows) to estimate a variance from"
            )
        return self.rows - parameters

    def design(self, first: int, last: int) -> Floats:
        """Some rows of X, with a column of ones in front if there is an intercept."""
        rows = self.X[first:last]
        rows = rows.toarray() if is_sparse(rows) else rows
        return np.column_stack([np.ones(len(rows)), rows]) if self.intercept else rows

    def blocks(self) -> Any:
        """Slices of the rows, and these rows of the design."""
        for first in range(0, self.X.shape[0], BLOCK_ROWS):
            last = min(first + BLOCK_ROWS, self.X.shape[0])
            yield slice(first, last), self.design(first, last)

    def gram(self, weight: Floats) -> Floats:
        """X' diag(weight) X."""
        width = self.coef.shape[1]
        return sum((Z.T @ (weight[rows, None] * Z) for rows, Z in self.blocks()), np.zeros((width, width)))


def _fitted(est: Any, X: Any, y: Any, sample_weight: Any, offset: Any) -> _Fitted:
    regressor = isinstance(est, LinearRegressor)
    if not regressor and not isinstance(est, LinearClassifier):
        raise TypeError(
            "est must be a LogisticClassifier, SoftmaxClassifier or LinearRegressor, got "
            f"{type(est).__name__}: of a cross-validated one, fit such a model with the penalty that it chose"
        )
    loss = est._check_parameters()
    if est._has_l1:
        raise ValueError("coefficients with an L1 penalty have no standard errors: use l1_ratio=0")
    if monotonic_signs(est) is not None:
        raise ValueError("coefficients under constraints have no standard errors: use monotonic_cst=None")
    rows = check_rows(est, X, sample_weight, reset=False)
    rows = dataclasses.replace(rows, X=rows.on_host().astype(np.float64))
    code = (
        est._training_coder()
        if regressor
        else est._coder(est.class_weight, est._kind, on_host(est.classes_, ""))
    )
    data: Dataset = with_offset(code(rows, y, name="y"), offset, "offset")
    if est._has_offset != (offset is not None):
        raise ValueError("pass the offset that the model was fitted with, and none if there was none")
    if not regressor:
        loss, data = bind_loss(loss, data, est.label_smoothing, softmax=est._softmax)
    if not loss.states_curvature and loss.curvature_buffer is None:
        raise ValueError(f"loss={est.loss!r} states no second derivative, which standard errors need")
    if not loss.separable and not loss.shift_invariant:
        raise ValueError(
            f"loss={est.loss!r} couples outputs; of such losses, the cross-entropy alone is supported"
        )
    coef, intercept = est._parameters()
    raw = np.asarray(data.X @ coef.T.astype(np.float64)) + intercept
    raw = raw if data.offset is None else raw + data.offset
    weight = np.ones(data.n) if data.weight is None else data.weight.astype(np.float64)
    weight = np.broadcast_to(weight.reshape(data.n, -1), (data.n, len(coef) if loss.separable else 1))
    strength = est.alpha * float(weight[:, 0].sum()) if regressor else 1.0 / est.C
    by_feature = penalty_weights(est)
    ridge = np.full(coef.shape[1], strength) * (1.0 if by_feature is None else by_feature)
    if est.fit_intercept:
        coef, ridge = np.column_stack([intercept, coef]), np.append(0.0, ridge)
    coef = coef.astype(np.float64)
    target = data.values if data.values is not None else data.codes
    if loss.separable and data.values is None:
        target = np.eye(len(coef))[data.codes]
    biased = (
        "with an L2 penalty: estimates are biased towards 0, and standard errors and intervals are those of "
        "the biased estimates"
    )
    likely = loss.curvature_buffer == "probabilities"
    if loss.separable:
        likely = loss.expected_curvature(np, np.zeros(1)) is not None
    smoothed = getattr(est, "label_smoothing", 0.0) or getattr(loss, "label_smoothing", 0.0)
    return _Fitted(
        data.X, loss, target, weight, raw, coef, ridge, bool(est.fit_intercept), not loss.separable,
        student=regressor and likely and loss.curvature_bound is not None,
        models=(likely and not smoothed) or (regressor and _of_errors(loss, target, raw)),
        notes=[biased] if ridge.any() else [],
    )  # fmt: skip


def _of_errors(loss: Any, y: Any, raw: Floats) -> bool:
    """Whether the loss depends on the error ``raw - y`` alone."""
    with np.errstate(all="ignore"):
        slope = _slope(loss, y, raw)
        shifted = _slope(loss, np.zeros_like(raw), raw - y)
    return bool(np.abs(slope - shifted).max() <= 1e-6 * np.abs(slope).max())


@dataclasses.dataclass
class _Part:
    """The outputs whose coefficients are estimated together: one, or all of a softmax.

    Attributes
    ----------
    coef : ndarray of shape (outputs, width)
    slope : ndarray of shape (n, outputs)
        Derivatives of each row's loss by its raw scores, without weights.
    weight : ndarray of shape (n,)
    observed : ndarray of shape (outputs * width, outputs * width)
        The second derivatives of the loss of all rows.
    penalty : ndarray like observed
        Those of the penalty.
    curvature : ndarray of shape (n,) or None
        Of one output: the second derivative of each row's loss.
    """

    coef: Floats
    slope: Floats
    weight: Floats
    observed: Floats
    penalty: Floats
    curvature: Floats | None = None

    def moves(self, fitted: _Fitted, change: Floats) -> Floats:
        """By how much raw scores (n, outputs) change with the coefficients."""
        change = change.reshape(self.coef.shape).T
        return np.concatenate([Z @ change for _, Z in fitted.blocks()])

    def gradient(self, fitted: _Fitted) -> Floats:
        """The derivative of the objective by the coefficients."""
        weighted = self.weight[:, None] * self.slope
        total = sum((weighted[rows].T @ Z for rows, Z in fitted.blocks()), np.zeros(self.coef.shape))
        return np.ravel(total) + self.penalty @ self.coef.ravel()

    def separates(self, fitted: _Fitted, change: Floats, least: float) -> bool:
        """Whether a change of the coefficients lowers the loss of every row that it moves by ``least``."""
        moves = self.moves(fitted, change)
        moves[self.weight == 0] = 0.0
        size = np.ptp(moves, axis=1) if moves.shape[1] > 1 else np.abs(moves[:, 0])
        moved = size > max(least, MOVED * float(size.max()))
        return bool(moved.any() and (np.einsum("ij,ij->i", moves, self.slope)[moved] <= 0).all())


def _one_output(fitted: _Fitted, k: int, covariance: str, groups: Any) -> tuple[Floats, Floats, Floats]:
    """The estimates of one output, their covariance, and the step to the optimum."""
    loss, y, raw = fitted.loss.of_output(k), fitted.y[:, k].astype(np.float64), fitted.raw[:, k]
    weight = fitted.weight[:, k]
    with np.errstate(all="ignore"):
        slope = np.where(weight > 0, _slope(loss, y, raw), 0.0)
        curvature = np.where(weight > 0, loss.curvature(np, y, raw), 0.0)
        expected = loss.expected_curvature(np, raw)
    penalty = np.diag(fitted.ridge * float(fitted.loss.row_divisor(len(fitted.coef))))
    observed = fitted.gram(weight * curvature)
    part = _Part(fitted.coef[k : k + 1], slope[:, None], weight, observed, penalty, curvature)
    inverse = _inverse(part, fitted, penalty)
    step = -inverse @ part.gradient(fitted)
    _check_separation(part, fitted, step)
    if covariance != "model":
        return fitted.coef[k], _sandwich(part, fitted, inverse, covariance, groups), step
    dispersion = 1.0
    if expected is None:
        # An M-estimator of errors that are alike in all rows.
        mean = float(weight @ curvature) / fitted.rows
        information = mean * fitted.gram(weight)
        dispersion = float(weight @ slope**2) / fitted.residual_degrees / mean
    else:
        information = fitted.gram(weight * expected)
        if not loss.known_dispersion:
            dispersion = float(weight @ (slope**2 / expected)) / fitted.residual_degrees
    part.observed = information
    inverse = _inverse(part, fitted, penalty)
    return fitted.coef[k], dispersion * inverse @ information @ inverse, step


def _slope(loss: Any, y: Any, raw: Floats) -> Floats:
    """The derivatives of each row's loss by its raw scores."""
    slope = loss.formula(np, y, raw)[1]
    return np.asarray(slope() if callable(slope) else slope)


def _sandwich(part: _Part, fitted: _Fitted, inverse: Floats, covariance: str, groups: Any) -> Floats:
    """The robust covariance, given the inverse of the second derivatives of the objective."""
    weight, size = part.weight, inverse.shape[0]
    # What is estimated: a shift of all classes of a softmax is not.
    parameters = size if len(part.coef) == 1 else size - part.coef.shape[1]
    factor, numbers = 1.0, None
    if covariance == "cluster":
        numbers, count = _group_numbers(groups, len(weight))
        factor = count / (count - 1) * (fitted.rows - 1) / fitted.degrees_left(parameters)
        total = np.zeros((count, size))
    elif covariance == "HC1":
        factor = fitted.rows / fitted.degrees_left(parameters)
    power = {"HC2": 1.0, "HC3": 2.0}.get(covariance, 0.0)
    middle = np.zeros((size, size))
    for rows, Z in fitted.blocks():
        scores = np.einsum("ik,ij->ikj", part.slope[rows], Z).reshape(len(Z), size)
        if numbers is not None:
            member = scipy.sparse.csr_array(
                (weight[rows], numbers[rows], np.arange(len(Z) + 1)), shape=(len(Z), len(total))
            )
            total += member.T @ scores
            continue
        scale = weight[rows]
        if power:
            assert part.curvature is not None
            leverage = np.einsum("ij,ij->i", Z @ inverse, Z) * part.curvature[rows]
            if (whole := (scale > 0) & (leverage > 1.0 - LEAST_FREEDOM)).any():
                raise ValueError(
                    f"row {rows.start + int(whole.argmax())} alone determines a coefficient, so that "
                    f"covariance={covariance!r} is not defined: use 'robust', or leave out its column"
                )
            scale = scale / (1.0 - leverage) ** power
        middle += scores.T @ (scale[:, None] * scores)
    if numbers is not None:
        middle = total.T @ total
    return factor * inverse @ middle @ inverse


def _group_numbers(groups: Any, n: int) -> tuple[NDArray[np.intp], int]:
    """The number of each row's group, and how many groups there are."""
    labels = np.asarray(on_host(groups, "groups"))
    if labels.shape != (n,):
        raise ValueError(f"groups must have shape {(n,)}, got {labels.shape}")
    try:
        if any(label is None or label != label for label in labels.tolist()):
            raise TypeError("a value is missing")
        found, numbers = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise ValueError(f"groups must be numbers or strings, without missing values: {error}") from error
    if len(found) < 2:
        raise ValueError("groups must hold at least 2 groups")
    return numbers, len(found)


def _softmax(fitted: _Fitted, covariance: str, groups: Any) -> tuple[Floats, list[Floats], Floats]:
    """Each class but the first, relative to the first: estimates, covariances, the step to the optimum."""
    classes, width = fitted.coef.shape
    if covariance in ("HC2", "HC3"):
        raise ValueError(
            f"covariance={covariance!r} is not for a softmax, whose rows have no single leverage"
        )
    weight, loss = fitted.weight[:, 0], fitted.loss
    size = classes * width
    information = np.empty((size, size))
    for m in range(classes):
        product = loss.product_formula(
            np, fitted.y, fitted.raw, np.broadcast_to(np.eye(classes)[m], fitted.raw.shape)
        )
        for k in range(m, classes):
            block = fitted.gram(weight * product[:, k])
            information[k * width : (k + 1) * width, m * width : (m + 1) * width] = block
            information[m * width : (m + 1) * width, k * width : (k + 1) * width] = block.T
    # The same shift of all classes changes nothing: contrasts with the first class have what is known.
    contrast = np.kron(np.column_stack([-np.ones(classes - 1), np.eye(classes - 1)]), np.eye(width))
    shift = np.kron(np.ones((classes, 1)), np.eye(width))
    penalty = np.diag(np.tile(fitted.ridge, classes))
    free = shift[:, fitted.ridge == 0]
    slope = np.where(weight[:, None] > 0, _slope(loss, fitted.y, fitted.raw), 0.0)
    part = _Part(fitted.coef, slope, weight, information, penalty)
    inverse = _inverse(part, fitted, penalty + float(np.trace(information)) / size * (free @ free.T))
    step = -inverse @ part.gradient(fitted)
    _check_separation(part, fitted, step)
    if covariance == "model":
        cov = inverse @ information @ inverse
    else:
        cov = _sandwich(part, fitted, inverse, covariance, groups)
    cov = contrast @ cov @ contrast.T
    estimate = fitted.coef[1:] - fitted.coef[0]
    blocks = [slice(k * width, (k + 1) * width) for k in range(classes - 1)]
    return estimate, [cov[block, block] for block in blocks], (contrast @ step).reshape(-1, width)


def _check_separation(part: _Part, fitted: _Fitted, step: Floats) -> None:
    """Raise a ValueError if the loss of some rows falls without end.

    Its tail is exponential, so that a Newton step moves the score of such a row by about 1, however near 0
    its loss is; at an optimum steps are much smaller, or lower the loss of some rows only.
    """
    if fitted.loss.inverse_link_name not in TAILS or not (fitted.ridge == 0).any():
        return
    if part.separates(fitted, step, LEAST_MOVE):
        raise ValueError(_separated(fitted))


def _separated(fitted: _Fitted) -> str:
    """What is wrong with the rows if the loss of some falls without end."""
    what = "the classes can be separated without error, at least in some rows"
    if fitted.loss.inverse_link_name == "exp":
        what = "some columns tell rows with y = 0 apart from all others"
    return (
        f"{what}, so that without a penalty coefficients have no finite optimum and no standard errors: use "
        "a penalty"
    )


def _inverse(part: _Part, fitted: _Fitted, penalty: Floats) -> Floats:
    """The inverse of the information and a penalty; a ValueError if there is none."""
    matrix = part.observed + penalty
    root = np.sqrt(np.where(matrix.diagonal() > 0, matrix.diagonal(), 1.0))
    values, vectors = np.linalg.eigh(matrix / root / root[:, None])
    none = values <= NO_INFORMATION * values[-1]
    if none.any() or not values[-1] > 0:
        unknown = vectors[:, none]
        # Coefficients of classes that can be separated have grown in the directions without information.
        grown = unknown @ (unknown.T @ (part.coef.ravel() * root)) / root
        if fitted.loss.inverse_link_name in TAILS and part.separates(fitted, grown, LEAST_MOVE):
            raise ValueError(_separated(fitted))
        names = np.flatnonzero(np.abs(unknown).max(axis=1) > 1e-6) % fitted.coef.shape[1]
        columns = [
            "the intercept" if fitted.intercept and j == 0 else f"column {j - fitted.intercept}"
            for j in sorted(set(names.tolist()))
        ]
        if len(columns) > 8:
            columns[8:] = [f"{len(columns) - 8} more"]
        raise ValueError(
            f"the rows say nothing about a linear combination of {', '.join(columns)}: columns depend on "
            "each other, or classes can be separated. Leave columns out, or use an L2 penalty"
        )
    inverse: Floats = (vectors / values) @ vectors.T / root / root[:, None]
    return inverse


def _table(
    estimate: Floats,
    error: Floats,
    names: list[str],
    outputs: list[str],
    level: float,
    degrees: float,
    note: str,
) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        z = estimate / error
    student = np.isfinite(degrees)
    p = 2.0 * (stats.t.sf(np.abs(z), degrees) if student else stats.norm.sf(np.abs(z)))
    half = error * (stats.t.ppf((1 + level) / 2, degrees) if student else stats.norm.ppf((1 + level) / 2))
    columns = dict(
        zip(
            COLUMNS,
            (part.ravel() for part in (estimate, error, z, p, estimate - half, estimate + half)),
            strict=True,
        )
    )
    labels = [(output, name) for output in outputs for name in names]
    try:
        import pandas
    except ImportError:
        keys = names if outputs == [""] else labels
        return {"coefficient": keys, **{name: part.tolist() for name, part in columns.items()}, "note": note}
    index: Any
    if outputs == [""]:
        index = pandas.Index(names, name="coefficient")
    else:
        index = pandas.MultiIndex.from_tuples(labels, names=["output", "coefficient"])
    table = pandas.DataFrame(columns, index=index)
    table.attrs["note"] = note
    return table
