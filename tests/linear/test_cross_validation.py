"""The classifiers with a built-in cross-validation: scikit-learn's numbers, separate fits' numbers, any y."""

import inspect
import warnings

import joblib
import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import accuracy_score, f1_score, get_scorer
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
)
from sklearn.preprocessing import StandardScaler

from sklloss import (
    LogisticClassifier,
    LogisticClassifierCV,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
    losses,
    metrics,
)
from sklloss.linear.base import SOLVERS
from sklloss.model_selection import StratifiedSoftKFold

CVS = [LogisticClassifierCV, SoftmaxClassifierCV]
PLAIN = {LogisticClassifierCV: LogisticClassifier, SoftmaxClassifierCV: SoftmaxClassifier}
# as near the optimum as rounding lets them
TIGHT = {"tol": 1e-7, "max_iter": 1000}
DATA = {"iris": (load_iris, SoftmaxClassifierCV), "breast_cancer": (load_breast_cancer, LogisticClassifierCV)}


def scaled(name):
    load, estimator = DATA[name]
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X), y, estimator


def problem(rng, n=150, p=5, K=3):
    X = rng.normal(size=(n, p))
    y = (X @ rng.normal(size=(p, K)) + rng.gumbel(size=(n, K))).argmax(axis=1)
    return X, y


def probabilities(rng, X, K=3):
    return losses.CrossEntropy().predict(X @ rng.normal(size=(X.shape[1], K)) + rng.normal(size=(len(X), K)))


def labels(rng, X, L=3):
    return (X @ rng.normal(size=(X.shape[1], L)) + rng.logistic(size=(len(X), L)) > 0).astype(int)


def reference(X, y, *, sample_weight=None, **parameters):
    """A fitted LogisticRegressionCV, with the attributes of 1.10 whatever its version."""
    # some versions' newton-cholesky gives up on several classes
    solver = "newton-cholesky" if len(np.unique(y)) == 2 else "newton-cg"
    model = LogisticRegressionCV(solver=solver, tol=1e-10, max_iter=1000, **parameters)
    if "use_legacy_attributes" in model.get_params():
        model.set_params(use_legacy_attributes=False, l1_ratios=(0.0,))
    with warnings.catch_warnings():
        # its newest version wants to hear that accuracy is meant; its line search gives up in rounding
        warnings.simplefilter("ignore")
        model.fit(X, y, sample_weight=sample_weight)
    if isinstance(model.scores_, dict):
        model.scores_ = next(iter(model.scores_.values()))[:, None]
        paths = [path[:, None] for path in model.coefs_paths_.values()]
        model.coefs_paths_ = np.stack(paths, axis=3)
        model.C_ = float(model.C_[0])
        model.n_iter_ = model.n_iter_[0][:, None]
    return model


