"""Every kind of target that the linear classifiers take means what the labels it stands for mean."""

import numpy as np
import pytest
import scipy.sparse
from helpers import assert_same_model
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from sklloss import LogisticClassifier, SoftmaxClassifier, losses

TIGHT = {"tol": 1e-9, "max_iter": 1000}
CLOSE = {"rtol": 1e-6, "atol": 1e-8}


def rows(rng, n=120, p=4):
    return rng.normal(size=(n, p))


def labels(rng, X, K):
    return (X[:, :1] @ np.linspace(-1, 1, K)[None] + rng.gumbel(size=(len(X), K))).argmax(axis=1)


def simplex(rng, n, K):
    return rng.dirichlet(np.ones(K), size=n)


def optional(name):
    """An object by its dotted name, of a package that may be absent."""
    module, _, attribute = name.rpartition(".")
    return getattr(pytest.importorskip(module), attribute)


# Labels ------------------------------------------------------------------------------------------------


NAMINGS = {
    "strings": np.array(["pear", "apple", "fig"]),
    "objects": np.array(["pear", "apple", "fig"], dtype=object),
    "negative": np.array([3, -7, -1]),
    "floats": np.array([2.0, -1.0, 0.0]),
    "unsigned": np.array([200, 7, 9], dtype=np.uint8),
}


@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("naming", NAMINGS)
def test_labels_of_any_type_are_coded_in_sorted_order_and_given_back(rng, naming, K, estimator):
    names = NAMINGS[naming][:K]
    X = rows(rng)
    y = names[labels(rng, X, K)]
    model = estimator(tol=1e-8).fit(X, y)
    np.testing.assert_array_equal(model.classes_, np.unique(names))
    reference = estimator(tol=1e-8).fit(X, np.searchsorted(np.unique(names), y))
    np.testing.assert_array_equal(model.coef_, reference.coef_)
    assert set(model.predict(X)) <= set(names)
    assert model.score(X, y) == np.mean(model.predict(X) == y)


