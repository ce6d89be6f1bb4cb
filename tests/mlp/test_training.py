"""Training of the networks: early stopping, divergence, Ctrl-C, partial_fit and callbacks."""

import pickle
import warnings

import numpy as np
import pytest
import sklearn
from helpers import regression_data, small_regressor
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.metrics import make_scorer, max_error, mean_absolute_error, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

from sklloss import MLPRegressor, losses

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


X, Y, W = regression_data()
TRAIN, HELD = slice(0, 100), slice(100, 150)


def fit_held_out(model, weighted=False, y=Y):
    weights = {"sample_weight_val": W[HELD]} if weighted else {}
    return model.fit(X[TRAIN], y[TRAIN], X_val=X[HELD], y_val=y[HELD], **weights)


def epochs_apart(model, epochs, y=Y):
    """The network after each of its first epochs."""
    for epoch in range(1, epochs + 1):
        yield fit_held_out(clone(model).set_params(early_stopping=False, max_iter=epoch), y=y)


def absolute_score(estimator, X, y, sample_weight=None):
    """A scorer that is a plain function, and asks for what an estimator has."""
    assert isinstance(estimator, MLPRegressor)
    assert estimator.n_features_in_ == X.shape[1]
    return -mean_absolute_error(y, estimator.predict(X), sample_weight=sample_weight)


# Early stopping ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize(
    ("early_stopping", "metric"),
    [
        (True, r2_score),
        ("r2", r2_score),
        ("neg_mean_absolute_error", mean_absolute_error),
        (absolute_score, mean_absolute_error),
        (make_scorer(mean_absolute_error, greater_is_better=False), mean_absolute_error),
    ],
)
def test_early_stopping_keeps_the_epoch_of_the_best_score(early_stopping, metric, outputs, weighted):
    y = regression_data(outputs=outputs)[1]
    model = small_regressor(
        early_stopping=early_stopping, max_iter=60, learning_rate_init=0.05, n_iter_no_change=3
    )
    fit_held_out(model, weighted, y)
    weight = W[HELD] if weighted else None
    sign = 1.0 if metric is r2_score else -1.0
    scores = [
        sign * metric(y[HELD], stage.predict(X[HELD]), sample_weight=weight)
        for stage in epochs_apart(model, model.n_iter_, y)
    ]
    np.testing.assert_allclose(model.validation_scores_, scores, rtol=1e-12)
    assert model.n_iter_ < 60
    assert model.best_iter_ == np.argmax(scores) + 1 < model.n_iter_
    assert model.best_validation_score_ == max(model.validation_scores_)
    best = list(epochs_apart(model, model.best_iter_, y))[-1]
    np.testing.assert_array_equal(model.predict(X), best.predict(X))
    assert len(model.validation_loss_curve_) == len(model.loss_curve_) == model.n_iter_


def unweighted_score(estimator, X, y):
    """A scorer of no more than the documented arguments."""
    return -mean_absolute_error(y, estimator.predict(X))


@pytest.mark.parametrize(
    ("early_stopping", "metric"),
    [
        (unweighted_score, mean_absolute_error),
        ("neg_max_error", max_error),
        (make_scorer(max_error, greater_is_better=False), max_error),
    ],
)
def test_a_scorer_that_takes_no_weights_gets_none(early_stopping, metric):
    model = fit_held_out(small_regressor(early_stopping=early_stopping), weighted=True)
    scores = [-metric(Y[HELD], stage.predict(X[HELD])) for stage in epochs_apart(model, 8)]
    np.testing.assert_allclose(model.validation_scores_, scores, rtol=1e-12)
    assert len(small_regressor(early_stopping=early_stopping).fit(X, Y, W).validation_scores_) == 8


def broken_score(estimator, X, y, sample_weight=None):
    raise TypeError("there is no such thing")


def test_an_error_of_a_scorer_comes_out_as_it_is():
    with pytest.raises(TypeError, match="there is no such thing"):
        fit_held_out(small_regressor(early_stopping=broken_score), weighted=True)


