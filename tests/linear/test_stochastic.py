"""The stochastic solvers of the linear classifiers, and partial_fit: the objective against Newton's."""

import copy
import pickle
import signal
import sys
import threading
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from sklloss import LogisticClassifier, SoftmaxClassifier, losses

LOADERS = {
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,
    "iris": load_iris,
    "wine": load_wine,
}
STOCHASTIC = ["sgd", "adam"]
ESTIMATORS = [LogisticClassifier, SoftmaxClassifier]


def problem(rng, n=300, p=5, K=3, dtype=np.float64):
    X = rng.normal(size=(n, p))
    y = (X[:, :1] @ np.linspace(-1, 1, K)[None] + rng.gumbel(size=(n, K))).argmax(axis=1)
    return X.astype(dtype), y


def text(rng, n=1500, p=3000, K=4):
    """Rows like TF-IDF: few of many columns, common ones and rare ones, of unit length."""
    columns = (p * rng.power(0.4, size=(n, 20))).astype(int)
    X = scipy.sparse.csr_array((np.ones(20 * n), (np.repeat(np.arange(n), 20), columns.ravel())), (n, p))
    X = scipy.sparse.csr_array(X.multiply(1 / np.sqrt(X.power(2).sum(axis=1))[:, None]))
    y = (X @ rng.normal(size=(p, K)) * 4 + rng.gumbel(size=(n, K))).argmax(axis=1)
    return X, y


def gap(model, reference):
    return model.loss_ / reference.loss_ - 1


def objective(model, X, y, C):
    """C * sum of log losses + ||coef||**2 / 2, by scikit-learn's own log loss."""
    labels = model.classes_
    loss = log_loss(y, model.predict_proba(X), labels=labels) * X.shape[0]
    return C * loss + 0.5 * float((model.coef_.astype(np.float64) ** 2).sum())


