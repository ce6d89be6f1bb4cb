"""Soft targets are stratified by their most likely class."""

import pickle

import numpy as np
import pytest
import scipy.sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import (
    GridSearchCV,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    cross_val_score,
)

from sklloss import SoftmaxClassifier
from sklloss.metrics import argmax_accuracy
from sklloss.model_selection import (
    RepeatedStratifiedSoftKFold,
    StratifiedSoftKFold,
    StratifiedSoftShuffleSplit,
)

PAIRS = [
    (StratifiedSoftKFold(3), StratifiedKFold(3)),
    (
        StratifiedSoftKFold(4, shuffle=True, random_state=1),
        StratifiedKFold(4, shuffle=True, random_state=1),
    ),
    (
        RepeatedStratifiedSoftKFold(n_splits=3, n_repeats=2, random_state=2),
        RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=2),
    ),
    (
        StratifiedSoftShuffleSplit(3, test_size=0.3, random_state=3),
        StratifiedShuffleSplit(3, test_size=0.3, random_state=3),
    ),
]


@pytest.fixture
def flowers():
    """The X and labels of iris, shuffled and unbalanced, and soft labels of which they are the likeliest."""
    X, y = load_iris(return_X_y=True)
    rows = np.random.default_rng(0).permutation(150)[:127]
    soft = 0.6 * np.eye(3)[y[rows]] + 0.4 * np.random.default_rng(1).dirichlet(np.ones(3), size=127)
    return X[rows], y[rows], soft


def folds(splitter, X, y):
    return [(train.tolist(), test.tolist()) for train, test in splitter.split(X, y)]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_soft_and_one_hot_rows_and_labels_split_as_scikit_learn_splits_their_labels(flowers, ours, theirs):
    X, y, soft = flowers
    expected = folds(theirs, X, y)
    assert folds(ours, X, y) == expected
    assert folds(ours, X, np.array(["x", "y", "z"], dtype=object)[y]) == expected
    assert folds(ours, X, y[:, None]) == expected
    assert folds(ours, X, soft) == expected
    assert folds(ours, X, soft.astype(np.float32)) == expected
    assert folds(ours, X, soft.tolist()) == expected
    assert folds(ours, X, np.eye(3, dtype=int)[y]) == expected
    assert folds(ours, X, scipy.sparse.csr_array(np.eye(3)[y])) == expected


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_splits_as_its_rows(flowers, library):
    frame = pytest.importorskip(library).DataFrame
    X, y, soft = flowers
    named = frame(dict(zip("abc", soft.T)))
    assert folds(StratifiedSoftKFold(), X, named) == folds(StratifiedKFold(), X, y)


def test_every_fold_has_its_share_of_each_class(flowers):
    X, y, soft = flowers
    for _, test in StratifiedSoftKFold(5).split(X, soft):
        shares = np.bincount(soft[test].argmax(axis=1), minlength=3)
        assert np.all(np.abs(shares - np.bincount(y) / 5) < 1)


def test_a_soft_binary_target_is_split_at_a_half(flowers):
    X, y, _ = flowers
    q = np.where(y == 1, 0.7, 0.2)
    expected = folds(StratifiedKFold(), X, y == 1)
    assert folds(StratifiedSoftKFold(), X, q) == expected
    assert folds(StratifiedSoftKFold(), X, np.column_stack([1 - q, q])) == expected
    assert folds(StratifiedSoftKFold(), X, q.round()) == expected


def test_splitters_print_clone_and_pickle_as_scikit_learns():
    assert repr(StratifiedSoftKFold()) == "StratifiedSoftKFold(n_splits=5, random_state=None, shuffle=False)"
    for ours, theirs in PAIRS:
        assert repr(ours).split() == repr(theirs).replace("Stratified", "StratifiedSoft").split()
        assert repr(clone(ours, safe=False)) == repr(ours)
        assert repr(pickle.loads(pickle.dumps(ours))) == repr(ours)
        assert ours.get_n_splits() == theirs.get_n_splits()
        assert isinstance(ours, type(theirs))


def test_splitters_serve_as_cv(flowers):
    X, _, soft = flowers
    for cv, _ in PAIRS[:2]:
        scores = cross_val_score(SoftmaxClassifier(), X, soft, scoring=argmax_accuracy, cv=cv)
        expected = [
            SoftmaxClassifier().fit(X[train], soft[train]).score(X[test], soft[test])
            for train, test in cv.split(X, soft)
        ]
        np.testing.assert_allclose(scores, expected, rtol=1e-12)
    search = GridSearchCV(SoftmaxClassifier(), {"C": [0.1, 1.0]}, scoring=argmax_accuracy, cv=PAIRS[0][0])
    assert clone(search).fit(X, soft).n_splits_ == 3
    with config_context(enable_metadata_routing=True):
        assert clone(search).fit(X, soft).n_splits_ == 3


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([[1, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]), "row 0 sums to 2.*KFold"),
        (np.array([[0.9, 0.1], [0.3, 0.3], [0.5, 0.5], [0.0, 1.0]]), "row 1 sums to 0.6.*KFold"),
        (np.array([[0.9, 0.1], [0.3, 0.7], [1.5, -0.5], [0.0, 1.0]]), "row 2 has a negative value"),
        (np.array([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5], [np.nan, 1.0]]), "NaN"),
        (np.array([["a", "b"], ["a", "a"], ["b", "b"], ["b", "a"]]), "dtype"),
        (np.array([0.1, 0.9, 1.2, 0.5]), r"\[0, 1\]; got values from 0.1 to 1.2"),
    ],
)
def test_rows_that_no_class_describes_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        next(iter(StratifiedSoftKFold(2).split(np.zeros((4, 1)), y)))


def test_parameters_are_checked_as_scikit_learn_checks_them():
    with pytest.raises(ValueError, match="n_splits"):
        StratifiedSoftKFold(1)
    with pytest.raises(ValueError, match="random_state"):
        StratifiedSoftKFold(random_state=0)
    with pytest.raises(ValueError, match="number of members in each class"):
        next(iter(StratifiedSoftKFold(5).split(np.zeros((6, 1)), np.eye(2)[[0, 1, 1, 0, 0, 1]])))