@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
def test_boolean_labels_are_two_classes(rng, estimator):
    X = rows(rng)
    y = labels(rng, X, 2).astype(bool)
    model = estimator().fit(X, y)
    assert model.classes_.dtype == bool
    assert model.predict(X).dtype == bool
    assert_same_model(model, LogisticRegression(tol=1e-9).fit(X, y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize("series", ["pandas.Series", "pandas.Categorical", "polars.Series", "builtins.list"])
def test_labels_may_come_as_a_series_or_a_list(rng, series, estimator):
    X = rows(rng)
    y = np.array(["a", "b", "c"])[labels(rng, X, 3)]
    series = optional(series)
    plain = estimator().fit(X, y)
    model = estimator().fit(X, series(y.tolist()))
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    np.testing.assert_array_equal(model.predict(X), plain.predict(X))


@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
def test_a_column_of_labels_is_flattened_with_scikit_learns_warning(rng, estimator):
    X = rows(rng)
    y = labels(rng, X, 3)
    with pytest.warns(UserWarning, match="column-vector y"):
        model = estimator().fit(X, y[:, None])
    np.testing.assert_array_equal(model.coef_, estimator().fit(X, y).coef_)


@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize(
    "dtype", ["category", "string", "Int64", "boolean", "Float64", "float32", "int8", "O"]
)
def test_columns_of_pandas_types_are_labels_as_in_scikit_learn(rng, dtype, estimator):
    pd = pytest.importorskip("pandas")
    X = rows(rng)
    y = labels(rng, X, 2)
    values = np.array(["b", "a"])[y] if dtype in ("category", "string", "O") else y
    y = pd.Series(values, dtype=dtype)
    model, theirs = estimator(tol=1e-8).fit(X, y), LogisticRegression(tol=1e-10).fit(X, y)
    np.testing.assert_array_equal(model.classes_, theirs.classes_)
    assert model.classes_.dtype == theirs.classes_.dtype
    assert_same_model(model, theirs, rtol=1e-5, atol=1e-6)
    assert model.score(X, y) == theirs.score(X, y)


@pytest.mark.parametrize("kind", ["polars.Categorical", "polars.Enum", "polars.String"])
def test_columns_of_polars_types_are_labels(rng, kind):
    pl = pytest.importorskip("polars")
    X = rows(rng)
    y = np.array(["a", "b", "c"])[labels(rng, X, 3)]
    dtype = pl.Enum(["c", "a", "b"]) if kind == "polars.Enum" else optional(kind)
    model = SoftmaxClassifier().fit(X, pl.Series(y, dtype=dtype))
    np.testing.assert_array_equal(model.coef_, SoftmaxClassifier().fit(X, y).coef_)
    assert model.classes_.tolist() == ["a", "b", "c"]


def test_whole_floats_are_labels_and_others_probabilities(rng):
    X = rows(rng)
    y = labels(rng, X, 2)
    hard = LogisticClassifier().fit(X, y)
    whole = LogisticClassifier().fit(X, y.astype(float))
    np.testing.assert_array_equal(whole.coef_, hard.coef_)
    np.testing.assert_array_equal(whole.classes_, [0.0, 1.0])
    # one value in between makes the rest of them probabilities: the same ones
    almost = y.astype(float)
    almost[0] = np.nextafter(almost[0], 0.5)
    soft = LogisticClassifier().fit(X, almost)
    assert soft.classes_.dtype.kind == "i"
    np.testing.assert_allclose(soft.coef_, hard.coef_, rtol=1e-12)
    np.testing.assert_array_equal(soft.predict(X), hard.predict(X))
    # validation labels may be of either kind
    model = LogisticClassifier().fit(X, almost, X_val=X, y_val=y)
    other = LogisticClassifier().fit(X, y.astype(bool), X_val=X, y_val=almost)
    np.testing.assert_allclose(model.validation_loss_curve_, other.validation_loss_curve_, rtol=1e-12)
    for probabilities in (np.full(120, 0.5), rng.uniform(size=120).astype(np.float32)):
        assert LogisticClassifier().fit(X, probabilities).coef_.shape == (1, 4)


@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
def test_a_matrix_may_come_in_columns_of_several_types(rng, estimator):
    pd = pytest.importorskip("pandas")
    X = rows(rng)
    P = simplex(rng, 120, 3)
    P[:, 1] = 0.0
    P /= P.sum(axis=1, keepdims=True)
    P[:40] = [0.0, 1.0, 0.0]
    frame = pd.DataFrame(P, columns=["u", "v", "w"])
    reference = estimator().fit(X, P)
    for other in (frame.astype({"v": bool}), frame.astype("Float64"), P.astype(object), P.tolist()):
        np.testing.assert_array_equal(estimator().fit(X, other).coef_, reference.coef_)


# Two classes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["newton-cholesky", "lbfgs"])
def test_two_classes_are_one_model_in_both_estimators(rng, solver):
    X = rows(rng)
    y = labels(rng, X, 2)
    one = LogisticClassifier(solver=solver, **TIGHT).fit(X, y)
    other = SoftmaxClassifier(solver=solver, **TIGHT).fit(X, y)
    assert_same_model(one, other, rtol=1e-12)
    assert_same_model(one, LogisticRegression(tol=1e-10, max_iter=1000).fit(X, y))
    for model in (one, other):
        assert model.coef_.shape == (1, 4)
        assert model.intercept_.shape == (1,)
        assert model.decision_function(X).shape == (120,)
        assert model.predict_proba(X).shape == (120, 2)


def test_a_soft_binary_target_equals_its_rows_written_out(rng):
    X = rows(rng)
    q = rng.uniform(size=120)
    q[:3] = [0.0, 1.0, 0.5]
    weight = rng.uniform(0.1, 2, size=120)
    written_out = (np.vstack([X, X]), np.repeat([1, 0], 120), np.concatenate([weight * q, weight * (1 - q)]))
    reference = LogisticRegression(tol=1e-10, max_iter=1000).fit(*written_out)
    logistic = LogisticClassifier(**TIGHT).fit(X, q, weight)
    assert_same_model(logistic, reference)
    assert_same_model(SoftmaxClassifier(**TIGHT).fit(X, np.column_stack([1 - q, q]), weight), reference)
    np.testing.assert_array_equal(logistic.classes_, [0, 1])
    assert_same_model(logistic, LogisticClassifier(**TIGHT).fit(*written_out))


@pytest.mark.parametrize("class_weight", [{0: 0.2, 1: 3.0}, {1: 2.0}, "balanced"])
def test_class_weights_of_a_soft_binary_target_are_those_of_its_rows_written_out(rng, class_weight):
    X = rows(rng)
    q = rng.uniform(size=120) ** 2
    weight = rng.uniform(0.1, 2, size=120)
    masses = np.array([weight @ (1 - q), weight @ q])
    if class_weight == "balanced":
        pair = masses.sum() / (2 * masses)
    else:
        pair = np.array([class_weight.get(0, 1.0), class_weight[1]])
    y = np.repeat([1, 0], 120)
    mass = np.concatenate([weight * q, weight * (1 - q)]) * pair[y]
    reference = LogisticRegression(tol=1e-10, max_iter=1000).fit(np.vstack([X, X]), y, mass)
    assert_same_model(LogisticClassifier(class_weight=class_weight, **TIGHT).fit(X, q, weight), reference)
    rows_of_two = np.column_stack([1 - q, q])
    assert_same_model(
        SoftmaxClassifier(class_weight=class_weight, **TIGHT).fit(X, rows_of_two, weight), reference
    )


# Softmax -----------------------------------------------------------------------------------------------


def written_out(X, P, weight):
    n, K = P.shape
    return np.repeat(X, K, axis=0), np.tile(np.arange(K), n), (P * weight[:, None]).ravel()


@pytest.mark.parametrize("solver", ["newton-cholesky", "lbfgs"])
@pytest.mark.parametrize("class_weight", [None, {0: 0.2, 1: 3.0, 2: 1.5, 3: 1.0}, {2: 2.0}, "balanced"])
def test_class_probabilities_equal_their_rows_written_out(rng, class_weight, solver):
    X = rows(rng)
    P = simplex(rng, 120, 4)
    P[:4] = np.eye(4)
    weight = rng.uniform(0.1, 2, size=120)
    soft = SoftmaxClassifier(class_weight=class_weight, solver=solver, **TIGHT).fit(X, P, weight)
    long, y, mass = written_out(X, P, weight)
    hard = SoftmaxClassifier(class_weight=class_weight, **TIGHT).fit(long, y, mass)
    assert_same_model(soft, hard)
    masses = np.bincount(y, weights=mass)
    if class_weight == "balanced":
        factors = masses.sum() / (4 * masses)
    else:
        factors = np.array([(class_weight or {}).get(k, 1.0) for k in range(4)])
    reference = LogisticRegression(tol=1e-10, solver="newton-cholesky").fit(long, y, mass * factors[y])
    assert_same_model(soft, reference)


def test_one_hot_rows_equal_labels(rng):
    X = rows(rng)
    y = labels(rng, X, 4)
    hard = SoftmaxClassifier(**TIGHT).fit(X, y)
    dense = (np.eye(4)[y], np.eye(4, dtype=int)[y], np.eye(4, dtype=bool)[y])
    formats = (scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.csc_array)
    for one_hot in (*dense, *(sparse(matrix) for sparse, matrix in zip(formats, dense))):
        soft = SoftmaxClassifier(**TIGHT).fit(X, one_hot)
        assert_same_model(soft, hard, rtol=1e-9)
        np.testing.assert_array_equal(soft.classes_, np.arange(4))


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("names", [["c", "a", "b"], ["yes", "no"]])
def test_the_columns_of_a_frame_of_probabilities_name_the_classes(rng, library, names):
    frame = optional(f"{library}.DataFrame")
    X = rows(rng)
    P = simplex(rng, 120, len(names))
    named = frame(dict(zip(names, P.T)))
    model = SoftmaxClassifier(class_weight={names[0]: 2.0}).fit(X, named, X_val=X, y_val=named)
    # sorted, as scikit-learn's scorers take for granted
    order = np.argsort(names)
    assert model.classes_.tolist() == sorted(names)
    plain = SoftmaxClassifier(class_weight={int(np.argsort(order)[0]): 2.0}).fit(X, P[:, order])
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-9)
    np.testing.assert_array_equal(model.predict(X), np.sort(names)[plain.predict(X)])
    # columns are found by name, wherever they stand
    assert model.score(X, named) == model.score(X, named[sorted(names)]) == plain.score(X, P[:, order])
    moved = SoftmaxClassifier(class_weight={names[0]: 2.0}).fit(X, named, X_val=X, y_val=named[sorted(names)])
    np.testing.assert_allclose(moved.validation_loss_curve_, model.validation_loss_curve_, rtol=1e-9)
    with pytest.raises(ValueError, match="columns of y"):
        model.score(X, frame(dict(zip([f"{name}?" for name in names], P.T))))


def test_a_class_without_mass_gets_a_probability_near_zero(rng):
    X = rows(rng)
    P = np.column_stack([simplex(rng, 120, 2), np.zeros(120)])
    for class_weight in (None, "balanced"):
        model = SoftmaxClassifier(class_weight=class_weight).fit(X, P)
        assert model.coef_.shape == (3, 4)
        assert model.predict_proba(X)[:, 2].max() < 1e-3
        assert 2 not in model.predict(X)


@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
def test_label_smoothing_equals_smoothed_soft_targets(rng, estimator):
    X = rows(rng)
    y = labels(rng, X, 4)
    smooth = np.eye(4)[y] * 0.8 + 0.2 / (4 if estimator is SoftmaxClassifier else 2)
    model = estimator(label_smoothing=0.2, **TIGHT).fit(X, y)
    assert_same_model(model, estimator(**TIGHT).fit(X, smooth))
    loss = losses.CrossEntropy if estimator is SoftmaxClassifier else losses.LogLoss
    np.testing.assert_array_equal(
        model.coef_, estimator(loss=loss(label_smoothing=0.2), **TIGHT).fit(X, y).coef_
    )


@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
def test_label_smoothing_of_two_classes_moves_both_towards_a_half(rng, estimator):
    X = rows(rng)
    y = labels(rng, X, 2)
    model = estimator(label_smoothing=0.2, **TIGHT).fit(X, y)
    assert_same_model(model, LogisticClassifier(**TIGHT).fit(X, y * 0.8 + 0.1))


# One-vs-rest and multi-label ---------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["newton-cholesky", "lbfgs"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_one_vs_rest_equals_scikit_learns(class_weight, solver):
    X, y = load_iris(return_X_y=True)
    model = LogisticClassifier(class_weight=class_weight, solver=solver, **TIGHT).fit(X, y)
    reference = OneVsRestClassifier(
        LogisticRegression(tol=1e-10, max_iter=1000, solver="newton-cholesky", class_weight=class_weight)
    ).fit(X, y)
    np.testing.assert_allclose(model.coef_, np.vstack([e.coef_ for e in reference.estimators_]), **CLOSE)
    np.testing.assert_allclose(model.predict_proba(X), reference.predict_proba(X), rtol=1e-6)
    np.testing.assert_allclose(
        model.decision_function(X), reference.decision_function(X), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(model.predict(X), reference.predict(X))
    assert model.n_iter_.shape == (3,)


@pytest.mark.parametrize("K", [3, 60])
def test_one_vs_rest_with_weights_equals_one_fit_for_each_class(rng, K):
    X = rows(rng, 400)
    y = labels(rng, X, K)
    weight = rng.uniform(0.1, 2, size=400)
    model = LogisticClassifier(**TIGHT).fit(X, y, weight)
    for k in range(0, K, 7):
        single = LogisticClassifier(**TIGHT).fit(X, y == model.classes_[k], weight)
        np.testing.assert_allclose(model.coef_[k], single.coef_[0], **CLOSE)
        np.testing.assert_allclose(model.intercept_[k], single.intercept_[0], **CLOSE)


@pytest.mark.parametrize(
    "container",
    [
        *("numpy.asarray", "scipy.sparse.csr_matrix", "scipy.sparse.csr_array", "scipy.sparse.coo_array"),
        *("pandas.DataFrame", "polars.DataFrame", "builtins.list"),
    ],
)
def test_multi_label_equals_one_fit_for_each_label(rng, container):
    container = optional(container)
    X = rows(rng)
    Y = (X[:, :3] + rng.normal(size=(120, 3)) > 0).astype(int)
    model = LogisticClassifier(**TIGHT).fit(X, container(Y))
    for k in range(3):
        single = LogisticRegression(tol=1e-10, max_iter=1000).fit(X, Y[:, k])
        np.testing.assert_allclose(model.coef_[k], single.coef_[0], **CLOSE)
    proba = model.predict_proba(X)
    assert proba.shape == (120, 3)
    np.testing.assert_array_equal(model.predict(X), proba > 0.5)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), proba, rtol=1e-12)
    assert model.score(X, container(Y)) == np.mean((model.predict(X) == Y).all(axis=1))


