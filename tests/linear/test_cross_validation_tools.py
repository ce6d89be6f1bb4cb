"""The classifiers with a built-in cross-validation among scikit-learn's tools; bad input."""

import _thread
import pickle
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError, UnsetMetadataPassedError
from sklearn.metrics import get_scorer, make_scorer, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklloss import (
    LogisticClassifier,
    LogisticClassifierCV,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
    metrics,
)

CVS = [LogisticClassifierCV, SoftmaxClassifierCV]


def problem(rng, n=150, p=5, K=3):
    X = rng.normal(size=(n, p))
    y = (X @ rng.normal(size=(p, K)) + rng.gumbel(size=(n, K))).argmax(axis=1)
    return X, y


# Splitters, scorers, routing ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cv",
    [
        3,
        KFold(3, shuffle=True, random_state=1),
        ShuffleSplit(4, random_state=0),
        "generator",
        "masks",
        "overlapping",
    ],
    ids=str,
)
def test_any_splitter_is_taken(rng, cv):
    X, y = problem(rng)
    splits = list(StratifiedKFold(3).split(X, y))
    expected = splits
    if cv == "generator":
        cv = iter(splits)
    elif cv == "masks":
        cv = [tuple(np.isin(np.arange(len(y)), part) for part in pair) for pair in splits]
    elif cv == "overlapping":
        cv = expected = [(np.arange(100), np.arange(50, 150)), (np.arange(30, 150), np.arange(2))]
    elif cv != 3:
        expected = list(cv.split(X, y))
    model = SoftmaxClassifierCV(Cs=2, cv=cv).fit(X, y)
    assert model.scores_.shape == (len(expected), 1, 2)
    again = SoftmaxClassifierCV(Cs=2, cv=expected).fit(X, y)
    np.testing.assert_array_equal(model.scores_, again.scores_)


def one_minus_error(estimator, X, y):
    return np.mean(estimator.predict(X) == y)


@pytest.mark.parametrize(
    "scoring", [one_minus_error, make_scorer(roc_auc_score, response_method="predict_proba")]
)
def test_any_scorer_is_taken(rng, scoring):
    X, y = problem(rng, K=2)
    model = LogisticClassifierCV(Cs=3, cv=3, scoring=scoring).fit(X, y)
    scores = [cross_val_score(LogisticClassifier(C=C), X, y, cv=3, scoring=scoring) for C in model.Cs_]
    np.testing.assert_allclose(model.scores_[:, 0].T, scores, rtol=1e-9)
    assert model.score(X, y) == scoring(model, X, y)


def test_a_class_that_test_rows_lack_still_has_a_log_loss(rng):
    X, y = problem(rng)
    order = np.argsort(y)
    model = SoftmaxClassifierCV(Cs=2, cv=[(np.arange(150), order[:50])], scoring="neg_log_loss").fit(X, y)
    ours = SoftmaxClassifierCV(
        Cs=2, cv=[(np.arange(150), order[:50])], scoring=metrics.neg_cross_entropy
    ).fit(X, y)
    np.testing.assert_allclose(model.scores_, ours.scores_, rtol=1e-12)


@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("estimator", CVS)
def test_scores_counted_here_are_those_of_the_scorer(rng, estimator, K, dtype, scoring):
    X, y = problem(rng, K=K)
    X[::9] *= 300  # probabilities of 0 and 1, too
    X, y = X.astype(dtype), np.array(["a", "b", "c"], dtype=object)[y]
    weight = rng.exponential(size=len(y))
    model = estimator(Cs=3, cv=3, scoring=scoring).fit(X, y, sample_weight=weight)
    wrapped = estimator(Cs=3, cv=3, scoring=lambda *a, **k: get_scorer(scoring)(*a, **k))
    wrapped.fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(model.scores_, wrapped.scores_, rtol=1e-6 if dtype == np.float32 else 1e-12)


def test_a_class_that_training_rows_lack_keeps_its_place(rng):
    X, y = problem(rng)
    splits = [(np.flatnonzero(y != 1), np.flatnonzero(y == 1)), (np.arange(0, 150, 2), np.arange(1, 150, 2))]
    model = SoftmaxClassifierCV(Cs=[0.1, 1.0], cv=splits).fit(X, y)
    np.testing.assert_array_equal(model.scores_[0], 0.0)
    assert model.coefs_paths_.shape == (2, 1, 2, 3, 6)
    assert np.isfinite(model.coefs_paths_).all()


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("routing")
def test_groups_and_weights_go_where_routing_sends_them(rng):
    X, y = problem(rng)
    groups = rng.integers(0, 6, size=len(y))
    weight = rng.exponential(size=len(y))
    splits = list(GroupKFold(3).split(X, y, groups))
    for request, scored in ((True, weight), (False, None)):
        scorer = metrics.neg_cross_entropy.set_score_request(sample_weight=request)
        model = SoftmaxClassifierCV(Cs=2, cv=GroupKFold(3), scoring=scorer, n_jobs=2)
        model.set_fit_request(sample_weight=True).fit(X, y, groups=groups, sample_weight=weight)
        for k, (train, test) in enumerate(splits):
            alone = SoftmaxClassifier(C=model.Cs_[1]).fit(X[train], y[train], sample_weight=weight[train])
            part = None if scored is None else weight[test]
            expected = metrics.neg_cross_entropy(alone, X[test], y[test], sample_weight=part)
            assert model.scores_[k, 0, 1] == pytest.approx(expected, rel=1e-4)
        with sklearn.config_context(enable_metadata_routing=False):
            expected = metrics.neg_cross_entropy(model, X, y, sample_weight=scored)
        assert model.score(X, y, sample_weight=weight if request else None) == pytest.approx(expected)
    # inside a search that hands them on
    search = GridSearchCV(model, {"tol": [1e-4]}, cv=3, scoring=scorer)
    search.fit(X, y, groups=groups, sample_weight=weight)
    with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
        SoftmaxClassifierCV(scoring=metrics.neg_cross_entropy).fit(X, y, sample_weight=weight)


