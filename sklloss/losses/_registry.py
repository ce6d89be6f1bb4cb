"""Losses by name."""

import functools
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from sklloss.losses._base import Loss

_LossClass = TypeVar("_LossClass", bound="type[Loss]")

_by_name: "dict[str, type[Loss]]" = {}


def register(loss_class: _LossClass) -> _LossClass:
    """Class decorator: make the loss, with its default parameters, known under ``loss_class.name``."""
    name = loss_class.name
    if not name or name in _by_name:
        raise ValueError(f"{loss_class.__name__}.name is {name!r}, which is empty or taken")
    _by_name[name] = loss_class
    return loss_class


def names() -> list[str]:
    """The names that `get` knows, sorted."""
    return sorted(_by_name)


@functools.cache
def _default(name: str) -> "Loss":
    """The loss with its default parameters, made once: losses are immutable."""
    return _by_name[name]()


def get(loss: "str | Loss") -> "Loss":
    """The loss of that name, with its default parameters; a `Loss` object is returned as it is.

    Parameters
    ----------
    loss : str or Loss
        A name, as `names` lists them, or a loss.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        If no loss has that name.
    TypeError
        If ``loss`` is neither a name nor a loss; a class in place of an object is one such case.

    Examples
    --------
    >>> from sklloss import losses
    >>> losses.get("log_loss")
    LogLoss(label_smoothing=0.0)
    """
    if isinstance(loss, str):
        if loss not in _by_name:
            raise ValueError(f"unknown loss {loss!r}; known losses: {', '.join(names())}")
        return _default(loss)
    # Imported here because every loss file imports this one.
    from sklloss.losses._base import Loss

    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type) and issubclass(loss, Loss):
        raise TypeError(f"loss is the class {loss.__name__}; give an object, {loss.__name__}(...)")
    raise TypeError(f"loss must be a name or a losses.Loss, got {type(loss).__name__}: {loss!r}")
