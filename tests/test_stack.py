"""`fingers up`, `down`, `status` and `logs`, against the servers themselves."""

import http.client
import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest
from botocore.exceptions import ClientError

from ops import processes, servers, stack
from ops.ask import ASK, ask_postgres, s3_client
from ops.credentials import Settings, settings_for
from ops.dotenv import add_to_dotenv, read_dotenv
from stages.mlflow_client import connect
from stages.params import StageError
from tests import systems
from tests.native import ROOT
from tests.platform import Platform, start_platform

SECRETS = ("AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD")


def test_all_three_answer_and_say_what_they_are(platform: Platform) -> None:
    rows = {row.server: row for row in stack.status(platform.folder, platform.environment)}
    assert {name: row.state for name, row in rows.items()} == {"s3": "up", "postgres": "up", "mlflow": "up"}
    assert re.match(r"SeaweedFS .*\d", rows["s3"].answer)
    assert rows["postgres"].answer == "PostgreSQL 18.6"
    assert rows["mlflow"].answer == "MLflow 3.17.2"
    for row in rows.values():
        assert row.pid
        assert psutil.pid_exists(row.pid)
        assert row.memory_mb
        assert row.uptime_s is not None
        assert row.data_mb is not None


def test_without_a_key_or_with_a_wrong_one_s3_refuses(platform: Platform) -> None:
    bucket = urlsplit(platform.s3)
    assert answer(bucket.port, "GET", "/")[0] == 403
    assert answer(bucket.port, "PUT", "/dvc/stray")[0] == 403
    for wrong in ({"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ACCESS_KEY_ID": "stranger"}):
        with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|InvalidAccessKeyId"):
            s3_client({**platform.environment, **wrong}).list_objects_v2(Bucket="dvc")


def test_no_other_port_gives_an_object_away(platform: Platform) -> None:
    storage = s3_client(platform.environment)
    storage.put_object(Bucket="dvc", Key="secret", Body=b"confidential" * 1000)
    answers = set()
    for port in listening(platform, "s3") - {urlsplit(platform.s3).port}:
        for method, path in [
            ("GET", "/buckets/dvc/secret"),  # of the filer
            ("DELETE", "/buckets/dvc/secret"),
            ("GET", "/dir/assign?collection=dvc"),  # of the master
            ("GET", "/col/delete?collection=dvc"),
            ("GET", "/1,01637037d6"),  # of the volumes
            ("DELETE", "/1,01637037d6"),
        ]:
            with suppress(OSError, http.client.HTTPException):  # gRPC does not speak HTTP/1
                answers.add(answer(port, method, path)[0])
    assert answers == {400, 401, 404}
    assert storage.get_object(Bucket="dvc", Key="secret")["Body"].read() == b"confidential" * 1000


def test_a_bucket_that_is_not_there_is_not_made_by_writing_to_it(platform: Platform) -> None:
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3_client(platform.environment).put_object(Bucket="dcv", Key="key", Body=b"")


def test_postgres_wants_the_password(platform: Platform) -> None:
    address = re.sub(r":[^:@]*@", ":wrong@", platform.environment["MLFLOW_BACKEND_STORE_URI"].replace("+psycopg2", ""))
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(address)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("GET", {"Host": "evil.example"}, 403),  # its name made to point at 127.0.0.1
        ("POST", {"Origin": "https://evil.example", "Content-Type": "application/json"}, 403),
    ],
)
def test_a_page_elsewhere_cannot_use_mlflow(
    platform: Platform, method: str, headers: dict[str, str], status: int
) -> None:
    path = {"GET": "/api/2.0/mlflow/experiments/search?max_results=1", "POST": "/api/2.0/mlflow/experiments/create"}
    body = '{"name": "stray"}' if method == "POST" else None
    assert answer(urlsplit(platform.mlflow).port, method, path[method], headers, body)[0] == status


def test_everything_listens_on_loopback_only(platform: Platform) -> None:
    addresses = {connection.laddr[0] for name in ASK for connection in connections(platform, name)}
    assert addresses == {"127.0.0.1"}


