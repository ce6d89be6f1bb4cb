"""Loss and gradient of one batch, one thread."""

import math

import measure
import reference

from groups.session import OURS, finish


def _turn(session, name, rival, way, least):
    return lambda _: session.time(rival, name, way, None, number=3, least=least, limit=60.0)


def run(session):
    for spec in session.specs("kernels"):
        case = session.problem(spec)
        if case is None:
            continue
        expected = reference.kernel_loss(case)
        close = 1e-10 if case.raw.dtype.itemsize == 8 else 1e-4
        entrants = session.entrants(spec.name)
        least = 0.05 if session.quick else 0.15
        turns = {key: _turn(session, spec.name, *key, least) for key in entrants}
        session.say(f"{spec.name}: {', '.join(f'{rival} {way}' for rival, way in entrants)}")
        rounds = session.options["repeat"] or (5 if session.quick else 9)
        measure.alternate(turns, 1, {})  # warms caches and pools up
        results = measure.alternate(turns, rounds, {})
        ours = next((key for key in entrants if key[0] == OURS), None)
        base = [a["seconds"] for a in results.get(ours, []) if isinstance(a, dict)]
        for (rival, way), answers in results.items():
            row = {"group": "kernels", "problem": spec.name, "target": "", "rival": rival, "way": way}
            row["role"] = "base" if (rival, way) == ours else "best"
            losses = [a["loss"] for a in answers if isinstance(a, dict)]
            wrong = [x for x in losses if not math.isclose(x, expected, rel_tol=close)]
            if wrong:
                row["error"] = f"loss {wrong[0]:.10g}, the reference says {expected:.10g}"
            session.add(**finish(row, answers, base))
