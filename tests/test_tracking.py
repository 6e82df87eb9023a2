"""One run a training, whatever happens to the process, the server, or the disk in between."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from subprocess import PIPE
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from stages import mlflow_client, tracking
from stages.journal import JOURNAL, folders
from stages.lineage import local_folder
from stages.mlflow_client import connect, tracking_uri
from stages.params import StageError
from stages.tracking import TrackedRun, backfill_epochs, open_run
from tests.mlflow_server import MlflowServer, server_in
from tests.native import ROOT

if TYPE_CHECKING:
    from mlflow.entities import Run

NOWHERE = "http://127.0.0.1:9"  # the port "discard": nothing listens


def runs() -> "list[Run]":
    """Of all keys, oldest first."""
    client = connect(tracking_uri())
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, order_by=["attributes.start_time ASC"]))


def epochs_of(run_id: str, name: str = "map50") -> list[tuple[int, float]]:
    """(step, value) in the order in which they were logged."""
    return [(m.step, m.value) for m in connect(tracking_uri()).get_metric_history(run_id, name)]


def train(key: str, epochs: range, *, resume: bool = False) -> TrackedRun:
    """What the train stage does with a run."""
    run = open_run(key, name="", resume=resume)
    run.log_params({"train": {"epochs": 3}})
    for epoch in epochs:
        run.log_metrics({"map50": epoch / 10}, step=epoch)
    return run


def forget_acknowledgements() -> None:
    """The journals as they are after a kill -9 between each send and its acknowledgement."""
    for folder in folders(local_folder() / "tracking"):
        lines = (folder / JOURNAL).read_text().splitlines(keepends=True)
        (folder / JOURNAL).write_text("".join(line for line in lines if '"kind":"sent"' not in line))


# Where it goes.


def test_a_stage_in_an_experiments_copy_uses_the_main_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / ".dvc/tmp/exps/x1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert local_folder() == tmp_path / ".local"
    assert tracking_uri() == f"sqlite:///{tmp_path}/.local/mlflow/mlflow.db"
    monkeypatch.delenv("DVC_ROOT")
    assert local_folder() == copy / ".local"


@pytest.mark.slow
def test_dvc_names_the_main_checkout_to_temporary_experiments(tmp_path: Path) -> None:
    """The real thing: --temp runs in a copy under .dvc/tmp/exps, as --queue does."""
    code = (
        "from stages.lineage import local_folder; import pathlib; pathlib.Path('out').write_text(str(local_folder()))"
    )
    (tmp_path / "params.yaml").write_text("number: 1\n")
    (tmp_path / "stage.py").write_text(code)
    (tmp_path / "dvc.yaml").write_text(
        f"stages: {{one: {{cmd: {sys.executable} stage.py, params: [number], outs: [out: {{cache: false}}]}}}}"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_"))}
    environment |= {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in (
        "git init -q",
        "git config user.email t@localhost",
        "git config user.name t",
        "dvc init -q",
        "git add -A",
        "git commit -qm start",
        "dvc exp run --temp -S number=2 -n two",
        "dvc exp apply two",
    ):
        subprocess.run(command.split(), cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "out").read_text() == str(tmp_path / ".local")


# One run a training.


@pytest.mark.usefixtures("local_store")
def test_stages_after_train_add_to_its_run() -> None:
    train("k", range(1, 4)).finish("FINISHED")
    after = open_run("k", name="", resume=True)
    after.log_metrics({"test/map50": 0.9})
    after.finish("FINISHED")
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["training_key"] == "k"
    assert run.data.params == {"train.epochs": "3"}
    assert run.data.metrics == {"map50": 0.3, "test/map50": 0.9}
    assert epochs_of(run.info.run_id) == [(1, 0.1), (2, 0.2), (3, 0.3)]


@pytest.mark.usefixtures("local_store")
def test_a_killed_training_goes_on_in_its_run_and_logs_no_epoch_twice() -> None:
    train("k", range(1, 3))
    assert runs()[0].info.status == "RUNNING"
    train("k", range(2, 4), resume=True).finish("FINISHED")
    (run,) = runs()
    assert epochs_of(run.info.run_id) == [(1, 0.1), (2, 0.2), (3, 0.3)]


@pytest.mark.usefixtures("local_store")
def test_a_training_killed_before_its_first_epoch_leaves_no_empty_run() -> None:
    train("k", range(0))
    train("k", range(1, 2))
    assert len(runs()) == 1


@pytest.mark.usefixtures("local_store")
def test_training_anew_begins_a_run_of_its_own_and_the_newest_is_gone_on_with() -> None:
    train("k", range(1, 3)).finish("FINISHED")
    train("k", range(1, 2))
    open_run("k", name="", resume=True).set_tags({"seen": "here"})
    first, second = runs()
    assert "seen" not in first.data.tags
    assert second.data.tags["seen"] == "here"


@pytest.mark.usefixtures("local_store")
def test_a_kill_between_send_and_acknowledgement_doubles_nothing() -> None:
    train("k", range(1, 3)).log_metrics({"test/map50": 0.5})
    forget_acknowledgements()
    run = train("k", range(2, 4), resume=True)
    run.log_metrics({"test/map50": 0.6})
    (only,) = runs()
    assert epochs_of(only.info.run_id) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert epochs_of(only.info.run_id, "test/map50") == [(0, 0.5), (0, 0.6)]


def test_a_line_torn_by_a_kill_is_as_if_it_had_not_been_written(local_store: Path) -> None:
    train("k", range(1, 3))
    path = local_store / ".local/tracking/k/0001" / JOURNAL
    with path.open("a") as file:
        file.write('{"kind":"metrics","values":{"map50":9')
    train("k", range(3, 4), resume=True)
    train("k", range(3, 5), resume=True)
    assert epochs_of(runs()[0].info.run_id) == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]


def test_a_restored_stage_gets_its_run_and_its_epochs_once(local_store: Path) -> None:
    """DVC's run cache gives back models/train without running anything; no journal, nothing on this server."""
    epochs = local_store / "epochs.csv"
    epochs.write_text("epoch,seconds,map50,lr\n1,2.5,0.1,0.01\n2,2.4,0.2,\n")
    for _ in ("evaluate", "register"):
        run = open_run("k", name="", resume=True)
        backfill_epochs(run, epochs)
        run.finish("FINISHED")
    (only,) = runs()
    assert epochs_of(only.info.run_id) == [(1, 0.1), (2, 0.2)]
    assert epochs_of(only.info.run_id, "lr") == [(1, 0.01)]


