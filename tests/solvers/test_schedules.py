"""Learning rates over a training: against torch's schedulers, and as the networks use them."""

import itertools

import numpy as np
import pytest

from sklloss import MLPRegressor
from sklloss.solvers.optimizers import (
    CORRECTED_STEPS,
    SCHEDULES,
    bias_corrections,
    cosine,
    one_cycle,
    schedule,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CASES = list(itertools.product([1, 2, 7, 20, 333], [0.0, 0.05, 0.3, 0.9]))


def torch_factors(total, make):
    torch = pytest.importorskip("torch")
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(torch.optim.lr_scheduler, optimiser)
    rates = []
    for _ in range(total):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


@pytest.mark.filterwarnings("ignore:.*epoch parameter:UserWarning")
@pytest.mark.parametrize(("total", "warmup_fraction"), CASES)
def test_cosine_is_torchs_after_its_linear_warm_up(total, warmup_fraction):
    warmup = round(warmup_fraction * total)

    def make(schedulers, optimiser):
        fall = schedulers.CosineAnnealingLR(optimiser, T_max=max(total - warmup, 1))
        if not warmup:
            return fall
        rise = schedulers.LinearLR(optimiser, start_factor=1 / (warmup + 1), total_iters=warmup)
        return schedulers.SequentialLR(optimiser, [rise, fall], milestones=[warmup])

    factors = cosine(np.arange(total), total, warmup_fraction)
    np.testing.assert_allclose(factors, torch_factors(total, make), rtol=1e-9, atol=1e-12)


# torch divides by 0 where the rise has no step
@pytest.mark.parametrize(("total", "warmup_fraction"), [case for case in CASES if case[0] * case[1] > 1])
def test_one_cycle_is_torchs(total, warmup_fraction):
    def make(schedulers, optimiser):
        return schedulers.OneCycleLR(
            optimiser, 1.0, total_steps=total, pct_start=warmup_fraction, cycle_momentum=False
        )

    factors = one_cycle(np.arange(total), total, warmup_fraction)
    np.testing.assert_allclose(factors, torch_factors(total, make), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("total", "warmup_fraction"), CASES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_factor_is_in_the_unit_interval_and_one_is_near_its_top(name, total, warmup_fraction):
    factors = schedule(name, warmup_fraction)(np.arange(total), total)
    assert factors.shape == (total,)
    assert (factors > 0).all()
    assert (factors <= 1).all()
    assert total <= 2 or factors.max() > 0.8
    rise = np.argmax(factors)
    assert (np.diff(factors[: rise + 1]) >= 0).all()
    assert (np.diff(factors[rise:]) <= 0).all()


def test_the_schedules_of_scikit_learn_are_not_of_this_kind():
    assert [schedule(name) for name in ("constant", "invscaling", "adaptive")] == [None] * 3


# In the networks ---------------------------------------------------------------------------------------


def data(n=90):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    return X, np.sin(X[:, 0]) + X[:, 1] * X[:, 2]


def linear_sgd(X, y, coef, intercept, rates, batch, momentum):
    """Nesterov's descent on half the squared error, one batch after the other, over and over."""
    velocity, parameters = np.zeros(5), np.append(coef, intercept)
    rows = np.column_stack([X, np.ones(len(X))])
    for step, rate in enumerate(rates):
        first = step * batch % len(X)
        part = slice(first, first + batch)
        residual = rows[part] @ parameters - y[part]
        gradient = rows[part].T @ residual / batch
        velocity = momentum * velocity - rate * gradient
        parameters = parameters + momentum * velocity - rate * gradient
    return parameters


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup_fraction", [None, 0.2])
def test_each_batch_has_its_own_rate_over_max_iter_epochs(name, warmup_fraction):
    X, y = data()
    common = {
        "hidden_layer_sizes": (), "solver": "sgd", "alpha": 0.0, "shuffle": False, "batch_size": 30,
        "random_state": 0, "learning_rate_init": 0.05, "tol": 0.0, "n_iter_no_change": np.inf,
    }  # fmt: skip
    model = MLPRegressor(**common, max_iter=6, learning_rate=name, warmup_fraction=warmup_fraction).fit(X, y)
    start = MLPRegressor(**{**common, "learning_rate_init": 1e-300}, max_iter=1).fit(X, y)
    own = SCHEDULES[name][1] if warmup_fraction is None else warmup_fraction
    rates = 0.05 * SCHEDULES[name][0](np.arange(18), 18, own)
    expected = linear_sgd(X, y, start.coefs_[0][:, 0], start.intercepts_[0], rates, 30, 0.9)
    found = np.append(model.coefs_[0][:, 0], model.intercepts_[0])
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_adam_under_a_schedule_is_torchs_under_the_same():
    torch = pytest.importorskip("torch")
    X, y = data()
    common = {"hidden_layer_sizes": (), "alpha": 0.0, "shuffle": False, "batch_size": 30, "random_state": 0}
    model = MLPRegressor(
        **common, learning_rate="one-cycle", learning_rate_init=0.05, max_iter=6, n_iter_no_change=np.inf
    ).fit(X, y)
    start = MLPRegressor(**common, learning_rate_init=1e-300, max_iter=1).fit(X, y)
    coef, intercept = (
        torch.tensor(part[0], dtype=torch.float64, requires_grad=True)
        for part in ([start.coefs_[0][:, 0]], [start.intercepts_[0]])
    )
    optimiser = torch.optim.Adam([coef, intercept], lr=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.05, total_steps=18, cycle_momentum=False)
    for step in range(18):
        part = slice(30 * (step % 3), 30 * (step % 3) + 30)
        optimiser.zero_grad()
        residual = torch.from_numpy(X[part]) @ coef + intercept - torch.from_numpy(y[part])
        (0.5 * (residual**2).mean()).backward()
        optimiser.step()
        scheduler.step()
    np.testing.assert_allclose(model.coefs_[0][:, 0], coef.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(model.intercepts_, [intercept.detach().numpy()], rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_lbfgs_has_no_learning_rate(name):
    X, y = data()
    models = (
        MLPRegressor(
            hidden_layer_sizes=(5,), solver="lbfgs", max_iter=20, random_state=0, learning_rate=rate
        ).fit(X, y)
        for rate in ("constant", name)
    )
    np.testing.assert_array_equal(*(model.predict(X) for model in models))


@pytest.mark.parametrize("name", ["invscaling", "adaptive"])
def test_the_schedules_of_scikit_learn_are_for_sgd_only(name):
    X, y = data()
    models = (
        MLPRegressor(hidden_layer_sizes=(5,), max_iter=20, random_state=0, learning_rate=rate, tol=0.1).fit(
            X, y
        )
        for rate in ("constant", name)
    )
    np.testing.assert_array_equal(*(model.predict(X) for model in models))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_start_runs_the_schedule_anew(name):
    X, y = data()
    common = {
        "hidden_layer_sizes": (), "solver": "sgd", "alpha": 0.0, "shuffle": False, "batch_size": 30,
        "random_state": 0, "learning_rate_init": 0.05, "n_iter_no_change": np.inf, "max_iter": 4,
    }  # fmt: skip
    model = MLPRegressor(**common, learning_rate=name, warm_start=True).fit(X, y)
    coef, intercept = model.coefs_[0][:, 0], model.intercepts_[0]
    model.fit(X, y)
    rates = 0.05 * SCHEDULES[name][0](np.arange(12), 12, SCHEDULES[name][1])
    expected = linear_sgd(X, y, coef, intercept, rates, 30, 0.9)
    np.testing.assert_allclose(np.append(model.coefs_[0][:, 0], model.intercepts_[0]), expected, rtol=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_that_has_run_to_its_end_warns_of_nothing_and_a_stall_ends_it(name, recwarn):
    X, y = data()
    model = MLPRegressor(hidden_layer_sizes=(5,), max_iter=5, random_state=0, learning_rate=name).fit(X, y)
    assert model.n_iter_ == 5
    assert not [warning for warning in recwarn if "Stochastic Optimizer" in str(warning.message)]
    model.set_params(max_iter=50, tol=10.0, n_iter_no_change=2).fit(X, y)
    assert model.n_iter_ < 10


@pytest.mark.parametrize("name", SCHEDULES)
def test_partial_fit_has_no_schedule_as_it_has_no_end(name):
    X, y = data()
    model = MLPRegressor(hidden_layer_sizes=(5,), max_iter=5, random_state=0, learning_rate=name).fit(X, y)
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError) as caught:
        model.partial_fit(X, y)
    assert f"learning_rate='{name}' runs over max_iter epochs" in str(caught.value.__cause__)
    model.set_params(learning_rate="constant").partial_fit(X, y)


@pytest.mark.parametrize("value", [-0.1, 1.0, np.nan])
def test_a_warm_up_is_a_share_of_the_training(value):
    X, y = data()
    with pytest.raises(ValueError, match="warmup_fraction must be in"):
        MLPRegressor(learning_rate="cosine", warmup_fraction=value).fit(X, y)


def test_bias_corrections_are_those_of_each_step_wherever_they_begin():
    for done in (0, 7, CORRECTED_STEPS - 3, CORRECTED_STEPS, 3 * CORRECTED_STEPS - 1, 10**6):
        for steps in (1, 5, 2 * CORRECTED_STEPS):
            t = np.arange(done + 1, done + steps + 1, dtype=float)
            second, first = bias_corrections(done, steps, 0.9, 0.999)
            np.testing.assert_allclose(second, np.sqrt(1.0 - 0.999**t), rtol=1e-12)
            np.testing.assert_allclose(first, 1.0 - 0.9**t, rtol=1e-14)
