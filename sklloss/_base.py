"""What all estimators share: warnings, state, pickles, copies on another device, callbacks."""

from __future__ import annotations

import contextlib
import copy
import numbers
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import joblib
import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from sklloss._version import __version__
from sklloss.arrays.device import Device, device_of, is_out_of_memory, to_device, to_numpy, torch_device

Method = TypeVar("Method", bound=Callable[..., Any])


# Warnings -------------------------------------------------------------------------------------------------

# The frames of these packages are skipped: scikit-learn and joblib may call `fit` for the user.
_SKIPPED = tuple(os.path.dirname(file) + os.sep for file in (__file__, sklearn.__file__, joblib.__file__))


_collected = threading.local()


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[tuple[str | Warning, type[Warning]]]]:
    """Collect what `warn` is passed in this thread, which has no line of the user to name."""
    found: list[tuple[str | Warning, type[Warning]]] = []
    before = getattr(_collected, "warnings", None)
    _collected.warnings = found
    try:
        yield found
    finally:
        _collected.warnings = before


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Issue a warning that names the line of the user, however deep in the package it arises.

    Parameters
    ----------
    message : str or Warning
    category : type, default=UserWarning
        Ignored where ``message`` is a Warning.
    """
    collected = getattr(_collected, "warnings", None)
    if collected is not None:
        collected.append((message, category))
        return
    if sys.version_info >= (3, 12):
        warnings.warn(message, category, skip_file_prefixes=_SKIPPED)
    else:
        frame, stacklevel = sys._getframe(1), 2
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_SKIPPED):
            frame, stacklevel = frame.f_back, stacklevel + 1
        warnings.warn(message, category, stacklevel=stacklevel)


# State ----------------------------------------------------------------------------------------------------


class KeepState(Exception):  # noqa: N818 - not an error itself: it carries one
    """Raised within `unchanged_on_error` to raise ``error`` from it, with the attributes set so far kept."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


@contextlib.contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Restore the attributes of an estimator if the block raises anything but `KeepState`.

    Fitted arrays are replaced and never written to, so a shallow copy holds the whole state.
    """
    before = vars(estimator).copy()
    try:
        yield
    except KeepState as kept:
        raise kept.error from kept.error.__cause__
    except BaseException as error:
        vars(estimator).clear()
        vars(estimator).update(before)
        if isinstance(error, MemoryError) or not is_out_of_memory(error):
            raise
        # The frames that the error passed through hold the arrays that fill the device's memory.
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        raise MemoryError(f"{type(estimator).__name__} ran out of memory: {error}") from None


class Estimator(BaseEstimator):  # type: ignore[misc]  # which has no annotations
    """scikit-learn's base class, which asks a class for the names of its parameters once only.

    A grid search over small fits asks several times a fit.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of parameters that are estimators.

        Returns
        -------
        dict
            The values by name.
        """
        names = type(self).__dict__.get("_parameter_names")
        if names is None:
            names = type(self)._parameter_names = tuple(super().get_params(deep=False))
        params = {name: getattr(self, name) for name in names}
        if deep and any(hasattr(value, "get_params") for value in params.values()):
            return super().get_params()
        return params


class VersionStamp:
    """Mixin: a pickle records the version of sklloss that wrote it, and another version warns on reading it.

    scikit-learn does this for its own classes only.
    """

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return state | {"_sklloss_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        written_by = state.pop("_sklloss_version", "an unknown version")
        if written_by != __version__:
            warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=f"sklloss {__version__}",
                    original_sklearn_version=f"sklloss {written_by}",
                )
            )
        super().__setstate__(state)  # type: ignore[misc]  # of BaseEstimator


# Devices --------------------------------------------------------------------------------------------------


class Movable:
    """Mixin: `to` returns a copy of a fitted estimator with its arrays on another device."""

    # Whether `fit` accepts arrays of other namespaces, and puts the fitted attributes on the device of X.
    _follows_arrays = True

    def to(self, device: Any) -> Self:
        """Return a copy of the fitted estimator whose arrays are on another device.

        Parameters
        ----------
        device : str, torch.device or array
            "numpy" for NumPy arrays; the name of a device, such as "cuda" or "cpu", for torch tensors there;
            an array for its namespace and its device.

        Returns
        -------
        estimator : object
            It predicts for X on that device. Fitted numbers keep their values, in float32 where the device
            has no float64. Parameters are the same, except that ``device`` is None: the copy computes where
            its arrays are. Arrays that are there already are shared with this estimator.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
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
        moved: Any = copy.copy(self)
        for name, value in vars(self).items():
            if name == "classes_":
                moved.classes_ = to_device(to_numpy(value), target)
            elif name.endswith("_") or name.startswith("_"):
                setattr(moved, name, _moved(value, target))
        moved.device = None
        return moved

    def __sklearn_tags__(self) -> Tags:
        """Tags for scikit-learn: arrays of other namespaces are accepted."""
        tags = super().__sklearn_tags__()  # type: ignore[misc]  # of BaseEstimator
        tags.array_api_support = True
        return tags


