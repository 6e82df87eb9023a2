"""Runs as the terminal lists and follows them: how far each has got, and whether anybody still works on it."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO

import pytest
from rich.console import Console

from ops.live import lines, table
from ops.runs import Progress, listed, watch
from stages import runs as reading
from stages.params import StageError
from stages.runs import Point, Run, Runs, condition, in_progress_here
from stages.tracking import open_run
from tests.native import ROOT

NOWHERE = "http://127.0.0.1:9"  # the port "discard": nothing listens
TRAINING = """
import sys
from stages.tracking import open_run
run = open_run("k", name="quick", resume=True)
run.log_params({"train": {"epochs": 3}})
for line in sys.stdin:
    if line == "0\\n":
        run.finish("FINISHED")
    else:
        run.log_metrics({"map50": int(line) / 10}, step=int(line))
    print("done", flush=True)
"""


@contextmanager
def training() -> Iterator[subprocess.Popen[str]]:
    """Another process, at epoch 1, which does the epoch of each number that it is sent; 0: it finishes the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        epoch(process, 1)
        yield process
    finally:
        process.kill()
        process.communicate()


def epoch(process: "subprocess.Popen[str]", number: int) -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{number}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def trained(key: str, *map50: float, test: float | None = None, status: str = "FINISHED") -> str:
    """A run's id."""
    run = open_run(key, name=f"run {key}", resume=False)
    run.log_params({"train": {"epochs": 3}})
    for number, value in enumerate(map50, 1):
        run.log_metrics({"map50": value}, step=number)
    if test is not None:
        run.log_metrics({"test/map50": test, "test/count_accuracy": test})
        run.set_tags({"model_version": "7"})
    run.finish("FAILED" if status == "FAILED" else "FINISHED")
    assert run.run_id
    return run.run_id


@pytest.mark.usefixtures("local_store")
def test_without_an_experiment_there_are_no_runs() -> None:
    assert listed(Runs(), limit=20) == []


@pytest.mark.usefixtures("local_store")
def test_runs_are_listed_newest_first_with_what_became_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "A_PAGE", 2)  # so that there are several pages
    trained("a", 0.1, 0.9, 0.5, test=0.7)
    trained("b", 0.2, status="FAILED")
    trained("c")
    newest, failed, oldest = listed(Runs(), limit=20)
    assert (newest.name, newest.epochs, newest.best_map50, newest.test_map50) == ("run c", 0, None, None)
    assert (failed.name, failed.status, failed.epochs, failed.of_epochs) == ("run b", "failed", 1, 3)
    assert (oldest.status, oldest.epochs, oldest.best_map50) == ("finished", 3, 0.9)
    assert (oldest.test_map50, oldest.count_accuracy, oldest.version) == (0.7, 0.7, "7")
    assert oldest.seconds >= 0
    assert [run.name for run in listed(Runs(), limit=2)] == ["run c", "run b"]
    assert [run.name for run in listed(Runs(), limit=20, status="failed")] == ["run b"]
    assert [run.name for run in listed(Runs(), limit=2, sort="best_map50")] == ["run a", "run b"]


@pytest.mark.usefixtures("local_store")
def test_a_run_is_found_by_name_id_and_the_beginning_of_its_id() -> None:
    run_id = trained("a")
    trained("b")
    for reference in (run_id, run_id[:8], "run a"):
        assert Runs().find(reference).id == run_id
    with pytest.raises(StageError, match="finger-counter: no run 'run c'; fingers runs lists them"):
        Runs().find("run c")
    again = trained("a")
    with pytest.raises(StageError, match=f"'run a' is more than one run: {again} and {run_id}"):
        Runs().find("run a")


HOUR = 3_600_000  # ms


