"""The stochastic solvers: their steps against the papers' formulas, and the rules of training."""

import contextlib
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import dataset

from sklloss import losses
from sklloss.objectives.network import NumpyNetworkObjective
from sklloss.solvers.optimizers import SGD, Adam
from sklloss.solvers.training import History, TrainingOptions, lbfgsb, train


class Quadratic:
    """Stands for a network: records what it is asked, and gives a scripted loss per epoch."""

    def __init__(self, curve=(), at_once=1):
        self.curve = list(curve)
        self.at_once = at_once
        self.counts, self.orders, self.rates = [], [], []

    def epochs_at_once(self, n):
        return self.at_once

    def epochs(self, rows, order, count, batch_size, parameters, steps):
        self.counts.append(count)
        self.rates += steps.rates.tolist()
        self.orders += [None] * count if order is None else list(order.copy().reshape(count, -1))
        parameters += 1.0 * count
        return [self.curve.pop(0) for _ in range(count)]

    def copy(self, parameters):
        return parameters.copy()

    def is_finite(self, parameters):
        return bool(np.isfinite(parameters).all())

    def running(self):
        return contextlib.nullcontext()


class FiveRows:
    rows = 5


def run(curve, optimizer=None, order=range(5), at_once=1, **kwargs):
    optimizer = optimizer or SGD()
    optimizer.start(1, np.float64)
    history = History()
    objective = Quadratic(curve, at_once)
    defaults = {"batch_size": 2, "max_iter": len(curve), "random_state": np.random.RandomState(0)}
    options = TrainingOptions(**{**defaults, **kwargs})
    parameters, n_iter = train(objective, optimizer, FiveRows, np.array(order), np.zeros(1), history, options)
    return parameters, n_iter, history, optimizer.state, objective


def linear(rng, dtype=np.float64):
    """A linear model on one row: its gradient is simple enough to write down."""
    X, y = rng.standard_normal((1, 3)).astype(dtype), np.ones((1, 1), dtype)
    objective = NumpyNetworkObjective((3, 1), "relu", dtype, losses.get("squared_error"), alpha=0.5)
    parameters = rng.standard_normal(4).astype(dtype)

    def gradient(p):
        error = X[0] @ p[:3] + p[3] - 1
        return np.append(error * X[0] + 0.5 * p[:3], error)

    return objective, objective.rows(dataset(X, y)), parameters, gradient


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_adam_takes_the_steps_of_the_paper(dtype, rng):
    objective, rows, parameters, gradient = linear(rng, dtype)
    adam = Adam(0.1, 0.8, 0.95, 1e-6)
    adam.start(4, dtype)
    p, m, v = parameters.astype(float), np.zeros(4), np.zeros(4)
    for t in range(1, 8):
        objective.epoch(rows, None, 1, parameters, adam.steps(1))
        g = gradient(p)
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        rate = 0.1 * np.sqrt(1 - 0.95**t) / (1 - 0.8**t)
        p = p - rate * m / (np.sqrt(v) + 1e-6)
    np.testing.assert_allclose(parameters, p, rtol=1e-12 if dtype is np.float64 else 1e-4)
    np.testing.assert_allclose(adam.state["second"], v, rtol=1e-12 if dtype is np.float64 else 1e-4)
    assert adam.state["steps"] == 7


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_takes_the_steps_of_momentum(momentum, nesterov, rng):
    objective, rows, parameters, gradient = linear(rng)
    sgd = SGD(0.05, momentum=momentum, nesterovs_momentum=nesterov)
    sgd.start(4, np.float64)
    p, v = parameters.copy(), np.zeros(4)
    for _ in range(7):
        objective.epoch(rows, None, 1, parameters, sgd.steps(1))
        g = gradient(p)
        v = momentum * v - 0.05 * g
        p = p + (momentum * v - 0.05 * g if nesterov else v)
    np.testing.assert_allclose(parameters, p, rtol=1e-12)


def test_training_stops_after_more_epochs_without_progress_than_allowed():
    _, n_iter, history, *_ = run([3.0, 2.0, 2.0, 1.99995, 2.0, 0.0], n_iter_no_change=2)
    assert n_iter == 5
    assert history.best_loss == 1.99995
    assert history.seen == 25


