"""Networks on several threads: the same bits, whatever the number; memory; Ctrl-C."""

import signal
import threading
import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from helpers import dataset, run

from sklloss import losses
from sklloss.arrays import threads
from sklloss.arrays.threads import single_threaded_blas
from sklloss.objectives.network import NumpyNetworkObjective, initial_parameters
from sklloss.solvers.optimizers import SGD, Adam, AdamW

# Large enough to be cut into pieces in every step, with units and rows that no piece divides evenly.
WIDTHS = (603, 107, 231, 3)


def large(rng, dtype, rows=300, sparse=False):
    X = rng.standard_normal((rows, WIDTHS[0])).astype(dtype)
    if sparse:
        X[rng.random(X.shape) < 0.7] = 0
        X = scipy.sparse.csr_array(X)
    return X, rng.standard_normal((rows, 3)).astype(dtype), (rng.random(rows) + 0.1).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("kind", ["dense", "strided", "sparse"])
@pytest.mark.parametrize("optimizer", [Adam(), AdamW(weight_decay=0.1), SGD()])
def test_training_gives_the_same_bits_for_any_number_of_threads(kind, optimizer, activation, dtype, rng):
    X, y, weight = large(rng, dtype, sparse=kind == "sparse")
    X = np.asfortranarray(X) if kind == "strided" else X
    results = []
    for n_threads in (1, 2, 7):
        objective = NumpyNetworkObjective(
            WIDTHS, activation, dtype, losses.get("huber"), alpha=0.5, n_threads=n_threads
        )
        parameters = initial_parameters(WIDTHS, activation, np.random.RandomState(0), dtype)
        optimizer.start(objective.size, dtype)
        order = np.random.RandomState(1).permutation(300).astype(np.intp)
        with single_threaded_blas():
            curve = [
                objective.epoch(
                    objective.rows(dataset(X, y, weight)), order, 130, parameters, optimizer.steps(3)
                )
                for _ in range(3)
            ]
        results.append((curve, parameters.tobytes(), optimizer.state["first"].tobytes()))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("loss", ["squared_error", "root_mean_squared_error"])
def test_gradients_and_predictions_give_the_same_bits_for_any_number_of_threads(loss, rng):
    X, y, weight = large(rng, np.float64, rows=2500)
    parameters = initial_parameters(WIDTHS, "tanh", np.random.RandomState(0), np.float64)
    results = []
    for n_threads in (1, 2, 7):
        objective = NumpyNetworkObjective(WIDTHS, "tanh", np.float64, losses.get(loss), n_threads=n_threads)
        rows = objective.rows(dataset(X, y, weight))
        value, gradient = objective.value_and_gradient(rows, parameters)
        results.append(
            (value, gradient.tobytes(), objective.loss(rows, parameters),
             objective.predict(X, parameters).tobytes())
        )  # fmt: skip
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_python_loss_and_one_of_the_whole_batch_give_the_same_bits_for_any_number_of_threads(
    activation, rng
):
    class Own(losses.HalfSquaredError):
        kernel = None

        def evaluate_batch(self, raw, target, codes, weight):
            raw -= target
            return float(0.5 * np.sum(raw * raw))

    X, y, _ = large(rng, np.float64)
    parameters = initial_parameters(WIDTHS, activation, np.random.RandomState(0), np.float64)
    for loss in (Own(), losses.get("root_mean_squared_error")):
        results = []
        for n_threads in (1, 2, 7):
            objective = NumpyNetworkObjective(WIDTHS, activation, np.float64, loss, n_threads=n_threads)
            value, gradient = objective.value_and_gradient(objective.rows(dataset(X, y)), parameters)
            results.append((value, gradient.tobytes()))
        assert results[0] == results[1] == results[2]


def test_small_networks_ask_for_no_thread(rng, monkeypatch):
    def refused(*args):
        raise AssertionError("a small network asked for threads")

    monkeypatch.setattr(threads, "count", refused)
    X, y, _ = large(rng, np.float32, rows=64)
    objective = NumpyNetworkObjective((WIDTHS[0], 12, 3), "relu", np.float32, losses.get("squared_error"))
    parameters = initial_parameters((WIDTHS[0], 12, 3), "relu", np.random.RandomState(0), np.float32)
    optimizer = Adam()
    optimizer.start(objective.size, np.float32)
    objective.epoch(objective.rows(dataset(X, y)), None, 32, parameters, optimizer.steps(2))


def test_training_goes_on_when_no_thread_can_be_started():
    out = run(
        """
    import _thread
    import numpy as np
    def refuse(*arguments):
        raise RuntimeError("can't start new thread")
    _thread.start_new_thread = refuse
    from sklloss import MLPRegressor
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((400, 100)), rng.standard_normal(400)
    fits = [
        MLPRegressor(hidden_layer_sizes=(200,), max_iter=3, n_threads=n, random_state=0, tol=0).fit(X, y)
        for n in (1, 3)
    ]
    assert (fits[0].coefs_[0] == fits[1].coefs_[0]).all()
    print("done")
    """
    )
    assert out == "done\n"


