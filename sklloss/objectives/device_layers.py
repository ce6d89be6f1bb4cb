"""The layers of a network, and the steps of its optimisers, over arrays of a namespace of the array API.

`ArrayLayers` uses nothing but the standard. `TorchLayers` does the same in place, with fewer passes over
memory.
"""

import importlib
import itertools
import math

from sklloss.losses import LogLoss

# |z| from which on the normal distribution function, or the logistic one, is 0 to the left, by itemsize.
GELU_END = {4: 15.0, 8: 40.0}
SILU_END = {4: 120.0, 8: 800.0}
# Phi(-t) (t + c) exp(t**2 / 2) as a polynomial in (t - c) / (t + c), by itemsize: c and the coefficients, the
# highest power first. Those of the compiled kernels, within 2**-29.6 and 2**-60.
TAILS = {
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


class ArrayLayers:
    """The passes of a network with one flat vector of parameters: weight matrices, then biases.

    Parameters
    ----------
    device : Device
    widths : tuple of int
    activation : str
    itemsize : int
        4 for float32, 8 for float64.
    """

    def __init__(self, device, widths, activation, itemsize):
        self.xp = device.xp
        self.widths = widths
        self.activation = activation
        self._itemsize = itemsize
        self._shapes = list(itertools.pairwise(widths))
        self.coefs = sum(inputs * outputs for inputs, outputs in self._shapes)
        self.size = self.coefs + sum(widths[1:])

    def unpack(self, flat):
        """Weight matrices and biases as views of a flat vector."""
        coefs, intercepts, at = [], [], 0
        for inputs, outputs in self._shapes:
            coefs.append(self.xp.reshape(flat[at : at + inputs * outputs], (inputs, outputs)))
            at += inputs * outputs
        for outputs in self.widths[1:]:
            intercepts.append(flat[at : at + outputs])
            at += outputs
        return coefs, intercepts

    def pack(self, coefs, intercepts):
        """A new flat vector."""
        return self.xp.concat([self.xp.reshape(part, (-1,)) for part in (*coefs, *intercepts)])

    def forward(self, x, coefs, intercepts, keep=False):
        """Raw scores (rows, outputs); with ``keep``, also what `backward` needs of the layers below."""
        kept = []
        for coef, intercept in zip(coefs[:-1], intercepts[:-1], strict=True):
            active, slope = self._activate(self._affine(x, coef, intercept), keep)
            if keep:
                kept.append((x, slope))
            x = active
        kept.append((x, None))
        raw = self._affine(x, coefs[-1], intercepts[-1])
        return (raw, kept) if keep else raw

    def backward(self, delta, kept, coefs, out=None):
        """The gradient as a flat vector, given that by the raw scores.

        Parameters
        ----------
        delta : array of shape (rows, outputs)
        kept : list
            From `forward`.
        coefs : list of array
        out : object, optional
            From `workspace`.
        """
        weights, biases = [], []
        for layer in range(len(coefs) - 1, -1, -1):
            x, _ = kept[layer]
            weights.append(x.T @ delta)
            biases.append(self.xp.sum(delta, axis=0))
            if layer:
                delta = self._damp(delta @ coefs[layer].T, kept[layer - 1][1])
        return self.pack(weights[::-1], biases[::-1])

    def workspace(self, parameters):
        """What calls of `backward` may share."""
        return None

    def squares(self, parameters, wide):
        """The sum of the squared weights, a 0-d array of dtype ``wide``."""
        coefs = parameters[: self.coefs]
        return self.xp.sum(coefs * coefs, dtype=wide)

    def add_penalty(self, gradient, parameters, factor):
        """Add a multiple of the weights to the gradient, in place."""
        gradient[: self.coefs] += factor * parameters[: self.coefs]

    def adam(self, parameters, gradient, first, second, *, rate, shrink, decay, decay_second, epsilon):
        """A step of Adam, in place; the bias correction is part of the rate."""
        first[...] = decay * first + (1.0 - decay) * gradient
        second[...] = decay_second * second + (1.0 - decay_second) * (gradient * gradient)
        if shrink:
            parameters[: self.coefs] *= 1.0 - shrink
        parameters[...] = parameters - rate * first / (self.xp.sqrt(second) + epsilon)

    def sgd(self, parameters, gradient, velocity, *, rate, decay, nesterov):
        """A step with momentum, Nesterov's or plain, in place."""
        gradient = rate * gradient
        velocity[...] = decay * velocity - gradient
        step = decay * velocity - gradient if nesterov else velocity
        parameters[...] = parameters + step

    # Layers -----------------------------------------------------------------------------------------

    def _affine(self, x, coef, intercept):
        return x @ coef + intercept

    def _activate(self, z, keep):
        """What a layer makes of z, and what `_damp` is to multiply by: the output itself for some."""
        if self.activation == "relu":
            # written so that NaN stays NaN
            active = self.xp.where(z < 0.0, 0.0, z)
        elif self.activation == "tanh":
            active = self.xp.tanh(z)
        elif self.activation == "logistic":
            active = self._logistic(z)
        elif self.activation == "gelu":
            return self._gelu(z, keep)
        elif self.activation == "silu":
            return self._silu(z, keep)
        else:
            active = z
        return active, active

    def _damp(self, delta, slope):
        """The gradient by z from that by the output of a layer."""
        if self.activation == "relu":
            return self.xp.where(slope == 0.0, 0.0, delta)
        return delta if self.activation == "identity" else delta * self._derivative(slope)

    def _derivative(self, slope):
        if self.activation == "tanh":
            return 1.0 - slope * slope
        return slope * (1.0 - slope) if self.activation == "logistic" else slope

    def _at_least(self, z, low):
        return self.xp.where(z < low, low, z)

    def _at_most(self, z, high):
        return self.xp.where(z > high, high, z)

    def _logistic(self, z):
        return LogLoss().inverse_link(self.xp, z)

    def _normal(self, z):
        """The normal distribution function."""
        xp = self.xp
        c, (highest, *rest) = TAILS[self._itemsize]
        t = xp.abs(z)
        share = (t - c) / (t + c)
        tail = highest * share + rest[0]
        for coefficient in rest[1:]:
            tail = tail * share + coefficient
        tail = tail / (t + c) * xp.exp(-0.5 * t * t)
        return xp.where(z < 0.0, tail, 1.0 - tail)

    def _gelu(self, z, keep):
        xp, end = self.xp, GELU_END[self._itemsize]
        # below the clamp the distribution function is 0: infinity times it would be NaN
        z = self._at_least(z, -end)
        bounded = self._at_most(z, end)
        p = self._normal(bounded)
        slope = None
        if keep:
            slope = p + bounded * (xp.exp(-0.5 * bounded * bounded) * (1.0 / math.sqrt(2.0 * math.pi)))
        return z * p, slope

    def _silu(self, z, keep):
        end = SILU_END[self._itemsize]
        z = self._at_least(z, -end)
        p = self._logistic(z)
        slope = None
        if keep:
            slope = p + self._at_most(z, end) * (p * self._logistic(-z))
        return z * p, slope


class TorchLayers(ArrayLayers):
    """The same over torch's tensors."""

    def __init__(self, device, widths, activation, itemsize):
        super().__init__(device, widths, activation, itemsize)
        self._torch = importlib.import_module("torch")
        self._fused = None
        # Without erfc there is the polynomial.
        self._has_erfc = device.native.type in ("cpu", "cuda")

    def workspace(self, parameters):
        """A flat vector for the gradient, with views of its parts."""
        gradient = self._torch.empty_like(parameters)
        return gradient, *self.unpack(gradient)

    def backward(self, delta, kept, coefs, out=None):
        """See `ArrayLayers.backward`; the result is overwritten by the next call with the same ``out``."""
        gradient, weights, biases = out if out is not None else self.workspace(self._empty(delta))
        for layer in range(len(coefs) - 1, -1, -1):
            x, _ = kept[layer]
            self._torch.mm(x.T, delta, out=weights[layer])
            self._torch.sum(delta, 0, out=biases[layer])
            if layer:
                delta = self._damp(self._torch.mm(delta, coefs[layer].T), kept[layer - 1][1])
        return gradient

    def _empty(self, like):
        return self._torch.empty(self.size, dtype=like.dtype, device=like.device)

    def squares(self, parameters, wide):
        """See `ArrayLayers.squares`."""
        coefs = parameters[: self.coefs]
        if coefs.device.type == "cpu":
            return self._torch.dot(coefs, coefs).to(wide)
        return self._torch.linalg.vector_norm(coefs, dtype=wide) ** 2

    def add_penalty(self, gradient, parameters, factor):
        """See `ArrayLayers.add_penalty`."""
        gradient[: self.coefs].add_(parameters[: self.coefs], alpha=factor)

    def adam(self, parameters, gradient, first, second, *, rate, shrink, decay, decay_second, epsilon):
        """See `ArrayLayers.adam`."""
        if shrink:
            parameters[: self.coefs].mul_(1.0 - shrink)
        if self._fused is not False:
            step = parameters, gradient, first, second, rate, decay, decay_second, epsilon
            if self._fused is not None:
                self._fused_adam(*step)
                return
            if self._begin_fused_adam(*step):
                return
        first.lerp_(gradient, 1.0 - decay)
        second.mul_(decay_second).addcmul_(gradient, gradient, value=1.0 - decay_second)
        parameters.addcdiv_(first, second.sqrt().add_(epsilon), value=-rate)

    def _begin_fused_adam(self, parameters, *step):
        """The first step by torch's one kernel for all of it; whether the device has that."""
        torch = self._torch
        # so many steps that there is nothing left to correct
        self._fused = torch.full((), 1e30, dtype=torch.float32, device=parameters.device)
        self._adam = importlib.import_module("torch.optim.adam").adam
        try:
            self._fused_adam(parameters, *step)
        except (RuntimeError, TypeError, NotImplementedError, AttributeError):
            self._fused = False
            return False
        return True

    def _fused_adam(self, parameters, gradient, first, second, rate, decay, decay_second, epsilon):
        self._adam(
            [parameters], [gradient], [first], [second], [], [self._fused],
            fused=True, amsgrad=False, beta1=decay, beta2=decay_second, lr=rate, weight_decay=0.0,
            eps=epsilon, maximize=False,
        )  # fmt: skip

    def sgd(self, parameters, gradient, velocity, *, rate, decay, nesterov):
        """See `ArrayLayers.sgd`."""
        velocity.mul_(decay).add_(gradient, alpha=-rate)
        if nesterov:
            parameters.add_(velocity, alpha=decay).add_(gradient, alpha=-rate)
        else:
            parameters.add_(velocity)

    def _affine(self, x, coef, intercept):
        return self._torch.addmm(intercept, x, coef)

    def _activate(self, z, keep):
        if self.activation == "relu":
            active = z.relu_()
        elif self.activation == "tanh":
            active = z.tanh_()
        elif self.activation == "logistic":
            active = z.sigmoid_()
        else:
            return super()._activate(z, keep)
        return active, active

    def _damp(self, delta, slope):
        if self.activation == "relu":
            # 0 or 1, in a tenth of the time that a mask takes
            return delta.mul_(self._torch.sign(slope))
        if self.activation == "identity":
            return delta
        return delta.mul_(self._derivative(slope))

    def _at_least(self, z, low):
        return self._torch.clamp(z, min=low)

    def _at_most(self, z, high):
        return self._torch.clamp(z, max=high)

    def _logistic(self, z):
        return self._torch.sigmoid(z)

    def _normal(self, z):
        if not self._has_erfc:
            return super()._normal(z)
        return self._torch.special.erfc(z * -math.sqrt(0.5)).mul_(0.5)
