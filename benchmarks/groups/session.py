"""The state of a run: options, one worker per rival, progress lines and the rows measured so far."""

import os
import sys
import time

import machine
import measure
import problems
import rivals

from groups.known import Known

OURS = rivals.OURS
TABLE_LIMIT = 60.0  # seconds for a fit of a row of the table


class Session:
    """Workers start at their first use; rows are kept as they come, so that an interrupted run has them."""

    def __init__(self, options, results):
        self.options = options
        self.results = results
        self.rows = []
        self.notes = []
        self.device = None  # the name of the device of group "gpu", as people know it
        self.begin = time.perf_counter()
        self.known = Known(results, options["fresh"])
        self.workers = {}
        self.against = ()  # the rivals of a row of the table; (): all
        self.beside = ()  # their solvers that the row shows even if others are faster
        self.held = machine.hold_to_build()  # before any worker starts
        self.limits, self.build = None, None
        self.first = self.before = machine.snapshot(())  # of the run, and of the problem
        self.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        if self.load > 0.5:
            self.note(
                f"the machine was busy at the start (load {self.load:.1f}): times are inflated, those of "
                "threaded rivals most; measure again on an idle one"
            )
        for rival in rivals.RIVALS.values():
            if options["rivals"] and rival.name not in (*options["rivals"], OURS):
                continue
            why = rival.absent()
            if why:
                self.note(f"{rival.name}: {why}")
            else:
                self.workers[rival.name] = measure.Worker(rival, options)
        self._measure_limits()

    def _measure_limits(self):
        """Measure what the machine allows our build."""
        if OURS not in self.workers:
            return
        try:
            self.build = self.workers[OURS].ask("build")
        except measure.RivalError:
            return  # the first problem will say why
        self.limits, why = machine.limits(self.build)
        if why:
            self.note(why)

    @property
    def quick(self):
        return self.options["quick"]

    @property
    def limit(self):
        """Seconds for a fit, and for a solver's climb."""
        return self.options["limit"] or (4.0 if self.quick else TABLE_LIMIT if self.against else 150.0)

    def say(self, line):
        """Progress, to stderr."""
        print(f"[{time.perf_counter() - self.begin:6.1f} s] {line}", file=sys.stderr, flush=True)

    def note(self, line):
        """Something the reader of the report should know."""
        self.notes.append(line)
        self.say(line)

    def add(self, **row):
        """Keep a row, with the CPUs that others kept busy since the last problem began."""
        self.rows.append({**row, "others": self.others_here()})

    def others_here(self):
        """The CPUs that others kept busy since the last problem began."""
        return machine.others(self.before, self._snapshot())

    def others(self):
        """The CPUs that others kept busy during the run."""
        return machine.others(self.first, self._snapshot())

    def _snapshot(self):
        return machine.snapshot([w.process.pid for w in self.workers.values() if w.process is not None])

    def bound(self, name, way, setting=None):
        """The least time that the machine allows for what a run of ours has to do; None if not known."""
        if self.limits is None:
            return None
        try:
            works = self.workers[OURS].ask("work", name, way, setting)
        except measure.RivalError as error:
            self.note(f"{name}: no limit: {error}")
            return None
        return sum(self.limits.seconds(work) for work in works) or None

    def takes_part(self, rival):
        """Whether a rival takes part in the problem that is being measured."""
        return not self.against or rival == OURS or self.against == problems.ALL or rival in self.against

    def specs(self, group):
        """The group's problems that this run asks for."""
        chosen, left_out = problems.selected(
            group, quick=self.quick, data=self.options["data"], only=self.options["only"]
        )
        for line in left_out:
            self.note(f"left out {line}")
        return chosen

    def problem(self, spec):
        """Load a problem here, or note why it cannot be and return None."""
        self.before = self._snapshot()
        try:
            given = {key: self.options.get(key) for key in ("rows", "device")}
            return problems.load(spec.name, self.options["data"], **given)
        except Exception as error:  # a bad file costs its problem, not the run
            self.note(f"left out {spec.name}: {type(error).__name__}: {error}")
            return None

    def entrants_of(self, problem, what="ways"):
        """As `entrants`, for a problem that is loaded here: only processes that take part load it."""
        found = []
        for name, worker in self.workers.items():
            if not self.takes_part(name):
                continue
            ways = getattr(worker.rival, what)(problem, self.options)
            if name == OURS and self.against and OURS not in self.against:
                ways = ways[:1]
            found += [(name, way) for way in ways]
            if ways:
                worker.begin()
        return found

    def entrants(self, name):
        """(rival, way) of all who can solve the problem, ours first; errors become rows."""
        found = []
        workers = [(rival, worker) for rival, worker in self.workers.items() if self.takes_part(rival)]
        for _, worker in workers:
            worker.begin()  # all at once: they import side by side
        for rival, worker in workers:
            try:
                ways = worker.ask("ways", name)
                if rival == OURS and self.against and OURS not in self.against:
                    ways = ways[:1]
                found += [(rival, way) for way in ways]
            except measure.RivalError as error:
                self.add(problem=name, rival=rival, way="", error=str(error))
                self.note(f"{rival} on {name}: {error}")
                if self.workers[rival].process is None:  # it cannot even start
                    del self.workers[rival]
        return found

    def time(self, rival, name, way, setting, *, number=1, least=0.0, limit=600.0):
        """Have a rival run a job; the result is that of `measure._Requests.time`."""
        return self.workers[rival].ask("time", name, way, setting, number, least, limit=limit)

    def about(self):
        """Versions and threads of the rivals whose process is up."""
        said = {}
        for rival, worker in self.workers.items():
            if worker.process is not None:
                try:
                    said[rival] = worker.ask("about", limit=30.0)
                except measure.RivalError as error:
                    said[rival] = {"error": str(error)}
        return said

    def close(self):
        """End all workers."""
        for worker in self.workers.values():
            worker.close()


def ours_by_round(results, entrants):
    """Our seconds, round by round, in our default way."""
    key = next(((rival, way) for rival, way in entrants if rival == OURS), None)
    return [answer["seconds"] for answer in results.get(key, []) if isinstance(answer, dict)]


def finish(row, answers, base):
    """Put times, and ratios to ours of the same rounds, into a row."""
    good = [a for a in answers if isinstance(a, dict)]
    errors = [str(a) for a in answers if not isinstance(a, dict)]
    if errors:
        row["error"] = errors[0]
    if good:
        row["times"] = [a["seconds"] for a in good]
        row["seconds"], row["least"], row["most"] = measure.spread(row["times"])
        row["warned"] = sorted({kind for a in good for kind in a["warned"]})
        if base and row["rival"] == OURS and row.get("role") == "base":
            row["ratio"] = [1.0, 1.0, 1.0]
        elif base:
            row["ratio"] = list(measure.spread(measure.ratios(row["times"], base)))
    return row
