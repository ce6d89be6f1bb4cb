"""What the documentation says of losses is true."""

import doctest
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest
from scipy.optimize import brentq

from sklloss import losses

MODULES = ["sklloss.losses", *(f"sklloss.losses.{m.name}" for m in pkgutil.iter_modules(losses.__path__))]


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_every_loss_has_a_line_in_both_tables_and_a_docstring_with_an_example():
    formulas = losses.__doc__.index("Formulas\n")
    for name in losses.__all__:
        thing = getattr(losses, name)
        if not inspect.isclass(thing) or thing is losses.Loss:
            continue
        assert f"`{name}`" in losses.__doc__[:formulas]
        assert re.search(rf"^`{name}` ", losses.__doc__[formulas:], re.MULTILINE)
        text = inspect.getdoc(thing)
        assert "Examples\n--------" in text
        assert "gradient" in text
        assert "`predict` gives" in text


def test_the_table_says_which_losses_are_convex():
    """In the last column, and as the class attribute."""
    table = losses.__doc__[losses.__doc__.index("Formulas\n") :]
    for name, notes in re.findall(r"^`(\w+)` .*  (c b|c|b)$", table, re.MULTILINE):
        assert getattr(losses, name).convex is ("c" in notes)


def test_the_focal_loss_draws_predictions_towards_one_half_as_far_as_is_said():
    loss = losses.Focal(gamma=2.0)
    best = brentq(lambda z: loss.gradient([0.9], [z])[0], -10, 10)
    assert loss.predict([best])[0] == pytest.approx(0.69, abs=5e-3)
    assert loss([0.9], [best]) < loss([0.9], [np.log(9.0)])


def test_weights_of_classes_multiply_the_odds():
    p, w1, w0 = 0.1, 6.0, 2.0
    odds = w1 / w0 * p / (1 - p)
    z = np.full(2, np.log(odds))
    assert losses.LogLoss().gradient([1, 0], z, [w1 * p, w0 * (1 - p)]).sum() == pytest.approx(0, abs=1e-16)


def test_robust_losses_are_those_whose_gradient_is_bounded():
    far = np.array([1e6, -1e6])
    for loss, bound in [
        (losses.AbsoluteError(), 1.0),
        (losses.Huber(2.0), 2.0),
        (losses.LogCosh(), 1.0),
        (losses.Quantile(0.8), 0.8),
    ]:
        assert np.max(np.abs(2 * loss.gradient([0.0, 0.0], far))) == pytest.approx(bound, rel=1e-15)
    assert np.max(np.abs(2 * losses.HalfSquaredError().gradient([0.0, 0.0], far))) == 1e6
