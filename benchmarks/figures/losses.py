"""Draw how the losses answer to outliers and to imbalance: ``python benchmarks/figures/losses.py``.

Needs sklloss and matplotlib installed; writes losses.svg beside this file, from data of a fixed seed.
"""

import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklloss import MLPRegressor, losses

REGRESSION = {
    "squared error": losses.HalfSquaredError(),
    "Huber, delta = 0.5": losses.Huber(0.5),
    "log cosh": losses.LogCosh(),
    "absolute error": losses.AbsoluteError(),
}


def outliers(axes):
    """A line through data of which a tenth is wrong, by loss."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 150)
    y = 2 * x + 0.2 * rng.normal(size=150)
    wrong = x > 0.7
    y[wrong] -= 8
    axes.plot(x[~wrong], y[~wrong], ".", color="0.7", label="data")
    axes.plot(x[wrong], y[wrong], "x", color="0.4", label="outliers")
    ends = np.array([[-1.0], [1.0]])
    for name, loss in REGRESSION.items():
        model = MLPRegressor(
            loss, hidden_layer_sizes=(), solver="adam", learning_rate_init=0.02, batch_size=150,
            max_iter=3000, tol=0.0, n_iter_no_change=3000, alpha=0.0, random_state=0,
        )  # fmt: skip
        with warnings.catch_warnings():
            # tol=0 asks for all epochs
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x[:, None], y)
        axes.plot(ends[:, 0], model.predict(ends), label=name)
    axes.set(title="A line, with outliers", xlabel="x", ylabel="y")
    axes.legend(fontsize=7)


def pull(axes):
    """The gradient of each loss by the error: how hard one row pulls."""
    d = np.linspace(-4, 4, 401)
    shown = {**REGRESSION, "quantile 0.9": losses.Quantile(0.9)}
    for name, loss in shown.items():
        axes.plot(d, loss.gradient(np.zeros_like(d), d) * d.size, label=name)
    axes.set(title="How hard one row pulls", xlabel="prediction - y", ylabel="gradient", ylim=(-2.2, 2.2))
    axes.legend(fontsize=7)


def focus(axes):
    """The gradient of a positive row by its probability: focal loss lets go of rows that are right."""
    z = np.linspace(-6, 6, 401)
    p = losses.LogLoss().predict(z)
    for name, loss in {
        "log loss": losses.LogLoss(),
        "log loss, smoothing 0.1": losses.LogLoss(label_smoothing=0.1),
        "focal, gamma = 1": losses.Focal(1.0),
        "focal, gamma = 2": losses.Focal(2.0),
    }.items():
        axes.plot(p, -loss.gradient(np.ones_like(z), z) * z.size, label=name)
    axes.set(title="A row of class 1", xlabel="probability of class 1", ylabel="pull towards class 1")
    axes.legend(fontsize=7)


def main():
    """Draw the three panels and save them."""
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "sklloss", "font.size": 9})
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    outliers(left)
    pull(middle)
    focus(right)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
