"""The problems, made from a fixed seed or read from a file, the same in every process.

A problem is a function registered by `problem` under the name that the command line, the workers and the
tables use. What each group measures, the classes in kinds.py say.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import text
from kinds import (
    CommandProblem,
    DeviceLinearProblem,
    DeviceNetworkProblem,
    EnsembleProblem,
    KernelCase,
    LinearProblem,
    NetworkProblem,
    NetworkSearchProblem,
    PassProblem,
    PathProblem,
    PredictProblem,
    RegressionPathProblem,
    RegressionProblem,
    SearchProblem,
)

FILES = {
    "mnist": ("X", "y"),
    "flights": ("X", "y"),
    "diamonds": ("X", "y"),
    "movies": ("X", "Y"),
}


@dataclass
class Spec:
    name: str
    group: str
    make: object
    quick: bool
    full: bool
    needs: str | None
    against: tuple = ()
    beside: tuple = ()
    targets: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)


PROBLEMS = {}


ALL, SKLEARN, TORCH, SAGA = ("all",), ("scikit-learn",), ("torch",), ("saga",)
DIGITS_BEST = 11  # which C the search on digits chooses
POISSON_BEST = 99  # which alpha that on diamonds chooses


def problem(
    group, name, *, quick=True, full=True, needs=None, against=(), beside=(), targets=None, **options
):
    """Register the decorated function, called with the arrays of the file it ``needs`` and ``options``.

    ``against`` makes it a row of the table: the rivals that it is compared with there, or ALL. ``beside``
    names solvers that the row shows beside the fastest, however slow they are. ``targets`` of a regression
    holds, for each rival that takes part, how many times as long as ours it is to take at least (None: no
    target), and for "seconds" and "memory" (of X) what ours is to take at most.
    """

    def register(make):
        if name in PROBLEMS:
            raise ValueError(f"two problems are called {name!r}")
        PROBLEMS[name] = Spec(name, group, make, quick, full, needs, against, beside, targets or {}, options)
        return make

    return register


def load(name, data=None, *, rows=None, device=None):
    """Make the problem of that name; ``data`` is the folder of the files.

    ``rows`` is the length of the tables of the group "gpu" that have any, ``device`` what that works on.
    """
    spec = PROBLEMS[name]
    arrays = ()
    if spec.needs:
        with np.load(Path(data) / f"{spec.needs}.npz") as file:
            missing = [key for key in FILES[spec.needs] if key not in file]
            if missing:
                raise ValueError(f"{spec.needs}.npz holds no array {', '.join(missing)}")
            arrays = tuple(file[key] for key in FILES[spec.needs])
    given = dict(spec.options)
    if "rows" in given and spec.group == "gpu":
        given["rows"] = given["rows"] or rows
    made = spec.make(*arrays, **given)
    made.name = name
    if spec.group == "gpu":
        made.device = device or "cpu"
    return made


def add_tables(folder):
    """Make a problem of each further file with X and y in the folder: classes, to scikit-learn's solvers."""
    for file in sorted(Path(folder or ".").glob("*.npz")) if folder else ():
        if file.stem not in FILES:
            FILES[file.stem] = ("X", "y")
            problem("linear", file.stem, needs=file.stem, quick=False, against=SKLEARN)(_own_table)


def _own_table(X, y):
    return _middling(X, np.unique(y, return_inverse=True)[1])


def data_folder(given):
    """The folder of the .npz files, or None; a ValueError says what is wrong with the one that was named."""
    source = "--data" if given else "SKLLOSS_DATA"
    given = given or os.environ.get("SKLLOSS_DATA")
    if not given:
        return None
    folder = Path(given)
    if not folder.is_dir():
        raise ValueError(f"{source}: {given} is not a folder")
    if not any(folder.glob("*.npz")):
        raise ValueError(f"{source}: {given} holds no .npz file, such as {', '.join(FILES)}")
    return str(folder)


def _matches(pattern, name):
    """Whether a pattern asks for a problem: one's full name means that one, else what contains it."""
    return pattern == name if pattern in PROBLEMS else pattern in name


