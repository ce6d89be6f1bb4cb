"""Operations of a network over any namespace of the array API: products, activations, optimiser steps.

`Ops` uses nothing but the standard, and is the specification of the compiled kernels. A library with
faster ways overrides single operations, as `sklloss.arrays.ops_torch.TorchOps` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sklloss.arrays.device import Device
from sklloss.losses import LogLoss

# An array of any namespace: the array API has no type for it.
Array = Any

# |z| from which on the normal distribution function, or the logistic one, is 0 to the left, by itemsize.
GELU_END = {4: 15.0, 8: 40.0}
SILU_END = {4: 120.0, 8: 800.0}
# Phi(-t) (t + c) exp(t**2 / 2) as a polynomial in (t - c) / (t + c), by itemsize: c and the coefficients, the
# highest power first. Those of the compiled kernels, within 2**-29.6 and 2**-60.
NORMAL_TAILS = {
    4: (
        3.0,
        (
            5.54918717168e-5, 0.000133323954204, -0.000244709320792, -0.00103447655089, 0.00102415732438,
            0.00696992015091, -0.0104622889665, -0.0472627619212, 0.230017676674, -0.509331988835,
            0.729083690714,
        ),
    ),
    8: (
        5.0,
        (
            -3.811591216859991484e-10, -1.1587067068417079471e-9, 2.2231550232580247395e-9,
            1.0793477810959655961e-8, -8.5641200824097403945e-9, -7.0141518552715186944e-8,
            4.0188502351482562872e-8, 4.3629597769055443818e-7, -3.3458070480827050267e-7,
            -2.7707241725170538083e-6, 3.9798074584623732325e-6, 0.000016681641487337262026,
            -0.00004976245671937835773, -0.000059375807898063176878, 0.00054489899282073360844,
            -0.00079786938920602304452, -0.002993376761871154401, 0.020795066799251923221,
            -0.069118638706878270499, 0.16502036617040754393, -0.31353315667128743441,
            0.49530561596997606653, -0.66538250289005685197, 0.76919304975006295954,
        ),
    ),
}  # fmt: skip


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

    The bias correction is part of the rate, as in section 2 of the paper.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", 2015.
    """
    first = beta_1 * first + (1.0 - beta_1) * gradient
    second = beta_2 * second + (1.0 - beta_2) * gradient * gradient
    return rate * first / (xp.sqrt(second) + epsilon), first, second


@dataclass(frozen=True, eq=False)
class AdamSteps:
    """The steps of Adam, or of AdamW, in one epoch.

    Attributes
    ----------
    rates : ndarray of shape (batches,)
        Learning rates, with the bias correction.
    first, second : array of shape (size,)
        The moments, which the steps change.
    beta_1, beta_2, epsilon : float
    weight_decays : ndarray of shape (batches,) or None
        The share of itself that each weight, but no bias, loses in a step.
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
            ops.scale_in_place(parameters[:n_weights], 1.0 - float(self.weight_decays[k]))
        ops.adam(parameters, gradient, float(self.rates[k]), self)


@dataclass(frozen=True, eq=False)
class SGDSteps:
    """The steps of gradient descent with momentum in one epoch.

    Attributes
    ----------
    rates : ndarray of shape (batches,)
    velocity : array of shape (size,)
        Changed by the steps.
    momentum : float
    nesterov : bool
        Nesterov's momentum.
    """

    kernel: ClassVar[str] = "sgd"

    rates: np.ndarray
    velocity: Array
    momentum: float = 0.0
    nesterov: bool = False

    def take(self, ops: Ops, k: int, parameters: Array, gradient: Array, n_weights: int) -> None:
        """Take the step of batch k, in place."""
        ops.sgd(parameters, gradient, float(self.rates[k]), self)


# What an optimiser does in one epoch.
Steps = AdamSteps | SGDSteps


class Ops:
    """What a network computes with, over arrays of one device.

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

    def product(self, a: Array, b: Array) -> Array:
        """Give ``a @ b``."""
        return a @ b

    def layer_gradients(self, x: Array, delta: Array, coef: Array, intercept: Array) -> None:
        """Write the gradients of a layer, given its input and the gradient by its output before f."""
        coef[...] = x.T @ delta
        intercept[...] = self.xp.sum(delta, axis=0)

    def empty_like(self, array: Array) -> Array:
        """A new array of the same shape."""
        return self.xp.empty_like(array)

    def sum_of_squares(self, array: Array, dtype: Any) -> Array:
        """A 0-d array of that dtype."""
        return self.xp.sum(array * array, dtype=dtype)

    def add_in_place(self, array: Array, other: Array, factor: float) -> None:
        """Add ``factor * other`` to an array."""
        array[...] = array + factor * other

    def scale_in_place(self, array: Array, factor: float) -> None:
        """Multiply an array by a number."""
        array[...] = array * factor

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


