"""The main job: ``python -m sklloss`` tunes pipelines on bundled data, beside scikit-learn.

For each dataset the same pipeline is tuned twice by the same grid search, over the same folds with the
same seeds: once with an estimator of sklloss, once with its scikit-learn counterpart. Then both are
scored on rows that neither has seen. Everything runs in this process, one fit at a time.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self, TextIO, TypeAlias

WIDTH = 80
SEARCHES = 3  # of a problem on which neither side takes longer than
SHORT = 5.0  # seconds
INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for a command that Ctrl-C ended

# A row of the table: its columns by name.
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """A dataset, the two estimators to compare on it and what to tune."""

    name: str
    ours: str  # a class of sklloss
    rival: str  # a class of scikit-learn, as module:name
    grid: Mapping[str, Sequence[Any]]
    quick_grid: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any]  # parameters that both are given

    @property
    def regression(self) -> bool:
        return self.ours.endswith("Regressor")

    @property
    def score_name(self) -> str:
        return "R^2" if self.regression else "accuracy"

    @property
    def loss_name(self) -> str:
        return "MSE" if self.regression else "log loss"


def _powers_of_ten(low: int, high: int, step: float) -> list[float]:
    return [10.0 ** (exponent / 10) for exponent in range(10 * low, 10 * high + 1, int(10 * step))]


_C = {"C": _powers_of_ten(-4, 4, 0.5)}
_QUICK_C = {"C": _powers_of_ten(-2, 2, 2)}

PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem(
            "breast_cancer", "LogisticClassifier", "sklearn.linear_model:LogisticRegression", _C, _QUICK_C, {}
        ),
        Problem("digits", "SoftmaxClassifier", "sklearn.linear_model:LogisticRegression", _C, _QUICK_C, {}),
        Problem(
            "diabetes",
            "MLPRegressor",
            "sklearn.neural_network:MLPRegressor",
            {
                "alpha": [0.1, 1.0, 10.0, 30.0],
                "hidden_layer_sizes": [(16,), (32,)],
                "learning_rate_init": [0.003, 0.01],
            },
            {"alpha": [1.0, 10.0], "hidden_layer_sizes": [(16,)], "learning_rate_init": [0.01]},
            {"batch_size": 32, "max_iter": 500, "random_state": 0},
        ),
    )
}


class Interrupts:
    """Turns Ctrl-C into a KeyboardInterrupt that lasts.

    scikit-learn's MLP takes a KeyboardInterrupt for a wish to stop that one fit, and a grid search would go
    on with the next. So the signal is remembered, and `check` raises it again between two fits.
    """

    def __init__(self) -> None:
        self.seen: bool = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        # A process started to ignore SIGINT goes on ignoring it; only the main thread may set handlers.
        with contextlib.suppress(ValueError):
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, signum: int, frame: FrameType | None) -> NoReturn:
        self.seen = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C has been pressed."""
        if self.seen:
            raise KeyboardInterrupt


class Progress:
    """What is being fitted and for how long: in place on a terminal, else a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self.stream: TextIO = stream
        self.in_place: bool = stream.isatty()
        self.pause: float = 0.1 if self.in_place else 3.0  # seconds between two reports
        self.began: float = time.perf_counter()
        self.label: str = ""
        self.fits: int = 0
        self.done: int = 0
        self.started: float = self.began
        self.reported: float = self.began

    def start(self, label: str, fits: int) -> None:
        """Begin to report on ``fits`` fits."""
        self.label, self.fits, self.done = label, fits, 0
        self.started = self.reported = time.perf_counter()
        self._say(f"{label}: {fits} fits")

    def step(self) -> None:
        """Count a fit, and report if the last report is old enough."""
        self.done += 1
        now = time.perf_counter()
        if now - self.reported >= self.pause:
            self.reported = now
            self._say(f"{self.label}: fit {self.done} of {self.fits}, {now - self.started:.1f} s")

    def finish(self, seconds: float) -> None:
        """Report the time of all fits."""
        self._say(f"{self.label}: {seconds:.2f} s")
        if self.in_place:
            print(file=self.stream)

    def clear(self) -> None:
        """Leave the line that is written in place, so that the next print starts on a fresh one."""
        if self.in_place:
            print("\r" + " " * (WIDTH - 1) + "\r", end="", file=self.stream, flush=True)

    def elapsed(self) -> float:
        """Seconds since the start of the program."""
        return time.perf_counter() - self.began

    def _say(self, text: str) -> None:
        if self.in_place:
            print("\r" + text[: WIDTH - 1].ljust(WIDTH - 1), end="", file=self.stream, flush=True)
        else:
            print(text, file=self.stream, flush=True)


def load(problem: Problem) -> list[Any]:
    """X_train, X_test, y_train, y_test of a problem, the same for both sides."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    X, y = getattr(datasets, f"load_{problem.name}")(return_X_y=True)
    stratify = None if problem.regression else y
    return train_test_split(X, y, test_size=0.25, random_state=0, stratify=stratify)


