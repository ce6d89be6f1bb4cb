"""Solvers over rows on a device: the same optima and convergence, and how often the host waits."""

import numpy as np
import pytest
import scipy.sparse
from array_api_compat import array_namespace

from sklloss import losses
from sklloss.arrays.device import Device
from sklloss.arrays.matrices import transfer
from sklloss.arrays.vectors import NUMPY, ArrayVectors
from sklloss.data.dataset import Dataset
from sklloss.objectives.device_passes import DevicePasses
from sklloss.objectives.linear import LinearObjective
from sklloss.objectives.passes import make_passes
from sklloss.solvers.lbfgs import lbfgs
from sklloss.solvers.newton import newton_cholesky
from sklloss.solvers.newton_cg import newton_cg
from sklloss.solvers.proximal_newton import proximal_newton

array_api_strict = pytest.importorskip("array_api_strict")

N, P, K = 240, 6, 3
TOL = 1e-6
KINDS = {
    "one": losses.LogLoss(),
    "several": losses.LogLoss(),
    "softmax": losses.CrossEntropy(),
    "focal": losses.Focal(gamma=2.0),
    "softmax focal": losses.SoftmaxFocal(gamma=2.0),
}
CASES = [
    (solver, kind)
    for solver in (lbfgs, newton_cg)
    for kind in KINDS
    if solver is lbfgs or "focal" not in kind
]


def torch_device():
    torch = pytest.importorskip("torch")
    return Device(array_namespace(torch.zeros(1)), torch.device("cpu"))


DEVICES = {
    "torch": torch_device,
    "strict": lambda: Device(array_api_strict, array_api_strict.Device("device1")),
    "strict, float32 alone": lambda: Device(array_api_strict, array_api_strict.Device("no_float64")),
}


@pytest.fixture(params=DEVICES)
def device(request):
    return DEVICES[request.param]()


