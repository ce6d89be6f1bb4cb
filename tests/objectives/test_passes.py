"""A further kind of array is one subclass of `Passes`: here blocks of rows, each with passes of its own."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

from sklloss import losses
from sklloss.data.dataset import Dataset
from sklloss.objectives.linear import LinearObjective
from sklloss.objectives.numpy_passes import NumPyPasses
from sklloss.objectives.passes import Passes, make_passes
from sklloss.solvers.lbfgs import lbfgs
from sklloss.solvers.newton import newton_cholesky
from sklloss.solvers.newton_cg import newton_cg
from sklloss.solvers.proximal_newton import proximal_newton
from sklloss.solvers.stochastic import adam, sgd

N, P, K = 600, 5, 3
BLOCKS = [slice(0, 150), slice(150, 400), slice(400, N)]


class BlockPasses(Passes):
    """`Passes` over blocks of rows that workers could hold: only their results are added up."""

    def __init__(self, data, loss, **keywords):
        super().__init__(data, loss, **keywords)
        keywords["center"] = self.center
        self._workers = [NumPyPasses(data.take(block), loss, **keywords) for block in self._blocks()]

    def _blocks(self):
        return BLOCKS if self.n == N else [slice(0, self.n // 2), slice(self.n // 2, self.n)]

    def _add_up(self, method, *arguments, **keywords):
        return [
            sum(part) for part in zip(*(getattr(w, method)(*arguments, **keywords) for w in self._workers))
        ]

    def value_and_gradient(self, coef, *, keep_curvature=False, slopes=None):
        parts = [
            worker.value_and_gradient(
                coef, keep_curvature=keep_curvature, slopes=None if slopes is None else slopes[k]
            )
            for k, worker in enumerate(self._workers)
        ]
        return sum(value for value, _ in parts), sum(gradient for _, gradient in parts)

    def product(self, direction):
        return sum(worker.product(direction) for worker in self._workers)

    def hessian(self, coef, *, coupled=True, by_slope=False, curved=True):
        parts = [
            worker.hessian(coef, coupled=coupled, by_slope=by_slope, curved=curved)
            for worker in self._workers
        ]
        values, gradients, hessians = zip(*parts)
        return sum(values), sum(gradients), sum(hessians) if curved else None

    def hessian_block(self, sets, *, coupled):
        return self._add_up("hessian_block", sets, coupled=coupled)

    def hessian_diagonal(self):
        return sum(worker.hessian_diagonal() for worker in self._workers)

    def epoch(self, w, plan):
        # the batches are gathered: their rows come from all blocks
        rows = self.data.take(plan.order)
        gathered = NumPyPasses(rows, self.loss, fit_intercept=self.fit_intercept, center=self.center)
        slopes = None if plan.anchor_slopes is None else np.concatenate(plan.anchor_slopes)[plan.order]
        order = np.arange(len(plan.order))
        gathered.epoch(w, dataclasses.replace(plan, order=order, anchor_slopes=slopes))

    def empty_slopes(self):
        return [worker.empty_slopes() for worker in self._workers]

    def slopes_sum_to_zero(self, slopes):
        return all(worker.slopes_sum_to_zero(part) for worker, part in zip(self._workers, slopes))

    def _rows_as_numpy(self, rows):
        return self.X[rows]

    def _same_as_first_row(self, rows, columns):
        return (self.X[rows][:, columns] == self.X[0, columns]).all(axis=0)

    def _squared_columns(self, weight):
        parts = zip(self._workers, self._blocks())
        return sum(worker._squared_columns(weight[block]) for worker, block in parts)

    def _column_maxima(self):
        return np.max([worker._column_maxima() for worker in self._workers], axis=0)


def objective(kind, C=1.0, l1_ratio=0.0, loss=None):
    """An objective over centered rows with weights and three classes."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, P))
    codes = np.argmax(X[:, :K] + rng.normal(size=(N, K)), axis=1)
    X[:, 1] += 50.0
    data = Dataset(X, codes=codes, weight=rng.integers(0, 3, N).astype(float), outputs=K)
    rows = kind(data, loss or losses.CrossEntropy(), fit_intercept=True, center=True)
    assert rows.centered_columns
    return LinearObjective(rows, C, l1_ratio)


@pytest.mark.parametrize("loss", [losses.CrossEntropy(), losses.LogLoss()], ids=lambda loss: loss.name)
@pytest.mark.parametrize("solve", [lbfgs, newton_cholesky, newton_cg])
def test_blocks_of_rows_give_the_model_of_all_rows(solve, loss):
    expected, got = (objective(kind, loss=loss) for kind in (NumPyPasses, BlockPasses))
    start = np.zeros(expected.shape)
    expected, got = (solve(o, start.copy(), tol=1e-8, max_iter=100) for o in (expected, got))
    assert got.converged.all()
    np.testing.assert_allclose(got.w, expected.w, rtol=1e-6, atol=1e-8)


def test_blocks_of_rows_serve_a_penalty_with_an_l1_norm():
    expected, got = (objective(kind, 0.05, 0.9) for kind in (NumPyPasses, BlockPasses))
    start = np.zeros(expected.shape)
    expected, got = (proximal_newton(o, start.copy(), tol=1e-8, max_iter=100) for o in (expected, got))
    np.testing.assert_array_equal(got.w == 0, expected.w == 0)
    np.testing.assert_allclose(got.w, expected.w, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("solve", [sgd, adam])
def test_blocks_of_rows_serve_stochastic_solvers(solve):
    results = []
    for kind in (NumPyPasses, BlockPasses):
        o = objective(kind)
        results.append(
            solve(o, np.zeros(o.shape), tol=0.0, max_iter=5, random_state=np.random.RandomState(0))
        )
    np.testing.assert_allclose(results[1].w, results[0].w, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array], ids=["dense", "sparse"])
def test_a_gram_matrix_of_sampled_rows_has_the_diagonal_of_all_rows(container, rng):
    X = rng.standard_normal((5000, 3)) * (rng.random((5000, 3)) < 0.3)
    X[:, 1] = 0.0
    X[17, 1], X[29, 2] = 40.0, 1e5
    weight = rng.random(5000)
    data = Dataset(container(X), np.zeros((5000, 1)), weight=weight)
    gram = make_passes(data, losses.LogLoss(), fit_intercept=True).gram()
    squares = np.append(weight @ (X * X), weight.sum())
    np.testing.assert_allclose(gram.diagonal(), squares, rtol=1e-12)
    lower = np.tril(gram)
    assert np.linalg.eigvalsh(lower + np.tril(gram, -1).T).min() >= -1e-12 * squares.max()
