"""The losses to test: all of the registry, and some of them with other parameters."""

import numpy as np
import pytest

from sklloss import losses

# Beyond the defaults, which the registry gives.
VARIANTS = {
    "log_loss": [{"label_smoothing": 0.1}],
    "cross_entropy": [{"label_smoothing": 0.1}],
    "huber": [{"delta": 0.1}],
    "quantile": [{"quantile": 0.1}, {"quantile": 0.9}],
    "generalized_cross_entropy": [{"q": 0.1}, {"q": 1.0}],
    "tweedie": [{"power": 1.1}, {"power": 1.9}],
    "focal": [{"gamma": 0.0}, {"gamma": 0.5}, {"gamma": 1.0}, {"gamma": 5.0}],
}


def variants(name):
    """The loss of that name with each choice of parameters; the focal loss also as that of a softmax."""
    default = losses.get(name)
    chosen = [default, *(type(default)(**parameters) for parameters in VARIANTS.get(name, []))]
    return chosen + ([loss.softmax() for loss in chosen] if name == "focal" else [])


def every_loss():
    for name in losses.names():
        yield from variants(name)


def pytest_generate_tests(metafunc):
    if "loss" in metafunc.fixturenames:
        metafunc.parametrize("loss", list(every_loss()), ids=repr)
    if "additive_loss" in metafunc.fixturenames:
        metafunc.parametrize("additive_loss", [x for x in every_loss() if x.additive], ids=repr)
    if "separable_loss" in metafunc.fixturenames:
        chosen = [x for x in every_loss() if x.separable and x.additive]
        metafunc.parametrize("separable_loss", chosen, ids=repr)
    if "class_loss" in metafunc.fixturenames:
        metafunc.parametrize("class_loss", [x for x in every_loss() if x.target == "classes"], ids=repr)
    if "smooth_loss" in metafunc.fixturenames:
        metafunc.parametrize("smooth_loss", [x for x in every_loss() if x.states_curvature], ids=repr)


class Batches:
    """Random targets and raw scores that fit a loss, for every form of target that it takes."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)

    def positive(self, loss):
        """Whether targets must not be negative."""
        return loss.domain in ("positive", "non-negative")

    def forms(self, loss):
        """Names of the forms: the shape of raw and the kind of target."""
        if loss.target == "classes":
            return ["codes", "rows", "many"]
        if loss.domain == "labels":
            return ["hard", "matrix"]
        if loss.target == "probabilities":
            return ["hard", "soft", "matrix"]
        return ["vector", "matrix"]

    def make(self, loss, form, n=40, dtype=np.float64, scale=3.0):
        """y_true, raw."""
        rng = self.rng
        outputs = {"codes": 4, "rows": 4, "many": 50, "matrix": 3}.get(form)
        raw = (scale * rng.standard_normal((n, outputs) if outputs else n)).astype(dtype)
        if loss.target == "classes":
            if form == "codes":
                return rng.integers(0, outputs, n), raw
            y = rng.dirichlet(np.ones(outputs), n)
            y[: n // 4] = np.eye(outputs)[rng.integers(0, outputs, n // 4)]
            return y.astype(dtype), raw
        if loss.target == "probabilities":
            y = rng.random(raw.shape)
            if form != "soft":
                y = np.round(y)
            return y.astype(dtype), raw
        if self.positive(loss):
            return rng.gamma(2.0, scale / 2, raw.shape).astype(dtype), raw
        return (scale * rng.standard_normal(raw.shape)).astype(dtype), raw

    def all(self, loss, **options):
        """(form, y_true, raw) for every form."""
        for form in self.forms(loss):
            yield (form, *self.make(loss, form, **options))


@pytest.fixture
def batches():
    return Batches()


@pytest.fixture
def weights():
    """40 weights, some of them zero."""
    w = np.random.default_rng(5).uniform(0.1, 3.0, 40)
    w[::7] = 0.0
    return w
