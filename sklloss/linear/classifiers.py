"""The linear classifiers, with a given penalty or with one chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.random import RandomState
from numpy.typing import ArrayLike

from sklloss.data.checks import ClassWeight
from sklloss.linear.base import LinearClassifier
from sklloss.linear.cross_validation import LinearClassifierCV
from sklloss.losses import Loss

__all__ = ["LogisticClassifier", "LogisticClassifierCV", "SoftmaxClassifier", "SoftmaxClassifierCV"]


class LogisticClassifier(LinearClassifier):
    """Logistic regression: independent sigmoids of linear scores, with a log loss or another loss each.

    Minimises ``C * sum_i w_i loss_i + l1_ratio * ||coef||_1 + (1 - l1_ratio) / 2 * ||coef||**2`` (with
    the log loss the objective of scikit-learn's `LogisticRegression`) to within 1e-6 of its optimum at the
    default ``tol``, whatever the units of the features. If the loss is not convex, such as the focal loss,
    the optimum is the local one that is reached from 0.

    Parameters
    ----------
    loss : str or Loss, default="log_loss"
        The loss of each output: "log_loss", "focal", "squared_hinge" (labels only, no
        `predict_proba`), or a `sklloss.losses.Loss` that is a sum over outputs (``separable``), custom losses
        included. Labels count as 0 and 1. `predict_proba` is the sigmoid of the scores; with a regression
        loss, or a custom loss that defines `inverse_link`, it is the inverse link of the scores, clipped to
        [0, 1], which `predict` compares with 1/2.
    C : float, default=1.0
        Inverse strength of the penalty; ``numpy.inf`` for none.
    l1_ratio : float, default=0.0
        The share of L1 in the penalty, in [0, 1]: 0 is L2 alone; 1 is L1 alone, which sets coefficients to
        exactly 0; values in between are the elastic net. Above 0 the loss must be convex and state its second
        derivative (`Loss.curvature`). Ignored without a penalty (``C=numpy.inf``).
    dual : bool, default=False
        Only False is allowed; the parameter exists for compatibility with scikit-learn.
    tol : float, default=1e-4
        Accuracy, the same for every solver: the fit stops when the objective is estimated to be within a
        relative ``tol**2`` of its optimum, or when rounding prevents further progress.
    fit_intercept : bool, default=True
        Whether to learn an intercept, which is not penalised.
    intercept_scaling : float, default=1
        Only 1 is allowed; the parameter exists for compatibility with scikit-learn.
    class_weight : dict, "balanced", list of these or None, default=None
        Weights by class label; "balanced" makes the total weight of every class the same. With one-vs-rest
        each class is balanced against the rest. For a multi-label y it may be a list with an entry (a dict
        over 0 and 1) for each label. Soft labels are weighted as a mixture of hard ones.
    random_state : int, RandomState instance or None, default=None
        Shuffles the rows for "sgd", "adam" and `partial_fit`. The other solvers are deterministic.
    solver : str, default="auto"
        "auto", "newton-cholesky", "newton-cg", "lbfgs", "proximal-newton", "sgd" or "adam". "auto" chooses by
        the loss, the penalty and the size of the problem; the notes compare the solvers.
    max_iter : int, default=100
        Maximum number of iterations, or of epochs for "sgd" and "adam"; reaching it issues a
        ConvergenceWarning.
    verbose : int, default=0
        Positive to print the objective after each iteration.
    warm_start : bool, default=False
        Whether to start from the last fit's coefficients.
    label_smoothing : float, default=0.0
        In [0, 1): targets become ``y * (1 - label_smoothing) + label_smoothing / 2``, for any loss.
    penalty_weights : array-like of shape (n_features,) or dict, default=None
        What the penalty of each feature is multiplied by, in order or by name: 0 leaves its coefficient free.
    monotonic_cst : array-like of int of shape (n_features,) or dict, default=None
        The sign that the coefficient of each feature may have, in order or by name: 1, -1, or 0 for any.
        Solved by "proximal-newton", so that the loss has to be convex and to state its second derivative, and
        coefficients that the constraint holds are exactly 0.
    n_threads : int or None, default=None
        Threads for the passes of `fit` over X; None uses as many as OMP_NUM_THREADS or the machine allows.
        The results are bitwise the same for any number.
    batch_size : int or "auto", default="auto"
        For "sgd", "adam" and `partial_fit`: rows per mini-batch. "auto" is a twentieth of the rows, limited
        to 32 to 512 in `fit` (16 to 32 for wide sparse X) and to 8 to 64 in `partial_fit`; 512 for a custom
        loss in Python.
    learning_rate_init : float or "auto", default="auto"
        For "sgd", "adam" and `partial_fit`: the initial learning rate, relative to the curvature, so that it
        does not depend on the units of the features; 1 is a full Newton-like step, for "adam" its root mean
        square. In `fit`, an epoch that increases the objective is undone and the rate reduced, otherwise the
        rate may grow; in `partial_fit` it falls with the number of rows seen.
    device : None, str or torch.device, default=None
        None computes on the device of X. A name such as "cuda", "cuda:1" or "mps" moves NumPy arrays, data
        frames and CSR matrices there once, through PyTorch, and the fitted attributes back. "cpu" computes
        with the compiled kernels, also for tensors; a ``torch.device`` always computes with PyTorch.
    device_dtype : {"float32", "float64"}, default="float32"
        The dtype to compute in if NumPy data are moved to ``device``; always float32 on a device without
        float64.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels; [0, 1] where y holds probabilities; 0 to L - 1 for a multi-label y.
    coef_ : ndarray of shape (1, n_features) or (n_outputs, n_features)
    intercept_ : ndarray of shape (1,) or (n_outputs,)
    n_iter_ : ndarray of int32 of shape (n_outputs,)
        Iterations of each output; epochs of "sgd" and "adam"; 1 after `partial_fit`.
    loss_ : float
        The final objective, penalty included. It and the curves do not exist after `partial_fit`.
    loss_curve_ : list of float
        The objective at the start and after each iteration, without preliminary work on a sample of the rows
        or by dual coordinate ascent.
    validation_loss_curve_ : list of float
        The mean loss on the validation set, if there was one, after each iteration.
    solver_ : str
        The solver used; if two ran, the last one.
    t_ : int
        Rows of positive weight seen by `fit` and all calls of `partial_fit` since.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X had string column names.

    See Also
    --------
    SoftmaxClassifier : One softmax over all classes.

    Notes
    -----
    y may be labels of two classes; labels of K classes (one-vs-rest); a matrix (n, L) of zeros and ones
    (multi-label); or probabilities in [0, 1], (n,) of the second class or (n, L) of each label. With a loss
    that is linear in y, such as the log and focal losses, a soft label y is equivalent to two rows, labelled
    1 and 0, of weights y and 1 - y.

    The solvers:

    =================  ====================================================================================
    "newton-cholesky"  Newton's method with the full Hessian: few passes over X, each costly if parameters
                       are many. "auto" takes it up to 200 parameters that are coupled (the columns of X;
                       for a softmax, times the classes).
    "newton-cg"        Newton's method by preconditioned conjugate gradients: more passes, each cheap.
                       "auto" takes it above 200 parameters. If X is sparse with more than 2048 columns and
                       C is not too large, it starts from dual coordinate ascent.
    "lbfgs"            Preconditioned L-BFGS, for any loss; it may stop early at the kinks of
                       "absolute_error" and "quantile". "auto" takes it for a loss that is not convex or
                       states no second derivative (`Loss.curvature`), and for the first 30 iterations
                       before "newton-cg" if X is dense with at most 2048 columns, rows times columns times
                       outputs are at least 2 million, outputs are independent with more than 200 parameters
                       each (several outputs: 64 or more), and the fit starts from 0.
    "proximal-newton"  For an L1 penalty. The loss must be convex and state its second derivative.
    "sgd", "adam"      Preconditioned mini-batch steps with variance reduction, for any loss. "auto" never
                       takes them.
    =================  ====================================================================================

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklloss import LogisticClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> LogisticClassifier().fit(X, y).score(X, y) > 0.95
    True
    """

    _softmax = False

    def __init__(
        self,
        *,
        loss: str | Loss = "log_loss",
        C: float = 1.0,
        l1_ratio: float = 0.0,
        dual: bool = False,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: ClassWeight = None,
        random_state: int | RandomState | None = None,
        solver: str = "auto",
        max_iter: int = 100,
        verbose: int | bool = 0,
        warm_start: bool = False,
        label_smoothing: float = 0.0,
        penalty_weights: ArrayLike | dict[str, float] | None = None,
        monotonic_cst: ArrayLike | dict[str, int] | None = None,
        n_threads: int | None = None,
        batch_size: int | str = "auto",
        learning_rate_init: float | str = "auto",
        device: Any = None,
        device_dtype: str = "float32",
    ) -> None:
        self.loss = loss
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.label_smoothing = label_smoothing
        self.penalty_weights = penalty_weights
        self.monotonic_cst = monotonic_cst
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.device = device
        self.device_dtype = device_dtype


class SoftmaxClassifier(LinearClassifier):
    """Multinomial logistic regression: one softmax of linear scores, with its cross-entropy or another loss.

    Minimises ``C * sum_i w_i loss_i + l1_ratio * ||coef||_1 + (1 - l1_ratio) / 2 * ||coef||**2`` (with the
    cross-entropy the objective of scikit-learn's `LogisticRegression`) to within 1e-6 of its optimum at the
    default ``tol``, whatever the units of the features. If the loss is not convex, such as the focal loss,
    the optimum is the local one that is reached from 0.

    Parameters
    ----------
    loss : str or Loss, default="cross_entropy"
        "cross_entropy", "focal" (in its softmax form, also for a `Focal` object), "generalized_cross_entropy"
        (for labels of which some are wrong), or a `sklloss.losses.Loss`, custom losses included. A loss over
        "classes" gets codes, or rows of probabilities if y holds these or is smoothed; any other loss gets
        rows of probabilities, which are one-hot for labels. `predict_proba` is the softmax of the scores;
        with a regression loss, or a loss that defines another `inverse_link`, it is the inverse link of the
        scores, clipped to [0, 1] and divided by its sum.
    C : float, default=1.0
        Inverse strength of the penalty; ``numpy.inf`` for none.
    l1_ratio : float, default=0.0
        The share of L1 in the penalty, in [0, 1]: 0 is L2 alone; 1 is L1 alone, which sets coefficients to
        exactly 0; values in between are the elastic net. Above 0 the loss must be the cross-entropy, or
        separable, convex and state its second derivative. Ignored without a penalty (``C=numpy.inf``).
    dual : bool, default=False
        Only False is allowed; the parameter exists for compatibility with scikit-learn.
    tol : float, default=1e-4
        Accuracy, the same for every solver: the fit stops when the objective is estimated to be within a
        relative ``tol**2`` of its optimum, or when rounding prevents further progress.
    fit_intercept : bool, default=True
        Whether to learn an intercept, which is not penalised.
    intercept_scaling : float, default=1
        Only 1 is allowed; the parameter exists for compatibility with scikit-learn.
    class_weight : dict, "balanced" or None, default=None
        Weights by class label; "balanced" makes the total weight of every class the same. Soft labels are
        weighted as a mixture of hard ones.
    random_state : int, RandomState instance or None, default=None
        Shuffles the rows for "sgd", "adam" and `partial_fit`. The other solvers are deterministic.
    solver : str, default="auto"
        "auto", "newton-cholesky", "newton-cg", "lbfgs", "proximal-newton", "sgd" or "adam". "auto" chooses by
        the loss, the penalty and the size of the problem; the notes of `LogisticClassifier` compare the
        solvers. Losses that couple the outputs, other than the cross-entropy, need "lbfgs", "sgd" or "adam".
    max_iter : int, default=100
        Maximum number of iterations, or of epochs for "sgd" and "adam"; reaching it issues a
        ConvergenceWarning.
    verbose : int, default=0
        Positive to print the objective after each iteration.
    warm_start : bool, default=False
        Whether to start from the last fit's coefficients.
    label_smoothing : float, default=0.0
        In [0, 1): targets become ``y * (1 - label_smoothing) + label_smoothing / K``, for any loss.
    penalty_weights : array-like of shape (n_features,) or dict, default=None
        What the penalty of each feature is multiplied by, in order or by name: 0 leaves its coefficient free.
    monotonic_cst : array-like of int of shape (n_features,) or dict, default=None
        The sign that the coefficient of each feature may have, in order or by name: 1, -1, or 0 for any.
        Solved by "proximal-newton", so that the loss has to be convex and to state its second derivative, and
        coefficients that the constraint holds are exactly 0.
    n_threads : int or None, default=None
        Threads for the passes of `fit` over X; None uses as many as OMP_NUM_THREADS or the machine allows.
        The results are bitwise the same for any number.
    batch_size : int or "auto", default="auto"
        For "sgd", "adam" and `partial_fit`: rows per mini-batch. "auto" is a twentieth of the rows, limited
        to 32 to 512 in `fit` (16 to 32 for wide sparse X) and to 8 to 64 in `partial_fit`; 512 for a custom
        loss in Python.
    learning_rate_init : float or "auto", default="auto"
        For "sgd", "adam" and `partial_fit`: the initial learning rate, relative to the curvature, so that it
        does not depend on the units of the features; 1 is a full Newton-like step, for "adam" its root mean
        square. In `fit`, an epoch that increases the objective is undone and the rate reduced, otherwise the
        rate may grow; in `partial_fit` it falls with the number of rows seen.
    device : None, str or torch.device, default=None
        None computes on the device of X. A name such as "cuda", "cuda:1" or "mps" moves NumPy arrays, data
        frames and CSR matrices there once, through PyTorch, and the fitted attributes back. "cpu" computes
        with the compiled kernels, also for tensors; a ``torch.device`` always computes with PyTorch.
    device_dtype : {"float32", "float64"}, default="float32"
        The dtype to compute in if NumPy data are moved to ``device``; always float32 on a device without
        float64.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted; for a matrix of probabilities the column names of a DataFrame, sorted together
        with the columns, else 0 to K - 1.
    coef_ : ndarray of shape (1, n_features) for two classes, else (n_classes, n_features)
    intercept_ : ndarray of shape (1,) or (n_classes,)
    n_iter_ : ndarray of int32 of shape (1,)
        Iterations; of shape (n_classes,), for each class, with a separable loss. Epochs of "sgd" and "adam";
        1 after `partial_fit`.
    loss_ : float
        The final objective, penalty included. It and the curves do not exist after `partial_fit`.
    loss_curve_ : list of float
        The objective at the start and after each iteration, without preliminary work on a sample of the rows
        or by dual coordinate ascent.
    validation_loss_curve_ : list of float
        The mean loss on the validation set, if there was one, after each iteration.
    solver_ : str
        The solver used; if two ran, the last one.
    t_ : int
        Rows of positive weight seen by `fit` and all calls of `partial_fit` since.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X had string column names.

    See Also
    --------
    LogisticClassifier : Independent sigmoids: one-vs-rest and multi-label.

    Notes
    -----
    y may be labels (n,), or a matrix (n, K) of class probabilities, one-hot included, whose rows are
    not negative and sum to 1. With a loss that is linear in y, such as the cross-entropy and focal losses, a
    row of probabilities is equivalent to K rows of hard labels, weighted by them. Two classes are the same
    model as in `LogisticClassifier`, with one row of coefficients; a custom loss that couples the outputs
    gets 0 and the score of the second class.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklloss import SoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> SoftmaxClassifier().fit(X, y).predict(X[:2])
    array([0, 0])
    """

    _softmax = True

    def __init__(
        self,
        *,
        loss: str | Loss = "cross_entropy",
        C: float = 1.0,
        l1_ratio: float = 0.0,
        dual: bool = False,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: ClassWeight = None,
        random_state: int | RandomState | None = None,
        solver: str = "auto",
        max_iter: int = 100,
        verbose: int | bool = 0,
        warm_start: bool = False,
        label_smoothing: float = 0.0,
        penalty_weights: ArrayLike | dict[str, float] | None = None,
        monotonic_cst: ArrayLike | dict[str, int] | None = None,
        n_threads: int | None = None,
        batch_size: int | str = "auto",
        learning_rate_init: float | str = "auto",
        device: Any = None,
        device_dtype: str = "float32",
    ) -> None:
        self.loss = loss
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.label_smoothing = label_smoothing
        self.penalty_weights = penalty_weights
        self.monotonic_cst = monotonic_cst
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.device = device
        self.device_dtype = device_dtype


class LogisticClassifierCV(LinearClassifierCV):
    """`LogisticClassifier` with C chosen by cross-validation, along a path of values.

    Independent sigmoids: two classes, one-vs-rest, multi-label, or probabilities; see `LogisticClassifier`.

    Parameters
    ----------
    loss : str or Loss, default="log_loss"
        As in `LogisticClassifier`.
    Cs : int or list of float, default=10
        Values of C, the inverse strength of the penalty, to choose from; an integer is the number of values,
        evenly spaced on a logarithmic scale from 1e-4 to 1e4. ``numpy.inf`` is no penalty. The smallest is
        fitted first, whatever the order given.
    l1_ratios : list of float, default=(0.0,)
        Shares of L1 in the penalty, in [0, 1], to choose from; see ``l1_ratio`` of `LogisticClassifier`.
    fit_intercept : bool, default=True
        Whether to learn an intercept, which is not penalised.
    cv : int, splitter, iterable of (train, test) or None, default=None
        How to split the rows; an integer is a number of folds, None means 5. Labels are split by
        `StratifiedKFold`, probabilities (n,) by `sklloss.model_selection.StratifiedSoftKFold`, and a matrix
        (n, L) by `KFold`.
    dual : bool, default=False
        Only False is allowed; the parameter exists for compatibility with scikit-learn.
    scoring : str, callable or None, default=None
        The score to maximise: the name of a scikit-learn scorer, a scorer (those in `sklloss.metrics` take
        every kind of y), or a callable ``scorer(estimator, X, y)``. None is the accuracy, as in
        `LogisticClassifier.score`; "neg_log_loss" also takes the probabilities into account.
    solver : str, default="auto"
        As in `LogisticClassifier`.
    tol : float, default=1e-4
        Accuracy of each fit, as in `LogisticClassifier`.
    max_iter : int, default=100
        Maximum number of iterations of each fit; reaching it issues a ConvergenceWarning.
    class_weight : dict, "balanced", list of these or None, default=None
        Weights by class label; "balanced" makes the total weight of every class the same over all rows, and
        every fold uses these weights.
    n_jobs : int or None, default=None
        Number of folds fitted in parallel, by threads of this process that share ``n_threads``. None means 1,
        except in a `joblib.parallel_config` context; -1 means one per CPU.
    verbose : int, default=0
        Positive to print the best score of each fold.
    refit : bool, default=True
        Whether to fit all rows with the penalty of the best mean score. If False, the coefficients, C and
        l1_ratio are the means of those at the best score of each fold.
    intercept_scaling : float, default=1
        Only 1 is allowed; the parameter exists for compatibility with scikit-learn.
    random_state : int, RandomState instance or None, default=None
        For the solvers that draw random numbers. It is not passed to ``cv``.
    label_smoothing : float, default=0.0
        In [0, 1), as in `LogisticClassifier`. Scores are computed from y without smoothing.
    penalty_weights : array-like of shape (n_features,) or dict, default=None
        What the penalty of each feature is multiplied by, in order or by name: 0 leaves its coefficient free.
    monotonic_cst : array-like of int of shape (n_features,) or dict, default=None
        The sign that the coefficient of each feature may have, in order or by name: 1, -1, or 0 for any.
        Solved by "proximal-newton", so that the loss has to be convex and to state its second derivative, and
        coefficients that the constraint holds are exactly 0.
    n_threads : int or None, default=None
        Total number of threads for the passes over X; None uses as many as OMP_NUM_THREADS or the machine
        allows. The results are bitwise the same for any number.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels; [0, 1] where y holds probabilities; 0 to L - 1 for a multi-label y.
    coef_ : ndarray of shape (1, n_features) or (n_outputs, n_features)
    intercept_ : ndarray of shape (1,) or (n_outputs,)
    C_ : float
        The C chosen.
    l1_ratio_ : float
        The l1_ratio chosen.
    Cs_ : ndarray of shape (n_Cs,)
        All values of C, in the order given.
    l1_ratios_ : ndarray of shape (n_l1_ratios,)
    scores_ : ndarray of shape (n_folds, n_l1_ratios, n_Cs)
        The scores of the test rows.
    coefs_paths_ : ndarray of shape (n_folds, n_l1_ratios, n_Cs, 1 or n_outputs, n_features + fit_intercept)
        The coefficients of each fit, the intercept last.
    n_iter_ : ndarray of int32 of shape (n_folds, n_l1_ratios, n_Cs)
        Iterations of each fit, which starts from the solution for the next smaller C; the maximum over
        outputs.
    loss_ : float
        The final objective, penalty included; with ``refit=True`` only.
    loss_curve_ : list of float
        The objective at the start and after each iteration of the last fit; with ``refit=True`` only.
    solver_ : str
        The solver used; with "auto" the one chosen, even if a fit starts with another.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X had string column names.

    See Also
    --------
    LogisticClassifier : The model with a given penalty.
    SoftmaxClassifierCV : One softmax over all classes.

    Notes
    -----
    Every fit is as accurate as a separate one would be. X is checked once, and the rows of each fold are
    extracted once. Along the path, from the strongest penalty to the weakest, each fit starts from the
    solution of the previous one.

    A class may be missing from the training rows of a fold, as long as two remain; its coefficients are then
    determined by the penalty and the other classes. Splitters and scorers get y as an array, even if it was
    passed as a list or a DataFrame.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklloss import LogisticClassifierCV
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), LogisticClassifierCV(Cs=50, scoring="neg_log_loss")).fit(X, y)
    >>> model[-1].scores_.shape
    (5, 1, 50)
    >>> 0.01 < model[-1].C_ < 10
    True
    """

    _classifier = LogisticClassifier
    _softmax = False

    def __init__(
        self,
        *,
        loss: str | Loss = "log_loss",
        Cs: int | ArrayLike = 10,
        l1_ratios: ArrayLike = (0.0,),
        fit_intercept: bool = True,
        cv: Any = None,
        dual: bool = False,
        scoring: str | Callable[..., float] | None = None,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iter: int = 100,
        class_weight: ClassWeight = None,
        n_jobs: int | None = None,
        verbose: int | bool = 0,
        refit: bool = True,
        intercept_scaling: float = 1,
        random_state: int | RandomState | None = None,
        label_smoothing: float = 0.0,
        penalty_weights: ArrayLike | dict[str, float] | None = None,
        monotonic_cst: ArrayLike | dict[str, int] | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.loss = loss
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.dual = dual
        self.scoring = scoring
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.refit = refit
        self.intercept_scaling = intercept_scaling
        self.random_state = random_state
        self.label_smoothing = label_smoothing
        self.penalty_weights = penalty_weights
        self.monotonic_cst = monotonic_cst
        self.n_threads = n_threads


class SoftmaxClassifierCV(LinearClassifierCV):
    """`SoftmaxClassifier` with C chosen by cross-validation, along a path of values.

    One softmax over all classes, of labels or of class probabilities; see `SoftmaxClassifier`.

    Parameters
    ----------
    loss : str or Loss, default="cross_entropy"
        As in `SoftmaxClassifier`.
    Cs : int or list of float, default=10
        Values of C, the inverse strength of the penalty, to choose from; an integer is the number of values,
        evenly spaced on a logarithmic scale from 1e-4 to 1e4. ``numpy.inf`` is no penalty. The smallest is
        fitted first, whatever the order given.
    l1_ratios : list of float, default=(0.0,)
        Shares of L1 in the penalty, in [0, 1], to choose from; see ``l1_ratio`` of `SoftmaxClassifier`.
    fit_intercept : bool, default=True
        Whether to learn an intercept, which is not penalised.
    cv : int, splitter, iterable of (train, test) or None, default=None
        How to split the rows; an integer is a number of folds, None means 5. Labels are split by
        `StratifiedKFold`, a matrix of class probabilities by `sklloss.model_selection.StratifiedSoftKFold`.
    dual : bool, default=False
        Only False is allowed; the parameter exists for compatibility with scikit-learn.
    scoring : str, callable or None, default=None
        The score to maximise: the name of a scikit-learn scorer, a scorer (those in `sklloss.metrics` take
        every kind of y), or a callable ``scorer(estimator, X, y)``. None is the accuracy, as in
        `SoftmaxClassifier.score`; "neg_log_loss" also takes the probabilities into account.
    solver : str, default="auto"
        As in `SoftmaxClassifier`.
    tol : float, default=1e-4
        Accuracy of each fit, as in `SoftmaxClassifier`.
    max_iter : int, default=100
        Maximum number of iterations of each fit; reaching it issues a ConvergenceWarning.
    class_weight : dict, "balanced" or None, default=None
        Weights by class label; "balanced" makes the total weight of every class the same over all rows, and
        every fold uses these weights.
    n_jobs : int or None, default=None
        Number of folds fitted in parallel, by threads of this process that share ``n_threads``. None means 1,
        except in a `joblib.parallel_config` context; -1 means one per CPU.
    verbose : int, default=0
        Positive to print the best score of each fold.
    refit : bool, default=True
        Whether to fit all rows with the penalty of the best mean score. If False, the coefficients, C and
        l1_ratio are the means of those at the best score of each fold.
    intercept_scaling : float, default=1
        Only 1 is allowed; the parameter exists for compatibility with scikit-learn.
    random_state : int, RandomState instance or None, default=None
        For the solvers that draw random numbers. It is not passed to ``cv``.
    label_smoothing : float, default=0.0
        In [0, 1), as in `SoftmaxClassifier`. Scores are computed from y without smoothing.
    penalty_weights : array-like of shape (n_features,) or dict, default=None
        What the penalty of each feature is multiplied by, in order or by name: 0 leaves its coefficient free.
    monotonic_cst : array-like of int of shape (n_features,) or dict, default=None
        The sign that the coefficient of each feature may have, in order or by name: 1, -1, or 0 for any.
        Solved by "proximal-newton", so that the loss has to be convex and to state its second derivative, and
        coefficients that the constraint holds are exactly 0.
    n_threads : int or None, default=None
        Total number of threads for the passes over X; None uses as many as OMP_NUM_THREADS or the machine
        allows. The results are bitwise the same for any number.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted; for a matrix of probabilities the column names of a DataFrame, sorted too,
        else 0 to K - 1.
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
    intercept_ : ndarray of shape (1,) or (n_classes,)
    C_ : float
        The C chosen.
    l1_ratio_ : float
        The l1_ratio chosen.
    Cs_ : ndarray of shape (n_Cs,)
        All values of C, in the order given.
    l1_ratios_ : ndarray of shape (n_l1_ratios,)
    scores_ : ndarray of shape (n_folds, n_l1_ratios, n_Cs)
        The scores of the test rows.
    coefs_paths_ : ndarray of shape (n_folds, n_l1_ratios, n_Cs, 1 or n_classes, n_features + fit_intercept)
        The coefficients of each fit, the intercept last.
    n_iter_ : ndarray of int32 of shape (n_folds, n_l1_ratios, n_Cs)
        Iterations of each fit, which starts from the solution for the next smaller C.
    loss_ : float
        The final objective, penalty included; with ``refit=True`` only.
    loss_curve_ : list of float
        The objective at the start and after each iteration of the last fit; with ``refit=True`` only.
    solver_ : str
        The solver used; with "auto" the one chosen, even if a fit starts with another.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X had string column names.

    See Also
    --------
    SoftmaxClassifier : The model with a given penalty.
    LogisticClassifierCV : Independent sigmoids: one-vs-rest and multi-label.

    Notes
    -----
    Every fit is as accurate as a separate one would be. X is checked once, and the rows of each fold are
    extracted once. Along the path, from the strongest penalty to the weakest, each fit starts from the
    solution of the previous one.

    A class may be missing from the training rows of a fold, as long as two remain; its coefficients are then
    determined by the penalty and the other classes. Splitters and scorers get y as an array; the columns of
    a matrix of class probabilities are in the order of ``classes_``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklloss import SoftmaxClassifierCV
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SoftmaxClassifierCV(Cs=[0.1, 1, 10, 100], scoring="neg_log_loss").fit(X, y)
    >>> model.coefs_paths_.shape
    (5, 1, 4, 3, 5)
    >>> model.predict(X[:2])
    array([0, 0])
    """

    _classifier = SoftmaxClassifier
    _softmax = True

    def __init__(
        self,
        *,
        loss: str | Loss = "cross_entropy",
        Cs: int | ArrayLike = 10,
        l1_ratios: ArrayLike = (0.0,),
        fit_intercept: bool = True,
        cv: Any = None,
        dual: bool = False,
        scoring: str | Callable[..., float] | None = None,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iter: int = 100,
        class_weight: ClassWeight = None,
        n_jobs: int | None = None,
        verbose: int | bool = 0,
        refit: bool = True,
        intercept_scaling: float = 1,
        random_state: int | RandomState | None = None,
        label_smoothing: float = 0.0,
        penalty_weights: ArrayLike | dict[str, float] | None = None,
        monotonic_cst: ArrayLike | dict[str, int] | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.loss = loss
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.dual = dual
        self.scoring = scoring
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.refit = refit
        self.intercept_scaling = intercept_scaling
        self.random_state = random_state
        self.label_smoothing = label_smoothing
        self.penalty_weights = penalty_weights
        self.monotonic_cst = monotonic_cst
        self.n_threads = n_threads
