"""What a fitted linear classifier says of rows: scores, classes, probabilities."""

import numpy as np

from sklloss._class_predictions import ClassPredictions
from sklloss.arrays.device import beside, full_precision, place_of


class LinearPredictions(ClassPredictions):
    """Mixin: the fitted model ``X @ coef_.T + intercept_`` and its predictions."""

    # whether the outputs are the classes of one softmax; else they are independent
    _softmax = None

    def _set_model(self, classes, kind, link, coef, dtype, place=None):
        """Become the model of parameters (outputs, width), which end with the intercept if there is one.

        ``place`` is that of what is learned, None for NumPy.
        """
        features = coef.shape[1] - bool(self.fit_intercept)
        self.classes_ = beside(classes, place)
        self._kind = kind
        self._link = link
        intercept = coef[:, -1].astype(dtype) if self.fit_intercept else np.zeros(len(coef), dtype)
        self.coef_ = beside(coef[:, :features].astype(dtype), place)
        self.intercept_ = beside(intercept, place)

    def _model_array(self):
        """An array that lives where the model does."""
        return self.coef_

    def _raw(self, X):
        """The scores of checked rows."""
        home = place_of(self.coef_)
        if home is None:
            scores = X @ self.coef_.T + self.intercept_
        else:
            dtype = home.xp.result_type(X.dtype, self.coef_.dtype)
            X, coef, intercept = (
                home.xp.astype(part, dtype, copy=False) for part in (X, self.coef_, self.intercept_)
            )
            with full_precision(home):
                scores = X @ coef.T + intercept
        return scores[:, 0] if self._kind == "binary" else scores

    def __sklearn_tags__(self):
        """Tags for scikit-learn: sparse input is welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
