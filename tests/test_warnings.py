"""Warnings name the user's line."""

import os
import sys
import warnings

import pytest

from sklloss._base import warn


def _called_from(filename, function):
    """Call a function from code that seems to lie in another file."""
    exec(compile("function()", filename, "exec"), {"function": function})


@pytest.mark.parametrize("package", ["sklloss", "sklearn"])
def test_frames_of_the_package_and_of_scikit_learn_are_skipped(package):
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
