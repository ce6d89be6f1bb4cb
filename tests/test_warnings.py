"""Warnings name the user's line."""

import os
import sys
import warnings

import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from sklloss import SoftmaxClassifier
from sklloss._base import warn


def _called_from(filename, function):
    """Call a function from code that seems to lie in another file."""
    exec(compile("function()", filename, "exec"), {"function": function})


@pytest.mark.parametrize("package", ["sklloss", "sklearn", "joblib"])
def test_frames_of_the_package_and_of_those_that_call_it_are_skipped(package):
    inside = os.path.join(os.path.dirname(sys.modules[package].__file__), "somewhere.py")
    with pytest.warns(FutureWarning, match="look out") as caught:
        _called_from(inside, lambda: _called_from(inside, warn_here))
    assert [one.filename for one in caught] == [__file__]

    with pytest.warns(FutureWarning) as caught:
        exec(
            compile("warn('look out', FutureWarning)", inside, "exec"),
            {"warn": warn},
        )
    assert [one.filename for one in caught] == [__file__]


def warn_here():
    warn("look out", FutureWarning)


def test_a_warning_object_keeps_its_class():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn(DeprecationWarning("old"))
    assert caught[0].category is DeprecationWarning
    assert caught[0].filename == __file__


def test_a_warning_within_a_grid_search_names_the_line_that_starts_it():
    X, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning) as caught:
        GridSearchCV(SoftmaxClassifier(max_iter=1), {"C": [1.0, 2.0]}, cv=2).fit(X, y)
    assert {one.filename for one in caught} == {__file__}