@dataclass(frozen=True)
class Activation:
    """An activation f as a pair of functions over `Ops`.

    Attributes
    ----------
    forward : callable
        Of ops, z and whether a backward pass follows: f(z), and what `backward` takes of it (None if none
        follows). It may overwrite z.
    backward : callable
        Of ops, the gradient by f(z) and what `forward` handed on: the gradient by z. It may overwrite the
        gradient.
    """

    forward: Callable[[Ops, Array, bool], tuple[Array, Array]]
    backward: Callable[[Ops, Array, Array], Array]


def _identity(ops: Ops, z: Array, keep: bool) -> tuple[Array, Array]:
    return z, None


def _identity_gradient(ops: Ops, delta: Array, kept: Array) -> Array:
    return delta


def _logistic(ops: Ops, z: Array, keep: bool) -> tuple[Array, Array]:
    active = ops.sigmoid(z)
    return active, active


def _logistic_gradient(ops: Ops, delta: Array, active: Array) -> Array:
    return ops.multiply(delta, active * (1.0 - active))


def _tanh(ops: Ops, z: Array, keep: bool) -> tuple[Array, Array]:
    active = ops.tanh(z)
    return active, active


def _tanh_gradient(ops: Ops, delta: Array, active: Array) -> Array:
    return ops.multiply(delta, 1.0 - active * active)


def _relu(ops: Ops, z: Array, keep: bool) -> tuple[Array, Array]:
    active = ops.relu(z)
    return active, active


def _relu_gradient(ops: Ops, delta: Array, active: Array) -> Array:
    return ops.relu_gradient(delta, active)


def _gelu(ops: Ops, z: Array, keep: bool) -> tuple[Array, Array]:
    xp, end = ops.xp, GELU_END[ops.itemsize]
    # below the clamp the distribution function is 0: infinity times it would be NaN
    z = ops.at_least(z, -end)
    bounded = ops.at_most(z, end)
    p = ops.normal_cdf(bounded)
    slope = None
    if keep:
        slope = p + bounded * (xp.exp(-0.5 * bounded * bounded) * (1.0 / math.sqrt(2.0 * math.pi)))
    return z * p, slope


def _silu(ops: Ops, z: Array, keep: bool) -> tuple[Array, Array]:
    end = SILU_END[ops.itemsize]
    z = ops.at_least(z, -end)
    p = ops.logistic(z)
    slope = None
    if keep:
        slope = p + ops.at_most(z, end) * (p * ops.logistic(-z))
    return z * p, slope


def _elu(ops: Ops, z: Array, keep: bool) -> tuple[Array, Array]:
    active = ops.xp.where(z < 0.0, ops.xp.expm1(ops.at_most(z, 0.0)), z)
    return active, active


def _elu_gradient(ops: Ops, delta: Array, active: Array) -> Array:
    return ops.multiply(delta, 1.0 + ops.at_most(active, 0.0))


def _slope_gradient(ops: Ops, delta: Array, slope: Array) -> Array:
    """For activations whose derivative is worked out with them."""
    return ops.multiply(delta, slope)


# The compiled twin of this table is ACTIVATIONS of sklloss.kernels.network.network.
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
    if device.is_torch:
        from sklloss.arrays.ops_torch import TorchOps

        return TorchOps(device, itemsize)
    return Ops(device, itemsize)
