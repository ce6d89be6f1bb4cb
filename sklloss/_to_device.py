"""Fitted models that live elsewhere."""

import copy
from typing import Any, Self

import numpy as np
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from sklloss.arrays.device import device_of, torch_device
from sklloss.arrays.transfer import to_device, to_numpy


class Movable:
    """Mixin: `to`, a copy of a fitted estimator with its arrays elsewhere."""

    # Whether `fit` takes arrays of other namespaces as they are, and leaves what it learns beside them.
    _follows_arrays = True

    def to(self, device: Any) -> Self:
        """A copy of the fitted estimator whose arrays live elsewhere.

        Parameters
        ----------
        device : str, torch.device or array
            "numpy" for NumPy arrays; the name of a device for torch tensors there, as "cuda" or "cpu"; an
            array for the namespace and the device that it lives in.

        Returns
        -------
        estimator : object
            It predicts for rows that live there. Learned numbers are the same, in float32 where there is no
            float64, and so are parameters but for ``device``, which is None: the copy computes where its
            arrays live. Arrays that lived there already are shared.

        Raises
        ------
        NotFittedError
            If there is nothing to move.
        ValueError, TypeError, ImportError
            If there is no such device.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklloss import SoftmaxClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = SoftmaxClassifier().fit(X, y).to("numpy")  # of a model on a GPU: ready to pickle anywhere
        >>> model.predict(X[:2])
        array([0, 0])
        """
        check_is_fitted(self)
        target = _target_device(device)
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if name == "classes_":
                moved.classes_ = to_device(to_numpy(value), target)
            elif name.endswith("_") or name.startswith("_"):
                setattr(moved, name, _moved(value, target))
        moved.device = None
        return moved

    def __sklearn_tags__(self) -> Tags:
        """Tags for scikit-learn: arrays of other namespaces are welcome."""
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags


def _target_device(device):
    """A `Device`, or None for NumPy."""
    if isinstance(device, np.ndarray) or (isinstance(device, str) and device == "numpy"):
        return None
    return device_of(device) or torch_device(device, "device", "'numpy', the name of a device, an array")


def _moved(value, target):
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_moved(part, target) for part in value)
    if isinstance(value, dict):
        return {name: _moved(part, target) for name, part in value.items()}
    here = device_of(value)
    if here == target:
        return value
    if here is not None:
        value = here.get(value)
    elif not (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
        return value
    return value if target is None else target.put(value)
