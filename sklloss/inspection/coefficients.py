"""Standard errors of the coefficients of linear models."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.utils.validation import check_is_fitted

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
        (Pearson's estimate) where the loss does not determine it; for a loss that is no likelihood, such as
        "huber", errors are taken to be alike in all rows. "robust" is the sandwich of White and Huber, which
        is right for any variance of the rows; "HC0" is another name for it, and "HC1", "HC2" and "HC3"
        correct it for few rows (the last two by leverages). "cluster" allows rows of one group to depend on
        each other, with the correction of few groups.
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
        with a penalty.

    Raises
    ------
    ValueError, TypeError
        If the loss is not smooth, for an L1 penalty or constraints, for columns that are linear combinations
        of others without a penalty, for classes that can be separated without error, or for invalid
        arguments.

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
    if fitted.softmax:
        estimate, cov = _softmax(fitted, covariance, groups)
        outputs = [str(label) for label in on_host(est.classes_, "classes_")[1:]]
    else:
        parts = [_separable(fitted, k, covariance, groups) for k in range(len(fitted.coef))]
        estimate, cov = np.stack([part[0] for part in parts]), [part[1] for part in parts]
        outputs = [str(k) for k in range(len(parts))] if len(parts) > 1 else [""]
    student = covariance == "model" and fitted.student
    return _table(
        estimate, cov, names, outputs, level, fitted.residual_degrees if student else np.inf, fitted.note
    )


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
    note: str

    @property
    def rows(self) -> float:
        """The number of rows, by their weights."""
        return float(self.weight[:, 0].sum())

    @property
    def residual_degrees(self) -> float:
        """Rows less parameters."""
        return self.rows - self.coef.shape[1]

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
    note = (
        "with an L2 penalty: estimates are biased towards 0, and standard errors and intervals are those of "
        "the biased estimates"
    )
    student = (
        regressor
        and loss.expected_curvature(np, np.zeros(1)) is not None
        and loss.curvature_bound is not None
    )
    return _Fitted(
        data.X, loss, target, weight, raw, coef, ridge, bool(est.fit_intercept), not loss.separable, student,
        note if ridge.any() else "",
    )  # fmt: skip


def _separable(fitted: _Fitted, k: int, covariance: str, groups: Any) -> tuple[Floats, Floats]:
    """The estimates of one output, and their covariance."""
    loss, y, raw = fitted.loss.of_output(k), fitted.y[:, k].astype(np.float64), fitted.raw[:, k]
    weight, width = fitted.weight[:, k], fitted.coef.shape[1]
    with np.errstate(all="ignore"):
        _, slope = loss.formula(np, y, raw)
        slope = np.where(weight > 0, slope() if callable(slope) else slope, 0.0)
        curvature = np.where(weight > 0, loss.curvature(np, y, raw), 0.0)
        expected = loss.expected_curvature(np, raw)
    if not fitted.ridge.any() and loss.known_dispersion and _separated(loss, y, raw, weight):
        raise ValueError(
            "the classes can be separated without error, so that without a penalty the coefficients have no "
            "finite optimum and no standard errors: use a penalty"
        )
    penalty = np.diag(fitted.ridge * _outputs_factor(fitted))
    if covariance == "model":
        if expected is not None:
            information = fitted.gram(weight * expected)
            dispersion = 1.0
            if not loss.known_dispersion:
                dispersion = float(weight @ (slope**2 / expected)) / fitted.residual_degrees
        else:
            # An M-estimator of errors that are alike in all rows.
            mean = float(weight @ curvature) / fitted.rows
            information = mean * fitted.gram(weight)
            dispersion = float(weight @ slope**2) / fitted.residual_degrees / mean
        inverse = _inverse(information, penalty, fitted)
        return fitted.coef[k], dispersion * inverse @ information @ inverse
    information = fitted.gram(weight * curvature)
    inverse = _inverse(information, penalty, fitted)
    scores = np.empty((len(y), width))
    leverage = np.zeros(len(y))
    for rows, Z in fitted.blocks():
        scores[rows] = Z * slope[rows, None]
        leverage[rows] = np.einsum("ij,ij->i", Z @ inverse, Z) * curvature[rows]
    return fitted.coef[k], _sandwich(
        inverse, scores, weight, leverage, covariance, groups, fitted.rows, width
    )


def _outputs_factor(fitted: _Fitted) -> float:
    """The factor of the penalty of one output where its loss counts by itself, not in a mean."""
    return float(fitted.loss.row_divisor(len(fitted.coef)))


def _sandwich(
    inverse: Floats,
    scores: Floats,
    weight: Floats,
    leverage: Floats,
    covariance: str,
    groups: Any,
    rows: float,
    width: int,
) -> Floats:
    """The robust covariance, given the inverse of the information and the derivatives of each row's loss."""
    factor = 1.0
    if covariance == "cluster":
        labels = np.asarray(on_host(groups, "groups"))
        if labels.shape != weight.shape:
            raise ValueError(f"groups must have shape {weight.shape}, got {labels.shape}")
        _, numbers = np.unique(labels, return_inverse=True)
        count = int(numbers.max()) + 1
        if count < 2:
            raise ValueError("groups must hold at least 2 groups")
        total = np.zeros((count, scores.shape[1]))
        np.add.at(total, numbers, weight[:, None] * scores)
        middle = total.T @ total
        factor = count / (count - 1) * (rows - 1) / (rows - width)
    else:
        power = {"HC2": 1.0, "HC3": 2.0}.get(covariance, 0.0)
        if covariance == "HC1":
            factor = rows / (rows - width)
        middle = scores.T @ ((weight / (1.0 - leverage) ** power)[:, None] * scores)
    return factor * inverse @ middle @ inverse