def test_another_machine_finds_the_run_on_the_server(local_store: Path) -> None:
    train("k", range(1, 3)).finish("FINISHED")
    (local_store / ".local/tracking").rename(local_store / "elsewhere")
    train("k", range(1, 4), resume=True)
    (run,) = runs()
    assert epochs_of(run.info.run_id) == [(1, 0.1), (2, 0.2), (3, 0.3)]


@pytest.mark.usefixtures("local_store")
def test_a_run_that_somebody_deleted_is_made_again_from_the_journal() -> None:
    run_id = train("k", range(1, 3)).run_id
    assert run_id
    connect(tracking_uri()).delete_run(run_id)
    train("k", range(3, 4), resume=True)
    (run,) = runs()
    assert run.info.run_id != run_id
    assert epochs_of(run.info.run_id) == [(1, 0.1), (2, 0.2), (3, 0.3)]


@pytest.mark.usefixtures("local_store")
def test_a_dvc_experiment_names_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "wet-moth")
    open_run("k", name="finger-counter", resume=False)
    (run,) = runs()
    assert run.info.run_name == run.data.tags["dvc_experiment"] == "wet-moth"


# What is logged.


@pytest.mark.usefixtures("local_store")
def test_names_values_and_amounts_keep_to_mlflows_limits() -> None:
    run = open_run("k", name="", resume=False)
    run.log_params({f"p{n}": n for n in range(250)} | {"long": "x" * 7000, "none": None, "list": [1, "a"], "m": {}})
    run.log_metrics({"AP50 (é*)": 1.0, "nan": float("nan"), "inf": float("inf")} | {f"m{n}": n for n in range(1100)})
    (found,) = runs()
    assert len(found.data.params) == 254
    assert {k: found.data.params[k] for k in ("none", "list", "m")} == {"none": "null", "list": '[1, "a"]', "m": "{}"}
    assert len(found.data.params["long"]) == 6000
    assert len(found.data.metrics) == 1101
    assert {"nan", "inf"}.isdisjoint(found.data.metrics)


@pytest.mark.usefixtures("local_store")
def test_a_param_keeps_its_first_value_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    run = open_run("k", name="", resume=False)
    run.log_params({"iou": 0.5})
    run.log_params({"iou": 0.5})
    assert not caplog.records
    run.log_params({"iou": 0.6})
    assert [record.getMessage() for record in caplog.records] == ["iou stays 0.5 in this run, now it is 0.6"]


def test_files_and_folders_arrive_as_they_were_when_logged(local_store: Path) -> None:
    plots = local_store / "plots"
    plots.mkdir()
    (plots / "a.csv").write_text("1")
    run = open_run("k", name="", resume=False)
    run.log_artifact(plots / "a.csv")
    run.log_artifact(plots, "evaluate")
    assert run.run_id
    client = connect(tracking_uri())
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["a.csv", "evaluate"]
    assert [file.path for file in client.list_artifacts(run.run_id, "evaluate/plots")] == ["evaluate/plots/a.csv"]
    assert not list((local_store / ".local/tracking/k/0001/artifacts").rglob("*.csv")), "copies are dropped once sent"


@pytest.mark.usefixtures("local_store")
def test_what_mlflow_refuses_is_left_out_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    run = open_run("k", name="", resume=False)
    run.log_metrics({"a//b": 1.0}, step=1)  # a name that is a path MLflow does not like
    run.log_metrics({"map50": 0.1}, step=1)
    (found,) = runs()
    assert found.data.metrics == {"map50": 0.1}
    assert "refuses" in caplog.text


# The server is away, or is none.