def build(problem: Problem, estimator_class: type[Any]) -> tuple[Any, str]:
    """The pipeline to tune, and the prefix that its parameters have in the search."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    model = Pipeline([("scale", StandardScaler()), ("model", estimator_class(**problem.fixed))])
    if problem.regression:
        return TransformedTargetRegressor(model, transformer=StandardScaler()), "regressor__model__"
    return model, "model__"


def search(
    problem: Problem, model: Any, prefix: str, quick: bool, scoring: Callable[..., float]
) -> tuple[Any, int]:
    """The grid search that both sides go through, and how many fits it makes."""
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold

    grid = problem.quick_grid if quick else problem.grid
    splitter = KFold if problem.regression else StratifiedKFold
    folds = splitter(n_splits=3 if quick else 5, shuffle=True, random_state=0)
    candidates = 1
    for values in grid.values():
        candidates *= len(values)
    tuner = GridSearchCV(
        model,
        {prefix + name: values for name, values in grid.items()},
        scoring=scoring,
        cv=folds,
        error_score="raise",
    )
    return tuner, candidates * folds.get_n_splits()


def held_out(problem: Problem, model: Any, X: Any, y: Any) -> tuple[float, float]:
    """Score and loss on rows that the search has not seen."""
    from sklearn import metrics

    if problem.regression:
        predicted = model.predict(X)
        return metrics.r2_score(y, predicted), metrics.mean_squared_error(y, predicted)
    loss = metrics.log_loss(y, model.predict_proba(X), labels=model.classes_)
    return metrics.accuracy_score(y, model.predict(X)), loss


def objective(problem: Problem, model: Any, best: Mapping[str, Any], X: Any, y: Any) -> float | None:
    """What training the refitted model minimised, at its end: lower is nearer to the optimum.

    None for a network, whose optimum nobody knows.
    """
    from sklearn.metrics import log_loss

    if problem.regression:
        return None
    loss = log_loss(y, model.predict_proba(X), labels=model.classes_, normalize=False)
    return float(best["C"] * loss + 0.5 * (model.named_steps["model"].coef_ ** 2).sum())


def tune(
    problem: Problem,
    library: str,
    estimator_class: type[Any],
    data: Sequence[Any],
    quick: bool,
    progress: Progress,
    interrupts: Interrupts,
    turn: int = 1,
) -> Row:
    """Tune one side of a problem and score it: one row of the table."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import get_scorer

    X_train, X_test, y_train, y_test = data
    scorer = get_scorer("neg_mean_squared_error" if problem.regression else "neg_log_loss")

    def scoring(model: Any, X: Any, y: Any) -> float:
        interrupts.check()
        progress.step()
        return scorer(model, X, y)

    model, prefix = build(problem, estimator_class)
    tuner, fits = search(problem, model, prefix, quick, scoring)
    label = f"{problem.name}: {library} {estimator_class.__name__}"
    progress.start(label if turn == 1 else f"{label}, turn {turn}", fits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X_train, y_train)  # not timed: what a first fit imports and allocates is not compared
        interrupts.check()
        caught.clear()
        start = progress.started = time.perf_counter()
        tuner.fit(X_train, y_train)
        seconds = time.perf_counter() - start
        interrupts.check()
    convergence = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    progress.finish(seconds)
    for message in dict.fromkeys(str(w.message) for w in caught if w not in convergence):
        print(f"  warning: {message}", file=progress.stream)
    score, loss = held_out(problem, tuner, X_test, y_test)
    best = {name.removeprefix(prefix): value for name, value in tuner.best_params_.items()}
    return {
        "dataset": problem.name,
        "rows": len(X_train),
        "held_out_rows": len(X_test),
        "features": X_train.shape[1],
        "library": library,
        "estimator": estimator_class.__name__,
        "best_params": best,
        "fits": fits,
        "score_name": problem.score_name,
        "score": float(score),
        "loss_name": problem.loss_name,
        "loss": float(loss),
        "objective": objective(problem, tuner.best_estimator_, best, X_train, y_train),
        "seconds": seconds,
        "convergence_warnings": len(convergence),
    }


