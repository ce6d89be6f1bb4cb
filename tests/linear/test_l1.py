"""L1 and elastic-net penalties of the linear classifiers, against scikit-learn's and their own optimality."""

import warnings

import numpy as np
import pytest
import scipy.sparse
import sklearn
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version

from sklloss import LogisticClassifier, SoftmaxClassifier
from sklloss.objectives import linear
from sklloss.solvers import l1_models

TIGHT = {"tol": 1e-7, "max_iter": 200}


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def penalty(coef, l1_ratio):
    return l1_ratio * np.abs(coef).sum() + (1 - l1_ratio) / 2 * (coef**2).sum()


def slopes(model, X, y, weight=None):
    """The gradient of the summed loss with respect to the scores, written out."""
    scores = X @ model.coef_.T + model.intercept_
    if isinstance(model, SoftmaxClassifier) and scores.shape[1] > 1:
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        target = y[:, None] == model.classes_ if y.ndim == 1 else y
        loss = -np.sum(target * np.log(p), axis=1)
    else:
        p = 1 / (1 + np.exp(-scores))
        if y.ndim == 2:
            target = y
        elif scores.shape[1] == 1:
            target = (y == model.classes_[1])[:, None]
        else:
            target = y[:, None] == model.classes_
        loss = np.sum(np.logaddexp(0, scores) - target * scores, axis=1)
    weight = np.ones(len(scores)) if weight is None else weight
    return weight @ loss, weight[:, None] * (p - target)


def check_optimal(model, X, y, weight=None, tol=1e-4):
    """Objective as stated; 0 in the subdifferential, with C l1 as the scale; exact zeros inside."""
    loss, slope = slopes(model, X, y, weight)
    ratio = model.l1_ratio
    np.testing.assert_allclose(model.loss_, model.C * loss + penalty(model.coef_, ratio), rtol=1e-9)
    gradient = model.C * (X.T @ slope).T + (1 - ratio) * model.coef_
    at_zero = np.maximum(np.abs(gradient) - ratio, 0)
    moved = np.abs(gradient + ratio * np.sign(model.coef_))
    assert np.where(model.coef_ == 0, at_zero, moved).max() < tol
    if model.fit_intercept:
        assert np.abs(model.C * slope.sum(axis=0)).max() < tol


def reference(X, y, *, solver="saga", l1_ratio=1.0, **parameters):
    if parse_version(sklearn.__version__) >= parse_version("1.8"):
        parameters["l1_ratio"] = l1_ratio
    elif solver == "saga":
        parameters |= {"penalty": "elasticnet", "l1_ratio": l1_ratio}
    else:
        parameters |= {"penalty": "l1"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(solver=solver, tol=1e-9, max_iter=20000, random_state=0, **parameters).fit(
            X, y
        )


def objective(model, X, y, C, l1_ratio):
    loss, _ = slopes(model, X, y)
    return C * loss + penalty(model.coef_, l1_ratio)


class _As(SoftmaxClassifier):
    """Coefficients of another model, read as a softmax's."""

    def __init__(self, other):
        self.coef_, self.intercept_, self.classes_ = other.coef_, other.intercept_, other.classes_


@pytest.mark.parametrize("C", [0.02, 0.3])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.3])
def test_binary_objective_and_support_are_saga_s(cancer, C, l1_ratio):
    X, y = cancer
    ours = LogisticClassifier(C=C, l1_ratio=l1_ratio, **TIGHT).fit(X, y)
    theirs = reference(X, y, C=C, l1_ratio=l1_ratio)
    assert ours.solver_ == "proximal-newton"
    check_optimal(ours, X, y)
    best = objective(theirs, X, y, C, l1_ratio)
    assert ours.loss_ <= best * (1 + 1e-9)
    np.testing.assert_allclose(ours.loss_, best, rtol=1e-6)
    np.testing.assert_array_equal(ours.coef_ != 0, np.abs(theirs.coef_) > 1e-4)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-3 * np.abs(ours.coef_).max())


