"""What a fitted linear classifier says of rows: scores, classes, probabilities."""

import numpy as np

from sklloss._class_predictions import ClassPredictions


class LinearPredictions(ClassPredictions):
    """Mixin: the fitted model ``X @ coef_.T + intercept_`` and its predictions."""

    # whether the outputs are the classes of one softmax; else they are independent
    _softmax = None

    def _set_model(self, classes, kind, link, coef, dtype):
        """Become the model of parameters (outputs, width), which end with the intercept if there is one."""
        features = coef.shape[1] - bool(self.fit_intercept)
        self.classes_ = classes
        self._kind = kind
        self._link = link
        self.coef_ = coef[:, :features].astype(dtype)
        self.intercept_ = coef[:, -1].astype(dtype) if self.fit_intercept else np.zeros(len(coef), dtype)

    def _raw(self, X):
        """The scores of checked rows."""
        scores = X @ self.coef_.T + self.intercept_
        return scores[:, 0] if self._kind == "binary" else scores

    def __sklearn_tags__(self):
        """Tags for scikit-learn: sparse input is welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
