"""Scorers and metrics say of soft, hard and multi-label targets what their formulas say."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sklloss import LogisticClassifier, SoftmaxClassifier, losses, metrics
from sklloss.model_selection import StratifiedSoftKFold

SCORERS = ["argmax_accuracy", "neg_brier_score", "neg_cross_entropy", "neg_kl_divergence", "neg_log_loss"]
OVER_CLASSES = [name for name in SCORERS if name != "neg_log_loss"]
NAMES = np.array(["rose", "iris", "lily"])
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


@pytest.fixture(scope="module")
def iris():
    """X, labels, and soft labels in the proportions of each row's neighbours."""
    X, y = load_iris(return_X_y=True)
    nearest = np.argsort(((X[:, None] - X[None]) ** 2).sum(axis=2), axis=1)[:, :8]
    soft = np.eye(3)[y[nearest]].mean(axis=1)
    soft = 0.9 * soft + 0.1 * np.array([0.5, 0.3, 0.2])
    return X, y, soft


@pytest.fixture(scope="module")
def multilabel():
    """X and three overlapping labels of real flowers."""
    X, _ = load_iris(return_X_y=True)
    Y = (X[:, [0, 1, 3]] + X[:, [2, 2, 2]] > [9.5, 7.0, 5.5]).astype(int)
    return X, Y


def by_hand(name, y, P, predicted, weight):
    """The score of probabilities over classes, written out row by row."""
    total = 0.0
    for row, p, best, w in zip(y, P, predicted, weight):
        positive = row > 0
        cross = -sum(row[positive] * np.log(p[positive]))
        entropy = -sum(row[positive] * np.log(row[positive]))
        squares = sum((row - p) ** 2)
        total += (
            w
            * {
                "argmax_accuracy": float(row.argmax() == best),
                "neg_brier_score": -squares / (2 if len(p) == 2 else 1),
                "neg_cross_entropy": -cross,
                "neg_kl_divergence": entropy - cross,
            }[name]
        )
    return total / sum(weight)


# Over classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OVER_CLASSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_score_of_soft_rows_is_its_formula_by_hand(iris, rng, name, weighted):
    X, _, soft = iris
    weight = rng.uniform(0, 2, size=150) if weighted else None
    model = SoftmaxClassifier().fit(X, soft)
    expected = by_hand(
        name, soft, model.predict_proba(X), model.predict(X), np.ones(150) if weight is None else weight
    )
    score = getattr(metrics, name)(model, X, soft, sample_weight=weight)
    assert isinstance(score, float)
    assert score == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", OVER_CLASSES)
@pytest.mark.parametrize("naming", ["ints", "strings", "objects", "negative", "two", "bools"])
def test_labels_of_any_type_score_as_their_one_hot_rows(iris, name, naming):
    X, y, _ = iris
    scorer = getattr(metrics, name)
    if naming in ("two", "bools"):
        names = np.array([-1, 1]) if naming == "two" else np.array([False, True])
        X, y = X[50:], y[50:] - 1
    else:
        names = {
            "ints": np.arange(3),
            "strings": NAMES,
            "objects": NAMES.astype(object),
            "negative": np.array([-3, 0, 7]),
        }[naming]
    labels = names[y]
    one_hot = np.eye(len(names))[np.searchsorted(np.sort(names), labels)]
    for model in (
        SoftmaxClassifier().fit(X, labels),
        RandomForestClassifier(8, random_state=0).fit(X, labels),
    ):
        codes = np.searchsorted(model.classes_, model.predict(X))
        P = np.maximum(model.predict_proba(X), 1e-300)
        expected = by_hand(name, one_hot, P, codes, np.ones(len(X)))
        assert scorer(model, X, labels) == pytest.approx(expected, rel=1e-12)
        assert scorer(model, X, labels.tolist()) == scorer(model, X, labels)
        assert scorer(model, X, one_hot) == pytest.approx(expected, rel=1e-12)
        assert scorer(model, X, one_hot.astype(bool)) == pytest.approx(expected, rel=1e-12)