def _softmax(fitted: _Fitted, covariance: str, groups: Any) -> tuple[Floats, list[Floats]]:
    """The estimates of each class but the first, relative to the first, and their covariance."""
    classes, width = fitted.coef.shape
    top = fitted.raw.max(axis=1, keepdims=True)
    p = np.exp(fitted.raw - top)
    p /= p.sum(axis=1, keepdims=True)
    y = np.eye(classes)[fitted.y] if fitted.y.ndim == 1 else fitted.y.astype(np.float64)
    weight = fitted.weight[:, 0]
    if not fitted.ridge.any() and bool((np.abs(p - y).max(axis=1) < 1e-6)[weight > 0].all()):
        raise ValueError(
            "the classes can be separated without error, so that without a penalty the coefficients have no "
            "finite optimum and no standard errors: use a penalty"
        )
    size = classes * width
    information = np.empty((size, size))
    for k in range(classes):
        for m in range(k + 1):
            block = fitted.gram(weight * p[:, k] * ((k == m) - p[:, m]))
            information[k * width : (k + 1) * width, m * width : (m + 1) * width] = block
            information[m * width : (m + 1) * width, k * width : (k + 1) * width] = block.T
    # The same shift of all classes changes nothing: contrasts with the first class have what is known.
    contrast = np.kron(np.column_stack([-np.ones(classes - 1), np.eye(classes - 1)]), np.eye(width))
    shift = np.kron(np.ones((classes, 1)), np.eye(width))
    penalty = np.diag(np.tile(fitted.ridge, classes))
    scale = float(np.trace(information)) / size
    free = shift[:, fitted.ridge == 0]
    inverse = _inverse(information, penalty + scale * (free @ free.T), fitted)
    if covariance == "model":
        cov = inverse @ information @ inverse
    else:
        scores = np.empty((len(p), size))
        leverage = np.zeros(len(p))
        if covariance in ("HC2", "HC3"):
            raise ValueError(
                f"covariance={covariance!r} is not for a softmax, whose rows have no single leverage"
            )
        for rows, Z in fitted.blocks():
            scores[rows] = np.einsum("ik,ij->ikj", (p - y)[rows], Z).reshape(len(Z), size)
        cov = _sandwich(inverse, scores, weight, leverage, covariance, groups, fitted.rows, size - width)
    cov = contrast @ cov @ contrast.T
    estimate = fitted.coef[1:] - fitted.coef[0]
    return estimate, [
        cov[k * width : (k + 1) * width, k * width : (k + 1) * width] for k in range(classes - 1)
    ]


def _separated(loss: Any, y: Floats, raw: Floats, weight: Floats) -> bool:
    """Whether all rows of a log loss are predicted with certainty."""
    if loss.inverse_link_name != "logistic" or not np.isin(y, (0, 1)).all():
        return False
    margin = np.where(y > 0.5, raw, -raw)[weight > 0]
    return bool((margin > 0).all() and margin.min() > 6)


def _inverse(information: Floats, penalty: Floats, fitted: _Fitted) -> Floats:
    """The inverse of the penalised information; a ValueError if there is none."""
    matrix = information + penalty
    root = np.sqrt(np.where(matrix.diagonal() > 0, matrix.diagonal(), 1.0))
    values, vectors = np.linalg.eigh(matrix / root / root[:, None])
    if not values[0] > NO_INFORMATION * values[-1]:
        names = np.flatnonzero(np.abs(vectors[:, 0]) > 1e-6) % fitted.coef.shape[1]
        columns = [
            "the intercept" if fitted.intercept and j == 0 else f"column {j - fitted.intercept}"
            for j in sorted(set(names.tolist()))
        ]
        raise ValueError(
            f"the rows say nothing about a linear combination of {', '.join(columns)}: columns depend on "
            "each other, or classes can be separated. Leave columns out, or use an L2 penalty"
        )
    inverse: Floats = (vectors / values) @ vectors.T / root / root[:, None]
    return inverse


def _table(
    estimate: Floats,
    cov: list[Floats],
    names: list[str],
    outputs: list[str],
    level: float,
    degrees: float,
    note: str,
) -> Any:
    error = np.stack([np.sqrt(np.maximum(part.diagonal(), 0.0)) for part in cov])
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
