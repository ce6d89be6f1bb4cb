"""Predictions of a fitted linear classifier."""

import numpy as np
from sklearn.utils import Tags

from sklloss._class_predictions import ClassPredictions
from sklloss.arrays.device import device_of
from sklloss.arrays.transfer import full_precision, to_device
from sklloss.data import Array


class LinearPredictions(ClassPredictions):
    """Mixin: the fitted model ``X @ coef_.T + intercept_`` and its predictions."""

    classes_: Array
    coef_: Array
    intercept_: Array

    # Whether the outputs are the classes of one softmax rather than independent sigmoids.
    _softmax = None

    def _set_model(self, labels, link, coef, dtype, device=None):
        """Become the model of parameters (outputs, width), which end with the intercept if there is one.

        ``device`` is that of what is learned, None for NumPy.
        """
        features = coef.shape[1] - bool(self.fit_intercept)
        self.classes_ = to_device(labels.classes, device)
        self._kind = labels.kind
        self._link = link
        intercept = coef[:, -1].astype(dtype) if self.fit_intercept else np.zeros(len(coef), dtype)
        self.coef_ = to_device(coef[:, :features].astype(dtype), device)
        self.intercept_ = to_device(intercept, device)

    def _model_array(self):
        """An array that lives where the model does."""
        return self.coef_

    def _raw(self, X):
        """The scores of checked rows."""
        origin = device_of(self.coef_)
        if origin is None:
            scores = X @ self.coef_.T + self.intercept_
        else:
            dtype = origin.xp.result_type(X.dtype, self.coef_.dtype)
            X, coef, intercept = (
                origin.xp.astype(part, dtype, copy=False) for part in (X, self.coef_, self.intercept_)
            )
            with full_precision(origin):
                scores = X @ coef.T + intercept
        return scores[:, 0] if self._kind == "binary" else scores

    def __sklearn_tags__(self) -> Tags:
        """Tags for scikit-learn: sparse input is welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