def pair(
    kind, device, *, n=N, p=P, C=1.0, dtype=np.float64, weights=None, fit_intercept=True, separable=False,
    center=False, container=np.asarray, l1_ratio=0.0, noise=1.0,
):  # fmt: skip
    """The same objective over NumPy's arrays and over those of a device."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, p)) * np.logspace(-1, 1, p)
    score = X @ (rng.normal(size=(p, K)) / np.logspace(-1, 1, p)[:, None])
    codes = (score + noise * rng.gumbel(size=score.shape)).argmax(axis=1)
    if separable:
        X[np.arange(n), codes] += 100.0
    if center:
        X[:, 1] += 300.0
    X = container(X.astype(dtype))
    values, outputs = None, K
    if kind in ("one", "focal"):
        codes, values, outputs = None, (codes[:, None] == 1).astype(dtype), 1
    weight = None
    if weights is not None:
        weight = rng.uniform(size=n if weights == "rows" else (n, outputs)).astype(dtype)
        weight[:7] = 0.0
    made = []
    for matrix in (X, transfer(X, device)):
        rows = make_passes(
            Dataset(matrix, values, codes, weight, outputs),
            KINDS[kind],
            fit_intercept=fit_intercept,
            center=center,
        )
        made.append(LinearObjective(rows, C, l1_ratio))
    assert isinstance(made[1].passes, DevicePasses)
    return made


def assert_same(found, expected, dtype=np.float64, *, rtol=None, shift=None):
    """``shift`` removes the common shift of the outputs, which rounding alone decides."""
    assert type(found.w) is type(found.value) is np.ndarray
    assert found.w.dtype == found.value.dtype == np.float64
    np.testing.assert_array_equal(found.converged, expected.converged)
    np.testing.assert_array_equal(found.vanished, expected.vanished)
    fine = dtype == np.float64
    kept = ~expected.vanished
    np.testing.assert_allclose(found.value[kept], expected.value[kept], rtol=1e-11 if fine else 1e-5)
    rtol = rtol or (1e-5 if fine else 5e-3)
    mine, theirs = ((result.w if shift is None else shift(result.w))[kept] for result in (found, expected))
    np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * np.abs(expected.w).max())


def solved(solver, objectives, *, tol=TOL, max_iter=300, start=0.0):
    here, there = objectives
    w = np.full(here.shape, start)
    return solver(there, w, tol=tol, max_iter=max_iter), solver(here, w, tol=tol, max_iter=max_iter)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("solver", "kind"), CASES)
def test_the_optimum_and_convergence_are_those_of_numpy(solver, kind, dtype, device, monkeypatch):
    # Samples of NumPy's rows, but not those of a device, may be views: both begin at the same start.
    monkeypatch.setattr(LinearObjective, "subsample", lambda self, each: None)
    if device.wide == np.float32 and dtype == np.float64:
        dtype = np.float32
    objectives = pair(kind, device, dtype=dtype)
    assert objectives[0].vectors is NUMPY
    assert isinstance(objectives[1].vectors, ArrayVectors) == (device.wide == np.float64)
    tol = TOL if dtype == np.float64 else 1e-4
    found, expected = solved(solver, objectives, tol=tol)
    assert expected.converged.all()
    assert_same(found, expected, dtype)
    if dtype == np.float64:
        assert np.abs(found.n_iter - expected.n_iter).max() <= 1
    again = solver(objectives[1], np.zeros(found.w.shape), tol=tol, max_iter=300)
    np.testing.assert_array_equal(again.w, found.w)
    assert again.curve == found.curve


@pytest.mark.parametrize(
    "options",
    [
        {"weights": "rows"},
        {"weights": "outputs"},
        {"C": np.inf},
        {"C": 1e4},
        {"fit_intercept": False},
        {"center": True},
        {"C": np.inf, "separable": True},
        {"C": 10.0, "separable": True, "fit_intercept": False},
    ],
    ids=str,
)
@pytest.mark.parametrize(("solver", "kind"), [c for c in CASES if c[1] in ("one", "several", "softmax")])
def test_with_weights_penalties_and_separable_data_too_they_are_those_of_numpy(solver, kind, options, device):
    if options.get("weights") == "outputs" and kind == "softmax":
        options = {"weights": "rows", "C": 0.01}
    dtype = np.dtype(device.wide)
    if "center" in options and dtype == np.float32:
        options = {"weights": "rows", "fit_intercept": False}  # far from 0, float32 is too coarse
    objectives = pair(kind, device, dtype=dtype, **options)
    start = 0.0 if options.get("C", 1.0) != 1e4 else 0.3
    tol = TOL if dtype == np.float64 else 1e-4
    found, expected = solved(solver, objectives, tol=tol, start=start)
    if options == {"C": np.inf, "separable": True}:
        assert expected.vanished.all()
    # with a large C a common shift of all outputs costs almost nothing
    shift = None if dtype == np.float64 or kind != "softmax" else objectives[0].without_shift
    assert_same(found, expected, dtype, shift=shift)


@pytest.mark.parametrize("solver", [lbfgs, newton_cg])
def test_a_start_worse_than_0_is_replaced_by_0(solver, device):
    dtype = np.dtype(device.wide)
    objectives = pair("several", device, dtype=dtype)
    found, expected = solved(solver, objectives, start=50.0, tol=1e-4)
    assert expected.converged.all()
    assert_same(found, expected, dtype)
    assert found.curve[0] == pytest.approx(K * N * np.log(2), rel=1e-5)


@pytest.mark.parametrize("kind", ["several", "softmax"])
def test_preconditioners_of_all_kinds_are_the_same_on_a_device(kind, monkeypatch, device):
    if device.wide == np.float32:
        return
    here, there = pair(kind, device, C=3.0)
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=here.shape), rng.normal(size=here.shape)
    there.linearise(there.vectors.put(w))
    here.linearise(w)
    solvers = [
        (each.preconditioner(), each.preconditioner(diagonal=True), each.local_preconditioner(),
         each.preconditioner_at(w)) for each in (here, there)
    ]  # fmt: skip
    for mine, other in zip(*solvers, strict=True):
        expected = mine(x)
        np.testing.assert_allclose(other(x), expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
        moved = there.vectors.preconditioner(other)(there.vectors.put(x))
        found = there.vectors.get(moved)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["several", "softmax"])
def test_a_long_fit_on_a_device_renews_its_preconditioner(kind):
    objectives = pair(kind, torch_device(), n=400, p=40, C=1e5, noise=0.1)
    asked = []
    renew = objectives[1].preconditioner_at
    objectives[1].preconditioner_at = lambda w: asked.append(w) or renew(w)
    found, expected = solved(lbfgs, objectives)
    assert asked
    assert all(type(w) is np.ndarray for w in asked)
    assert expected.converged.all()
    assert_same(found, expected, rtol=1e-4)
    found, expected = solved(newton_cg, objectives)
    assert_same(found, expected, rtol=1e-4)


@pytest.mark.parametrize("solver", [lbfgs, newton_cg])
def test_callbacks_get_numpy_arrays(solver, device):
    seen = []
    _, there = pair("softmax", device, dtype=np.dtype(device.wide))
    result = solver(
        there, np.zeros(there.shape), tol=1e-4, max_iter=100, callback=lambda i, w, v: seen.append((i, w, v))
    )
    assert [i for i, _, _ in seen] == list(range(1, result.n_iter.max() + 1))
    assert all(type(w) is type(v) is np.ndarray and w.dtype == np.float64 for _, w, v in seen)
    assert [v.sum() for _, _, v in seen] == result.curve[1:]
    np.testing.assert_array_equal(seen[-1][1], result.w)


@pytest.mark.parametrize("solver", [newton_cholesky, proximal_newton])
@pytest.mark.parametrize("kind", ["one", "several", "softmax"])
def test_solvers_with_parameters_of_numpy_run_over_rows_on_a_device(solver, kind, device):
    dtype = np.dtype(device.wide)
    objectives = pair(kind, device, dtype=dtype, l1_ratio=0.5 if solver is proximal_newton else 0.0)
    found, expected = solved(solver, objectives, tol=1e-4)
    assert expected.converged.all()
    assert_same(found, expected, dtype, rtol=1e-3)


def test_many_rows_on_a_device_start_from_a_sample():
    objectives = pair("one", torch_device(), n=40_000, p=4)
    assert objectives[1].subsample(128).passes.n == objectives[0].subsample(128).passes.n < 40_000
    assert_same(*solved(newton_cholesky, objectives))


def test_sparse_rows_on_a_device_are_solved_without_a_dual_ascent(monkeypatch):
    objectives = pair("several", torch_device(), container=scipy.sparse.csr_matrix)
    assert objectives[1].passes.dual_sizes() is None
    monkeypatch.setattr("sklloss.objectives.linear.WIDEST_GRAM", 2)
    assert objectives[1].dual_ascent() is None
    for solver in (lbfgs, newton_cg):
        found, expected = solved(solver, objectives)
        assert expected.converged.all()
        assert_same(found, expected)


class Plain:
    """The identity as a preconditioner."""

    def __call__(self, x):
        return +x

    def to_device(self, vectors):
        return self


class Valleys:
    """Rosenbrock's function for each problem, over any namespace; NaN farther out than ``edge``."""

    noise = 1e-15
    penalised = True
    local_cost = 5
    null_value = staticmethod(lambda: np.inf)
    preconditioner = Plain

    def __init__(self, steepness, vectors, edge=np.inf):
        self.vectors, self.xp = vectors, getattr(vectors, "xp", np)
        self.steepness, self.edge = vectors.put(np.asarray(steepness)), edge
        self.looks = 0

    def value_and_gradient(self, w):
        self.looks += 1
        x, y, s = w[:, 0], w[:, 1], self.steepness
        height = y - x**2
        value = 1 + s * height**2 + (1 - x) ** 2
        value = self.xp.where(self.xp.abs(x) > self.edge, value * np.nan, value)
        return value, self.xp.stack([-4 * s * height * x - 2 * (1 - x), 2 * s * height], axis=1)

    def preconditioner_at(self, w):
        assert type(w) is np.ndarray
        return Plain()


