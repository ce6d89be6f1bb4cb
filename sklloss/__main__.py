"""``python -m sklloss`` tunes pipelines on data that ships with scikit-learn, and compares with scikit-learn.

For each dataset the same grid search tunes the same pipeline twice, over the same folds with the same seeds:
once with an estimator of sklloss, once with its scikit-learn counterpart. Both are then scored on held-out
rows. Everything runs in this process, one fit at a time, with the threads of BLAS as they are installed.

The grids are small enough that all of it takes about half a minute on two cores, most of it in scikit-learn.
"""

import argparse
import json
import os
import platform
import signal
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO, TypeAlias

import numpy as np
import sklearn
from sklearn import datasets, metrics, neural_network
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid, StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import sklloss

WIDTH = 80
# A search of a few seconds is easily disturbed: if both take less than SHORT seconds, the best of SEARCHES
# counts.
SEARCHES = 3
SHORT = 5.0
INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for a command that Ctrl-C ended

# A row of the table: its columns by name.
Row: TypeAlias = dict[str, Any]
Grid: TypeAlias = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Problem:
    """A dataset, the two estimators to compare on it and the parameters to tune."""

    name: str
    ours: type[Any]
    rival: type[Any]
    grid: Grid
    quick_grid: Grid
    fixed: Mapping[str, Any] = field(default_factory=dict)  # parameters of both estimators
    regression: bool = False


C_GRID = {"C": np.logspace(-4, 4, 9).tolist()}
QUICK_C_GRID = {"C": [0.01, 1.0, 100.0]}
PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("breast_cancer", sklloss.LogisticClassifier, LogisticRegression, C_GRID, QUICK_C_GRID),
        Problem("digits", sklloss.SoftmaxClassifier, LogisticRegression, C_GRID, QUICK_C_GRID),
        Problem(
            "diabetes",
            sklloss.MLPRegressor,
            neural_network.MLPRegressor,
            {
                "alpha": [0.1, 1.0, 10.0, 30.0],
                "hidden_layer_sizes": [(16,), (32,)],
                "learning_rate_init": [0.003, 0.01],
            },
            {"alpha": [1.0, 10.0], "hidden_layer_sizes": [(16,)], "learning_rate_init": [0.01]},
            fixed={"batch_size": 32, "max_iter": 500, "random_state": 0},
            regression=True,
        ),
    )
}


class Interrupted(BaseException):
    """Ctrl-C was pressed.

    No KeyboardInterrupt: scikit-learn's networks catch that and end that one fit, and a grid search would go
    on with the next.
    """


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted


class Progress:
    """Says what is being fitted and for how long: in place on a terminal, else in a line now and then."""

    label: str
    fits: int
    done: int
    started: float
    reported: float

    def __init__(self, stream: TextIO) -> None:
        self.stream: TextIO = stream
        self.in_place: bool = stream.isatty()
        self.pause: float = 0.1 if self.in_place else 3.0  # seconds between two reports

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
        """Empty the line that is written in place, so that the next print starts on a fresh one."""
        if self.in_place:
            self._say("")
            print("\r", end="", file=self.stream, flush=True)

    def _say(self, text: str) -> None:
        if self.in_place:
            print("\r" + text[: WIDTH - 1].ljust(WIDTH - 1), end="", file=self.stream, flush=True)
        else:
            print(text, file=self.stream, flush=True)


def load(problem: Problem) -> list[Any]:
    """X_train, X_test, y_train, y_test of a problem, the same for both estimators."""
    X, y = getattr(datasets, f"load_{problem.name}")(return_X_y=True)
    stratify = None if problem.regression else y
    return train_test_split(X, y, test_size=0.25, random_state=0, stratify=stratify)


def build(problem: Problem, estimator_class: type[Any]) -> tuple[Any, str]:
    """The pipeline to tune, and the prefix that its parameters have in the search."""
    model = Pipeline([("scale", StandardScaler()), ("model", estimator_class(**problem.fixed))])
    if problem.regression:
        return TransformedTargetRegressor(model, transformer=StandardScaler()), "regressor__model__"
    return model, "model__"


def held_out(problem: Problem, model: Any, X: Any, y: Any) -> Row:
    """Score and loss on rows that the search has not seen."""
    predicted = model.predict(X)
    if problem.regression:
        names = "R^2", "MSE"
        score, loss = metrics.r2_score(y, predicted), metrics.mean_squared_error(y, predicted)
    else:
        names = "accuracy", "log loss"
        score = metrics.accuracy_score(y, predicted)
        loss = metrics.log_loss(y, model.predict_proba(X), labels=model.classes_)
    return {"score_name": names[0], "score": float(score), "loss_name": names[1], "loss": float(loss)}


def objective(problem: Problem, model: Any, best: Mapping[str, Any], X: Any, y: Any) -> float | None:
    """The objective at the end of the training of the refitted model: lower is nearer to the optimum.

    None for a network, whose optimum is not known.
    """
    if problem.regression:
        return None
    loss = metrics.log_loss(y, model.predict_proba(X), labels=model.classes_, normalize=False)
    return float(best["C"] * loss + 0.5 * (model.named_steps["model"].coef_ ** 2).sum())