def test_scores_of_hard_labels_are_scikit_learns(iris):
    X, y, _ = iris
    rng = np.random.default_rng(3)
    weight = rng.uniform(0.1, 2, size=150)
    for model in (SoftmaxClassifier(), LogisticRegression(max_iter=500), LogisticClassifier()):
        model.fit(X, NAMES[y])
        theirs = get_scorer("neg_log_loss")(model, X, NAMES[y], sample_weight=weight)
        assert metrics.neg_cross_entropy(model, X, NAMES[y], weight) == pytest.approx(theirs, rel=1e-12)
        assert metrics.neg_kl_divergence(model, X, NAMES[y], weight) == pytest.approx(theirs, rel=1e-12)
        theirs = get_scorer("accuracy")(model, X, NAMES[y], sample_weight=weight)
        assert metrics.argmax_accuracy(model, X, NAMES[y], weight) == pytest.approx(theirs, rel=1e-12)
    X, y = load_breast_cancer(return_X_y=True)
    for model in (LogisticClassifier(C=1e-4), GaussianNB(var_smoothing=1e-2)):
        model.fit(X, y)
        theirs = get_scorer("neg_brier_score")(model, X, y)
        assert metrics.neg_brier_score(model, X, y) == pytest.approx(theirs, rel=1e-12)
        theirs = get_scorer("neg_log_loss")(model, X, y)
        assert metrics.neg_log_loss(model, X, y) == pytest.approx(theirs, rel=1e-9)
        assert metrics.neg_cross_entropy(model, X, y) == metrics.neg_log_loss(model, X, y)


def test_the_brier_score_of_several_classes_is_scikit_learns(iris):
    X, y, _ = iris
    P = SoftmaxClassifier().fit(X, y).predict_proba(X)
    from sklearn.metrics import brier_score_loss

    try:
        theirs = brier_score_loss(y, P)
    except ValueError:  # before scikit-learn 1.7 it was for two classes only
        theirs = np.mean(((np.eye(3)[y] - P) ** 2).sum(axis=1))
    assert metrics.brier_score_loss(y, P) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("name", SCORERS)
def test_probabilities_of_the_second_class_score_as_rows_of_both(name, rng):
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    q = np.where(y == 1, rng.uniform(0.6, 1, y.size), rng.uniform(0, 0.4, y.size))
    scorer = getattr(metrics, name)
    model = LogisticClassifier(C=1e-2).fit(X, q)
    rows = np.column_stack([1 - q, q])
    expected = by_hand(
        name if name != "neg_log_loss" else "neg_cross_entropy",
        rows,
        model.predict_proba(X),
        model.predict(X),
        np.ones(y.size),
    )
    assert scorer(model, X, q) == pytest.approx(expected, rel=1e-12)
    # whether a fold happens to hold only zeros and ones changes nothing
    certain = np.flatnonzero(np.abs(q - 0.5) > 0.45)
    rounded = q[certain].round()
    assert scorer(model, X[certain], rounded) == pytest.approx(
        scorer(model, X[certain], np.abs(rounded - 1e-14)), abs=1e-10
    )
    if name != "neg_log_loss":
        assert scorer(model, X, rows) == pytest.approx(expected, rel=1e-12)
    soft = SoftmaxClassifier(C=1e-2).fit(X, rows)
    assert scorer(soft, X, q) == pytest.approx(scorer(model, X, q), rel=1e-6)


@pytest.mark.parametrize("name", OVER_CLASSES)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_the_columns_of_a_frame_are_found_by_name(iris, name, library):
    frame = pytest.importorskip(library).DataFrame
    X, _, soft = iris
    named = frame(dict(zip(NAMES, soft.T)))
    scorer = getattr(metrics, name)
    model = SoftmaxClassifier().fit(X, named)
    plain = SoftmaxClassifier().fit(X, soft)
    assert scorer(model, X, named) == pytest.approx(scorer(plain, X, soft), rel=1e-7)
    assert scorer(model, X, named[sorted(NAMES)]) == scorer(model, X, named)
    assert scorer(model, X, soft[:, np.argsort(NAMES)]) == scorer(model, X, named)
    with pytest.raises(ValueError, match="columns"):
        scorer(model, X, frame(dict(zip(["rose", "iris", "thistle"], soft.T))))


def test_kl_divergence_is_zero_for_a_perfect_prediction_and_its_entropy_below_cross_entropy(iris):
    _, _, soft = iris
    assert metrics.kl_divergence_loss(soft, soft) == 0.0
    entropy = -np.mean((soft * np.log(soft)).sum(axis=1))
    assert metrics.cross_entropy_loss(soft, soft) == pytest.approx(entropy, rel=1e-12)
    one_hot = np.eye(3)[soft.argmax(axis=1)]
    assert metrics.kl_divergence_loss(one_hot, soft) == metrics.cross_entropy_loss(one_hot, soft)


