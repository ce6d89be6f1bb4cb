"""Operations over any namespace of the array API: products, activations and optimiser steps of a network.

`Ops` uses nothing but the standard and is the specification of the compiled kernels. `TorchOps` overrides the
operations that torch has faster ones for, and `fused_loss` does the same for the two most common losses.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from sklloss.arrays.device import Device
from sklloss.kernels.isa.constants import GELU_END, NORMAL_TAILS, SILU_END
from sklloss.losses import CrossEntropy, LogLoss, Loss

# An array of any namespace: the array API has no type for it.
Array = Any

# The step count passed to the fused Adam: so large that its bias correction has no effect.
UNBIASED = 1e30


def adam(
    xp: Any,
    gradient: Array,
    first: Array,
    second: Array,
    rate: Any,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> tuple[Array, Array, Array]:
    """Adam's step, to be subtracted from the parameters, and the new first and second moments.

    The rate must include the bias correction, as in section 2 of the paper.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", 2015.
    """
    first = beta_1 * first + (1.0 - beta_1) * gradient
    second = beta_2 * second + (1.0 - beta_2) * (gradient * gradient)
    return rate * first / (xp.sqrt(second) + epsilon), first, second


@dataclass(frozen=True, eq=False)
class AdamSteps:
    """The steps of Adam or AdamW, of one epoch or several.

    Attributes
    ----------
    rates : ndarray of shape (batches,)
        Learning rates, including the bias correction.
    first, second : array of shape (size,)
        The moments, which the steps update.
    beta_1, beta_2, epsilon : float
    weight_decays : ndarray of shape (batches,) or None
        The fraction by which each step shrinks the weights, but not the biases.
    """

    kernel: ClassVar[str] = "adam"

    rates: np.ndarray
    first: Array
    second: Array
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decays: np.ndarray | None = None

    def take(self, ops: Ops, k: int, parameters: Array, gradient: Array, n_weights: int) -> None:
        """Take the step of batch k, in place."""
        if self.weight_decays is not None and self.weight_decays[k]:
            weights = parameters[:n_weights]
            weights *= 1.0 - float(self.weight_decays[k])
        ops.adam(parameters, gradient, float(self.rates[k]), self)


@dataclass(frozen=True, eq=False)
class SGDSteps:
    """The steps of gradient descent with momentum, of one epoch or several.

    Attributes
    ----------
    rates : ndarray of shape (batches,)
    velocity : array of shape (size,)
        Updated by the steps.
    momentum : float
    nesterov : bool
        Whether to use Nesterov's momentum.
    """

    kernel: ClassVar[str] = "sgd"

    rates: np.ndarray
    velocity: Array
    momentum: float = 0.0
    nesterov: bool = False

    def take(self, ops: Ops, k: int, parameters: Array, gradient: Array, n_weights: int) -> None:
        """Take the step of batch k, in place."""
        ops.sgd(parameters, gradient, float(self.rates[k]), self)


# The steps of an optimiser, one for each batch.
Steps = AdamSteps | SGDSteps


class Ops:
    """The operations of a network on arrays of one device.

    Methods named ``*_in_place`` overwrite their first argument. Activations may overwrite theirs.

    Parameters
    ----------
    device : Device
    itemsize : int
        4 for float32, 8 for float64.
    """

    def __init__(self, device: Device, itemsize: int) -> None:
        self.xp: Any = device.xp
        self.itemsize = itemsize

    # Products and sums ------------------------------------------------------------------------------

    def affine(self, x: Array, coef: Array, intercept: Array) -> Array:
        """Give ``x @ coef + intercept``."""
        return x @ coef + intercept

    def layer_gradients(self, x: Array, delta: Array, coef: Array, intercept: Array) -> None:
        """Write the gradients of a layer, given its input and the gradient by its output before f."""
        coef[...] = x.T @ delta
        intercept[...] = self.xp.sum(delta, axis=0)

    def sum_of_squares(self, array: Array, dtype: Any) -> Array:
        """A 0-d array of that dtype."""
        return self.xp.sum(array * array, dtype=dtype)

    def add_in_place(self, array: Array, other: Array, factor: float) -> None:
        """Add ``factor * other`` to an array."""
        array[...] = array + factor * other

    # Optimiser steps --------------------------------------------------------------------------------

    def adam(self, parameters: Array, gradient: Array, rate: float, steps: AdamSteps) -> None:
        """Take a step of Adam; parameters and moments change in place."""
        step, first, second = adam(
            self.xp, gradient, steps.first, steps.second, rate,
            beta_1=steps.beta_1, beta_2=steps.beta_2, epsilon=steps.epsilon,
        )  # fmt: skip
        steps.first[...] = first
        steps.second[...] = second
        parameters[...] = parameters - step

    def sgd(self, parameters: Array, gradient: Array, rate: float, steps: SGDSteps) -> None:
        """Take a step with momentum; parameters and velocity change in place."""
        gradient, velocity = rate * gradient, steps.velocity
        velocity[...] = steps.momentum * velocity - gradient
        step = steps.momentum * velocity - gradient if steps.nesterov else velocity
        parameters[...] = parameters + step

    # Functions of numbers ---------------------------------------------------------------------------

    def at_least(self, z: Array, low: float) -> Array:
        """The larger of z and low; NaN stays NaN."""
        return self.xp.where(z < low, low, z)

    def at_most(self, z: Array, high: float) -> Array:
        """The smaller of z and high; NaN stays NaN."""
        return self.xp.where(z > high, high, z)

    def logistic(self, z: Array) -> Array:
        """1 / (1 + exp(-z)); leaves z as it is."""
        return LogLoss().inverse_link(self.xp, z)

    def normal_cdf(self, z: Array) -> Array:
        """The distribution function of the standard normal."""
        xp = self.xp
        c, (highest, *rest) = NORMAL_TAILS[self.itemsize]
        t = xp.abs(z)
        share = (t - c) / (t + c)
        tail = highest * share + rest[0]
        for coefficient in rest[1:]:
            tail = tail * share + coefficient
        tail = tail / (t + c) * xp.exp(-0.5 * t * t)
        return xp.where(z < 0.0, tail, 1.0 - tail)

    def multiply(self, delta: Array, by: Array) -> Array:
        """Give ``delta * by``; may overwrite delta."""
        return delta * by

    # Activations that libraries have of their own ---------------------------------------------------

    def relu(self, z: Array) -> Array:
        """max(z, 0)."""
        return self.at_least(z, 0.0)

    def relu_gradient(self, delta: Array, active: Array) -> Array:
        """Give delta where the output was not 0, else 0; may overwrite delta."""
        return self.xp.where(active == 0.0, 0.0, delta)

    def tanh(self, z: Array) -> Array:
        """The hyperbolic tangent."""
        return self.xp.tanh(z)

    def sigmoid(self, z: Array) -> Array:
        """`logistic`; may overwrite z."""
        return self.logistic(z)


class TorchOps(Ops):
    """`Ops` on torch tensors: in place, with fewer passes over memory."""

    def __init__(self, device: Device, itemsize: int) -> None:
        super().__init__(device, itemsize)
        self._torch = importlib.import_module("torch")
        # Other devices may lack erfc; they use the polynomial of `Ops`.
        self._has_erfc = device.native.type in ("cpu", "cuda")
        # Whether the device has a fused Adam kernel; None until the first step has tried it.
        self._has_fused_adam: bool | None = None
        self._step_count: Any = None

    def affine(self, x: Array, coef: Array, intercept: Array) -> Array:
        """See `Ops.affine`."""
        return self._torch.addmm(intercept, x, coef)

    def layer_gradients(self, x: Array, delta: Array, coef: Array, intercept: Array) -> None:
        """See `Ops.layer_gradients`."""
        self._torch.mm(x.T, delta, out=coef)
        self._torch.sum(delta, 0, out=intercept)

    def sum_of_squares(self, array: Array, dtype: Any) -> Array:
        """See `Ops.sum_of_squares`."""
        if array.device.type == "cpu":
            return self._torch.dot(array, array).to(dtype)
        return self._torch.linalg.vector_norm(array, dtype=dtype) ** 2

    def add_in_place(self, array: Array, other: Array, factor: float) -> None:
        """See `Ops.add_in_place`."""
        array.add_(other, alpha=factor)

    def adam(self, parameters: Array, gradient: Array, rate: float, steps: AdamSteps) -> None:
        """See `Ops.adam`. A single fused kernel where the device has one."""
        if self._has_fused_adam is None:
            self._has_fused_adam = self._try_fused_adam(parameters, gradient, rate, steps)
            if self._has_fused_adam:
                return
        if self._has_fused_adam:
            self._fused_adam(parameters, gradient, rate, steps)
            return
        steps.first.lerp_(gradient, 1.0 - steps.beta_1)
        steps.second.mul_(steps.beta_2).addcmul_(gradient, gradient, value=1.0 - steps.beta_2)
        parameters.addcdiv_(steps.first, steps.second.sqrt().add_(steps.epsilon), value=-rate)

    def _try_fused_adam(self, parameters: Array, gradient: Array, rate: float, steps: AdamSteps) -> bool:
        """Try to take the first step with the fused kernel; returns whether the device has it."""
        torch = self._torch
        self._step_count = torch.full((), UNBIASED, dtype=torch.float32, device=parameters.device)
        self._adam = importlib.import_module("torch.optim.adam").adam
        try:
            self._fused_adam(parameters, gradient, rate, steps)
        except (RuntimeError, TypeError, NotImplementedError, AttributeError):
            return False
        return True

    def _fused_adam(self, parameters: Array, gradient: Array, rate: float, steps: AdamSteps) -> None:
        self._adam(
            [parameters], [gradient], [steps.first], [steps.second], [], [self._step_count],
            fused=True, amsgrad=False, beta1=steps.beta_1, beta2=steps.beta_2, lr=rate, weight_decay=0.0,
            eps=steps.epsilon, maximize=False,
        )  # fmt: skip

    def sgd(self, parameters: Array, gradient: Array, rate: float, steps: SGDSteps) -> None:
        """See `Ops.sgd`."""
        velocity = steps.velocity.mul_(steps.momentum).add_(gradient, alpha=-rate)
        if steps.nesterov:
            parameters.add_(velocity, alpha=steps.momentum).add_(gradient, alpha=-rate)
        else:
            parameters.add_(velocity)

    def at_least(self, z: Array, low: float) -> Array:
        """See `Ops.at_least`."""
        return self._torch.clamp(z, min=low)

    def at_most(self, z: Array, high: float) -> Array:
        """See `Ops.at_most`."""
        return self._torch.clamp(z, max=high)

    def logistic(self, z: Array) -> Array:
        """See `Ops.logistic`."""
        return self._torch.sigmoid(z)

    def normal_cdf(self, z: Array) -> Array:
        """See `Ops.normal_cdf`."""
        if not self._has_erfc:
            return super().normal_cdf(z)
        return self._torch.special.erfc(z * -math.sqrt(0.5)).mul_(0.5)

    def multiply(self, delta: Array, by: Array) -> Array:
        """See `Ops.multiply`."""
        return delta.mul_(by)

    def relu(self, z: Array) -> Array:
        """See `Ops.relu`."""
        return z.relu_()

    def relu_gradient(self, delta: Array, active: Array) -> Array:
        """See `Ops.relu_gradient`."""
        # The sign is 0 or 1, and takes a tenth of the time of a mask.
        return delta.mul_(self._torch.sign(active))

    def tanh(self, z: Array) -> Array:
        """See `Ops.tanh`."""
        return z.tanh_()

    def sigmoid(self, z: Array) -> Array:
        """See `Ops.sigmoid`."""
        return z.sigmoid_()


@dataclass(frozen=True)
class Activation:
    """An activation f as a pair of functions over `Ops`.

    Attributes
    ----------
    forward : callable
        Takes ops, z and whether a backward pass follows. Returns f(z) and what `backward` needs, which is
        None if it does not follow. It may overwrite z.
    backward : callable
        Takes ops, the gradient by f(z) and what `forward` returned for it. Returns the gradient by z. It may
        overwrite the given gradient.
    """

    forward: Callable[[Ops, Array, bool], tuple[Array, Array]]
    backward: Callable[[Ops, Array, Array], Array]


def _identity(ops: Ops, z: Array, with_slope: bool) -> tuple[Array, Array]:
    return z, None


def _identity_gradient(ops: Ops, delta: Array, unused: Array) -> Array:
    return delta


def _logistic(ops: Ops, z: Array, with_slope: bool) -> tuple[Array, Array]:
    active = ops.sigmoid(z)
    return active, active


def _logistic_gradient(ops: Ops, delta: Array, active: Array) -> Array:
    return ops.multiply(delta, active * (1.0 - active))


def _tanh(ops: Ops, z: Array, with_slope: bool) -> tuple[Array, Array]:
    active = ops.tanh(z)
    return active, active


def _tanh_gradient(ops: Ops, delta: Array, active: Array) -> Array:
    return ops.multiply(delta, 1.0 - active * active)


def _relu(ops: Ops, z: Array, with_slope: bool) -> tuple[Array, Array]:
    active = ops.relu(z)
    return active, active


def _relu_gradient(ops: Ops, delta: Array, active: Array) -> Array:
    return ops.relu_gradient(delta, active)


def _gelu(ops: Ops, z: Array, with_slope: bool) -> tuple[Array, Array]:
    xp, end = ops.xp, GELU_END[ops.itemsize]
    # Below the clamp the distribution function is 0, and 0 times infinity would be NaN.
    z = ops.at_least(z, -end)
    bounded = ops.at_most(z, end)
    p = ops.normal_cdf(bounded)
    slope = None
    if with_slope:
        slope = p + bounded * (xp.exp(-0.5 * bounded * bounded) * (1.0 / math.sqrt(2.0 * math.pi)))
    return z * p, slope


def _silu(ops: Ops, z: Array, with_slope: bool) -> tuple[Array, Array]:
    end = SILU_END[ops.itemsize]
    z = ops.at_least(z, -end)
    p = ops.logistic(z)
    slope = None
    if with_slope:
        slope = p + ops.at_most(z, end) * (p * ops.logistic(-z))
    return z * p, slope


def _elu(ops: Ops, z: Array, with_slope: bool) -> tuple[Array, Array]:
    active = ops.xp.where(z < 0.0, ops.xp.expm1(ops.at_most(z, 0.0)), z)
    return active, active


def _elu_gradient(ops: Ops, delta: Array, active: Array) -> Array:
    return ops.multiply(delta, 1.0 + ops.at_most(active, 0.0))


def _slope_gradient(ops: Ops, delta: Array, slope: Array) -> Array:
    """For activations whose forward function returns the derivative."""
    return ops.multiply(delta, slope)


# Activations by name. The compiled ones are in the table of sklloss/kernels/isa/activations.pxi.tp.
ACTIVATIONS = {
    "identity": Activation(_identity, _identity_gradient),
    "logistic": Activation(_logistic, _logistic_gradient),
    "tanh": Activation(_tanh, _tanh_gradient),
    "relu": Activation(_relu, _relu_gradient),
    "gelu": Activation(_gelu, _slope_gradient),
    "silu": Activation(_silu, _slope_gradient),
    "elu": Activation(_elu, _elu_gradient),
}


def ops_for(device: Device, itemsize: int) -> Ops:
    """The operations for arrays of a device."""
    return TorchOps(device, itemsize) if device.is_torch else Ops(device, itemsize)


class BatchLoss(Protocol):
    """A loss over a batch of tensors."""

    def __call__(self, y: Array, raw: Array, with_curvature: bool, /) -> tuple[Array, Array, Array | None]:
        """Losses of the rows, gradient and curvature; see `fused_loss`."""


def fused_loss(device: Device, loss: Loss) -> BatchLoss | None:
    """The loss as a function of a batch, in a third of the time of its formula; None if there is none.

    Parameters
    ----------
    device : Device
    loss : Loss

    Returns
    -------
    function of (y, raw, with_curvature), or None
        It returns what `Loss.formula` and, if ``with_curvature``, `Loss.curvature` return: losses, gradient,
        and second derivatives or None. For a softmax, the last are the probabilities. ``raw`` is
        overwritten. An infinite score is treated as the largest finite one, so the loss is finite where that
        of the formula is infinite.
    """
    if not device.is_torch:
        return None
    torch = importlib.import_module("torch")
    # The exact class: a subclass may state another formula.
    if type(loss) is CrossEntropy:
        return functools.partial(_cross_entropy, torch, loss.label_smoothing)
    if type(loss) is LogLoss:
        return functools.partial(_log_loss, torch, loss.label_smoothing)
    return None


def _cross_entropy(
    torch: Any, smoothing: float, y: Array, raw: Array, with_curvature: bool, /
) -> tuple[Array, Array, Array | None]:
    largest = torch.finfo(raw.dtype).max
    top, first = torch.max(raw.clamp_(-largest, largest), 1, keepdim=True)
    difference = raw.sub_(top).clamp_(min=-largest)
    spread = smoothing / raw.shape[1]
    if y.ndim == 2:
        y = y * (1.0 - smoothing) + spread if smoothing else y
        cost = (y * difference).sum(1)
    else:
        codes = y[:, None]
        at_code = torch.gather(difference, 1, codes)
        cost = at_code[:, 0]
        if smoothing:
            cost = (1.0 - smoothing) * cost + spread * difference.sum(1)
    e = difference.exp_()
    # The sum without the largest term, which is 1: added to it, small terms would lose digits.
    rest = e.scatter_(1, first, 0.0).sum(1, keepdim=True)
    total = 1.0 + rest
    p = e.scatter_(1, first, 1.0).div_(total)
    value = torch.log1p(rest)[:, 0] - cost
    if y.ndim == 2:
        return value, p - y, p if with_curvature else None
    curvature = p.clone() if with_curvature else None
    # At the code, p - 1 is minus the probability of all other classes; summed, it keeps its digits.
    others = torch.where(at_code == 0.0, rest, total - at_code.exp_())
    gradient = p.scatter_(1, codes, others.div_(total).neg_())
    if smoothing:
        gradient.sub_(spread).scatter_add_(1, codes, torch.full_like(at_code, smoothing))
    return value, gradient, curvature


def _log_loss(
    torch: Any, smoothing: float, y: Array, raw: Array, with_curvature: bool, /
) -> tuple[Array, Array, Array | None]:
    largest = torch.finfo(raw.dtype).max
    size = torch.abs(raw.clamp_(-largest, largest))
    above = (raw >= 0).to(raw.dtype)
    # The weight of the less likely label. It is smoothed here: 1 minus a smoothed label loses digits.
    against = (above - y).abs_()
    if smoothing:
        against.mul_(1.0 - smoothing).add_(0.5 * smoothing)
    e = torch.exp(-size)
    value = size.mul_(against).add_(torch.log1p(e))
    total = 1.0 + e
    small = e.div_(total)  # the probability of the less likely label
    curvature = small / total if with_curvature else None
    return value, above.mul_(2.0).sub_(1.0).mul_(against.sub_(small)), curvature