# To the optimum ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.parametrize("scaled", [False, True], ids=["as it comes", "scaled"])
@pytest.mark.parametrize("name", LOADERS)
def test_real_data_end_near_the_optimum_at_the_defaults(name, scaled, solver):
    X, y = LOADERS[name](return_X_y=True)
    if scaled:
        X = StandardScaler().fit_transform(X)
    estimator = LogisticClassifier if name == "breast_cancer" else SoftmaxClassifier
    best = estimator(tol=1e-7, max_iter=1000).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = estimator(solver=solver, random_state=0).fit(X, y)
    assert -1e-12 < gap(model, best) < 1e-6
    assert model.loss_ == model.loss_curve_[-1]
    np.testing.assert_allclose(model.loss_, objective(model, X, y, 1.0), rtol=1e-10)
    assert len(model.loss_curve_) == model.n_iter_.max() + 1
    assert np.all(np.diff(model.loss_curve_) <= 1e-12 * model.loss_)
    assert model.solver_ == solver


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_a_large_table_needs_a_few_epochs(solver, rng):
    X, y = problem(rng, n=20_000, p=20, K=2)
    X[:, 3] = 1e6 * X[:, 3] + 1e8
    best = LogisticClassifier(tol=1e-7).fit(X, y)
    model = LogisticClassifier(solver=solver, random_state=0).fit(X, y)
    assert model.n_iter_[0] <= 12
    assert gap(model, best) < 1e-7


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_wide_sparse_rows_end_near_the_optimum(solver, rng):
    X, y = text(rng)
    best = SoftmaxClassifier(tol=1e-7).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = SoftmaxClassifier(solver=solver, random_state=0).fit(X, y)
    assert gap(model, best) < (1e-6 if solver == "sgd" else 1e-4)


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.parametrize("p", [5, 200])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_csr_rows_are_as_good_as_dense_ones(estimator, p, solver, rng):
    X, y = problem(rng, p=p)
    X[np.abs(X) < 0.5] = 0
    dense = estimator(solver=solver, random_state=0, max_iter=1000, C=0.1).fit(X, y)
    csr = estimator(solver=solver, random_state=0, max_iter=1000, C=0.1).fit(scipy.sparse.csr_array(X), y)
    if p == 5:
        np.testing.assert_allclose(csr.coef_, dense.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(csr.loss_, dense.loss_, rtol=1e-7)


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_float32_stays_float32_and_ends_near_the_optimum(estimator, solver, rng):
    X, y = problem(rng, dtype=np.float32)
    best = estimator().fit(X.astype(np.float64), y)
    for rows in (X, scipy.sparse.csr_array(X), np.asfortranarray(X)):
        model = estimator(solver=solver, random_state=0).fit(rows, y)
        assert model.coef_.dtype == model.intercept_.dtype == np.float32
        assert abs(gap(model, best)) < 1e-6


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [1e-3, 1.0, np.inf])
def test_any_penalty_and_no_intercept_reach_the_optimum(C, fit_intercept, solver, rng):
    X, y = problem(rng)
    parameters = {"C": C, "fit_intercept": fit_intercept}
    for estimator in ESTIMATORS:
        best = estimator(**parameters, tol=1e-7).fit(X, y)
        model = estimator(**parameters, solver=solver, random_state=0).fit(X, y)
        assert gap(model, best) < 1e-7


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_every_kind_of_target_reaches_the_optimum(solver, rng):
    X, y = problem(rng)
    P = rng.dirichlet(np.ones(3), size=len(X))
    cases = [
        (SoftmaxClassifier, P, {}),
        (SoftmaxClassifier, y, {"label_smoothing": 0.1, "class_weight": "balanced"}),
        (LogisticClassifier, P, {}),
        (LogisticClassifier, (P > 0.3).astype(int), {}),
        (LogisticClassifier, y, {"class_weight": "balanced"}),
        (LogisticClassifier, P[:, 0], {"label_smoothing": 0.1}),
    ]
    for estimator, target, parameters in cases:
        best = estimator(**parameters, tol=1e-7).fit(X, target)
        model = estimator(**parameters, solver=solver, random_state=0).fit(X, target)
        assert gap(model, best) < 1e-7
        np.testing.assert_allclose(model.coef_, best.coef_, rtol=1e-2, atol=1e-3)


class OwnLog(losses.Loss):
    target = "probabilities"
    reduction = "sum"

    def formula(self, xp, y, raw):
        e = xp.exp(-xp.abs(raw))
        p = xp.where(raw > 0, 1 / (1 + e), e / (1 + e))
        return xp.maximum(raw, 0 * raw) - y * raw + xp.log1p(e), p - y


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.parametrize("loss", ["focal", losses.Huber(), OwnLog()], ids=str)
def test_any_loss_is_taken(loss, solver, rng):
    X, y = problem(rng, K=2)
    best = LogisticClassifier(loss=loss, solver="lbfgs", tol=1e-6, max_iter=500).fit(X, y)
    model = LogisticClassifier(loss=loss, solver=solver, random_state=0).fit(X, y)
    assert gap(model, best) < 1e-6


# Weights, order, threads -------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_weights_are_repeated_rows_and_0_leaves_a_row_out(solver, rng):
    X, y = problem(rng)
    weight = rng.integers(0, 4, size=len(y))
    weighted = SoftmaxClassifier(solver=solver, random_state=0, tol=1e-6).fit(X, y, weight)
    repeated = SoftmaxClassifier(solver=solver, random_state=0, tol=1e-6).fit(
        np.repeat(X, weight, axis=0), np.repeat(y, weight)
    )
    np.testing.assert_allclose(weighted.loss_, repeated.loss_, rtol=1e-9)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-3, atol=1e-4)
    kept = weight > 0
    left_out = SoftmaxClassifier(solver=solver, random_state=0, tol=1e-6).fit(X[kept], y[kept], weight[kept])
    np.testing.assert_allclose(left_out.coef_, weighted.coef_, rtol=1e-4, atol=1e-5)
    assert weighted.t_ == kept.sum()


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array], ids=["dense", "CSR"])
def test_any_number_of_threads_gives_the_same_bits(container, solver):
    rng = np.random.default_rng(0)
    X, y = problem(rng, n=30_001, p=41)
    X = container(X)
    fits = [SoftmaxClassifier(solver=solver, random_state=0, n_threads=n).fit(X, y) for n in (1, 2, 7)]
    for model in fits[1:]:
        np.testing.assert_array_equal(model.coef_, fits[0].coef_)
        assert model.loss_curve_ == fits[0].loss_curve_


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_random_state_decides_the_order_of_the_rows(solver, rng):
    X, y = problem(rng)
    one, same, other = (
        SoftmaxClassifier(solver=solver, random_state=seed, tol=1e-3).fit(X, y) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.coef_, same.coef_)
    assert not np.array_equal(one.coef_, other.coef_)
    np.testing.assert_allclose(one.loss_, other.loss_, rtol=1e-4)