@systems.files
def test_secrets_are_readable_by_their_owner_alone_and_in_no_argument_or_log(platform: Platform) -> None:
    home = stack.home(platform.folder)
    kept = read_dotenv(home / "settings.env")
    for path in (platform.folder / ".env", home / "settings.env", *home.glob("*.log")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for name in ASK:
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o700, name
    said = "".join(path.read_text(errors="replace") for path in [*home.glob("*.log"), *home.glob("s3/log/*")])
    said += repr([process.cmdline() for name in ASK for process in processes.marked(str(home / name))])
    assert "mlflow" in said
    for name in SECRETS:
        assert len(kept[name]) >= 40
        assert kept[name] not in said


def test_git_ignores_what_holds_secrets() -> None:
    secret = [".env", ".local/platform/settings.env"]
    done = subprocess.run(["git", "check-ignore", *secret], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == secret


def test_up_again_changes_nothing(platform: Platform) -> None:
    before, env = running(platform.folder), (platform.folder / ".env").read_bytes()
    assert start_platform(platform.folder) == platform
    assert running(platform.folder) == before
    assert (platform.folder / ".env").read_bytes() == env


@pytest.mark.parametrize(
    "killed",
    [
        pytest.param(["s3"], marks=pytest.mark.slow),
        ["postgres"],
        pytest.param(["mlflow"], marks=pytest.mark.slow),
        ["s3", "postgres", "mlflow"],
    ],
    ids=" ".join,
)
def test_what_was_acknowledged_survives_kill_9(platform: Platform, killed: list[str]) -> None:
    storage, client = s3_client(platform.environment), connect(platform.mlflow)
    bodies = {f"{'-'.join(killed)}/{size}": os.urandom(size) for size in (0, 100, 9_000_000)}
    name = f"model-{'-'.join(killed)}"
    for key, body in bodies.items():
        storage.put_object(Bucket="dvc", Key=key, Body=body)
    run = client.create_run("0").info.run_id
    for step in range(20):
        client.log_metric(run, "loss", step / 7, step=step)
    client.log_text(run, "an artifact", "note.txt")
    client.create_registered_model(name)
    version = client.create_model_version(name, f"{client.get_run(run).info.artifact_uri}/note.txt", run).version
    client.set_registered_model_alias(name, "champion", version)
    kill(platform, killed)

    with ThreadPoolExecutor(2) as pool:  # two at the same moment
        list(pool.map(lambda _: start_platform(platform.folder), range(2)))

    assert {key: storage.get_object(Bucket="dvc", Key=key)["Body"].read() for key in bodies} == bodies
    assert [(point.step, point.value) for point in client.get_metric_history(run, "loss")] == [
        (step, step / 7) for step in range(20)
    ]
    assert client.get_model_version_by_alias(name, "champion").run_id == run
    found = client.list_artifacts(run)
    assert [file.path for file in found] == ["note.txt"]
    assert len(running(platform.folder)["mlflow"]) == 2  # the server and its worker, once


@pytest.mark.slow
def test_down_leaves_no_process_after_its_parent_was_killed(short_path: Path) -> None:
    start_platform(short_path)
    before = {name: set(pids) for name, pids in running(short_path).items()}
    psutil.Process(min(before["mlflow"])).kill()
    assert stack.down(short_path) == ["s3", "postgres", "mlflow"]
    assert not any(processes.alive(map(psutil.Process, filter(psutil.pid_exists, chain(*before.values())))))
    assert stack.down(short_path) == []


@pytest.mark.parametrize("setting", ["FINGERS_S3_PORT", "FINGERS_MLFLOW_PORT"])
def test_a_taken_port_is_named_with_who_has_it_and_the_setting(short_path: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = map(str, processes.free_ports(2))
        ports = {**dict(zip(("FINGERS_S3_PORT", "FINGERS_MLFLOW_PORT"), free, strict=True)), setting: str(port)}
        with pytest.raises(
            StageError, match=rf"port {port} .*{psutil.Process().name()} \(pid {os.getpid()}\).* {setting} "
        ):
            stack.up(short_path, ports)
    assert not any(running(short_path).values())
    assert not (short_path / ".env").exists()


def test_what_was_refused_leaves_the_settings_as_they_were(short_path: Path) -> None:
    before = settings({})
    stack.home(short_path).mkdir(parents=True)
    add_to_dotenv(stack.home(short_path) / "settings.env", remembered(before))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        moved = {**before.published, "FINGERS_S3_PORT": str(taken.getsockname()[1])}
        for _ in range(2):
            with pytest.raises(StageError, match="is taken by"):
                stack.up(short_path, moved)


def test_one_that_does_not_start_shows_its_log_and_takes_the_others_with_it(short_path: Path) -> None:
    (stack.home(short_path) / "postgres").mkdir(parents=True)  # and nothing in it
    with pytest.raises(StageError, match=r"(?s)postgres ended with \d+; the end of .*postgres\.log:.*postgresql\.conf"):
        start_platform(short_path)
    assert not any(running(short_path).values())


def test_postgres_listens_on_loopback_where_the_path_is_too_long_for_a_socket(short_path: Path) -> None:
    folder = short_path / ("long" * 25) / "postgres"
    folder.parent.mkdir()
    settings = settings_for({}, {}, database=folder, running=())
    server = servers.postgres(folder, settings)
    with ExitStack() as undo:
        stack.wait(server, stack.launch(server, undo))
        assert f"@127.0.0.1:{settings.database_port}/" in settings.published["MLFLOW_BACKEND_STORE_URI"]
        assert ask_postgres(settings.published) == "PostgreSQL 18.6"
    assert processes.marked(server.mark) == []


def test_status_asks_servers_that_are_elsewhere(platform: Platform, tmp_path: Path) -> None:
    (row,) = stack.status(tmp_path, {"MLFLOW_TRACKING_URI": platform.mlflow})
    assert (row.server, row.state, row.answer, row.pid) == ("mlflow", "up", "MLflow 3.17.2", None)


@pytest.mark.parametrize(
    ("environment", "answer"),
    [
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}, "Connection refused"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}, "No connection adapters"),
        ({"MLFLOW_TRACKING_URI": "http://me:hidden@127.0.0.1:no"}, "Failed to parse"),
        ({"MLFLOW_TRACKING_URI": "S3"}, "answers 403"),
        ({"MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg2://me:hidden@127.0.0.1:1/mlflow"}, "Connection refused"),
        ({"MLFLOW_BACKEND_STORE_URI": "nonsense"}, "invalid"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, "Could not connect"),
        ({"AWS_ENDPOINT_URL_S3": "nonsense"}, "Invalid endpoint"),
        ({"AWS_ENDPOINT_URL_S3": "S3", "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "x"}, "InvalidAccessKeyId"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_status_says_why_a_server_is_down(platform: Platform, environment: dict[str, str], answer: str) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    address = {name: platform.s3 if value == "S3" else value for name, value in environment.items()}
    (row,) = stack.status(platform.folder, {**keys, **address})
    assert row.state == "down"
    assert answer in row.answer
    assert "\n" not in row.answer
    assert "hidden" not in repr(row)


def test_the_command_gives_json_and_an_exit_code(platform: Platform) -> None:
    (platform.folder / "dvc.yaml").touch()
    fingers = [sys.executable, "-c", "from ops.cli import main; main()"]

    def run(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*fingers, *arguments],
            cwd=platform.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **more},
            capture_output=True,
            text=True,
            check=False,
        )

    found = run("status", "--json")
    assert found.returncode == 0, found.stderr
    assert [row["state"] for row in json.loads(found.stdout)] == ["up", "up", "up"]
    assert run("status", MLFLOW_TRACKING_URI="http://127.0.0.1:1").returncode == 1
    assert re.search(r"postgres +\| .*ready to accept connections", run("logs", "--lines", "99").stdout)
    assert run("logs", "s4").returncode == 2


def test_logs_end_with_the_lines_asked_for_and_follow(tmp_path: Path) -> None:
    log = stack.home(tmp_path) / "mlflow.log"
    log.parent.mkdir(parents=True)
    assert list(stack.logs(tmp_path, ["s3", "mlflow"], lines=9, follow=False)) == []
    log.write_text("one\ntwo\nthr")
    assert list(stack.logs(tmp_path, ["mlflow"], lines=9, follow=False)) == ["one", "two"]
    assert list(stack.logs(tmp_path, ["s3", "mlflow"], lines=1, follow=False)) == ["mlflow   | two"]
    following = stack.logs(tmp_path, ["mlflow"], lines=0, follow=True)
    with ThreadPoolExecutor(1) as pool:
        next_line = pool.submit(next, following)
        time.sleep(0.1)
        with log.open("a") as file:
            file.write("ee\n")
        assert next_line.result(timeout=5) == "three"
        log.write_text("new\n")  # set aside, and begun anew
        assert pool.submit(next, following).result(timeout=5) == "new"


FAMILY = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "child"])
time.sleep(60)
"""


def test_a_killed_parent_s_child_is_found_and_ends_even_if_it_will_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    (tmp_path / "family.py").write_text(FAMILY)
    parent = processes.start(
        [sys.executable, "family.py"],
        mark=str(tmp_path),
        folder=tmp_path,
        log=tmp_path / "log",
        environment=os.environ,
        user=None,
    )
    deadline = time.monotonic() + 20
    while len(found := processes.marked(str(tmp_path))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    (child,) = processes.marked(str(tmp_path))
    assert child in found
    processes.stop([child])
    assert processes.marked(str(tmp_path)) == []
    assert processes.alive([child]) == []


def settings(environment: dict[str, str], before: Settings | None = None) -> Settings:
    return settings_for(environment, remembered(before), database=Path("/data/postgres"), running=("s3", "postgres"))


def remembered(before: Settings | None) -> dict[str, str]:
    return {**before.hidden, **before.published} if before else {}


def test_settings_are_made_once_and_never_twice_the_same() -> None:
    first = settings({})
    assert settings({}, first) == first
    assert settings(first.published, first) == first
    assert settings({}).secret_key != first.secret_key
    assert settings({}).database_password != first.database_password


def test_a_person_s_keys_and_ports_win() -> None:
    theirs = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "mine", "FINGERS_S3_PORT": "9100"}
    for before in (None, settings({})):
        found = settings(theirs, before)
        assert found.published.items() >= {
            ("AWS_ACCESS_KEY_ID", "me"),
            ("AWS_SECRET_ACCESS_KEY", "mine"),
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9100"),
        }


def test_a_moved_port_is_published_anew() -> None:
    before = settings({})
    found = settings({**before.published, "FINGERS_MLFLOW_PORT": "5100"}, before)
    assert found.published == {**before.published, "MLFLOW_TRACKING_URI": "http://127.0.0.1:5100"}


def test_hidden_ports_that_somebody_took_are_made_anew() -> None:
    before = settings({})
    with socket.create_server(("127.0.0.1", before.weed_ports[3])):
        assert settings({}, before) == before  # it may be ourselves
        found = settings_for({}, remembered(before), database=Path("/data/postgres"), running=("postgres",))
    assert before.weed_ports[3] not in found.weed_ports
    assert replace(found, weed_ports=before.weed_ports) == before


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "me"}, "AWS_SECRET_ACCESS_KEY is not set"),
        ({"FINGERS_S3_PORT": "http"}, "FINGERS_S3_PORT: 'http' is no port"),
        ({"FINGERS_MLFLOW_PORT": "65536"}, "FINGERS_MLFLOW_PORT: '65536' is no port"),
        ({"AWS_ENDPOINT_URL_S3": "https://s3.example.org"}, "AWS_ENDPOINT_URL_S3 is https://s3.example.org, so"),
        ({"MLFLOW_TRACKING_URI": "http://me:hidden@team:5000"}, "MLFLOW_TRACKING_URI is http://team:5000, so"),
        ({"MLFLOW_BACKEND_STORE_URI": "postgresql://team/mlflow"}, "MLFLOW_BACKEND_STORE_URI names a database"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(StageError, match=re.escape(message)):
        settings(environment)


@pytest.mark.parametrize("address", ["http://127.0.0.1:5000", "http://localhost:5000/", ""])
def test_an_address_that_is_here_however_it_is_written_is_no_refusal(address: str) -> None:
    assert settings({"MLFLOW_TRACKING_URI": address}).mlflow_port == 5000


def test_env_survives_the_loss_of_local_and_of_the_password_with_it() -> None:
    lost = settings({}).published
    found = settings(lost)
    assert found.published.keys() == lost.keys()
    assert found.access_key == lost["AWS_ACCESS_KEY_ID"]


def test_without_the_extra_one_line_says_so() -> None:
    with pytest.raises(StageError, match=r"extra `local`"):
        servers.program("weed-that-is-not-there")


def running(folder: Path) -> dict[str, list[int]]:
    return {name: [p.pid for p in processes.marked(str(stack.home(folder) / name))] for name in ASK}


def kill(platform: Platform, names: list[str]) -> None:
    """As a crash or the system's memory killer would: at once, children first."""
    found = [each for name in names for each in processes.marked(str(stack.home(platform.folder) / name))]
    for process in reversed(found):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    while processes.alive(found):
        time.sleep(0.01)


def answer(
    port: int | None, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def connections(platform: Platform, name: str) -> Iterator[Any]:
    for process in processes.marked(str(stack.home(platform.folder) / name)):
        yield from (each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN)


def listening(platform: Platform, name: str) -> set[int]:
    return {connection.laddr[1] for connection in connections(platform, name)}