# Over labels -------------------------------------------------------------------------------------------


def label_scores(Y, P, weight):
    inside = np.clip(P, 1e-300, 1 - 1e-16)
    rows = (Y * np.log(inside) + (1 - Y) * np.log1p(-inside)).sum(axis=1)
    squares = ((Y - P) ** 2).sum(axis=1)
    right = ((P > 0.5) == (Y > 0.5)).all(axis=1)
    return {
        "neg_log_loss": np.average(rows, weights=weight),
        "neg_brier_score": -np.average(squares, weights=weight),
        "argmax_accuracy": np.average(right, weights=weight),
    }


@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.parametrize("soft", [False, True])
def test_multi_label_scores_sum_over_labels(multilabel, rng, soft, outputs):
    X, Y = multilabel
    Y = Y[:, :outputs]
    if soft:
        Y = np.where(Y == 1, rng.uniform(0.6, 1, Y.shape), rng.uniform(0, 0.4, Y.shape))
    weight = rng.uniform(0, 2, size=150)
    model = LogisticClassifier().fit(X, Y)
    for name, expected in label_scores(Y, model.predict_proba(X), weight).items():
        scorer = getattr(metrics, name)
        assert scorer(model, X, Y, weight) == pytest.approx(expected, rel=1e-10)
        if not soft:
            assert scorer(model, X, scipy.sparse.csr_array(Y), weight) == scorer(model, X, Y, weight)
    loss = losses.LogLoss()(Y, model.decision_function(X), weight)
    assert metrics.neg_log_loss(model, X, Y, weight) == pytest.approx(-loss, rel=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        OneVsRestClassifier(LogisticRegression()),
        MultiOutputClassifier(LogisticRegression()),
        RandomForestClassifier(8, max_depth=2, random_state=0),
        make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression())),
    ],
    ids=["one-vs-rest", "multi-output", "forest", "pipeline"],
)
def test_multi_label_scores_of_scikit_learns_classifiers(multilabel, model):
    X, Y = multilabel
    model = clone(model).fit(X, Y)
    P = model.predict_proba(X)
    if isinstance(P, list):
        P = np.column_stack([rows[:, 1] for rows in P])
    expected = label_scores(Y, P, np.ones(150))
    assert metrics.neg_brier_score(model, X, Y) == pytest.approx(expected["neg_brier_score"], rel=1e-12)
    if P.min() > 0 and P.max() < 1:
        assert metrics.neg_log_loss(model, X, Y) == pytest.approx(expected["neg_log_loss"], rel=1e-9)
    assert metrics.argmax_accuracy(model, X, Y) == model.score(X, Y)
    assert metrics.log_loss(Y, model.predict_proba(X)) == pytest.approx(-metrics.neg_log_loss(model, X, Y))


def test_a_label_that_no_training_row_had_has_probability_zero(multilabel):
    X, Y = multilabel
    Y = Y.copy()
    Y[:, 1] = 0
    model = RandomForestClassifier(8, random_state=0).fit(X, Y)
    assert len(model.predict_proba(X)[1][0]) == 1
    P = np.column_stack([model.predict_proba(X)[0][:, 1], np.zeros(150), model.predict_proba(X)[2][:, 1]])
    assert metrics.neg_brier_score(model, X, Y) == pytest.approx(-((Y - P) ** 2).sum(axis=1).mean())
    assert np.isfinite(metrics.neg_log_loss(model, X, Y))
    Y[0, 1] = 1
    assert metrics.neg_log_loss(model, X, Y) == -np.inf