def test_early_stopping_on_the_loss_keeps_the_epoch_of_the_lowest():
    model = fit_held_out(
        small_regressor(early_stopping="loss", max_iter=60, learning_rate_init=0.05), weighted=True
    )
    assert model.n_iter_ < 60
    assert model.best_iter_ == np.argmin(model.validation_loss_curve_) + 1 < model.n_iter_
    assert model.validation_scores_ == [-value for value in model.validation_loss_curve_]
    expected = 0.5 * np.average((model.predict(X[HELD]) - Y[HELD]) ** 2, weights=W[HELD])
    assert -model.best_validation_score_ == pytest.approx(expected, rel=1e-12)


def test_the_split_is_the_same_whatever_is_watched():
    models = [
        small_regressor(early_stopping=watched).fit(X, Y) for watched in (True, "loss", "r2", absolute_score)
    ]
    for model in models[1:]:
        assert model.loss_curve_ == models[0].loss_curve_
    np.testing.assert_allclose(models[2].validation_scores_, models[0].validation_scores_, rtol=1e-12)


def test_the_scorer_sees_arrays_where_training_saw_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = small_regressor(early_stopping="r2", tol=1.0, n_iter_no_change=2, max_iter=20).fit(frame, Y)
    assert model.feature_names_in_.tolist() == list("abcdef")
    np.testing.assert_array_equal(
        model.predict(frame),
        small_regressor(early_stopping="r2", tol=1.0, n_iter_no_change=2).fit(X, Y).predict(X),
    )


def test_a_scorer_goes_through_pipelines_clones_searches_and_pickles():
    pipeline = make_pipeline(StandardScaler(), small_regressor(early_stopping="neg_mean_absolute_error"))
    search = GridSearchCV(pipeline, {"mlpregressor__early_stopping": [True, "loss", "r2", absolute_score]})
    search.fit(X, Y)
    assert search.cv_results_["param_mlpregressor__early_stopping"].tolist() == [
        True,
        "loss",
        "r2",
        absolute_score,
    ]
    for watched, score in zip([True, "loss", "r2", absolute_score], search.cv_results_["mean_test_score"]):
        candidate = clone(pipeline).set_params(mlpregressor__early_stopping=watched)
        assert score == cross_val_score(candidate, X, Y).mean()
    model = pickle.loads(pickle.dumps(clone(pipeline).fit(X, Y)))[-1]
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert clone(model).early_stopping == "neg_mean_absolute_error"


def test_without_early_stopping_the_last_epoch_is_kept():
    model = fit_held_out(small_regressor())
    assert model.best_iter_ == model.n_iter_ == 8
    assert model.partial_fit(X, Y).best_iter_ == 9
    assert small_regressor(solver="lbfgs").fit(X, Y).best_iter_ == 8
    warm = small_regressor(warm_start=True).fit(X, Y).fit(X, Y)
    assert warm.n_iter_ == 8
    assert warm.best_iter_ == len(warm.loss_curve_) == 16


def test_a_warm_start_compares_scores_of_the_same_kind_only():
    model = fit_held_out(small_regressor(warm_start=True, early_stopping=True))
    fit_held_out(model)
    assert len(model.validation_scores_) == 16
    model.set_params(early_stopping="loss")
    fit_held_out(model)
    assert len(model.validation_scores_) == 8
    assert len(model.loss_curve_) == 24
    assert model.best_iter_ > 16
    assert model.best_validation_score_ == max(model.validation_scores_)


def not_a_number(estimator, X, y):
    return float("nan")


def a_dictionary(estimator, X, y):
    return {"r2": 1.0}


@pytest.mark.parametrize(
    ("early_stopping", "error", "message"),
    [
        ("nonsense", ValueError, "early_stopping must be True, False, 'loss' or a scorer, got 'nonsense'"),
        (2, TypeError, "early_stopping must be True or False, got 2"),
        (None, TypeError, "early_stopping must be True or False, got None"),
        (a_dictionary, TypeError, "early_stopping=.*must give a number, got .*dict"),
        (not_a_number, ValueError, "the validation score was NaN after every epoch"),
    ],
)
def test_a_bad_scorer_is_named_and_changes_nothing(early_stopping, error, message):
    model = small_regressor().fit(X, Y)
    before = model.coefs_
    with pytest.raises(error, match=message):
        model.set_params(early_stopping=early_stopping).fit(X, Y)
    assert model.coefs_ is before