def selected(group, *, quick, data, only=()):
    """Specs of a group, or of the table, to run, and a line for each one that must be left out."""
    chosen, left_out = [], []
    for spec in PROBLEMS.values():
        if not (spec.against if group == "table" else spec.group == group):
            continue
        if not (spec.quick if quick else spec.full):
            continue
        if only and not any(_matches(pattern, spec.name) for pattern in only):
            continue
        if spec.needs and (data is None or not (Path(data) / f"{spec.needs}.npz").is_file()):
            where = "no --data folder" if data is None else "not in the --data folder"
            left_out.append(f"{spec.name}: needs {spec.needs}.npz ({where})")
        else:
            chosen.append(spec)
    return chosen, left_out


# Kernels


def _kernel_case(loss, dtype, rows, outputs, parameter=0.0):
    rng = np.random.default_rng(0)
    raw = (3 * rng.standard_normal((rows, outputs))).astype(dtype)
    if loss in ("cross_entropy", "softmax_focal", "generalized_cross_entropy"):
        codes = rng.integers(0, outputs, rows).astype(np.intp)
        return KernelCase(loss, raw, codes=codes, parameter=parameter)
    if loss in ("log_loss", "focal", "squared_hinge"):
        target = rng.random((rows, outputs)) < 0.5
    elif loss == "poisson":
        target = rng.poisson(2.0, (rows, outputs))
    elif loss == "gamma":
        target = rng.gamma(2.0, 1.0, (rows, outputs))
    elif loss == "tweedie":
        target = rng.gamma(2.0, 1.0, (rows, outputs)) * (rng.random((rows, outputs)) < 0.3)
    else:
        target = rng.standard_normal((rows, outputs))
    return KernelCase(loss, raw, target=target.astype(dtype), parameter=parameter)


_IN_TABLE = (
    "log_loss",
    "softmax-10",
    "softmax-1000",
    "huber",
    "quantile",
    "poisson",
    "gamma",
    "absolute_error",
)

for _dtype, _short, _thousand in (("float64", "f64", 1000), ("float32", "f32", 2000)):
    for _label, _loss, _rows, _outputs, _parameter in (
        ("log_loss", "log_loss", 1_000_000, 1, 0.0),
        ("softmax-10", "cross_entropy", 100_000, 10, 0.0),
        ("softmax-1000", "cross_entropy", _thousand, 1000, 0.0),
        ("focal", "focal", 1_000_000, 1, 2.0),
        ("softmax_focal-10", "softmax_focal", 100_000, 10, 2.0),
        ("generalized_cross_entropy-10", "generalized_cross_entropy", 100_000, 10, 0.7),
        ("half_squared_error", "half_squared_error", 1_000_000, 1, 0.5),
        ("absolute_error", "absolute_error", 1_000_000, 1, 0.0),
        ("huber", "huber", 1_000_000, 1, 1.35),
        ("quantile", "quantile", 1_000_000, 1, 0.9),
        ("log_cosh", "log_cosh", 1_000_000, 1, 0.0),
        ("poisson", "poisson", 1_000_000, 1, 0.0),
        ("gamma", "gamma", 1_000_000, 1, 0.0),
        ("tweedie", "tweedie", 1_000_000, 1, 1.5),
        ("squared_hinge", "squared_hinge", 1_000_000, 1, 0.0),
    ):
        problem(
            "kernels", f"{_label}-{_short}", loss=_loss, dtype=_dtype, rows=_rows, outputs=_outputs,
            parameter=_parameter, against=("scikit-learn",) if _label in _IN_TABLE else (),
        )(_kernel_case)  # fmt: skip


# Passes over X


def _pass(rows, columns, outputs, kind, dtype="float64"):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((rows, columns), dtype=np.float32).astype(dtype)
    return PassProblem(X, rng.integers(0, max(outputs, 2), rows), outputs, kind)