def test_without_routing_groups_are_an_error_that_says_what_to_do(rng):
    X, y = problem(rng)
    with pytest.raises(ValueError, match=r"\['groups'\].*enable_metadata_routing.*list of splits"):
        SoftmaxClassifierCV(cv=GroupKFold(3)).fit(X, y, groups=y)
    model = SoftmaxClassifierCV(Cs=2).fit(X, y)
    with pytest.raises(ValueError, match="'something'"):
        model.score(X, y, something=y)


def test_ties_choose_the_first_and_undefined_scores_are_left_out():
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    estimator = LogisticClassifierCV
    first = estimator(Cs=[3.0, 1.0, 2.0], scoring=lambda *_: 1.0).fit(X, y)
    assert first.C_ == 3.0

    def undefined(model, X, y):
        return np.nan if model.C == 1.0 else 1.0

    for refit in (True, False):
        assert estimator(Cs=[1.0, 2.0], scoring=undefined, refit=refit).fit(X, y).C_ == 2.0
        with pytest.raises(ValueError, match="NaN"):
            estimator(Cs=[1.0], scoring=undefined, refit=refit).fit(X, y)


# Bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "error", "match"),
    [
        ({"Cs": 0}, ValueError, "Cs must be at least 1, got 0"),
        ({"Cs": []}, ValueError, "Cs must be an integer, or a list of numbers > 0, got an empty"),
        ({"Cs": True}, TypeError, "Cs must be an integer, or a list"),
        ({"Cs": 2.5}, TypeError, "Cs must be an integer, or a list"),
        ({"Cs": "many"}, TypeError, "Cs must be an integer, or a list"),
        ({"Cs": [1.0, -1.0]}, ValueError, r"Cs\[1\] must be in \(0, inf\], got -1.0"),
        ({"Cs": [0.0]}, ValueError, r"Cs\[0\]"),
        ({"Cs": [np.nan]}, ValueError, r"Cs\[0\]"),
        ({"Cs": ["1"]}, TypeError, r"Cs\[0\] must be a real number"),
        ({"Cs": [[1.0]]}, TypeError, "Cs must be"),
        ({"l1_ratios": None}, TypeError, "l1_ratios must be a list of numbers in"),
        ({"l1_ratios": 0.5}, TypeError, "l1_ratios must be a list"),
        ({"l1_ratios": []}, ValueError, "l1_ratios .* empty"),
        ({"l1_ratios": [0.0, 1.5]}, ValueError, r"l1_ratios\[1\] must be in \[0, 1\], got 1.5"),
        ({"scoring": "unheard of"}, ValueError, "unheard of"),
        ({"scoring": ["accuracy"]}, TypeError, "scoring must be one scorer"),
        ({"scoring": lambda *_: "high"}, TypeError, "scoring must give a number, got 'high'"),
        ({"cv": 1}, ValueError, "n_splits"),
        ({"cv": "five"}, ValueError, "five"),
        ({"cv": []}, ValueError, "cv=.* no splits"),
        ({"cv": [(np.arange(9), [])]}, ValueError, "the test rows of fold 0 of cv are none"),
        ({"cv": [([], np.arange(9))]}, ValueError, "the training rows of fold 0 of cv are none"),
        ({"cv": [(np.arange(9), [200])]}, ValueError, "the test rows of fold 0 of cv must be row numbers in"),
        ({"cv": [(np.arange(9), [0.5])]}, ValueError, "row numbers"),
        ({"cv": [(np.arange(60), [1])], "solver": "saga"}, ValueError, "solver"),
        ({"n_jobs": "all"}, TypeError, "n_jobs"),
        ({"n_threads": 0}, ValueError, "n_threads"),
        ({"refit": "yes"}, TypeError, "refit"),
        ({"verbose": "yes"}, TypeError, "verbose"),
        ({"dual": True}, ValueError, "dual"),
        ({"tol": -1.0}, ValueError, "tol"),
        ({"loss": "hinge"}, ValueError, "hinge"),
        ({"label_smoothing": 1.0}, ValueError, "label_smoothing"),
        ({"class_weight": "even"}, ValueError, "class_weight"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],  # no address: workers must agree on the names
)
@pytest.mark.parametrize("estimator", CVS)
def test_a_bad_parameter_is_named_and_leaves_the_model_as_it_was(rng, estimator, parameters, error, match):
    X, y = problem(rng)
    model = estimator(Cs=2).fit(X, y)
    before = vars(model).copy()
    model.set_params(**parameters)
    with pytest.raises(error, match=match):
        model.fit(X, y)
    model.set_params(**{name: before[name] for name in parameters})
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is before[name] for name in before)


