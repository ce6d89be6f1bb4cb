"""The two commonest losses over torch's tensors, in place: the formulas' numbers for a third of the work."""

import functools
import importlib

from sklloss.losses import CrossEntropy, LogLoss


def in_place(device, loss):
    """The loss as a function of a batch, or None where there is nothing better than its formula.

    Parameters
    ----------
    device : Device
    loss : Loss

    Returns
    -------
    function of (y, raw, curved)
        It gives what `Loss.formula` and, if ``curved``, `Loss.curvature` do: losses, gradient, and second
        derivatives or None. Of a softmax the last are the probabilities. ``raw`` is overwritten. An infinite
        score counts as the largest finite one: a loss that the formula calls infinite is that large.
    """
    own = {CrossEntropy.kernel: _cross_entropy, LogLoss.kernel: _log_loss}.get(loss.kernel)
    if own is None or not device.is_torch:
        return None
    return functools.partial(own, importlib.import_module("torch"), loss.label_smoothing)


def _cross_entropy(torch, smoothing, y, raw, curved):
    largest = torch.finfo(raw.dtype).max
    top, first = torch.max(raw.clamp_(-largest, largest), 1, keepdim=True)
    ahead = raw.sub_(top).clamp_(min=-largest)
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
    largest = torch.finfo(raw.dtype).max
    size = torch.abs(raw.clamp_(-largest, largest))
    above = (raw >= 0).to(raw.dtype)
    # What the label has against the score. Of a smoothed label 1 - y would lose digits, of the label not.
    against = (above - y).abs_()
    if smoothing:
        against.mul_(1.0 - smoothing).add_(0.5 * smoothing)
    e = torch.exp(-size)
    value = size.mul_(against).add_(torch.log1p(e))
    total = 1.0 + e
    short = e.div_(total)  # what the probability of the likelier side lacks
    bend = short / total if curved else None
    return value, above.mul_(2.0).sub_(1.0).mul_(against.sub_(short)), bend
