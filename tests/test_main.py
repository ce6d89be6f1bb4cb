"""`python -m sklloss`: what it prints, writes and returns."""

import io
import json
import signal
import subprocess
import sys

import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from sklloss import SoftmaxClassifier
from sklloss import __main__ as job
from sklloss.__main__ import INTERRUPTED, WIDTH, main

# Of the rows held out; a model that has learnt nothing has 0.63, 0.1 and 0.
LEAST_SCORE = {"breast_cancer": 0.93, "digits": 0.93, "diabetes": 0.25}


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """Exit status, standard output, progress and figures of one quick run over all problems."""
    file = tmp_path_factory.mktemp("main") / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "sklloss", "--quick", "--json", str(file)], capture_output=True, text=True
    )
    figures = json.loads(file.read_text())["results"] if file.exists() else []
    for row in figures:
        for name, value in row["best_params"].items():
            row["best_params"][name] = tuple(value) if isinstance(value, list) else value  # JSON has no tuple
    return done, figures


def test_a_run_succeeds_and_its_output_fits_80_columns(quick_run):
    done, _ = quick_run
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= WIDTH for line in done.stdout.splitlines())
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def test_each_problem_has_both_sides_with_the_figures_that_the_table_shows(quick_run):
    done, figures = quick_run
    assert [(row["dataset"], row["library"]) for row in figures] == [
        (name, library) for name in job.PROBLEMS for library in ("sklloss", "sklearn")
    ]
    assert job.format_table(figures) in done.stdout


def test_the_figures_are_those_of_models_that_have_learnt(quick_run):
    _, figures = quick_run
    for row in figures:
        assert LEAST_SCORE[row["dataset"]] < row["score"] <= 1
        assert row["loss"] > 0
        assert row["seconds"] > 0
        assert row["convergence_warnings"] <= row["fits"] + 1
        grid = job.PROBLEMS[row["dataset"]].quick_grid
        assert row["best_params"].keys() == grid.keys()
        assert all(value in grid[name] for name, value in row["best_params"].items())


def test_the_same_convex_problem_gives_both_sides_the_same_held_out_loss(quick_run):
    _, figures = quick_run
    for ours, rival in zip(figures[::2], figures[1::2], strict=True):
        if not job.PROBLEMS[ours["dataset"]].regression:
            assert ours["best_params"] == rival["best_params"]
            assert ours["loss"] == pytest.approx(rival["loss"], rel=2e-2)
            assert 0 < ours["objective"] <= rival["objective"] * (1 + 1e-6)


def test_progress_names_each_dataset_and_side_in_plain_lines_when_not_on_a_terminal(quick_run):
    done, figures = quick_run
    lines = done.stderr.splitlines()
    for row in figures:
        side = f"{row['dataset']}: {row['library']} {row['estimator']}: "
        assert f"{side}{row['fits']} fits" in lines
        assert f"{side}{row['seconds']:.2f} s" in lines
    assert "\r" not in done.stderr


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_stays_on_one_line():
    stream = Terminal()
    progress = job.Progress(stream)
    progress.pause = 0
    progress.start("digits: sklloss " + "x" * 100, 2)
    progress.step()
    assert "\n" not in stream.getvalue()
    assert all(len(part) < WIDTH for part in stream.getvalue().split("\r"))
    assert "fit 1 of 2" not in stream.getvalue()  # cut off: the label alone fills the line
    progress.start("digits: sklloss", 2)
    progress.step()
    assert "fit 1 of 2" in stream.getvalue()
    progress.finish(1.0)
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("quick", "seconds", "timed", "best"),
    [
        (False, [3.0, 4.0, 2.0, 5.0, 4.0, 3.0], 3, [2.0, 3.0]),
        (False, [1.0, 9.0], 1, [1.0, 9.0]),
        (True, [3.0, 4.0], 1, [3.0, 4.0]),
    ],
)
def test_a_short_search_counts_with_its_best_time_of_several(quick, seconds, timed, best, monkeypatch):
    left = iter(seconds)
    monkeypatch.setattr(job, "tune", lambda *_: {"seconds": next(left)})
    rows = job.compare(job.PROBLEMS["digits"], quick, None)
    assert [row["seconds"] for row in rows] == best
    assert [row["searches"] for row in rows] == [timed, timed]
    assert [row["ratio"] for row in rows] == [best[1] / best[0], 1]
    assert list(left) == []


