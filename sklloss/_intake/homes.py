"""Where rows come from, and where they are taken in to."""

from dataclasses import dataclass

import numpy as np

from sklloss._intake.arrays import dtype_of
from sklloss._intake.offload import offload
from sklloss.backends.places import Place, place_of


@dataclass(frozen=True)
class Home:
    """Where X came from, and its dtype there: where what is learned goes.

    Attributes
    ----------
    place : Place or None
        None for NumPy.
    dtype : NumPy dtype
    """

    place: Place | None
    dtype: np.dtype

    def bring(self, array, place):
        """An array that lives at a place, which nothing else holds."""
        if place == self.place and place is not None:
            dtype = place.real(self.dtype)
            return array if array.dtype == dtype else place.xp.astype(array, dtype)
        array = (array if place is None else place.get(array)).astype(self.dtype, copy=False)
        return array if self.place is None else self.place.put(array)


def take_in(X, estimator, name="X"):
    """A checked X where the estimator's ``device`` asks for it, and its `Home`."""
    home = Home(place_of(X), dtype_of(X))
    return offload(X, estimator.device, estimator.device_dtype, name), home
