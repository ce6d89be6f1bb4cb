"""The objective of a network whose rows live in another library's arrays: `NetworkObjective` there."""

import numpy as np

from sklloss.arrays.device import check_writable, device_of, full_precision
from sklloss.arrays.ops_torch import in_place
from sklloss.losses import _batches
from sklloss.objectives.device_layers import ArrayLayers, TorchLayers
from sklloss.objectives.device_network_rows import DeviceNetworkRows

# Bytes of rows that are gathered at a time, in as many whole batches.
GATHER_BYTES = 1 << 24
# Bytes of what a pass over all rows makes at a time.
PASS_BYTES = 1 << 26


class ArrayNetworkObjective:
    """The interface of `NetworkObjective`, with parameters and moments as arrays beside the rows.

    An epoch waits for the device once, at its end.

    Parameters
    ----------
    widths, activation, dtype, loss, alpha
        As `NetworkObjective` takes them; dtype is NumPy's.
    device : Device
        Where rows and parameters live.
    """

    def __init__(self, widths, activation, dtype, device, loss=None, alpha=0.0):
        self.widths = tuple(widths)
        self.dtype = np.dtype(dtype)
        if loss is not None:
            check_writable(device, "networks in training")
        self.device = device
        self.alpha = float(alpha)
        self._loss = loss
        self._in_place = None if loss is None else in_place(device, loss)
        layers = TorchLayers if device.is_torch else ArrayLayers
        self._layers = layers(device, self.widths, activation, self.dtype.itemsize)
        self._wide = device.real(device.wide)
        self.size, self.coefs = self._layers.size, self._layers.coefs

    # Parameters -------------------------------------------------------------------------------------

    def put(self, array):
        """An array of any namespace there, in the objective's dtype; it may be the same."""
        own = device_of(array)
        if own == self.device:
            return self._cast(array)
        return self.device.put(array if own is None else own.get(array), self.dtype)

    def get(self, array):
        """An array there as NumPy's."""
        return array if isinstance(array, np.ndarray) else self.device.get(array)

    def _zeros(self):
        """A new vector for something that there is one of for each parameter."""
        return self.device.xp.zeros(self.size, dtype=self.device.real(self.dtype), device=self.device.native)

    def copy(self, array):
        """A copy of such a vector, there, which may have come from elsewhere."""
        there = self.put(array)
        return self.device.xp.asarray(there, copy=True) if there is array else there

    def is_finite(self, parameters):
        """Whether no parameter is NaN or infinite."""
        return bool(self.device.xp.all(self.device.xp.isfinite(parameters)))

    def pack(self, coefs, intercepts):
        """Weight matrices and biases, of any namespace, as a new flat vector there."""
        return self._layers.pack([self.put(part) for part in coefs], [self.put(part) for part in intercepts])

    def unpack(self, parameters):
        """New arrays from a flat vector: the list of weight matrices and the list of biases."""
        coefs, intercepts = self._layers.unpack(self.put(parameters))
        xp = self.device.xp
        return [xp.asarray(part, copy=True) for part in coefs], [
            xp.asarray(part, copy=True) for part in intercepts
        ]

    def running(self):
        """The context that passes run in: no product of theirs is less than its dtype."""
        return full_precision(self.device)

    # Passes -----------------------------------------------------------------------------------------

    def rows(self, X, target=None, weight=None, codes=None):
        """Rows of X there with their targets, which are NumPy's and are put beside them."""
        return DeviceNetworkRows(self.device, X, target, weight, codes, self.dtype)

    def epoch(
        self,
        rows,
        order,
        batch_size,
        parameters,
        *,
        optimiser,
        rates,
        first,
        second=None,
        shrinks=None,
        decay=0.0,
        decay_second=0.0,
        epsilon=0.0,
        nesterov=False,
    ):
        """Change parameters by one optimiser step per batch; the objective before each step, averaged."""
        n = rows.n if order is None else len(order)
        batch_size = min(batch_size, n)
        starts = range(0, n, batch_size)
        shares, sums = self._shares(rows, order, np.array(starts))
        tally = _Tally(self.device.xp, self._wide, self._layers)
        layers = self._layers
        coefs, intercepts = layers.unpack(parameters)
        workspace = layers.workspace(parameters)
        per_gather = max(1, GATHER_BYTES // max(1, batch_size * rows.row_bytes)) * batch_size
        where = None if order is None else rows.index(order)
        for lowest in range(0, n, per_gather):
            highest = min(lowest + per_gather, n)
            X, y = rows.block(lowest, highest, where, order)
            share = None if shares is None else shares[lowest:highest, ...]
            for low in range(lowest, highest, batch_size):
                high = min(low + batch_size, highest)
                batch, k = slice(low - lowest, high - lowest), low // batch_size
                raw, kept = layers.forward(X[batch, ...], coefs, intercepts, keep=True)
                own = 1.0 / ((high - low) * self._parts) if share is None else share[batch, ...]
                delta = self._delta(raw, y[batch, ...], own, tally, high - low, rows.some_left_out)
                gradient = layers.backward(delta, kept, coefs, workspace)
                if self.alpha:
                    penalty = self.alpha / float(sums[k])
                    tally.add_squares(parameters, 0.5 * penalty * (high - low))
                    layers.add_penalty(gradient, parameters, penalty)
                rate = float(rates[k])
                if optimiser == "adam":
                    layers.adam(
                        parameters, gradient, first, second, rate=rate, decay=decay,
                        decay_second=decay_second, epsilon=epsilon,
                        shrink=0.0 if shrinks is None else float(shrinks[k]),
                    )  # fmt: skip
                else:
                    layers.sgd(parameters, gradient, first, rate=rate, decay=decay, nesterov=nesterov)
            tally.flush()
        return tally.total() / n

    def loss(self, rows, parameters):
        """The weighted mean of the loss, without the penalty."""
        with self.running():
            coefs, intercepts = self._layers.unpack(self.put(parameters))
            tally = _Tally(self.device.xp, self._wide, self._layers)
            self._pass(rows, coefs, intercepts, tally, None)
            return tally.total() / rows.n

    def value_and_gradient(self, rows, parameters):
        """The objective over all rows as one batch, and its gradient, both NumPy's."""
        with self.running():
            there = self.put(parameters)
            coefs, intercepts = self._layers.unpack(there)
            tally = _Tally(self.device.xp, self._wide, self._layers)
            gradient = self._zeros()
            self._pass(rows, coefs, intercepts, tally, gradient)
            if self.alpha:
                penalty = self.alpha / rows.total_weight
                tally.add_squares(there, 0.5 * penalty * rows.n)
                self._layers.add_penalty(gradient, there, penalty)
            return tally.total() / rows.n, self.device.get(gradient)

    def predict(self, X, parameters):
        """Raw scores of shape (n, outputs): there for rows that live there, else NumPy's."""
        host = device_of(X) is None
        n = X.shape[0]
        step = max(64, PASS_BYTES // (self.dtype.itemsize * sum(self.widths)))
        parts = []
        with self.running():
            coefs, intercepts = self._layers.unpack(self.put(parameters))
            rows = None if host else self.rows(X)
            for first in range(0, n, step):
                last = min(first + step, n)
                if host:
                    block = X[first:last]
                    block = self.put(block.toarray() if hasattr(block, "toarray") else block)
                else:
                    block = rows.block(first, last)[0]
                raw = self._layers.forward(self._cast(block), coefs, intercepts)
                parts.append(self.device.get(raw) if host else raw)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if host else self.device.xp.concat(parts)

    # Inside -----------------------------------------------------------------------------------------

    @property
    def _parts(self):
        """Into how many equal parts the loss of a row is split."""
        loss = self._loss
        by_output = loss.additive and loss.separable and loss.reduction == "mean"
        return self.widths[-1] if by_output else 1

    def _cast(self, array):
        dtype = self.device.real(self.dtype)
        return array if array.dtype == dtype else self.device.xp.astype(array, dtype)

    def _shares(self, rows, order, starts):
        """What a row's loss counts in the mean of its batch, there, or None for all the same; and the weights
        of the batches.
        """
        n = rows.n if order is None else len(order)
        if rows.weight is None:
            return None, np.diff(starts, append=n)
        weight = rows.weight if order is None else rows.weight[order]
        weight = weight.astype(np.float64).reshape(n, -1)
        sums = np.add.reduceat(weight.mean(axis=1), starts)
        counts = np.diff(starts, append=n)
        return self.device.put(weight / (np.repeat(sums, counts)[:, None] * self._parts), self.dtype), sums

    def _delta(self, raw, y, share, tally, count, some_left_out):
        """The gradient by raw of a batch's mean loss, which is noted times ``count``."""
        xp, loss = self.device.xp, self._loss
        plain = isinstance(share, float)
        if not loss.additive:
            value, gradient = loss.mean_formula(xp, y, raw, None if plain else share[:, 0])
            tally.add_mean(value, count)
            return self._cast(gradient)
        if self._in_place is not None:
            value, gradient, _ = self._in_place(y, raw, False)
        else:
            value, gradient = _batches.stated(loss, xp, y, raw)
            gradient = self._cast(_batches.gradient_of(loss, xp, gradient, raw))
        tally.add_values(value, share, count, some_left_out)
        if not plain and some_left_out:
            # Left-out rows may hold anything: inf * 0 would be NaN.
            return xp.where(share == 0.0, 0.0, gradient * share)
        return gradient if plain and share == 1.0 else gradient * share

    def _pass(self, rows, coefs, intercepts, tally, out):
        """Note the mean loss of all rows, times their number; add its gradient to ``out`` if there is one."""
        n, layers = rows.n, self._layers
        share = 1.0 / (n * self._parts)
        shares = self._shares(rows, None, np.array([0]))[0]
        step = max(64, PASS_BYTES // (self.dtype.itemsize * 2 * sum(self.widths)))
        workspace = None if out is None else layers.workspace(out)
        cuts = [(first, min(first + step, n)) for first in range(0, n, step)]
        whole = None
        if not self._loss.additive:
            parts = [layers.forward(rows.block(*cut)[0], coefs, intercepts) for cut in cuts]
            raw = parts[0] if len(parts) == 1 else self.device.xp.concat(parts)
            own = share if shares is None else shares
            whole = self._delta(raw, rows.targets(), own, tally, n, rows.some_left_out)
            if out is None:
                return
        for first, last in cuts:
            X, y = rows.block(first, last)
            raw, kept = layers.forward(X, coefs, intercepts, keep=True)
            if whole is None:
                own = share if shares is None else shares[first:last, ...]
                delta = self._delta(raw, y, own, tally, n, rows.some_left_out)
            else:
                delta = whole[first:last, ...]
            if out is not None:
                out += layers.backward(delta, kept, coefs, workspace)
            tally.flush()


class _Tally:
    """The objective summed there, batch by batch, with few operations for each."""

    def __init__(self, xp, wide, layers):
        self._xp, self._wide, self._layers = xp, wide, layers
        self._sum = None
        self._values, self._shares, self._count = [], [], None
        self._scalars, self._factors = [], []

    def add_values(self, values, share, count, some_left_out):
        """The losses of the rows of a batch; what each counts is ``share`` times ``count``."""
        if self._count not in (None, (count, isinstance(share, float))):
            self.flush()
        self._count = (count, isinstance(share, float))
        self._values.append(values)
        self._shares.append(share)
        self._some_left_out = some_left_out

    def add_mean(self, mean, factor):
        """A 0-d array, to be counted ``factor`` times."""
        self._scalars.append(mean)
        self._factors.append(factor)

    def add_squares(self, parameters, factor):
        """The squared weights, to be counted ``factor`` times."""
        self.add_mean(self._layers.squares(parameters, self._wide), factor)

    def flush(self):
        """Add up what has been noted."""
        xp, wide = self._xp, self._wide
        if self._values:
            count, plain = self._count
            values = self._values[0] if len(self._values) == 1 else xp.concat(self._values)
            values = xp.astype(values, wide)
            if plain:
                self._add(xp.sum(values) * (self._shares[0] * count))
            else:
                shares = self._shares[0] if len(self._shares) == 1 else xp.concat(self._shares)
                shares = xp.astype(shares, wide)
                shares = shares[:, 0] if values.ndim == 1 else shares
                values = values * shares
                if self._some_left_out:
                    values = xp.where(shares == 0.0, 0.0, values)
                self._add(xp.sum(values) * count)
            self._values, self._shares, self._count = [], [], None
        if self._scalars:
            for factor in dict.fromkeys(self._factors):
                same = [one for one, own in zip(self._scalars, self._factors, strict=True) if own == factor]
                self._add(xp.sum(xp.astype(xp.stack(same), wide)) * factor)
            self._scalars, self._factors = [], []

    def _add(self, part):
        self._sum = part if self._sum is None else self._sum + part

    def total(self):
        """The sum as a float: here the device is waited for."""
        self.flush()
        return float(self._sum)