def test_a_server_that_is_away_costs_seconds_and_one_warning(
    local_store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE.replace("//", "//me:secret@"))
    started = time.monotonic()
    run = train("k", range(1, 50))
    run.log_artifact(local_store / ".local/mlflow/mlflow.db")
    run.finish("FINISHED")
    assert run.run_id is None
    assert time.monotonic() - started < 4
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    assert "secret" not in caplog.text + (local_store / ".local/tracking/k/0001" / JOURNAL).read_text()


@pytest.mark.usefixtures("local_store")
def test_a_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_client, "PROBE_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        assert train("k", range(1, 50)).run_id is None
        assert time.monotonic() - started < 3


ANSWERS = {
    "404 in HTML": (404, "<html>nothing here</html>", "answers 404 '<html>nothing here</html>'"),
    "404 in JSON": (404, '{"detail": "Not Found"}', "is no MLflow server"),
    "200 in HTML": (200, "<html>welcome</html>", "is no MLflow server"),
    "200 in JSON": (200, "[]", "is no MLflow server"),
    "password": (401, "You are not authenticated", "MLFLOW_TRACKING_USERNAME"),
    "host name": (403, "Invalid Host header", "MLFLOW_SERVER_ALLOWED_HOSTS"),
}


@pytest.fixture
def web_server() -> Iterator[HTTPServer]:
    """Answers every request with its `answer`: (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = self.server.answer  # type: ignore[attr-defined]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("local_store")
@pytest.mark.parametrize(("status", "body", "said"), ANSWERS.values(), ids=ANSWERS)
def test_an_address_that_answers_something_else_is_an_error_at_once(
    web_server: HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int, body: str, said: str
) -> None:
    web_server.answer = (status, body)  # type: ignore[attr-defined]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{web_server.server_port}")
    with pytest.raises(StageError) as error:
        open_run("k", name="", resume=False)
    assert said in str(error.value)
    assert "MLFLOW_" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("local_store")
def test_a_proxy_whose_server_is_down_is_a_server_that_is_away(
    web_server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    web_server.answer = (502, "<html>Bad Gateway</html>")  # type: ignore[attr-defined]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{web_server.server_port}")
    assert train("k", range(1, 3)).run_id is None


@pytest.mark.usefixtures("local_store")
def test_an_address_of_no_known_kind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://example.org")
    with pytest.raises(StageError, match="ftp"):
        open_run("k", name="", resume=False)


# The real server.


@pytest.mark.slow
def test_a_server_killed_while_it_is_logged_to_loses_and_doubles_nothing(
    local_store: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (local_store / "server").mkdir()
    server = server_in(local_store / "server", empty_store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    monkeypatch.setattr(tracking, "RETRY_AFTER", 0.0)
    server.start()
    report = local_store / "report.txt"
    report.write_text("as it was")
    run = train("k", range(1, 4))
    server.kill()
    for epoch in range(4, 8):
        run.log_metrics({"map50": epoch / 10}, step=epoch)
    run.log_artifact(report)
    report.write_text("changed since")
    other = train("other", range(1, 3))
    other.finish("FINISHED")
    server.start()
    try:
        run.log_metrics({"map50": 0.8}, step=8)
        run.finish("FINISHED")
        open_run("k", name="", resume=True)
        client = connect(server.address)
        assert len(runs()) == 2
        for key, epochs in (("k", 8), ("other", 2)):
            (found,) = [found for found in runs() if found.data.tags.get("training_key") == key]
            assert epochs_of(found.info.run_id) == [(n, n / 10) for n in range(1, epochs + 1)]
            assert found.info.status == "FINISHED"
        assert run.run_id
        file = client.download_artifacts(run.run_id, "report.txt", str(local_store))
        assert Path(file).read_text() == "as it was"
    finally:
        server.kill()


@pytest.mark.usefixtures("local_store")
def test_two_processes_do_not_write_one_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiments side by side may differ in evaluate alone, and so share a training."""
    monkeypatch.setenv("DVC_ROOT", str(local_folder().parent))
    code = """
import logging, sys
from stages.tracking import open_run
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
run = open_run("shared", name="", resume=True)
print("open", flush=True)
sys.stdin.read()
"""
    start = partial(subprocess.Popen[str], [sys.executable, "-c", code], cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True)
    with start() as first:
        assert first.stdout
        assert first.stdout.readline() == "open\n"
        with start() as second:
            assert second.stdout
            assert "another process writes the run" in second.stdout.readline()
            first.kill()
            assert second.stdout.readline() == "open\n"
            second.kill()


@pytest.mark.slow
def test_a_process_killed_between_epochs_loses_and_doubles_nothing(
    local_store: Path, running_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running_server.address)
    code = """
from stages.tracking import open_run
run = open_run("killed", name="", resume=False)
for epoch in range(1, 10_000):
    run.log_metrics({"map50": epoch / 10, "loss": 1 / epoch}, step=epoch)
    print(epoch, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        last = next(int(line) for line in process.stdout if int(line) >= 20)
        process.send_signal(signal.SIGKILL)
    train("killed", range(last - 5, 10_000)[:200], resume=True)
    (run,) = [run for run in runs() if run.data.tags.get("training_key") == "killed"]
    steps = [step for step, _ in epochs_of(run.info.run_id)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= last + 100
