"""The layers of a network over arrays of a device: forward and backward passes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from sklloss.arrays.ops import ACTIVATIONS, Array, Ops


class Layers:
    """The passes of a network with one flat vector of parameters: weight matrices, then biases.

    Parameters
    ----------
    ops : Ops
    widths : tuple of int
        Inputs, units of each hidden layer, outputs.
    activation : str
        A key of `sklloss.arrays.ops.ACTIVATIONS`.
    """

    def __init__(self, ops: Ops, widths: tuple[int, ...], activation: str) -> None:
        self._ops = ops
        self._activation = ACTIVATIONS[activation]
        self._outputs = widths[1:]
        self._shapes = list(itertools.pairwise(widths))

    def unpack(self, flat: Array) -> tuple[list[Array], list[Array]]:
        """Weight matrices and biases as views of a flat vector."""
        coefs, intercepts, start = [], [], 0
        for inputs, outputs in self._shapes:
            coefs.append(self._ops.xp.reshape(flat[start : start + inputs * outputs], (inputs, outputs)))
            start += inputs * outputs
        for outputs in self._outputs:
            intercepts.append(flat[start : start + outputs])
            start += outputs
        return coefs, intercepts

    def pack(self, coefs: Sequence[Array], intercepts: Sequence[Array]) -> Array:
        """A new flat vector."""
        xp = self._ops.xp
        return xp.concat([xp.reshape(part, (-1,)) for part in (*coefs, *intercepts)])

    def forward(self, x: Array, coefs: list[Array], intercepts: list[Array]) -> Array:
        """Raw scores of shape (rows, outputs)."""
        for coef, intercept in zip(coefs[:-1], intercepts[:-1], strict=True):
            x, _ = self._activation.forward(self._ops, self._ops.affine(x, coef, intercept), False)
        return self._ops.affine(x, coefs[-1], intercepts[-1])

    def forward_to_train(
        self, x: Array, coefs: list[Array], intercepts: list[Array]
    ) -> tuple[Array, list[tuple[Array, Array]]]:
        """Raw scores, and for each layer its input and what `backward` needs of the activation above."""
        kept = []
        for coef, intercept in zip(coefs[:-1], intercepts[:-1], strict=True):
            active, slope = self._activation.forward(self._ops, self._ops.affine(x, coef, intercept), True)
            kept.append((x, slope))
            x = active
        kept.append((x, None))
        return self._ops.affine(x, coefs[-1], intercepts[-1]), kept

    def backward(
        self, delta: Array, kept: list[tuple[Array, Array]], coefs: list[Array], out: GradientBuffer
    ) -> Array:
        """The gradient as a flat vector, which the next call with the same ``out`` overwrites.

        Parameters
        ----------
        delta : array of shape (rows, outputs)
            The gradient by the raw scores.
        kept : list
            From `forward_to_train`.
        coefs : list of array
        out : GradientBuffer
        """
        for layer in range(len(coefs) - 1, -1, -1):
            self._ops.layer_gradients(kept[layer][0], delta, out.coefs[layer], out.intercepts[layer])
            if layer:
                delta = self._ops.product(delta, coefs[layer].T)
                delta = self._activation.backward(self._ops, delta, kept[layer - 1][1])
        return out.flat


class GradientBuffer:
    """A flat vector for gradients, and its parts as views.

    Parameters
    ----------
    layers : Layers
    flat : array of shape (size,)
    """

    def __init__(self, layers: Layers, flat: Array) -> None:
        self.flat = flat
        self.coefs: list[Array]
        self.intercepts: list[Array]
        self.coefs, self.intercepts = layers.unpack(flat)
