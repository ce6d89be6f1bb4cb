"""Linear classifiers: the time to a given gap of the optimum, and what the defaults give.

For each rival and each of its solvers a ladder of settings is climbed, loose to tight, one fit each, until
the tightest gap is reached or the time limit is. The cheapest setting that reached a gap is then timed in
turns with the others. Of each rival run its default solver and its fastest.
"""

import measure
import reference

from groups.session import OURS, finish

CLOSE = 1.5  # a solver that took this much longer than its rival's fastest may be it: the turns will tell
SLOW = 5  # an entrant this many times slower than the fastest takes one turn only, if it is long


def run(session):
    for spec in session.specs("linear"):
        problem = session.problem(spec)
        if problem is None:
            continue
        if hasattr(problem, "Cs"):
            _search(session, spec.name)
        else:
            _problem(session, problem)


def _progress(session, name):
    return lambda line: session.say(f"{name}: {line}")


def _base(results, entrants):
    """Our seconds, round by round, in our default way."""
    key = next(((rival, way) for rival, way in entrants if rival == OURS), None)
    return [answer["seconds"] for answer in results.get(key, []) if isinstance(answer, dict)]


def _turn(session, rival, name, way, setting, limit):
    return lambda _: session.time(rival, name, way, setting, least=0.02, limit=limit)


