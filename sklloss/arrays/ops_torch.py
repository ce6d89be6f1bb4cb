"""Operations on torch tensors that are faster than those of the array API.

`TorchOps` is what networks compute with. `in_place` computes the two most common losses in a third of the
time that their formulas take.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any, Protocol

from sklloss.arrays.device import Device
from sklloss.arrays.ops import AdamSteps, Array, Ops, SGDSteps
from sklloss.losses import CrossEntropy, LogLoss, Loss

# The step count passed to the fused Adam: so large that its bias correction has no effect.
UNBIASED = 1e30


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

    def product(self, a: Array, b: Array) -> Array:
        """See `Ops.product`."""
        return self._torch.mm(a, b)

    def layer_gradients(self, x: Array, delta: Array, coef: Array, intercept: Array) -> None:
        """See `Ops.layer_gradients`."""
        self._torch.mm(x.T, delta, out=coef)
        self._torch.sum(delta, 0, out=intercept)

    def empty_like(self, array: Array) -> Array:
        """See `Ops.empty_like`."""
        return self._torch.empty_like(array)

    def sum_of_squares(self, array: Array, dtype: Any) -> Array:
        """See `Ops.sum_of_squares`."""
        if array.device.type == "cpu":
            return self._torch.dot(array, array).to(dtype)
        return self._torch.linalg.vector_norm(array, dtype=dtype) ** 2

    def add_in_place(self, array: Array, other: Array, factor: float) -> None:
        """See `Ops.add_in_place`."""
        array.add_(other, alpha=factor)

    def scale_in_place(self, array: Array, factor: float) -> None:
        """See `Ops.scale_in_place`."""
        array.mul_(factor)

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


class BatchLoss(Protocol):
    """A loss over a batch of tensors."""

    def __call__(self, y: Array, raw: Array, with_curvature: bool, /) -> tuple[Array, Array, Array | None]:
        """Losses of the rows, gradient and curvature; see `in_place`."""


def in_place(device: Device, loss: Loss) -> BatchLoss | None:
    """The loss as a function of a batch, or None if nothing is faster than its formula.

    Parameters
    ----------
    device : Device
    loss : Loss

    Returns
    -------
    function of (y, raw, with_curvature), or None
        It returns what `Loss.formula` and, if ``with_curvature``, `Loss.curvature` return: losses, gradient,
        and second derivatives or None. For a softmax the latter are the probabilities. ``raw`` is
        overwritten. An infinite score counts as the largest finite one, so a loss that the formula makes
        infinite is that large.
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
