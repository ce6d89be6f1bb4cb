"""Timing: every rival in a process of its own, turns taken in alternation, ratios pair by pair.

A process per rival keeps one library's thread pools and patches away from another's, lets a run be cut off
at its time limit, and turns a crash into a line in the table.
"""

import dataclasses
import gc
import multiprocessing
import os
import signal
import sys
import time
import warnings

import counting
import memory
import problems
import rivals

SMALL = 3000  # rows of the warm-up fit before one whose memory is measured


class RivalError(Exception):
    """A rival raised, died or took too long; the message says which."""


class RivalTimeoutError(RivalError):
    """A rival took longer than ``over`` seconds."""

    def __init__(self, message, over):
        super().__init__(message)
        self.over = over


class Worker:
    """One rival's process, started at the first request, and again after it was lost."""

    def __init__(self, rival, options):
        self.rival = rival
        self.options = options
        self.process = None
        self.ready = False

    def begin(self):
        """Start the process unless it runs, without waiting for its imports."""
        if self.process is not None:
            return
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        before = {key: os.environ.get(key) for key in self.rival.env}
        os.environ.update(self.rival.env)
        try:
            self.process = context.Process(
                target=_serve, args=(theirs, self.rival.name, self.options), daemon=True
            )
            self.process.start()
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value
        theirs.close()
        self.connection.send(("ready", ()))

    def ask(self, what, *args, limit=600.0):
        """Call a method of the process's `_Requests`, and wait at most ``limit`` seconds for its result."""
        self.begin()
        if not self.ready:
            self.ready = True
            self._answer("ready", 120.0)
        try:
            self.connection.send((what, args))
        except (BrokenPipeError, ConnectionResetError):
            self._died()
        return self._answer(what, limit)

    def _answer(self, what, limit):
        try:
            if not self.connection.poll(limit):
                self.close()
                raise RivalTimeoutError(f"not done after {limit:.0f} s", limit)
            answer, failed = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._died()
        if failed:
            if what == "ready":
                self.close()
            raise RivalError(failed)
        return answer

    def _died(self):
        self.process.join(5)
        code = self.process.exitcode
        self.close()
        raise RivalError(f"the process died (exit code {code})") from None

    def close(self):
        """End the process; the next `ask` starts a new one."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None
            self.ready = False


def _serve(connection, name, options):
    """The process of a `Worker`: answer requests until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries that print would garble the table
    desk = _Requests(rivals.get(name), options)
    while True:
        try:
            what, args = connection.recv()
        except EOFError:
            return
        try:
            reply = (getattr(desk, what)(*args), None)
        except Exception as error:
            reply = (None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        connection.send(reply)


class _Requests:
    """The requests that a worker answers."""

    def __init__(self, rival, options):
        self.rival = rival
        self.options = options
        self.problem = None
        self.key = self.job = None
        if options["tables"]:
            problems.add_tables(options["data"])

    def ready(self):
        self.rival.start()
        return True

    def about(self):
        return self.rival.about()

    def ways(self, name):
        return self.rival.ways(self._load(name), self.options)

    def ladder(self, name, way):
        return self.rival.ladder(self._load(name), way)

    def build(self):
        """The kernels that sklloss has chosen."""
        from sklloss import kernels

        return kernels.chosen

    def work(self, name, way, setting):
        """What a run has to do, as the problem says, or as the passes of an untimed run show."""
        problem = self._load(name)
        if hasattr(problem, "work"):
            return problem.work()
        job = self.rival.job(problem, way, setting)
        with warnings.catch_warnings(), counting.counted() as works:
            warnings.simplefilter("ignore")
            job.run()
        return works

    def memory(self, name, way):
        """Bytes by which a fit with default settings raises the resident memory, at its peak and after."""
        problem = self._load(name)
        small = dataclasses.replace(problem, X=problem.X[:SMALL], y=problem.y[:SMALL])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.rival.job(small, way, None).run()  # imports, thread pools and their buffers
            job = self.rival.job(problem, way, None)
            gc.collect()
            begin = memory.reset_peak()
            model = job.run()
        gc.collect()
        found = {"peak": memory.peak() - begin, "kept": memory.resident() - begin}
        del model
        return found

    def time(self, name, way, setting, number, least):
        """Run ``number`` times and ``least`` seconds at least; the median time, and what `Job.read` gives."""
        key = (name, way, repr(setting))
        if key != self.key:
            self.job = None  # frees what it holds before the next one is made
            self.job = self.rival.job(self._load(name), way, setting)
            self.key = key
        job, seconds = self.job, []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            while len(seconds) < number or (sum(seconds) < least and len(seconds) < 2000):
                if job.setup is not None:
                    job.setup()
                begin = time.perf_counter()
                result = job.run()
                seconds.append(time.perf_counter() - begin)
            found = job.read(result)
        kinds = sorted({w.category.__name__ for w in caught} - {"FutureWarning", "DeprecationWarning"})
        return {"seconds": median(seconds), "runs": len(seconds), "warned": kinds, **found}

    def _load(self, name):
        if self.problem is None or self.problem.name != name:
            self.problem = self.job = self.key = None
            given = {key: self.options.get(key) for key in ("rows", "device")}
            self.problem = problems.load(name, self.options["data"], **given)
        return self.problem


def median(values):
    """The median of a few numbers."""
    values = sorted(values)
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def spread(values):
    """Median, least and largest."""
    return median(values), min(values), max(values)


def alternate(turns, rounds, limits, say=lambda line: None):
    """Let each entrant take one turn a round: A B C, A B C, ...

    Parameters
    ----------
    turns : dict of (rival, way) to a function of the round's number that returns a dict with "seconds"
    rounds : int
    limits : dict of label to the number of rounds that entrant takes part in, where fewer
    say : function of a line, for progress

    Returns
    -------
    dict of label to a list with an answer for each round taken; one that failed ends with its RivalError
    """
    results = {label: [] for label in turns}
    for number in range(rounds):
        for label, turn in turns.items():
            taken = results[label]
            if number >= limits.get(label, rounds) or (taken and isinstance(taken[-1], RivalError)):
                continue
            say(f"round {number + 1} of {rounds}: {' '.join(label)}")
            try:
                taken.append(turn(number))
            except RivalError as error:
                taken.append(error)
    return results


def ratios(theirs, ours):
    """Seconds of a rival by ours of the same round, for the rounds that both took."""
    return [a / b for a, b in zip(theirs, ours, strict=False)]
