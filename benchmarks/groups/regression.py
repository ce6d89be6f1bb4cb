"""Regressions: the times to a gap of the optimum, and how the ratios to ours compare with their targets.

Ours is the default setting, as long as that reaches the gap. Of a rival's settings the cheapest that does is
timed; of a rival that never does, the one that comes nearest. What a library cannot solve as it is, it is
asked in another form (`Rival.asked`), and judged by the optimum of that.
"""

import measure
import reference

from groups import linear, linear_other
from groups.session import OURS, finish, ours_by_round

ONCE = 10.0  # seconds of a rival's fit from which it is run once, and its time kept
PATIENCE = 600.0  # time limit of scikit-learn, whose times are of interest however long they are


def run(session):
    for spec in session.specs("regression"):
        one(session, spec)


def one(session, spec):
    """The rows of one problem: ours, and one for each rival that has a target."""
    problem = session.problem(spec)
    if problem is None:
        return
    name = problem.name
    session.say(f"{name}: {problem.X.shape[0]} x {problem.X.shape[1]}, {problem.question}")
    session.against = (OURS, *spec.targets)
    optima = {}
    entries = [_entry(session, problem, *key, optima) for key in session.entrants_of(problem)]
    timed = [entry for entry in entries if "first" in entry and "once" not in entry]
    results = linear._in_turns(session, name, timed, session.limit) if timed else {}
    base = ours_by_round(results, [entry["key"] for entry in entries])
    for entry in entries:
        rival, way = entry["key"]
        row = {"group": "regression", "problem": name, "target": f"{problem.gaps[0]:.0e}"}
        row |= {"rival": rival, "way": way, "role": "base" if rival == OURS else "default"}
        row |= {key: entry[key] for key in ("asked", "once", "error", "over") if key in entry}
        row["setting"] = linear._show(entry["setting"])
        row["wanted"] = spec.targets.get("seconds" if rival == OURS else rival)
        if entry["F"] is not None:
            row["gap"] = optima[entry["question"]].gap(entry["F"])
        answers = results.get(entry["key"], [entry["first"]] if "first" in entry else [])
        finish(row, answers, base)
        if base and len(answers) == 1 and rival != OURS and "seconds" in row:
            row["ratio"] = [row["seconds"] / measure.median(base)] * 3
        session.add(**row)
    if problem.memory:
        linear_other.memory(session, problem, {OURS: "auto"}, spec.targets.get("memory"))


def _entry(session, problem, rival, way, optima):
    """The setting to time and its first fit, or the error of a way that has none."""
    asked = session.workers[rival].rival.asked(problem, way)
    judged = asked or problem
    question = judged.question, len(judged.y)
    if question not in optima:
        optima[question] = reference.Optimum(judged, session.results, session.say)
    optimum = optima[question]
    entry = {"key": (rival, way), "question": question}
    if asked is not problem:
        entry["asked"] = _difference(problem, asked)
    build = session.build
    known = session.known.once(optimum.key, rival, way, build)
    limit = max(session.limit, PATIENCE) if rival == "scikit-learn" else session.limit
    if known and known.get("over", limit) >= limit:
        return {**entry, **known}
    rungs = linear._climb(session, judged, rival, way, optimum, limit)
    good = [rung for rung in rungs if "F" in rung]
    if not good:
        found = {"setting": None, "F": None, "error": rungs[-1]["error"], "over": rungs[-1]["over"]}
        if found["over"] and rival != OURS:
            session.known.keep_once(
                optimum.key, rival, way, build, {**found, "once": session.others_here() or 0.0}
            )
        return entry | found
    nearest = min(optimum.gap(rung["F"]) for rung in good)
    enough = max(min(problem.gaps), 2 * nearest)
    rung = min((r for r in good if optimum.gap(r["F"]) <= enough), key=lambda r: r["seconds"])
    if optimum.improve(min(r["F"] for r in good)):
        session.note(f"{problem.name}: {rival} went below the reference; its objective is F* now")
    found = {key: rung[key] for key in ("setting", "seconds", "first", "F")}
    if asked is None:
        found["F"] = None
    if rival != OURS:
        if rung["seconds"] > ONCE:
            session.known.keep_once(
                optimum.key, rival, way, build, {**found, "once": session.others_here() or 0.0}
            )
        elif nearest > min(problem.gaps):
            session.known.keep_nearest(optimum.key, rival, way, rung)
    return entry | found


def _difference(problem, asked):
    """What a library is asked instead of the problem, in words."""
    if asked is None:
        return "an objective of its own"
    words = [] if len(asked.y) == len(problem.y) else [f"the first {len(asked.y):,} rows"]
    if (asked.alpha, asked.l1_ratio) != (problem.alpha, problem.l1_ratio):
        words.append(asked.question.rpartition(", ")[2])
    return ", ".join(words)
