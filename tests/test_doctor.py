"""`fingers doctor`: each piece that works, and each way in which it does not, on real servers."""

import json
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops import doctor
from ops.cli import app
from ops.doctor import examine
from ops.finding import Finding
from ops.processes import free_ports
from stages.files import write_text
from stages.mlflow_client import connect
from stages.params import StageError
from stages.registry import Registry
from stages.release import ONNX_FILE
from tests import released, systems
from tests.buckets import Bucket
from tests.native import ROOT
from tests.picsellia_platform import TOKEN, Serve, serve
from tests.platform import Platform

__all__ = ["serve"]


@pytest.fixture
def checkout(local_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the committed configuration."""
    root = local_store
    (root / ".dvc").mkdir()
    for name in (".dvc/config", "params.yaml", "requirements.lock", "dvc.yaml"):
        shutil.copy(ROOT / name, root / name)
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "add", "params.yaml")
    git(root, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--message", "first")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(root / ".local/site"))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(root / ".local/global"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(root / ".local/system"))
    return root


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True)


def find(root: Path, name: str) -> Finding:
    return examine(root, [name])[name]


@pytest.fixture
def on_platform(platform: Platform, bucket: Bucket, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The checkout's remote is the bucket."""
    for name, value in platform.environment.items():
        monkeypatch.setenv(name, value)
    point_remote_at(checkout, bucket.url)
    return bucket


def point_remote_at(checkout: Path, url: str) -> None:
    config = checkout / ".dvc/config"
    config.write_text(re.sub("(?<=url = ).*", url, config.read_text()))


def test_without_servers_nothing_fails_and_each_skipped_check_says_why(checkout: Path) -> None:
    found = examine(checkout, [name for name in doctor.checks() if name != "remote"])
    assert [name for name, finding in found.items() if finding.state == "ok"] == ["python", "git", "disk"]
    assert {finding.state for finding in found.values()} == {"ok", "skipped"}
    assert all(finding.detail for finding in found.values())


def test_on_the_platform_every_server_is_found_well_and_nothing_is_left_there(
    checkout: Path, platform: Platform, on_platform: Bucket
) -> None:
    artifacts = replace(on_platform, name="mlflow")
    before = artifacts.keys()
    found = examine(checkout, ["remote", "mlflow", "artifacts", "database"])
    assert {name: finding.state for name, finding in found.items()} == dict.fromkeys(found, "ok"), found
    assert (on_platform.keys(), artifacts.keys()) == (set(), before)
    assert platform.environment["AWS_SECRET_ACCESS_KEY"] not in repr(found)


@pytest.mark.parametrize(
    ("changes", "cause", "remedy"),
    [
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:{free}"}, "nobody answers", "fingers up"),
        ({"AWS_ACCESS_KEY_ID": "stranger"}, "does not know the key", "AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "guessed"}, "secret does not fit", "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no key is set", "AWS_ACCESS_KEY_ID"),
    ],
    ids=["down", "wrong key", "wrong secret", "no key"],
)
@pytest.mark.usefixtures("on_platform")
def test_what_is_wrong_with_the_remote_is_told_apart(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], cause: str, remedy: str
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # no key: botocore would ask for one there
    for name, value in changes.items():
        monkeypatch.setenv(name, value.format(free=free_ports(1)[0]))
    finding = find(checkout, "remote")
    assert finding.state == "failed"
    assert cause in finding.detail
    assert remedy in finding.remedy
    assert "guessed" not in repr(finding)


@pytest.mark.usefixtures("on_platform")
def test_a_bucket_that_is_not_there_is_named(checkout: Path) -> None:
    point_remote_at(checkout, "s3://absent")
    finding = find(checkout, "remote")
    assert finding.state == "failed"
    assert "s3://absent" in finding.detail
    assert "no such bucket" in finding.detail


def test_a_key_that_may_only_read_is_said_to_do_for_pull(checkout: Path, on_platform: Bucket) -> None:
    with on_platform.read_only():
        finding = find(checkout, "remote")
    assert finding.state == "failed"
    assert "may not write" in finding.detail
    assert "dvc pull" in finding.remedy


def test_a_remote_that_is_no_s3_is_tried_just_the_same(checkout: Path) -> None:
    (checkout / ".dvc/config").write_text(
        f"[core]\n    remote = disk\n['remote \"disk\"']\n    url = {checkout}/elsewhere\n"
    )
    assert find(checkout, "remote").state == "ok"


def test_mlflow_that_is_away_or_turns_the_name_away_is_told_apart(
    checkout: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert "fingers up" in find(checkout, "mlflow").remedy
    host = platform.mlflow.removeprefix("http://").replace("127.0.0.1", "127.1")  # another name for the same
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{host}")
    assert f"MLFLOW_SERVER_ALLOWED_HOSTS={host}," in find(checkout, "mlflow").remedy
    assert find(checkout, "artifacts").state == "failed"


@pytest.mark.usefixtures("on_platform")
def test_an_mlflow_of_another_version_is_a_failure(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.9.9")  # a second MLflow wants a second environment
    finding = find(checkout, "mlflow")
    assert finding.state == "failed"
    assert "2.9.9 here" in finding.detail


@pytest.mark.parametrize(
    ("uri", "state", "said"),
    [
        ("sqlite:///mlflow.db", "skipped", "sqlite"),
        ("postgresql://u:hidden@127.0.0.1/x", "failed", "postgresql+psycopg2://"),
        ("postgresql+psycopg2://u:hidden@127.0.0.1:{free}/x", "failed", "fingers up"),
    ],
)
def test_the_database_is_asked_by_the_driver_that_mlflow_will_use(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, uri: str, state: str, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", uri.format(free=free_ports(1)[0]))
    finding = find(checkout, "database")
    assert finding.state == state
    assert said in finding.detail + finding.remedy
    assert "hidden" not in repr(finding)


def test_the_token_of_picsellia_is_tried(checkout: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = serve([])
    params = checkout / "params.yaml"
    params.write_text(params.read_text().replace("https://app.picsellia.com", platform.host))
    monkeypatch.setenv("PICSELLIA_TOKEN", TOKEN)
    assert find(checkout, "picsellia").detail.endswith("alice")
    monkeypatch.setenv("PICSELLIA_TOKEN", "an-old-one")
    finding = find(checkout, "picsellia")
    assert finding.state == "failed"
    assert finding.remedy
    assert "an-old-one" not in repr(finding)


def test_a_package_of_another_version_than_locked_is_named(checkout: Path) -> None:
    write_text(checkout / "requirements.lock", "# made by uv\nnumpy==1.0\nno-such-package==1.0\n")
    finding = find(checkout, "python")
    assert finding.state == "failed"
    assert "not ==1.0" in finding.detail


def test_git_says_what_is_missing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "main at" in find(checkout, "git").detail
    shutil.rmtree(checkout / ".git")
    assert "git init" in find(checkout, "git").remedy
    assert {examine(checkout, ["remote", "disk"])[name].state for name in ("remote", "disk")} == {"failed"}
    monkeypatch.setenv("PATH", "")
    assert "apt install git" in find(checkout, "git").remedy


def test_a_disk_that_is_almost_full_is_a_failure(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ENOUGH_GB", 10**9)
    finding = find(checkout, "disk")
    assert finding.state == "failed"
    assert "dvc gc" in finding.remedy


@systems.files
def test_an_env_file_is_for_its_owner_and_not_for_git(checkout: Path) -> None:
    path = checkout / ".env"
    path.touch(0o600)
    assert find(checkout, ".env").state == "ok"
    path.chmod(0o640)
    assert find(checkout, ".env").remedy == "chmod 600 .env"
    git(checkout, "add", "--force", ".env")
    assert "git rm --cached .env" in find(checkout, ".env").remedy


def test_a_release_whose_file_is_absent_or_another_is_a_failure(checkout: Path) -> None:
    onnx = released.model(checkout / "models/detector.onnx")
    write_text(checkout / "models/release.json", released.release(onnx, None).model_dump_json())
    assert find(checkout, "model").state == "ok"
    released.model(onnx, count=4)
    assert "is not the file of" in find(checkout, "model").detail
    onnx.unlink()
    assert find(checkout, "model").remedy == "dvc pull, or dvc repro"


def test_a_champion_is_downloaded_and_compared_with_what_was_registered(
    checkout: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFAULT_MODEL_NAME", "doctored")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", platform.mlflow)
    client = connect(platform.mlflow)
    run_id = client.create_run(client.create_experiment("doctor")).info.run_id
    onnx = released.model(checkout / "models/detector.onnx")
    registry = Registry("doctored")
    registry.set_alias("champion", registry.register(released.release(onnx, run_id), {ONNX_FILE: onnx}, "card"))
    assert "version 1 is champion" in find(checkout, "model").detail


def test_a_check_that_hangs_is_a_failure_and_a_bug_stays_one(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIMIT", 0.1)
    monkeypatch.setattr(doctor, "git", lambda _: time.sleep(5))
    assert "no answer within" in find(checkout, "git").detail
    monkeypatch.setattr(doctor, "git", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        find(checkout, "git")


def test_the_command_ends_with_1_when_a_check_failed_and_with_2_for_none_of_them(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    run = CliRunner()
    good = run.invoke(app, ["doctor", "git", "--json"])
    assert good.exit_code == 0
    assert [row["check"] for row in json.loads(good.stdout)] == ["git"]
    shutil.rmtree(checkout / ".git")
    assert run.invoke(app, ["doctor", "git"]).exit_code == 1
    with pytest.raises(StageError, match="'gitt' is no check; there are python, git"):
        examine(checkout, ["gitt"])
