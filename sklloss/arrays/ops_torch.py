"""Operations over torch's tensors that are faster than those of the array API.

`TorchOps` is what networks compute with. `in_place` has the two commonest losses, the formulas' numbers for a
third of the work.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any

from sklloss.arrays.device import Device
from sklloss.arrays.ops import AdamSteps, Array, Ops, SGDSteps
from sklloss.losses import CrossEntropy, LogLoss

# Steps taken, as the fused Adam counts them, after which no bias is left to correct.
UNBIASED = 1e30


class TorchOps(Ops):
    """`Ops` over torch's tensors: in place, and with fewer passes over memory."""

    def __init__(self, device: Device, itemsize: int) -> None:
        super().__init__(device, itemsize)
        self._torch = importlib.import_module("torch")
        # Without erfc there is the polynomial.
        self._has_erfc = device.native.type in ("cpu", "cuda")
        # Whether the device has Adam as one kernel; None until it was tried.
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
        """See `Ops.adam`. One kernel does it all where the device has that."""
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
        """Take the first step by the fused kernel; whether the device has it."""
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
        # 0 or 1, in a tenth of the time that a mask takes
        return delta.mul_(self._torch.sign(active))

    def tanh(self, z: Array) -> Array:
        """See `Ops.tanh`."""
        return z.tanh_()

    def sigmoid(self, z: Array) -> Array:
        """See `Ops.sigmoid`."""
        return z.sigmoid_()


def in_place(device, loss):
    """The loss as a function of a batch, or None where there is nothing better than its formula.

    Parameters
    ----------
    device : Device
    loss : Loss

    Returns
    -------
    function of (y, raw, curved)
        It gives what `Loss.formula` and, if ``curved``, `Loss.curvature` do: losses, gradient, and second
        derivatives or None. Of a softmax the last are the probabilities. ``raw`` is overwritten. An infinite
        score counts as the largest finite one: a loss that the formula calls infinite is that large.
    """
    own = {CrossEntropy.kernel: _cross_entropy, LogLoss.kernel: _log_loss}.get(loss.kernel)
    if own is None or not device.is_torch:
        return None
    return functools.partial(own, importlib.import_module("torch"), loss.label_smoothing)


def _cross_entropy(torch, smoothing, y, raw, curved):
    largest = torch.finfo(raw.dtype).max
    top, first = torch.max(raw.clamp_(-largest, largest), 1, keepdim=True)
    ahead = raw.sub_(top).clamp_(min=-largest)
    spread = smoothing / raw.shape[1]
    if y.ndim == 2:
        y = y * (1.0 - smoothing) + spread if smoothing else y
        cost = (y * ahead).sum(1)
    else:
        at = y[:, None]
        own = torch.gather(ahead, 1, at)
        cost = own[:, 0]
        if smoothing:
            cost = (1.0 - smoothing) * cost + spread * ahead.sum(1)
    e = ahead.exp_()
    # all but the largest: next to its 1 they would lose digits
    rest = e.scatter_(1, first, 0.0).sum(1, keepdim=True)
    total = 1.0 + rest
    p = e.scatter_(1, first, 1.0).div_(total)
    value = torch.log1p(rest)[:, 0] - cost
    if y.ndim == 2:
        return value, p - y, p if curved else None
    bend = p.clone() if curved else None
    # At the code, p - 1 is minus the probability of all others: the sum keeps its digits, p - 1 would not.
    others = torch.where(own == 0.0, rest, total - own.exp_())
    gradient = p.scatter_(1, at, others.div_(total).neg_())
    if smoothing:
        gradient.sub_(spread).scatter_add_(1, at, torch.full_like(own, smoothing))
    return value, gradient, bend


def _log_loss(torch, smoothing, y, raw, curved):
    largest = torch.finfo(raw.dtype).max
    size = torch.abs(raw.clamp_(-largest, largest))
    above = (raw >= 0).to(raw.dtype)
    # What the label has against the score. Of a smoothed label 1 - y would lose digits, of the label not.
    against = (above - y).abs_()
    if smoothing:
        against.mul_(1.0 - smoothing).add_(0.5 * smoothing)
    e = torch.exp(-size)
    value = size.mul_(against).add_(torch.log1p(e))
    total = 1.0 + e
    short = e.div_(total)  # what the probability of the likelier side lacks
    bend = short / total if curved else None
    return value, above.mul_(2.0).sub_(1.0).mul_(against.sub_(short)), bend
