"""What users of scikit-learn rely on: layouts of X, attributes, persistence, warm starts, validation."""

import gc
import inspect
import pickle
import weakref

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sklloss
from sklloss import LogisticClassifier, SoftmaxClassifier, losses

ESTIMATORS = [LogisticClassifier, SoftmaxClassifier]
EXACT = ["newton-cholesky", "newton-cg", "lbfgs"]
SOLVERS = [*EXACT, "sgd", "adam"]
CLOSE = {"rtol": 1e-6, "atol": 1e-9}


def problem(rng, n=150, p=5, K=3, dtype=np.float64):
    X = rng.normal(size=(n, p))
    y = (X[:, :1] @ np.linspace(-1, 1, K)[None] + rng.gumbel(size=(n, K))).argmax(axis=1)
    return X.astype(dtype), y


# X as it comes -----------------------------------------------------------------------------------------


@pytest.fixture
def no_collection():
    """Only reference counts free memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("parameters", [{}, {"verbose": 1}, {"solver": "sgd"}])
@pytest.mark.parametrize("validated", [False, True])
def test_a_fit_frees_its_data_at_its_end(parameters, validated, rng):
    X, y = problem(rng)
    data = weakref.ref(X)
    model = SoftmaxClassifier(**parameters)
    if validated:
        model.fit(X, y, X_val=X, y_val=y)
    else:
        model.fit(X, y)
    del X
    assert data() is None


def strided(X):
    wide = np.full((2 * X.shape[0], 3 * X.shape[1]), np.nan, dtype=X.dtype)
    wide[::2, ::3] = X
    return wide[::2, ::3]


def sliced(X):
    wide = np.full((X.shape[0], X.shape[1] + 3), np.nan, dtype=X.dtype)
    wide[:, 1:-2] = X
    return wide[:, 1:-2]


def sliced_by_column(X):
    return sliced(X.T).T if X.flags.c_contiguous else X


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def unaligned(X):
    memory = np.zeros(X.nbytes + 1, dtype=np.uint8)
    odd = memory[1:].view(X.dtype).reshape(X.shape)
    odd[:] = X
    return odd


LAYOUTS = {
    "by columns": np.asfortranarray,
    "strided": strided,
    "columns of a wider one": sliced,
    "rows of a longer one": sliced_by_column,
    "backwards": lambda X: X[::-1].copy()[::-1],
    "read only": read_only,
    "unaligned": unaligned,
    "big endian": lambda X: X.astype(X.dtype.newbyteorder(">")),
    "list": lambda X: X.astype(float).tolist(),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_x_does_not_matter(rng, layout, solver, dtype):
    X, y = problem(rng, dtype=dtype)
    other = LAYOUTS[layout](X)
    np.testing.assert_array_equal(other, X)
    for estimator, labels in ((SoftmaxClassifier, y), (LogisticClassifier, y > 0), (LogisticClassifier, y)):
        plain = estimator(solver=solver, random_state=0, tol=1e-6).fit(X, labels)
        model = estimator(solver=solver, random_state=0, tol=1e-6).fit(other, labels)
        tolerance = CLOSE if dtype == np.float64 else {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(model.coef_, plain.coef_, **tolerance)
        np.testing.assert_allclose(model.predict_proba(other), plain.predict_proba(X), **tolerance)


def int64_indices(X):
    X = scipy.sparse.csr_array(X)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def with_duplicates(X):
    """CSR with every entry given as two halves, the columns of a row backwards."""
    X = scipy.sparse.csr_array(X)
    data, indices = [], []
    for first, last in zip(X.indptr[:-1], X.indptr[1:]):
        for _ in range(2):
            data.append(X.data[first:last][::-1] / 2)
            indices.append(X.indices[first:last][::-1])
    return scipy.sparse.csr_array(
        (np.concatenate(data), np.concatenate(indices), 2 * X.indptr), shape=X.shape
    )


SPARSE = {
    "csr_matrix": scipy.sparse.csr_matrix,
    "csr_array": scipy.sparse.csr_array,
    "csc_matrix": scipy.sparse.csc_matrix,
    "csc_array": scipy.sparse.csc_array,
    "coo_array": scipy.sparse.coo_array,
    "int64 indices": int64_indices,
    "duplicate entries": with_duplicates,
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("container", SPARSE)
def test_a_sparse_matrix_gives_the_model_of_the_dense_one(rng, container, solver, dtype):
    X, y = problem(rng, dtype=dtype)
    X[rng.uniform(size=X.shape) < 0.6] = 0
    X[7] = 0
    sparse = SPARSE[container](X)
    tolerance = CLOSE if dtype == np.float64 else {"rtol": 1e-4, "atol": 1e-5}
    for estimator, labels in ((SoftmaxClassifier, y), (LogisticClassifier, y > 0), (LogisticClassifier, y)):
        for intercept in (True, False):
            plain = estimator(solver=solver, random_state=0, fit_intercept=intercept, tol=1e-6).fit(X, labels)
            model = estimator(solver=solver, random_state=0, fit_intercept=intercept, tol=1e-6).fit(
                sparse, labels
            )
            np.testing.assert_allclose(model.coef_, plain.coef_, **tolerance)
            assert model.coef_.dtype == dtype
            np.testing.assert_allclose(model.predict_proba(sparse), plain.predict_proba(X), **tolerance)
            np.testing.assert_array_equal(model.predict(sparse), plain.predict(X))


def test_the_callers_arrays_are_left_alone(rng):
    X, y = problem(rng)
    weight = rng.uniform(size=150)
    duplicated = with_duplicates(X)
    P = rng.dirichlet(np.ones(3), size=150)
    kept = [a.copy() for a in (X, y, weight, duplicated.data, duplicated.indices, P)]
    for rows in (X, duplicated):
        SoftmaxClassifier(class_weight="balanced").fit(rows, y, weight)
        SoftmaxClassifier(class_weight="balanced").fit(rows, P, weight)
        LogisticClassifier(class_weight="balanced").fit(rows, P, weight).predict_proba(rows)
    for before, after in zip(kept, (X, y, weight, duplicated.data, duplicated.indices, P)):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_frames_teach_their_column_names(rng, library, estimator):
    frame = pytest.importorskip(library).DataFrame
    X, y = problem(rng)
    names = [f"column {k}" for k in range(5)]
    X_frame = frame(dict(zip(names, X.T)))
    model = estimator().fit(X_frame, y)
    assert model.feature_names_in_.tolist() == names
    assert model.n_features_in_ == 5
    np.testing.assert_allclose(model.coef_, estimator().fit(X, y).coef_, **CLOSE)
    np.testing.assert_array_equal(model.predict(X_frame), estimator().fit(X, y).predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame(dict(zip(reversed(names), X.T))))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, np.float16, np.longdouble])
def test_other_number_types_count_as_float64(rng, estimator, dtype):
    X, y = problem(rng)
    X = (X * 3).astype(dtype)
    model = estimator().fit(X, y)
    assert model.coef_.dtype == np.float64
    np.testing.assert_array_equal(model.coef_, estimator().fit(X.astype(np.float64), y).coef_)
    np.testing.assert_array_equal(model.predict(X), model.predict(X.astype(np.float64)))


# Attributes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_fitted_attributes_have_the_types_and_shapes_of_scikit_learn(rng, estimator, solver, dtype):
    for K in (2, 3):
        X, y = problem(rng, K=K, dtype=dtype)
        outputs = 1 if K == 2 else K
        model = estimator(solver=solver, random_state=0)
        assert model.fit(X, y) is model
        assert model.coef_.shape == (outputs, 5)
        assert model.intercept_.shape == (outputs,)
        assert model.coef_.dtype == model.intercept_.dtype == dtype
        assert model.classes_.tolist() == list(range(K))
        assert model.n_iter_.dtype == np.int32
        assert model.n_iter_.shape == (outputs if estimator is LogisticClassifier else 1,)
        assert type(model.loss_) is float
        assert type(model.loss_curve_) is list
        assert {type(value) for value in model.loss_curve_} == {float}
        assert len(model.loss_curve_) == model.n_iter_.max() + 1
        assert model.loss_curve_[-1] == model.loss_
        at_zero = np.log(K) if estimator is SoftmaxClassifier else outputs * np.log(2)
        assert model.loss_curve_[0] == pytest.approx(150 * at_zero, rel=1e-6)
        slack = 1e-6 if dtype == np.float32 else 1e-14
        assert np.all(np.diff(model.loss_curve_) <= slack * model.loss_curve_[0])
        assert model.solver_ == solver
        assert model.predict_proba(X).dtype == dtype
        assert model.decision_function(X).dtype == dtype
        assert not hasattr(model, "validation_loss_curve_")
        assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_fitted_estimator_holds_arrays_and_plain_values_only(rng, estimator):
    X, y = problem(rng)
    model = estimator().fit(X, y, X_val=X, y_val=y)

    def plain(value):
        if isinstance(value, np.ndarray):
            return value.dtype != object and value.base is None
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in (bool, int, float, str)

    assert {name: value for name, value in vars(model).items() if not plain(value)} == {}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_pickle_and_clone(rng, estimator):
    X, y = problem(rng)
    model = estimator(C=0.3, solver="lbfgs", class_weight={0: 2.0}).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.loss_curve_ == model.loss_curve_
    bare = clone(model)
    assert bare.get_params() == model.get_params()
    assert not hasattr(bare, "coef_")
    np.testing.assert_array_equal(bare.fit(X, y).coef_, model.coef_)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_parameters_of_scikit_learn_are_here_with_its_defaults(estimator):
    theirs = inspect.signature(LogisticRegression.__init__).parameters
    ours = inspect.signature(estimator.__init__).parameters
    # deprecated there, or of a version before 1.8
    gone = {"self", "penalty", "multi_class", "n_jobs"}
    names = set(theirs) - gone
    assert names <= set(ours)
    for name in names - {"solver", "l1_ratio"}:
        assert ours[name].default == theirs[name].default, name
    assert ours["solver"].default == "auto"


def test_repr_names_what_differs_from_the_defaults():
    assert repr(LogisticClassifier(C=3)) == "LogisticClassifier(C=3)"
    assert repr(SoftmaxClassifier()) == "SoftmaxClassifier()"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_new_parameters_count_at_the_next_fit(rng, estimator):
    X, y = problem(rng)
    model = estimator().fit(X, y)
    before = model.coef_.copy()
    model.set_params(C=1e-3, fit_intercept=False)
    np.testing.assert_array_equal(model.coef_, before)
    model.fit(X, y)
    np.testing.assert_array_equal(model.coef_, estimator(C=1e-3, fit_intercept=False).fit(X, y).coef_)
    assert not model.intercept_.any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_second_fit_forgets_the_first(rng, estimator):
    pd = pytest.importorskip("pandas")
    X, y = problem(rng)
    model = estimator().fit(pd.DataFrame(X, columns=list("abcde")), y)
    model.fit(X, y, X_val=X, y_val=y)
    assert not hasattr(model, "feature_names_in_")
    assert hasattr(model, "validation_loss_curve_")
    X2, y2 = problem(rng, p=3, K=2)
    model.fit(X2, y2)
    fresh = estimator().fit(X2, y2)
    assert set(vars(model)) == set(vars(fresh))
    np.testing.assert_array_equal(model.predict_proba(X2), fresh.predict_proba(X2))


def test_verbose_prints_the_objective_of_each_iteration(rng, capsys):
    X, y = problem(rng)
    model = SoftmaxClassifier(verbose=1).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_[0]
    assert all("objective" in line for line in lines)
    SoftmaxClassifier().fit(X, y)
    assert capsys.readouterr().out == ""


# Predictions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [2, 4])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_probabilities_sum_to_one_and_agree_with_their_logarithms(rng, estimator, K):
    X, y = problem(rng, K=K)
    model = estimator().fit(X, y)
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), proba, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), proba.argmax(axis=1))
    for row in (X[:1], X[:1].tolist(), scipy.sparse.csr_array(X[:1])):
        np.testing.assert_allclose(model.predict_proba(row), proba[:1], rtol=1e-12)
    assert model.predict(X[:1]).shape == (1,)
    assert model.decision_function(X[:1]).shape == ((1,) if K == 2 else (1, K))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_log_probabilities_are_finite_where_probabilities_round_to_zero(rng, estimator, K, dtype):
    X, y = problem(rng, K=K, dtype=dtype)
    model = estimator().fit(X, y)
    for far in (X * dtype(1e4), -X * dtype(1e30)):
        logs = model.predict_log_proba(far)
        assert np.isfinite(logs).all()
        assert logs.dtype == dtype
        proba = model.predict_proba(far)
        assert np.isfinite(proba).all()
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
        assert logs.min() < -700


# Warm starts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_warm_start_at_the_optimum_is_over_at_once(rng, estimator, solver, dtype):
    X, y = problem(rng, dtype=dtype)
    model = estimator(warm_start=True, solver=solver, random_state=0).fit(X, y)
    first, coef, loss = model.n_iter_.max(), model.coef_.copy(), model.loss_
    model.fit(X, y)
    assert model.n_iter_.max() <= (2 if solver in EXACT else 4) < first
    np.testing.assert_allclose(model.loss_, loss, rtol=1e-6)
    # Adam's coefficients are as far from the optimum as the square root of the gap.
    np.testing.assert_allclose(model.coef_, coef, rtol=1e-3, atol=1e-3 if solver == "adam" else 1e-4)
    assert len(model.loss_curve_) == model.n_iter_.max() + 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_warm_start_follows_a_path_of_C(rng, solver):
    X, y = problem(rng)
    model = SoftmaxClassifier(warm_start=True, solver=solver, random_state=0, tol=1e-7)
    for C in (0.01, 0.1, 1.0, 10.0):
        model.set_params(C=C).fit(X, y)
        cold = SoftmaxClassifier(C=C, tol=1e-7).fit(X, y)
        np.testing.assert_allclose(model.coef_, cold.coef_, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("solver", "l1_ratio"), [*((solver, 0) for solver in SOLVERS), ("proximal-newton", 1)]
)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_warm_start_far_on_the_wrong_side_reaches_the_optimum(rng, estimator, solver, l1_ratio):
    X, y = problem(rng)
    model = estimator(warm_start=True, solver=solver, l1_ratio=l1_ratio, random_state=0, max_iter=1000)
    loss = model.fit(X, y).loss_
    model.coef_ = -1e4 * model.coef_
    assert model.fit(X, y).loss_ == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("factor", [1e-9, 1e-11])
def test_a_warm_start_without_curvature_starts_at_zero(factor):
    X, y = load_iris(return_X_y=True)
    X, y = X[50:], y[50:]
    model = LogisticClassifier(C=np.inf, warm_start=True).fit(X * factor, y)
    loss = model.loss_
    assert model.fit(X, y).loss_ == pytest.approx(loss, rel=1e-6)
    model.intercept_[:] = 1e12
    assert model.fit(X, y).loss_ == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_warm_start_of_many_rows_is_not_given_up_for_a_guess(solver):
    X = np.random.default_rng(0).normal(size=(32768, 5))
    y = np.arange(len(X)) % 2
    weight = np.where(y == 1, 100.0, 1.0)  # a sample of the rows may have those of one class alone
    model = LogisticClassifier(solver=solver, warm_start=True, random_state=0).fit(X, y, weight)
    loss = model.loss_
    assert model.fit(X, y, weight).loss_curve_[0] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_warm_start_of_another_shape_is_an_error_that_changes_nothing(rng, estimator):
    X, y = problem(rng)
    model = estimator(warm_start=True).fit(X, y)
    before = {name: np.copy(value) for name, value in vars(model).items()}
    for new_X, new_y in ((X[:, :3], y), (X, y > 0)):
        with pytest.raises(ValueError, match="warm_start.*shape"):
            model.fit(new_X, new_y)
        assert set(vars(model)) == set(before)
        for name, value in before.items():
            np.testing.assert_array_equal(vars(model)[name], value)


# Validation sets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_validation_curve_ends_at_the_loss_of_the_model(rng, estimator, weighted, solver, container):
    X, y = problem(rng, n=200)
    train, held = slice(0, 150), slice(150, 200)
    weight = rng.uniform(0.1, 3, size=50) if weighted else None
    plain = estimator(solver=solver, random_state=0).fit(X[train], y[train])
    model = estimator(solver=solver, random_state=0).fit(
        X[train], y[train], X_val=container(X[held]), y_val=y[held], sample_weight_val=weight
    )
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    curve = model.validation_loss_curve_
    assert type(curve) is list
    assert {type(value) for value in curve} == {float}
    assert len(curve) == model.n_iter_.max()
    raw = X[held] @ model.coef_.T + model.intercept_
    one_hot = np.eye(3)[y[held]]
    if estimator is SoftmaxClassifier:
        rows = np.log(np.exp(raw).sum(axis=1)) - (raw * one_hot).sum(axis=1)
    else:
        rows = (np.log1p(np.exp(raw)) - raw * one_hot).sum(axis=1)
    assert curve[-1] == pytest.approx(np.average(rows, weights=weight), rel=1e-9)


def test_the_validation_curve_of_soft_and_two_class_targets(rng):
    X, _ = problem(rng, n=200)
    q = rng.uniform(size=200)
    train, held = slice(0, 150), slice(150, 200)
    model = LogisticClassifier().fit(X[train], q[train], X_val=X[held].tolist(), y_val=q[held])
    raw = model.decision_function(X[held])
    expected = np.mean(np.log1p(np.exp(raw)) - q[held] * raw)
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-9)
    both = np.column_stack([1 - q, q])
    model = SoftmaxClassifier().fit(X[train], both[train], X_val=X[held].astype(np.float32), y_val=both[held])
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-6)
    y = q > 0.5
    model = LogisticClassifier().fit(X[train], y[train], X_val=X[held][y[held]], y_val=y[held][y[held]])
    expected = np.mean(np.log1p(np.exp(-model.decision_function(X[held][y[held]]))))
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-9)


# With the rest of scikit-learn -------------------------------------------------------------------------


def test_pipeline_and_grid_search():
    X, y = load_breast_cancer(return_X_y=True)
    grid = {"logisticclassifier__C": [0.01, 0.1, 1.0]}
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticClassifier()), grid, cv=3, error_score="raise"
    )
    reference = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8)),
        {"logisticregression__C": [0.01, 0.1, 1.0]},
        cv=3,
    )
    search.fit(X, y)
    reference.fit(X, y)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], reference.cv_results_["mean_test_score"], rtol=1e-12
    )
    assert search.score(X, y) > 0.97


def test_processes_of_joblib_fit_it():
    X, y = load_iris(return_X_y=True)
    alone = cross_val_score(SoftmaxClassifier(), X, y, cv=3, scoring="neg_log_loss")
    together = cross_val_score(SoftmaxClassifier(), X, y, cv=3, scoring="neg_log_loss", n_jobs=2)
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_calibration_takes_it(estimator):
    X, y = load_iris(return_X_y=True)
    model = CalibratedClassifierCV(estimator(), cv=3).fit(X, y)
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_frozen_loss_object_survives_clone_and_search(rng, estimator):
    X, y = problem(rng)
    loss = losses.get("log_loss" if estimator is LogisticClassifier else "cross_entropy")
    model = clone(estimator(loss=loss)).fit(X, y)
    assert model.loss == loss
    np.testing.assert_array_equal(model.coef_, estimator().fit(X, y).coef_)
    assert sklloss.__version__


@pytest.mark.parametrize("estimator", [LogisticClassifier(), SoftmaxClassifier(), sklloss.MLPRegressor()])
def test_a_pickle_of_another_version_warns(estimator, monkeypatch):
    assert pickle.loads(pickle.dumps(estimator)).get_params() == estimator.get_params()
    monkeypatch.setattr("sklloss._base.__version__", "0.0.0")
    written = pickle.dumps(estimator)
    monkeypatch.undo()
    with pytest.warns(InconsistentVersionWarning, match=r"sklloss 0\.0\.0"):
        pickle.loads(written)


def test_parameter_names_are_those_of_each_class_and_parameters_of_parameters_are_included():
    class Narrow(LogisticClassifier):
        def __init__(self, C=2.0, inner=None):
            super().__init__(C=C)
            self.inner = inner

    inner = SoftmaxClassifier(C=3.0)
    assert LogisticClassifier().get_params() == LogisticClassifier().get_params(deep=False)
    assert Narrow().get_params() == {"C": 2.0, "inner": None}
    assert Narrow(inner=inner).get_params(deep=False) == {"C": 2.0, "inner": inner}
    assert Narrow(inner=inner).get_params()["inner__C"] == 3.0
    assert "inner" not in LogisticClassifier().get_params()
