"""Losses: what training minimises.

A loss is an immutable object that is called with targets and the model's raw output, before the inverse link
(logits, for the log losses).

>>> from sklloss import losses
>>> losses.Huber(delta=1.0)([0.0, 0.0], [0.5, 10.0])
4.8125

Which loss for which target
---------------------------
====================================================  ====================  ================================
what y is, or what is wanted of it                    range of y            loss
====================================================  ====================  ================================
one of two classes, or the probability of the second  [0, 1]                `LogLoss`
several labels that may hold together                 [0, 1]                `LogLoss`
a label to decide on, without a probability           0 or 1                `SquaredHinge`
one of K classes, or a probability of each            codes, rows sum to 1  `CrossEntropy`
classes that are to be ranked, many rows being easy   as of the two above   `Focal`, `SoftmaxFocal`
one of K classes, some of the labels being wrong      codes, rows sum to 1  `GeneralizedCrossEntropy`
a value: its mean                                     finite                `HalfSquaredError`,
                                                                            `MeanSquaredError`
its mean, the loss being in the unit of y             finite                `RootMeanSquaredError`
a value, some of them grossly wrong                   finite                `Huber`, `LogCosh`
its median                                            finite                `AbsoluteError`
a quantile; two of them bound an interval             finite                `Quantile`
a count or a rate                                     finite, >= 0          `Poisson`
an amount whose spread grows with it                  finite, > 0           `Gamma`
such an amount, often 0                               finite, >= 0          `Tweedie`
====================================================  ====================  ================================

Formulas
--------
With z = raw, d = z - y, p the prediction and q = 1 - p, the loss of one output, or of a row where it is a sum
over k:

=========================  =====================================  ==========================  ========  =====
loss                       formula                                gradient by z               link      notes
=========================  =====================================  ==========================  ========  =====
`LogLoss`                  -y log p - (1 - y) log q               p - y                       logit     c b
`CrossEntropy`             -sum_k y_k log p_k                     p - y                       softmax   c b
`Focal`                    -y q**g log p - (1 - y) p**g log q     (1 - y) p**g (p - g q       logit     b
                                                                  log q) - y q**g (q - g p
                                                                  log p)
`SoftmaxFocal`             -sum_k y_k (1 - p_k)**g log p_k        p_j sum_k y_k h_k -         softmax   b
                                                                  y_j h_j
`GeneralizedCrossEntropy`  sum_k y_k (1 - p_k**q) / q             p_j sum_k y_k p_k**q -      softmax   b
                                                                  y_j p_j**q
`SquaredHinge`             max(0, 1 - s z)**2,                    -2 s max(0, 1 - s z)        identity  c
                           s = 2 y - 1
`HalfSquaredError`         d**2 / 2                               d                           identity  c
`MeanSquaredError`         d**2                                   2 d                         identity  c
`RootMeanSquaredError`     sqrt(mean d**2), of all rows           d / (N loss)                identity  c
`AbsoluteError`            abs(d)                                 sign(d)                     identity  c b
`Huber`                    d**2 / 2; beyond delta,                d, cut to [-delta, delta]   identity  c b
                           delta (abs(d) - delta / 2)
`Quantile`                 max((1 - t) d, -t d)                   1 - t if d > 0,             identity  c b
                                                                  -t if d < 0
`LogCosh`                  log(cosh(d))                           tanh(d)                     identity  c b
`Poisson`                  p - y z                                p - y                       log       c
`Gamma`                    z + y / p                              1 - y / p                   log       c
`Tweedie`                  p**a / a + y p**-b / b                 p**a - y p**-b              log       c
=========================  =====================================  ==========================  ========  =====

c: convex in z. b: robust, the gradient is bounded. g is gamma, t the quantile, a = 2 - power, b = power - 1,
N the number of rows times outputs and ``h_k = (1 - p_k)**(g - 1) (1 - p_k - g p_k log p_k)``; in the row of
`GeneralizedCrossEntropy` q is its parameter. `Loss.predict` applies the inverse of the link: the sigmoid for
the logit, exp for the logarithm. A softmax takes all scores of a row. Each class names its source.

``loss(y, raw, sample_weight=None)`` is the weighted mean over rows. A row of the log losses costs the sum
over its outputs, a row of the regression losses the mean. ``loss.gradient`` is the derivative of that mean,
``loss.value_and_gradient`` both, ``loss.hessian_product`` the second derivative times a direction,
``loss.per_sample`` the loss of each row and ``loss.predict`` the prediction. Nothing is clipped: a certain
wrong answer costs its logit, and for infinite scores each class states its answer.

NumPy arrays run compiled kernels. Any other array API namespace runs the same formula where the arrays live,
and torch's autograd differentiates it, so that a loss serves as the criterion of a torch training loop.

A loss is not a metric
----------------------
Training minimises a loss plus a penalty, so the loss needs a gradient. A metric is reported for rows that
training has not seen: any number that matters where the model is used, with a gradient or, like accuracy,
without one. Log losses, squared and absolute errors serve as both. Values of two losses are not comparable,
nor are those of one loss with two parameters (gamma, delta, label smoothing): compare models that were
trained on different losses by one metric. The least loss need not be 0: that of `CrossEntropy` is the entropy
of the targets, and `Poisson` and `Gamma` omit the terms in y alone and may be negative. `sklloss.metrics` has
metrics for targets that are probabilities.

Outliers
--------
The influence of a row on the model is its gradient. It is unbounded in the squared errors, and at most delta
in `Huber`, 1 in `AbsoluteError` and `LogCosh`, max(t, 1 - t) in `Quantile`. One row with an error of 1000 has
the influence of 1000 rows with an error of 1 in the squared errors, `RootMeanSquaredError` included, and of
one of them in the absolute error. In `LogLoss` and `CrossEntropy` the influence of a wrong label is at most
1; in `GeneralizedCrossEntropy` it falls as the model becomes more certain that the label is wrong. In
`Poisson` it is ``p - y``, in `Gamma` ``1 - y / p``, and neither is bounded for a large y. No loss is robust
to outliers in X.

Class imbalance
---------------
`LogLoss` and `CrossEntropy` estimate probabilities as they are in the data: those of a rare class are small,
and rightly so. If missing that class costs more, move the threshold of the decision or weight its rows:
weights w_1 and w_0 multiply the predicted odds of the best model by w_1 / w_0. `Focal` gives less weight to
easy rows, and so to most rows of a common class. It biases predictions towards 1/2: at gamma = 2, a label
that is true in 9 of 10 equal rows gets 0.69. Such predictions rank the rows, but are not probabilities unless
calibrated.

Names, functions and custom losses
----------------------------------
`get` turns a name into a loss, `names` lists the names. `entropy`, `cross_entropy` and `kl_divergence` take
probabilities instead of scores. `Loss` explains how to write a custom loss, which every estimator accepts.

>>> losses.names()  # doctest: +NORMALIZE_WHITESPACE
['absolute_error', 'cross_entropy', 'focal', 'gamma', 'generalized_cross_entropy', 'huber', 'log_cosh',
 'log_loss', 'mean_squared_error', 'poisson', 'quantile', 'root_mean_squared_error', 'squared_error',
 'squared_hinge', 'tweedie']
>>> losses.get("cross_entropy") == losses.CrossEntropy(label_smoothing=0)
True
"""

from sklloss.losses._base import Loss, get, names
from sklloss.losses._classification import CrossEntropy, GeneralizedCrossEntropy, LogLoss, SquaredHinge
from sklloss.losses._exponential_family import Gamma, Poisson, Tweedie
from sklloss.losses._focal import Focal, SoftmaxFocal
from sklloss.losses._information import cross_entropy, entropy, kl_divergence
from sklloss.losses._regression import (
    AbsoluteError,
    HalfSquaredError,
    Huber,
    LogCosh,
    MeanSquaredError,
    Quantile,
    RootMeanSquaredError,
)

__all__ = [
    "AbsoluteError",
    "CrossEntropy",
    "Focal",
    "Gamma",
    "GeneralizedCrossEntropy",
    "HalfSquaredError",
    "Huber",
    "LogCosh",
    "LogLoss",
    "Loss",
    "MeanSquaredError",
    "Poisson",
    "Quantile",
    "RootMeanSquaredError",
    "SoftmaxFocal",
    "SquaredHinge",
    "Tweedie",
    "cross_entropy",
    "entropy",
    "get",
    "kl_divergence",
    "names",
]