@pytest.mark.parametrize("solver", ["newton-cholesky", "lbfgs"])
def test_soft_multi_label_equals_one_soft_fit_for_each_label(rng, solver):
    X = rows(rng)
    Y = rng.uniform(size=(120, 3))
    weight = rng.uniform(0.1, 2, size=120)
    model = LogisticClassifier(solver=solver, **TIGHT).fit(X, Y, weight)
    for k in range(3):
        single = LogisticClassifier(**TIGHT).fit(X, Y[:, k], weight)
        np.testing.assert_allclose(model.coef_[k], single.coef_[0], **CLOSE)
        np.testing.assert_allclose(model.intercept_[k], single.intercept_[0], **CLOSE)


def test_each_label_may_have_its_class_weight(rng):
    X = rows(rng)
    Y = (X[:, :3] + rng.normal(size=(120, 3)) > 1).astype(int)
    each = [{0: 1.0, 1: 4.0}, None, "balanced"]
    model = LogisticClassifier(class_weight=each, **TIGHT).fit(X, Y)
    for k in range(3):
        single = LogisticRegression(class_weight=each[k], tol=1e-10, max_iter=1000).fit(X, Y[:, k])
        np.testing.assert_allclose(model.coef_[k], single.coef_[0], **CLOSE)


@pytest.mark.parametrize("solver", ["auto", "newton-cholesky", "lbfgs"])
def test_a_label_that_no_row_has_is_never_predicted(rng, solver):
    X = rows(rng)
    Y = (X[:, :3] + rng.normal(size=(120, 3)) > 0).astype(int)
    Y[:, 1] = 0
    model = LogisticClassifier(solver=solver).fit(X, Y)
    assert not model.predict(X)[:, 1].any()
    assert model.predict_proba(X)[:, 1].max() < 1e-3


