"""Which solver is the fastest for which shape of data: what the choice of ``solver="auto"`` rests on.

``python benchmarks/solver_choice.py`` prints, for each table, the time of each solver to the default ``tol``
and how many iterations it took, and which one "auto" chose. Tables of random numbers suit "lbfgs": their
curvature hardly changes on the way to the optimum.
"""

import argparse
import statistics
import time
import warnings

import numpy as np
import problems
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

from sklloss import LogisticClassifier, SoftmaxClassifier

SOLVERS = ("newton-cholesky", "newton-cg", "lbfgs")

# rows, features, classes, density
RANDOM = (
    (500, 30, 2, 1),
    (500, 300, 2, 1),
    (10_000, 20, 10, 1),
    (10_000, 100, 2, 1),
    (10_000, 250, 2, 1),
    (10_000, 1_000, 2, 1),
    (100_000, 20, 2, 1),
    (100_000, 20, 5, 1),
    (100_000, 20, 10, 1),
    (100_000, 100, 2, 1),
    (100_000, 250, 2, 1),
    (1_000_000, 20, 2, 1),
    (20_000, 2_000, 2, 0.01),
    (20_000, 20_000, 2, 0.003),
    (20_000, 20_000, 10, 0.003),
)
# problems of problems.py; some need a folder of data
REAL = (
    "iris",
    "breast_cancer",
    "breast_cancer-scaled",
    "digits",
    "digits-scaled",
    "movies-f64",
    "flights-f64",
    "mnist-f32-C1e-3",
    "stdlib-text",
)
LARGEST_HESSIAN = 3000  # parameters up to which "newton-cholesky" is tried


def make(n, p, classes, density, seed=0):
    """Rows with correlated features of different units, and labels from a softmax over them."""
    rng = np.random.default_rng(seed)
    if density < 1:
        X = scipy.sparse.random_array((n, p), density=density, format="csr", rng=rng)
        scores = X @ rng.standard_normal((p, classes)) * 3
    else:
        X = rng.standard_normal((n, p))
        X[:, 1::2] += 0.5 * X[:, : p - p % 2 : 2]
        scores = X @ rng.standard_normal((p, classes)) * (2 / np.sqrt(p))
        X *= 10 ** rng.uniform(-2, 2, p)
    y = np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)
    return X, y


def measure(estimator, X, y, limit, repeat):
    """The median time, the number of iterations, and whether there was a warning."""
    times = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        while len(times) < repeat:
            begin = time.perf_counter()
            estimator.fit(X, y)
            times.append(time.perf_counter() - begin)
            if sum(times) > limit:
                break
    return statistics.median(times), int(estimator.n_iter_.max()), bool(caught)


def tables(data, only):
    """(name, X, y, estimator's class, C) of each table."""
    for name in REAL:
        spec = problems.PROBLEMS[name]
        if (not spec.needs or data) and (not only or name in only):
            problem = problems.load(name, data)
            kind = SoftmaxClassifier if problem.objective == "softmax" else LogisticClassifier
            yield name, problem.X, problem.y, kind, problem.C
    for n, p, classes, density in RANDOM:
        if not only or "random" in only:
            X, y = make(n, p, classes, density)
            name = "random" if density == 1 else f"random, {density:.1%} full"
            yield name, X, y, LogisticClassifier if classes == 2 else SoftmaxClassifier, 1.0


def main():
    """Print the table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", help="folder of mnist.npz, flights.npz, ... (or SKLLOSS_DATA)")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds for a cell (default: 10)")
    parser.add_argument("--repeat", type=int, default=5, help="fits of a cell (default: 5)")
    parser.add_argument("--only", nargs="*", help='names of the tables to measure; "random" for those')
    options = parser.parse_args()
    print("| table | rows x features | outputs | " + " | ".join(SOLVERS) + ' | "auto" |')
    print("|---" * (4 + len(SOLVERS)) + "|")
    for name, X, y, kind, C in tables(problems.data_folder(options.data), options.only):
        chosen = kind(C=C, max_iter=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            chosen.fit(X, y)
        size = chosen.coef_.size if kind is SoftmaxClassifier else X.shape[1]
        cells = []
        for solver in SOLVERS:
            if solver == "newton-cholesky" and size > LARGEST_HESSIAN:
                cells.append("-")
                continue
            estimator = kind(C=C, solver=solver)
            seconds, n_iter, warned = measure(estimator, X, y, options.limit, options.repeat)
            cells.append(f"{1000 * seconds:.3g} ms ({n_iter}{', warned' if warned else ''})")
        where = f"{name} | {X.shape[0]} x {X.shape[1]} | {len(chosen.coef_)}"
        print(f"| {where} | {' | '.join(cells)} | {chosen.solver_} |", flush=True)


if __name__ == "__main__":
    main()