@pytest.mark.parametrize("edge", [np.inf, 1.25])
@pytest.mark.parametrize("memory", [1, 3, 10])
def test_lbfgs_takes_the_same_steps_on_a_device_with_any_memory(memory, edge):
    steepness, start = [1.0, 30.0, 100.0], np.array([[1.0, 1.0], [-1.2, 1.0], [-1.2, 1.0]])
    here = Valleys(steepness, NUMPY, edge)
    expected = lbfgs(here, start, tol=1e-6, max_iter=500, memory=memory)
    assert expected.converged.all()
    assert expected.n_iter[0] == 0
    for there in (DEVICES["strict"](), torch_device()):
        objective = Valleys(steepness, ArrayVectors(there), edge)
        found = lbfgs(objective, start, tol=1e-6, max_iter=500, memory=memory)
        assert found.converged.all()
        np.testing.assert_array_equal(found.w[0], start[0])
        np.testing.assert_allclose(found.w, 1.0, rtol=1e-5)
        # rounding decides on trials, a few more or less
        assert abs(objective.looks - here.looks) <= 0.2 * here.looks
        np.testing.assert_allclose(found.curve[:8], expected.curve[:8], rtol=1e-6)


def test_no_step_on_a_device_is_not_convergence():
    class Wrong(Valleys):
        def value_and_gradient(self, w):
            value, gradient = super().value_and_gradient(w)
            return value, -gradient

    start = np.array([[-1.2, 1.0]])
    found = lbfgs(Wrong([30.0], ArrayVectors(DEVICES["strict"]())), start, tol=1e-6, max_iter=50)
    assert not found.converged.any()
    np.testing.assert_array_equal(found.w, start)
    assert np.isfinite(found.value).all()


