"""Second derivatives over the rows of an X that lives elsewhere: what `ArrayRows` has of them."""

import numpy as np

from sklloss.objectives.numpy_curvature import Curvature

# Bytes that rows take at a time where they are written out in the dtype of sums.
WIDE_BYTES = 1 << 26


class ArrayCurvature:
    """The part of `ArrayRows` that passes over X for second derivatives.

    But for `product`, results are NumPy's. All is computed in the dtype of sums, whatever X's.
    """

    def product(self, direction):
        """See `Rows.product`; the result is not written over."""
        direction, moved = self._enter(direction)
        v, b = self._split(direction)

        def pieces():
            for (first, last), bend in zip(self._chunks(), self._bend, strict=True):
                turn = self._scores(first, last, v, b)
                yield first, last, self._batches.bent(bend, turn, first, last)

        product = self._add_up(pieces())
        return self._numpy(product) if moved else product

    def positive_blocks(self, coef, *, by_slope=False):
        """See `Rows.positive_blocks`."""
        by_slope = by_slope or not (self.separable and self.loss.states_curvature)
        return self._derivatives(coef, "slopes" if by_slope else "blocks")[1:]

    def precise_gradient(self, coef):
        """See `Rows.precise_gradient`."""
        return self._derivatives(coef, None)[:2]

    def hessian(self, coef, *, coupled=True, curved=True):
        """See `Rows.hessian`."""
        kind = "coupled" if coupled and not self.separable else "blocks"
        return self._derivatives(coef, kind if curved else None)

    def newton_steps(self, *arguments):
        """None: there is no such kernel."""
        return None

    def subset_hessian(self, sets, *, coupled):
        """See `Rows.subset_hessian`."""
        xp, K = self.device.xp, len(sets)
        sizes = [len(columns) for columns in sets]
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        chosen = [self.device.put(columns, np.int64) for columns in sets]
        blocks, cross = [None] * K, None
        for first, last, bend in self._kept(self.width + 3 * starts[-1]):
            Z = self._written_out(first, last, self.fit_intercept)
            own = bend if self.separable else self._softmax_bend(bend, first, last, alone=not coupled)
            own = xp.where(own > 0, own, 0.0)
            parts = [xp.take(Z, columns, axis=1) for columns in chosen]
            for k in range(K):
                blocks[k] = plus(blocks[k], xp.matrix_transpose(parts[k]) @ (parts[k] * own[:, k : k + 1]))
            if coupled:
                share = self._softmax_share(bend, first, last)
                parts = xp.concat([parts[k] * share[:, k : k + 1] for k in range(K)], axis=1)
                cross = plus(cross, xp.matrix_transpose(parts) @ parts)
        blocks = [self._numpy(block) for block in blocks]
        if self.separable:
            return blocks
        matrix = -self._numpy(cross) if coupled else np.zeros((starts[-1], starts[-1]))
        for k, block in enumerate(blocks):
            part = slice(starts[k], starts[k + 1])
            matrix[part, part] += block
        return [matrix]

    gram = Curvature.gram

    def _whole_gram(self):
        weight, total = self.device.put(self.row_weights(), self._wide_numpy), None
        for first, last in self._wide_chunks(2 * self.width):
            Z = self._written_out(first, last, self.fit_intercept)
            total = plus(total, self.device.xp.matrix_transpose(Z) @ (Z * weight[first:last][:, None]))
        return self._numpy(total)

    def local_diagonal(self):
        """See `Rows.local_diagonal`."""
        xp = self.device.xp
        total = shift = None
        kept = []
        for first, last, bend in self._kept(self.width):
            own = bend if self.separable else self._softmax_bend(bend, first, last, alone=True)
            shift = plus(shift, xp.sum(own, axis=0))
            if self.sparse:
                kept.append(own)
                continue
            Z = self._written_out(first, last, False)
            total = plus(total, xp.matrix_transpose(own) @ (Z * Z))
        if self.sparse:
            total = xp.matrix_transpose(self._X.weighted_squares(xp.concat(kept, axis=0)))
        diagonal = np.empty((self.outputs, self.width))
        diagonal[:, : self.features] = self._numpy(total)
        diagonal[:, self.features :] = self._numpy(shift)[:, None]
        return diagonal

    def _derivatives(self, coef, kind):
        """Loss sums, gradient and what stands for the Hessian, in NumPy.

        ``kind`` is None for none, "blocks" for the diagonal blocks, "coupled" for all of a softmax, "slopes"
        for blocks in which rows count by the size of their first derivative.
        """
        xp, K, width = self.device.xp, self.outputs, self.width
        w = xp.matrix_transpose(self._enter(coef)[0])
        sums = gradient = None
        blocks, cross = [None] * K, [None] * K
        for first, last in self._wide_chunks((2 + K * (kind == "coupled")) * width):
            Z = self._written_out(first, last, self.fit_intercept)
            curved = kind in ("blocks", "coupled")
            part, slopes, bend = self._batches(Z @ w, first, last, curved=curved)
            sums = plus(sums, part)
            gradient = plus(gradient, xp.matrix_transpose(slopes) @ Z)
            if kind is None:
                continue
            if kind == "slopes":
                bend = xp.abs(slopes)
            elif not self.separable:
                share = self._softmax_share(bend, first, last) if kind == "coupled" else None
                bend = self._softmax_bend(bend, first, last, alone=kind != "coupled")
            bend = xp.where(bend > 0, bend, 0.0)
            turned = xp.matrix_transpose(Z)
            for k in range(K):
                blocks[k] = plus(blocks[k], turned @ (Z * bend[:, k : k + 1]))
            if kind == "coupled":
                # the rows of all outputs side by side, each with its root of the weight times p
                side = xp.reshape(share[:, :, None] * Z[:, None, :], (last - first, K * width))
                for k in range(K):
                    own = xp.matrix_transpose(side[:, k * width : (k + 1) * width])
                    cross[k] = plus(cross[k], own @ side[:, : (k + 1) * width])
        sums, gradient = self._leave(sums, gradient)
        if kind is None:
            return sums, gradient, None
        blocks = self._numpy(xp.stack(blocks))
        if kind != "coupled":
            return sums, gradient, blocks
        whole = np.zeros((1, K * width, K * width))
        for k in range(K):
            own = whole[0, k * width : (k + 1) * width]
            own[:, : (k + 1) * width] -= self._numpy(cross[k])
            own[:, k * width : (k + 1) * width] += blocks[k]
        return sums, gradient, whole

    def _softmax_bend(self, p, first, last, *, alone):
        """Weight times p, or ``alone``, without what couples the outputs, times p (1 - p)."""
        self._check_softmax()
        bend = p * (1.0 - p) if alone else p
        weight = self._batches.weight(p, first, last)
        return bend if weight is None else self.device.xp.where(weight != 0, bend * weight, 0.0)

    def _softmax_share(self, p, first, last):
        """The root of the weight, times p."""
        self._check_softmax()
        xp, weight = self.device.xp, self._batches.weight(p, first, last)
        return p if weight is None else xp.where(weight != 0, p * xp.sqrt(weight), 0.0)

    def _check_softmax(self):
        if not self._batches.probabilities:
            raise ValueError(f"{type(self.loss).__name__} is not separable and has no curvature by output")

    def _kept(self, numbers):
        """What `value_and_gradient` kept of curvature in the dtype of sums, (first, last, kept)."""
        most = self._wide_chunks(numbers)[0][1]
        for (start, end), kept in zip(self._chunks(), self._bend, strict=True):
            for first in range(start, end, most):
                last = min(first + most, end)
                yield first, last, self._to_wide(kept[first - start : last - start, ...])

    def _wide_chunks(self, numbers):
        """Bounds of chunks whose rows take so many numbers each in the dtype of sums."""
        rows = self.n
        if self.loss.additive:
            rows = max(1, WIDE_BYTES // (self._wide_numpy.itemsize * max(1, numbers)))
        return [(first, min(first + rows, self.n)) for first in range(0, self.n, rows)]

    def _written_out(self, first, last, ones):
        """Rows less the center in the dtype of sums, with a column of ones for the intercept if ``ones``."""
        xp = self.device.xp
        part = self._X.rows(first, last).dense() if self.sparse else self._X[first:last, ...]
        part = self._to_wide(part)
        if self._centered:
            part = part - self._offset[None, :]
        if not ones:
            return part
        column = xp.ones((last - first, 1), dtype=self._wide, device=self.device.native)
        return xp.concat([part, column], axis=1)

    def _to_wide(self, array):
        return self.device.xp.astype(array, self._wide, copy=False)


def plus(total, part):
    """A sum to which a part is added, None being an empty one."""
    return part if total is None else total + part