def _rounds(session, seconds):
    """As many rounds as fit the time for one table row, unless the caller said how many."""
    if session.options["repeat"]:
        return session.options["repeat"]
    most, limit = (3, 2.0) if session.quick else (5, 150.0)
    return int(min(most, max(1, limit // max(seconds, 1e-9))))


def _in_turns(session, name, entries, limit):
    """Time (rival, way, setting) entries against each other; entries carry the seconds of their first fit."""
    fastest = min(entry["seconds"] for entry in entries)
    long = 0.5 if session.quick else 3.0
    slow = {e["key"] for e in entries if e["seconds"] > max(long, SLOW * fastest)}
    rounds = _rounds(session, sum(e["seconds"] for e in entries if e["key"] not in slow))
    turns = {}
    for entry in entries:
        rival, way = entry["key"]
        turns[rival, way] = _turn(session, rival, name, way, entry["setting"], limit)
    return measure.alternate(turns, rounds, dict.fromkeys(slow, 1))


def _problem(session, problem):
    name = problem.name
    session.say(f"{name}: {problem.X.shape[0]} x {problem.X.shape[1]}, {problem.objective}, C={problem.C:g}")
    optimum = reference.Optimum(problem, session.results, session.say)
    limit = 4.0 if session.quick else 150.0
    entrants = session.entrants(name)
    default_way = {}
    for rival, way in entrants:
        default_way.setdefault(rival, way)
    ladders = {}
    for rival, way in entrants:
        ladders[rival, way] = _climb(session, problem, rival, way, optimum, limit)
    values = [rung["F"] for rungs in ladders.values() for rung in rungs if "F" in rung]
    if values and optimum.improve(min(values)):
        session.note(f"{name}: a rival went below the reference; its objective is F* now")
    _defaults(session, problem, default_way, optimum, limit)
    for gap in sorted(problem.gaps)[:1] if session.quick else problem.gaps:
        _to_gap(session, name, gap, optimum, ladders, default_way, limit)


def _judge(problem, found):
    """Replace the coefficients in an answer by the objective that they give."""
    found["F"] = reference.objective(problem, found.pop("coef"), found.pop("intercept"))
    return found


def _climb(session, problem, rival, way, optimum, limit):
    rungs, spent = [], 0.0
    goal, least = min(problem.gaps), 0.01 if session.quick else 0.1
    try:
        ladder = session.workers[rival].ask("ladder", problem.name, way)
        # The first fit in a process pays for imports and pools; it is no rung.
        session.time(rival, problem.name, way, ladder[0], limit=limit)
        for setting in ladder:
            rung = {"setting": setting}
            rungs.append(rung)
            found = session.time(rival, problem.name, way, setting, least=least, limit=limit)
            rung.update(_judge(problem, found))
            spent += rung["seconds"]
            if optimum.gap(rung["F"]) <= goal:
                break
            if spent > (0.5 if session.quick else 2) * limit or 2 * rung["seconds"] > limit:
                raise measure.RivalError(f"gap {optimum.gap(rung['F']):.0e} after {spent:.1f} s of attempts")
    except measure.RivalError as error:
        rungs.append({"setting": rungs[-1]["setting"] if rungs else None, "error": str(error)})
    reached = [optimum.gap(rung["F"]) for rung in rungs if "F" in rung]
    best = f"gap {min(reached):.1e}" if reached else "nothing"
    session.say(f"{problem.name}: {rival} {way}: {best} in {len(rungs)} fits, {spent:.2f} s")
    return rungs


def _cheapest(rungs, optimum, gap):
    good = [rung for rung in rungs if "F" in rung and optimum.gap(rung["F"]) <= gap]
    return min(good, key=lambda rung: rung["seconds"], default=None)


def _show(setting):
    return ", ".join(f"{k}={v:g}" for k, v in (setting or {}).items())


def _to_gap(session, name, gap, optimum, ladders, default_way, limit):
    entries, rows, failed = [], [], []
    for rival in default_way:
        reached = {
            way: rung
            for (who, way), rungs in ladders.items()
            if who == rival and (rung := _cheapest(rungs, optimum, gap)) is not None
        }
        default = default_way[rival]
        chosen = {default} if default in reached else set()
        if reached:
            least = min(rung["seconds"] for rung in reached.values())
            chosen |= {way for way, rung in reached.items() if rung["seconds"] <= CLOSE * least}
        for way in sorted(chosen, key=lambda way: way != default):
            rung = reached[way]
            entries.append({"key": (rival, way), "setting": rung["setting"], "seconds": rung["seconds"]})
            rows.append((rival, way, rung))
        for way in {default} - chosen:
            rungs = ladders[rival, way]
            gaps = [optimum.gap(rung["F"]) for rung in rungs if "F" in rung]
            why = next((rung["error"] for rung in rungs if "error" in rung), "")
            why = f" ({why})" if why else ""
            failed.append(
                {
                    "group": "linear",
                    "problem": name,
                    "target": f"{gap:.0e}",
                    "rival": rival,
                    "way": way,
                    "role": "base" if rival == OURS else "default",
                    "gap": min(gaps, default=None),
                    "error": f"does not reach the gap{why}",
                }
            )
    results = _in_turns(session, name, entries, 2 * limit) if entries else {}
    base = _base(results, default_way.items())
    for rival, way, rung in rows:
        default = way == default_way[rival]
        row = {
            "group": "linear",
            "problem": name,
            "target": f"{gap:.0e}",
            "rival": rival,
            "way": way,
            "role": ("base" if rival == OURS else "default") if default else "best",
            "setting": _show(rung["setting"]),
            "gap": optimum.gap(rung["F"]),
            "n_iter": rung["n_iter"],
        }
        session.add(**finish(row, results[rival, way], base))
    for row in failed:
        session.add(**row)


def _defaults(session, problem, default_way, optimum, limit):
    """Each rival as it comes: the time, the gap, and whether it warned."""
    entries, first = [], {}
    for rival, way in default_way.items():
        if not measure.rivals.get(rival).defaults:
            continue
        try:
            first[rival] = _judge(problem, session.time(rival, problem.name, way, None, limit=limit))
        except measure.RivalError as error:
            row = {
                "group": "defaults",
                "problem": problem.name,
                "target": "defaults",
                "rival": rival,
                "way": way,
            }
            role = "base" if rival == OURS else "default"
            session.add(**row, role=role, error=str(error))
            continue
        entries.append({"key": (rival, way), "setting": None, "seconds": first[rival]["seconds"]})
    if not entries:
        return
    if optimum.improve(min(found["F"] for found in first.values())):
        session.note(f"{problem.name}: defaults went below the reference; that is F* now")
    results = _in_turns(session, problem.name, entries, 2 * limit)
    base = _base(results, default_way.items())
    for (rival, way), answers in results.items():
        row = {"group": "defaults", "problem": problem.name, "target": "defaults", "rival": rival, "way": way}
        row["role"] = "base" if rival == OURS else "default"
        row["gap"], row["n_iter"] = optimum.gap(first[rival]["F"]), first[rival]["n_iter"]
        session.add(**finish(row, answers, base))


def _search(session, name):
    """GridSearchCV at defaults; no gap here, the best score says that the work was the same."""
    limit = 60.0 if session.quick else 300.0
    entrants = session.entrants(name)
    session.say(f"{name}: {', '.join(rival for rival, _ in entrants)}")
    rounds = session.options["repeat"] or (1 if session.quick else 3)
    turns = {(rival, way): _turn(session, rival, name, way, None, limit) for rival, way in entrants}
    results = measure.alternate(turns, rounds, {}, _progress(session, name))
    base = _base(results, entrants)
    for (rival, way), answers in results.items():
        row = {"group": "search", "problem": name, "target": "defaults", "rival": rival, "way": way}
        row["role"] = "base" if rival == OURS else "default"
        good = [a for a in answers if isinstance(a, dict)]
        if good:
            row["score"], row["setting"] = good[-1]["score"], _show(good[-1]["best"])
        session.add(**finish(row, answers, base))