# scikit-learn's numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", [None, "accuracy", "neg_log_loss", "balanced_accuracy"])
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("data", DATA)
def test_paths_scores_and_choice_are_those_of_scikit_learn(data, refit, scoring):
    X, y, estimator = scaled(data)
    theirs = reference(X, y, Cs=7, scoring=scoring, refit=refit)
    ours = estimator(Cs=7, scoring=scoring, refit=refit, **TIGHT).fit(X, y)
    np.testing.assert_array_equal(ours.Cs_, theirs.Cs_)
    assert ours.coefs_paths_.shape == theirs.coefs_paths_.shape
    np.testing.assert_allclose(ours.coefs_paths_, theirs.coefs_paths_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.scores_, theirs.scores_, rtol=1e-5)
    assert ours.n_iter_.shape == theirs.n_iter_.shape
    np.testing.assert_allclose(ours.C_, theirs.C_, rtol=1e-12)
    assert ours.l1_ratio_ == 0.0
    np.testing.assert_array_equal(ours.l1_ratios_, [0.0])
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-4, atol=1e-4)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), rel=1e-6)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2.0, 1: 0.5}])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_weights_count_in_fits_and_scores_as_in_scikit_learn(rng, fit_intercept, class_weight):
    X, y, estimator = scaled("breast_cancer")
    weight = rng.exponential(size=len(y))
    options = {
        "Cs": [1.0, 0.01, 10.0],
        "scoring": "neg_log_loss",
        "fit_intercept": fit_intercept,
        "class_weight": class_weight,
    }
    # what "balanced" means since 1.8; before, weights did not count in it
    balance = dict(enumerate(weight.sum() / (2 * np.bincount(y, weights=weight))))
    explicit = options | {"class_weight": balance if class_weight == "balanced" else class_weight}
    theirs = reference(X, y, sample_weight=weight, **explicit)
    ours = estimator(**options, **TIGHT).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(ours.coefs_paths_, theirs.coefs_paths_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-4, atol=1e-4)
    # before 1.8 scikit-learn's scores were not weighted
    accuracy = estimator(cv=3).fit(X, y, sample_weight=weight).scores_
    for (train, test), score, path in zip(
        StratifiedKFold(5).split(X, y), ours.scores_, ours.coefs_paths_, strict=True
    ):
        model = LogisticClassifier(class_weight=class_weight).fit(X[train], y[train])
        model.coef_, model.intercept_ = path[0, 1, :, :30], path[0, 1, :, 30] if fit_intercept else 0.0
        expected = get_scorer("neg_log_loss")(model, X[test], y[test], sample_weight=weight[test])
        assert score[0, 1] == pytest.approx(expected, rel=1e-9)
    assert accuracy.shape == (3, 1, 10)


OWN = {"penalty_weights", "monotonic_cst"}


@pytest.mark.parametrize("estimator", CVS)
def test_parameters_of_scikit_learn_are_here_with_its_defaults(estimator):
    theirs = inspect.signature(LogisticRegressionCV.__init__).parameters
    ours = inspect.signature(estimator.__init__).parameters
    gone = {"self", "penalty", "multi_class", "use_legacy_attributes"}
    assert set(theirs) - gone == set(ours) - {"self", "loss", "label_smoothing", "n_threads"} - OWN
    for name in set(theirs) - gone - {"solver", "l1_ratios", "scoring"}:
        assert ours[name].default == theirs[name].default, name
    # what scikit-learn's next versions default to, or what its present one means
    assert ours["l1_ratios"].default == (0.0,)
    assert ours["scoring"].default is None
    assert ours["solver"].default == "auto"


# The same as separate fits -----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["auto", "newton-cholesky", "newton-cg", "lbfgs"])
@pytest.mark.parametrize("target", ["labels", "two labels", "soft", "soft binary", "multi-label"])
@pytest.mark.parametrize("estimator", CVS)
def test_grid_search_over_the_plain_estimator_agrees(rng, estimator, target, solver):
    X, y = problem(rng)
    if target == "two labels":
        y = np.array(["no", "yes"])[(y > 0).astype(int)]
    elif target == "soft":
        y = probabilities(rng, X)
    elif target == "soft binary":
        y = probabilities(rng, X, 2)[:, 1]
    elif target == "multi-label":
        y = labels(rng, X)
    softmax = estimator is SoftmaxClassifierCV
    if softmax and target == "multi-label":
        y = np.eye(3)[y[:, 0] + y[:, 1]]
    if softmax and target == "soft binary":
        y = np.column_stack([1 - y, y])
    matrix = y.ndim == 2
    scoring = metrics.neg_log_loss if matrix and not softmax else metrics.neg_cross_entropy
    folds = KFold(4, shuffle=True, random_state=0)
    Cs = [10.0, 0.01, 0.1, 1.0, 100.0]
    options = {"solver": solver, "class_weight": None, "label_smoothing": 0.1, **TIGHT}
    model = estimator(Cs=Cs, cv=folds, scoring=scoring, **options).fit(X, y)
    search = GridSearchCV(PLAIN[estimator](**options), {"C": Cs}, cv=folds, scoring=scoring).fit(X, y)
    for k in range(4):
        np.testing.assert_allclose(
            model.scores_[k, 0], search.cv_results_[f"split{k}_test_score"], rtol=1e-6, atol=1e-9
        )
    assert search.best_params_ == {"C": model.C_}
    np.testing.assert_allclose(model.coef_, search.best_estimator_.coef_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X), search.predict_proba(X), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(model.predict(X), search.predict(X))
    assert model.loss_ == pytest.approx(search.best_estimator_.loss_, rel=1e-9)
    assert model.score(X, y) == pytest.approx(search.score(X, y), rel=1e-6)
    assert model.solver_ == search.best_estimator_.solver_