# What else fit does ------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_batch_size_and_learning_rate_change_the_path_not_the_end(solver, rng):
    X, y = problem(rng)
    best = SoftmaxClassifier(tol=1e-7).fit(X, y)
    curves = set()
    for parameters in ({}, {"batch_size": 7}, {"batch_size": 10**6}, {"learning_rate_init": 0.05}):
        model = SoftmaxClassifier(solver=solver, random_state=0, max_iter=1000, **parameters).fit(X, y)
        assert gap(model, best) < 1e-6
        curves.add(tuple(model.loss_curve_))
    assert len(curves) == 4


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_a_learning_rate_that_is_much_too_large_is_cut(solver, rng):
    X, y = problem(rng)
    best = SoftmaxClassifier(tol=1e-7).fit(X, y)
    model = SoftmaxClassifier(solver=solver, random_state=0, learning_rate_init=1e4).fit(X, y)
    assert gap(model, best) < 1e-4


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("parameters", "error", "match"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be an integer"),
        ({"batch_size": "many"}, ValueError, 'batch_size must be "auto" or a positive integer'),
        ({"learning_rate_init": 0}, ValueError, "learning_rate_init must be in"),
        ({"learning_rate_init": np.inf}, ValueError, "learning_rate_init must be in"),
        ({"learning_rate_init": "fast"}, ValueError, 'learning_rate_init must be "auto"'),
        ({"random_state": "x"}, ValueError, "cannot be used to seed"),
        ({"l1_ratio": 0.5, "solver": "sgd"}, ValueError, "l1_ratio=0.5"),
        ({"l1_ratio": 0.5, "solver": "adam"}, ValueError, "l1_ratio=0.5"),
    ],
)
def test_bad_parameters_are_errors_of_fit_and_of_partial_fit(estimator, parameters, error, match, rng):
    X, y = problem(rng, n=20)
    with pytest.raises(error, match=match):
        estimator(**parameters).fit(X, y)
    # with an L1 penalty there is no such method
    absent = "l1_ratio" in parameters
    with pytest.raises(AttributeError if absent else error, match=None if absent else match) as info:
        estimator(**parameters).partial_fit(X, y, classes=[0, 1, 2])
    if absent:
        assert "does not take an L1 penalty" in str(info.value.__cause__ or info.value)


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_reaching_max_iter_is_a_warning_that_says_what_to_do(solver, rng):
    X, y = problem(rng)
    with pytest.warns(ConvergenceWarning, match="max_iter=2 .*Increase max_iter"):
        model = SoftmaxClassifier(solver=solver, max_iter=2).fit(X, y)
    assert model.n_iter_.tolist() == [2]


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_separable_classes_without_a_penalty_are_a_warning(solver):
    X = np.linspace(-1, 1, 40)[:, None]
    with pytest.warns(ConvergenceWarning):
        model = LogisticClassifier(solver=solver, C=np.inf, random_state=0).fit(X, X[:, 0] > 0)
    assert np.isfinite(model.coef_).all()
    assert model.score(X, X[:, 0] > 0) == 1.0


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_constant_duplicated_and_zero_columns_and_few_rows_reach_the_optimum(solver, rng):
    X, y = problem(rng, n=60, K=2)
    X = np.column_stack([X, X[:, 0], np.zeros(60), np.full(60, 3.0), rng.normal(size=(60, 70))])
    best = LogisticClassifier(tol=1e-7).fit(X, y)
    model = LogisticClassifier(solver=solver, random_state=0, max_iter=1000).fit(X, y)
    assert gap(model, best) < 1e-6


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_validation_curve_and_warm_start(solver, rng):
    X, y = problem(rng)
    model = SoftmaxClassifier(solver=solver, random_state=0, warm_start=True)
    model.fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    assert len(model.validation_loss_curve_) == model.n_iter_[0]
    expected = log_loss(y[200:], model.predict_proba(X[200:]))
    np.testing.assert_allclose(model.validation_loss_curve_[-1], expected, rtol=1e-9)
    epochs = model.n_iter_[0]
    assert model.fit(X[:200], y[:200]).n_iter_[0] < epochs / 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("solver", STOCHASTIC)
