"""The simulated device itself, and exactly how often the host waits for a device."""

import collections
import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
from simulated_device import simulated_device, transfers

from sklloss import LogisticClassifier, MLPClassifier, MLPRegressor, SoftmaxClassifier
from sklloss.objectives.device_network import DeviceNetworkObjective
from sklloss.objectives.linear import LinearObjective

torch = pytest.importorskip("torch")
if torch.cuda.is_available():
    pytest.skip("no simulated device beside CUDA's, for which torch would take it", allow_module_level=True)

N = 240

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:Sparse:UserWarning"
)


@pytest.fixture
def device():
    return simulated_device()


@pytest.fixture
def pair(device):
    """A tensor in main memory, and a copy on the device."""
    here = torch.arange(6.0).reshape(3, 2)
    return here, here.to(device)


@pytest.fixture
def data(rng):
    """X, whose columns have different sizes, and labels of four classes."""
    X = rng.normal(size=(N, 8)) * np.logspace(-1, 1, 8) + 1
    scores = X / X.std(axis=0) @ rng.normal(size=(8, 4)) + rng.normal(size=(N, 4))
    return X, scores.argmax(axis=1)


def change_in_place(x):
    x = x.clone()
    x[1:, 0] += 1.0  # by a view
    x.T.mul_(2.0)
    torch.exp(x, out=x[:])
    return x


def sparse_product(x):
    starts, indices = torch.tensor([0, 1, 2]).to(x.device), torch.tensor([2, 0]).to(x.device)
    matrix = torch.sparse_csr_tensor(starts, indices, x[:2, 1], size=(2, 3))
    assert torch.equal(matrix.to_dense() @ x, matrix @ x)
    return matrix @ x


