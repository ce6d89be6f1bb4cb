"""Many estimators are fitted side by side, to the same bits as one after the other."""

import threading
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn import config_context, get_config
from sklearn.datasets import load_iris, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold

from sklloss import MLPClassifier, MLPRegressor, SoftmaxClassifier
from sklloss.arrays import threads
from sklloss.losses import HalfSquaredError
from sklloss.model_selection import fit_many

X, Y = load_iris(return_X_y=True)

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer.*:sklearn.exceptions.ConvergenceWarning")


def classifiers():
    """Networks that differ in seed, widths, solver and stopping."""
    return [
        MLPClassifier((5,), random_state=0, max_iter=20, tol=1.0),
        MLPClassifier((8, 3), random_state=1, max_iter=20, tol=1.0, solver="sgd"),
        MLPClassifier((5,), random_state=2, max_iter=20, solver="lbfgs", tol=1.0),
        MLPClassifier((5,), random_state=3, max_iter=20, tol=1.0, early_stopping=True),
        MLPClassifier((5,), random_state=4, max_iter=20, tol=1.0, batch_size=16),
    ]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert (a.loss_curve_, a.n_iter_, a.loss_) == (b.loss_curve_, b.n_iter_, b.loss_)
        for p, q in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
            np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("n_threads", [1, 2, 8, None])
@pytest.mark.parametrize("weighted", [False, True])
def test_classifiers_are_fitted_in_place_to_the_same_bits(n_threads, weighted, rng):
    weight = rng.random(len(X)) if weighted else None
    networks = classifiers()
    found = fit_many(networks, X, Y, weight, n_threads=n_threads)
    assert all(a is b for a, b in zip(found, networks, strict=True))
    assert_same(found, [network.fit(X, Y, weight) for network in classifiers()])


def test_regressors_train_on_their_own_rows():
    X, y = make_regression(120, 6, random_state=0)
    y /= y.std()
    folds = [train for train, _ in KFold(3).split(X)]
    mask = np.arange(120) % 2 == 0
    rows = [*folds, mask, None]

    def make():
        return [MLPRegressor(hidden_layer_sizes=(6,), random_state=0, max_iter=5, tol=9.0) for _ in rows]

    expected = [
        model.fit(*((X, y) if part is None else (X[part], y[part])))
        for model, part in zip(make(), rows, strict=True)
    ]
    for data in (X, scipy.sparse.csr_array(X), scipy.sparse.coo_array(X)):
        found = fit_many(make(), data, list(y), rows=rows)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], rtol=1e-10)
    assert_same(fit_many(make(), X, y, rows=rows), expected)


def test_rows_of_weights_and_frames(rng):
    pd = pytest.importorskip("pandas")
    weight, rows = rng.random(len(X)), np.arange(10, 140)
    frame = pd.DataFrame(X, columns=list("abcd"))
    (found,) = fit_many(classifiers()[:1], frame, pd.Series(Y), weight, rows=[rows])
    assert list(found.feature_names_in_) == list("abcd")
    assert_same([found], [classifiers()[0].fit(frame.iloc[rows], Y[rows], weight[rows])])


def test_other_estimators_and_an_empty_list():
    assert fit_many([], X, Y) == []
    a, b = fit_many([SoftmaxClassifier(C=C) for C in (0.1, 1.0)], X, Y)
    np.testing.assert_array_equal(b.coef_, SoftmaxClassifier().fit(X, Y).coef_)
    assert abs(a.coef_).max() < abs(b.coef_).max()


def test_the_first_error_in_order_is_raised_and_names_the_estimator():
    networks = classifiers()
    networks[1].alpha = -1.0
    networks[2].tol = "no"
    with pytest.raises(ValueError, match="alpha") as caught:
        fit_many(networks, X, Y, n_threads=2)
    assert caught.value.__notes__ == ["This was estimators[1]."]
    assert hasattr(networks[0], "coefs_")
    assert not hasattr(networks[1], "coefs_")
    # the next call is not impaired
    assert_same(fit_many(classifiers(), X, Y), [network.fit(X, Y) for network in classifiers()])


def test_arguments_that_do_not_fit_are_errors():
    network = MLPClassifier()
    with pytest.raises(ValueError, match="occurs twice"):
        fit_many([network, network], X, Y)
    with pytest.raises(ValueError, match="rows has 1 entries, but there are 2 estimators"):
        fit_many([network, MLPClassifier()], X, Y, rows=[None])
    with pytest.raises(ValueError, match="n_threads must not be 0"):
        fit_many([network], X, Y, n_threads=0)


def test_warnings_come_in_order_from_the_line_of_the_user():
    networks = [MLPClassifier((3,), random_state=0, max_iter=k) for k in (1, 3, 2)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_many(networks, X, Y, n_threads=2)
    assert [w.category for w in caught] == [ConvergenceWarning] * 3
    assert [next(k for k in "132" if f"({k})" in str(w.message)) for w in caught] == ["1", "3", "2"]
    assert {w.filename for w in caught} == {__file__}


class Recording(HalfSquaredError):
    """Records where it is evaluated, with what settings, and fails in the end."""

    kernel = None
    seen = None
    error = None

    def evaluate_batch(self, *args, **kwargs):
        self.seen.append((threading.current_thread(), get_config()["assume_finite"], threads.count(7)))
        if self.error is not None and threading.current_thread() is threading.main_thread():
            raise self.error
        return super().evaluate_batch(*args, **kwargs)


@pytest.fixture
def recording(monkeypatch):
    monkeypatch.setattr(Recording, "seen", [])
    return Recording


def regressors(loss, count, **parameters):
    return [MLPRegressor(loss, (2,), random_state=k, **parameters) for k in range(count)]


def test_threads_share_settings_and_each_network_has_one(recording):
    with config_context(assume_finite=True):
        fit_many(regressors(recording(), 6, max_iter=3, tol=99.0), X, Y / 2, n_threads=2)
    assert {(finite, count) for _, finite, count in recording.seen} == {(True, 1)}
    assert threads.count(7) == 7


def test_ctrl_c_ends_every_network_at_an_epoch(recording, monkeypatch):
    monkeypatch.setattr(recording, "error", KeyboardInterrupt())
    networks = regressors(recording(), 4, max_iter=10**9, tol=0.0, n_iter_no_change=np.inf)
    with pytest.raises(KeyboardInterrupt):
        fit_many(networks, X, Y / 2, n_threads=2)
    assert not any(hasattr(network, "coefs_") for network in networks)
    monkeypatch.setattr(recording, "error", None)
    assert hasattr(networks[0].set_params(max_iter=1).fit(X, Y / 2), "coefs_")


def test_fits_that_draw_from_one_generator_take_turns():
    def make(generator):
        return [MLPClassifier((3,), random_state=generator, max_iter=3, tol=9.0) for _ in range(3)]

    expected = [network.fit(X, Y) for network in make(np.random.RandomState(0))]
    assert_same(fit_many(make(np.random.RandomState(0)), X, Y, n_threads=2), expected)


def test_a_call_within_a_task_leaves_the_task_on_one_thread():
    counts = []

    def task():
        threads.side_by_side([lambda: None] * 2, 2)
        counts.append(threads.count(7))

    threads.side_by_side([task, task], 2)
    assert counts == [1, 1]
