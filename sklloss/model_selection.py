"""Splitters that stratify soft targets: rows of class probabilities go by the class they make likeliest.

scikit-learn's stratified splitters refuse such rows, and ``cv=5`` gives them folds that are neither shuffled
nor stratified. The splitters here are scikit-learn's own, with the target coded before it reaches them.

Of scikit-learn's tools, `cross_val_predict` with ``method="predict_proba"`` is not for soft y: it codes the
columns of y as labels before it fits. `cross_validate` with ``return_estimator=True, return_indices=True``
gives the models and the rows to predict.

>>> import numpy as np
>>> from sklloss.model_selection import StratifiedSoftKFold
>>> y = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.0, 1.0]])
>>> for train, test in StratifiedSoftKFold(n_splits=2).split(np.zeros((4, 1)), y):
...     print(train, test)
[2 3] [0 1]
[0 1] [2 3]
"""

import numpy as np
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedKFold, StratifiedShuffleSplit
from sklearn.utils import check_array
from sklearn.utils.multiclass import type_of_target

from sklloss.data import Dataset, code_classes

__all__ = ["RepeatedStratifiedSoftKFold", "StratifiedSoftKFold", "StratifiedSoftShuffleSplit"]


class _SoftStrata:
    """Codes y, then lets the scikit-learn splitter to its right split."""

    def split(self, X, y, groups=None):
        """Generate indices to split data into training and test set.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Only its number of rows counts.
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
            If y has rows that are not class probabilities: multi-label rows, for which
            `sklearn.model_selection.KFold` is there.
        """
        return super().split(X, _strata(y), groups)


class StratifiedSoftKFold(_SoftStrata, StratifiedKFold):
    """K folds with the same share of each class, for soft and for hard targets.

    A row of class probabilities counts as the class that it makes likeliest, the first one where several
    are. Hard labels, and one-hot rows made of them, give the folds of
    `sklearn.model_selection.StratifiedKFold`.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=False
        Whether to shuffle each class's rows before they are put into folds.
    random_state : int, RandomState instance or None, default=None
        With ``shuffle=True``, what determines the order of the rows.

    See Also
    --------
    RepeatedStratifiedSoftKFold : The same, several times.
    StratifiedSoftShuffleSplit : Random test sets of a given size.

    Notes
    -----
    y may be labels of any dtype (n,), probabilities of the second of two classes (n,), which count as that
    class above 0.5, or class probabilities (n, K) in an array or a DataFrame, not negative and with rows
    that sum to 1. Multi-label rows are refused, since one class does not describe them.

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


class RepeatedStratifiedSoftKFold(_SoftStrata, RepeatedStratifiedKFold):
    """`StratifiedSoftKFold` repeated, shuffled differently each time.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    n_repeats : int, default=10
        Number of repetitions.
    random_state : int, RandomState instance or None, default=None
        What determines the shuffles.

    See Also
    --------
    StratifiedSoftKFold : The targets that are taken, and how they are stratified.
    """


class StratifiedSoftShuffleSplit(_SoftStrata, StratifiedShuffleSplit):
    """Random splits with the same share of each class, for soft and for hard targets.

    Parameters
    ----------
    n_splits : int, default=10
        Number of splits.
    test_size : float, int or None, default=None
        Share or number of test rows; None takes what ``train_size`` leaves, or a tenth.
    train_size : float, int or None, default=None
        Share or number of training rows; None takes what ``test_size`` leaves.
    random_state : int, RandomState instance or None, default=None
        What determines the splits.

    See Also
    --------
    StratifiedSoftKFold : The targets that are taken, and how they are stratified.
    """


def _strata(y):
    """The class of each row: labels as they are, codes of the likeliest class for probabilities."""
    shape = np.shape(y)
    if len(shape) == 2 and shape[1] > 1:
        try:
            rows = code_classes(Dataset(np.empty((shape[0], 0))), y, "softmax").values
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