WORK = {
    "product": lambda x: x @ x.T,
    "several results": lambda x: x.max(dim=0)[1],
    "joined": lambda x: torch.cat([x, x[:1]]),
    "in place": change_in_place,
    "number of main memory": lambda x: x + torch.tensor(2.0),
    "mask": lambda x: x[x > 1.5],
    "range": lambda x: torch.arange(1, 9, 2, device=x.device),
    "range in place": lambda x: torch.arange(4, out=torch.empty(4, device=x.device)),
    "identity": lambda x: torch.eye(3, device=x.device),
    "factor": lambda x: torch.linalg.cholesky(x.T @ x),
    "csr": sparse_product,
    "deep copy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_tensors_of_the_simulated_device_hold_what_those_of_the_cpu_do(work, pair, device):
    expected, found = map(work, pair)
    assert found.device == device
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.is_contiguous() == expected.is_contiguous()
    np.testing.assert_array_equal(found.cpu().numpy(), expected.numpy())


def test_operations_with_tensors_in_main_memory_are_errors(pair):
    here, there = pair
    mixed = [
        lambda: there + here,
        lambda: here @ there.T,
        lambda: torch.cat([there, here]),
        lambda: there[torch.tensor([0])],
        lambda: torch.add(there, there, out=here),
        lambda: there.index_add_(0, torch.tensor([0]), there[:1]),
    ]
    for operation in mixed:
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            operation()
    for export in (lambda: there.numpy(), lambda: np.asarray(there)):
        with pytest.raises(RuntimeError, match="not supported"):
            export()
    with pytest.raises(NotImplementedError, match="has changed a tensor's shape"):
        there.resize_(7, 7)


def test_reads_and_writes_of_the_host_are_counted(pair):
    here, there = pair
    reads = [
        lambda: float(there.sum()),
        lambda: bool((there > 0).all()),
        there.cpu,
        lambda: here.clone().copy_(there),
        there.nonzero,
        lambda: there[there > 1],
        lambda: there.clone().index_put_((there > 1,), torch.tensor(1.0)),
        lambda: torch.equal(there, there),
        lambda: torch.linalg.cholesky(there.T @ there),
    ]
    writes = [lambda: here.to(there.device), lambda: there.clone().copy_(here)]
    neither = [
        lambda: there @ there.T,
        lambda: there.clone().copy_(there),
        lambda: there.to(torch.float64),
        lambda: there + 1.0,
        lambda: torch.where(there > 1, there, 0.0),
        lambda: there.repeat_interleave(2, 0),
    ]
    for operations, counts in ((reads, (1, 0)), (writes, (0, 1)), (neither, (0, 0))):
        for operation in operations:
            with transfers() as seen:
                operation()
            assert (len(seen.reads), len(seen.writes)) == counts


def test_main_memory_stays_as_it_was(device):
    assert torch.ones(1).device == torch.get_default_device() == torch.device("cpu")
    x = torch.ones(3, requires_grad=True)
    (x * x).sum().backward()
    assert type(x.grad) is torch.Tensor
    assert type(pickle.loads(pickle.dumps(x))) is type(copy.deepcopy(x)) is torch.Tensor


def counted(monkeypatch, kind, *names):
    """How often methods of a class are called from now on, by name."""
    calls = collections.Counter()

    def counting(name, method):
        def call(self, *arguments, **options):
            calls[name] += 1
            return method(self, *arguments, **options)

        return call

    for name in names:
        monkeypatch.setattr(kind, name, counting(name, getattr(kind, name)))
    return calls


def fit(model, X, y, device):
    """The `Transfers` of a fit; to a tensor, or to CSR that is moved."""
    if scipy.sparse.issparse(X):
        model.set_params(device=device)
    else:
        X, y = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    with transfers() as seen:
        model.fit(X, y)
    return seen


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("kind", [LogisticClassifier, SoftmaxClassifier, MLPClassifier, MLPRegressor])
def test_batches_wait_for_nothing(kind, solver, sparse, device, data):
    X, y = data
    X = scipy.sparse.csr_array(np.where(X > 1.0, X, 0.0)) if sparse else X
    options = {"solver": solver, "max_iter": 2, "random_state": 0}
    few, many = (fit(kind(batch_size=size, **options), X, y, device) for size in (N // 5, N // 30))
    assert many.reads == few.reads
    assert many.writes == few.writes


@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
def test_an_epoch_of_a_network_waits_once(solver, device, data):
    few, many = (
        fit(MLPClassifier(solver=solver, batch_size=24, max_iter=n, random_state=0), *data, device)
        for n in (2, 7)
    )
    assert len(many.reads) - len(few.reads) == len(many.writes) - len(few.writes) == 5


# For each method of the objective, how often a call waits for the device.
WAITS = {
    "newton-cholesky": {"hessian": 2, "value_and_gradient": 1},
    "newton-cg": {"product": 1, "rough_product": 1, "linearise": 3},
    "lbfgs": {"value_and_gradient": 1},
}


@pytest.mark.parametrize("steps", [3, 13])
@pytest.mark.parametrize("solver", WAITS)
@pytest.mark.parametrize("kind", [LogisticClassifier, SoftmaxClassifier])
def test_a_pass_is_waited_for_once(kind, solver, steps, device, data, monkeypatch):
    calls = counted(monkeypatch, LinearObjective, *WAITS[solver])
    seen = fit(kind(solver=solver, max_iter=steps, tol=0.0, C=100), *data, device)
    assert calls.total() > steps
    # in addition to what is read of X and y, and a preconditioner
    assert len(seen.reads) <= sum(calls[name] * waits for name, waits in WAITS[solver].items()) + 10
    assert len(seen.writes) <= calls.total() + 20


@pytest.mark.parametrize("steps", [3, 13])
def test_a_value_and_gradient_of_a_network_are_waited_for_twice(steps, device, data, monkeypatch):
    calls = counted(monkeypatch, DeviceNetworkObjective, "value_and_gradient")
    seen = fit(MLPClassifier(solver="lbfgs", max_iter=steps, random_state=0), *data, device)
    assert len(seen.reads) <= 2 * calls["value_and_gradient"] + 6


@pytest.mark.parametrize("kind", [LogisticClassifier, SoftmaxClassifier, MLPClassifier])
def test_predictions_wait_only_for_whether_X_is_finite(kind, device, data):
    model = kind(max_iter=2, random_state=0)
    fit(model, *data, device)
    X = torch.from_numpy(data[0]).to(device)
    for method in (model.predict, model.predict_proba):
        with transfers() as seen:
            method(X)
        assert len(seen.reads) == 1
