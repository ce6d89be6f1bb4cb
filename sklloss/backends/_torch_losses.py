"""The two commonest losses over torch's tensors, in place: the formulas' numbers for a third of the work."""

import functools
import importlib

from sklloss.losses import CrossEntropy, LogLoss


def in_place(place, loss):
    """The loss as a function of a batch, or None where there is nothing better than its formula.

    Parameters
    ----------
    place : Place
    loss : Loss

    Returns
    -------
    function of (y, raw, curved)
        It gives what `Loss.formula` and, if ``curved``, `Loss.curvature` do: losses, gradient, and second
        derivatives or None. Of a softmax the last are the probabilities. ``raw`` is overwritten. An infinite
        score counts as a large one.
    """
    own = {CrossEntropy.kernel: _cross_entropy, LogLoss.kernel: _log_loss}.get(loss.kernel)
    if own is None or not place.is_torch:
        return None
    return functools.partial(own, importlib.import_module("torch"), loss.label_smoothing)


def _make_finite(torch, raw):
    """Of scores whose differences are finite too, nothing becomes NaN."""
    largest = torch.finfo(raw.dtype).max / 2
    return raw.clamp_(-largest, largest)


def _cross_entropy(torch, smoothing, y, raw, curved):
    top, first = torch.max(_make_finite(torch, raw), 1, keepdim=True)
    ahead = raw.sub_(top)
    spread = smoothing / raw.shape[1]
    if y.ndim == 2:
        y = y * (1.0 - smoothing) + spread if smoothing else y
        cost = (y * ahead).sum(1)
    else:
        at = y[:, None]
        own = torch.gather(ahead, 1, at)
        cost = own[:, 0]
        if smoothing:
            cost = (1.0 - smoothing) * cost + spread * ahead.sum(1)
    e = ahead.exp_()
    # all but the largest: next to its 1 they would lose digits
    rest = e.scatter_(1, first, 0.0).sum(1, keepdim=True)
    total = 1.0 + rest
    p = e.scatter_(1, first, 1.0).div_(total)
    value = torch.log1p(rest)[:, 0] - cost
    if y.ndim == 2:
        return value, p - y, p if curved else None
    bend = p.clone() if curved else None
    # At the code, p - 1 is minus the probability of all others: the sum keeps its digits, p - 1 would not.
    others = torch.where(own == 0.0, rest, total - own.exp_())
    gradient = p.scatter_(1, at, others.div_(total).neg_())
    if smoothing:
        gradient.sub_(spread).scatter_add_(1, at, torch.full_like(own, smoothing))
    return value, gradient, bend


def _log_loss(torch, smoothing, y, raw, curved):
    if smoothing:
        y = y * (1.0 - smoothing) + 0.5 * smoothing
    size = torch.abs(_make_finite(torch, raw))
    e = torch.exp(-size)
    # 1 or 0, as the score says, less y: what the label has against the score, with its sign
    against = torch.heaviside(raw, raw.new_full((), 0.5)).sub_(y)
    value = size.mul_(against.abs()).add_(torch.log1p(e))
    above = 1.0 + e
    short = e.div_(above)  # by how much the probability falls short of 1 or exceeds 0
    bend = short / above if curved else None
    return value, against.addcmul_(raw.sign_(), short, value=-1.0), bend
