"""Vectors of parameters, (problems, size), where the rows live: the few operations that solvers need of them.

One number for each problem is NumPy's on the host wherever the vectors are. Elsewhere than in main memory the
host waits for such numbers in `read` and `get` alone.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sklloss.arrays.device import Device

Array: TypeAlias = npt.NDArray[Any]
Mask: TypeAlias = npt.NDArray[np.bool_]


def dot(a: Array, b: Array) -> Array:
    """The product of two vectors of each problem, (problems,)."""
    return np.einsum("bi,bi->b", a, b)


class NumPyVectors:
    """Vectors in main memory."""

    resident = False
    xp: Any = np

    def put(self, array: Any) -> Any:
        """A vector there of one in NumPy."""
        return array

    def get(self, array: Any) -> Array:
        """A vector there as one in NumPy."""
        return array

    def read(self, *numbers: Any) -> tuple[Array, ...]:
        """Numbers, (problems,) each, to be decided by."""
        return numbers

    def solver(self, solve: Any) -> Any:
        """A preconditioner as one for vectors there."""
        return solve

    def dot(self, a: Any, b: Any) -> Any:
        """The product of two vectors of each problem."""
        return dot(a, b)

    def along(self, step: Array, direction: Any, active: Mask) -> Any:
        """Each problem's step times its direction; a problem that is not active has a direction of 0."""
        return step[:, None] * direction

    def keep(self, array: Any, mask: Mask) -> Any:
        """The vectors of the problems in the mask, zeros for the others."""
        return np.where(mask[:, None], array, 0.0)

    def choose(self, mask: Mask, array: Any, other: Any) -> Any:
        """The vectors of one for the problems in the mask, of another for the rest."""
        return np.where(mask[:, None], array, other)

    def vanishes(self, gradient: Any, likely: Mask) -> Mask:
        """Which problems have a gradient of 0; there are none but those that are ``likely``."""
        return (gradient == 0).all(axis=1)

    def sound(self, direction: Any, gradient: Any) -> tuple[Any, Array, Mask]:
        """The direction, 0 where it is not of numbers, its product with the gradient, and where that is."""
        finite = np.isfinite(direction).all(axis=1)
        direction = np.where(finite[:, None], direction, 0.0)
        return direction, self.dot(gradient, direction), ~finite


NUMPY = NumPyVectors()


class ArrayVectors:
    """Vectors in the arrays of a `Device` that has float64.

    What has one value for all problems, as a step mostly has, does not move there.
    """

    resident = True

    def __init__(self, device: Device) -> None:
        self.device: Device = device
        self.xp: Any = device.xp
        # The last mask, here and on the device: most calls repeat it.
        self._mask: Mask | None = None
        self._mask_there: Any = None

    def put(self, array: Any) -> Any:
        """See `NumPyVectors.put`."""
        return self.device.put(array, self.device.wide)

    def get(self, array: Any) -> Array:
        """See `NumPyVectors.get`."""
        return self.device.get(array).astype(np.float64, copy=False)

    def read(self, *numbers: Any) -> tuple[Array, ...]:
        """See `NumPyVectors.read`. All come at once."""
        if len(numbers) == 1:
            return (self.get(numbers[0]),)
        # each is for one caller to change
        return tuple(self.get(self.xp.stack(numbers)))

    def solver(self, solve: Any) -> Any:
        """See `NumPyVectors.solver`: made explicit, so that one product applies it."""
        return solve.to_device(self)

    def dot(self, a: Any, b: Any) -> Any:
        """See `NumPyVectors.dot`."""
        return self.xp.sum(a * b, axis=1)

    def along(self, step: Array, direction: Any, active: Mask) -> Any:
        """See `NumPyVectors.along`."""
        active = step[active]
        if active.size == 0:
            return 0.0 * direction
        if (active == active[0]).all():
            return direction if active[0] == 1.0 else float(active[0]) * direction
        return self.put(step[:, None]) * direction

    def keep(self, array: Any, mask: Mask) -> Any:
        """See `NumPyVectors.keep`."""
        return array if mask.all() else self.choose(mask, array, self.xp.zeros_like(array))

    def choose(self, mask: Mask, array: Any, other: Any) -> Any:
        """See `NumPyVectors.choose`."""
        if self._mask is None or not np.array_equal(mask, self._mask):
            self._mask, self._mask_there = mask.copy(), self.device.put(mask[:, None])
        return self.xp.where(self._mask_there, array, other)

    def vanishes(self, gradient: Any, likely: Mask) -> Mask:
        """See `NumPyVectors.vanishes`."""
        if not likely.any():
            return np.zeros(len(likely), dtype=bool)
        return likely & (self.read(self.xp.max(self.xp.abs(gradient), axis=1))[0] == 0)

    def sound(self, direction: Any, gradient: Any) -> tuple[Any, Array, Mask]:
        """See `NumPyVectors.sound`: the product is not a number where a part of the direction is none."""
        (slope,) = self.read(self.dot(gradient, direction))
        finite = np.isfinite(slope)
        return self.keep(direction, finite), np.where(finite, slope, 0.0), ~finite
