"""What the services of deploy/compose.yaml run, run here: commands, environments, health checks, on the real parts."""

import hashlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from botocore.exceptions import ClientError

from ops import cluster
from ops.ask import s3_client
from ops.backup.schedule import dated
from ops.buckets import make_buckets
from ops.processes import free_ports
from ops.servers import program
from stages.files import read_json, write_json
from stages.params import StageError
from stages.registry import Registry
from tests.composed import config
from tests.containers import Container, Host
from tests.native import ROOT
from tests.pictures import saved
from tests.released import model, registered

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is the wget of images: apt install busybox"),
    pytest.mark.skipif(not shutil.which("prometheus"), reason="no prometheus: apt install prometheus"),
]


READER = "0123456789" * 4


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """With all services up that others depend on."""
    host = Host(Path(tempfile.mkdtemp(prefix="fingers-")))
    weed_ports = free_ports(9)
    with ExitStack() as stack:
        stack.callback(remove, host, weed_ports)
        found(host)
        stack.enter_context(postgres(host))
        stack.enter_context(host.container("minio").running(*flags(weed_ports)))
        assert host.container("buckets").run().stdout == "buckets: made: dvc, mlflow\n"
        stack.enter_context(host.container("mlflow").running())
        yield host


def found(host: Host) -> None:
    """Secrets, one more key that may only look, and the programs that images have and a PATH here has not."""
    subprocess.run([sys.executable, ROOT / "scripts/make_secrets.py", host.secrets], check=True, capture_output=True)
    known = read_json(host.secrets / "seaweedfs_identities.json")
    reader = {
        "name": "reader",
        "credentials": [{"accessKey": "reader", "secretKey": READER}],
        "actions": ["List", "Read"],
    }
    write_json(host.secrets / "seaweedfs_identities.json", {"identities": [*known["identities"], reader]})
    (host.folder / "containers/bin").mkdir(parents=True)
    (host.folder / "containers/bin/wget").symlink_to(str(shutil.which("busybox")))
    (host.folder / "containers/bin/weed").symlink_to(program("weed"))


@contextmanager
def postgres(host: Host) -> Iterator[Container]:
    """What the image's entry point makes of its environment: a cluster, its user with the password, and a database."""
    container = host.container("postgres")
    user, given, folder = cluster.system_user(), container.environment, host.volume("postgres")
    if user:
        cluster.make_system_user(user)
        cluster.let_pass(folder / "any")
        cluster.let_pass(host.secrets / "any")
        shutil.chown(folder, user, user)
        (container.root / "log").touch(mode=0o666)
    folder.chmod(0o700)
    who, where = f"--username={given['POSTGRES_USER']}", f"--pwfile={given['POSTGRES_PASSWORD_FILE']}"
    cluster.run("initdb", "-D", ".", who, where, *given["POSTGRES_INITDB_ARGS"].split(), folder=folder, user=user)
    sql = f"CREATE DATABASE {given['POSTGRES_DB']}"
    cluster.run("postgres", "--single", "-D", ".", "postgres", folder=folder, user=user, sql=sql)
    port = host.ports["5432"]
    command = ["postgres", "-D", str(folder), "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", ""]
    listening = replace(container, changes={"PGPORT": str(port)})
    with listening.running(command=command, user=user):
        yield listening


def flags(ports: list[int]) -> list[str]:
    """Ports of the other servers in weed, which a container has for itself."""
    names = [
        "s3.port.grpc",
        *(f"{part}.port{kind}" for part in ("master", "volume", "filer", "admin") for kind in ("", ".grpc")),
    ]
    return [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]


def remove(host: Host, weed_ports: list[int]) -> None:
    for port in (host.ports["9000"], *weed_ports):
        for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 -- weed puts them there
            socket.unlink()
    shutil.rmtree(host.folder)


def storage(host: Host, **keys: str) -> Any:
    return s3_client(
        {
            "AWS_ENDPOINT_URL_S3": host.url("9000"),
            "AWS_ACCESS_KEY_ID": secret(host, "s3_access_key"),
            "AWS_SECRET_ACCESS_KEY": keys.get("s3_secret_key", secret(host, "s3_secret_key")),
        }
    )


def secret(host: Host, name: str) -> str:
    return (host.secrets / name).read_text()