def test_no_more_threads_are_started_than_a_layer_has_pieces():
    out = run(
        """
    import _thread
    import numpy as np
    start, started = _thread.start_new_thread, []
    def count(*arguments):
        started.append(arguments)
        return start(*arguments)
    _thread.start_new_thread = count
    from sklloss import MLPRegressor
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((400, 100)), rng.standard_normal(400)
    MLPRegressor(hidden_layer_sizes=(200,), max_iter=3, n_threads=100, tol=0).fit(X, y).predict(X)
    print(len(started))
    """
    )
    assert 1 <= int(out) <= 7


@pytest.mark.parametrize("n_threads", [1, 4])
def test_the_first_row_with_a_wrong_code_is_named(n_threads, rng):
    X, _, _ = large(rng, np.float64)
    codes = rng.integers(0, 3, 300).astype(np.intp)
    codes[[120, 290]] = 5, 7
    objective = NumpyNetworkObjective(
        WIDTHS, "relu", np.float64, losses.get("cross_entropy"), n_threads=n_threads
    )
    parameters = initial_parameters(WIDTHS, "relu", np.random.RandomState(0), np.float64)
    rows = objective.rows(dataset(X, codes=codes, outputs=3))
    for _ in range(3):
        with pytest.raises(ValueError, match=r"class code 5 is not in \[0, 3\)"):
            objective.value_and_gradient(rows, parameters)
    codes[[120, 290]] = 0
    assert np.isfinite(objective.value_and_gradient(rows, parameters)[0])


def test_an_error_in_a_loss_ends_the_helpers_too(rng):
    class Broken(losses.HalfSquaredError):
        kernel = None

        def evaluate_batch(self, raw, target, codes, weight):
            raise LookupError("no such target")

    X, y, _ = large(rng, np.float64)
    objective = NumpyNetworkObjective(WIDTHS, "relu", np.float64, Broken(), n_threads=3)
    parameters = initial_parameters(WIDTHS, "relu", np.random.RandomState(0), np.float64)
    for _ in range(3):
        with pytest.raises(LookupError, match="no such target"):
            objective.value_and_gradient(objective.rows(dataset(X, y)), parameters)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="POSIX signals")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_ctrl_c_ends_a_long_epoch_of_a_large_network(n_threads, rng):
    widths = (600, 700, 700, 1)
    X, y = rng.standard_normal((64, 600)).astype(np.float32), np.zeros((64, 1), np.float32)
    objective = NumpyNetworkObjective(
        widths, "relu", np.float32, losses.get("squared_error"), n_threads=n_threads
    )
    parameters = initial_parameters(widths, "relu", np.random.RandomState(0), np.float32)
    optimizer = Adam()
    optimizer.start(objective.size, np.float32)
    # hours of work, if nothing stops it
    order = np.tile(np.arange(64, dtype=np.intp), 200_000)
    rows = objective.rows(dataset(X, y))
    objective.epoch(rows, order[:128], 64, parameters, optimizer.steps(2))
    main = threading.main_thread().ident
    timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    try:
        with single_threaded_blas(), pytest.raises(KeyboardInterrupt):
            objective.epoch(rows, order, 64, parameters, optimizer.steps(200_000))
    finally:
        timer.join()
    assert np.isfinite(objective.epoch(rows, order[:128], 64, parameters, optimizer.steps(2)))


@pytest.mark.parametrize("kind", ["same dtype", "cast", "CSR", "CSR cast"])
def test_predicting_many_rows_holds_little_beyond_input_and_output(kind):
    rng = np.random.default_rng(0)
    rows = 1_000_000
    if kind.startswith("CSR"):
        indices = rng.integers(0, 20, 2 * rows, dtype=np.int32).reshape(rows, 2)
        indices[:, 1] = (indices[:, 0] + 1) % 20
        X = scipy.sparse.csr_array(
            (np.ones(2 * rows), indices.ravel(), np.arange(0, 2 * rows + 1, 2, dtype=np.int32)), (rows, 20)
        )
    else:
        X = np.zeros((rows, 20))
    dtype = np.float32 if kind.endswith("cast") else np.float64
    objective = NumpyNetworkObjective((20, 60, 1), "relu", dtype, n_threads=2)
    parameters = initial_parameters((20, 60, 1), "relu", np.random.RandomState(0), dtype)
    tracemalloc.start()
    try:
        scores = objective.predict(X, parameters)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < scores.nbytes + 6e6
