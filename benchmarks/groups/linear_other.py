"""Other measurements of linear classifiers: searches, predictions of one row, peak memory."""

import measure

from groups.session import OURS, finish, ours_by_round

SLOW = 5  # a long search that takes this many times as long as the fastest gets only one turn


def _rows(session, group, name, target, entrants, results):
    base = ours_by_round(results, entrants)
    for (rival, way), answers in results.items():
        row = {"group": group, "problem": name, "target": target, "rival": rival, "way": way}
        row["role"] = "base" if rival == OURS else "default"
        good = [a for a in answers if isinstance(a, dict)]
        if good:
            row["score"] = good[-1]["score"]
            best = good[-1].get("best", {})
            row["setting"] = ", ".join(
                f"{k}={v if isinstance(v, str) else f'{v:g}'}" for k, v in best.items()
            )
        if row["role"] == "base" and group == "search":
            row["bound"] = session.bound(name, way)
        session.add(**finish(row, answers, base))


def search(session, name):
    """GridSearchCV at defaults; no gap here, the best score says that the work was the same."""
    limit = 60.0 if session.quick else 300.0
    entrants = session.entrants(name)
    session.say(f"{name}: {', '.join(rival for rival, _ in entrants)}")
    rounds = session.options["repeat"] or (1 if session.quick else 3)

    def turn(rival, way):
        return lambda _: session.time(rival, name, way, None, limit=limit)

    def say(line):
        session.say(f"{name}: {line}")

    turns = {(rival, way): turn(rival, way) for rival, way in entrants}
    results = measure.alternate(turns, 1, {}, say)
    first = {key: answers[0]["seconds"] for key, answers in results.items() if isinstance(answers[0], dict)}
    fast = [key for key, seconds in first.items() if seconds < max(3.0, SLOW * min(first.values()))]
    more = measure.alternate({key: turns[key] for key in fast}, rounds - 1, {}, say)
    for key, answers in more.items():
        results[key] += answers
    _rows(session, "search", name, "defaults", entrants, results)


def predict(session, name):
    """Calls of predict_proba: the median of a turn's calls; the score is the largest probability."""
    entrants = session.entrants(name)
    session.say(f"{name}: {', '.join(rival for rival, _ in entrants)}")
    rounds = session.options["repeat"] or (3 if session.quick else 7)

    def turn(rival, way):
        return lambda _: session.time(rival, name, way, None, number=20, least=0.1)

    turns = {(rival, way): turn(rival, way) for rival, way in entrants}
    _rows(session, "predict", name, "1 row", entrants, measure.alternate(turns, rounds, {}))


def memory(session, problem, default_way, most=None):
    """Fits at the defaults, each in a process of its own that has fitted a few rows before.

    ``most`` is what ours is to take at most, in units of X.
    """
    X = problem.X
    size = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes if problem.sparse else X.nbytes
    for rival, way in default_way.items():
        if not measure.rivals.get(rival).defaults:
            continue
        session.workers[rival].close()
        row = {"group": "memory", "problem": problem.name, "rival": rival, "way": way, "X": size}
        row["wanted"] = most if rival == OURS else None
        try:
            row |= session.workers[rival].ask("memory", problem.name, way, limit=300.0)
        except measure.RivalError as error:
            row["error"] = str(error)
        session.add(**row)
        session.workers[rival].close()
