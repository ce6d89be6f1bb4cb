"""The linear classifiers that choose their penalty by cross-validation."""

from collections.abc import Callable
from typing import Any

from numpy.random import RandomState
from numpy.typing import ArrayLike
from sklearn.utils import Tags

from sklloss.data import ClassWeight
from sklloss.linear import LogisticClassifier, SoftmaxClassifier
from sklloss.linear.cross_validation_base import LinearClassifierCV
from sklloss.losses import Loss

__all__ = ["LogisticClassifierCV", "SoftmaxClassifierCV"]


class LogisticClassifierCV(LinearClassifierCV):
    """`LogisticClassifier` with C chosen by cross-validation, along a path of values.

    Independent sigmoids: two classes, one-vs-rest, multi-label, or probabilities; see `LogisticClassifier`.

    Parameters
    ----------
    loss : str or Loss, default="log_loss"
        As in `LogisticClassifier`.
    Cs : int or list of float, default=10
        Values of C, the inverse strength of the penalty, to choose from; an integer means so many from 1e-4
        to 1e4, evenly in their logarithm. ``numpy.inf`` is no penalty. They are fitted from the smallest
        to the largest, in whatever order they are given.
    l1_ratios : list of float, default=(0.0,)
        Shares of L1 in the penalty, in [0, 1], to choose from; those that `LogisticClassifier` takes.
    fit_intercept : bool, default=True
        Whether to learn an intercept, which is not penalised.
    cv : int, splitter, iterable of (train, test) or None, default=None
        How to split the rows; an integer is a number of folds, None means 5. Labels are split by
        `StratifiedKFold`, probabilities (n,) by `sklloss.model_selection.StratifiedSoftKFold`, and a matrix
        (n, L) by `KFold`.
    dual : bool, default=False
        Only False: the dual is for a solver that is not here.
    scoring : str, callable or None, default=None
        What to choose by: the name of a scikit-learn scorer, a scorer (`sklloss.metrics` has some that take
        every kind of y), or a callable ``scorer(estimator, X, y)``. None is the accuracy, as `score` of
        `LogisticClassifier` states it; "neg_log_loss" tells more about probabilities.
    solver : str, default="auto"
        As in `LogisticClassifier`.
    tol : float, default=1e-4
        Accuracy of each fit, as in `LogisticClassifier`.
    max_iter : int, default=100
        Most iterations of each fit; reaching it is a ConvergenceWarning.
    class_weight : dict, "balanced", list of these or None, default=None
        Weights by class label; "balanced" makes every class weigh the same in total, over all rows
        as over those of a fold.
    n_jobs : int or None, default=None
        Folds to fit at a time; None is 1 unless a `joblib.parallel_config` says otherwise, -1 is one for
        each CPU. They run as threads of this process, which share ``n_threads``.
    verbose : int, default=0
        Positive to print the best score of each fold.
    refit : bool, default=True
        Whether to fit all rows with the penalty that has the best mean score. Else the coefficients, C
        and l1_ratio are means over the folds, each at the fold's own best score.
    intercept_scaling : float, default=1
        Only 1: it has a meaning for a solver that is not here.
    random_state : int, RandomState instance or None, default=None
        For solvers that draw random numbers. It does not reach ``cv``.
    label_smoothing : float, default=0.0
        In [0, 1), as in `LogisticClassifier`. Scorers see y as it is.
    n_threads : int or None, default=None
        Threads for the passes over X, in all; None takes what OMP_NUM_THREADS or the machine allows. Fits
        have the same bits for any value.

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
        Iterations; the most over outputs, from the solution for the next smaller C.
    loss_ : float
        The final objective, penalty included; with ``refit=True`` only.
    loss_curve_ : list of float
        The objective at the start and after each iteration of the last fit; with ``refit=True`` only.
    solver_ : str
        The solver used; where "auto" has chosen Newton's method, that, whatever it began by.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X had string column names.

    See Also
    --------
    LogisticClassifier : The model with a given penalty.
    SoftmaxClassifierCV : One softmax over all classes.

    Notes
    -----
    Every fit reaches the accuracy that one on its own would. X is checked once, the rows of a fold are taken
    once, and each fit along the path starts from the last, from the strongest penalty to the weakest.

    A class may be missing from the rows that a fold learns from, as long as there are two: its
    coefficients are what the penalty and the other classes make of it. Splitters and scorers are
    given arrays; a y of labels is one, and one of a DataFrame too.

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
        n_threads: int | None = None,
    ) -> None:
        super().__init__(
            loss=loss,
            Cs=Cs,
            l1_ratios=l1_ratios,
            fit_intercept=fit_intercept,
            cv=cv,
            dual=dual,
            scoring=scoring,
            solver=solver,
            tol=tol,
            max_iter=max_iter,
            class_weight=class_weight,
            n_jobs=n_jobs,
            verbose=verbose,
            refit=refit,
            intercept_scaling=intercept_scaling,
            random_state=random_state,
            label_smoothing=label_smoothing,
            n_threads=n_threads,
        )

    def __sklearn_tags__(self) -> Tags:
        """Tags for scikit-learn: a 2-D y of labels is welcome too."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class SoftmaxClassifierCV(LinearClassifierCV):
    """`SoftmaxClassifier` with C chosen by cross-validation, along a path of values.

    One softmax over all classes, of labels or of class probabilities; see `SoftmaxClassifier`.

    Parameters
    ----------
    loss : str or Loss, default="cross_entropy"
        As in `SoftmaxClassifier`.
    Cs : int or list of float, default=10
        Values of C, the inverse strength of the penalty, to choose from; an integer means so many from 1e-4
        to 1e4, evenly in their logarithm. ``numpy.inf`` is no penalty. They are fitted from the smallest
        to the largest, in whatever order they are given.
    l1_ratios : list of float, default=(0.0,)
        Shares of L1 in the penalty, in [0, 1], to choose from; those that `SoftmaxClassifier` takes.
    fit_intercept : bool, default=True
        Whether to learn an intercept, which is not penalised.
    cv : int, splitter, iterable of (train, test) or None, default=None
        How to split the rows; an integer is a number of folds, None means 5. Labels are split by
        `StratifiedKFold`, a matrix of class probabilities by `sklloss.model_selection.StratifiedSoftKFold`.
    dual : bool, default=False
        Only False: the dual is for a solver that is not here.
    scoring : str, callable or None, default=None
        What to choose by: the name of a scikit-learn scorer, a scorer (`sklloss.metrics` has some that take
        every kind of y), or a callable ``scorer(estimator, X, y)``. None is the accuracy, as `score` of
        `SoftmaxClassifier` states it; "neg_log_loss" tells more about probabilities.
    solver : str, default="auto"
        As in `SoftmaxClassifier`.
    tol : float, default=1e-4
        Accuracy of each fit, as in `SoftmaxClassifier`.
    max_iter : int, default=100
        Most iterations of each fit; reaching it is a ConvergenceWarning.
    class_weight : dict, "balanced" or None, default=None
        Weights by class label; "balanced" makes every class weigh the same in total, over all rows
        as over those of a fold.
    n_jobs : int or None, default=None
        Folds to fit at a time; None is 1 unless a `joblib.parallel_config` says otherwise, -1 is one for
        each CPU. They run as threads of this process, which share ``n_threads``.
    verbose : int, default=0
        Positive to print the best score of each fold.
    refit : bool, default=True
        Whether to fit all rows with the penalty that has the best mean score. Else the coefficients, C
        and l1_ratio are means over the folds, each at the fold's own best score.
    intercept_scaling : float, default=1
        Only 1: it has a meaning for a solver that is not here.
    random_state : int, RandomState instance or None, default=None
        For solvers that draw random numbers. It does not reach ``cv``.
    label_smoothing : float, default=0.0
        In [0, 1), as in `SoftmaxClassifier`. Scorers see y as it is.
    n_threads : int or None, default=None
        Threads for the passes over X, in all; None takes what OMP_NUM_THREADS or the machine allows. Fits
        have the same bits for any value.

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
        Iterations; from the solution for the next smaller C.
    loss_ : float
        The final objective, penalty included; with ``refit=True`` only.
    loss_curve_ : list of float
        The objective at the start and after each iteration of the last fit; with ``refit=True`` only.
    solver_ : str
        The solver used; where "auto" has chosen Newton's method, that, whatever it began by.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X had string column names.

    See Also
    --------
    SoftmaxClassifier : The model with a given penalty.
    LogisticClassifierCV : Independent sigmoids: one-vs-rest and multi-label.

    Notes
    -----
    Every fit reaches the accuracy that one on its own would. X is checked once, the rows of a fold are taken
    once, and each fit along the path starts from the last, from the strongest penalty to the weakest.

    A class may be missing from the rows that a fold learns from, as long as there are two: its
    coefficients are what the penalty and the other classes make of it. Splitters and scorers are
    given arrays; a matrix of class probabilities has its columns in the order of ``classes_``.

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
        n_threads: int | None = None,
    ) -> None:
        super().__init__(
            loss=loss,
            Cs=Cs,
            l1_ratios=l1_ratios,
            fit_intercept=fit_intercept,
            cv=cv,
            dual=dual,
            scoring=scoring,
            solver=solver,
            tol=tol,
            max_iter=max_iter,
            class_weight=class_weight,
            n_jobs=n_jobs,
            verbose=verbose,
            refit=refit,
            intercept_scaling=intercept_scaling,
            random_state=random_state,
            label_smoothing=label_smoothing,
            n_threads=n_threads,
        )
