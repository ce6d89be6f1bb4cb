"""A device of torch's that needs no hardware, for what tensors in main memory cannot show.

Its tensors wrap ones in main memory, where everything is computed: results are those of the CPU. But an
operation that meets a tensor from main memory too is an error, as it is on a GPU, and `transfers` tells how
often the host waits for the device, which is what costs there.
"""

import contextlib
import functools
from dataclasses import dataclass, field

import pytest

NAME = "simulated"
# The only operations that take tensors of both; all but the first have a source and a destination.
COPIES = {"aten::_to_copy", "aten::copy_", "aten::_copy_from", "aten::_copy_from_and_resize"}
# What must know values to go on: for a number, an error, or the size of its result.
READS = {
    *("aten::_local_scalar_dense", "aten::equal", "aten::allclose", "aten::_linalg_check_errors"),
    *("aten::nonzero", "aten::masked_select", "aten::repeat_interleave", "aten::bincount"),
    *("aten::_unique2", "aten::unique_dim"),
}
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
# Elsewhere torch makes an empty tensor and resizes it, which changes no wrapper.
FACTORIES = ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace")


@dataclass
class Transfers:
    """The names of the operations for which the host has waited."""

    reads: list = field(default_factory=list)  # of what the device has computed
    writes: list = field(default_factory=list)  # copies from main memory


_watching = []


@contextlib.contextmanager
def transfers():
    """The `Transfers` from here on, for as long as this lasts."""
    seen = Transfers()
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


def simulated_device():
    """The ``torch.device``, which the process has from the first call on; the test is skipped without."""
    pytest.importorskip("torch", reason="no simulated device: PyTorch is not installed")
    return _set_up() or pytest.skip("no simulated device: this PyTorch lets none be written in Python")


@functools.cache
def _set_up():
    """Tell torch of the device, which can be done once; None if this torch cannot have it."""
    import torch
    from torch import library
    from torch.utils import backend_registration

    # An experimental interface of torch's, from 2.9 on: a later torch may well change it.
    register = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if register is None:
        return None
    register(NAME)
    run = _runner(torch)
    everything, some = (library.Library(name, "IMPL") for name in ("_", "aten"))
    everything.fallback(run, "PrivateUse1")
    for name in FACTORIES:
        packet, _, overload = name.partition(".")
        op = getattr(getattr(torch.ops.aten, packet), overload or "default")
        some.impl(op, functools.partial(run, op), "PrivateUse1")
    _set_up.libraries = everything, some  # what they hold goes with them
    return torch.device(NAME, 0)


def _runner(torch):
    """The function that does an operator's work on the device."""

    class Simulated(torch.Tensor):
        """A tensor there; ``held`` has its numbers."""

        @staticmethod
        def __new__(cls, held):
            strides = held.stride() if held.layout == torch.strided else None
            tensor = torch.Tensor._make_wrapper_subclass(
                cls, held.shape, strides, dtype=held.dtype, device=torch.device(NAME, 0)
            )
            tensor.held = held
            return tensor

        __torch_function__ = torch._C._disabled_torch_function_impl

        @classmethod
        def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
            return run(op, *args, **(kwargs or {}))

        def __repr__(self):
            return f"Simulated({self.held})"

        def __reduce_ex__(self, protocol):
            return _moved, (self.held.clone(),)

        def to_dense(self):
            """Of one that holds a CSR matrix, although torch takes the wrapper for strided."""
            return Simulated(self.held.to_dense())

    def is_there(x):
        return isinstance(x, Simulated) or (isinstance(x, torch.device) and x.type == NAME)

    def ours(x):
        if isinstance(x, torch.device):
            return torch.device("cpu")
        return x.held if isinstance(x, Simulated) else x

    def run(op, *args, **kwargs):
        name = op._schema.name
        tensors = [x for x in _leaves((args, tuple(kwargs.values()))) if isinstance(x, torch.Tensor)]
        wrappers = {id(x.held): x for x in tensors if isinstance(x, Simulated)}
        source = result_is_there = True
        if name == "aten::_to_copy":
            device = kwargs.get("device")
            source, result_is_there = is_there(args[0]), is_there(args[0] if device is None else device)
        elif name in COPIES:
            pair = args[:2] if name != "aten::copy_" else (args[1], args[0])
            source, result_is_there = map(is_there, pair)
        elif any(x.dim() > 0 for x in tensors if not isinstance(x, Simulated)):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, found {NAME} and cpu")
        for seen in _watching:
            if not source:
                seen.writes.append(name)
            elif not result_is_there or _reads(name, tensors, kwargs):
                seen.reads.append(name)
        args, kwargs = _changed(args, ours), {key: _changed(x, ours) for key, x in kwargs.items()}
        if name.startswith("aten::_copy_from"):  # which the CPU has not
            source, target = args[:2]
            result = target.copy_(source)
        else:
            result = op(*args, **kwargs)
        if any(x.shape != x.held.shape for x in wrappers.values()):
            raise NotImplementedError(f"{name} has changed a tensor's shape, which a wrapper cannot follow")
        if not result_is_there:
            return result

        def wrapped(x):
            if isinstance(x, torch.Tensor):
                return wrappers.get(id(x)) if id(x) in wrappers else Simulated(x)
            return x

        return _changed(result, wrapped)

    def _reads(name, tensors, kwargs):
        if name in INDEXED:
            return any(x.dtype == torch.bool for x in tensors[1:])
        return name in READS and kwargs.get("output_size") is None

    return run


def _moved(tensor):
    return tensor.to(simulated_device())


def _leaves(nested):
    if isinstance(nested, (list, tuple)):
        for one in nested:
            yield from _leaves(one)
    else:
        yield nested


def _changed(nested, change):
    if isinstance(nested, (list, tuple)):
        return type(nested)(_changed(one, change) for one in nested)
    return change(nested)
