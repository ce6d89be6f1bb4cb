"""The multi-layer perceptrons: what each calls its loss and how it reads y."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sklloss import losses
from sklloss._base import FitCallbacks, unchanged_on_error, with_callbacks
from sklloss.data.checks import Array, ClassWeight, MatrixLike, check_same_device, on_host
from sklloss.data.dataset import check_data, check_stream_data, check_validation_data
from sklloss.data.targets import code_values
from sklloss.losses import Loss
from sklloss.mlp.base import BaseMLP, is_stochastic, output_activation
from sklloss.mlp.classification import BaseMLPClassifier

__all__ = ["MLPClassifier", "MLPRegressor"]


class MLPClassifier(BaseMLPClassifier):
    """Multi-layer perceptron classifier, a drop-in for ``sklearn.neural_network.MLPClassifier``.

    The same ``random_state`` starts from the same weights and visits the same batches as scikit-learn, so
    the results are the same to rounding, with the differences named in the notes.

    Parameters
    ----------
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
        Units of each hidden layer; empty for a linear model.
    activation : {"identity", "logistic", "tanh", "relu", "gelu", "silu", "elu"}, default="relu"
        Of the hidden layers.
    solver : {"adam", "adamw", "sgd", "lbfgs"}, default="adam"
        "adam", "adamw" and "sgd" take a step for each batch of rows, "lbfgs" for all rows together, which
        suits a small number of rows.
    alpha : float, default=0.0001
        Strength of the L2 penalty: alpha / 2 times the sum of squared weights (not biases), divided by the
        sum of the weights of a batch's rows, is added to its loss. With "adamw" there is no such term:
        each step takes the learning rate times alpha off a weight, as a share of it.
    batch_size : int, default="auto"
        Rows per batch; "auto" is ``min(200, n_samples)``. Larger than the number of rows is clipped, with
        a warning.
    learning_rate : {"constant", "invscaling", "adaptive", "cosine", "one-cycle"}, default="constant"
        With "sgd" alone, "invscaling" divides ``learning_rate_init`` by ``t_ ** power_t`` after each epoch,
        and "adaptive" by 5 each time that progress stalls, until 1e-6. With every stochastic solver, "cosine"
        and "one-cycle" change the rate from batch to batch over ``max_iter`` epochs; see the
        notes of `MLPRegressor`.
    learning_rate_init : float, default=0.001
        With "cosine" and "one-cycle" the highest rate. `find_learning_rate` looks for one.
    power_t : float, default=0.5
        Only used by "sgd" with "invscaling".
    max_iter : int, default=200
        Most epochs, or iterations of "lbfgs".
    shuffle : bool, default=True
        Visit the rows in a new order each epoch.
    random_state : int, RandomState or None, default=None
        Draws the initial weights, then the validation split, then the order of each epoch.
    tol : float, default=1e-4
        An epoch that lowers the training loss (with ``early_stopping``: raises the validation score) by
        less than this counts as no improvement. "lbfgs" ends when no component of the gradient is larger.
    verbose : bool, default=False
        Print the loss of each epoch.
    warm_start : bool, default=False
        Go on from the weights of the last fit, with the same classes.
    momentum : float, default=0.9
        Only used by "sgd".
    nesterovs_momentum : bool, default=True
        Only used by "sgd".
    early_stopping : bool, "loss", str or callable, default=False
        With "adam", "adamw" and "sgd", stop when held-out rows are no longer predicted better, and keep the
        weights of the best epoch: judged by accuracy if True, by the validation loss if "loss", else by a
        scorer, given by its name in scikit-learn or as ``scorer(estimator, X, y)``, greater being better,
        which is given NumPy's arrays, and weights if it takes ``sample_weight``. The rows are ``X_val`` if
        given to `fit`, else a ``validation_fraction`` of the training rows, as scikit-learn draws it:
        stratified for two classes.
    validation_fraction : float, default=0.1
        Only used with ``early_stopping`` and without ``X_val``.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay of the moments in "adam" and "adamw".
    epsilon : float, default=1e-8
        Added to the root of the second moment in "adam" and "adamw".
    n_iter_no_change : int, default=10
        Training stops after more than this many epochs without improvement; ``np.inf`` is allowed.
    max_fun : int, default=15000
        Most evaluations of the loss; only used by "lbfgs".
    loss : str or Loss, default="auto"
        "auto" is the cross-entropy of a softmax ("cross_entropy") or the log loss of each sigmoid
        ("log_loss"), whichever the outputs are. "focal" is either's focal loss, with gamma = 2; else a
        `sklloss.losses.Loss` of which the linear classifiers say what it may be.
    output : {"auto", "softmax", "sigmoid"}, default="auto"
        What the outputs are, see ``y`` of `fit`. With "auto", labels (n,) give a softmax, a matrix of zeros
        and ones is multi-label. "softmax" takes a matrix as class probabilities, "sigmoid" as labels or
        probabilities of labels that are independent, and labels (n,) of K > 2 classes as one-vs-rest.
    class_weight : dict, "balanced", list of these or None, default=None
        Weights by class label, which multiply ``sample_weight``; "balanced" makes every class weigh the
        same in total. A multi-label y may have a list with an entry (over 0 and 1) for each label. Soft
        labels count as the mixture that they are.
    label_smoothing : float, default=0.0
        In [0, 1): targets become ``y * (1 - label_smoothing) + label_smoothing / K``, for any loss, with
        K = 2 for sigmoids.
    warmup_fraction : float, default=None
        The share of the training in which the rate of "cosine" and "one-cycle" rises; None is 0.05 for the
        one and 0.3 for the other.
    n_threads : int or None, default=None
        Threads to use; None takes what OMP_NUM_THREADS or the machine allows. Results have the same bits for
        any value.
    device : None, str or torch.device, default=None
        None computes where X lives. "cuda", "cuda:1", "mps" and so on move NumPy's numbers, data frames and
        CSR there once, with PyTorch, and what is learned back; batches of CSR rows are made dense there.
        "cpu" is where NumPy lives, and tensors in main memory are taken as NumPy's; a
        ``torch.device`` has PyTorch compute in any case.
    device_dtype : {"float32", "float64"}, default="float32"
        What ``device`` computes in where it is NumPy's numbers that are moved. A device without float64 takes
        float32.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted. For a matrix of probabilities the column names of a DataFrame, sorted too (the
        columns are taken along), else 0 to K - 1; 0 to L - 1 for a multi-label y. Numbers live where X does.
    coefs_ : list of ndarray
        ``coefs_[i]`` of shape (inputs, outputs) are the weights of layer i. They are arrays of X's namespace,
        on its device, where that is not NumPy; so are the biases.
    intercepts_ : list of ndarray
        Biases of each layer.
    loss_ : float
        The training loss of the last epoch, penalty included: the mean over its batches of the loss
        before each step. With "lbfgs" the objective at the end.
    best_loss_ : float or None
        The lowest of ``loss_curve_`` and ``loss_``; None with ``early_stopping``.
    loss_curve_ : list of float
        ``loss_`` of each epoch, or of each iteration of "lbfgs".
    validation_loss_curve_ : list of float or None
        The loss on the validation rows after each epoch, without the penalty and without class weights; NaN
        for epochs of earlier calls that had no validation rows. None without validation.
    validation_scores_ : list of float or None
        What ``early_stopping`` watches after each epoch, greater being better: for "loss" it is the
        validation loss, negated. None without ``early_stopping``.
    best_validation_score_ : float or None
        The highest of ``validation_scores_``; after a warm start that did not get further, the score of the
        weights that it started from.
    best_iter_ : int
        The epoch whose weights were kept, counted from 1 along ``loss_curve_``: with ``early_stopping`` the
        best, else the last one; 0 where "lbfgs" had nothing to do.
    n_iter_ : int
        Epochs of the last call.
    t_ : int
        Rows seen in training, over all epochs.
    n_layers_, n_outputs_ : int
        Two classes have one output.
    out_activation_ : str
        "softmax" or "logistic"; with a loss that has another inverse link, that of the loss, as in
        `MLPRegressor`.
    solver_ : str
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    See Also
    --------
    MLPRegressor : Its notes say how learning rates run, what ``random_state`` draws in which order, and what
        training leaves that is cut short; it is all the same here.

    Notes
    -----
    Where this differs from scikit-learn 1.9:

    - Probabilities are not clipped, neither in the loss nor in `predict_log_proba`: a certain wrong answer
      costs the logit.
    - y of one class only is an error.
    - Rows of weight 0 are left out before batches are formed, so that they change nothing at all.
    - A multi-label y that is sparse gives dense predictions.
    - A validation score that is NaN counts as an epoch without improvement.
    - Training that goes on (``warm_start``, `partial_fit`) keeps the dtype of the fitted weights, follows
      changed parameters, and starts the optimiser anew when ``solver`` has changed, a learning rate that has
      come down when ``learning_rate`` or ``learning_rate_init`` has, the loss curves when ``loss`` or
      ``label_smoothing`` has.

    With a loss that is linear in y, as the cross-entropy, log and focal losses are, a row of probabilities is
    the same as a row for each class, weighted by them; in one batch, that is, and as the mean of batches.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from sklloss import MLPClassifier
    >>> X, y = make_classification(n_samples=100, random_state=1)
    >>> model = MLPClassifier(random_state=1, max_iter=300).fit(X, y)
    >>> model.predict_proba(X[:2]).shape
    (2, 2)
    """

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

    @with_callbacks
    def fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: MatrixLike | None = None,
        y_val: MatrixLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
            float32 is trained in float32; a sparse X is never made dense. Where columns lie together, as in
            most data frames, the stochastic solvers work on a copy.
            A torch tensor, or an array of another namespace of the array API, is worked on where it lives,
            and what is learned lives there too. Batches of a sparse X that ``device`` moves are dense.
        y : array-like
            Labels (n,) of any type; a 0/1 matrix (n, L) of labels that may hold together. Probabilities:
            (n,) in [0, 1] of the second of two classes; of classes, (n, K) with rows that sum to 1 and
            ``output="softmax"``; of independent labels, (n, L) in [0, 1] with ``output="sigmoid"``.
        sample_weight : array-like of shape (n,), optional
            Non-negative, not all zero.
        X_val, y_val, sample_weight_val : optional
            Validation rows: their loss is recorded, weighted by ``sample_weight_val`` alone, and
            ``early_stopping`` watches how they are predicted.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is invalid, which the message names. The estimator then keeps
            the state that it had.
        """
        callbacks = FitCallbacks(self, X, y, sample_weight, self.max_iter)
        first = not (self.warm_start and hasattr(self, "coefs_"))
        with unchanged_on_error(self):
            optimizer = self._check_parameters()
            data = self._fit_data(X, y, sample_weight, X_val, y_val, sample_weight_val, first)
            return self._train(optimizer, **data, first=first, callbacks=callbacks)

    @available_if(is_stochastic)
    def partial_fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch over the given rows, going on from where the last call left off.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
        y : array-like
            As for `fit`.
        sample_weight : array-like of shape (n,), optional
        classes : array-like of shape (n_classes,), optional
            All labels that will ever come. Needed at the first call where y holds labels (n,); the columns of
            a matrix are its classes, which must then be sorted unless the columns have these names.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As from `fit`; if ``classes`` are missing at the first call, or y has others.
        """
        first = not hasattr(self, "coefs_")
        with unchanged_on_error(self):
            if self.early_stopping:
                raise ValueError("partial_fit does not support early_stopping=True")
            optimizer = self._check_parameters()
            data = self._stream_data(X, y, sample_weight, classes, first)
            return self._train(optimizer, **data, first=first, incremental=True)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, BaseMLP):
    """Multi-layer perceptron regressor, a drop-in for ``sklearn.neural_network.MLPRegressor``.

    The same ``random_state`` starts from the same weights and visits the same batches as scikit-learn, so
    the results are the same to rounding, with the differences named in the notes.

    Parameters
    ----------
    loss : str or Loss, default="squared_error"
        What is minimised: "squared_error" (half the square, which scikit-learn trains on),
        "mean_squared_error" (the square), "root_mean_squared_error" (the root of each batch's mean),
        "absolute_error", "huber", "quantile" (the median), "log_cosh", "poisson" or "gamma"; or a
        `sklloss.losses.Loss` with parameters of its own, such as ``Quantile(0.9)``. "poisson" takes y >= 0
        and "gamma" y > 0, and both predict ``exp(raw)``; a loss over probabilities (``LogLoss()``) takes y in
        [0, 1] and predicts ``sigmoid(raw)``.
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
        Units of each hidden layer; empty for a linear model.
    activation : {"identity", "logistic", "tanh", "relu", "gelu", "silu", "elu"}, default="relu"
        Of the hidden layers.
    solver : {"adam", "adamw", "sgd", "lbfgs"}, default="adam"
        "adam", "adamw" and "sgd" take a step for each batch of rows, "lbfgs" for all rows together, which
        suits a small number of rows.
    alpha : float, default=0.0001
        Strength of the L2 penalty: alpha / 2 times the sum of squared weights (not biases), divided by the
        sum of the sample weights of a batch, is added to its loss. With "adamw" there is no such term:
        each step takes the learning rate times alpha off a weight, as a share of it.
    batch_size : int, default="auto"
        Rows per batch; "auto" is ``min(200, n_samples)``. Larger than the number of rows is clipped, with
        a warning.
    learning_rate : {"constant", "invscaling", "adaptive", "cosine", "one-cycle"}, default="constant"
        With "sgd" alone, "invscaling" divides ``learning_rate_init`` by ``t_ ** power_t`` after each epoch,
        and "adaptive" by 5 each time that progress stalls, until 1e-6. With every stochastic solver, "cosine"
        and "one-cycle" change the rate from batch to batch over ``max_iter`` epochs; see the notes.
    learning_rate_init : float, default=0.001
        With "cosine" and "one-cycle" the highest rate. `find_learning_rate` looks for one.
    power_t : float, default=0.5
        Only used by "sgd" with "invscaling".
    max_iter : int, default=200
        Most epochs, or iterations of "lbfgs".
    shuffle : bool, default=True
        Visit the rows in a new order each epoch.
    random_state : int, RandomState or None, default=None
        Draws the initial weights, then the validation split, then the order of each epoch.
    tol : float, default=1e-4
        An epoch that lowers the training loss (with ``early_stopping``: raises the validation score) by
        less than this counts as no improvement. "lbfgs" ends when no component of the gradient is larger.
    verbose : bool, default=False
        Print the loss of each epoch.
    warm_start : bool, default=False
        Go on from the weights of the last fit.
    momentum : float, default=0.9
        Only used by "sgd".
    nesterovs_momentum : bool, default=True
        Only used by "sgd".
    early_stopping : bool, "loss", str or callable, default=False
        With "adam", "adamw" and "sgd", stop when held-out rows are no longer predicted better, and keep the
        weights of the best epoch: judged by R² if True, by the validation loss if "loss", else by a scorer,
        given by its name in scikit-learn or as ``scorer(estimator, X, y)``, greater being better, which is
        given NumPy's arrays, and weights if it takes ``sample_weight``. The rows are ``X_val`` if given to
        `fit`, else a ``validation_fraction`` of the training rows.
    validation_fraction : float, default=0.1
        Only used with ``early_stopping`` and without ``X_val``.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay of the moments in "adam" and "adamw".
    epsilon : float, default=1e-8
        Added to the root of the second moment in "adam" and "adamw".
    n_iter_no_change : int, default=10
        Training stops after more than this many epochs without improvement; ``np.inf`` is allowed.
    max_fun : int, default=15000
        Most evaluations of the loss; only used by "lbfgs".
    warmup_fraction : float, default=None
        The share of the training in which the rate of "cosine" and "one-cycle" rises; None is 0.05 for the
        one and 0.3 for the other.
    n_threads : int or None, default=None
        Threads to use; None takes what OMP_NUM_THREADS or the machine allows. Results have the same bits for
        any value.
    device : None, str or torch.device, default=None
        None computes where X lives. "cuda", "cuda:1", "mps" and so on move NumPy's numbers, data frames and
        CSR there once, with PyTorch, and what is learned back; batches of CSR rows are made dense there.
        "cpu" is where NumPy lives, and tensors in main memory are taken as NumPy's; a
        ``torch.device`` has PyTorch compute in any case.
    device_dtype : {"float32", "float64"}, default="float32"
        What ``device`` computes in where it is NumPy's numbers that are moved. A device without float64 takes
        float32.

    Attributes
    ----------
    coefs_ : list of ndarray
        ``coefs_[i]`` of shape (inputs, outputs) are the weights of layer i. They are arrays of X's namespace,
        on its device, where that is not NumPy; so are the biases.
    intercepts_ : list of ndarray
        Biases of each layer.
    loss_ : float
        The training loss of the last epoch, penalty included: the mean over its batches of the loss
        before each step. With "lbfgs" the objective at the end.
    best_loss_ : float or None
        The lowest of ``loss_curve_`` and ``loss_``; None with ``early_stopping``.
    loss_curve_ : list of float
        ``loss_`` of each epoch, or of each iteration of "lbfgs".
    validation_loss_curve_ : list of float or None
        The loss on the validation rows after each epoch, without the penalty; NaN for epochs of earlier calls
        that had no validation rows. None without validation.
    validation_scores_ : list of float or None
        What ``early_stopping`` watches after each epoch, greater being better: for "loss" it is the
        validation loss, negated. None without ``early_stopping``.
    best_validation_score_ : float or None
        The highest of ``validation_scores_``; after a warm start that did not get further, the score of the
        weights that it started from.
    best_iter_ : int
        The epoch whose weights were kept, counted from 1 along ``loss_curve_``: with ``early_stopping`` the
        best, else the last one; 0 where "lbfgs" had nothing to do.
    n_iter_ : int
        Epochs of the last call.
    t_ : int
        Rows seen in training, over all epochs.
    n_layers_, n_outputs_ : int
    out_activation_ : str
        What the loss's inverse link is called: "identity", "exp" or "logistic"; the class of the loss for
        a link of its own.
    solver_ : str
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Notes
    -----
    Learning rates over a training, as factors of ``learning_rate_init``: "cosine" rises in a straight line
    during the warm-up and then falls as ``(1 + cos(pi * t)) / 2``, t going from 0 to 1 [1]_; "one-cycle"
    rises from 1/25 and falls to 1/250000, both along half a cosine, as torch's ``OneCycleLR`` does, with a
    constant momentum [2]_. Each call of `fit` runs its schedule from the beginning, under ``warm_start`` too.
    Training may still stall and end before: ``n_iter_no_change=np.inf`` runs the schedule to its end, which
    gives no ConvergenceWarning. `partial_fit` does not know its end, and is not there with either.

    ``random_state`` draws, in this order: the weights and biases of each layer; the split of
    ``train_test_split``, where one is needed; for each epoch a permutation, which reorders the rows from how
    the epoch before had them, as ``sklearn.utils.shuffle`` does. The same integer gives the same bits on one
    machine. As in scikit-learn, an integer draws the same permutation in every call of `partial_fit`.

    Training that is cut short: the loss or the weights becoming NaN or infinite is a ValueError that names
    the epoch; with ``early_stopping`` the estimator has the best weights until then, without it it is what
    it was before the call. Ctrl-C raises KeyboardInterrupt; under ``warm_start`` the estimator has the
    weights of the last finished epoch (of the best one with ``early_stopping``), else it is what it was. A
    `partial_fit` after either starts the optimiser anew. After any other error nothing has changed.

    A warm start with ``early_stopping`` and ``X_val`` scores the weights that it starts from first, and keeps
    them if no epoch is better on these rows. Without ``X_val`` the best score of the last call stands, as in
    scikit-learn, though other rows may have been split off.

    scikit-learn's callbacks (from 1.9 on, ``set_callbacks``) are called around each epoch of `fit`, or
    iteration of "lbfgs"; one that asks for the end has it.

    Where this differs from scikit-learn 1.9:

    - With several outputs the loss is their mean, in the gradient as in the reported value; scikit-learn
      reports the mean but descends the sum. With T outputs, scikit-learn's steps are those of
      ``alpha / T`` and (for "sgd") ``T * learning_rate_init`` here.
    - "poisson" leaves out the terms in y alone, which scikit-learn's ``loss_`` contains; the fit is the same.
    - Rows of weight 0 are left out before batches are formed, so that they change nothing at all.
    - A validation score that is NaN counts as an epoch without improvement.
    - Training that goes on (``warm_start``, `partial_fit`) keeps the dtype of the fitted weights, follows
      changed parameters, and starts the optimiser anew when ``solver`` has changed, a learning rate that has
      come down when ``learning_rate`` or ``learning_rate_init`` has, the loss curves when ``loss`` has.

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
        X_val: MatrixLike | None = None,
        y_val: MatrixLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
            float32 is trained in float32; a sparse X is never made dense. Where columns lie together, as in
            most data frames, the stochastic solvers work on a copy.
            A torch tensor, or an array of another namespace of the array API, is worked on where it lives,
            and what is learned lives there too. Batches of a sparse X that ``device`` moves are dense.
        y : array-like of shape (n,) or (n, outputs)
        sample_weight : array-like of shape (n,), optional
            Non-negative, not all zero.
        X_val, y_val, sample_weight_val : optional
            Validation rows: their loss is recorded, and ``early_stopping`` watches how they are predicted.

        Returns
        -------
        self
        """
        callbacks = FitCallbacks(self, X, y, sample_weight, self.max_iter)
        first = not (self.warm_start and hasattr(self, "coefs_"))
        with unchanged_on_error(self):
            optimizer, code = self._check_parameters(), self._coder()
            data = check_data(self, X, y, sample_weight, code, reset=first)
            held_out = check_validation_data(self, X_val, y_val, sample_weight_val, code, data)
            if held_out is not None and held_out.outputs != data.outputs:
                raise ValueError(f"y_val has {held_out.outputs} outputs, y has {data.outputs}")
            self._link = self.loss
            return self._train(optimizer, data, held_out, first=first, callbacks=callbacks)

    @available_if(is_stochastic)
    def partial_fit(self, X: MatrixLike, y: MatrixLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch over the given rows, going on from where the last call left off.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
        y : array-like of shape (n,) or (n, outputs)
        sample_weight : array-like of shape (n,), optional

        Returns
        -------
        self
        """
        first = not hasattr(self, "coefs_")
        with unchanged_on_error(self):
            if self.early_stopping:
                raise ValueError("partial_fit does not support early_stopping=True")
            optimizer, code = self._check_parameters(), self._coder()
            learned = None if first else self._model_array()
            data = check_stream_data(self, X, y, sample_weight, code, learned)
            self._link = self.loss
            return self._train(optimizer, data, first=first, incremental=True)

    def predict(self, X: MatrixLike) -> Array:
        """Predicted values.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)

        Returns
        -------
        ndarray of shape (n,) or (n, outputs)
        """
        check_is_fitted(self)
        check_same_device(self, X, self._model_array(), "predict")
        values = self._of_outputs(lambda raw: losses.get(self._link).predict(raw), X)
        return values[:, 0] if values.shape[1] == 1 else values

    def score(self, X: MatrixLike, y: MatrixLike, sample_weight: ArrayLike | None = None) -> float:
        """R², the share of the variance of y that is predicted.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, p)
        y : array-like of shape (n,) or (n, outputs)
        sample_weight : array-like of shape (n,), optional

        Returns
        -------
        float
        """
        predicted, y = on_host(self.predict(X), "X"), on_host(y, "y")
        return float(r2_score(y, predicted, sample_weight=on_host(sample_weight, "sample_weight")))

    def _loss(self):
        """The Loss to train on; a ValueError for one that belongs to classes."""
        loss = losses.get(self.loss)
        named = [name for name in losses.names() if losses.get(name).target == "values"]
        if isinstance(self.loss, str) and self.loss not in named:
            raise ValueError(
                f"loss={self.loss!r} is for classification; MLPRegressor has {', '.join(named)}, and "
                "any Loss object over values or probabilities"
            )
        if loss.target == "classes":
            raise ValueError(f"loss={self.loss!r} needs class codes, but MLPRegressor predicts numbers")
        return loss

    def _coder(self):
        """A function that takes in targets."""
        return functools.partial(code_values, loss=self._loss())

    def _bind(self, data, name="y"):
        return self._loss(), data

    def _strata(self, data):
        return None

    def _validation_score(self, held_out, loss, raw):
        values = loss.predict(raw)
        if not np.isfinite(values).all():
            return float("nan")
        return float(r2_score(held_out.y, values, sample_weight=held_out.weight))

    def _output_activation(self, loss):
        return output_activation(loss)