for _rows, _columns, _outputs in ((1077, 65, 10), (20_000, 17, 26), (60_000, 784, 10), (300_000, 20, 1)):
    for _kind in ("gradient", "product"):
        for _dtype, _short in (("float64", "f64"), ("float32", "f32")):
            problem(
                "passes", f"{_kind}-{_rows}x{_columns}x{_outputs}-{_short}", against=("NumPy",), rows=_rows,
                columns=_columns, outputs=_outputs, kind=_kind, dtype=_dtype, quick=_rows * _columns < 1e6,
            )(_pass)  # fmt: skip
for _rows, _columns in ((4601, 57), (327_346, 59), (1_000_000, 20)):
    problem(
        "passes", f"hessian-{_rows}x{_columns}", against=("NumPy",), rows=_rows, columns=_columns, outputs=1,
        kind="hessian", quick=_rows * _columns < 1e6,
    )(_pass)  # fmt: skip


# The first command

for _dataset in ("breast_cancer", "digits", "diabetes"):
    for _threads, _label in ((0, "as-installed"), (1, "1-blas-thread")):
        problem(
            "command",
            f"command-{_dataset}-{_label}",
            quick=False,
            against=ALL,
            dataset=_dataset,
            threads=_threads,
        )(CommandProblem)


# Linear estimators


def _bundled(name):
    import sklearn.datasets

    return getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)


def _standardised(X):
    spread = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1)


# Decorators register from the bottom up.
@problem("linear", "digits", source="digits", quick=False)
@problem("linear", "digits-scaled", source="digits", scaled=True)
@problem("linear", "breast_cancer", source="breast_cancer")
@problem("linear", "breast_cancer-scaled", source="breast_cancer", scaled=True, quick=False)
@problem("linear", "iris", source="iris")
def _table(source, scaled=False):
    X, y = _bundled(source)
    X = np.ascontiguousarray(_standardised(X) if scaled else X, dtype=np.float64)
    return LinearProblem(X, y.astype(np.intp), "softmax" if y.max() > 1 else "binary", every_default=True)


@problem("linear", "breast_cancer-one-row", source="breast_cancer")
@problem("linear", "iris-one-row", source="iris")
def _one_row(source):
    X, y = _bundled(source)
    return PredictProblem(X, y.astype(np.intp), "softmax" if y.max() > 1 else "binary")


@problem("linear", "synthetic-1e6x20", rows=1_000_000, columns=20, quick=False, against=ALL)
@problem("linear", "synthetic-1e5x20", rows=100_000, columns=20)
def _synthetic_binary(rows, columns):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((rows, columns))
    X[:, 1::2] += 0.5 * X[:, ::2]  # correlated pairs of columns
    slope = rng.standard_normal(columns)
    p = 1 / (1 + np.exp(-(X @ slope - 1)))
    y = (rng.random(rows) < p).astype(np.intp)
    return LinearProblem(X, y, "binary", gaps=(1e-6,), every_default=True)


@problem("linear", "digits-cv-path", quick=False, against=("scikit-learn",))
def _digits_path():
    X, y = _bundled("digits")
    Cs = np.logspace(-3, 3, 20)
    return PathProblem(X / 16, y.astype(np.intp), "softmax", C=Cs[DIGITS_BEST], gaps=(1e-5,), Cs=Cs)


@problem(
    "linear", "digits-search", quick=False, candidates=20, folds=5, against=("scikit-learn-1-blas-thread",)
)
@problem("linear", "digits-search-small", full=False, candidates=3, folds=2)
def _digits_search(candidates, folds):
    X, y = _bundled("digits")
    return SearchProblem(X / 16, y.astype(np.intp), "softmax", np.logspace(-3, 3, candidates), folds)


@problem("linear", "mnist-f32-C1e-3", needs="mnist", quick=False, C=1e-3)
@problem("linear", "mnist-f64-C1e-3", needs="mnist", quick=False, C=1e-3, dtype="float64")
@problem(
    "linear", "mnist-f32-C1", needs="mnist", quick=False, C=1.0, gaps=(1e-4, 1e-6), memory=True, against=ALL
)
def _mnist(X, y, C, dtype="float32", gaps=(1e-6,), memory=False):
    X = X[:60000].astype(dtype)
    X /= 255
    return LinearProblem(X, y[:60000].astype(np.intp), "softmax", C=C, gaps=gaps, memory=memory)