def test_long_parameters_wrap_within_80_columns():
    row = {
        "dataset": "breast_cancer",
        "rows": 426,
        "held_out_rows": 143,
        "library": "sklearn",
        "estimator": "LogisticRegression",
        "best_params": {f"a_rather_long_parameter_{index}": 0.1 for index in range(5)},
        "score_name": "accuracy",
        "score": 0.5,
        "loss_name": "log loss",
        "loss": 123456.7,
        "objective": 0.123456,
        "seconds": 1234.5,
        "ratio": 123.4,
        "convergence_warnings": 85,
    }
    lines = job.format_table([row]).splitlines()
    assert max(map(len, lines)) == WIDTH
    assert len(lines) > 4


def test_convergence_warnings_are_counted_and_kept_off_the_screen(capfd, recwarn):
    problem = job.Problem(
        "digits", SoftmaxClassifier, LogisticRegression, {}, {"C": [1.0]}, fixed={"max_iter": 2}
    )
    data = job.load(problem)
    row = job.tune(problem, "sklearn", LogisticRegression, data, True, job.Progress(io.StringIO()))
    assert row["convergence_warnings"] == row["fits"] + 1 == 4
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--only", "iris"], "iris"),
        (["--threads", "-1"], "-1"),
        (["--threads", "two"], "two"),
        (["--json", "no/such/folder/file.json"], "no/such/folder/file.json"),
        (["--fast"], "--fast"),
    ],
)
def test_a_bad_argument_is_named_and_gives_2_before_any_work(arguments, named, capsys, monkeypatch):
    monkeypatch.setattr(job, "_run", lambda *_: pytest.fail("work was begun"))
    assert main(arguments) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "threads"), [([], None), (["--threads", "1"], 1)])
def test_blas_keeps_its_threads_unless_an_option_limits_them(
    arguments, threads, monkeypatch, tmp_path, capsys
):
    def blas_threads():
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before, seen = blas_threads(), []
    monkeypatch.setattr(job, "compare", lambda *_: seen.extend(blas_threads()) or [])
    assert main([*arguments, "--only", "digits", "--json", str(tmp_path / "figures.json")]) == 0
    assert seen == [threads or number for number in before]
    assert blas_threads() == before
    assert json.loads((tmp_path / "figures.json").read_text())["threads"] == (threads or 0)
    assert f"BLAS threads: {threads or 'as installed'}." in capsys.readouterr().out


def test_help_names_the_datasets_and_gives_0(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in job.PROBLEMS)


def test_an_interrupt_gives_130_and_one_line(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "compare", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert main([]) == INTERRUPTED == 130
    assert signal.getsignal(signal.SIGINT) is before
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Interrupted after ")
    assert shown.err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_ends_the_process_even_where_a_fit_swallows_it():
    # scikit-learn's MLP catches KeyboardInterrupt, warns and ends that fit only.
    process = subprocess.Popen(
        [sys.executable, "-m", "sklloss", "--only", "diabetes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("diabetes: sklearn"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == INTERRUPTED
    assert out == ""
    assert err.splitlines()[-1].startswith("Interrupted after ")
    assert "Traceback" not in err


def test_ctrl_c_is_no_exception_that_a_fit_swallows(capsys, monkeypatch):
    def swallowing(*_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pytest.fail("the fit went on")

    monkeypatch.setattr(job, "compare", swallowing)
    assert main([]) == INTERRUPTED
    assert capsys.readouterr().err.startswith("Interrupted after ")


def test_a_reader_that_leaves_early_gets_no_traceback():
    process = subprocess.Popen(
        [sys.executable, "-m", "sklloss", "--quick", "--only", "breast_cancer"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert "Traceback" not in err
    assert "Exception" not in err