@pytest.mark.parametrize("estimator", CVS)
def test_the_order_of_the_grid_and_threads_do_not_matter(rng, estimator):
    X, y = problem(rng)
    Cs = np.logspace(-3, 3, 13)
    order = rng.permutation(13)
    sorted_ = estimator(Cs=Cs, n_threads=1, scoring="neg_log_loss").fit(X, y)
    for options in ({"n_jobs": 2}, {"n_jobs": 2, "n_threads": 3}, {"n_threads": 7}):
        model = estimator(Cs=Cs[order], scoring="neg_log_loss", **options).fit(X, y)
        np.testing.assert_array_equal(model.Cs_, Cs[order])
        for name in ("scores_", "coefs_paths_", "n_iter_"):
            np.testing.assert_array_equal(getattr(model, name), getattr(sorted_, name)[:, :, order])
        np.testing.assert_array_equal(model.coef_, sorted_.coef_)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        model = estimator(Cs=Cs, scoring=metrics.neg_cross_entropy).fit(X, y)
    np.testing.assert_array_equal(model.coefs_paths_, sorted_.coefs_paths_)


# the shares of L1 that the plain classifiers take
RATIOS = [0.5, 0.0, 1.0] if "proximal-newton" in SOLVERS else [0.0]


@pytest.mark.parametrize("estimator", CVS)
def test_grid_search_over_l1_ratios_agrees(rng, estimator):
    X, y = problem(rng)
    Cs = [3.0, 0.03, 0.3]
    model = estimator(Cs=Cs, l1_ratios=RATIOS, cv=3, scoring="neg_log_loss", **TIGHT).fit(X, y)
    grid = {"C": Cs, "l1_ratio": RATIOS}
    search = GridSearchCV(PLAIN[estimator](**TIGHT), grid, cv=3, scoring="neg_log_loss").fit(X, y)
    np.testing.assert_array_equal(model.l1_ratios_, RATIOS)
    expected = search.cv_results_["mean_test_score"].reshape(3, len(RATIOS)).T
    np.testing.assert_allclose(model.scores_.mean(axis=0), expected, rtol=1e-5)
    assert search.best_params_ == {"C": model.C_, "l1_ratio": model.l1_ratio_}
    np.testing.assert_allclose(model.coef_, search.best_estimator_.coef_, rtol=1e-4, atol=1e-5)
    assert model.solver_ == search.best_estimator_.solver_
    mean = estimator(Cs=Cs, l1_ratios=RATIOS, cv=3, refit=False, scoring="neg_log_loss", **TIGHT).fit(X, y)
    best = [np.unravel_index(np.argmax(fold), fold.shape) for fold in mean.scores_]
    np.testing.assert_allclose(mean.C_, np.mean([Cs[c] for _, c in best]), rtol=1e-12)
    np.testing.assert_allclose(mean.l1_ratio_, np.mean([RATIOS[r] for r, _ in best]), rtol=1e-12)
    paths = [path[index] for path, index in zip(mean.coefs_paths_, best, strict=True)]
    np.testing.assert_allclose(mean.coef_, np.mean(paths, axis=0)[:, :-1], rtol=1e-12)
    np.testing.assert_allclose(mean.intercept_, np.mean(paths, axis=0)[:, -1], rtol=1e-12)


