"""The way of a batch is short: few Python frames lie between `fit` and a compiled pass over the rows."""

import inspect
import os

import pytest

import sklloss
from sklloss import LogisticClassifier, MLPClassifier
from sklloss.kernels.linear import gradient, hessian, hessian_block
from sklloss.losses import LogLoss

# Frames of sklloss from `fit` to what calls the pass, both counted, of a network; a linear model has fewer.
# SciPy's, within L-BFGS-B, are not counted.
MOST_FRAMES = 8
PACKAGE = os.path.dirname(sklloss.__file__) + os.sep
PASSES = [
    (gradient, "gradient"),
    (gradient, "product"),
    (hessian, "hessian"),
    (hessian_block, "hessian_block"),
]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def data(rng):
    X = rng.normal(size=(20_000, 12))
    return X, (X[:, 0] + rng.normal(size=len(X)) > 0).astype(int)


def frames_from_fit(frame):
    """The names of sklloss's functions on the stack from `fit` on; None in a worker thread."""
    names = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            names.append(frame.f_code.co_name)
            if names[-1] == "fit":
                return names[::-1]
        frame = frame.f_back
    return None


def without_nested_fit(names):
    """Newton's method may first minimise over a sample of the rows: only the frames of that inner call."""
    solver = names[1]
    inner = len(names) - 1 - names[::-1].index(solver)
    return [names[0], *names[inner:]]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    ("solver", "l1_ratio"),
    [("newton-cholesky", 0), ("newton-cg", 0), ("lbfgs", 0), ("auto", 0), ("proximal-newton", 0.5)],
)
def test_a_linear_fit_reaches_its_passes_in_few_frames(data, monkeypatch, solver, l1_ratio, n_threads):
    stacks = []
    for module, name in PASSES:
        compiled = getattr(module, name)

        def recorded(*arguments, compiled=compiled, **keywords):
            names = frames_from_fit(inspect.currentframe().f_back)
            if names is not None:
                stacks.append(without_nested_fit(names))
            return compiled(*arguments, **keywords)

        monkeypatch.setattr(module, name, recorded)
    LogisticClassifier(solver=solver, l1_ratio=l1_ratio, n_threads=n_threads, tol=1e-10).fit(*data)
    assert stacks
    assert {names[-1] for names in stacks} <= {"value_and_gradient", "_product", "hessian", "hessian_block"}
    deepest = max(stacks, key=len)
    assert len(deepest) < MOST_FRAMES, deepest


class RecordsItsStack(LogLoss):
    """The log loss as Python code that notes who calls it."""

    kernel = None

    def evaluate_batch(self, *arguments, **keywords):
        names = frames_from_fit(inspect.currentframe().f_back)
        if names is not None:
            self.stacks.append(names)
        return super().evaluate_batch(*arguments, **keywords)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd", "lbfgs"])
def test_a_network_reaches_its_passes_in_few_frames(data, solver, n_threads):
    stacks = RecordsItsStack.stacks = []
    model = MLPClassifier(
        loss=RecordsItsStack(), output="sigmoid", solver=solver, max_iter=2, batch_size=1000,
        n_threads=n_threads, random_state=0,
    )  # fmt: skip
    model.fit(*data)
    assert stacks
    deepest = max(stacks, key=len)
    # SciPy calls back, and two threads share the pass: more frames, but once for all rows, not once a batch.
    more = 2 if solver == "lbfgs" and n_threads > 1 else 0
    assert len(deepest) <= MOST_FRAMES + more, deepest