def test_a_direction_of_nan_is_no_step_on_a_device():
    class Lost(Plain):
        def __call__(self, x):
            rows = np.asarray([[np.inf], [1.0]])
            return x * vectors.put(rows)

    vectors = ArrayVectors(DEVICES["strict"]())
    objective = Valleys([30.0, 30.0], vectors)
    objective.preconditioner = Lost
    objective.preconditioner_at = lambda w: None
    start = np.array([[-1.2, 1.0], [-1.2, 1.0]])
    with np.errstate(invalid="ignore"):
        found = lbfgs(objective, start, tol=1e-6, max_iter=500)
    assert found.converged.tolist() == [False, True]
    np.testing.assert_array_equal(found.w[0], start[0])
    np.testing.assert_allclose(found.w[1], 1.0, rtol=1e-5)


class Bowls:
    """Quadratics, of which some report no curvature."""

    noise = 1e-15
    residual_floor = 1e-20
    close_preconditioner = False
    penalised = True
    block_cost = 1000
    null_value = staticmethod(lambda: np.inf)
    preconditioner = Plain
    dual_ascent = staticmethod(lambda: None)
    subsample = staticmethod(lambda each: None)
    local_preconditioner = staticmethod(lambda every_row: None)

    def __init__(self, vectors, curvature, says):
        self.vectors, self.xp = vectors, getattr(vectors, "xp", np)
        self.curvature, self.says = vectors.put(curvature), vectors.put(says[:, None])

    def linearise(self, w):
        gradient = self.curvature * (w - 1.0)
        return 1.0 + 0.5 * self.vectors.dot(w - 1.0, gradient), gradient

    def product(self, direction):
        return +(self.says * (self.curvature * direction))

    def multiplier(self, rough):
        return self.product


