"""Linear classifiers: the time to a given gap of the optimum, and what the defaults give.

For each rival and each of its solvers a ladder of settings is climbed, loose to tight, one fit each, until
the tightest gap is reached or the time limit is. The cheapest setting that reached a gap is then timed in
turns with the others. Of each rival run its default solver and its fastest. Searches, predictions and memory
are in `linear_other`.
"""

import kinds
import measure
import problems
import reference
import rivals

from groups import linear_other
from groups.session import OURS, finish, ours_by_round

CLOSE = 1.5  # solvers up to this much slower than their library's fastest take part in the turns too
PATIENCE = 150.0  # least time limit of scikit-learn's default solver, whose time is always of interest
LONG = 5.0  # seconds of a fit from which imports and the start of thread pools are negligible
SLOW = 5  # a long fit that takes this many times as long as the fastest gets only one turn


def run(session):
    for spec in session.specs("linear"):
        one(session, spec)


def one(session, spec):
    """The rows of one problem."""
    problem = session.problem(spec)
    if isinstance(problem, kinds.SearchProblem):
        linear_other.search(session, spec.name)
    elif isinstance(problem, kinds.PredictProblem):
        linear_other.predict(session, spec.name)
    elif problem is not None:
        to_gaps(session, problem)


def _turn(session, name, entry, limit):
    rival, way = entry["key"]
    limit = 2 * max(limit, entry["seconds"])
    return lambda _: session.time(rival, name, way, entry["setting"], least=0.05, limit=limit)