# Tables of a middling size, like the well-known ones of letters, pixels, words and genes.


def _middling(X, y):
    X = np.ascontiguousarray(X, dtype=np.float64)
    return LinearProblem(X, y.astype(np.intp), "softmax" if y.max() > 1 else "binary", gaps=(1e-5,))


@problem("linear", "letters-20000x16-26", quick=False, against=SKLEARN)
def _letters():
    rng = np.random.default_rng(5)
    y = rng.integers(0, 26, 20_000)
    mixed = rng.standard_normal((16, 16)) / 4 + np.eye(16)
    X = rng.normal(6, 1.1, (26, 16))[y] + 1.9 * rng.standard_normal((20_000, 16)) @ mixed
    return _middling(np.clip(np.round(X), 0, 15), y)


@problem("linear", "pixels-6000x36-6", quick=False, against=SKLEARN)
def _pixels():
    """Nine neighbouring pixels of four bands, which hardly differ."""
    rng = np.random.default_rng(6)
    y = rng.integers(0, 6, 6000)
    band = rng.normal((70, 83, 99, 82), (12, 20, 15, 17), (6, 4))[y] + rng.normal(0, 10, (6000, 4))
    X = np.tile(band, 9) + rng.normal(0, 4, (6000, 36))
    return _middling(np.clip(np.round(X), 27, 157), y)


@problem("linear", "words-4600x57-binary", quick=False, against=SKLEARN)
def _words():
    """Frequencies of words in per cent, mostly zero, and three columns of lengths up to thousands."""
    rng = np.random.default_rng(7)
    y = rng.random(4600) < 0.4
    often = rng.beta(0.6, 2.4, 57) * np.where(y[:, None], rng.lognormal(0, 1, 57), 1)
    X = np.where(rng.random((4600, 57)) < often, rng.lognormal(-0.5, 1, (4600, 57)), 0)
    lengths = rng.lognormal((0.8, 2.3, 4.3), (0.8, 1.4, 1.6), (4600, 3))
    X[:, -3:] = np.round(1 + lengths * np.where(y[:, None], 2, 1))
    return _middling(X, y)


@problem("linear", "genes-3200x180-3", quick=False, against=SKLEARN)
def _genes():
    """Sixty positions with four letters each, three of which have a column of 0 or 1."""
    rng = np.random.default_rng(8)
    y = rng.choice(3, 3200, p=(0.25, 0.25, 0.5))
    likely = rng.dirichlet(np.full(4, 8.0), (3, 60))
    likely[:, 25:35] = rng.dirichlet(np.full(4, 3.0), (3, 10))
    letters = (rng.random((3200, 60, 1)) > likely.cumsum(axis=2)[y]).sum(axis=2)
    return _middling((letters[:, :, None] == np.arange(3)).reshape(3200, 180), y)


_L1 = {"C": 0.1, "l1_ratio": 1.0, "gaps": (1e-5,)}


@problem(
    "linear", "dense-l1-1e4x10", quick=False, against=ALL, beside=SAGA, rows=10_000, columns=10, support=5
)
@problem("linear", "dense-l1-200x2000", quick=False, against=ALL, rows=200, columns=2000, support=20)
def _dense_l1(rows, columns, support):
    rng = np.random.default_rng(9)
    X = rng.standard_normal((rows, columns))
    raw = 2 * X[:, :support] @ rng.standard_normal(support) / np.sqrt(support)
    y = rng.random(rows) < 1 / (1 + np.exp(-raw))
    return LinearProblem(X, y.astype(np.intp), "binary", C=1.0, l1_ratio=1.0, gaps=(1e-5,))


