"""The multi-layer perceptrons: how each reads y and chooses its loss."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sklloss import losses
from sklloss._base import with_callbacks
from sklloss._class_predictions import ClassPredictions, accuracy
from sklloss.arrays.device import to_device
from sklloss.data.checks import (
    Array,
    ClassWeight,
    MatrixLike,
    check_choice,
    check_real,
    check_same_device,
    check_weight,
    on_host,
)
from sklloss.data.dataset import (
    Labels,
    add_offset,
    check_data,
    check_stream_data,
    check_validation_data,
)
from sklloss.data.targets import (
    check_class_stream,
    check_regression_loss,
    code_classes,
    code_values,
    is_label_column,
    scored_classes,
)
from sklloss.losses import CrossEntropy, Focal, LogLoss, Loss
from sklloss.mlp.base import BaseMLP, check_partial_fit, link_name
from sklloss.objectives.classification import bind_loss, check_classification_loss, has_custom_link

__all__ = ["MLPClassifier", "MLPRegressor"]

OUTPUTS = ("auto", "softmax", "sigmoid")


class MLPClassifier(ClassPredictions, ClassifierMixin, BaseMLP):
    """Multi-layer perceptron classifier, a drop-in for ``sklearn.neural_network.MLPClassifier``.

    With the same ``random_state`` it starts from the same weights and visits the same batches as
    scikit-learn, so the results agree up to rounding, except for the differences listed in the notes.

    Parameters
    ----------
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
        Number of units of each hidden layer; empty for a linear model.
    activation : {"identity", "logistic", "tanh", "relu", "gelu", "silu", "elu"}, default="relu"
        Activation of the hidden layers.
    solver : {"adam", "adamw", "sgd", "lbfgs"}, default="adam"
        "adam", "adamw" and "sgd" take one step per batch of rows. "lbfgs" takes one step per pass over all
        rows, which suits small data sets.
    alpha : float, default=0.0001
        Strength of the L2 penalty: alpha / 2 times the sum of the squared weights (biases are not penalised),
        divided by the sum of the sample weights of a batch, is added to the loss of the batch. With "adamw"
        there is no such term; instead, each step shrinks the weights by the fraction
        ``learning rate * alpha``.
    batch_size : int, default="auto"
        Rows per batch; "auto" is ``min(200, n_samples)``. A value larger than the number of rows is clipped,
        with a warning.
    learning_rate : {"constant", "invscaling", "adaptive", "cosine", "one-cycle"}, default="constant"
        "invscaling" and "adaptive" apply to "sgd" only: "invscaling" divides ``learning_rate_init`` by
        ``t_ ** power_t`` after each epoch, "adaptive" divides the rate by 5 each time that progress stalls,
        down to 1e-6. "cosine" and "one-cycle" apply to every stochastic solver and change the rate from batch
        to batch over ``max_iter`` epochs; see the notes of `MLPRegressor`.
    learning_rate_init : float, default=0.001
        The initial learning rate; with "cosine" and "one-cycle" the highest one. `find_learning_rate`
        suggests a value.
    power_t : float, default=0.5
        Exponent of "invscaling". Only used by "sgd".
    max_iter : int, default=200
        Maximum number of epochs, or of iterations of "lbfgs".
    shuffle : bool, default=True
        Whether to visit the rows in a new order in each epoch.
    random_state : int, RandomState or None, default=None
        Draws the initial weights, then the validation split, then the order of the rows in each epoch.
    tol : float, default=1e-4
        An epoch that does not lower the training loss (with ``early_stopping``: does not raise the validation
        score) by at least this much counts as one without improvement. "lbfgs" stops when no component of the
        gradient exceeds it.
    verbose : bool, default=False
        Whether to print the loss after each epoch.
    warm_start : bool, default=False
        Whether `fit` continues from the weights of the previous call, with the same classes.
    momentum : float, default=0.9
        Only used by "sgd".
    nesterovs_momentum : bool, default=True
        Only used by "sgd".
    early_stopping : bool, "loss", str or callable, default=False
        Whether the stochastic solvers stop when predictions for held-out rows no longer improve, and keep the
        weights of the best epoch. True monitors accuracy, "loss" the validation loss. Anything else is
        a scorer: its name in scikit-learn, or a function ``scorer(estimator, X, y)`` whose result is better
        the greater it is. A scorer is passed NumPy arrays, and weights if it accepts ``sample_weight``. The
        held-out rows are ``X_val`` of `fit` if given, else a ``validation_fraction`` of the training
        rows, as scikit-learn draws it: stratified for two classes.
    validation_fraction : float, default=0.1
        Only used with ``early_stopping`` and without ``X_val``.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay rates of the first and second moments in "adam" and "adamw".
    epsilon : float, default=1e-8
        Added to the square root of the second moment in "adam" and "adamw".
    n_iter_no_change : int, default=10
        Training stops after more than this many epochs without improvement; may be ``np.inf``.
    max_fun : int, default=15000
        Maximum number of loss evaluations. Only used by "lbfgs".
    loss : str or Loss, default="auto"
        "auto" is the cross-entropy of a softmax ("cross_entropy") or the log loss of each sigmoid
        ("log_loss"), depending on the outputs. "focal" is the focal loss of either, with gamma = 2. Any
        `sklloss.losses.Loss` that the linear classifiers accept is accepted too.
    output : {"auto", "softmax", "sigmoid"}, default="auto"
        Whether the outputs are the classes of one softmax or independent sigmoids. It also determines which
        targets y may hold, see the notes.
    class_weight : dict, "balanced", list of these or None, default=None
        Weights by class label, which multiply ``sample_weight``; "balanced" gives every class the same total
        weight. For a multi-label y, a list may hold one entry (over 0 and 1) per label. A soft label counts
        as the mixture of classes that it describes.
    label_smoothing : float, default=0.0
        In [0, 1): targets become ``y * (1 - label_smoothing) + label_smoothing / K``, for any loss, with
        K = 2 for sigmoids.
    warmup_fraction : float, default=None
        The fraction of the training during which the rate of "cosine" or "one-cycle" rises; None is 0.05 for
        "cosine" and 0.3 for "one-cycle".
    n_threads : int or None, default=None
        Number of threads; None uses what OMP_NUM_THREADS or the machine allows. Results are the same bits for
        any number.
    device : None, str or torch.device, default=None
        Where to compute; None is where X lives. "cuda", "cuda:1", "mps" and so on move NumPy arrays, data
        frames and CSR matrices to that device once, using PyTorch, and the fitted attributes back; batches of
        CSR rows are made dense there. "cpu" is NumPy, which also reads tensors in main memory in place; a
        ``torch.device`` always selects PyTorch.
    device_dtype : {"float32", "float64"}, default="float32"
        What to compute in when ``device`` moves NumPy arrays. A device without float64 uses float32.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted class labels. For a matrix of class probabilities, the sorted column names of a DataFrame
        (columns are reordered to match), else 0 to K - 1; for a multi-label y 0 to L - 1. Numbers live where
        X does.
    coefs_ : list of ndarray
        ``coefs_[i]``, of shape (inputs, outputs), are the weights of layer i. If X is not a NumPy array,
        weights and biases are arrays of its namespace, on its device.
    intercepts_ : list of ndarray
        The biases of each layer.
    loss_ : float
        The training loss of the last epoch, penalty included: the mean over its batches of the loss
        before each step. With "lbfgs" the final objective.
    best_loss_ : float or None
        The lowest of ``loss_curve_`` and ``loss_``; None with ``early_stopping``.
    loss_curve_ : list of float
        ``loss_`` after each epoch, or each iteration of "lbfgs".
    validation_loss_curve_ : list of float or None
        The loss on the validation rows after each epoch, without the penalty and class weights; NaN for
        epochs of earlier calls without validation rows. None without validation.
    validation_scores_ : list of float or None
        What ``early_stopping`` monitors, after each epoch; greater is better, so for "loss" it is the negated
        validation loss. None without ``early_stopping``.
    best_validation_score_ : float or None
        The highest of ``validation_scores_``. After a warm start that found nothing better, the score of the
        weights that it started from.
    best_iter_ : int
        The epoch whose weights were kept, counted from 1 along ``loss_curve_``: the best one with
        ``early_stopping``, else the last one; 0 if "lbfgs" took no iteration.
    n_iter_ : int
        Epochs (or iterations) of the last call.
    t_ : int
        Rows seen in training, over all epochs.
    n_layers_, n_outputs_ : int
        Two classes have one output.
    out_activation_ : str
        "softmax" or "logistic"; for a loss with another inverse link, the name of that link, as in
        `MLPRegressor`.
    solver_ : str
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    See Also
    --------
    MLPRegressor : Its notes describe learning rate schedules, what ``random_state`` draws in which order, and
        interrupted training; all of it applies here too.

    Notes
    -----
    ``y`` may hold:

    - labels of any type, of shape (n,). The outputs are a softmax, or with ``output="sigmoid"`` one-vs-rest
      sigmoids; two classes are one sigmoid either way;
    - a 0/1 matrix (n, L) of labels that do not exclude each other (multi-label), unless ``output="softmax"``;
    - with ``output="softmax"`` class probabilities (n, K), one-hot rows included; each row must sum to 1;
    - with ``output="sigmoid"`` probabilities of independent labels, (n, L) in [0, 1];
    - probabilities (n,) in [0, 1] of the second of two classes.

    Where this differs from scikit-learn 1.9:

    - Probabilities are not clipped, neither in the loss nor in `predict_log_proba`: a confident wrong
      prediction costs the full logit.
    - A y with only one class is an error.
    - Rows of weight 0 are dropped before batches are formed, so they have no effect at all.
    - Predictions for a sparse multi-label y are dense.
    - An epoch whose validation score is NaN counts as one without improvement.
    - Training that continues (``warm_start``, `partial_fit`) keeps the dtype of the fitted weights and uses
      changed parameters. A changed ``solver`` restarts the optimiser, a changed ``learning_rate`` or
      ``learning_rate_init`` resets a rate that has been lowered, and a changed ``loss`` or
      ``label_smoothing`` starts new loss curves.

    If the loss is linear in y, as the cross-entropy, log and focal losses are, a row of probabilities is
    equivalent to one row per class weighted by them, provided that those rows are in the same batch and the
    batches are averaged.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from sklloss import MLPClassifier
    >>> X, y = make_classification(n_samples=100, random_state=1)
    >>> model = MLPClassifier(random_state=1, max_iter=300).fit(X, y)
    >>> model.predict_proba(X[:2]).shape
    (2, 2)
    """

    classes_: Array

    def __init__(
        self,
        hidden_layer_sizes: ArrayLike = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool | str | Callable[..., float] = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        loss: str | Loss = "auto",
        output: str = "auto",
        class_weight: ClassWeight = None,
        label_smoothing: float = 0.0,
        warmup_fraction: float | None = None,
        n_threads: int | None = None,
        device: Any = None,
        device_dtype: str = "float32",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.loss = loss
        self.output = output
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.warmup_fraction = warmup_fraction
        self.n_threads = n_threads
        self.device = device
        self.device_dtype = device_dtype

    @available_if(check_partial_fit)
    def partial_fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch over the given rows, continuing where the last call left off.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
        y : array-like
            As for `fit`.
        sample_weight : array-like of shape (n,), optional
        classes : array-like of shape (n_classes,), optional
            All labels that will ever occur. Required in the first call if y holds labels (n,). If y is a
            matrix, they name its columns, and must be sorted unless the columns of y carry the same names.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As by `fit`; or if ``classes`` is missing in the first call, or y has other classes.
        """
        return self._train_one_epoch(X, y, sample_weight, classes)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _fit_data(self, X, y, sample_weight, validation, first):
        """See `BaseMLP._fit_data`; the class attributes are set, too."""
        known = {}
        if not first and not is_label_column(y):
            known = {"kind": self._kind, "classes": self._labels()}
        data = check_data(self, X, y, sample_weight, self._coder(self.class_weight, **known), reset=first)
        if not first:
            self._check_same_classes(data.labels)
        code = self._coder(None, kind=data.labels.kind, classes=data.labels.classes)
        held_out = check_validation_data(self, *validation, code, data)
        unweighted = None
        if held_out is not None:
            if held_out.labels.kind != data.labels.kind:
                raise ValueError(f"y_val is {held_out.labels.kind}, but y is {data.labels.kind}")
        elif self.early_stopping and self.class_weight is not None:
            weight = check_weight(sample_weight, data.n, data.dtype)
            unweighted = code(dataclasses.replace(data, weight=weight), y, name="y")
        self._set_classes(data.labels, data.origin.device)
        return data, held_out, unweighted

    def _stream_data(self, X, y, sample_weight, classes, first):
        """See `BaseMLP._stream_data`; the class attributes are set, too."""
        labels = None if first else Labels(self._kind, self._labels())
        learned = None if first else self._model_array()
        data = check_class_stream(self, X, y, sample_weight, classes, self._coder, labels, learned)
        self._set_classes(data.labels, data.origin.device)
        return data, None, None

    def _check_parameters(self):
        check_choice("output", self.output, OUTPUTS)
        check_real("label_smoothing", self.label_smoothing, 0, 1, open_high=True)
        if not isinstance(self.loss, str) or self.loss != "auto":
            losses.get(self.loss)
        return super()._check_parameters()

    def _coder(self, class_weight, *, kind=None, classes=None):
        """A function that codes targets; ``kind`` and ``classes`` are what they must have, if known."""
        scored = self._monitor().scorer is not None

        def code(data, y, name):
            data = code_classes(
                data, y, self.output, class_weight=class_weight, kind=kind, classes=classes, name=name
            )
            y = scored_classes(y, data.n, data.labels) if scored else _likeliest(data)
            return dataclasses.replace(data, y=y)

        return code

    def _check_same_classes(self, labels):
        """Raise scikit-learn's error if a warm start is asked to continue with other classes."""
        if labels.kind == self._kind and (
            labels.kind == "multilabel" or np.array_equal(labels.classes, self._labels())
        ):
            return
        raise ValueError(
            "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
            f"Previously got {self._labels()} ({self._kind}), `y` has {labels.classes} ({labels.kind})"
        )

    def _loss(self, kind):
        """The loss for targets of this kind, and whether it is over the classes of one softmax."""
        softmax = kind in ("binary", "softmax") and self.output != "sigmoid"
        if isinstance(self.loss, str) and self.loss == "auto":
            loss = CrossEntropy() if softmax else LogLoss()
        else:
            loss = losses.get(self.loss)
        if kind == "softmax" and isinstance(loss, LogLoss):
            raise ValueError(
                f"loss={self.loss!r} is for independent sigmoids, but each row of y has one of several "
                "classes; use loss='auto' or loss='cross_entropy', or output='sigmoid'"
            )
        return check_classification_loss(
            loss, self.label_smoothing, softmax=softmax, one_softmax="output='softmax'"
        ), softmax

    def _bind(self, data, name="y"):
        loss, softmax = self._loss(data.labels.kind)
        loss, data = bind_loss(loss, data, self.label_smoothing, softmax=softmax, name=name)
        if data.codes is not None and loss.target != "classes":
            values = data.codes[:, None] == np.arange(data.outputs)
            data = dataclasses.replace(data, values=values.astype(data.dtype), codes=None)
        return loss, data

    def _strata(self, data):
        """The classes whose shares a validation split preserves: only for hard labels of two classes."""
        hard = data.labels.kind == "binary" and bool(np.isin(data.values, (0, 1)).all())
        return _likeliest(data) if hard else None

    def _set_classes(self, labels, device):
        loss, softmax = self._loss(labels.kind)
        self.classes_ = to_device(labels.classes, device)
        self._kind = labels.kind
        plain = labels.kind == "binary" and isinstance(loss, (LogLoss, Focal))
        self._link = self.loss if has_custom_link(loss, softmax=softmax) and not plain else None

    def _loss_key(self):
        return (self.loss, self.label_smoothing)

    def _has_same_loss(self):
        return self._trained_on == self._loss_key()

    def _of_scores(self, function, X):
        if self._kind == "binary":
            return self._of_outputs(lambda raw: function(raw[:, 0]), X)
        return self._of_outputs(function, X)

    def _on_host(self, objective):
        return {**super()._on_host(objective), "classes_": self._labels()}

    def _learned(self, parameters, **model):
        classes = {"classes_": self.classes_, "_kind": self._kind, "_link": self._link}
        return {**super()._learned(parameters, **model), **classes}

    def _output_activation(self, loss):
        if self._link is not None or not loss.has_probabilities:
            return link_name(loss)
        return "softmax" if self._kind == "softmax" else "logistic"

    def _validation_score(self, held_out, loss, raw):
        """Accuracy on the held-out rows; NaN if any score is not finite."""
        if not np.isfinite(raw).all():
            return float("nan")
        predicted = self._choose(raw[:, 0] if self._kind == "binary" else raw)
        return accuracy(predicted, held_out.y, held_out.weight)