# Exact at the extremes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("logit", [50.0, 1e3, 1e30])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_certain_wrong_answer_costs_its_logit(multilabel, logit, dtype):
    X, Y = multilabel
    X = X.astype(dtype)
    binary = LogisticClassifier().fit(X, Y[:, 0])
    several = LogisticClassifier().fit(X, Y)
    softmax = SoftmaxClassifier().fit(X, load_iris().target)
    for model in (binary, several, softmax):
        model.coef_[:] = 0
        model.intercept_[:] = 0
    binary.intercept_[0] = softmax.intercept_[0] = several.intercept_[1] = logit
    assert metrics.neg_log_loss(binary, X[:1], [0]) == pytest.approx(-logit, rel=1e-6)
    assert metrics.neg_cross_entropy(binary, X[:1], [0.25]) == pytest.approx(-0.75 * logit, rel=1e-6)
    assert metrics.neg_cross_entropy(softmax, X[:1], [1]) == pytest.approx(-logit, rel=1e-6)
    expected = -2 * np.log(2) - logit
    assert metrics.neg_log_loss(several, X[:1], [[1, 0, 0]]) == pytest.approx(expected, rel=1e-6)
    assert metrics.neg_log_loss(several, X[:1], [[1, 1, 0]]) == pytest.approx(-2 * np.log(2), rel=1e-6)
    assert metrics.neg_brier_score(several, X[:1], [[1, 0, 0]]) == pytest.approx(-1.5)


def test_a_probability_of_zero_costs_infinity_and_only_where_it_matters():
    P = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    assert metrics.cross_entropy_loss([0, 1], P, classes=[0, 1, 2]) == pytest.approx(np.log(2) / 2)
    assert metrics.cross_entropy_loss([1, 1], P, classes=[0, 1, 2]) == np.inf
    assert metrics.cross_entropy_loss([1, 1], P, classes=[0, 1, 2], sample_weight=[0, 3]) == np.log(2)
    assert metrics.kl_divergence_loss([[1, 0, 0], [0, 0.5, 0.5]], P) == np.inf
    assert metrics.log_loss([[0, 1]], [[0.0, 1.0]]) == 0
    assert metrics.log_loss([[1, 1]], [[0.0, 1.0]]) == np.inf


@pytest.mark.parametrize("name", OVER_CLASSES)
def test_weights_count_as_repeated_rows(iris, name):
    X, _, soft = iris
    weight = np.arange(150) % 3
    model = SoftmaxClassifier().fit(X, soft)
    scorer = getattr(metrics, name)
    repeated = scorer(model, np.repeat(X, weight, axis=0), np.repeat(soft, weight, axis=0))
    assert scorer(model, X, soft, sample_weight=weight) == pytest.approx(repeated, rel=1e-12)


# In scikit-learn's searches ----------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["numpy", "pandas", "polars"])
def test_soft_targets_are_cross_validated_in_a_pipeline(iris, library):
    X, _, soft = iris
    targets = soft if library == "numpy" else pytest.importorskip(library).DataFrame(dict(zip(NAMES, soft.T)))
    order = np.arange(3) if library == "numpy" else np.argsort(NAMES)
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier())
    cv = StratifiedSoftKFold(shuffle=True, random_state=0)
    scoring = {name: getattr(metrics, name) for name in OVER_CLASSES}
    results = cross_validate(pipeline, X, targets, scoring=scoring, cv=cv)
    single = cross_val_score(pipeline, X, targets, scoring=metrics.neg_cross_entropy, cv=cv)
    np.testing.assert_array_equal(single, results["test_neg_cross_entropy"])
    for fold, (train, test) in enumerate(cv.split(X, targets)):
        scaler = StandardScaler().fit(X[train])
        model = SoftmaxClassifier().fit(scaler.transform(X[train]), soft[train][:, order])
        P = model.predict_proba(scaler.transform(X[test]))
        y = soft[test][:, order]
        for name in OVER_CLASSES:
            expected = by_hand(name, y, P, P.argmax(axis=1), np.ones(len(test)))
            assert results[f"test_{name}"][fold] == pytest.approx(expected, rel=1e-6)


def test_soft_targets_choose_parameters_in_a_grid_search(iris):
    X, _, soft = iris
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier())
    search = GridSearchCV(
        pipeline,
        {"softmaxclassifier__C": [1e-3, 1e-1, 10.0]},
        scoring={"entropy": metrics.neg_cross_entropy, "right": metrics.argmax_accuracy},
        refit="entropy",
        cv=StratifiedSoftKFold(),
    ).fit(X, soft)
    for C, score in zip([1e-3, 1e-1, 10.0], search.cv_results_["mean_test_entropy"]):
        pipeline.set_params(softmaxclassifier__C=C)
        folds = cross_val_score(
            pipeline, X, soft, scoring=metrics.neg_cross_entropy, cv=StratifiedSoftKFold()
        )
        assert score == folds.mean()
    assert search.best_score_ == search.cv_results_["mean_test_entropy"].max()
    assert search.best_params_ == {"softmaxclassifier__C": 10.0}
    # the search is itself an estimator to score
    best = search.best_estimator_
    assert metrics.neg_cross_entropy(search, X, soft) == metrics.neg_cross_entropy(best, X, soft)
    assert search.score(X, soft) == metrics.neg_cross_entropy(best, X, soft)