def test_without_an_intercept_it_ends_where_liblinear_does(cancer):
    X, y = cancer
    ours = LogisticClassifier(C=0.5, l1_ratio=1, fit_intercept=False, **TIGHT).fit(X, y)
    theirs = reference(X, y, solver="liblinear", C=0.5, fit_intercept=False)
    check_optimal(ours, X, y)
    np.testing.assert_allclose(ours.loss_, objective(theirs, X, y, 0.5, 1), rtol=1e-6)
    assert ours.intercept_ == [0]


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("data", ["iris", "digits"])
def test_softmax_objective_is_saga_s(iris, data, l1_ratio):
    X, y = iris if data == "iris" else load_digits(return_X_y=True)
    C = 1.0
    if data == "digits":
        X, y, C = X[::3] / 16, y[::3], 0.1
    ours = SoftmaxClassifier(C=C, l1_ratio=l1_ratio, **TIGHT).fit(X, y)
    theirs = reference(X, y, C=C, l1_ratio=l1_ratio)
    check_optimal(ours, X, y)
    best = objective(_As(theirs), X, y, C, l1_ratio)
    assert ours.loss_ <= best * (1 + 1e-9)
    np.testing.assert_allclose(ours.loss_, best, rtol=1e-6)
    np.testing.assert_allclose(ours.intercept_.sum(), 0, atol=1e-6)


@pytest.mark.parametrize("kind", ["multilabel", "one-vs-rest", "soft", "smoothed"])
def test_outputs_side_by_side_are_optimal_each(iris, kind, rng):
    X, y = iris
    labels = np.column_stack([y == 0, y != 1, rng.random(len(y)) < 0.3]).astype(int)
    y = {"multilabel": labels, "soft": 0.8 * labels + 0.1}.get(kind, y)
    smoothing = 0.1 if kind == "smoothed" else 0.0
    model = LogisticClassifier(C=2, l1_ratio=0.9, label_smoothing=smoothing, **TIGHT).fit(X, y)
    if kind == "smoothed":
        y = (y[:, None] == [0, 1, 2]) * 0.9 + 0.05
    check_optimal(model, X, y)
    assert model.n_iter_.shape == (3,)
    for k in range(3):
        target = y[:, k] if y.ndim == 2 else (y == k).astype(int)
        alone = LogisticClassifier(C=2, l1_ratio=0.9, **TIGHT).fit(X, target)
        np.testing.assert_allclose(model.coef_[k], alone.coef_[0], rtol=1e-5, atol=1e-6)


def sparse_problem(rng, K, n=400, p=3000):
    X = scipy.sparse.random(n, p, density=0.01, format="csr", random_state=3)
    coef = np.zeros((p, K))
    coef[:15] = rng.normal(size=(15, K)) * 8
    X[:, :15] = X[:, :15] + scipy.sparse.random(n, 15, density=0.5, random_state=4)
    return X.tocsr(), (X @ coef + rng.gumbel(size=(n, K))).argmax(axis=1)