@pytest.mark.parametrize("name", ["postgres", "minio", "mlflow"])
def test_a_health_check_tells_a_server_that_is_there_from_one_that_is_not(host: Host, name: str) -> None:
    container = host.container(name, PGPORT=str(host.ports["5432"]))
    assert container.check().returncode == 0
    (elsewhere,) = free_ports(1)
    away = replace(container, ports=dict.fromkeys(host.ports, elsewhere))
    assert away.check(PGPORT=str(elsewhere)).returncode != 0


def test_the_health_of_mlflow_is_that_of_its_clients(host: Host) -> None:
    """One who uses a name that it does not know gets 403, and so does the check, where /health answers 200."""
    api = "/api/2.0/mlflow/experiments/search?max_results=1"

    def answer(name: str, path: str) -> int:
        return httpx.get(f"{host.url('5000')}{path}", headers={"Host": name}).status_code

    assert {
        name: answer(name, api) for name in ("mlflow:5000", "localhost:5000", "127.0.0.1:15000", "evil.example")
    } == {
        "mlflow:5000": 200,
        "localhost:5000": 200,
        "127.0.0.1:15000": 200,
        "evil.example": 403,
    }
    assert answer("evil.example", "/health") == 200


def test_buckets_are_made_once_and_opened_to_nobody_without_the_key(host: Host) -> None:
    assert host.container("buckets").run().stdout == "buckets: made: none, all are there\n"
    assert {bucket["Name"] for bucket in storage(host).list_buckets()["Buckets"]} == {"dvc", "mlflow"}
    assert httpx.get(f"{host.url('9000')}/mlflow").status_code == 403
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        storage(host, s3_secret_key="0" * 40).list_buckets()