@problem(
    "linear",
    "flights-f64-l1",
    needs="flights",
    quick=False,
    against=ALL,
    beside=SAGA,
    dtype="float64",
    **_L1,
)
@problem("linear", "flights-f32", needs="flights", quick=False, dtype="float32", gaps=(1e-6,))
@problem(
    "linear",
    "flights-f64",
    needs="flights",
    quick=False,
    against=ALL,
    dtype="float64",
    gaps=(1e-6,),
    memory=True,
)
def _flights(X, y, dtype, **options):
    return LinearProblem(np.ascontiguousarray(X, dtype=dtype), y.astype(np.intp), "binary", **options)


@problem("linear", "movies-f64", needs="movies", quick=False)
def _movies(X, Y):
    X = np.ascontiguousarray(X, dtype=np.float64)
    return LinearProblem(X, Y.astype(np.intp), "multilabel", gaps=(1e-6,))


@problem("linear", "stdlib-text-l1-ovr", quick=False, one_vs_rest=True, **_L1)
@problem("linear", "stdlib-text-l1-C0.5", quick=False, against=ALL, **{**_L1, "C": 0.5})
@problem("linear", "stdlib-text-l1", quick=False, against=ALL, **_L1)
@problem("linear", "stdlib-text-C1000", quick=False, against=ALL, C=1000.0, gaps=(1e-5,))
@problem("linear", "stdlib-text-C100", quick=False, against=ALL, C=100.0, gaps=(1e-5,))
@problem("linear", "stdlib-text", quick=False, gaps=(1e-5,), memory=True)
def _stdlib_text(one_vs_rest=False, **options):
    X, y = text.stdlib()
    if one_vs_rest:
        return LinearProblem(X, np.eye(y.max() + 1, dtype=np.intp)[y], "multilabel", **options)
    return LinearProblem(X, y, "softmax", **options)


# Regressions. The prices of the diamonds are as they come: hundreds to thousands of dollars.

_GLM = {"scikit-learn": 4, "glum": 4}
_LASSO = dict.fromkeys(("scikit-learn", "celer", "skglm", "adelie"))
_MEDIAN = {"loss": "quantile", "parameter": 0.5, "alpha": 1e-4}
_MEDIAN_TARGETS = {"scikit-learn": 1000, "rehline": 5, "pinball-qr": 5, "statsmodels": 5}


@problem("regression", "diamonds-cv-poisson", needs="diamonds", quick=False, targets={"scikit-learn": 30})
def _diamonds_path(X, y):
    X, y = (np.ascontiguousarray(a, dtype=np.float64) for a in (X, y))
    alphas = np.logspace(2, -4, 100)
    return RegressionPathProblem(X, y, "poisson", alphas[POISSON_BEST], alphas=alphas)


@problem(
    "regression",
    "diamonds-lasso",
    needs="diamonds",
    quick=False,
    targets={**_LASSO, "scikit-learn": 20},
    loss="squared_error",
    alpha=1e-3,
    l1_ratio=1.0,
)
@problem(
    "regression",
    "diamonds-log_cosh",
    needs="diamonds",
    quick=False,
    targets={"scikit-learn": 10},
    loss="log_cosh",
    alpha=1e-4,
)
@problem(
    "regression",
    "diamonds-huber",
    needs="diamonds",
    quick=False,
    targets={"rehline": 10, "scikit-learn": 10},
    loss="huber",
    parameter=1.35,
    alpha=1e-4,
)
@problem(
    "regression", "diamonds-gamma", needs="diamonds", quick=False, targets=_GLM, loss="gamma", alpha=1e-4
)
@problem(
    "regression", "diamonds-poisson", needs="diamonds", quick=False, targets=_GLM, loss="poisson", alpha=1e-4
)
@problem(
    "regression",
    "diamonds-median-no-penalty",
    needs="diamonds",
    quick=False,
    targets={"pinball-qr": 5, "statsmodels": 5},
    **{**_MEDIAN, "alpha": 0.0},
)
@problem(
    "regression", "diamonds-median-l2", needs="diamonds", quick=False, targets=_MEDIAN_TARGETS, **_MEDIAN
)
@problem(
    "regression",
    "diamonds-median-l1",
    needs="diamonds",
    quick=False,
    targets=_MEDIAN_TARGETS,
    l1_ratio=1.0,
    **_MEDIAN,
)
def _diamonds_price(X, y, **options):
    X, y = (np.ascontiguousarray(a, dtype=np.float64) for a in (X, y))
    return RegressionProblem(X, y, **options)