@pytest.mark.parametrize("estimator", CVS)
def test_folds_that_nothing_can_be_learnt_from_are_errors(rng, estimator):
    X, y = problem(rng)
    one = [(np.arange(0, 150, 2), np.arange(9)), (np.flatnonzero(y == 2), np.arange(9))]
    for target in (y, np.where(y == 2, "a", "b")):
        with pytest.raises(ValueError, match="fold 1 of cv are of one class"):
            estimator(cv=one).fit(X, target)
    weight = np.ones(150)
    weight[:75] = 0.0
    halves = [(np.arange(75), np.arange(75, 150))]
    with pytest.raises(ValueError, match="training rows of fold 0 of cv have no positive sample_weight"):
        estimator(cv=halves).fit(X, y, sample_weight=weight)
    with pytest.raises(ValueError, match="test rows of fold 0 of cv have no positive sample_weight"):
        estimator(cv=halves).fit(X, y, sample_weight=1 - weight)
    with pytest.raises(ValueError, match="one class"):
        estimator().fit(X, np.zeros(150, dtype=int))
    with pytest.raises(ValueError, match="same number of rows"):
        estimator().fit(X, y[:-1])
    with pytest.raises(ValueError, match="sample_weight"):
        estimator().fit(X, y, sample_weight=-weight)
    with pytest.raises(NotFittedError):
        estimator().score(X, y)


def test_one_warning_says_which_fits_have_not_converged(rng):
    X, y = problem(rng)
    with pytest.warns(ConvergenceWarning, match=r"in \d+ of 16 fits. .*fold 0, at C=.*max_iter=1") as caught:
        model = SoftmaxClassifierCV(Cs=3, max_iter=1).fit(X, y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert model.n_iter_.max() == 1


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_an_interrupt_leaves_the_estimator_as_it_was(rng, n_jobs):
    X, y = problem(rng)
    model = LogisticClassifierCV(Cs=2).fit(X, y)
    before = vars(model).copy()
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 3:
            _thread.interrupt_main()
        return 1.0

    model.set_params(Cs=40, scoring=interrupt, n_jobs=n_jobs)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    model.set_params(Cs=2, scoring=None, n_jobs=None)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is before[name] for name in before)
    assert len(calls) < 5 * 40
    np.testing.assert_array_equal(clone(model).fit(X, y).coef_, model.coef_)


# With the rest of scikit-learn -------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", CVS)
def test_a_pickle_predicts_the_same_and_a_clone_fits_the_same(rng, estimator):
    X, y = problem(rng)
    model = estimator(Cs=3, scoring=metrics.neg_cross_entropy, cv=KFold(3)).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.score(X, y) == model.score(X, y)
    bare = clone(model)
    assert not hasattr(bare, "coef_")
    np.testing.assert_array_equal(bare.fit(X, y).coef_, model.coef_)
    kinds = {
        name: type(value) for name, value in vars(model).items() if name.endswith("_") or name.startswith("_")
    }
    assert set(kinds.values()) <= {np.ndarray, bool, int, float, str, list, type(None)}
    assert type(model.C_) is float
    assert type(model.l1_ratio_) is float
    assert type(model.score(X, y)) is float
    assert all(type(value) is float for value in model.loss_curve_)
    assert all(value.base is None for value in vars(model).values() if isinstance(value, np.ndarray))
    averaged = model.set_params(refit=False).fit(X, y)
    assert not hasattr(averaged, "loss_")
    assert not hasattr(averaged, "loss_curve_")


def test_pipeline_with_column_names():
    pytest.importorskip("pandas")
    X, y = load_iris(return_X_y=True, as_frame=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SoftmaxClassifierCV(Cs=3, scoring="neg_log_loss").fit(X, y)
        assert model.feature_names_in_.tolist() == X.columns.tolist()
        pipe = make_pipeline(StandardScaler().set_output(transform="pandas"), clone(model)).fit(X, y)
        assert pipe.score(X, y) > -0.2
    assert GridSearchCV(clone(model), {"fit_intercept": [True, False]}, cv=3).fit(X, y).best_score_ > -0.5
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X[X.columns[::-1]])


def test_verbose_prints_the_best_of_each_fold(rng, capsys):
    X, y = problem(rng)
    model = SoftmaxClassifierCV(Cs=2, cv=3, verbose=1).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1] == f"fold 1, l1_ratio 0: best score {model.scores_[1].max():.6g} at C=10000"
    SoftmaxClassifierCV(Cs=2, cv=3).fit(X, y)
    assert capsys.readouterr().out == ""