def test_the_last_fit_of_a_path_may_have_no_penalty(rng):
    X, y = problem(rng)
    model = SoftmaxClassifierCV(Cs=[np.inf, 1.0, 100.0], cv=3, **TIGHT).fit(X, y)
    for k, (train, _) in enumerate(StratifiedKFold(3).split(X, y)):
        for c, C in enumerate(model.Cs_):
            alone = SoftmaxClassifier(C=C, **TIGHT).fit(X[train], y[train])
            path = model.coefs_paths_[k, 0, c]
            # without a penalty the outputs may shift alike
            np.testing.assert_allclose(
                path - path.mean(axis=0),
                np.column_stack([alone.coef_, alone.intercept_])
                - np.append(alone.coef_.mean(axis=0), alone.intercept_.mean()),
                rtol=1e-4,
                atol=1e-5,
            )


@pytest.mark.parametrize("container", [scipy.sparse.csr_matrix, scipy.sparse.csc_array, np.asfortranarray])
def test_sparse_rows_and_any_layout_give_the_same_path(rng, container):
    X, y = problem(rng)
    X[X < 0.5] = 0.0
    dense = SoftmaxClassifierCV(Cs=4, **TIGHT).fit(X, y)
    model = SoftmaxClassifierCV(Cs=4, **TIGHT).fit(container(X), y)
    np.testing.assert_allclose(model.coefs_paths_, dense.coefs_paths_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.coef_, dense.coef_, rtol=1e-4, atol=1e-5)
    assert model.score(container(X), y) == dense.score(X, y)


@pytest.mark.parametrize("estimator", CVS)
def test_float32_stays_float32(rng, estimator):
    X, y = problem(rng)
    model = estimator(Cs=6, scoring="neg_log_loss").fit(X.astype(np.float32), y)
    exact = estimator(Cs=6, scoring="neg_log_loss").fit(X.astype(np.float32).astype(np.float64), y)
    for name in ("coef_", "intercept_", "coefs_paths_"):
        assert getattr(model, name).dtype == np.float32
        np.testing.assert_allclose(getattr(model, name), getattr(exact, name), rtol=1e-2, atol=1e-3)
    assert model.scores_.dtype == np.float64
    np.testing.assert_allclose(model.scores_, exact.scores_, rtol=1e-3)


