"""Splitters that stratify soft targets: a row of class probabilities counts as its most likely class.

scikit-learn's stratified splitters reject such targets, and ``cv=5`` gives them folds that are neither
shuffled nor stratified. The splitters here code the target, then delegate to scikit-learn's.

scikit-learn's `cross_val_predict` with ``method="predict_proba"`` does not support soft targets: it codes the
columns of y as labels before it fits. Use `cross_validate` with ``return_estimator=True,
return_indices=True``, which returns the models and the rows to predict.

>>> import numpy as np
>>> from sklloss.model_selection import StratifiedSoftKFold
>>> y = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.0, 1.0]])
>>> for train, test in StratifiedSoftKFold(n_splits=2).split(np.zeros((4, 1)), y):
...     print(train, test)
[2 3] [0 1]
[0 1] [2 3]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedKFold, StratifiedShuffleSplit
from sklearn.utils import check_array
from sklearn.utils.multiclass import type_of_target

from sklloss.data.checks import MatrixLike
from sklloss.data.dataset import Dataset
from sklloss.data.targets import code_classes

__all__ = ["RepeatedStratifiedSoftKFold", "StratifiedSoftKFold", "StratifiedSoftShuffleSplit"]


class _SoftStrata:
    """Mixin that codes y, then calls the scikit-learn splitter after it in the MRO."""

    def split(
        self, X: MatrixLike, y: MatrixLike, groups: object = None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Generate indices to split data into training and test set.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Only its number of rows is used.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels, probabilities of the second of two classes, or rows of class probabilities.
        groups : object, default=None
            Always ignored, exists for API compatibility.

        Yields
        ------
        train, test : ndarray
            The indices of the training and of the test rows.

        Raises
        ------
        ValueError
            If y has rows that are not class probabilities, such as multi-label rows. Use
            `sklearn.model_selection.KFold` for those.
        """
        splits: Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]
        splits = super().split(X, _strata(y), groups)  # type: ignore[misc]
        return splits


class StratifiedSoftKFold(_SoftStrata, StratifiedKFold):  # type: ignore[misc]
    """K folds with the same proportion of each class, for soft and hard targets.

    A row of class probabilities counts as its most likely class, the first of several equally likely ones.
    Hard labels, and one-hot rows made from them, give the folds of
    `sklearn.model_selection.StratifiedKFold`.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=False
        Whether to shuffle the rows of each class before dividing them into folds.
    random_state : int, RandomState instance or None, default=None
        The source of randomness if ``shuffle=True``.

    See Also
    --------
    RepeatedStratifiedSoftKFold : The same, repeated.
    StratifiedSoftShuffleSplit : Random test sets of a given size.

    Notes
    -----
    y may be labels of any dtype (n,), probabilities of the second of two classes (n,), which count as that
    class above 0.5, or class probabilities (n, K) in an array or a DataFrame, not negative and with rows
    that sum to 1. Multi-label rows are rejected: no single class describes them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklloss import SoftmaxClassifier
    >>> from sklloss.metrics import neg_cross_entropy
    >>> from sklloss.model_selection import StratifiedSoftKFold
    >>> X, y = load_iris(return_X_y=True)
    >>> soft = 0.9 * np.eye(3)[y] + 0.1 / 3
    >>> cv = StratifiedSoftKFold()
    >>> cross_val_score(SoftmaxClassifier(), X, soft, scoring=neg_cross_entropy, cv=cv).shape
    (5,)
    """


class RepeatedStratifiedSoftKFold(_SoftStrata, RepeatedStratifiedKFold):  # type: ignore[misc]
    """`StratifiedSoftKFold` repeated, shuffled differently each time.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    n_repeats : int, default=10
        Number of repetitions.
    random_state : int, RandomState instance or None, default=None
        The source of randomness.

    See Also
    --------
    StratifiedSoftKFold : Accepted targets, and how they are stratified.
    """


class StratifiedSoftShuffleSplit(_SoftStrata, StratifiedShuffleSplit):  # type: ignore[misc]
    """Random splits with the same proportion of each class, for soft and hard targets.

    Parameters
    ----------
    n_splits : int, default=10
        Number of splits.
    test_size : float, int or None, default=None
        Fraction or number of test rows; None is the complement of ``train_size``, or a tenth.
    train_size : float, int or None, default=None
        Fraction or number of training rows; None is the complement of ``test_size``.
    random_state : int, RandomState instance or None, default=None
        The source of randomness.

    See Also
    --------
    StratifiedSoftKFold : Accepted targets, and how they are stratified.
    """


def _strata(y: Any) -> NDArray[Any]:
    """The class of each row: labels unchanged, for probabilities the code of the most likely class."""
    shape = np.shape(y)
    if len(shape) == 2 and shape[1] > 1:
        try:
            rows: Any = code_classes(Dataset(np.empty((shape[0], 0))), y, "softmax").values
        except ValueError as error:
            hint = "Rows that are not class probabilities have no class to stratify by: use KFold for them"
            raise ValueError(f"{error}. {hint}") from None
        return rows.argmax(axis=1) if rows.shape[1] > 1 else (rows[:, 0] > 0.5).astype(int)
    labels = check_array(y, input_name="y", ensure_2d=False, dtype=None)
    labels = labels[:, 0] if labels.ndim == 2 else labels
    if type_of_target(labels, input_name="y") != "continuous":
        return labels
    if labels.min() < 0 or labels.max() > 1:
        raise ValueError(
            "y must hold class labels, or probabilities in [0, 1]; "
            f"got values from {labels.min()} to {labels.max()}"
        )
    return (labels > 0.5).astype(int)