def compare(problem: Problem, quick: bool, progress: Progress, interrupts: Interrupts) -> list[Row]:
    """Both sides of a problem, ours first; each gets `ratio`, scikit-learn's seconds over its own."""
    import importlib

    import sklloss

    module, _, name = problem.rival.partition(":")
    data = load(problem)
    sides = (
        ("sklloss", getattr(sklloss, problem.ours)),
        ("sklearn", getattr(importlib.import_module(module), name)),
    )
    rows = [tune(problem, library, side, data, quick, progress, interrupts) for library, side in sides]
    searches = 1
    # A search that takes a second is easily disturbed: the two sides take turns, and the best time counts.
    while not quick and searches < SEARCHES and max(row["seconds"] for row in rows) < SHORT:
        searches += 1
        for row, (library, side) in zip(rows, sides):
            again = tune(problem, library, side, data, quick, progress, interrupts, searches)
            row["seconds"] = min(row["seconds"], again["seconds"])
    for row in rows:
        row["searches"] = searches
        row["ratio"] = rows[-1]["seconds"] / row["seconds"]
    return rows


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def _setting(name: str, value: Any) -> str:
    return f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"


def format_table(rows: Sequence[Row]) -> str:
    """The rows of `compare` as text of at most 80 columns.

    One block per dataset; under each estimator stand the parameters that the search chose.
    """
    lines = []
    dataset = None
    for row in rows:
        if row["dataset"] != dataset:
            dataset = row["dataset"]
            titles = (row["score_name"], row["loss_name"], "seconds", "ratio", "warned")
            if lines:
                lines.append("")
            title = f"{dataset}, {row['rows']} + {row['held_out_rows']} rows"
            lines.append(f"{title:<30}" + "".join(f"{title:>10}" for title in titles))
            lines.append("-" * WIDTH)
        name = f"{row['library']} {row['estimator']}"
        lines.append(
            f"{name:<30}{_number(row['score']):>10}{_number(row['loss']):>10}{row['seconds']:>10.2f}"
            f"{row['ratio']:>9.1f}x{row['convergence_warnings']:>10}"
        )
        best = "best: " + ", ".join(_setting(*item) for item in row["best_params"].items())
        if row["objective"] is not None:
            best += f"; objective {row['objective']:.6g}"
        lines += textwrap.wrap(best, WIDTH, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)


def _notes(threads: int) -> str:
    """What the figures mean, for a reader who sees only the table."""
    import sklearn

    import sklloss

    return "\n".join(
        (
            "rows: to train on + held out; score and loss are of the held-out rows",
            f"seconds: of the whole search; the best of {SEARCHES} where it takes less than {SHORT:.0f} s",
            "ratio: scikit-learn's seconds over this row's",
            "warned: how many fits gave a ConvergenceWarning",
            "objective: what training minimised; the lower, the nearer to the optimum",
            f"Same folds, grid and seeds for both. BLAS threads: {threads or 'as installed'}.",
            f"sklloss {sklloss.__version__} ({sklloss.kernels.chosen} kernels), "
            f"scikit-learn {sklearn.__version__}, Python {platform.python_version()}",
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sklloss",
        description="Tune pipelines on data that ships with scikit-learn, once with sklloss and once with "
        "scikit-learn, and print how well both predict held-out rows and how long both took.",
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(PROBLEMS), metavar="NAME", help=f"of {', '.join(PROBLEMS)}"
    )
    parser.add_argument("--quick", action="store_true", help="a small grid and 3 folds, for a first look")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="BLAS threads for both sides; 0 leaves them as installed (default 1: on data this small, "
        "more threads make most fits slower)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(argv)
    if options.threads < 0:
        parser.error(f"argument --threads: {options.threads} is negative")
    if options.json is not None:
        folder = options.json.parent
        # Found out now rather than after the work.
        if options.json.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            parser.error(f"argument --json: cannot write {str(options.json)!r}")
    return options


def _run(options: argparse.Namespace, progress: Progress, interrupts: Interrupts) -> None:
    from threadpoolctl import threadpool_limits

    names = list(dict.fromkeys(options.only or PROBLEMS))
    rows = []
    with threadpool_limits(limits=options.threads or None):
        for name in names:
            rows += compare(PROBLEMS[name], options.quick, progress, interrupts)
    print(f"\n{format_table(rows)}\n\n{_notes(options.threads)}")
    print(f"{progress.elapsed():.0f} s in all.", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"threads": options.threads, "results": rows}, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the main job.

    Parameters
    ----------
    argv : sequence of str, default=None
        The arguments, without the program's name; None takes those of the process.

    Returns
    -------
    int
        The exit status: 0, 2 for a bad argument, 130 after Ctrl-C.
    """
    try:
        options = _parse(argv)
    except SystemExit as leaving:  # argparse has said what is wrong, or has printed the help
        return int(leaving.code or 0)
    progress = Progress(sys.stderr)
    try:
        with Interrupts() as interrupts:
            _run(options, progress, interrupts)
    except KeyboardInterrupt:
        progress.clear()
        print(f"Interrupted after {progress.elapsed():.0f} s.", file=sys.stderr, flush=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`| head`): point it elsewhere, or the exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