def test_data_as_they_come_converge_without_a_warning():
    X, y = load_breast_cancer(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LogisticClassifierCV(Cs=12, cv=3, scoring="neg_log_loss").fit(X, y)
    for k, (train, _) in enumerate(StratifiedKFold(3).split(X, y)):
        for c in (0, 6, 11):
            best = LogisticClassifier(C=model.Cs_[c], **TIGHT).fit(X[train], y[train])
            w = model.coefs_paths_[k, 0, c, 0].astype(np.longdouble)
            raw = X[train].astype(np.longdouble) @ w[:-1] + w[-1]
            sign = np.where(y[train] == 1, 1, -1)
            value = model.Cs_[c] * np.logaddexp(0, -sign * raw).sum() + 0.5 * (w[:-1] ** 2).sum()
            assert value - best.loss_ < 1e-6 * best.loss_


# Targets -----------------------------------------------------------------------------------------------


def test_soft_labels_are_stratified_by_argmax_and_columns_name_classes(rng):
    pd = pytest.importorskip("pandas")
    X, _ = problem(rng)
    P = probabilities(rng, X)
    names = ["dog", "cat", "eel"]
    model = SoftmaxClassifierCV(Cs=4).fit(X, pd.DataFrame(P, columns=names))
    assert model.classes_.tolist() == ["cat", "dog", "eel"]
    splits = list(StratifiedSoftKFold(5).split(X, P[:, [1, 0, 2]]))
    explicit = SoftmaxClassifierCV(Cs=4, cv=splits).fit(X, P[:, [1, 0, 2]])
    np.testing.assert_array_equal(model.scores_, explicit.scores_)
    np.testing.assert_array_equal(model.coefs_paths_, explicit.coefs_paths_)
    np.testing.assert_array_equal(model.predict(X), np.array(["cat", "dog", "eel"])[explicit.predict(X)])
    assert model.score(X, pd.DataFrame(P, columns=names)) == explicit.score(X, P[:, [1, 0, 2]])


def test_one_hot_rows_are_the_labels_they_stand_for(rng):
    X, y = problem(rng)
    hard = SoftmaxClassifierCV(Cs=4, **TIGHT).fit(X, y)
    soft = SoftmaxClassifierCV(Cs=4, **TIGHT).fit(X, np.eye(3)[y])
    np.testing.assert_allclose(soft.scores_, hard.scores_, rtol=1e-12)
    np.testing.assert_allclose(soft.coefs_paths_, hard.coefs_paths_, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["labels", "text", "one-vs-rest", "multi-label", "sparse", "soft binary"])
def test_the_default_scores_are_those_of_the_plain_estimator(rng, kind):
    X, y = problem(rng)
    if kind == "labels":
        y = y > 0
    elif kind == "text":
        y = np.array(["a", "b"], dtype=object)[(y > 0).astype(int)]
    elif kind in ("multi-label", "sparse"):
        y = labels(rng, X)
        y = scipy.sparse.csr_matrix(y) if kind == "sparse" else y
    elif kind == "soft binary":
        y = probabilities(rng, X, 2)[:, 1]
    weight = rng.exponential(size=len(X))
    model = LogisticClassifierCV(Cs=[0.1, 1.0], cv=3, class_weight="balanced").fit(X, y, sample_weight=weight)
    argmax = LogisticClassifierCV(
        Cs=[0.1, 1.0], cv=3, class_weight="balanced", scoring=metrics.argmax_accuracy
    ).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(model.scores_, argmax.scores_, rtol=1e-12)
    np.testing.assert_array_equal(model.coef_, argmax.coef_)
    plain = LogisticClassifier(C=model.C_, class_weight="balanced").fit(X, y, sample_weight=weight)
    assert model.score(X, y, sample_weight=weight) == pytest.approx(plain.score(X, y, weight), rel=1e-12)


def test_a_loss_with_an_inverse_link_of_its_own(rng):
    X, y = problem(rng)
    model = LogisticClassifierCV(loss="huber", Cs=[0.1, 1.0], scoring="neg_log_loss").fit(X, y > 0)
    plain = LogisticClassifier(loss="huber", C=model.C_).fit(X, y > 0)
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X), rtol=1e-3, atol=1e-4)
    focal = SoftmaxClassifierCV(loss="focal", Cs=3).fit(X, y)
    assert focal.solver_ == "lbfgs"


@pytest.mark.parametrize(
    "scoring", [None, "accuracy", "neg_log_loss", "f1_macro", metrics.neg_cross_entropy], ids=str
)
@pytest.mark.parametrize("cls", [LogisticClassifierCV, SoftmaxClassifierCV])
def test_an_offset_counts_in_fits_and_scores(cls, scoring):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4))
    offset = 3.0 * rng.normal(size=300)
    y = (X[:, 0] + offset + rng.logistic(size=300) > 0).astype(int)
    model = cls(Cs=[0.01, 1.0], cv=3, scoring=scoring).fit(X, y, offset=offset)
    train, test = next(StratifiedKFold(3).split(X, y))
    alone = LogisticClassifier(C=1.0).fit(X[train], y[train], offset=offset[train])
    raw = alone.decision_function(X[test], offset[test])
    expected = {
        None: accuracy_score(y[test], raw > 0),
        "accuracy": accuracy_score(y[test], raw > 0),
        "f1_macro": f1_score(y[test], raw > 0, average="macro"),
    }.get(scoring, -losses.LogLoss()(y[test], raw))
    assert model.scores_[0, 0, 1] == pytest.approx(expected, rel=1e-5)
    whole = LogisticClassifier(C=model.C_).fit(X, y, offset=offset)
    np.testing.assert_allclose(model.coef_, whole.coef_, rtol=1e-3, atol=1e-4)
    if scoring in (None, "accuracy"):
        assert model.score(X, y, offset=offset) == accuracy_score(y, model.predict(X, offset))
    for missing in (model.predict, lambda X: model.score(X, y)):
        with pytest.raises(ValueError, match="fitted with an offset"):
            missing(X)
    with pytest.raises(ValueError, match="offset must have shape"):
        model.fit(X, y, offset=offset[:-1])