@pytest.mark.parametrize("cls", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize("K", [2, 5])
@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
def test_sparse_and_dense_rows_end_at_the_same_optimum(cls, K, rng, monkeypatch):
    X, y = sparse_problem(rng, K)
    models = [cls(C=1, l1_ratio=1, **TIGHT).fit(A, y) for A in (X, X.toarray(), X.toarray(order="F"))]
    monkeypatch.setattr(linear.LinearObjective, "column_models", lambda self, sets: None)
    models.append(cls(C=1, l1_ratio=1, **TIGHT).fit(X, y))  # by Hessian blocks
    monkeypatch.setattr(linear, "LARGEST_SUBSET", 0)  # by products alone
    models += [cls(C=1, l1_ratio=1, **TIGHT).fit(A, y) for A in (X, X.toarray())]
    for model in models:
        check_optimal(model, X, y, tol=1e-3)
        np.testing.assert_allclose(model.loss_, models[0].loss_, rtol=1e-10)
        np.testing.assert_array_equal(model.coef_ != 0, models[0].coef_ != 0)
    assert 0 < (models[0].coef_ != 0).sum() < 0.1 * models[0].coef_.size


def test_correlated_sparse_columns_converge_at_the_defaults(rng):
    # Sweeps over such columns take very long: the Hessian has to take over.
    base = scipy.sparse.random(400, 6, density=0.5, random_state=5)
    near = [base + 1e-3 * scipy.sparse.random(400, 6, density=0.2, random_state=s) for s in range(4)]
    X = scipy.sparse.hstack([base, *near]).tocsr()
    y = (X[:, :6] @ rng.normal(size=6) + 0.3 * rng.logistic(size=400) > 0.2).astype(int)
    model = LogisticClassifier(C=100, l1_ratio=0.5).fit(X, y)
    best = LogisticClassifier(C=100, l1_ratio=0.5, **TIGHT).fit(X.toarray(), y)
    assert best.loss_ <= model.loss_ <= best.loss_ * (1 + 1e-6)


def test_many_rows_start_at_the_minimum_over_a_sample(rng):
    X = rng.normal(size=(20_000, 5))
    y = (X[:, 0] - X[:, 1] + rng.logistic(size=20_000) > 0.5).astype(int)
    model = LogisticClassifier(C=0.01, l1_ratio=1).fit(X, y)
    check_optimal(model, X, y, tol=1e-3)
    assert model.n_iter_[0] <= 4
    assert (model.coef_[0, 2:] == 0).any()


@pytest.mark.parametrize("cls", [LogisticClassifier, SoftmaxClassifier])
def test_weights_are_repeated_rows(cls, iris, rng):
    X, y = iris
    weight = rng.integers(0, 4, len(y))
    weighted = cls(C=0.7, l1_ratio=0.8, **TIGHT).fit(X, y, sample_weight=weight)
    repeated = cls(C=0.7, l1_ratio=0.8, **TIGHT).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    check_optimal(weighted, X, y, weight.astype(float))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tiny_C_leaves_the_intercept_alone(cancer, iris, dtype):
    X, y = cancer
    model = LogisticClassifier(C=1e-6, l1_ratio=1, tol=1e-6).fit(X.astype(dtype), y)
    assert not model.coef_.any()
    assert model.coef_.dtype == dtype
    np.testing.assert_allclose(model.intercept_, np.log(y.mean() / (1 - y.mean())), rtol=1e-4)
    X, y = iris
    y = np.minimum(y, rng_codes(y))
    model = SoftmaxClassifier(C=1e-6, l1_ratio=1, tol=1e-6).fit(X.astype(dtype), y)
    assert not model.coef_.any()
    share = np.log(np.bincount(y) / len(y))
    np.testing.assert_allclose(model.intercept_, share - share.mean(), rtol=1e-3, atol=1e-4)


def rng_codes(y):
    return np.random.default_rng(1).integers(0, 3, len(y))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("cls", [LogisticClassifier, SoftmaxClassifier])
def test_the_number_of_threads_changes_no_bit(cls, sparse, rng):
    n, p = (60_000, 40)
    X = rng.normal(size=(n, p)) * (rng.random((n, p)) < (0.2 if sparse else 2))
    y = (X[:, :3] @ rng.normal(size=(3, 4)) + rng.gumbel(size=(n, 4))).argmax(axis=1)
    X = scipy.sparse.csr_array(X) if sparse else X
    models = [cls(C=0.01, l1_ratio=0.9, n_threads=k).fit(X, y) for k in (1, 2, 7)]
    for model in models[1:]:
        np.testing.assert_array_equal(model.coef_, models[0].coef_)
        np.testing.assert_array_equal(model.intercept_, models[0].intercept_)
        assert model.loss_curve_ == models[0].loss_curve_


@pytest.mark.parametrize("cls", [LogisticClassifier, SoftmaxClassifier])
def test_fewer_rows_than_columns_reach_the_optimum(cls, rng):
    X = rng.normal(size=(40, 500))
    y = rng.integers(0, 3, 40)
    model = cls(C=1, l1_ratio=1, **TIGHT).fit(X, y)
    check_optimal(model, X, y)
    assert (model.coef_ != 0).sum() < 3 * 40


@pytest.mark.parametrize("cls", [LogisticClassifier, SoftmaxClassifier])
def test_duplicated_constant_and_empty_columns_reach_the_optimum(cls, iris):
    X, y = iris
    best = cls(C=1, l1_ratio=1, **TIGHT).fit(X, y)
    wide = np.column_stack([X, X[:, :2], np.full(len(X), 3.0), np.zeros(len(X)), -X[:, 2]])
    model = cls(C=1, l1_ratio=1, **TIGHT).fit(wide, y)
    np.testing.assert_allclose(model.loss_, best.loss_, rtol=1e-8)
    assert not model.coef_[:, 7].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unscaled_columns_and_far_origins_converge_at_the_defaults(dtype):
    X, y = load_breast_cancer(return_X_y=True)
    X = np.column_stack([X, X[:, 0] * 1e6, X[:, 1] + 1e5, X[:, 2] * 1e-6]).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = LogisticClassifier(l1_ratio=1).fit(X, y)
    best = LogisticClassifier(l1_ratio=1, **TIGHT).fit(X.astype(np.float64), y)
    assert (model.loss_ - best.loss_) / best.loss_ < (1e-6 if dtype == np.float64 else 1e-5)


def test_the_origin_of_columns_does_not_matter_to_the_penalty(cancer):
    X, y = cancer
    near = LogisticClassifier(C=0.3, l1_ratio=0.7, **TIGHT).fit(X, y)
    far = LogisticClassifier(C=0.3, l1_ratio=0.7, **TIGHT).fit(X + 1000, y)
    np.testing.assert_allclose(far.coef_, near.coef_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(far.loss_, near.loss_, rtol=1e-10)


@pytest.mark.parametrize("cls", [LogisticClassifier, SoftmaxClassifier])
def test_float32_ends_near_float64(cls, iris):
    X, y = iris
    single = cls(C=1, l1_ratio=1).fit(X.astype(np.float32), y)
    double = cls(C=1, l1_ratio=1, **TIGHT).fit(X.astype(np.float32).astype(float), y)
    assert single.coef_.dtype == np.float32
    np.testing.assert_allclose(single.loss_, double.loss_, rtol=1e-6)
    np.testing.assert_array_equal(single.coef_ != 0, double.coef_ != 0)


@pytest.mark.parametrize("cls", [LogisticClassifier, SoftmaxClassifier])
def test_without_l1_it_is_one_more_solver(cls, iris):
    X, y = iris
    plain = cls(tol=1e-7).fit(X, y)
    other = cls(solver="proximal-newton", **TIGHT).fit(X, y)
    assert other.solver_ == "proximal-newton"
    np.testing.assert_allclose(other.loss_, plain.loss_, rtol=1e-12)
    np.testing.assert_allclose(other.coef_, plain.coef_, rtol=1e-4, atol=1e-6)


def test_without_a_penalty_l1_ratio_means_nothing(rng):
    X = rng.normal(size=(300, 4))
    y = (X[:, 0] + rng.normal(size=300) > 0).astype(int)
    plain = LogisticClassifier(C=np.inf).fit(X, y)
    mixed = LogisticClassifier(C=np.inf, l1_ratio=0.5).fit(X, y)
    assert mixed.solver_ == plain.solver_
    np.testing.assert_array_equal(mixed.coef_, plain.coef_)
    other = LogisticClassifier(C=np.inf, l1_ratio=0.5, solver="proximal-newton").fit(X, y)
    np.testing.assert_allclose(other.coef_, plain.coef_, rtol=1e-3)


def test_any_convex_loss_with_second_derivatives_takes_it(cancer):
    X, y = cancer
    model = LogisticClassifier(loss="huber", C=0.5, l1_ratio=1, **TIGHT).fit(X, y)
    assert 0 < (model.coef_ != 0).sum() < model.coef_.size
    worse = LogisticClassifier(loss="huber", C=0.5, l1_ratio=1, tol=1e-2).fit(X, y)
    assert model.loss_ <= worse.loss_


@pytest.mark.parametrize("solver", ["newton-cholesky", "newton-cg", "lbfgs"])
def test_solvers_of_smooth_objectives_refuse_l1(iris, solver):
    with pytest.raises(ValueError, match=f"solver='{solver}'.*l1_ratio=0.5.*proximal-newton"):
        LogisticClassifier(l1_ratio=0.5, solver=solver).fit(*iris)


@pytest.mark.parametrize("cls", [LogisticClassifier, SoftmaxClassifier])
def test_losses_that_are_not_convex_refuse_l1(cls, iris):
    with pytest.raises(ValueError, match="l1_ratio=0.5 .*'focal'.*not convex"):
        cls(loss="focal", l1_ratio=0.5).fit(*iris)


def test_a_warm_start_takes_fewer_iterations_and_the_validation_curve_has_one_value_for_each(cancer):
    X, y = cancer
    model = LogisticClassifier(l1_ratio=1, warm_start=True).fit(
        X[:400], y[:400], X_val=X[400:], y_val=y[400:]
    )
    assert len(model.validation_loss_curve_) == model.n_iter_[0] == len(model.loss_curve_) - 1
    first = model.n_iter_[0]
    kept = model.coef_.copy()
    model.fit(X[:400], y[:400])
    assert model.n_iter_[0] < first
    np.testing.assert_allclose(model.coef_, kept, rtol=1e-3, atol=1e-5)
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        LogisticClassifier(l1_ratio=1, max_iter=1).fit(X, y)


def test_an_output_with_one_class_only_warns(iris):
    X, y = iris
    labels = np.column_stack([y == 0, np.ones_like(y)])
    with pytest.warns(ConvergenceWarning, match="one class only"):
        model = LogisticClassifier(l1_ratio=1, C=0.5).fit(X, labels)
    assert np.isfinite(model.intercept_).all()
    assert not model.coef_[1].any()


def test_grid_search_over_l1_ratio_in_a_pipeline(cancer):
    X, y = cancer
    pipeline = make_pipeline(StandardScaler(), LogisticClassifier(C=0.1))
    search = GridSearchCV(pipeline, {"logisticclassifier__l1_ratio": [0.0, 0.5, 1.0]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.95
    assert not np.isnan(search.cv_results_["mean_test_score"]).any()


@pytest.mark.parametrize("seed", [1, 12])
def test_correlated_columns_of_sparse_X_reach_the_optimum(seed):
    # shifted columns, and one that is nearly a multiple of another
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(245, 8)) + 10.0 ** rng.integers(0, 4, 8)
    X[:, 7] = 2 * X[:, 0]
    X[rng.random(X.shape) < 0.3] = 0
    noise = rng.gumbel(size=(245, 3))
    y = np.argmax(noise + (X / np.abs(X).max(axis=0)) @ rng.normal(size=(8, 3)), axis=1)
    model = SoftmaxClassifier(C=100.0, l1_ratio=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        loss = model.fit(scipy.sparse.csr_array(X), y).loss_
    expected = model.set_params(tol=1e-6, max_iter=1000).fit(X, y).loss_
    assert abs(loss - expected) < 1e-6 * expected


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array], ids=["dense", "sparse"])
def test_a_softmax_with_few_zeros_needs_few_steps_over_faces(container, rng, monkeypatch):
    """A column whose coefficients are not 0 in any class ends at their median, which one zero marks."""
    true, faces = l1_models._minimise_on_face, []
    monkeypatch.setattr(l1_models, "_minimise_on_face", lambda *args: faces.append(0) or true(*args))
    X = rng.standard_normal((300, 30))
    y = (X @ rng.standard_normal((30, 7)) + rng.gumbel(size=(300, 7))).argmax(axis=1)
    X *= 1e4
    model = SoftmaxClassifier(C=0.01, l1_ratio=0.01).fit(container(X), y)
    assert len(faces) <= 60
    best = SoftmaxClassifier(C=0.01, l1_ratio=0.01, tol=1e-7).fit(X, y)
    assert model.loss_ == pytest.approx(best.loss_, rel=1e-6)


def test_a_costly_hessian_serves_for_several_steps(rng, monkeypatch):
    true, rows = linear.LinearObjective.subset_hessian, []

    def counted(self, sets, **options):
        rows.append(self.passes.n)
        return true(self, sets, **options)

    monkeypatch.setattr(linear.LinearObjective, "subset_hessian", counted)
    X = rng.standard_normal((60_000, 12))
    y = (X[:, :8] @ rng.standard_normal(8) + rng.logistic(size=60_000) > 0.3).astype(int)
    model = LogisticClassifier(C=0.01, l1_ratio=1).fit(X, y)
    assert rows.count(60_000) == 1
    assert model.n_iter_[0] >= 2
    best = LogisticClassifier(C=0.01, l1_ratio=1, **TIGHT).fit(X, y)
    np.testing.assert_allclose(model.loss_, best.loss_, rtol=1e-6)
    np.testing.assert_array_equal(model.coef_ == 0, best.coef_ == 0)


def test_an_optimum_of_0_over_many_classes_is_found_without_a_warning(rng):
    X = scipy.sparse.csr_array(np.round(rng.normal(size=(200, 2))))
    y = np.arange(200) % 9  # so many classes start with a damping of more than 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SoftmaxClassifier(C=1e-4, l1_ratio=0.5, fit_intercept=False).fit(X, y)
    assert not model.coef_.any()