def tune(
    problem: Problem,
    library: str,
    estimator_class: type[Any],
    data: Sequence[Any],
    quick: bool,
    progress: Progress,
    turn: int = 1,
) -> Row:
    """Tune one estimator of a problem and score it: one row of the table."""
    X_train, X_test, y_train, y_test = data
    scorer = metrics.get_scorer("neg_mean_squared_error" if problem.regression else "neg_log_loss")

    def scoring(model: Any, X: Any, y: Any) -> float:
        progress.step()
        return scorer(model, X, y)

    model, prefix = build(problem, estimator_class)
    values = problem.quick_grid if quick else problem.grid
    grid = {prefix + name: choices for name, choices in values.items()}
    splitter = KFold if problem.regression else StratifiedKFold
    folds = splitter(n_splits=3 if quick else 5, shuffle=True, random_state=0)
    search = GridSearchCV(model, grid, scoring=scoring, cv=folds, error_score="raise")
    fits = len(ParameterGrid(grid)) * folds.get_n_splits()
    label = f"{problem.name}: {library} {estimator_class.__name__}"
    progress.start(label if turn == 1 else f"{label}, turn {turn}", fits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X_train, y_train)  # not timed: what a first fit imports and allocates is not compared
        caught.clear()
        start = progress.started = time.perf_counter()
        search.fit(X_train, y_train)
        seconds = time.perf_counter() - start
    progress.finish(seconds)
    convergence = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    for message in dict.fromkeys(str(w.message) for w in caught if w not in convergence):
        print(f"  warning: {message}", file=progress.stream)
    best = {name.removeprefix(prefix): value for name, value in search.best_params_.items()}
    return {
        "dataset": problem.name,
        "rows": len(X_train),
        "held_out_rows": len(X_test),
        "features": X_train.shape[1],
        "library": library,
        "estimator": estimator_class.__name__,
        "best_params": best,
        "fits": fits,
        **held_out(problem, search, X_test, y_test),
        "objective": objective(problem, search.best_estimator_, best, X_train, y_train),
        "seconds": seconds,
        "convergence_warnings": len(convergence),
    }


def compare(problem: Problem, quick: bool, progress: Progress) -> list[Row]:
    """Both rows of a problem, ours first; ``ratio`` is scikit-learn's seconds divided by the row's."""
    data = load(problem)
    sides = (("sklloss", problem.ours), ("sklearn", problem.rival))
    rows = [tune(problem, *side, data, quick, progress) for side in sides]
    searches = 1
    while not quick and searches < SEARCHES and max(row["seconds"] for row in rows) < SHORT:
        searches += 1
        for row, side in zip(rows, sides):
            again = tune(problem, *side, data, quick, progress, searches)
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
    """The rows of `compare` as text of at most 80 columns, the chosen parameters below each estimator."""
    lines: list[str] = []
    dataset = None
    for row in rows:
        if row["dataset"] != dataset:
            dataset = row["dataset"]
            title = f"{dataset}, {row['rows']} + {row['held_out_rows']} rows"
            columns = (row["score_name"], row["loss_name"], "seconds", "ratio", "warned")
            lines += [""] * bool(lines)
            lines += [f"{title:<30}" + "".join(f"{column:>10}" for column in columns), "-" * WIDTH]
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
    return f"""\
rows: to train on + held out; score and loss are of the held-out rows
seconds: of the whole search; the best of {SEARCHES} if it takes less than {SHORT:.0f} s
ratio: scikit-learn's seconds divided by this row's
warned: how many fits gave a ConvergenceWarning
objective: of the training; the lower, the nearer to the optimum
Same folds, grid and seeds for both. BLAS threads: {threads or "as installed"}.
sklloss {sklloss.__version__} ({sklloss.kernels.chosen} kernels), scikit-learn {sklearn.__version__}, \
Python {platform.python_version()}"""


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
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
        default=0,
        metavar="N",
        help="BLAS threads for both libraries (default 0: as installed). On data this small, scikit-learn's "
        "fits are often faster with 1; those of sklloss always hold BLAS to 1",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args(argv)
    if options.threads < 0:
        parser.error(f"argument --threads: {options.threads} is negative")
    if options.json is not None:
        folder = options.json.parent
        # Checked here rather than after the work.
        if options.json.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            parser.error(f"argument --json: cannot write {str(options.json)!r}")
    return options


def _run(options: argparse.Namespace, progress: Progress, began: float) -> None:
    rows = []
    with threadpool_limits(limits=options.threads or None):
        for name in dict.fromkeys(options.only or PROBLEMS):
            rows += compare(PROBLEMS[name], options.quick, progress)
    print(f"\n{format_table(rows)}\n\n{_notes(options.threads)}")
    print(f"{time.perf_counter() - began:.0f} s in all.", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"threads": options.threads, "results": rows}, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    argv : sequence of str, default=None
        The arguments, without the program's name; None takes those of the process.

    Returns
    -------
    int
        The exit status: 0, 2 for an invalid argument, 130 after Ctrl-C.
    """
    try:
        options = _parse(argv)
    except SystemExit as leaving:  # argparse has printed what is wrong, or the help
        return int(leaving.code or 0)
    began, progress = time.perf_counter(), Progress(sys.stderr)
    # A process that was started to ignore SIGINT goes on ignoring it; only the main thread may set handlers.
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    handled = handled and threading.current_thread() is threading.main_thread()
    try:
        if handled:
            signal.signal(signal.SIGINT, _interrupt)
        _run(options, progress, began)
    except (Interrupted, KeyboardInterrupt):
        progress.clear()
        seconds = time.perf_counter() - began
        print(f"Interrupted after {seconds:.0f} s.", file=sys.stderr, flush=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has left (`| head`): without another target the exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        if handled:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