def test_too_few_epochs_have_not_converged_unless_one_was_asked_for():
    _, _, history, *_ = run([3.0, 2.0])
    assert "Maximum iterations (2) reached" in history.unsolved
    _, n_iter, history, *_ = run([3.0, 2.0], single_epoch=True)
    assert n_iter == 1
    assert history.unsolved is None


def test_the_adaptive_rate_falls_at_each_stall_and_ends_training_when_small():
    sgd = SGD(4e-6, "adaptive")
    _, n_iter, _, state, _ = run([1.0] * 20, sgd, tol=0.1, n_iter_no_change=1)
    assert state["learning_rate"] == pytest.approx(4e-6 / 5)
    assert n_iter == 5  # a first epoch, then two stalls of two epochs


def test_invscaling_divides_by_the_rows_seen():
    sgd = SGD(0.5, "invscaling", power_t=0.25)
    *_, state, _ = run([3.0, 2.0], sgd)
    assert state["learning_rate"] == pytest.approx(0.5 / 11**0.25)


def test_each_epoch_shuffles_the_order_of_the_one_before():
    *_, objective = run([3.0, 2.0, 1.0])
    assert all(sorted(order) == list(range(5)) for order in objective.orders)
    assert len({tuple(order) for order in objective.orders}) == 3


@pytest.mark.parametrize(
    ("order", "options", "given"),
    [
        ([0, 1, 2, 3, 4], {"shuffle": False}, False),
        ([0, 1, 2, 3, 4], {"batch_size": 5}, False),
        ([4, 2, 3, 0, 1], {"batch_size": 5}, False),
        ([4, 2, 3, 0, 1], {"shuffle": False}, True),
        ([0, 1, 3, 4], {"shuffle": False}, True),
        ([0, 1, 3, 4], {"shuffle": False, "batch_size": 5}, True),
    ],
)
def test_rows_are_gathered_only_where_their_order_matters(order, options, given):
    *_, objective = run([3.0, 2.0], order=order, **options)
    assert [None if one is None else one.tolist() for one in objective.orders] == [
        order if given else None
    ] * 2


CURVE = [3.0, 2.5, 2.0, 2.0, 2.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5]


@pytest.mark.parametrize("max_iter", [1, 4, 12])
@pytest.mark.parametrize("optimizer", [Adam, SGD, lambda: SGD(0.5, "adaptive")])
def test_several_epochs_in_a_call_end_where_single_ones_do(optimizer, max_iter):
    options = {"max_iter": max_iter, "n_iter_no_change": 3, "schedule": lambda step, total: step / total}
    _, epochs, history, state, each = run(CURVE, optimizer(), **options)
    random_state = np.random.RandomState(0)
    options["random_state"] = random_state
    _, at_once, same, same_state, several = run(CURVE, optimizer(), at_once=4, **options)
    assert at_once == epochs
    assert (same.loss_curve, same.stalled, same.seen) == (history.loss_curve, history.stalled, history.seen)
    assert same.unsolved == history.unsolved
    assert len(several.counts) < len(each.counts) or epochs == 1
    assert several.rates == each.rates
    np.testing.assert_array_equal(several.orders, each.orders)
    for name, part in state.items():
        np.testing.assert_array_equal(same_state[name], part)
    # no more is drawn than the epochs need
    drawn = np.random.RandomState(0)
    for _ in range(epochs):
        drawn.permutation(5)
    assert random_state.randint(1 << 30) == drawn.randint(1 << 30)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (SGD(), {"verbose": True}),
        (SGD(), {"mark": True}),
        (SGD(), {"single_epoch": True}),
        (SGD(), {"validate": lambda p: (0.0, 0.0)}),
        (SGD(), {"validate": lambda p: (0.0, 0.0), "early_stopping": "score"}),
        (SGD(), {"callbacks": SimpleNamespace(begin=lambda: None, end=lambda p: False)}),
        (SGD(0.5, "invscaling"), {}),
    ],
)
def test_epochs_are_taken_one_by_one_where_something_happens_between_them(optimizer, options):
    *_, objective = run(CURVE, optimizer, at_once=4, **options)
    assert set(objective.counts) == {1}