def test_verbose_names_the_validation_loss(capsys):
    model = fit_held_out(small_regressor(early_stopping="loss", verbose=True, max_iter=3))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"Iteration 1, loss = {model.loss_curve_[0]:.8f}",
        f"Validation loss: {model.validation_loss_curve_[0]:f}",
    ]


# Divergence --------------------------------------------------------------------------------------------


def diverging(**kwargs):
    """Least squares by gradient descent, a step too long for some directions: better at first, then worse."""
    return small_regressor(
        hidden_layer_sizes=(), solver="sgd", momentum=0.0, alpha=0.0, batch_size=100, shuffle=False,
        learning_rate_init=1.6, max_iter=5000, n_iter_no_change=np.inf, **kwargs
    )  # fmt: skip


def test_the_best_weights_are_kept_when_training_diverges_after_them():
    model = diverging(early_stopping=True)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="in epoch .*best epoch are kept"):
        fit_held_out(model)
    assert 1 <= model.best_iter_ < model.n_iter_ == len(model.loss_curve_) == len(model.validation_scores_)
    best = list(epochs_apart(model, model.best_iter_))[-1]
    np.testing.assert_array_equal(model.predict(X), best.predict(X))
    assert model.score(X[HELD], Y[HELD]) == pytest.approx(model.best_validation_score_)


def test_nothing_is_kept_when_training_diverges_without_early_stopping():
    model = diverging(warm_start=True)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=r"in epoch \d+: training diverges"):
        fit_held_out(model)
    assert not hasattr(model, "coefs_")


def test_the_error_of_a_divergence_pickles():
    # A search in several processes passes it on; if it did not pickle, the search would break.
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="training diverges") as info:
        fit_held_out(diverging())
    again = pickle.loads(pickle.dumps(info.value))
    assert type(again) is type(info.value)
    assert str(again) == str(info.value)


# Ctrl-C ------------------------------------------------------------------------------------------------


