"""What the exporter tells Prometheus: true at each scrape, whatever is down."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from ops.exporter import Exporter
from tests.certificates import shown, write_certificate
from tests.platform import Platform
from tests.server import free_port

NOWHERE = "127.0.0.1:9"  # the port of `discard`, where nobody listens
ENDS = datetime(2031, 5, 1, 12, tzinfo=UTC)

Samples = Mapping[tuple[str, str], float]


def scraped(
    *,
    disks: tuple[Path, ...] = (),
    backups: Path | None = None,
    tls: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Samples:
    """By metric and the value of its label."""
    families = Exporter(disks, backups, tls, environment or {}).collect()
    return {
        (sample.name.removeprefix("fingers_"), "".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_asked_for_nothing_it_tells_nothing() -> None:
    assert scraped() == {}


def test_a_disk_is_as_large_and_as_free_as_the_system_says(tmp_path: Path) -> None:
    told = scraped(disks=(tmp_path,))
    assert told["disk_size_bytes", str(tmp_path)] == shutil.disk_usage(tmp_path).total
    assert 0 <= told["disk_free_bytes", str(tmp_path)] < told["disk_size_bytes", str(tmp_path)]


def test_of_backups_the_newest_counts_and_only_those_that_are_complete(tmp_path: Path) -> None:
    for name, content in {"20260102T000000Z": b"12345", "20260101T000000Z": b"1234567", "broken": b""}.items():
        (tmp_path / f"fingers-{name}.zip").write_bytes(content)
    (tmp_path / ".fingers-20260103T000000Z.zip.partial").mkdir()
    taken = datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    told = {("backups", ""): 2, ("backup_time_seconds", ""): taken, ("backup_size_bytes", ""): 5}
    assert scraped(backups=tmp_path) == told


@pytest.mark.parametrize("folder", ["", "not/there"])
def test_without_a_backup_it_says_that_there_is_none(tmp_path: Path, folder: str) -> None:
    assert scraped(backups=tmp_path / folder) == {("backups", ""): 0}


def test_a_certificate_is_read_where_clients_are_shown_it_whoever_signed_it(tmp_path: Path) -> None:
    with shown(write_certificate(tmp_path / "own.pem", ENDS)) as address:
        told = scraped(tls=(address,))
    assert told == {("server_up", address): 1, ("certificate_expires_seconds", address): ENDS.timestamp()}


def test_one_that_has_ended_already_is_read_too(tmp_path: Path) -> None:
    ended = datetime(2020, 1, 1, tzinfo=UTC)
    with shown(write_certificate(tmp_path / "own.pem", ended)) as address:
        assert scraped(tls=(address,))["certificate_expires_seconds", address] == ended.timestamp()


def test_where_nobody_answers_the_server_is_down_and_its_certificate_has_no_date() -> None:
    assert scraped(tls=(NOWHERE,)) == {("server_up", NOWHERE): 0}


def test_a_server_that_the_environment_names_and_that_is_away_is_down() -> None:
    away = {"MLFLOW_TRACKING_URI": f"http://{NOWHERE}", "AWS_ENDPOINT_URL_S3": f"http://{NOWHERE}"}
    assert scraped(environment=away) == {("server_up", "mlflow"): 0, ("server_up", "s3"): 0}


@pytest.mark.slow
def test_servers_are_asked_with_the_keys_that_programs_use(platform: Platform) -> None:
    told = scraped(environment=platform.environment)
    assert told == {("server_up", name): 1 for name in ("s3", "postgres", "mlflow")}
    wrong = {**platform.environment, "AWS_SECRET_ACCESS_KEY": "wrong"}
    assert scraped(environment=wrong)["server_up", "s3"] == 0


def test_the_command_answers_on_its_port_and_a_taken_port_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    port = free_port()
    fingers = Path(sys.executable).with_name("fingers")
    command = [str(fingers), "exporter", f"--port={port}", f"--disk={tmp_path}", f"--tls={NOWHERE}"]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        assert json.loads(running.stderr.readline())["message"] == f"http://127.0.0.1:{port}/metrics"
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        assert f'fingers_server_up{{server="{NOWHERE}"}} 0.0' in text
        assert "fingers_disk_free_bytes{" in text
        second = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
        taken = f"127.0.0.1:{port}: address already in use; --host, --port"
        assert (second.returncode, json.loads(second.stderr)["message"]) == (1, taken)
    finally:
        running.terminate()
        running.communicate()


@pytest.mark.parametrize("address", ["frontend", "frontend:https", ":443"])
def test_an_address_without_a_port_is_a_wrong_command_line(tmp_path: Path, address: str) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    fingers = Path(sys.executable).with_name("fingers")
    done = subprocess.run(
        [fingers, "exporter", "--tls", address], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "is no HOST:PORT" in done.stderr