def _likeliest(data):
    """The code of the likeliest class of each row, or a 0/1 row of its likely labels."""
    if data.labels.kind in ("binary", "multilabel"):
        likely = (data.values > 0.5).astype(int)
        return likely[:, 0] if data.labels.kind == "binary" else likely
    return data.values.argmax(axis=1) if data.codes is None else data.codes


class MLPRegressor(RegressorMixin, BaseMLP):
    """Multi-layer perceptron regressor, a drop-in for ``sklearn.neural_network.MLPRegressor``.

    With the same ``random_state`` it starts from the same weights and visits the same batches as
    scikit-learn, so the results agree up to rounding, except for the differences listed in the notes.

    Parameters
    ----------
    loss : str or Loss, default="squared_error"
        The loss to minimise: "squared_error" (half the square, as in scikit-learn), "mean_squared_error" (the
        square), "root_mean_squared_error" (the root of each batch's mean), "absolute_error", "huber",
        "quantile" (the median), "log_cosh", "poisson" or "gamma"; or a `sklloss.losses.Loss` with parameters
        of its own, such as ``Quantile(0.9)``. "poisson" requires y >= 0 and "gamma" y > 0, and both predict
        ``exp(raw)``. A loss over probabilities (``LogLoss()``) takes y in [0, 1] and predicts
        ``sigmoid(raw)``.
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
        Number of units of each hidden layer; empty for a linear model.
    activation : {"identity", "logistic", "tanh", "relu", "gelu", "silu", "elu"}, default="relu"
        Activation of the hidden layers.
    solver : {"adam", "adamw", "sgd", "lbfgs"}, default="adam"
        "adam", "adamw" and "sgd" take one step per batch of rows. "lbfgs" takes one step per pass over all
        rows, which suits small data sets.
    alpha : float, default=0.0001
        Strength of the L2 penalty: alpha / 2 times the sum of the squared weights (biases are not penalised),
        divided by the sum of the sample weights of a batch, is added to the loss of the batch. With "adamw"
        there is no such term; instead, each step shrinks the weights by the fraction
        ``learning rate * alpha``.
    batch_size : int, default="auto"
        Rows per batch; "auto" is ``min(200, n_samples)``. A value larger than the number of rows is clipped,
        with a warning.
    learning_rate : {"constant", "invscaling", "adaptive", "cosine", "one-cycle"}, default="constant"
        "invscaling" and "adaptive" apply to "sgd" only: "invscaling" divides ``learning_rate_init`` by
        ``t_ ** power_t`` after each epoch, "adaptive" divides the rate by 5 each time that progress stalls,
        down to 1e-6. "cosine" and "one-cycle" apply to every stochastic solver and change the rate from batch
        to batch over ``max_iter`` epochs; see the notes.
    learning_rate_init : float, default=0.001
        The initial learning rate; with "cosine" and "one-cycle" the highest one. `find_learning_rate`
        suggests a value.
    power_t : float, default=0.5
        Exponent of "invscaling". Only used by "sgd".
    max_iter : int, default=200
        Maximum number of epochs, or of iterations of "lbfgs".
    shuffle : bool, default=True
        Whether to visit the rows in a new order in each epoch.
    random_state : int, RandomState or None, default=None
        Draws the initial weights, then the validation split, then the order of the rows in each epoch.
    tol : float, default=1e-4
        An epoch that does not lower the training loss (with ``early_stopping``: does not raise the validation
        score) by at least this much counts as one without improvement. "lbfgs" stops when no component of the
        gradient exceeds it.
    verbose : bool, default=False
        Whether to print the loss after each epoch.
    warm_start : bool, default=False
        Whether `fit` continues from the weights of the previous call.
    momentum : float, default=0.9
        Only used by "sgd".
    nesterovs_momentum : bool, default=True
        Only used by "sgd".
    early_stopping : bool, "loss", str or callable, default=False
        Whether the stochastic solvers stop when predictions for held-out rows no longer improve, and keep the
        weights of the best epoch. True monitors R², "loss" the validation loss. Anything else is
        a scorer: its name in scikit-learn, or a function ``scorer(estimator, X, y)`` whose result is better
        the greater it is. A scorer is passed NumPy arrays, and weights if it accepts ``sample_weight``. The
        held-out rows are ``X_val`` of `fit` if given, else a ``validation_fraction`` of the training
        rows.
    validation_fraction : float, default=0.1
        Only used with ``early_stopping`` and without ``X_val``.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay rates of the first and second moments in "adam" and "adamw".
    epsilon : float, default=1e-8
        Added to the square root of the second moment in "adam" and "adamw".
    n_iter_no_change : int, default=10
        Training stops after more than this many epochs without improvement; may be ``np.inf``.
    max_fun : int, default=15000
        Maximum number of loss evaluations. Only used by "lbfgs".
    warmup_fraction : float, default=None
        The fraction of the training during which the rate of "cosine" or "one-cycle" rises; None is 0.05 for
        "cosine" and 0.3 for "one-cycle".
    n_threads : int or None, default=None
        Number of threads; None uses what OMP_NUM_THREADS or the machine allows. Results are the same bits for
        any number.
    device : None, str or torch.device, default=None
        Where to compute; None is where X lives. "cuda", "cuda:1", "mps" and so on move NumPy arrays, data
        frames and CSR matrices to that device once, using PyTorch, and the fitted attributes back; batches of
        CSR rows are made dense there. "cpu" is NumPy, which also reads tensors in main memory in place; a
        ``torch.device`` always selects PyTorch.
    device_dtype : {"float32", "float64"}, default="float32"
        What to compute in when ``device`` moves NumPy arrays. A device without float64 uses float32.

    Attributes
    ----------
    coefs_ : list of ndarray
        ``coefs_[i]``, of shape (inputs, outputs), are the weights of layer i. If X is not a NumPy array,
        weights and biases are arrays of its namespace, on its device.
    intercepts_ : list of ndarray
        The biases of each layer.
    loss_ : float
        The training loss of the last epoch, penalty included: the mean over its batches of the loss
        before each step. With "lbfgs" the final objective.
    best_loss_ : float or None
        The lowest of ``loss_curve_`` and ``loss_``; None with ``early_stopping``.
    loss_curve_ : list of float
        ``loss_`` after each epoch, or each iteration of "lbfgs".
    validation_loss_curve_ : list of float or None
        The loss on the validation rows after each epoch, without the penalty; NaN for
        epochs of earlier calls without validation rows. None without validation.
    validation_scores_ : list of float or None
        What ``early_stopping`` monitors, after each epoch; greater is better, so for "loss" it is the negated
        validation loss. None without ``early_stopping``.
    best_validation_score_ : float or None
        The highest of ``validation_scores_``. After a warm start that found nothing better, the score of the
        weights that it started from.
    best_iter_ : int
        The epoch whose weights were kept, counted from 1 along ``loss_curve_``: the best one with
        ``early_stopping``, else the last one; 0 if "lbfgs" took no iteration.
    n_iter_ : int
        Epochs (or iterations) of the last call.
    t_ : int
        Rows seen in training, over all epochs.
    n_layers_, n_outputs_ : int
    out_activation_ : str
        The name of the loss's inverse link: "identity", "exp" or "logistic"; for a link that scikit-learn
        does not have, the class name of the loss.
    solver_ : str
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Notes
    -----
    Learning rate schedules, as factors of ``learning_rate_init``: "cosine" rises linearly during the warm-up
    and then falls as ``(1 + cos(pi * t)) / 2`` for t from 0 to 1 [1]_. "one-cycle" rises from 1/25 and falls
    to 1/250000, both along half a cosine, like torch's ``OneCycleLR``, with constant momentum [2]_. Each call
    of `fit` starts its schedule anew, also with ``warm_start``. Training may stall and stop before the end of
    the schedule; ``n_iter_no_change=np.inf`` runs it to its end, without a ConvergenceWarning. `partial_fit`
    is not available with either, since it does not know how many epochs will follow.

    ``random_state`` draws, in this order: the weights and biases of each layer; the split of
    ``train_test_split``, if one is needed; and for each epoch a permutation of the order of the previous
    epoch, as ``sklearn.utils.shuffle`` does. The same integer gives the same bits on one machine. As in
    scikit-learn, an integer draws the same permutation in every call of `partial_fit`.

    Interrupted training: if the loss or the weights become NaN or infinite, a ValueError names the epoch;
    with ``early_stopping`` the estimator then has the best weights so far, otherwise it is unchanged. Ctrl-C
    raises KeyboardInterrupt; with ``warm_start`` the estimator then has the weights of the last complete
    epoch (with ``early_stopping`` of the best one), otherwise it is unchanged. A later `partial_fit` restarts
    the optimiser. Any other error leaves the estimator unchanged.

    A warm start with ``early_stopping`` and ``X_val`` first scores the weights that it starts from, and keeps
    them if no epoch is better on these rows. Without ``X_val`` the best score of the last call remains the
    one to beat, as in scikit-learn, although other rows may have been split off.

    scikit-learn's callbacks (``set_callbacks``, from 1.9 on) are called around each epoch of `fit`, or each
    iteration of "lbfgs", and may stop the training.

    Where this differs from scikit-learn 1.9:

    - The loss of several outputs is their mean, in the gradient as in the reported value; scikit-learn
      reports the mean but descends along the gradient of the sum. With T outputs, scikit-learn's steps are
      those of ``alpha / T`` and (for "sgd") ``T * learning_rate_init`` here.
    - "poisson" omits the terms that depend on y alone, which scikit-learn's ``loss_`` contains; the fit is
      the same.
    - Rows of weight 0 are dropped before batches are formed, so they have no effect at all.
    - An epoch whose validation score is NaN counts as one without improvement.
    - Training that continues (``warm_start``, `partial_fit`) keeps the dtype of the fitted weights and uses
      changed parameters. A changed ``solver`` restarts the optimiser, a changed ``learning_rate`` or
      ``learning_rate_init`` resets a rate that has been lowered, and a changed ``loss`` starts new loss
      curves.

    References
    ----------
    .. [1] Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
    .. [2] Smith and Topin, "Super-convergence: very fast training of neural networks using large learning
       rates", 2018.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklloss import MLPRegressor
    >>> X, y = make_regression(n_samples=200, n_features=20, random_state=1)
    >>> model = MLPRegressor(random_state=1, max_iter=2000, tol=0.1).fit(X, y)
    >>> model.predict(X[:2]).shape
    (2,)
    """

    def __init__(
        self,
        loss: str | Loss = "squared_error",
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | RandomState | None = None,
        tol: float = 1e-4,
        verbose: int | bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool | str | Callable[..., float] = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        warmup_fraction: float | None = None,
        n_threads: int | None = None,
        device: Any = None,
        device_dtype: str = "float32",
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.warmup_fraction = warmup_fraction
        self.n_threads = n_threads
        self.device = device
        self.device_dtype = device_dtype

    @with_callbacks
    def fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        *,
        offset: ArrayLike | None = None,
        X_val: MatrixLike | None = None,
        y_val: MatrixLike | None = None,
        sample_weight_val: ArrayLike | None = None,
        offset_val: ArrayLike | None = None,
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X, y, sample_weight : array-like
            As for `MLPClassifier.fit`.
        offset : array-like of shape (n,) or (n, outputs), default=None
            A known term that is added to the raw scores, such as the logarithm of the exposure of a count.
            Predictions then need one too.
        X_val, y_val, sample_weight_val, offset_val : array-like, default=None
            A validation set, as for `MLPClassifier.fit`; it has an offset if X has one.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is invalid; the message names it. The estimator then keeps its
            previous state.
        """
        return self._fit(
            X, y, sample_weight, (X_val, y_val, sample_weight_val), offset=offset, offset_val=offset_val
        )

    @available_if(check_partial_fit)
    def partial_fit(self, X: MatrixLike, y: MatrixLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch over the given rows, continuing where the last call left off.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
        y : array-like of shape (n,) or (n, outputs)
        sample_weight : array-like of shape (n,), optional

        Returns
        -------
        self
        """
        return self._train_one_epoch(X, y, sample_weight)

    def predict(self, X: MatrixLike, offset: ArrayLike | None = None) -> Array:
        """Predicted values.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
        offset : array-like of shape (n,) or (n, outputs), default=None
            What is added to the raw scores, before the inverse link; needed if `fit` had one.

        Returns
        -------
        ndarray of shape (n,) or (n, outputs)
        """
        check_is_fitted(self)
        check_same_device(self, X, self._model_array(), "predict")
        link = losses.get(self._link).predict
        if offset is None and not self._has_offset:
            values = self._of_outputs(link, X)
        else:
            values = link(add_offset(self, self._of_outputs(lambda raw: raw, X), offset))
        return values[:, 0] if values.shape[1] == 1 else values

    def score(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        offset: ArrayLike | None = None,
    ) -> float:
        """R², the proportion of the variance of y that the predictions explain.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
        y : array-like of shape (n,) or (n, outputs)
        sample_weight : array-like of shape (n,), optional
        offset : array-like, optional
            As for `predict`.

        Returns
        -------
        float
        """
        predicted, y = on_host(self.predict(X, offset), "X"), on_host(y, "y")
        copies = losses.get(self._link).outputs_per_target
        y = y if copies == 1 else np.repeat(np.reshape(y, (-1, 1)), copies, axis=1)
        return float(r2_score(y, predicted, sample_weight=on_host(sample_weight, "sample_weight")))

    def _fit_data(self, X, y, sample_weight, validation, first, offset=None, offset_val=None):
        code = self._coder()
        data = check_data(self, X, y, sample_weight, code, reset=first, offset=offset)
        held_out = check_validation_data(self, *validation, code, data, offset_val=offset_val)
        self._has_offset = offset is not None
        if held_out is not None and held_out.outputs != data.outputs:
            raise ValueError(f"y_val has {held_out.outputs} outputs, y has {data.outputs}")
        self._link = self.loss
        return data, held_out, None

    def _stream_data(self, X, y, sample_weight, classes, first):
        learned = None if first else self._model_array()
        if not first and self._has_offset:
            raise ValueError("partial_fit does not continue a fit with an offset")
        self._has_offset = False
        data = check_stream_data(self, X, y, sample_weight, self._coder(), learned)
        self._link = self.loss
        return data, None, None

    def _loss(self):
        """The loss; a ValueError if it is one for classification."""
        return check_regression_loss(self.loss, type(self).__name__)

    def _coder(self):
        """A function that checks targets."""
        return functools.partial(code_values, loss=self._loss())

    def _bind(self, data, name="y"):
        return self._loss(), data

    def _validation_score(self, held_out, loss, raw):
        """R² on the held-out rows; NaN if any prediction is not finite."""
        raw = raw if held_out.offset is None else raw + held_out.offset
        values = loss.predict(raw)
        if not np.isfinite(values).all():
            return float("nan")
        return float(r2_score(held_out.values, values, sample_weight=held_out.weight))