class Plain(losses.HalfSquaredError):
    """The squared error without its kernel: a call of its formula for each batch."""

    kernel = None


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_warm_start_keeps_the_last_finished_epoch_after_ctrl_c(solver, press_ctrl_c):
    # 3 batches an epoch: the eleventh is in the fourth epoch
    model = small_regressor(loss=Plain(), solver=solver, warm_start=True, batch_size=50)
    press_ctrl_c(Plain, 11)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    expected = small_regressor(loss=Plain(), solver=solver, batch_size=50, max_iter=3).fit(X, Y)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    assert model.loss_curve_ == expected.loss_curve_
    assert model.n_iter_ == model.best_iter_ == 3
    assert model.t_ == 450
    # it goes on from there; the moments of the optimiser were those of the epoch that was cut short
    model.fit(X, Y)
    assert len(model.loss_curve_) == 11
    press_ctrl_c(Plain, 1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert len(model.loss_curve_) == 11
    model.partial_fit(X, Y)


def test_a_warm_start_keeps_the_best_epoch_after_ctrl_c_in_early_stopping(press_ctrl_c):
    common = {"loss": Plain(), "early_stopping": True, "learning_rate_init": 0.05, "max_iter": 60}
    calm = fit_held_out(small_regressor(**common))
    assert calm.best_iter_ < calm.n_iter_ - 1
    model = small_regressor(**common, warm_start=True)
    # a batch and the validation rows each epoch: in the batch of the last epoch
    press_ctrl_c(Plain, 2 * calm.n_iter_ - 1)
    with pytest.raises(KeyboardInterrupt):
        fit_held_out(model)
    assert model.n_iter_ == calm.n_iter_ - 1
    assert model.best_iter_ == calm.best_iter_
    np.testing.assert_array_equal(model.predict(X), calm.predict(X))


def test_a_warm_start_keeps_the_last_iteration_of_lbfgs_after_ctrl_c(press_ctrl_c):
    model = small_regressor(loss=Plain(), solver="lbfgs", warm_start=True, max_iter=50)
    press_ctrl_c(Plain, 11)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert 0 < model.n_iter_ == len(model.loss_curve_) < 11
    expected = small_regressor(loss=Plain(), solver="lbfgs", max_iter=model.n_iter_).fit(X, Y)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    assert model.loss_ == expected.loss_curve_[-1]


@pytest.mark.parametrize("parameters", [{}, {"solver": "lbfgs"}, {"early_stopping": True}])
def test_ctrl_c_changes_nothing_without_a_warm_start(parameters, press_ctrl_c):
    model = small_regressor(loss=Plain(), **parameters).fit(X, Y)
    before = vars(model).copy()
    press_ctrl_c(Plain, 5)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert vars(model) == before
    if not parameters:
        press_ctrl_c(Plain, 1)
        with pytest.raises(KeyboardInterrupt):
            model.partial_fit(X, Y)
        assert vars(model) == before


# Streams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [None, 3])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_the_same_batches_in_the_same_order_give_the_same_bits_from_a_stream(solver, outputs):
    y = regression_data(outputs=outputs)[1]
    common = {"solver": solver, "shuffle": False, "batch_size": 30}
    whole = small_regressor(**common, max_iter=4).fit(X, y, W)
    stream = small_regressor(**common)
    for _ in range(4):
        for first in range(0, 150, 30):
            part = slice(first, first + 30)
            stream.partial_fit(X[part], y[part], W[part])
    for ours, theirs in zip(stream.coefs_ + stream.intercepts_, whole.coefs_ + whole.intercepts_):
        np.testing.assert_array_equal(ours, theirs)
    assert stream.t_ == whole.t_ == 600
    np.testing.assert_allclose(np.reshape(stream.loss_curve_, (4, 5)).mean(axis=1), whole.loss_curve_)


def test_epochs_by_partial_fit_are_epochs_of_fit():
    whole = small_regressor(shuffle=False, batch_size=32, max_iter=7).fit(X, Y)
    stream = small_regressor(shuffle=False, batch_size=32)
    for _ in range(7):
        stream.partial_fit(X, Y)
    np.testing.assert_array_equal(stream.predict(X), whole.predict(X))
    assert stream.loss_curve_ == whole.loss_curve_


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_stream_learns_real_data_as_well_as_a_fit_with_as_many_passes(solver):
    rows, target = load_diabetes(return_X_y=True)
    rows, target = scale(rows), scale(target)
    common = {"solver": solver, "hidden_layer_sizes": (20,), "learning_rate_init": 0.01, "batch_size": 30}
    for seed in range(3):
        whole = small_regressor(**common, max_iter=20, random_state=seed, tol=0.0).fit(rows, target)
        stream = small_regressor(**common, random_state=seed)
        for _ in range(20):
            for first in range(0, len(rows), 150):
                stream.partial_fit(rows[first : first + 150], target[first : first + 150])
        reached = np.mean(stream.loss_curve_[-3:])
        assert reached < 1.05 * whole.loss_


# scikit-learn's callbacks ------------------------------------------------------------------------------


class Recorder:
    """A callback that notes what it is called with, and asks for the end after some epochs."""

    def __init__(self, stop_after=None):
        self.events, self.stop_after = [], stop_after

    def setup(self, estimator, context):
        self.events.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.events.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        assert X.shape[0] == len(y)
        self.events.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        score = fitted_estimator.score(X, y, **(metadata or {}))
        self.events.append(("end", context.task_name, context.task_id, score))
        return context.task_name != "fit" and context.task_id + 1 == self.stop_after


@pytest.mark.parametrize(("solver", "step"), [("adam", "epoch"), ("sgd", "epoch"), ("lbfgs", "iteration")])
def test_callbacks_see_each_epoch_with_an_estimator_that_predicts(solver, step):
    pytest.importorskip("sklearn.callback")
    recorder = Recorder()
    model = small_regressor(solver=solver, max_iter=3).set_callbacks(recorder).fit(X, Y, W)
    ends = [event for event in recorder.events if event[0] == "end"]
    stages = [small_regressor(solver=solver, max_iter=n).fit(X, Y, W).score(X, Y, W) for n in (1, 2, 3)]
    assert [event[1] for event in ends] == [step] * 3 + ["fit"]
    assert [event[3] for event in ends] == [*stages, stages[-1]]
    assert [event[:3] for event in recorder.events[:3]] == [
        ("setup", "fit"), ("begin", "fit", 0), ("begin", step, 0),
    ]  # fmt: skip
    assert recorder.events[-1] == ("teardown", "fit")
    np.testing.assert_array_equal(
        model.predict(X), small_regressor(solver=solver, max_iter=3).fit(X, Y, W).predict(X)
    )


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_callback_ends_training(solver, recwarn):
    pytest.importorskip("sklearn.callback")
    recorder = Recorder(stop_after=2)
    model = small_regressor(solver=solver, max_iter=50, tol=0.0).set_callbacks(recorder).fit(X, Y)
    assert model.n_iter_ == len(model.loss_curve_) == 2
    assert not recwarn.list
    expected = small_regressor(solver=solver, max_iter=2, tol=0.0).fit(X, Y)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    best = small_regressor(early_stopping=True, max_iter=50).set_callbacks(Recorder(stop_after=5))
    assert best.fit(X, Y).n_iter_ == 5


@pytest.mark.parametrize("bad", [{"max_iter": 0}, {"max_iter": "many"}, {"solver": "none"}])
def test_callbacks_are_torn_down_after_an_error(bad):
    pytest.importorskip("sklearn.callback")
    recorder = Recorder()
    model = small_regressor(**bad).set_callbacks(recorder)
    before = vars(model).copy()
    with pytest.raises((ValueError, TypeError)):
        model.fit(X, Y)
    assert recorder.events == [("setup", "fit"), ("teardown", "fit")]
    assert vars(model) == before


def test_scikit_learns_scoring_monitor_logs_every_epoch_of_a_search():
    callback = pytest.importorskip("sklearn.callback")
    monitor = callback.ScoringMonitor(scoring="r2")
    model = small_regressor().set_callbacks(monitor).fit(X, Y)
    scores = [row["r2"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 8
    assert scores[-1] == pytest.approx(model.score(X, Y), rel=1e-12)
    monitor = callback.ScoringMonitor(scoring="r2")
    search = GridSearchCV(small_regressor().set_callbacks(monitor), {"alpha": [0.1, 1.0]}, cv=2).fit(X, Y)
    rows = [row for log in monitor.get_logs(select="all") for row in log.data]
    scores = [row["r2"] for row in rows if row["task_name"] == "epoch"]
    # two folds for each of two candidates, and the best on all rows
    assert len(scores) == 5 * 8
    assert search.best_estimator_.score(X, Y) in scores


def test_scikit_learns_progress_bar_runs(capsys):
    callback = pytest.importorskip("sklearn.callback")
    pytest.importorskip("rich")
    small_regressor().set_callbacks(callback.ProgressBar()).fit(X, Y)
    assert "MLPRegressor - fit" in capsys.readouterr().out


def test_set_callbacks_is_there_exactly_where_scikit_learn_has_them():
    recent = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9)
    assert hasattr(small_regressor(), "set_callbacks") == recent
    assert small_regressor().fit(X, Y).n_iter_ == 8


def test_warnings_point_to_the_line_that_trains(recwarn):
    small_regressor(batch_size=1000).fit(X, Y)
    small_regressor(solver="lbfgs").fit(X, Y)
    small_regressor(batch_size=1000).partial_fit(X, Y)
    assert len(recwarn) == 4
    assert {warning.filename for warning in recwarn} == {__file__}
