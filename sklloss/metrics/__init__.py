"""Metrics and scorers for targets that scikit-learn's turn away: soft, one-hot and multi-label y.

A scorer is what ``scoring=`` takes, in `cross_val_score`, `cross_validate`, `GridSearchCV`,
`permutation_importance` and so on; several go there as a dict. Greater is better, so losses are negated.
The function beside it works on arrays. With y the target and p the predicted probabilities, a row costs:

======================  =========================  =====================================================
scorer                  function                   of one row
======================  =========================  =====================================================
`neg_cross_entropy`     `cross_entropy_loss`       -sum_k y_k log p_k, over classes
`neg_kl_divergence`     `kl_divergence_loss`       sum_k y_k log(y_k / p_k), over classes
`neg_log_loss`          `log_loss`                 -sum_l y_l log p_l + (1 - y_l) log(1 - p_l), over labels
`neg_brier_score`       `brier_score_loss`         sum_k (y_k - p_k)**2, over classes or labels; half of it
                                                   for two classes
`argmax_accuracy`       `argmax_accuracy_score`    1 if the predicted class (or every label) is y's likeliest
======================  =========================  =====================================================

and a metric is the mean over rows, weighted by ``sample_weight``.

Targets: over classes, y is labels (n,) of any dtype, class probabilities (n, K), one-hot included, whose rows
sum to 1, or probabilities of the second of two classes (n,). The estimator's ``classes_`` say which column
is which class, and a DataFrame's columns are found by their names. Over labels, y is 0/1 or probabilities,
(n,) or (n, L).

Scorers take log-probabilities from ``predict_log_proba`` where the estimator has it, else logarithms of
``predict_proba``. Nothing is clipped: a certain wrong answer of an estimator of this package costs its logit,
and a probability of 0 for what is true costs infinity. A label that training did not have is a ValueError,
as there is no probability to judge: stratify the folds (`sklloss.model_selection.StratifiedSoftKFold`), or
give y as class probabilities, whose columns name every class.

>>> from sklearn.datasets import load_iris
>>> from sklearn.model_selection import cross_val_score
>>> from sklloss import SoftmaxClassifier, metrics
>>> X, y = load_iris(return_X_y=True)
>>> scores = cross_val_score(SoftmaxClassifier(), X, y, scoring=metrics.neg_cross_entropy)
>>> bool((scores > -0.3).all())
True
"""

from sklloss.metrics._functions import (
    argmax_accuracy_score,
    brier_score_loss,
    cross_entropy_loss,
    kl_divergence_loss,
    log_loss,
)
from sklloss.metrics._scorers import (
    argmax_accuracy,
    neg_brier_score,
    neg_cross_entropy,
    neg_kl_divergence,
    neg_log_loss,
)

__all__ = [
    "argmax_accuracy",
    "argmax_accuracy_score",
    "brier_score_loss",
    "cross_entropy_loss",
    "kl_divergence_loss",
    "log_loss",
    "neg_brier_score",
    "neg_cross_entropy",
    "neg_kl_divergence",
    "neg_log_loss",
]