def test_newton_cg_on_a_device_follows_the_gradient_where_there_is_no_curvature():
    curvature = np.array([[0.5, 1.0, 1.2], [1.0, 10.0, 100.0], [1.0, 1.0, 1.0], [3.0, 4.0, 5.0]])
    says = np.array([0.0, 1.0, 1.0, 1.0])
    start = np.zeros((4, 3))
    start[3] = 1.0
    expected = newton_cg(Bowls(NUMPY, curvature, says), start, tol=1e-6, max_iter=50)
    assert expected.converged.tolist() == [False, True, True, True]
    np.testing.assert_allclose(expected.w, 1.0, atol=1e-6)
    for there in (DEVICES["strict"](), torch_device()):
        found = newton_cg(Bowls(ArrayVectors(there), curvature, says), start, tol=1e-6, max_iter=50)
        np.testing.assert_array_equal(found.converged, expected.converged)
        np.testing.assert_array_equal(found.n_iter, expected.n_iter)
        np.testing.assert_allclose(found.w, expected.w, atol=1e-9)


@pytest.fixture
def waits(monkeypatch):
    """How often numbers were read from the device, and the shapes of the arrays moved to it."""
    seen = {"get": 0, "put": []}
    get, put = Device.get, Device.put

    def counted_get(self, array):
        seen["get"] += 1
        return get(self, array)

    def counted_put(self, array, dtype=None):
        seen["put"].append(np.shape(array))
        return put(self, array, dtype)

    monkeypatch.setattr(Device, "get", counted_get)
    monkeypatch.setattr(Device, "put", counted_put)
    return seen


def count_calls(monkeypatch, objective, *names):
    calls = dict.fromkeys(names, 0)

    def counted(name, method):
        def call(*args):
            calls[name] += 1
            return method(*args)

        return call

    for name in names:
        monkeypatch.setattr(objective, name, counted(name, getattr(objective, name)))
    return calls


@pytest.fixture
def hidden_waits():
    """Count how often torch reads a single number within, as ``if tensor:`` and ``float(tensor)`` do."""
    pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = str(function)
            self.count += "_local_scalar_dense" in name or "nonzero" in name or "is_nonzero" in name
            return function(*args, **(kwargs or {}))

    return Watch()


@pytest.mark.parametrize("kind", ["one", "several", "softmax"])
def test_lbfgs_waits_for_the_device_once_per_line_search_trial(kind, waits, hidden_waits, monkeypatch):
    _, there = pair(kind, torch_device(), p=100, C=100.0)
    there.preconditioner()  # caches the Gram matrix
    calls = count_calls(monkeypatch, there, "value_and_gradient")
    waits["get"], waits["put"] = 0, []
    with hidden_waits:
        result = lbfgs(there, np.zeros(there.shape), tol=1e-4, max_iter=there.local_cost - 1)
    assert result.n_iter.max() > 5
    # one more for the parameters at the end
    assert waits["get"] == calls["value_and_gradient"] + 1
    assert hidden_waits.count == 0
    # What goes there after the start are the few shares of a direction, and steps where they differ.
    large = [shape for shape in waits["put"] if np.prod(shape) >= there.size]
    assert len(large) <= 3  # the start, the penalty, the preconditioner


@pytest.mark.parametrize("kind", ["one", "several", "softmax"])
def test_newton_cg_waits_for_the_device_once_per_product(kind, waits, hidden_waits, monkeypatch):
    _, there = pair(kind, torch_device(), p=100, C=100.0)
    there.preconditioner()
    monkeypatch.setattr(LinearObjective, "block_cost", np.inf)  # there is no local preconditioner
    calls = count_calls(monkeypatch, there, "linearise", "rough_product")
    waits["get"], waits["put"] = 0, []
    with hidden_waits:
        result = newton_cg(there, np.zeros(there.shape), tol=1e-4, max_iter=50)
    assert result.converged.all()
    assert calls["rough_product"] > calls["linearise"] > 3
    # in addition, one per value, two per linear system, the estimate that ends the fit, and its parameters
    steps = result.n_iter.max()
    assert waits["get"] == calls["rough_product"] + calls["linearise"] + 2 * steps + 2
    assert hidden_waits.count == 0
    assert sum(np.prod(shape) >= there.size for shape in waits["put"]) <= 3
