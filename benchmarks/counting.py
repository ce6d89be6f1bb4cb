"""Counts what a fit of sklloss has to do: each pass over X that it makes, as `Work`.

`counted` wraps the passes of linear models and the epochs of networks, whose cost follows from their shapes:
n rows of p numbers (of a sparse X: those that are stored) and K outputs.
"""

import collections
import contextlib
import functools
import itertools

from machine import Work


def _x(passes):
    """Numbers in X, and the bytes that a pass over them reads, with one number for each row and output."""
    numbers = passes.n * passes._row_numbers
    size = passes.dtype.itemsize
    return numbers, numbers * (size + 4 * passes.sparse) + passes.n * passes.outputs * size


def _two_products(passes, given, result):
    """Scores from parameters, parameters from slopes: 4 n p K."""
    numbers, moved = _x(passes)
    return Work(4 * numbers * passes.outputs, moved, passes.dtype.name)


def _one_product(passes, given, result):
    numbers, moved = _x(passes)
    return Work(2 * numbers * passes.outputs, moved, passes.dtype.name)


def _hessian(passes, given, result):
    """Half of X' D X, n p**2 operations, for each output, or each pair of outputs; and a gradient."""
    numbers, moved = _x(passes)
    K, width = passes.outputs, passes._row_numbers + 1
    pairs = K * (K + 1) / 2 if given.get("coupled", True) and not passes.separable else K
    if not given.get("curved", True):
        pairs = 0
    return Work(4 * numbers * K + passes.n * width**2 * pairs, moved, "float64")


def _newton_steps(passes, given, result):
    """That for each step."""
    if result is None:
        return None
    work = _hessian(passes, {}, None)
    return Work(work.flops, work.bytes, work.dtype, times=max(1, result[0]))


def _hessian_block(passes, given, result):
    """n s**2 operations for s columns of an output; with coupled outputs s is the number of all columns."""
    _, moved = _x(passes)
    sizes = [len(columns) * passes._row_numbers / max(1, passes.features) for columns in given["sets"]]
    if passes.softmax and given["coupled"]:
        sizes = [sum(sizes)]
    return Work(passes.n * sum(size**2 for size in sizes), moved, "float64")


def _epochs(network, given, result):
    """The products of all layers, 6 for each weight and row, of the first 4; Adam's 12 for each parameter."""
    count = given["count"]
    rows = given["rows"].rows if given["order"] is None else len(given["order"]) // count
    steps = -(-rows // given["batch_size"])
    work = network_work(network.widths, rows, steps, network.dtype.name)
    return Work(work.flops, work.bytes, work.dtype, times=count * steps)


def network_work(widths, rows, steps, dtype):
    """An epoch: parameters, gradients and Adam's moments are read, all but the gradients written."""
    products = [6 * i * o for i, o in itertools.pairwise(widths)]
    size = sum((i + 1) * o for i, o in itertools.pairwise(widths))
    flops = rows * (sum(products) - 2 * widths[0] * widths[1])
    moved = 7 * size * (4 if dtype == "float32" else 8)
    return Work(flops / steps + 12 * size, moved, dtype, times=steps)


PASSES = {
    "value_and_gradient": _two_products,
    "product": _two_products,
    "hessian": _hessian,
    "newton_steps": _newton_steps,
    "hessian_block": _hessian_block,
    "hessian_diagonal": _one_product,
    "epoch": _two_products,
    "dual_epoch": _two_products,
}


@contextlib.contextmanager
def counted():
    """A list that holds the `Work` of all that ran inside, equal pieces once, when it is left."""
    from sklloss.objectives.network import NumpyNetworkObjective
    from sklloss.objectives.numpy_passes import NumPyPasses

    found, works = [], []
    places = [(NumPyPasses, name, cost) for name, cost in PASSES.items()]
    places.append((NumpyNetworkObjective, "epochs", _epochs))
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, cost in places:
        setattr(owner, name, _wrapped(getattr(owner, name), cost, found))
    try:
        yield works
    finally:
        for owner, name, method in before:
            setattr(owner, name, method)
        for work, often in collections.Counter(found).items():
            works.append(Work(work.flops, work.bytes, work.dtype, work.times * often, work.threads))


def _wrapped(method, cost, found):
    import inspect

    signature = inspect.signature(method)

    @functools.wraps(method)
    def counting(self, *args, **keywords):
        result = method(self, *args, **keywords)
        given = signature.bind(self, *args, **keywords).arguments
        work = cost(self, given, result)
        if work is not None:
            found.append(work)  # by any thread
        return result

    return counting
