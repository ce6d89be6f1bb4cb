"""Vectors of parameters, (problems, size), on the device of the rows: the operations that solvers need.

The results of one number per problem, such as steps, are NumPy arrays (problems,) on the host. For vectors on
a device, only `to_host` and `get` make the host wait.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sklloss.arrays.device import Device

Array: TypeAlias = npt.NDArray[Any]
Mask: TypeAlias = npt.NDArray[np.bool_]


def dot(a: Array, b: Array) -> Array:
    """The dot product of two vectors of each problem, (problems,)."""
    return np.einsum("bi,bi->b", a, b)


class NumPyVectors:
    """Vectors in NumPy arrays."""

    on_device = False
    xp: Any = np

    def put(self, array: Any) -> Any:
        """Vectors on the device, from NumPy."""
        return array

    def get(self, array: Any) -> Array:
        """Vectors in NumPy, from the device."""
        return array

    def to_host(self, *numbers: Any) -> tuple[Array, ...]:
        """Arrays of one number per problem as NumPy arrays."""
        return numbers

    def preconditioner(self, solve: Any) -> Any:
        """A preconditioner for vectors on the device; a compiled one if there is one."""
        return getattr(solve, "operator", solve)

    def dot(self, a: Any, b: Any) -> Any:
        """The dot product of two vectors of each problem, (problems,)."""
        return dot(a, b)

    def scaled(self, step: Array, direction: Any, active: Mask) -> Any:
        """Each problem's step times its direction; problems that are not active have a direction of 0."""
        return step[:, None] * direction

    def masked(self, array: Any, mask: Mask) -> Any:
        """The vectors of the problems in the mask, and zeros for the others."""
        return np.where(mask[:, None], array, 0.0)

    def where(self, mask: Mask, array: Any, other: Any) -> Any:
        """Vectors of one array for the problems in the mask, and of another for the rest."""
        return np.where(mask[:, None], array, other)

    def vanishes(self, gradient: Any, likely: Mask) -> Mask:
        """Which problems have a gradient of 0; only those in ``likely`` can."""
        return (gradient == 0).all(axis=1)

    def finite_direction(self, direction: Any, gradient: Any) -> tuple[Any, Array, Mask]:
        """The direction, zeroed for problems where it is not finite; its slope; which problems those are."""
        finite = np.isfinite(direction).all(axis=1)
        direction = np.where(finite[:, None], direction, 0.0)
        return direction, self.dot(gradient, direction), ~finite


NUMPY = NumPyVectors()


class ArrayVectors:
    """Vectors in arrays of a `Device` that has float64.

    A number that is the same for all problems, as a step usually is, is not moved to the device.
    """

    on_device = True

    def __init__(self, device: Device) -> None:
        self.device: Device = device
        self.xp: Any = device.xp
        # The last mask, on the host and on the device: most calls repeat it.
        self._mask: Mask | None = None
        self._device_mask: Any = None

    def put(self, array: Any) -> Any:
        """See `NumPyVectors.put`."""
        return self.device.put(array, self.device.wide)

    def get(self, array: Any) -> Array:
        """See `NumPyVectors.get`."""
        return self.device.get(array).astype(np.float64, copy=False)

    def to_host(self, *numbers: Any) -> tuple[Array, ...]:
        """See `NumPyVectors.to_host`. All are moved at once."""
        if len(numbers) == 1:
            return (self.get(numbers[0]),)
        # An array for each, since callers may modify them.
        return tuple(self.get(self.xp.stack(numbers)))

    def preconditioner(self, solve: Any) -> Any:
        """See `NumPyVectors.preconditioner`. Its matrix is made explicit, so that one product applies it."""
        return solve.to_device(self)

    def dot(self, a: Any, b: Any) -> Any:
        """See `NumPyVectors.dot`."""
        return self.xp.sum(a * b, axis=1)

    def scaled(self, step: Array, direction: Any, active: Mask) -> Any:
        """See `NumPyVectors.scaled`."""
        active = step[active]
        if active.size == 0:
            return 0.0 * direction
        if (active == active[0]).all():
            return direction if active[0] == 1.0 else float(active[0]) * direction
        return self.put(step[:, None]) * direction

    def masked(self, array: Any, mask: Mask) -> Any:
        """See `NumPyVectors.masked`."""
        return array if mask.all() else self.where(mask, array, self.xp.zeros_like(array))

    def where(self, mask: Mask, array: Any, other: Any) -> Any:
        """See `NumPyVectors.where`."""
        if self._mask is None or not np.array_equal(mask, self._mask):
            self._mask, self._device_mask = mask.copy(), self.device.put(mask[:, None])
        return self.xp.where(self._device_mask, array, other)

    def vanishes(self, gradient: Any, likely: Mask) -> Mask:
        """See `NumPyVectors.vanishes`."""
        if not likely.any():
            return np.zeros(len(likely), dtype=bool)
        return likely & (self.to_host(self.xp.max(self.xp.abs(gradient), axis=1))[0] == 0)

    def finite_direction(self, direction: Any, gradient: Any) -> tuple[Any, Array, Mask]:
        """See `NumPyVectors.finite_direction`. The slope is not finite if any part of a direction is not."""
        (slope,) = self.to_host(self.dot(gradient, direction))
        finite = np.isfinite(slope)
        return self.masked(direction, finite), np.where(finite, slope, 0.0), ~finite