def _rounds(session, seconds):
    """As many rounds as fit the time for one table row, unless the caller said how many."""
    if session.options["repeat"]:
        return session.options["repeat"]
    most, limit = (3, 2.0) if session.quick else (5, 20.0 if session.against else 60.0)
    return int(min(most, max(1, limit // max(seconds, 1e-9))))


def _in_turns(session, name, entries, limit):
    """Time entries against each other; each carries its first fit, which is a slow one's only turn."""
    fastest = min(entry["seconds"] for entry in entries)
    long = 0.5 if session.quick else 3.0
    slow = {e["key"] for e in entries if e["seconds"] > max(long, SLOW * fastest)}
    rounds = _rounds(session, sum(e["seconds"] for e in entries if e["key"] not in slow))
    turns = {e["key"]: _turn(session, name, e, limit) for e in entries if e["key"] not in slow}
    results = measure.alternate(turns, rounds, {})
    results |= {e["key"]: [e["first"]] for e in entries if e["key"] in slow}
    return {entry["key"]: results[entry["key"]] for entry in entries}


def to_gaps(session, problem, group="linear"):
    """Climb and time, one problem's rows of the table that ``group`` names."""
    name = problem.name
    session.say(f"{name}: {problem.X.shape[0]} x {problem.X.shape[1]}, {problem.objective}, C={problem.C:g}")
    optimum = reference.Optimum(problem, session.results, session.say)
    limit = session.limit
    entrants = session.entrants_of(problem)
    wanted = sorted(problem.gaps)[:1] if session.quick or session.against else problem.gaps
    if session.against:
        entrants = session.known.fastest(optimum.key, entrants, wanted[0], session.beside)
    default_way = {}
    for rival, way in entrants:
        default_way.setdefault(rival, way)
    ladders = {}
    for rival, way in entrants:
        role = "default" if way == default_way[rival] else "best"
        allowed = max(limit, PATIENCE) if _patient(session, {"rival": rival, "role": role}) else limit
        ladders[rival, way] = _climb(session, problem, rival, way, optimum, allowed)
    values = [rung["F"] for rungs in ladders.values() for rung in rungs if "F" in rung]
    if values and optimum.improve(min(values)):
        session.note(f"{name}: a rival went below the reference; its objective is F* now")
    if group == "linear" and not (problem.l1_ratio or session.against):  # which nobody has by default
        _defaults(session, problem, default_way, optimum, limit)
    for gap in wanted:
        _to_gap(session, problem, group, gap, optimum, ladders, default_way, limit)
    if session.options["memory"] and problem.memory:
        linear_other.memory(session, problem, default_way)


def _patient(session, row):
    patient = row["rival"] == "scikit-learn" and row["role"] == "default"
    return patient and not (session.quick or session.against)


def _judge(problem, found):
    """Replace the coefficients in an answer by the objective that they give."""
    found["F"] = reference.objective(problem, found.pop("coef"), found.pop("intercept"))
    return found


def _climb(session, problem, rival, way, optimum, limit):
    """Fits of one way, loose to tight, until the tightest gap is reached or time is up."""
    rungs, spent, gaps = [], 0.0, problem.gaps
    setting = None
    least = 0.01 if session.quick else 0.1
    try:
        ladder = session.workers[rival].ask("ladder", problem.name, way)
        order = session.known.order(optimum.key, rival, way, ladder, gaps)
        # The first fit in a process pays for imports and pools; it is no rung, unless it is long anyway.
        early, setting = None, order[0][0]
        if (order[0][1] or 0) < LONG:
            quick = session.quick and not isinstance(problem, kinds.DeviceLinearProblem)
            patience = max(limit, 0 if quick else 30.0)  # to import
            early = session.time(rival, problem.name, way, ladder[0], limit=patience)
            if early["seconds"] < LONG or order[0][0] != ladder[0]:
                early = None
        for setting, known in order:
            longest = max((rung["seconds"] for rung in rungs), default=0.0)
            rung = {"setting": setting}
            rungs.append(rung)
            if known is None and spent > limit:
                raise measure.RivalTimeoutError(f"after {spent:.0f} s of attempts", longest)
            allowed = max(limit, 3 * (known or 0))
            found = early or session.time(rival, problem.name, way, setting, least=least, limit=allowed)
            early = None
            rung["first"] = {key: found[key] for key in ("seconds", "warned")}
            rung.update(_judge(problem, found))
            spent += rung["seconds"]
            if optimum.gap(rung["F"]) <= min(gaps):
                break
    except measure.RivalError as error:
        over = error.over if isinstance(error, measure.RivalTimeoutError) else None
        rungs.append({"setting": setting, "error": str(error), "over": over})
    reached = {gap: rung for gap in gaps if (rung := _cheapest(rungs, optimum, gap)) is not None}
    failed = rungs[-1]["setting"] if len(reached) < len(gaps) else None
    session.known.keep(optimum.key, rival, way, reached, failed)
    gaps = [optimum.gap(rung["F"]) for rung in rungs if "F" in rung]
    best = f"gap {min(gaps):.1e}" if gaps else "nothing"
    session.say(f"{problem.name}: {rival} {way}: {best} in {len(gaps)} fits, {spent:.2f} s")
    return rungs


def _cheapest(rungs, optimum, gap):
    good = [rung for rung in rungs if "F" in rung and optimum.gap(rung["F"]) <= gap]
    return min(good, key=lambda rung: rung["seconds"], default=None)


def _show(setting):
    return ", ".join(f"{k}={v:g}" for k, v in (setting or {}).items())


def _shown(problem):
    """The problem's name, with its rows where the command line has a say in these."""
    free = problems.PROBLEMS[problem.name].options.get("rows", 0) is None
    return f"{problem.name}, {len(problem.X):,} rows" if free else problem.name


def _to_gap(session, problem, group, gap, optimum, ladders, default_way, limit):
    name, shown = problem.name, _shown(problem)
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
            # on a device each way is something else that a user may do
            close = float("inf") if group == "gpu" else CLOSE * least
            chosen |= {
                way for way, rung in reached.items() if rung["seconds"] <= close or way in session.beside
            }
        for way in sorted(chosen, key=lambda way: way != default):
            rung = reached[way]
            keep = {key: rung[key] for key in ("setting", "seconds", "first")}
            entries.append({"key": (rival, way), **keep})
            rows.append((rival, way, rung))
        for way in {default} - chosen:
            rungs = ladders[rival, way]
            gaps = [optimum.gap(rung["F"]) for rung in rungs if "F" in rung]
            error = next((rung for rung in rungs if "error" in rung), {"error": "", "over": None})
            why = f" ({error['error']})" if error["error"] else ""
            failed.append(
                {
                    "group": group,
                    "problem": shown,
                    "target": f"{gap:.0e}",
                    "rival": rival,
                    "way": way,
                    "role": "base" if rival == OURS else "default",
                    "gap": min(gaps, default=None),
                    "over": error["over"],
                    "error": f"does not reach the gap{why}",
                }
            )
    results = _in_turns(session, name, entries, limit) if entries else {}
    base = ours_by_round(results, default_way.items())
    for rival, way, rung in rows:
        default = way == default_way[rival]
        row = {
            "group": group,
            "problem": shown,
            "target": f"{gap:.0e}",
            "rival": rival,
            "way": way,
            "role": ("base" if rival == OURS else "default") if default else "best",
            "setting": _show(rung["setting"]),
            "gap": optimum.gap(rung["F"]),
            "n_iter": rung["n_iter"],
        }
        if row["role"] == "base" and group == "linear":
            row["bound"] = session.bound(name, way, rung["setting"])
        if way in session.beside:
            row["beside"] = True
        session.add(**finish(row, results[rival, way], base))
    for row in failed:
        session.add(**row)


def _defaults(session, problem, default_way, optimum, limit):
    """Each rival with its default settings: the time, the gap, and whether it warned."""
    entries, values = [], {}
    entrants = [(rival, way, None) for rival, way in default_way.items() if rivals.get(rival).defaults]
    if problem.every_default:
        for rival, way in session.entrants_of(problem, "default_ways"):
            entrants += [(rival, way, {})] if way != default_way.get(rival) else []
    for rival, way, setting in entrants:
        row = {"group": "defaults", "problem": problem.name, "target": "defaults", "rival": rival, "way": way}
        row["role"] = "other" if setting == {} else "base" if rival == OURS else "default"
        allowed = max(limit, PATIENCE) if _patient(session, row) else limit
        try:
            found = session.time(rival, problem.name, way, setting, limit=allowed)
        except measure.RivalError as error:
            over = error.over if isinstance(error, measure.RivalTimeoutError) else None
            session.add(**row, error=str(error), over=over)
            continue
        first = {key: found[key] for key in ("seconds", "warned")}
        _judge(problem, found)
        values[rival, way] = row, found
        key = (rival, way)
        entries.append({"key": key, "setting": setting, "seconds": found["seconds"], "first": first})
    if not entries:
        return
    if optimum.improve(min(found["F"] for _, found in values.values())):
        session.note(f"{problem.name}: defaults went below the reference; that is F* now")
    results = _in_turns(session, problem.name, entries, limit)
    base = ours_by_round(results, default_way.items())
    for key, answers in results.items():
        row, found = values[key]
        row["gap"], row["n_iter"] = optimum.gap(found["F"]), found["n_iter"]
        if row["role"] == "base":
            row["bound"] = session.bound(problem.name, key[1])
        session.add(**finish(row, answers, base))