def test_ctrl_c_ends_an_epoch_and_the_estimator_keeps_its_state(solver, sparse, rng):
    X, y = problem(rng, n=200_000, p=150 if not sparse else 300)
    if sparse:
        X = scipy.sparse.csr_array(X * (np.abs(X) > 1.5))
    model = SoftmaxClassifier(solver=solver, tol=0.01).fit(X[:5000], y[:5000])
    before = model.coef_
    timer = threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        model.set_params(max_iter=10**6, tol=0, batch_size=10).fit(X, y)
    timer.join()
    assert model.coef_ is before


# partial_fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.parametrize("pieces", [1, 10, 200])
def test_one_pass_over_a_long_stream_ends_near_the_optimum_of_fit(pieces, solver, rng):
    X, y = problem(rng, n=6_000, p=8)
    X[:, 2] *= 1e4
    X[:, 3] = 1e-3 * X[:, 3] + 10
    best = SoftmaxClassifier(tol=1e-7).fit(X, y)
    model = SoftmaxClassifier(solver=solver, random_state=0)
    for part in np.array_split(np.arange(len(y)), pieces):
        model.partial_fit(X[part], y[part], classes=[0, 1, 2])
    assert model.t_ == len(y)
    assert objective(model, X, y, 1.0) / best.loss_ - 1 < 0.01


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.parametrize("name", ["breast_cancer", "iris", "wine"])
def test_passes_over_the_same_rows_count_them_again(name, solver):
    X, y = LOADERS[name](return_X_y=True)
    estimator = LogisticClassifier if name == "breast_cancer" else SoftmaxClassifier
    passes = 40
    best = estimator(tol=1e-7, C=1.0).fit(X, y)
    model = estimator(solver=solver, random_state=0, C=1.0 / passes)
    for _ in range(passes):
        model.partial_fit(X, y, classes=np.unique(y))
    assert model.t_ == passes * len(y)
    assert objective(model, X, y, 1.0) / best.loss_ - 1 < 0.05


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_with_many_rows_the_penalty_does_not_matter_and_passes_end_at_the_optimum(solver, rng):
    X, y = problem(rng, n=3_000)
    best = SoftmaxClassifier(tol=1e-7).fit(X, y)
    model = SoftmaxClassifier(solver=solver, random_state=0)
    for _ in range(10):
        model.partial_fit(X, y, classes=[0, 1, 2])
    assert objective(model, X, y, 1.0) / best.loss_ - 1 < 1e-3


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_a_stream_of_wide_sparse_rows_learns(solver, rng):
    X, y = text(rng, n=4_000)
    best = SoftmaxClassifier().fit(X, y)
    model = SoftmaxClassifier(solver=solver, random_state=0)
    for part in np.array_split(np.arange(len(y)), 4):
        model.partial_fit(X[part], y[part], classes=np.arange(4))
    assert objective(model, X, y, 1.0) < 1.2 * best.loss_


