"""The kinds of problems: what each group of the benchmarks measures."""

from dataclasses import dataclass

import numpy as np
from machine import Work

# Operations for each raw score of a loss and its derivative, in float64 and float32, as the formulas of
# kernels/isa count them: an exp is 35 or 25, a log1p with its quotient 45 or 32. A softmax has as many for
# each row. Losses that are not listed have a limit by their bytes alone.
EXP, LOG1P = np.array([35, 25]), np.array([45, 32])
KERNEL_FLOPS = {
    "log_loss": EXP + LOG1P + 4,
    "cross_entropy": EXP + 12,
    "absolute_error": np.array([3, 3]),
    "half_squared_error": np.array([3, 3]),
    "huber": np.array([6, 6]),
    "quantile": np.array([4, 4]),
    "squared_hinge": np.array([5, 5]),
    "poisson": EXP + 4,
    "gamma": EXP + 4,
}


@dataclass
class KernelCase:
    """Loss and gradient of one batch: raw scores (rows, outputs), and codes (rows,) or target like raw."""

    loss: str  # the kernel's name, or "half_squared_error"
    raw: np.ndarray
    target: np.ndarray | None = None
    codes: np.ndarray | None = None
    parameter: float = 0.0
    name: str = ""

    def work(self):
        """Raw scores are read and written, targets read, and the loss of each row is written."""
        rows = len(self.raw)
        narrow = int(self.raw.dtype.itemsize == 4)
        flops = self.raw.size * KERNEL_FLOPS.get(self.loss, (0, 0))[narrow]
        if self.loss == "cross_entropy":
            flops += rows * (EXP + LOG1P)[narrow]
        target = self.codes if self.target is None else self.target
        moved = 2 * self.raw.nbytes + target.nbytes + rows * self.raw.itemsize
        return [Work(flops, moved, self.raw.dtype.name, threads=1)]


@dataclass
class PassProblem:
    """One pass over X of a logistic or softmax model: its "gradient", Hessian "product" or "hessian"."""

    X: np.ndarray
    y: np.ndarray
    outputs: int
    kind: str
    name: str = ""


@dataclass
class LinearProblem:
    """Minimise C * sum_i w_i loss_i + penalty, the intercept unpenalised, to a gap of the optimum.

    The penalty is l1_ratio * ||coef||_1 + (1 - l1_ratio) / 2 * ||coef||^2. ``objective`` is "binary" (y in
    {0, 1}), "softmax" (y codes) or "multilabel" (y (n, L) of 0/1). ``every_default`` asks for every solver
    at its default tolerance, not the default solver alone; ``memory`` for a row in the table of peak memory.
    """

    X: object
    y: np.ndarray
    objective: str
    C: float = 1.0
    weights: np.ndarray | None = None
    l1_ratio: float = 0.0
    gaps: tuple = (1e-4, 1e-6)
    every_default: bool = False
    memory: bool = False
    name: str = ""

    @property
    def sparse(self):
        return hasattr(self.X, "tocsr")

    @property
    def outputs(self):
        if self.objective == "multilabel":
            return self.y.shape[1]
        return 1 if self.objective == "binary" else int(self.y.max()) + 1

    @property
    def question(self):
        """What is asked of X and y, in words that tell it from other questions."""
        l1 = f" {self.l1_ratio!r}" if self.l1_ratio else ""
        return f"{self.C!r} {self.objective}{l1}"

    @property
    def unknowns(self):
        """Size of the largest system that Newton's method has to solve; several labels are separate ones."""
        return (self.X.shape[1] + 1) * (self.outputs if self.objective == "softmax" else 1)


@dataclass
class PathProblem(LinearProblem):
    """Cross-validation over ``Cs``, scored by log loss, by an estimator that has it built in.

    ``C`` is the value that it chooses. Its gap is that of the last fit, of all rows, at that C.
    """

    Cs: np.ndarray | None = None
    folds: int = 5


@dataclass
class RegressionProblem:
    """Minimise the mean loss + alpha * (l1_ratio ||coef||_1 + (1 - l1_ratio) / 2 ||coef||^2).

    The intercept is not penalised. ``loss`` is "squared_error" (half the square), "huber", "log_cosh",
    "quantile", "poisson" or "gamma"; of the last two the objective counts half the deviance, which is 0 for a
    perfect prediction. ``parameter`` is Huber's delta, or the quantile. ``memory`` asks for the peak memory
    of our fit.
    """

    X: np.ndarray
    y: np.ndarray
    loss: str
    alpha: float
    l1_ratio: float = 0.0
    parameter: float | None = None
    gaps: tuple = (1e-6,)
    memory: bool = False
    name: str = ""
    weights = None
    sparse = False
    outputs = 1

    @property
    def question(self):
        """What is asked of X and y, in words that tell it from other questions."""
        parameter = "" if self.parameter is None else f" {self.parameter:g}"
        penalty = {0.0: "L2", 1.0: "L1"}.get(self.l1_ratio, f"l1_ratio={self.l1_ratio:.6g}")
        return f"{self.loss}{parameter}, " + (f"alpha={self.alpha:g} {penalty}" if self.alpha else "alpha=0")


@dataclass
class RegressionPathProblem(RegressionProblem):
    """Cross-validation over ``alphas``, scored by the loss.

    ``alpha`` is the value that it chooses. Its gap is that of the last fit, of all rows, at that alpha.
    """

    alphas: np.ndarray | None = None
    folds: int = 5


@dataclass
class SearchProblem:
    """GridSearchCV over C with an estimator at its defaults."""

    X: np.ndarray
    y: np.ndarray
    objective: str
    Cs: np.ndarray
    folds: int
    name: str = ""


@dataclass
class PredictProblem:
    """predict_proba of the first rows of X, by an estimator fitted on all of it at its defaults."""

    X: np.ndarray
    y: np.ndarray
    objective: str
    rows: int = 1
    C: float = 1.0
    name: str = ""


@dataclass
class NetworkProblem:
    """Train a network on mini-batches with Adam for a fixed number of epochs, the same for all.

    ``loss`` is "squared_error", or "cross_entropy" with class codes for y.
    """

    X: np.ndarray
    y: np.ndarray
    hidden: tuple
    batch_size: int
    epochs: int
    quick_epochs: int
    loss: str = "squared_error"
    learning_rate: float = 1e-3
    alpha: float = 1e-4
    name: str = ""


@dataclass
class EnsembleProblem:
    """Networks of one shape on a small table that differ in their seeds."""

    X: np.ndarray
    y: np.ndarray
    hidden: tuple
    networks: int
    max_iter: int
    name: str = ""


@dataclass
class CommandProblem:
    """``python -m sklloss`` on one of its data sets, with that many BLAS threads; 0: as installed."""

    dataset: str
    threads: int
    name: str = ""


@dataclass
class DeviceLinearProblem(LinearProblem):
    """A `LinearProblem` for adapters that work on ``device``, by torch's name, in float32."""

    device: str = "cpu"


@dataclass
class DeviceNetworkProblem(NetworkProblem):
    """A `NetworkProblem` for adapters that work on ``device``."""

    device: str = "cpu"


@dataclass
class NetworkSearchProblem:
    """GridSearchCV over small regression networks."""

    X: np.ndarray
    y: np.ndarray
    grid: dict
    folds: int
    max_iter: int
    name: str = ""