def _prices(rows, columns):
    """Columns of different units and shares, and a positive target whose error grows with it."""
    rng = np.random.default_rng(10)
    X = rng.standard_normal((rows, columns))
    X[:, 1::2] += 0.5 * X[:, ::2]
    slope = rng.standard_normal(columns) / np.sqrt(columns)
    y = np.exp(7 + 0.5 * X @ slope) * rng.gamma(5.0, 0.2, rows)
    return X * 10.0 ** rng.integers(-2, 3, columns), y


@problem("regression", "synthetic-poisson", targets=_GLM, loss="poisson", alpha=1e-4)
@problem("regression", "synthetic-median-l2", targets={**_MEDIAN_TARGETS, "scikit-learn": None}, **_MEDIAN)
def _synthetic_price(**options):
    X, y = _prices(20_000, 20)
    return RegressionProblem(X, y, **options)


@problem("regression", "synthetic-3e6x20-quantile", quick=False, targets={"seconds": 5, "memory": 2})
def _large_quantile():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3_000_000, 20))
    y = X @ rng.standard_normal(20) + rng.standard_t(3, size=len(X)) * (1 + 0.5 * np.abs(X[:, 0]))
    return RegressionProblem(X, y, "quantile", 1e-4, parameter=0.9, memory=True)


@problem("regression", "synthetic-1e6x50-ridge", quick=False, targets={"scikit-learn": 1})
def _large_ridge():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1_000_000, 50))
    y = X @ rng.standard_normal(50) + rng.standard_normal(len(X))
    return RegressionProblem(X, y, "squared_error", 1e-4)


@problem("regression", "synthetic-1000x20000-lasso", quick=False, targets={**_LASSO, "celer": 1, "skglm": 1})
@problem("regression", "synthetic-200x1000-lasso", full=False, targets=_LASSO, rows=200, columns=1000)
def _sparse_signal(rows=1000, columns=20_000):
    """Columns lie in memory one after the other, as all rivals want them."""
    rng = np.random.default_rng(0)
    X = np.asfortranarray(rng.standard_normal((rows, columns)))
    slope = np.zeros(columns)
    slope[:20] = 3 * rng.standard_normal(20)
    y = X @ slope + rng.standard_normal(rows)
    return RegressionProblem(X, y, "squared_error", 0.1, l1_ratio=1.0)


# Networks


def _regression(rows, columns, dtype):
    rng = np.random.default_rng(2)
    X = rng.standard_normal((rows, columns))
    y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2] + 0.5 * np.abs(X[:, 3])
    y += X[:, 4:] @ rng.normal(0, 0.2, columns - 4) + 0.3 * rng.standard_normal(rows)
    return X.astype(dtype), ((y - y.mean()) / y.std()).astype(dtype)


@problem(
    "mlp", "10-128-1-batch32-f32", dtype="float32", columns=10, hidden=(128,), batch_size=32, against=TORCH
)
@problem(
    "mlp", "10-128-1-batch32-f64", quick=False, dtype="float64", columns=10, hidden=(128,), batch_size=32
)
@problem(
    "mlp",
    "100-100-1-batch200-f32",
    dtype="float32",
    columns=100,
    hidden=(100,),
    batch_size=200,
    against=TORCH,
)
def _synthetic_network(dtype, columns, hidden, batch_size):
    X, y = _regression(20_000, columns, dtype)
    return NetworkProblem(X, y, hidden, batch_size, epochs=10, quick_epochs=4)


@problem(
    "mlp", "mnist-784-128-10-batch128-f32", needs="mnist", quick=False, hidden=(128,), epochs=5, against=TORCH
)
@problem(
    "mlp",
    "mnist-784-512-512-10-batch128-f32",
    needs="mnist",
    quick=False,
    hidden=(512, 512),
    epochs=2,
    against=TORCH,
)
def _mnist_network(X, y, hidden, epochs):
    X = X[:60000].astype(np.float32) / np.float32(255)
    codes = y[:60000].astype(np.intp)
    return NetworkProblem(X, codes, hidden, 128, epochs=epochs, quick_epochs=1, loss="cross_entropy")


