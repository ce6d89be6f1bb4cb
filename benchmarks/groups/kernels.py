"""Loss and gradient of one batch on one thread; single passes over X on all threads."""

import math

import kinds
import measure
import reference

from groups.session import OURS, finish


def _turn(session, name, rival, way, number, least):
    return lambda _: session.time(rival, name, way, None, number=number, least=least, limit=60.0)


def run(session):
    for spec in session.specs("kernels"):
        one(session, spec)


def one(session, spec, *, number=3):
    """The rows of one problem, a loss or a pass over X."""
    case = session.problem(spec)
    if case is None:
        return
    entrants = session.entrants(spec.name)
    least = 0.05 if session.quick or session.against else 0.15
    turns = {key: _turn(session, spec.name, *key, number, least) for key in entrants}
    session.say(f"{spec.name}: {', '.join(f'{rival} {way}' for rival, way in entrants)}")
    rounds = session.options["repeat"] or (5 if session.quick else 9)
    measure.alternate(turns, 1, {})  # warms caches and pools up
    results = measure.alternate(turns, rounds, {})
    ours = next((key for key in entrants if key[0] == OURS), None)
    base = [a["seconds"] for a in results.get(ours, []) if isinstance(a, dict)]
    bound = session.bound(spec.name, ours[1]) if ours else None
    for (rival, way), answers in results.items():
        row = {"group": spec.group, "problem": spec.name, "target": "", "rival": rival, "way": way}
        row["role"] = "base" if (rival, way) == ours else "best"
        if rival == OURS:
            row["bound"] = bound
        if isinstance(case, kinds.KernelCase):
            _check(row, case, answers)
        session.add(**finish(row, answers, base))


def _check(row, case, answers):
    """Put an error into the row if a loss is not what the reference says."""
    expected = reference.kernel_loss(case)
    close = 1e-10 if case.raw.dtype.itemsize == 8 else 1e-4
    losses = [a["loss"] for a in answers if isinstance(a, dict)]
    wrong = [x for x in losses if not math.isclose(x, expected, rel_tol=close)]
    if wrong:
        row["error"] = f"loss {wrong[0]:.10g}, the reference says {expected:.10g}"