@pytest.mark.parametrize("solver", ["auto", "adam"])
@pytest.mark.parametrize("device", [None, "torch"])
def test_a_stream_learns_the_same_from_shifted_columns(solver, device, rng):
    if device is not None:
        device = pytest.importorskip("torch").device("cpu")
    pieces = []
    for mean in (np.zeros(4), [5, -4, 0, 9]):
        X = rng.normal(size=(300, 4))
        X -= X.mean(axis=0)
        pieces.append((X + mean, (X[:, 0] + rng.logistic(size=300) > 0).astype(int)))
    models = []
    for shift in (0.0, 50.0):
        model = LogisticClassifier(solver=solver, random_state=0, device=device, device_dtype="float64")
        for X, y in pieces:
            model.partial_fit(X + shift, y, classes=[0, 1])
        models.append(model)
    np.testing.assert_allclose(models[1].coef_, models[0].coef_, rtol=1e-9)


@pytest.mark.parametrize("solver", ["auto", "lbfgs", "sgd", "adam"])
def test_partial_fit_goes_on_from_a_fit(solver, rng):
    X, y = problem(rng, n=2_000)
    model = SoftmaxClassifier(solver=solver, random_state=0).fit(X[:1000], y[:1000])
    assert model.t_ == 1000
    at_fit = objective(model, X, y, 1.0)
    model.partial_fit(X[1000:], y[1000:])
    assert model.t_ == 2000
    assert model.solver_ == ("adam" if solver == "adam" else "sgd")
    best = SoftmaxClassifier().fit(X, y).loss_
    after = objective(model, X, y, 1.0)
    assert after - best < 0.01 * best
    assert after < at_fit + (0.01 if solver == "adam" else 0.002) * best
    assert not hasattr(model, "loss_curve_")
    model.fit(X, y)
    assert gap(model, SoftmaxClassifier().fit(X, y)) < 1e-6


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_calls_go_on_where_the_last_one_ended_also_after_pickling(solver, rng):
    X, y = problem(rng)
    one = SoftmaxClassifier(solver=solver, random_state=0).partial_fit(X, y, [0, 1, 2])
    frozen = pickle.dumps(one)
    left = copy.copy(one)
    one.partial_fit(X, y)
    np.testing.assert_array_equal(one.coef_, pickle.loads(frozen).partial_fit(X, y).coef_)
    # the next call replaces the arrays of the last one, and does not write to them
    np.testing.assert_array_equal(one.coef_, left.partial_fit(X, y).coef_)


def test_labels_need_classes_once_and_must_be_among_them(rng):
    X, y = problem(rng)
    for estimator in ESTIMATORS:
        with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
            estimator().partial_fit(X, y)
        model = estimator().partial_fit(X[y < 2], y[y < 2], classes=[2, 1, 0])
        assert model.classes_.tolist() == [0, 1, 2]
        assert model.coef_.shape == (3, 5)
        coef = model.coef_
        with pytest.raises(ValueError, match=r"y contains labels .*\[3\]"):
            model.partial_fit(X, y + 1)
        with pytest.raises(ValueError, match="is not the same as on last call to partial_fit, was"):
            model.partial_fit(X, y, classes=[0, 1])
        with pytest.raises(ValueError, match="features"):
            model.partial_fit(X[:, :4], y)
        assert model.coef_ is coef
        with pytest.raises(ValueError, match="at least 2"):
            estimator().partial_fit(X, y, classes=[1])
        names = np.array(["a", "b", "c"])
        named = estimator().partial_fit(X[:1], names[y[:1]], classes=names).partial_fit(X, names[y])
        assert set(named.predict(X)) <= set(names)


