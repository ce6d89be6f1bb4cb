"""A loss over batches of rows whose targets and weights live on the device of X."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from sklloss.arrays.device import Device
from sklloss.arrays.ops_torch import in_place
from sklloss.data.dataset import Dataset
from sklloss.losses import Loss, _checks
from sklloss.losses._links import one_hot, softmax

Array = Any  # of the namespace of the device


class DeviceLoss:
    """A loss bound to targets and weights. The host does not wait for any of its results.

    Parameters
    ----------
    device : Device
    loss : Loss
    data : Dataset
        Its targets and weights are NumPy arrays, which are moved to the device here, once.
    """

    device: Device
    loss: Loss
    outputs: int
    probabilities: bool

    def __init__(self, device: Device, loss: Loss, data: Dataset) -> None:
        self.device, self.loss, self.outputs = device, loss, data.outputs
        codes, weight = data.codes, data.weight
        self._wide = device.real(device.wide)
        self._values: Array = None if data.values is None else device.put(data.values, data.dtype)
        self._codes: Array = None if codes is None else device.put(codes, np.int64)
        self._expand = codes is not None and loss.target != "classes"
        self._weight: Array = None
        if weight is not None:
            self._weight = device.put(weight.reshape(len(weight), -1), data.dtype)
            self._total = float(np.sum(weight, dtype=np.float64))
        self._divisor = loss.row_divisor(data.outputs)
        self.probabilities = loss.curvature_buffer == "probabilities"
        self._in_place = in_place(device, loss)

    def __call__(
        self, raw: Array, first: int, last: int, *, curved: bool = False
    ) -> tuple[Array, Array, Array]:
        """Loss sums and derivatives of the rows [first, last), from their scores (rows, outputs).

        ``raw`` may be overwritten.

        Returns
        -------
        sums : array of shape (outputs,), or (1,) if not separable
            In float64 if the device supports it.
        slopes : array like raw
            The derivatives by raw, times weights.
        curvature : array like raw, or None if not ``curved``
            For a separable loss the second derivatives, times weights. For the cross-entropy of a softmax
            the probabilities. For other losses raw itself, see `curvature_product`.
        """
        xp, loss = self.device.xp, self.loss
        y, weight = self._target(raw, first, last), self.weight(raw, first, last)
        if self._in_place is not None:
            value, gradient, curvature = self._in_place(y, raw, curved)
            if curved and loss.separable:
                curvature = self._scaled(curvature, raw, weight)
        else:
            curvature = self._curvature(y, raw, weight) if curved else None
            if not loss.additive:
                return *self._whole(y, raw, weight), curvature
            value, gradient = _checks.formula_result(loss, xp, y, raw)
            gradient = _checks.gradient_result(loss, xp, gradient, raw)
        if value.ndim == 1:
            value = value[:, None]
        if not xp.isdtype(value.dtype, "real floating"):
            value = xp.astype(value, raw.dtype)
        if weight is not None:
            # Rows of weight 0 may contain anything: inf * 0 would be NaN.
            value = xp.where(weight != 0, value * weight, 0.0)
        sums = xp.sum(value, axis=0, dtype=self._wide)
        if self._divisor > 1:
            sums = sums / self._divisor
        return sums, self._scaled(gradient, raw, weight), curvature

    def slopes(self, raw: Array, first: int, last: int) -> Array:
        """The derivatives alone, as a call returns them, for a loss that is a mean over rows."""
        y, weight = self._target(raw, first, last), self.weight(raw, first, last)
        if self._in_place is not None:
            return self._scaled(self._in_place(y, raw, False)[1], raw, weight)
        _, gradient = _checks.formula_result(self.loss, self.device.xp, y, raw)
        return self._scaled(_checks.gradient_result(self.loss, self.device.xp, gradient, raw), raw, weight)

    def take(self, rows: Array) -> DeviceLoss:
        """The loss over some of the rows, in the order of their numbers, an array on the device."""
        part = copy.copy(self)
        for name in ("_values", "_codes", "_weight"):
            array = getattr(self, name)
            setattr(part, name, None if array is None else self.device.xp.take(array, rows, axis=0))
        return part

    def curvature_product(self, curvature: Array, direction: Array, first: int, last: int) -> Array:
        """The second derivatives of the rows [first, last) times a direction (rows, outputs), with weights.

        ``curvature`` is that of a call for the same rows. ``direction`` may be overwritten.
        """
        xp = self.device.xp
        if self.loss.separable:
            direction *= curvature
            return direction
        if self.probabilities:
            direction -= xp.sum(curvature * direction, axis=1, keepdims=True)
            direction *= curvature
        else:
            direction = self.loss.product_formula(
                xp, self._target(curvature, first, last), curvature, direction
            )
        weight = self.weight(curvature, first, last)
        return direction if weight is None else xp.where(weight != 0, direction * weight, 0.0)

    def weight(self, raw: Array, first: int, last: int) -> Array | None:
        """The weights of the rows [first, last) in raw's dtype, (rows, 1) or (rows, outputs), or None."""
        return None if self._weight is None else self._like(self._weight[first:last, ...], raw)

    def _target(self, raw: Array, first: int, last: int) -> Array:
        if self._values is not None:
            return self._like(self._values[first:last, ...], raw)
        codes = self._codes[first:last]
        return self._like(one_hot(self.device.xp, codes, raw), raw) if self._expand else codes

    def _like(self, array: Array, raw: Array) -> Array:
        return array if array.dtype == raw.dtype else self.device.xp.astype(array, raw.dtype)

    def _scaled(self, array: Array, raw: Array, weight: Array | None) -> Array:
        array = self._like(array, raw)
        if weight is None:
            return array if self._divisor == 1 else array / self._divisor
        return self.device.xp.where(weight != 0, array * (weight / self._divisor), 0.0)

    def _curvature(self, y: Array, raw: Array, weight: Array | None) -> Array:
        xp, loss = self.device.xp, self.loss
        if not loss.separable:
            return softmax(xp, raw) if self.probabilities else raw
        second = loss.curvature(xp, y, raw)
        if second is None:
            raise ValueError(f"{type(loss).__name__} states no curvature")
        _checks.returned_array(loss, xp, "curvature", second, raw.shape)
        return self._scaled(second, raw, weight)

    def _whole(self, y: Array, raw: Array, weight: Array | None) -> tuple[Array, Array]:
        """Value and gradient, times the sum of weights, of a loss that is not a mean over rows."""
        xp = self.device.xp
        total = float(raw.shape[0]) if weight is None else self._total
        count = self.outputs if self.loss.separable else 1
        sums = xp.zeros(count, dtype=self._wide, device=self.device.native)
        if total == 0.0:
            return sums, xp.zeros_like(raw)
        rows = None if weight is None else weight[:, 0]
        value, gradient = self.loss.mean_formula(xp, y, raw, rows)
        sums = xp.concat([xp.reshape(xp.astype(value, self._wide), (1,)) * total, sums[1:]])
        return sums, gradient * total