def test_multi_label_targets_are_cross_validated(multilabel):
    X, Y = multilabel
    pipeline = make_pipeline(StandardScaler(), LogisticClassifier())
    scoring = {
        name: getattr(metrics, name) for name in ("neg_log_loss", "neg_brier_score", "argmax_accuracy")
    }
    results = cross_validate(
        pipeline, X, Y, scoring=scoring, cv=3, return_indices=True, return_estimator=True
    )
    for fold, (test, fitted) in enumerate(zip(results["indices"]["test"], results["estimator"])):
        expected = label_scores(Y[test], fitted.predict_proba(X[test]), np.ones(len(test)))
        for name in scoring:
            assert results[f"test_{name}"][fold] == pytest.approx(expected[name], rel=1e-9)


def test_permutation_importance_takes_a_scorer(iris):
    X, _, soft = iris
    model = SoftmaxClassifier().fit(X, soft)
    found = permutation_importance(
        model, X, soft, scoring=metrics.neg_cross_entropy, n_repeats=2, random_state=0
    )
    assert found.importances_mean.argmax() in (2, 3)
    assert (found.importances_mean > 0).any()


def test_a_search_with_sample_weights_takes_scorers_alone_and_in_a_dict(iris, rng):
    X, _, soft = iris
    weight = rng.uniform(0.1, 2, size=150)
    for scoring in (metrics.neg_cross_entropy, {"entropy": metrics.neg_cross_entropy}):
        search = GridSearchCV(
            SoftmaxClassifier(), {"C": [0.1, 1.0]}, scoring=scoring, refit=False, cv=StratifiedSoftKFold()
        )
        assert search.fit(X, soft, sample_weight=weight).cv_results_


@pytest.mark.parametrize("several", [False, True])
def test_metadata_routing_hands_weights_to_the_scorers_that_ask(iris, rng, several):
    X, _, soft = iris
    weight = rng.uniform(0.1, 2, size=150)
    cv = StratifiedSoftKFold()

    def scores(scorer, fit=False, **params):
        scoring = {"s": scorer, "right": metrics.argmax_accuracy.set_score_request(sample_weight=False)}
        results = cross_validate(
            SoftmaxClassifier().set_fit_request(sample_weight=fit),
            X,
            soft,
            scoring=scoring if several else scorer,
            cv=cv,
            params=params,
        )
        return results["test_s" if several else "test_score"]

    expected, plain = [], []
    for train, test in cv.split(X, soft):
        model = SoftmaxClassifier().fit(X[train], soft[train])
        expected.append(metrics.neg_cross_entropy(model, X[test], soft[test], weight[test]))
        model.fit(X[train], soft[train], weight[train])
        plain.append(metrics.neg_cross_entropy(model, X[test], soft[test]))
    with config_context(enable_metadata_routing=True):
        asks = metrics.neg_cross_entropy.set_score_request(sample_weight=True)
        np.testing.assert_allclose(scores(asks, sample_weight=weight), expected, **CLOSE)
        renamed = metrics.neg_cross_entropy.set_score_request(sample_weight="w")
        np.testing.assert_allclose(scores(renamed, w=weight), expected, **CLOSE)
        refuses = metrics.neg_cross_entropy.set_score_request(sample_weight=False)
        np.testing.assert_allclose(scores(refuses, fit=True, sample_weight=weight), plain, **CLOSE)
        with pytest.raises(ValueError, match="sample_weight"):
            scores(metrics.neg_cross_entropy, sample_weight=weight)
        with pytest.raises(ValueError, match="valid identifier"):
            metrics.neg_cross_entropy.set_score_request(sample_weight=1.5)


