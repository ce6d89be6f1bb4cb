"""scikit-learn's callbacks around a fit, where it has them: from 1.9 on."""

import numbers
from collections.abc import Callable
from typing import Any, Self, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:

    class CallbackSupport:
        """Stands in where scikit-learn has no callbacks."""

    def _with_callbacks(method):
        return method

else:

    class CallbackSupport(CallbackSupportMixin):
        """scikit-learn's mixin, which also records whether any callback is set."""

        def set_callbacks(self, *callbacks: Any) -> Self:
            """Set the callbacks that `fit` calls, or none.

            Parameters
            ----------
            *callbacks : callback
                Such as ``sklearn.callback.ProgressBar()``.

            Returns
            -------
            self
            """
            super().set_callbacks(*callbacks)
            vars(self).pop("_has_callbacks", None)
            if callbacks:
                self._has_callbacks = True
            return self

        def __sklearn_clone__(self):
            copy = super().__sklearn_clone__()
            if hasattr(self, "_has_callbacks"):
                copy._has_callbacks = True
            return copy


def with_callbacks(method: Method) -> Method:
    """scikit-learn's decorator of `fit`, which tears callbacks down, if it has one."""
    return _with_callbacks(method)


class FitCallbacks:
    """The callbacks of one call of ``fit``, which `with_callbacks` decorates.

    Made before the estimator's attributes are noted to be restored after an error, so that the callbacks
    are torn down then too.

    Parameters
    ----------
    estimator : CallbackSupport
    X, y, sample_weight
        As the user passed them.
    max_steps : object
        Most steps, where it is a whole number; it has not been checked yet.
    """

    def __init__(self, estimator, X, y, sample_weight, max_steps):
        self._root = None
        if hasattr(estimator, "_has_callbacks"):
            known = isinstance(max_steps, numbers.Integral) and max_steps > 0
            # private by its name, but what scikit-learn's guide asks estimators with callbacks to call: there
            # is no public way to make the context
            self._root = estimator._init_callback_context(max_subtasks=int(max_steps) if known else None)
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._data = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}

    def steps(self, name, attributes):
        """An object whose ``begin()`` and ``end(parameters)`` the solver calls around each step, or None.

        ``attributes`` maps the solver's parameters to the fitted attributes that predictions need.
        """
        if self._root is None:
            return None
        self._root.call_on_fit_task_begin(**self._data)
        return _Steps(self._root, name, self._data, attributes)

    def end(self):
        """Tell the callbacks that the fit is complete and its attributes are set."""
        if self._root is not None:
            self._root.call_on_fit_task_end(**self._data, reconstruction_attributes={})


class _Steps:
    def __init__(self, root, name, data, attributes):
        self._root, self._name, self._data, self._attributes = root, name, data, attributes
        self._step = None

    def begin(self):
        self._step = self._root.subcontext(task_name=self._name)
        self._step.call_on_fit_task_begin(**self._data)

    def end(self, parameters):
        """Whether a callback stops the training."""
        # Evaluated only for a callback that makes predictions.
        return self._step.call_on_fit_task_end(
            **self._data, reconstruction_attributes=lambda: self._attributes(parameters)
        )