@problem("mlp", "diabetes-search", hidden=((10,), (30,), (100,), (30, 30)), against=SKLEARN)
def _diabetes_search(hidden):
    X, y = _bundled("diabetes")
    grid = {"hidden_layer_sizes": hidden, "alpha": [1e-4, 1e-2, 1.0], "learning_rate_init": [1e-3, 1e-2]}
    X = _standardised(X).astype(np.float32)
    return NetworkSearchProblem(X, ((y - y.mean()) / y.std()).astype(np.float32), grid, 3, 200)


@problem("mlp", "diabetes-50-seeds", against=("sklloss",))
def _ensemble():
    X, y = _bundled("diabetes")
    X = _standardised(X).astype(np.float32)
    return EnsembleProblem(X, ((y - y.mean()) / y.std()).astype(np.float32), (30,), 50, 30)


@problem("mlp", "diamonds-26-128-1-batch128-f32", needs="diamonds", quick=False)
def _diamonds(X, y):
    X = _standardised(X.astype(np.float64)).astype(np.float32)
    y = np.log(y.astype(np.float64))
    y = ((y - y.mean()) / y.std()).astype(np.float32)
    return NetworkProblem(X, y, (128,), 128, epochs=5, quick_epochs=3)


# Linear estimators and networks on a device. ``rows=None`` is for the command line to say.


@problem("gpu", "gpu-1e6x784-softmax10", quick=False, rows=1_000_000, columns=784, classes=10)
@problem("gpu", "gpu-256-softmax20", rows=None, columns=256, classes=20)
@problem("gpu", "gpu-256-binary", rows=None, columns=256, classes=2)
def _device_table(rows, columns, classes):
    rng = np.random.default_rng(3)
    X = np.empty((rows, columns), dtype=np.float32)
    y = np.empty(rows, dtype=np.intp)
    outputs = 1 if classes == 2 else classes
    slopes = (rng.standard_normal((columns, outputs)) / np.sqrt(columns)).astype(np.float32)
    for first in range(0, rows, 100_000):
        part = slice(first, first + 100_000)
        X[part] = rng.standard_normal(X[part].shape, dtype=np.float32)
        X[part, 1::2] += 0.5 * X[part, ::2]  # correlated pairs of columns
        scores = X[part] @ slopes
        if classes == 2:
            y[part] = rng.random(len(scores)) < 1 / (1 + np.exp(-2 * scores[:, 0]))
        else:
            y[part] = (2 * scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    return DeviceLinearProblem(X, y, "binary" if classes == 2 else "softmax")


@problem("gpu", "gpu-mnist-C1", needs="mnist", quick=False)
def _device_mnist(X, y):
    made = _mnist(X, y, C=1.0)
    return DeviceLinearProblem(made.X, made.y, "softmax")


@problem("gpu", "gpu-mnist-784-512-512-10-batch8192", needs="mnist", quick=False, batch_size=8192, epochs=10)
@problem("gpu", "gpu-mnist-784-512-512-10-batch1024", needs="mnist", quick=False, batch_size=1024, epochs=5)
@problem("gpu", "gpu-mnist-784-512-512-10-batch128", needs="mnist", quick=False, batch_size=128, epochs=2)
def _device_mnist_network(X, y, batch_size, epochs):
    X = X[:60000].astype(np.float32) / np.float32(255)
    codes = y[:60000].astype(np.intp)
    return DeviceNetworkProblem(X, codes, (512, 512), batch_size, epochs, 1, loss="cross_entropy")


@problem("gpu", "gpu-digits-64-64-10-batch128", full=False)
def _device_digits_network():
    X, y = _bundled("digits")
    X = np.ascontiguousarray(X / 16, dtype=np.float32)
    return DeviceNetworkProblem(X, y.astype(np.intp), (64,), 128, 5, 5, loss="cross_entropy")