def test_a_key_that_may_make_no_bucket_is_told_in_one_line(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.buckets.BUCKETS", ("another",))
    with pytest.raises(StageError, match=r"^bucket another: AccessDenied; make it yourself, or let this key"):
        make_buckets(
            {
                "AWS_ENDPOINT_URL_S3": host.url("9000"),
                "AWS_ACCESS_KEY_ID": "reader",
                "AWS_SECRET_ACCESS_KEY": READER,
            }
        )


def test_a_new_version_of_mlflow_finds_the_database_to_upgrade(host: Host) -> None:
    address = config()["services"]["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
    assert address in (ROOT / "docs/deployment.md").read_text()
    done = host.container("mlflow").run("mlflow", "db", "upgrade", address)
    assert done.returncode == 0, done.stdout


def test_runs_lie_in_postgres_and_files_in_s3(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    version = register(host, monkeypatch, "where-it-lies", 2)
    (there,) = [
        entry["Key"]
        for entry in storage(host).list_objects_v2(Bucket="mlflow")["Contents"]
        if entry["Key"].endswith(".onnx") and version.run_id in entry["Key"]
    ]
    content = storage(host).get_object(Bucket="mlflow", Key=there)["Body"].read()
    assert hashlib.sha256(content).hexdigest() == version.sha256
    assert not list((host.container("mlflow").root / "opt/fingers").glob("mlruns")), "nothing is kept in the container"


def test_no_secret_is_in_an_argument_or_a_log(host: Host) -> None:
    values = [path.read_text() for path in host.secrets.iterdir() if path.suffix == "" and path.stat().st_size]
    said = "".join(path.read_text(errors="replace") for path in (host.folder / "containers").glob("*/log"))
    said += repr([process.info["cmdline"] for process in psutil.process_iter(["cmdline"])])
    assert str(host.ports["5000"]) in said
    assert not [value for value in values if value in said]


def test_the_server_starts_without_a_model_and_takes_the_champion_when_there_is_one(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving, url = host.container("serving", DEFAULT_MODEL_NAME="served", RATE_LIMIT="off"), host.url("8000")
    user, metrics = ({"X-API-Key": secret(host, name)} for name in ("api_keys", "metrics_key"))
    with serving.running() as process:
        assert httpx.get(f"{url}/ready").status_code == 503, "healthy is not ready: a new platform has no model"
        register(host, monkeypatch, "served", 4)
        deadline = time.monotonic() + 60
        while httpx.get(f"{url}/ready").status_code != 200:
            assert time.monotonic() < deadline, serving.log
            time.sleep(0.5)
        answer = httpx.post(f"{url}/predict", content=saved("JPEG"), headers=user | {"Content-Type": "image/jpeg"})
        assert answer.json()["finger_count"] == 4
        assert httpx.post(f"{url}/predict", content=saved("JPEG")).status_code == 401
        assert httpx.get(f"{url}/metrics", headers=metrics).status_code == 200
        assert httpx.get(f"{url}/models", headers=metrics).status_code == 403
        assert serving.check().returncode == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert serving.check().returncode != 0
    assert [line for line in serving.log.splitlines() if not line.startswith("{")] == [], "logs are JSON"


def test_backups_come_by_themselves_old_ones_go_and_an_empty_platform_gets_all_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drill of docs/deployment.md."""
    version = register(host, monkeypatch, "backed-up", 5)
    folder = host.volume("backups")
    for day in range(1, 16):
        (folder / f"fingers-202001{day:02}T000000Z.zip").write_bytes(b"an old one")
    backup = host.container("backup")
    with backup.running() as process:
        deadline = time.monotonic() + 60
        while len(list(dated(folder))) != 14 or "is due at" not in backup.log:
            assert process.poll() is None, backup.log
            assert time.monotonic() < deadline, backup.log
            time.sleep(0.2)
    assert process.returncode == -signal.SIGTERM, "it holds nobody up while it waits"
    *_, (newest, _) = dated(folder)
    assert newest.stat().st_size > 1000

    restore = host.container("restore")
    inside = f"/var/lib/fingers/{newest.name}"
    assert "everything is there already" in restore.run(inside, "--dry-run").stdout
    with emptied(host) as empty:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", empty.url("5000"))
        assert empty.container("restore").run(inside).returncode == 0
        back = Registry("backed-up").with_alias("champion")
        assert back
        assert back.sha256 == version.sha256
        Registry("backed-up").download(back, host.folder / "downloaded")
        assert "everything is there already" in empty.container("restore").run(inside).stdout


@contextmanager
def emptied(host: Host) -> Iterator[Host]:
    """A second MLflow on the same servers, with a database and a folder of its own that hold nothing yet."""
    import psycopg2

    where = f"postgresql://fingers@127.0.0.1:{host.ports['5432']}/mlflow"
    connection = psycopg2.connect(where, password=secret(host, "postgres_password"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE empty")
    connection.close()
    (port,) = free_ports(1)
    empty = replace(host, ports={**host.ports, "5000": port})
    database = f"postgresql+psycopg2://fingers@127.0.0.1:{host.ports['5432']}/empty"
    places = {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow/empty"}
    with empty.container("mlflow", **places).running():
        yield empty


def test_the_exporter_sees_every_server_and_the_backups(host: Host) -> None:
    (host.volume("backups") / "fingers-20260101T000000Z.zip").write_bytes(b"a backup")
    exporter = host.container("exporter")
    with exporter.running():
        said = httpx.get(f"{host.url('9101')}/metrics", timeout=60).text
        for server in ("s3", "postgres", "mlflow"):
            assert f'fingers_server_up{{server="{server}"}} 1.0' in said
        assert re.search(r"^fingers_backup_time_seconds \d", said, re.MULTILINE)
        assert re.search(r"^fingers_disk_free_bytes\{.*\} [1-9]", said, re.MULTILINE)
    assert exporter.check().returncode != 0


def test_prometheus_starts_as_told_and_is_healthy(host: Host) -> None:
    prometheus = host.container("prometheus")
    with prometheus.running(
        f"--web.listen-address=127.0.0.1:{host.ports['9090']}", command=["prometheus", *prometheus.command]
    ):
        targets = httpx.get(f"{host.url('9090')}/api/v1/status/flags").json()["data"]
        assert targets["storage.tsdb.retention.time"] == "30d"
        assert httpx.get(f"{host.url('9090')}/api/v1/rules").json()["data"]["groups"], "the rules are found"
    assert prometheus.check().returncode != 0


def register(host: Host, monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> Any:
    """The champion of that name, which sees count fingers; logged as a training in a container would."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", host.url("5000"))
    monkeypatch.setenv("DVC_ROOT", str(host.folder))
    registry = Registry(name)
    version = registered(registry, model(host.folder / f"{name}.onnx", count), key=name)
    registry.set_alias("champion", version)
    return version
