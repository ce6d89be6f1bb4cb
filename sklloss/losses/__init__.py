"""Losses: what a model is trained to make small.

A loss is an immutable object that is called with targets and the model's raw output, the output before the
link (logits, for the log losses). With p the prediction and y the target:

=========================  ======================  ==============================  =================  ========
loss                       target y_true           loss of one output or row       gradient by raw    link
=========================  ======================  ==============================  =================  ========
`LogLoss`                  labels or probabilities -y log p - (1 - y) log(1 - p)   p - y              sigmoid
                           in [0, 1], as raw
`CrossEntropy`             codes (n,), or class    -sum_k y_k log p_k              p - y              softmax
                           probabilities (n, K)
`HalfSquaredError`         values, as raw          (p - y)**2 / 2                  p - y              identity
`MeanSquaredError`         values, as raw          (p - y)**2                      2 (p - y)          identity
`RootMeanSquaredError`     values, as raw          sqrt(mean (p - y)**2), of all   (p - y) / (N loss) identity
=========================  ======================  ==============================  =================  ========

``loss(y, raw, sample_weight=None)`` is the weighted mean over rows. A row of the log losses costs the sum
over its outputs, a row of the regression losses the mean; N is the number of rows times outputs.
``loss.gradient`` is the derivative of that mean, ``loss.value_and_gradient`` both, ``loss.per_sample`` the
loss of each row and ``loss.predict`` the inverse link.

NumPy arrays run compiled kernels. Any other array API namespace runs the same formula where the arrays live,
and torch's autograd differentiates it, so that a loss serves as the criterion of a torch training loop.

`Loss` says how to write one's own. `get` turns a name into a loss, `names` lists the names.

>>> from sklloss import losses
>>> losses.names()
['cross_entropy', 'log_loss', 'mean_squared_error', 'root_mean_squared_error', 'squared_error']
>>> losses.get("cross_entropy") == losses.CrossEntropy(label_smoothing=0)
True
"""

from sklloss.losses._base import Loss
from sklloss.losses._cross_entropy import CrossEntropy
from sklloss.losses._log_loss import LogLoss
from sklloss.losses._registry import get, names
from sklloss.losses._squared_error import HalfSquaredError, MeanSquaredError, RootMeanSquaredError

__all__ = [
    "CrossEntropy",
    "HalfSquaredError",
    "LogLoss",
    "Loss",
    "MeanSquaredError",
    "RootMeanSquaredError",
    "get",
    "names",
]
