"""Metrics and scorers for soft, one-hot and multi-label y, which scikit-learn's reject; D² of any loss.

Pass a scorer, or a dict of several, as ``scoring`` to `cross_val_score`, `cross_validate`, `GridSearchCV`,
`permutation_importance` and so on. Greater is better, so losses are negated. The function next to each scorer
works on arrays. With y the target and p the predicted probabilities:

======================  =========================  =====================================================
scorer                  function                   loss (or score) of one row
======================  =========================  =====================================================
`neg_cross_entropy`     `cross_entropy_loss`       -sum_k y_k log p_k, over classes
`neg_kl_divergence`     `kl_divergence_loss`       sum_k y_k log(y_k / p_k), over classes
`neg_log_loss`          `log_loss`                 -sum_l y_l log p_l + (1 - y_l) log(1 - p_l), over labels
`neg_brier_score`       `brier_score_loss`         sum_k (y_k - p_k)**2, over classes or labels; half of it
                                                   for two classes
`argmax_accuracy`       `argmax_accuracy_score`    1 if the predicted class (or every label) is the
                                                   most likely in y
======================  =========================  =====================================================

and a metric is the mean over rows, weighted by ``sample_weight``.

Targets: over classes, y is labels (n,) of any dtype, class probabilities (n, K), one-hot included, whose rows
sum to 1, or probabilities of the second of two classes (n,). Columns are in the order of the estimator's
``classes_``; those of a DataFrame are matched by name. Over labels, y is 0/1 or probabilities, (n,) or
(n, L).

Scorers use ``predict_log_proba`` where the estimator has it, else logarithms of ``predict_proba``. Nothing
is clipped: a confident wrong prediction of an estimator of this package costs its logit, and a probability of
0 for the true class costs infinity. A label that is missing from the training rows raises a ValueError, since
no probability was predicted for it: stratify the folds (`sklloss.model_selection.StratifiedSoftKFold`), or
pass y as class probabilities with a column for every class.

For regressions, `d2_loss` is the share of a loss that predictions explain.

>>> from sklearn.datasets import load_iris
>>> from sklearn.model_selection import cross_val_score
>>> from sklloss import SoftmaxClassifier, metrics
>>> X, y = load_iris(return_X_y=True)
>>> scores = cross_val_score(SoftmaxClassifier(), X, y, scoring=metrics.neg_cross_entropy)
>>> bool((scores > -0.3).all())
True
"""

from sklloss.metrics._d2 import d2_loss
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
    "d2_loss",
    "kl_divergence_loss",
    "log_loss",
    "neg_brier_score",
    "neg_cross_entropy",
    "neg_kl_divergence",
    "neg_log_loss",
]