def test_a_divergence_within_several_epochs_names_its_own():
    with pytest.raises(ValueError, match="became nan in epoch 6"):
        run([5.0, 4.0, 3.0, 2.0, 1.0, np.nan, np.nan, np.nan], at_once=4)


def test_early_stopping_returns_the_parameters_of_the_best_epoch():
    scores = iter([0.1, 0.5, 0.3, 0.2, 0.4])
    parameters, n_iter, history, *_ = run(
        [5.0, 4.0, 3.0, 2.0, 1.0],
        early_stopping=True,
        n_iter_no_change=1,
        validate=lambda p: (float(p[0]), next(scores)),
    )
    assert n_iter == 4
    assert parameters.tolist() == [2.0]
    assert history.best_validation_score == 0.5
    assert history.validation_scores == [0.1, 0.5, 0.3, 0.2]
    assert history.validation_loss_curve == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_no_number_names_the_epoch_and_a_remedy(bad):
    with pytest.raises(ValueError, match=r"became (nan|inf) in epoch 2.*learning_rate_init"):
        run([1.0, bad, 0.5])


def started(optimizer, **state):
    """The state of an optimizer at its start, with some of it changed."""
    optimizer.start(3, np.float64)
    return {**optimizer.state, **state}


def resumed_rate(optimizer, state):
    """The learning rate at which an optimizer goes on."""
    assert optimizer.resume(state)
    return optimizer.state["learning_rate"]


def test_a_state_is_resumed_only_by_its_own_optimizer():
    state, resumed = started(Adam()), Adam()
    assert resumed.resume(state)
    assert resumed.state is not state
    assert not np.shares_memory(resumed.state["first"], state["first"])
    assert not SGD().resume(state)
    assert not Adam().resume(None)
    # a new initial rate starts the schedule anew
    assert resumed_rate(SGD(0.1, "adaptive"), started(SGD(0.2), learning_rate=0.04)) == 0.1
    fallen = started(SGD(0.2, "adaptive"), learning_rate=0.04)
    assert resumed_rate(SGD(0.2, "adaptive"), fallen) == 0.04
    for name in ("constant", "invscaling"):
        other = SGD(0.2, name)
        assert resumed_rate(other, fallen) == 0.2
        assert resumed_rate(SGD(0.2, name), {**other.state, "learning_rate": 0.01}) == 0.01
    assert fallen["learning_rate"] == 0.04


def test_a_history_keeps_the_parameters_of_its_last_mark_only():
    history, parameters = History(), [np.zeros(3) for _ in range(4)]
    alive = [weakref.ref(one) for one in parameters]
    while parameters:
        history.loss_curve.append(1.0)
        history.mark(parameters.pop(0))
    assert [one() is not None for one in alive] == [False, False, False, True]
    history.loss_curve.append(2.0)
    assert history.is_marked
    assert history.loss_curve == [1.0] * 4 + [2.0]
    found, then = history.marked()
    assert found is alive[-1]()
    assert then.loss_curve == [1.0] * 4
    assert not then.is_marked
    assert History().marked() is None


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_lbfgsb_finds_the_minimum_of_a_quadratic(dtype, rng):
    scales = np.array([1.0, 10.0, 100.0])
    seen = []
    x, value, n_iter, unsolved = lbfgsb(
        lambda p: (float(scales @ (p - 1.0) ** 2), (2 * scales * (p - 1)).astype(dtype)),
        np.zeros(3, dtype),
        tol=1e-6,
        max_iter=100,
        max_fun=1000,
        callback=lambda value, p: seen.append(value),
    )
    assert x.dtype == dtype
    np.testing.assert_allclose(x, 1.0, rtol=1e-4)
    assert len(seen) == n_iter
    assert seen[-1] == value
    assert unsolved is None


def test_lbfgsb_says_that_it_ran_out_of_iterations_or_evaluations():
    def valley(p):
        return float(np.sum(p**4)), 4 * p**3

    for limits in ({"max_iter": 2, "max_fun": 1000}, {"max_iter": 100, "max_fun": 2}):
        *_, unsolved = lbfgsb(valley, np.full(4, 3.0), tol=1e-12, **limits)
        assert unsolved.startswith("lbfgs failed to converge")