# Scores ------------------------------------------------------------------------------------------------


def test_score_counts_probabilities_as_the_class_they_make_likeliest(rng):
    X = rows(rng)
    P = simplex(rng, 120, 3)
    weight = rng.uniform(size=120)
    soft = SoftmaxClassifier().fit(X, P)
    right = soft.predict(X) == P.argmax(axis=1)
    assert soft.score(X, P) == right.mean()
    assert soft.score(X, P, weight) == pytest.approx(weight @ right / weight.sum(), rel=1e-12)
    assert soft.score(X, P.argmax(axis=1)) == right.mean()
    q = rng.uniform(size=120)
    binary = LogisticClassifier().fit(X, q)
    assert binary.score(X, q) == np.mean(binary.predict(X) == (q > 0.5))
    assert isinstance(binary.score(X, q), float)
    Y = rng.uniform(size=(120, 3))
    multi = LogisticClassifier().fit(X, Y)
    assert multi.score(X, Y) == np.mean((multi.predict(X) == (Y > 0.5)).all(axis=1))


def test_score_of_a_two_class_model_takes_rows_of_probabilities(rng):
    X = rows(rng)
    pd = pytest.importorskip("pandas")
    P = simplex(rng, 120, 2)
    names = pd.DataFrame(P, columns=["no", "yes"])
    model = SoftmaxClassifier().fit(X, names)
    right = model.predict(X) == np.array(["no", "yes"])[P.argmax(axis=1)]
    assert model.score(X, names) == right.mean()
    assert model.score(X, P) == right.mean()