def _target_device(device: Any) -> Device | None:
    """The device that `Movable.to` was given; None for NumPy."""
    if isinstance(device, np.ndarray) or (isinstance(device, str) and device == "numpy"):
        return None
    return device_of(device) or torch_device(device, "device", "'numpy', the name of a device, an array")


def _moved(value: Any, target: Device | None) -> Any:
    """An attribute with the arrays in it on the target device."""
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_moved(part, target) for part in value)
    if isinstance(value, dict):
        return {name: _moved(part, target) for name, part in value.items()}
    origin = device_of(value)
    if origin == target:
        return value
    if origin is not None:
        value = origin.get(value)
    elif not (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
        return value
    return value if target is None else target.put(value)


# Callbacks ------------------------------------------------------------------------------------------------

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupport:
        """Replaces scikit-learn's mixin where it has no callbacks."""

    def _with_callbacks(method: Method) -> Method:
        return method

else:

    class CallbackSupport(CallbackSupportMixin):  # type: ignore[misc, no-redef]
        """scikit-learn's mixin, which also records whether any callback is set."""

        def set_callbacks(self, *callbacks: Any) -> Self:
            """Set the callbacks that `fit` calls, or remove them.

            Parameters
            ----------
            *callbacks : callback
                Such as ``sklearn.callback.ProgressBar()``.

            Returns
            -------
            self
            """
            super().set_callbacks(*callbacks)
            if callbacks:
                self._has_callbacks = True
            elif hasattr(self, "_has_callbacks"):
                del self._has_callbacks
            return self

        def __sklearn_clone__(self) -> Self:
            clone = super().__sklearn_clone__()
            if hasattr(self, "_has_callbacks"):
                clone._has_callbacks = True
            return clone


def with_callbacks(method: Method) -> Method:
    """scikit-learn's decorator of `fit`, which tears callbacks down, where it has callbacks."""
    return _with_callbacks(method)


class FitCallbacks:
    """The callbacks of one call of ``fit``, which `with_callbacks` decorates.

    To be made before `unchanged_on_error` records the estimator's attributes, so that the callbacks are torn
    down after an error too.

    Parameters
    ----------
    estimator : CallbackSupport
    X, y, sample_weight
        As the user passed them.
    max_steps : object
        The maximum number of steps, not yet checked; ignored unless it is a positive integer.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any, max_steps: Any) -> None:
        self._root: Any = None
        if hasattr(estimator, "_has_callbacks"):
            known = isinstance(max_steps, numbers.Integral) and int(max_steps) > 0
            # Private by its name, but scikit-learn's guide tells estimators with callbacks to call it: there
            # is no public way to create the context.
            self._root = estimator._init_callback_context(max_subtasks=int(max_steps) if known else None)
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._data = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}

    def steps(self, name: str, attributes: Callable[[Any], dict[str, Any]]) -> StepCallbacks | None:
        """The callbacks around each step of a solver, or None if there are none.

        Parameters
        ----------
        name : str
            What a step is called.
        attributes : callable
            Maps the solver's parameters to the fitted attributes that predictions need.
        """
        if self._root is None:
            return None
        self._root.call_on_fit_task_begin(**self._data)
        return StepCallbacks(self._root, name, self._data, attributes)

    def end(self) -> None:
        """Tell the callbacks that the fit is complete and its attributes are set."""
        if self._root is not None:
            self._root.call_on_fit_task_end(**self._data, reconstruction_attributes={})


class StepCallbacks:
    """The callbacks that a solver calls around each step; made by `FitCallbacks.steps`."""

    def __init__(
        self, root: Any, name: str, data: dict[str, Any], attributes: Callable[[Any], dict[str, Any]]
    ) -> None:
        self._root, self._name, self._data, self._attributes = root, name, data, attributes
        self._step: Any = None

    def begin(self) -> None:
        """Call them before a step."""
        self._step = self._root.subcontext(task_name=self._name)
        self._step.call_on_fit_task_begin(**self._data)

    def end(self, parameters: Any) -> bool:
        """Call them after a step that ended at ``parameters``; True if one of them stops the training."""
        # The attributes are computed only for a callback that makes predictions.
        return self._step.call_on_fit_task_end(
            **self._data, reconstruction_attributes=lambda: self._attributes(parameters)
        )