@pytest.mark.parametrize(
    ("epochs_at", "written_here", "hours", "expected"),
    [
        ([], True, 9, "running"),  # its process is there, whatever it does for so long
        ([], False, 0, "interrupted"),
        ([], None, 0.1, "running"),
        ([], None, 0.2, "silent"),
        ([0.5], None, 0.6, "running"),
        ([0.01, 0.02], None, 0.25, "silent"),
        ([1, 2], None, 6.9, "running"),  # an epoch takes an hour
        ([1, 2], None, 7.1, "silent"),
    ],
)
def test_a_run_that_mlflow_takes_for_running(
    epochs_at: list[float], written_here: bool | None, hours: float, expected: str
) -> None:
    last = Point(len(epochs_at), 0.5, int(epochs_at[-1] * HOUR)) if epochs_at else None
    assert condition(0, last, written_here, hours * 3600) == expected


def snapshot(epochs: int, condition: str = "running") -> list[Progress]:
    run = Run("1", "quick", "RUNNING", 0, None, {"train.epochs": "3"}, {}, {})
    return [Progress(run, [Point(n, n / 10, n) for n in range(1, epochs + 1)], condition)]


@pytest.mark.parametrize(
    ("snapshots", "expected"),
    [
        ([], []),
        ([[]], []),
        ([snapshot(0)], []),
        ([snapshot(1), snapshot(1)], ["quick: epoch 1 of 3, mAP50 0.1000"]),
        (
            [snapshot(2), snapshot(3), snapshot(3, "finished"), snapshot(3, "finished")],
            [*(f"quick: epoch {n} of 3, mAP50 0.{n}000" for n in (1, 2, 3)), "quick: finished"],
        ),
    ],
)
def test_each_epoch_is_a_line_once(snapshots: list[list[Progress]], expected: list[str]) -> None:
    assert list(lines(iter(snapshots))) == expected


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ([], ["no run is in progress; Ctrl-C ends"]),
        (snapshot(0), ["quick", "running", "0/3", "-"]),
        (snapshot(2), ["quick", "running", "2/3", "0.2000"]),
        (snapshot(3, "finished"), ["quick", "finished", "3/3", "0.3000"]),
    ],
)
def test_a_terminal_shows_how_far_each_run_is(shown: list[Progress], said: list[str]) -> None:
    screen = Console(file=StringIO(), width=100)
    with screen.capture() as capture:
        screen.print(table(shown))
    assert all(text in capture.get() for text in said)


@pytest.mark.usefixtures("local_store")
def test_a_training_is_followed_to_its_end_and_a_killed_one_is_told_from_one_that_runs() -> None:
    trained("other")
    said = lines(watch(every=0.05, until_done=True))
    with training() as process:
        assert next(said) == "quick: epoch 1 of 3, mAP50 0.1000"
        epoch(process, 2)
        assert next(said) == "quick: epoch 2 of 3, mAP50 0.2000"
        assert [run.status for run in listed(Runs(), limit=1)] == ["running"]
        process.kill()
        process.wait()
        assert list(said) == ["quick: interrupted"]
        assert [run.status for run in listed(Runs(), limit=1)] == ["interrupted"]
    with training() as process:
        said = lines(watch(every=0.05, until_done=True))
        assert [next(said), next(said)] == [f"quick: epoch {n} of 3, mAP50 0.{n}000" for n in (1, 2)]
        epoch(process, 0)
        assert list(said) == ["quick: finished"]


@pytest.mark.usefixtures("local_store")
def test_with_the_server_away_what_this_machine_trains_is_followed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    with training() as process:
        process.kill()
        process.wait()
        assert in_progress_here() == []
    with training() as process, caplog.at_level(logging.WARNING, "ops"):
        snapshots = watch(every=0.05, until_done=True)
        epoch(process, 2)
        assert [(now.run.name, len(now.epochs), now.asked) for now in next(snapshots)] == [("quick", 2, 3)]
        epoch(process, 0)  # it goes on to hold the journal, as evaluate does
        assert next(snapshots) == []
    assert [f"MLflow at {NOWHERE} cannot be reached" in message for message in caplog.messages] == [True]