def test_soft_and_multi_label_targets_name_their_own_classes(rng):
    X, y = problem(rng)
    P = rng.dirichlet(np.ones(3), size=len(X))
    model = SoftmaxClassifier().partial_fit(X, P)
    assert model.classes_.tolist() == [0, 1, 2]
    model.partial_fit(X, P).partial_fit(X, y)
    with pytest.raises(ValueError, match="y has 2 columns, but there are 3 classes"):
        model.partial_fit(X, P[:, :2] / P[:, :2].sum(axis=1, keepdims=True))
    model = LogisticClassifier().partial_fit(X, P)
    assert model.partial_fit(X, (P > 0.5).astype(int)).predict(X).shape == (300, 3)
    with pytest.raises(ValueError, match=r"shape \(n, 3\)"):
        model.partial_fit(X, y)
    model = LogisticClassifier().partial_fit(X, P[:, 0])
    assert model.classes_.tolist() == [0, 1]
    assert model.partial_fit(X, (P[:, 0] > 0.5).astype(int)).coef_.shape == (1, 5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_columns_without_names_are_the_sorted_classes_of_a_stream(estimator, rng):
    X, _ = problem(rng)
    P = rng.dirichlet(np.ones(3), size=len(X))
    model = estimator(random_state=0).partial_fit(X, P, ["a", "b", "c"])
    assert model.classes_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(model.coef_, estimator(random_state=0).partial_fit(X, P).coef_)
    for stream in (model, estimator()):
        with pytest.raises(
            ValueError, match=r"classes=\[.*\] must be sorted and distinct where y is a matrix"
        ):
            stream.partial_fit(X, P, ["c", "a", "b"])


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_columns_with_names_are_found_among_the_classes_of_a_stream(estimator, library, rng):
    frames = pytest.importorskip(library)
    X, _ = problem(rng)
    P = rng.dirichlet(np.ones(3), size=len(X))
    named = frames.DataFrame(dict(zip(["c", "a", "b"], P.T)))
    model = estimator(random_state=0).partial_fit(X, named, ["b", "c", "a"])
    assert model.classes_.tolist() == ["a", "b", "c"]
    expected = estimator(random_state=0).partial_fit(X, P[:, [1, 2, 0]])
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-9)
    assert model.score(X, named) == expected.score(X, P[:, [1, 2, 0]])


def test_probabilities_of_two_classes_are_not_of_three(rng):
    X, _ = problem(rng)
    with pytest.raises(
        ValueError, match="y holds probabilities of the second of two classes, but there are 3"
    ):
        LogisticClassifier().partial_fit(X, rng.random(300), [0, 1, 2])


def test_balanced_class_weights_are_not_for_a_stream_but_a_dict_is(rng):
    X, y = problem(rng, K=2)
    with pytest.raises(ValueError, match="class_weight='balanced' is not for partial_fit"):
        LogisticClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1])
    plain = LogisticClassifier(random_state=0).partial_fit(X, y, [0, 1], np.where(y == 1, 5.0, 1.0))
    weighted = LogisticClassifier(random_state=0, class_weight={1: 5.0}).partial_fit(X, y, [0, 1])
    np.testing.assert_allclose(weighted.coef_, plain.coef_, rtol=1e-10)


def test_other_rows_may_follow_in_another_form(rng):
    X, y = problem(rng)
    X[:, 0] += 1e5
    model = SoftmaxClassifier(random_state=0).partial_fit(X, y, [0, 1, 2])
    model.partial_fit(scipy.sparse.csr_array(X), y).partial_fit(X.astype(np.float32), y)
    assert model.coef_.dtype == np.float64
    assert np.isfinite(model.coef_).all()
    model.set_params(fit_intercept=False).partial_fit(X, y)
    assert not model.intercept_.any()
    model.set_params(fit_intercept=True, solver="adam", C=0.1).partial_fit(X[:1], y[:1])
    assert np.isfinite(model.coef_).all()


def test_clone_forgets_the_stream(rng):
    X, y = problem(rng)
    model = SoftmaxClassifier().partial_fit(X, y, [0, 1, 2])
    assert not hasattr(clone(model), "_stream")
