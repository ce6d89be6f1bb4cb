"""The base class of losses, which derives value, gradient and checks from one formula, and losses by name."""

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from sklloss import kernels
from sklloss.losses import _checks
from sklloss.losses._links import INVERSE_LINKS, INVERSE_LINKS_IN_PLACE


@dataclass(frozen=True)
class Loss:
    """The base class of losses: the mean of a loss over rows, its derivatives and its predictions.

    A loss is immutable and has no state but its parameters: two losses of one class with equal parameters are
    equal and hash alike. It is called as ``loss(y_true, raw, sample_weight=None)``, where raw is the model's
    output before the inverse link.

    NumPy arrays (and lists) run a compiled kernel if the loss names one. Arrays of any other array API
    namespace run the formula on their device, and torch's autograd can differentiate the value.

    raw is float32 or float64; integers in NumPy count as float64. Shapes never broadcast. Infinite raw gives
    the limits of loss and gradient (except for the gradient of `RootMeanSquaredError`). NaN in raw gives NaN
    for its row and for the mean; NaN in y_true or sample_weight is an error. A row of weight 0 is left out,
    whatever its raw.

    Notes
    -----
    **A custom loss** is a subclass with one method, `formula`. It returns the loss of each output and its
    derivative, over an array namespace ``xp`` (``numpy``, torch, ...), in arrays of raw's shape; every method
    below, and every estimator, then works with it::

        @dataclass(frozen=True)
        class Cauchy(Loss):
            scale: float = 1.0
            convex: ClassVar[bool] = False

            def formula(self, xp, y, raw):
                d = (raw - y) / self.scale
                return xp.log1p(d * d), 2 * d / (1 + d * d) / self.scale

    A second method is optional: `curvature` (for a loss that is not separable, `product_formula`) returns the
    second derivative, which `hessian_product` and Newton's method need.

    Class attributes are the traits of a loss; the defaults are those of a regression loss:

    ``target``
        What y_true is: "values" (finite, raw's shape), "probabilities" (in [0, 1], raw's shape) or
        "classes" (integer codes (n,) or probability rows (n, K), raw is (n, K)).
    ``domain``
        Which of these y_true may be: "non-negative" or "positive" values, the "labels" 0 and 1 without the
        probabilities between, or None for all.
    ``reduction``
        Over the outputs of a row: "mean" (regression) or "sum" (log losses).
    ``separable``
        Whether the loss of a row is a sum over its outputs. If not, `formula` gets raw (n, K) and returns
        (n,) and (n, K).
    ``additive``
        Whether the loss is a mean over rows. If not, the loss overrides `mean_formula`.
    ``convex``
        Whether the loss of a row is convex in raw. A solver that relies on it is not used otherwise.
    ``shift_invariant``
        Whether adding a constant to all outputs of a row leaves the loss unchanged, as with a softmax.
    ``kernel``
        The name of the compiled kernel for the same formula, or None; ``kernel_parameter`` is passed to it.
    ``inverse_link_name``
        What `inverse_link` makes predictions of raw by: "identity", "logistic", "softmax" or "exp",
        scikit-learn's names. None for a loss that overrides `inverse_link` by another function.
    ``has_probabilities``
        Whether raw determines class probabilities. If not, a classifier trained on the loss has no
        ``predict_proba``; its decisions are the signs or the largest of the scores.
    ``known_dispersion``
        Whether the loss is the whole negative log likelihood, rather than that times an unknown dispersion.
    ``entropic_conjugate``
        See `kink`.
    ``name``
        The name by which `losses.get` finds it, or None.

    Two more traits describe the second derivative: `curvature_bound`, its largest value, and
    `curvature_buffer`, the form in which batches return it. What else a loss may state is optional: `kink`,
    `curved_within` and `root_of` say how a linear model minimises it, `saturated` what a perfect prediction
    costs, `expected_curvature` the information in a score, `outputs_per_target` and `of_output` how outputs
    share a target.

    `inverse_link` turns raw into predictions and `check_values` refuses y_true outside the domain; override
    them where the attributes do not say enough.
    """

    name: ClassVar[str | None] = None
    inverse_link_name: ClassVar[str | None] = "identity"
    kernel: ClassVar[str | None] = None
    target: ClassVar[str] = "values"
    domain: ClassVar[str | None] = None
    reduction: ClassVar[str] = "mean"
    separable: ClassVar[bool] = True
    additive: ClassVar[bool] = True
    convex: ClassVar[bool] = True
    shift_invariant: ClassVar[bool] = False
    has_probabilities: ClassVar[bool] = True
    known_dispersion: ClassVar[bool] = False
    entropic_conjugate: ClassVar[bool] = False

    @property
    def curvature_bound(self) -> float | None:
        """The largest second derivative of a row's loss by one of its outputs, over all targets and scores.

        It is that of `formula`, before any mean over outputs. None if there is no finite bound, or none is
        stated.
        """
        return None

    @property
    def curvature_buffer(self) -> Literal["diagonal", "probabilities"] | None:
        """What ``curvature`` of `evaluate_batch` is filled with.

        "diagonal": each output's second derivative, times weight. "probabilities": the softmax p of a row,
        whose second derivative is ``weight * (diag(p) - p p')``. None: the second derivative has no such
        summary, only the products of `product_formula`.
        """
        return "diagonal" if self.separable and self.states_curvature else None

    @property
    def kink(self) -> tuple[float, float, float] | None:
        """(lowest slope, highest slope, r) of a loss of the error d = raw - y that is piecewise quadratic.

        The loss is the largest ``a d - r a**2 / 2`` over the slopes a between the two: with r = 0 it has a
        kink at d = 0, with r > 0 it is quadratic around it. A linear model minimises such a loss exactly, as
        a quadratic programme. None for any other loss.

        With ``entropic_conjugate``, as of the log-cosh, r is 0 and the entropy of a, ``((1 + a) log(1 + a) +
        (1 - a) log(1 - a)) / 2``, takes the place of ``r a**2 / 2``.
        """
        return None

    @property
    def root_of(self) -> "Loss | None":
        """The loss of whose mean this is the root; None, the default, for a mean over rows."""
        return None

    @property
    def curved_within(self) -> float | None:
        """The error raw - y up to which the loss is curved, and beyond which it is nearly linear.

        0 for a kink. None if the loss is curved everywhere, or is none of the error.
        """
        return None

    @property
    def outputs_per_target(self) -> int:
        """How many outputs predict one target, of which y_true (n,) has one a row: 1 unless overridden."""
        return 1

    def of_output(self, k: int) -> "Loss":
        """The loss of output k alone, for a separable loss: the same for all unless overridden."""
        return self

    def row_divisor(self, outputs: int) -> int:
        """What the sum of `formula` over the outputs of a row is divided by: for a mean, their number."""
        return outputs if self.separable and self.reduction == "mean" else 1

    @property
    def kernel_parameter(self) -> float:
        """The number that is passed to the kernel: the loss's own `parameter`, 0 for a loss without one."""
        checked = _checked_fields(type(self))  # type: ignore[arg-type]  # mypy takes no class for hashable
        return float(getattr(self, checked[0][0])) if checked else 0.0

    @property
    def states_curvature(self) -> bool:
        """Whether the loss states its second derivative, by `curvature` or by `product_formula`."""
        kind = type(self)
        stated = kind.curvature is not Loss.curvature or kind.product_formula is not Loss.product_formula
        return stated and self.additive

    def __post_init__(self) -> None:
        """Check the fields that `parameter` declares and convert them to floats."""
        for name, metadata in _checked_fields(type(self)):  # type: ignore[arg-type]  # see `kernel_parameter`
            object.__setattr__(self, name, number(getattr(self, name), name, **metadata))

    # What a subclass states -------------------------------------------------------------------------

    def formula(self, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
        """Loss and derivative, before any mean.

        Parameters
        ----------
        xp : module
            The array namespace of y and raw.
        y : array
            Of raw's dtype and shape; for ``target = "classes"`` also integer codes (n,).
        raw : array of shape (n,) or (n, outputs)

        Returns
        -------
        value : array
            Of raw's shape; of shape (n,) if the loss is not separable.
        gradient : array like raw, or a function of no arguments that returns it
            The derivative of value by raw. A function is called only when the gradient is asked for.
        """
        raise NotImplementedError(f"{type(self).__name__} must define formula(self, xp, y, raw)")

    def curvature(self, xp: Any, y: Any, raw: Any) -> Any:
        """The second derivative of each output's loss by raw, before any mean; for separable losses.

        Parameters are those of `formula`. Returns an array like raw, or None (the default) if none is stated.
        """
        return None

    def product_formula(self, xp: Any, y: Any, raw: Any, direction: Any) -> Any:
        """The second derivative of each row's loss by raw, times ``direction``, before any mean.

        By default `curvature` times direction; a loss that is not separable overrides it.

        Parameters
        ----------
        xp, y, raw
            As for `formula`.
        direction : array like raw

        Returns
        -------
        array like raw, or None if no second derivative is stated
        """
        curvature = self.curvature(xp, y, raw)
        return None if curvature is None else curvature * direction

    def saturated(self, xp: Any, y: Any) -> Any:
        """The least loss of each target over all raw scores, in y's shape: that of a perfect prediction.

        0 by default, as for a loss of the error. It changes no minimum: the loss less this value, half the
        deviance of a generalised linear model, is what relative accuracy and D^2 refer to.
        """
        return xp.zeros_like(y)

    def expected_curvature(self, xp: Any, raw: Any) -> Any:
        """The mean of `curvature` over y where the model holds, by output: the Fisher information of a score.

        For losses that are negative log likelihoods, up to a dispersion; None, the default, for others.
        """
        return None

    def inverse_link(self, xp: Any, raw: Any) -> Any:
        """Predictions from raw, over an array namespace."""
        return INVERSE_LINKS[self.inverse_link_name or "identity"](xp, raw)

    def check_values(self, xp: Any, y: Any, outputs: int) -> None:
        """Raise a ValueError, naming the row, if y is outside the loss's domain.

        Parameters
        ----------
        xp : module
            The array namespace of y.
        y : array of real numbers
            Its shape and kind of dtype are as ``target`` says.
        outputs : int
            The number of outputs of raw: 1 for raw of shape (n,).
        """
        if self.target == "classes" and y.ndim == 1:
            _checks.codes(xp, y, outputs)
        elif self.target == "classes":
            _checks.probability_rows(xp, y)
        else:
            _checks.domain(xp, y, self.domain or self.target, type(self).__name__)

    # What a user calls ------------------------------------------------------------------------------

    def __call__(self, y_true: Any, raw: Any, sample_weight: Any = None) -> Any:
        """The weighted mean of the loss over rows, ``sum(w * loss) / sum(w)``.

        Parameters
        ----------
        y_true : array
            Labels, probabilities or values, as the class says.
        raw : array of shape (n,) or (n, outputs), float32 or float64
            The model's output before the link.
        sample_weight : array of shape (n,), optional
            Finite, not negative, not all zero.

        Returns
        -------
        float or 0-d array
            A float for NumPy; otherwise a 0-d array of raw's namespace, device and dtype.

        Raises
        ------
        ValueError, TypeError
            Naming the argument, and the row where a value is at fault.
        """
        return self._evaluate(y_true, raw, sample_weight, with_gradient=False)[0]

    def gradient(self, y_true: Any, raw: Any, sample_weight: Any = None) -> Any:
        """The derivative of the weighted mean with respect to raw, in shape and dtype of raw.

        Parameters are those of calling the loss.
        """
        return self._evaluate(y_true, raw, sample_weight)[1]

    def value_and_gradient(self, y_true: Any, raw: Any, sample_weight: Any = None) -> tuple[Any, Any]:
        """The weighted mean and its gradient, at the cost of the gradient alone.

        Parameters are those of calling the loss.
        """
        return self._evaluate(y_true, raw, sample_weight)

    def hessian_product(self, y_true: Any, raw: Any, direction: Any, sample_weight: Any = None) -> Any:
        """The Hessian of the weighted mean with respect to raw, times a direction.

        Parameters
        ----------
        y_true, raw, sample_weight
            Those of calling the loss.
        direction : array like raw

        Returns
        -------
        array like raw
            The change of `gradient` along the direction, to first order.

        Raises
        ------
        TypeError
            If the loss does not define its second derivative.
        """
        if not self.states_curvature:
            raise TypeError(f"{type(self).__name__} states no curvature, so it has no Hessian product")
        xp, y, raw, weight = self._accept(y_true, raw, sample_weight)
        direction = _checks.matching_array(xp, raw, direction, "direction")
        _checks.same_shape(direction, raw, "direction")
        direction = xp.astype(direction, raw.dtype)
        n = raw.shape[0]
        divisor = self.row_divisor(raw.shape[1] if raw.ndim == 2 else 1)
        with ignored_errors(xp):
            if weight is None:
                return self.product_formula(xp, y, raw, direction) / (n * divisor)
            weighted = as_column(weight != 0, raw)
            raw, direction = xp.where(weighted, raw, 0.0), xp.where(weighted, direction, 0.0)
            product = self.product_formula(xp, y, raw, direction)
            share = xp.astype(weight, _checks.widest(xp, raw))
            factor = xp.astype(share / (xp.sum(share) * divisor), raw.dtype)
            return xp.where(weighted, product * as_column(factor, raw), 0.0)

    def per_sample(self, y_true: Any, raw: Any) -> Any:
        """The loss of each row, of shape (n,): summed or averaged over outputs, as ``reduction`` says.

        Raises
        ------
        TypeError
            If the loss is not a mean over rows and so has no loss of a row.
        """
        if not self.additive:
            raise TypeError(
                f"{type(self).__name__} is not a mean over rows: a single row has no loss of its own"
            )
        xp, y, raw, _ = self._accept(y_true, raw, None)
        if xp is np and self.kernel is not None:
            return self._run_kernel(y, raw, None, wanted="per_sample")
        with ignored_errors(xp):
            return xp.astype(self._rows(xp, _checks.formula_result(self, xp, y, raw)[0]), raw.dtype)

    def predict(self, raw: Any) -> Any:
        """Predictions from raw scores, in shape and dtype of raw: the inverse link.

        Parameters
        ----------
        raw : array of shape (n,) or (n, outputs), float32 or float64

        Returns
        -------
        array like raw
            Probabilities, or for a loss over values the values (raw itself where the link is the identity).
        """
        xp, raw = _checks.raw_scores(raw)
        self._check_outputs(raw)
        by_name = type(self).inverse_link is Loss.inverse_link and self.kernel is not None
        in_place = INVERSE_LINKS_IN_PLACE.get(self.inverse_link_name or "") if by_name else None
        if xp is np and in_place is not None:
            scores = np.array(raw, order="C", copy=True)
            in_place(scores.reshape(-1, 1) if raw.ndim == 1 else scores)
            return scores
        with ignored_errors(xp):
            return self.inverse_link(xp, raw)

    # What objectives and training loops call --------------------------------------------------------

    def evaluate_batch(
        self,
        raw: Any,
        target: Any = None,
        codes: Any = None,
        weight: Any = None,
        per_sample: Any = None,
        curvature: Any = None,
        sums: Any = None,
    ) -> float:
        """One unchecked NumPy batch, in place: the contract of `sklloss.kernels.evaluate`, kernel or not.

        Parameters
        ----------
        raw : array of shape (rows, outputs), C-contiguous
            Becomes ``weight * d loss / d raw``, divided by outputs where ``reduction`` is "mean".
        target : array like raw, optional
        codes : intp array of shape (rows,), optional
            Class codes, without ``target``.
        weight : array of shape (rows,), or (rows, outputs) for a separable loss, optional
        per_sample : array of shape (rows,), optional
            Filled with the unweighted loss of each row.
        curvature : array like raw, optional
            Filled as `curvature_buffer` says. Second derivatives are divided as raw is.
        sums : float64 array of shape (outputs,), optional
            Filled with each output's part of what is returned; with all in sums[0] if not separable.

        Returns
        -------
        float
            The weighted sum of the loss. For a loss that is not a mean over rows, its value times the sum of
            weights.
        """
        if self.kernel is not None and sums is None and (weight is None or weight.ndim == 1):
            kernel = kernels.get(self.kernel, raw.dtype)
            return kernels.evaluate(
                kernel, raw, target, codes, weight, self.kernel_parameter, per_sample, curvature
            )
        return _evaluate_formula(self, raw, target, codes, weight, per_sample, curvature, sums)

    def mean_formula(
        self, xp: Any, y: Any, raw: Any, weight: Any = None, *, with_gradient: bool = True
    ) -> tuple[Any, Any]:
        """The weighted mean over rows and its gradient, from `formula` and unchecked.

        Returns
        -------
        value : 0-d array
            In float64 where the device has it.
        gradient : array like raw
            None if not ``with_gradient``.
        """
        n = raw.shape[0]
        wide = _checks.widest(xp, raw)
        if weight is not None:
            # Rows of weight 0 are set to 0 first: inf * 0 and its automatic derivative would be NaN.
            weighted = weight != 0
            raw = xp.where(as_column(weighted, raw), raw, 0.0)
        value, gradient = _checks.formula_result(self, xp, y, raw)
        rows = self._rows(xp, value)
        divisor = self.row_divisor(raw.shape[1] if raw.ndim == 2 else 1)
        gradient = _checks.gradient_result(self, xp, gradient, raw) if with_gradient else None
        # A sum of n numbers near the largest must not overflow where their mean does not.
        scale = 1.0 if wide != raw.dtype else 2.0 ** -(n - 1).bit_length()
        if weight is None:
            mean = xp.sum(rows if scale == 1.0 else rows * scale) / (n * scale)
            return mean, (gradient / (n * divisor) if with_gradient else None)
        share = xp.astype(weight, wide) * scale
        total = xp.sum(share)
        mean = xp.sum(xp.where(weighted, rows * share, 0.0)) / total
        if with_gradient:
            factor = xp.astype(share / (total * divisor), raw.dtype)
            gradient = xp.where(as_column(weighted, raw), gradient * as_column(factor, raw), 0.0)
        return mean, gradient

    # Inside -----------------------------------------------------------------------------------------

    def __init_subclass__(cls, **options: Any) -> None:
        """Drop inherited kernels and second derivatives from a subclass that defines another formula."""
        super().__init_subclass__(**options)
        defined = vars(cls)
        new_formula = "formula" in defined or "mean_formula" in defined
        if new_formula and "kernel" not in defined:
            cls.kernel = None
        if new_formula and "curvature" not in defined:
            cls.curvature = Loss.curvature  # type: ignore[method-assign]
        if new_formula:
            if "saturated" not in defined:
                cls.saturated = Loss.saturated  # type: ignore[method-assign]
            if "expected_curvature" not in defined:
                cls.expected_curvature = Loss.expected_curvature  # type: ignore[method-assign]
            for flag in ("known_dispersion", "entropic_conjugate"):
                if flag not in defined:
                    setattr(cls, flag, False)
            for trait in (
                "shift_invariant",
                "curvature_bound",
                "curvature_buffer",
                "kink",
                "curved_within",
                "root_of",
            ):
                if trait not in defined:
                    setattr(cls, trait, vars(Loss)[trait])
        if (new_formula or "curvature" in defined) and "product_formula" not in defined:
            cls.product_formula = Loss.product_formula  # type: ignore[method-assign]
        if "inverse_link" in defined and "inverse_link_name" not in defined:
            cls.inverse_link_name = None

    def _rows(self, xp: Any, value: Any) -> Any:
        """The loss of each row from the value of `formula`, in float64 if the device supports it."""
        wide = _checks.widest(xp, value)
        if value.ndim == 1:
            return xp.astype(value, wide)
        rows = xp.sum(value, axis=1, dtype=wide)
        return rows / value.shape[1] if self.reduction == "mean" else rows

    def _check_outputs(self, raw: Any) -> None:
        if self.target == "classes" and (raw.ndim != 2 or raw.shape[1] < 2):
            raise ValueError(
                f"raw must have shape (n, K), K >= 2, a column for each class; it has {tuple(raw.shape)}"
            )

    def _accept(self, y_true: Any, raw: Any, sample_weight: Any) -> tuple[Any, Any, Any, Any]:
        """Check all arguments; returns y_true in raw's dtype (codes as int64) and scaled weights."""
        xp, raw = _checks.raw_scores(raw)
        self._check_outputs(raw)
        # The order of summation must not depend on the memory layout.
        raw = np.ascontiguousarray(raw) if xp is np else raw
        y = _checks.matching_array(xp, raw, y_true, "y_true")
        if self.outputs_per_target > 1:
            y = _checks.repeated(xp, y, raw, self.outputs_per_target)
        if self.target == "classes":
            _checks.class_target(xp, y, raw)
        else:
            _checks.same_shape(y, raw)
        _checks.not_empty(raw)
        outputs = raw.shape[1] if raw.ndim == 2 else 1
        self.check_values(xp, y, outputs)
        if self.target == "classes" and y.ndim == 1:
            y = xp.astype(y, xp.int64)
        elif y.dtype != raw.dtype:
            with ignored_errors(xp):
                y = xp.astype(y, raw.dtype)
            if self.target == "values":
                note = f" in raw's dtype, {raw.dtype}"
                _checks.finite(xp, y, note)
                try:
                    self.check_values(xp, y, outputs)
                except ValueError as error:
                    raise ValueError(f"{error}{note}") from None
        if sample_weight is not None:
            sample_weight = _checks.matching_array(xp, raw, sample_weight, "sample_weight")
            sample_weight = _checks.weights(xp, sample_weight, raw)
        return xp, y, raw, sample_weight

    def _evaluate(
        self, y_true: Any, raw: Any, sample_weight: Any, with_gradient: bool = True
    ) -> tuple[Any, Any]:
        xp, y, raw, weight = self._accept(y_true, raw, sample_weight)
        if xp is np and self.kernel is not None:
            return self._run_kernel(y, raw, weight)
        with ignored_errors(xp):
            value, gradient = self.mean_formula(xp, y, raw, weight, with_gradient=with_gradient)
        return (float(value) if xp is np else xp.astype(value, raw.dtype)), gradient

    def _run_kernel(self, y: Any, raw: Any, weight: Any, wanted: str = "mean") -> Any:
        n = raw.shape[0]
        shape = (n, -1)
        # The kernel overwrites its scores.
        scores = np.array(raw, order="C", copy=True).reshape(shape)
        target = {}
        if self.target == "classes" and y.ndim == 1:
            target["codes"] = np.ascontiguousarray(y, dtype=np.intp)
        else:
            target["target"] = np.ascontiguousarray(y).reshape(shape)
        if wanted == "per_sample":
            rows = np.empty(n, dtype=raw.dtype)
            self.evaluate_batch(scores, **target, per_sample=rows)
            return rows
        value = self.evaluate_batch(scores, **target, weight=weight)
        total = float(n) if weight is None else float(np.sum(weight, dtype=np.float64))
        if value == np.inf:
            # The sum overflowed, or the loss is infinite: the formula computes the mean without the sum.
            with ignored_errors(np):
                value = float(self.mean_formula(np, y, raw, weight, with_gradient=False)[0])
        else:
            value = value / total
        with ignored_errors(np):
            scores /= total
        return value, scores.reshape(raw.shape)


def as_column(row_values: Any, raw: Any) -> Any:
    """One value per row, shaped to broadcast against raw."""
    return row_values[:, None] if raw.ndim == 2 else row_values


def ignored_errors(xp: Any) -> AbstractContextManager[Any]:
    """A context in which NumPy does not warn of overflow and NaN, which are valid results here."""
    return np.errstate(all="ignore") if xp is np else nullcontext()


def number(value: Any, name: str, allowed: str, accept: Callable[[float], bool]) -> float:
    """A parameter as a float if ``accept`` holds of it; ``allowed`` describes the condition in errors."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number {allowed}, got {value!r}") from None
    if not accept(result):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return result


def parameter(default: float, allowed: str, accept: Callable[[float], bool]) -> Any:
    """A field for the parameter of a loss, which its kernel takes; see `number` for what is allowed."""
    return field(default=default, metadata={"allowed": allowed, "accept": accept})


def label_smoothing_parameter() -> Any:
    """A field for label smoothing, in [0, 1)."""
    return parameter(0.0, "in [0, 1)", lambda x: 0.0 <= x < 1.0)


@functools.cache
def _checked_fields(loss_class: type[Loss]) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The names of the fields that `parameter` declares, and the arguments of their checks."""
    return tuple((item.name, item.metadata) for item in fields(loss_class) if "accept" in item.metadata)


def _evaluate_formula(
    loss: Loss,
    raw: Any,
    target: Any = None,
    codes: Any = None,
    weight: Any = None,
    per_sample: Any = None,
    curvature: Any = None,
    sums: Any = None,
) -> float:
    """See `Loss.evaluate_batch`; uses `Loss.formula`, `Loss.curvature` and `Loss.mean_formula` only."""
    y = target if codes is None else codes
    by_output = weight is not None and weight.ndim == 2
    if not loss.separable and (by_output or curvature is not None):
        what = "weights by output" if by_output else "curvature by output"
        raise ValueError(f"{type(loss).__name__} is not separable and has no {what}")
    with np.errstate(all="ignore"):
        second = None
        if curvature is not None:
            # Before raw is overwritten with the gradient.
            second = loss.curvature(np, y, raw)
            if second is None:
                raise ValueError(f"{type(loss).__name__} has no kernel and states no curvature")
            _checks.returned_array(loss, np, "curvature", second, raw.shape)
        if sums is not None:
            sums[...] = 0.0
        if not loss.additive:
            total = _evaluate_mean_formula(loss, y, raw, weight)
            if sums is not None:
                sums[0] = total
            return total
        value, gradient = _checks.formula_result(loss, np, y, raw)
        gradient = _checks.gradient_result(loss, np, gradient, raw)
        if per_sample is not None:
            per_sample[...] = loss._rows(np, value)
        divisor = loss.row_divisor(raw.shape[1])
        value = value.astype(np.float64, copy=False)
        if weight is None:
            raw[...] = gradient if divisor == 1 else gradient / divisor
            if second is not None:
                curvature[...] = second if divisor == 1 else second / divisor
        else:
            factor = weight if by_output else weight[:, None]
            weighted = factor != 0
            value = np.where(factor if value.ndim == 2 else weight, value, 0.0)
            value = value * (factor if value.ndim == 2 else weight)
            factor = factor / divisor
            # Rows of weight 0 may hold any value: inf * 0 would be NaN.
            raw[...] = np.where(weighted, gradient * factor, 0.0)
            if second is not None:
                curvature[...] = np.where(weighted, second * factor, 0.0)
        if value.ndim == 2:
            totals = np.sum(value, axis=0) / divisor
            if sums is not None:
                sums[...] = totals
            return float(np.sum(totals))
        total = float(np.sum(value))
        if sums is not None:
            sums[0] = total
        return total


def _evaluate_mean_formula(loss: Loss, y: Any, raw: Any, weight: Any) -> float:
    """The value of a loss that is not a mean over rows, times the sum of weights."""
    total = float(raw.shape[0]) if weight is None else float(np.sum(weight, dtype=np.float64))
    if total == 0.0:
        raw[...] = 0.0
        return 0.0
    value, gradient = loss.mean_formula(np, y, raw, weight)
    np.multiply(gradient, total, out=raw, casting="same_kind")
    return float(value) * total


_LossClass = TypeVar("_LossClass", bound=type[Loss])

_by_name: dict[str, type[Loss]] = {}


def register(loss_class: _LossClass) -> _LossClass:
    """Class decorator: make the loss, with its default parameters, known under ``loss_class.name``."""
    name = loss_class.name
    if not name or name in _by_name:
        raise ValueError(f"{loss_class.__name__}.name is {name!r}, which is empty or taken")
    _by_name[name] = loss_class
    return loss_class


def names() -> list[str]:
    """The names that `get` knows, sorted."""
    return sorted(_by_name)


@functools.cache
def _default(name: str) -> Loss:
    """The loss with its default parameters, made once: losses are immutable."""
    return _by_name[name]()


def get(loss: str | Loss) -> Loss:
    """The loss of that name, with its default parameters; a `Loss` object is returned as it is.

    Parameters
    ----------
    loss : str or Loss
        A name, as `names` lists them, or a loss.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        If no loss has that name.
    TypeError
        If ``loss`` is neither a name nor a loss; a class in place of an object is one such case.

    Examples
    --------
    >>> from sklloss import losses
    >>> losses.get("log_loss")
    LogLoss(label_smoothing=0.0)
    """
    if isinstance(loss, str):
        if loss not in _by_name:
            raise ValueError(f"unknown loss {loss!r}; known losses: {', '.join(names())}")
        return _default(loss)
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type) and issubclass(loss, Loss):
        raise TypeError(f"loss is the class {loss.__name__}; give an object, {loss.__name__}(...)")
    raise TypeError(f"loss must be a name or a losses.Loss, got {type(loss).__name__}: {loss!r}")