def test_requests_leave_the_shared_scorer_alone_and_need_routing():
    with pytest.raises(RuntimeError, match="enable_metadata_routing"):
        metrics.neg_log_loss.set_score_request(sample_weight=True)
    with config_context(enable_metadata_routing=True):
        asks = metrics.neg_log_loss.set_score_request(sample_weight=True)
    assert repr(asks) == "neg_log_loss.set_score_request(sample_weight=True)"
    assert asks != metrics.neg_log_loss
    assert repr(metrics.neg_log_loss) == "neg_log_loss"
    for copied in (copy.deepcopy(asks), clone(asks), pickle.loads(pickle.dumps(asks))):
        assert copied == asks
        assert hash(copied) == hash(asks)


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_copy_pickle_and_print(name):
    scorer = getattr(metrics, name)
    assert repr(scorer) == name
    for copied in (copy.deepcopy(scorer), clone(scorer), pickle.loads(pickle.dumps(scorer))):
        assert copied == scorer
        assert hash(copied) == hash(scorer)
    search = clone(GridSearchCV(SoftmaxClassifier(), {"C": [1.0]}, scoring=scorer))
    assert search.scoring == scorer
    assert name in repr(search)
    assert scorer != getattr(metrics, SCORERS[SCORERS.index(name) - 1])


# Functions ---------------------------------------------------------------------------------------------


def test_functions_and_scorers_agree(iris, multilabel, rng):
    X, y, soft = iris
    weight = rng.uniform(0.1, 2, size=150)
    model = SoftmaxClassifier().fit(X, soft)
    P = model.predict_proba(X)
    for function, scorer in [
        (metrics.cross_entropy_loss, metrics.neg_cross_entropy),
        (metrics.kl_divergence_loss, metrics.neg_kl_divergence),
        (metrics.brier_score_loss, metrics.neg_brier_score),
    ]:
        for target in (soft, y):
            expected = -scorer(model, X, target, weight)
            assert function(target, P, sample_weight=weight) == pytest.approx(expected, rel=1e-10)
    X, Y = multilabel
    model = LogisticClassifier().fit(X, Y)
    P = model.predict_proba(X)
    assert metrics.log_loss(Y, P) == pytest.approx(-metrics.neg_log_loss(model, X, Y), rel=1e-10)
    assert metrics.brier_score_loss(Y, P) == pytest.approx(-metrics.neg_brier_score(model, X, Y), rel=1e-12)
    assert metrics.argmax_accuracy_score(Y, model.predict(X)) == metrics.argmax_accuracy(model, X, Y)


def test_functions_find_columns_by_name():
    pd = pytest.importorskip("pandas")
    P = pd.DataFrame({"b": [0.2, 0.7], "a": [0.8, 0.3]})
    expected = -np.log([0.2, 0.3]).mean()
    assert metrics.cross_entropy_loss(["b", "a"], P) == pytest.approx(expected)
    assert metrics.cross_entropy_loss(["b", "a"], P[["a", "b"]].to_numpy()) == pytest.approx(expected)
    one_hot = pd.DataFrame({"b": [1, 0], "a": [0, 1]})
    assert metrics.cross_entropy_loss(one_hot, P) == pytest.approx(expected)
    assert metrics.cross_entropy_loss(one_hot, P[["a", "b"]].to_numpy()) == pytest.approx(expected)
    assert metrics.argmax_accuracy_score(one_hot, ["b", "b"]) == 0.5


def test_probabilities_of_two_classes_may_be_one_dimensional():
    P = np.array([0.2, 0.7])
    both = np.column_stack([1 - P, P])
    for function in (
        metrics.cross_entropy_loss,
        metrics.log_loss,
        metrics.brier_score_loss,
        metrics.kl_divergence_loss,
    ):
        for y in (["no", "yes"], [0.1, 0.9], [False, True]):
            assert function(y, P) == pytest.approx(function(y, both), rel=1e-12)


# Bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["neg_brier_score", "neg_cross_entropy", "neg_kl_divergence"])
def test_a_class_that_training_did_not_have_is_named(iris, name):
    X, y, _ = iris
    model = SoftmaxClassifier().fit(X[:100], NAMES[y[:100]])
    with pytest.raises(ValueError, match=r"labels that are not among the classes: \['lily'\]"):
        getattr(metrics, name)(model, X, NAMES[y])
    with pytest.raises(ValueError, match="2 classes"):
        getattr(metrics, name)(model, X, np.eye(3)[y])


def test_an_unknown_label_is_just_wrong_for_the_accuracy(iris):
    X, y, _ = iris
    model = SoftmaxClassifier().fit(X[:100], NAMES[y[:100]])
    assert metrics.argmax_accuracy(model, X, NAMES[y]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("name", "y", "message"),
    [
        ("neg_cross_entropy", np.full((150, 3), 0.5), "row 0 sums to 1.5"),
        ("neg_cross_entropy", np.tile([1.5, -0.5, 0.0], (150, 1)), "negative"),
        ("neg_cross_entropy", np.full((150, 3), np.nan), "NaN"),
        ("neg_cross_entropy", np.linspace(0, 1, 150), "class labels"),
        ("neg_cross_entropy", np.full((150, 2), 0.5), r"shape \(150, 2\), but there are 3 classes"),
        ("neg_cross_entropy", np.full((149, 3), 1 / 3), "inconsistent"),
        ("neg_log_loss", np.arange(150) % 3, "neg_cross_entropy"),
        ("neg_log_loss", np.full((150, 3), 1.5), r"\[0, 1\]; row 0 has 1.5"),
        ("neg_log_loss", np.zeros((150, 4)), "4 columns, but there are 3 labels"),
        ("argmax_accuracy", np.zeros((150, 4)), "4 columns, but there are 3 classes"),
    ],
)
def test_a_target_that_does_not_fit_is_an_error_that_says_why(iris, name, y, message):
    X, codes, _ = iris
    model = SoftmaxClassifier().fit(X, codes)
    with pytest.raises(ValueError, match=message):
        getattr(metrics, name)(model, X, y)


def test_independent_labels_have_no_cross_entropy(multilabel):
    X, Y = multilabel
    for model in (LogisticClassifier().fit(X, Y), RandomForestClassifier(4, random_state=0).fit(X, Y)):
        for name in ("neg_cross_entropy", "neg_kl_divergence"):
            with pytest.raises(ValueError, match="neg_log_loss"):
                getattr(metrics, name)(model, X, Y)


@pytest.mark.parametrize("name", [name for name in SCORERS if name != "argmax_accuracy"])
def test_an_estimator_without_probabilities_is_a_type_error(iris, name):
    X, y, _ = iris
    y = y % 2
    for model in (LinearSVC().fit(X, y), LinearRegression().fit(X, y)):
        with pytest.raises(TypeError, match=r"predict_proba|classes_"):
            getattr(metrics, name)(model, X, y)


@pytest.mark.parametrize("name", SCORERS)
def test_an_estimator_that_is_not_fitted_says_so(iris, name):
    X, y, _ = iris
    for model in (SoftmaxClassifier(), make_pipeline(StandardScaler(), SoftmaxClassifier())):
        with pytest.raises(NotFittedError):
            getattr(metrics, name)(model, X, y % 2)


def test_accuracy_needs_no_probabilities(iris):
    X, y, soft = iris
    model = LinearSVC().fit(X, y)
    assert metrics.argmax_accuracy(model, X, soft) == np.mean(model.predict(X) == soft.argmax(axis=1))


@pytest.mark.parametrize("weight", [[-1.0, 1.0], [0.0, 0.0], [1.0], [np.nan, 1.0]])
def test_bad_weights_are_errors(weight):
    for function in (metrics.cross_entropy_loss, metrics.brier_score_loss, metrics.log_loss):
        with pytest.raises(ValueError, match="sample_weight"):
            function([0, 1], [0.5, 0.5], sample_weight=weight)
    with pytest.raises(ValueError, match="sample_weight"):
        metrics.argmax_accuracy_score([0, 1], [0, 1], sample_weight=weight)


@pytest.mark.parametrize(
    ("P", "classes", "message"),
    [
        ([[0.5, 0.6], [0.5, 0.5]], None, "row 0 sums to 1.1"),
        ([[0.5, 0.5], [1.5, -0.5]], None, r"\[0, 1\]; row 1"),
        ([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]], None, "pass classes"),
        ([[0.5, 0.5], [0.5, 0.5]], [1, 0], "sorted"),
        ([[0.5, 0.5], [0.5, 0.5]], [0, 1, 2], "2 columns, but there are 3 classes"),
        ([[0.5, np.nan], [0.5, 0.5]], None, "NaN"),
    ],
)
def test_bad_predictions_are_errors(P, classes, message):
    with pytest.raises(ValueError, match=message):
        metrics.cross_entropy_loss([0, 1], P, classes=classes)
