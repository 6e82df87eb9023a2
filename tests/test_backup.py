"""Backups of real MLflow stores, restored into others, and the two compared table by table."""

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mlflow.entities import Metric
from sqlalchemy import Engine, event

from ops.backup import schedule, store
from ops.backup.archive import MANIFEST, Archive, Manifest, Member, is_safe, line, parsed
from ops.backup.plan import OnConflict, Step
from ops.backup.records import Point
from ops.backup.restore import restore
from ops.backup.take import take
from stages.mlflow_client import connect, tracking_uri
from stages.params import StageError
from stages.registry import Registry
from stages.release import ONNX_FILE
from stages.tracking import open_run
from stages.vision import engines
from stages.vision.detector import finger_count
from tests import systems
from tests.mlflow_sample import Sample, fill, in_files, on_platform, served, write
from tests.mlflow_server import MlflowServer, server_in
from tests.mlflow_tables import differences
from tests.native import ROOT, blurred_noise
from tests.platform import start_platform
from tests.released import COUNTS, SIZE, model, release

NewStore = Callable[[str], Sample]
METRICS = 40
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def new_store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> NewStore:
    """An empty store in files, which no server serves."""
    monkeypatch.chdir(tmp_path)  # MLflow keeps the artifacts of the experiment Default below it
    return lambda name: in_files(tmp_path / name, empty_store)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Sample:
    """The sample. Nobody changes it."""
    filled = in_files(tmp_path_factory.mktemp("source"), empty_store)
    fill(filled)
    return filled


@pytest.fixture(scope="module")
def backup(source: Sample) -> Path:
    taken = take(source.folder / "backup.zip", source.address)
    assert taken.manifest.left_out == []
    return taken.path


def into(target: Sample, backup: Path, on_conflict: OnConflict = "skip") -> list[Step]:
    """Restores, and holds the run against its dry run; what was there already is not told."""
    before = target.contents()
    planned = restore(backup, target.address, on_conflict, dry_run=True)
    assert differences(before, target.contents()) == [], "a dry run wrote"
    done = restore(backup, target.address, on_conflict, dry_run=False)
    assert done == planned
    return [step for step in done if step.verb != "keep"]


def test_an_empty_store_comes_back_empty(new_store: NewStore, tmp_path: Path) -> None:
    source, target = new_store("source"), new_store("target")
    taken = take(tmp_path / "backup.zip", source.address)
    assert {kind: count for kind, count in taken.manifest.counts.items() if count} == {"experiments": 1}
    assert into(target, taken.path) == []
    assert differences(source.contents(), target.contents()) == []


def test_everything_comes_back(source: Sample, backup: Path, new_store: NewStore) -> None:
    target = new_store("target")
    into(target, backup)
    assert differences(source.contents(), target.contents()) == []


def test_twice_is_once_and_into_its_own_store_is_nothing(source: Sample, backup: Path, new_store: NewStore) -> None:
    target = new_store("target")
    assert Counter((step.verb, step.kind) for step in into(target, backup)) == {
        ("create", "experiment"): 2,
        ("create", "run"): 6,
        ("create", "model"): 3,
        ("create", "version"): 4,
        ("create", "alias"): 2,
        ("delete", "experiment"): 1,
    }
    restored = target.contents()
    assert into(target, backup) == []
    assert differences(restored, target.contents()) == []
    assert into(source, backup) == []


def test_a_backup_of_what_was_restored_is_the_same_backup(source: Sample, backup: Path, new_store: NewStore) -> None:
    second, third = new_store("second"), new_store("third")
    into(second, backup)
    again = take(second.folder / "again.zip", second.address).path
    assert into(source, again) == []
    into(third, again)
    assert differences(source.contents(), third.contents()) == []


class Killed(BaseException):
    pass


@contextmanager
def killed_at(commit: int) -> Iterator[Counter[str]]:
    """Any program that uses a database in this process ends where it would commit for the so-manieth time."""
    counted: Counter[str] = Counter()

    def on_commit(_: object) -> None:
        counted["commits"] += 1
        if counted["commits"] == commit:
            raise Killed

    event.listen(Engine, "commit", on_commit)
    try:
        yield counted
    finally:
        event.remove(Engine, "commit", on_commit)


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_a_restore_that_was_killed_and_started_again_is_as_one(
    source: Sample, backup: Path, new_store: NewStore, every: int
) -> None:
    with killed_at(0) as counted:
        restore(backup, new_store("whole").address, "skip", dry_run=False)
    commits = counted["commits"]
    assert commits > 50
    for moment in range(1, commits + 1, every):
        left = killed_while_restoring(backup, new_store(f"killed{moment}"), moment)
        restore(backup, left.address, "skip", dry_run=False)
        assert differences(source.contents(), left.contents()) == [], f"killed at commit {moment}"


def test_a_version_keeps_its_number_whenever_a_restore_was_killed(new_store: NewStore, tmp_path: Path) -> None:
    """What makes the server count on, to leave a gap, must be seen by the restore that goes on."""
    source = new_store("source")
    client = source.client
    client.create_registered_model("fingers")
    for _ in range(3):
        client.create_model_version("fingers", "s3://elsewhere/model")
    client.delete_model_version("fingers", "1")
    client.delete_model_version("fingers", "2")
    backup = take(tmp_path / "backup.zip", source.address).path
    with killed_at(0) as counted:
        restore(backup, new_store("whole").address, "skip", dry_run=False)
    for moment in range(1, counted["commits"] + 1):
        left = killed_while_restoring(backup, new_store(f"killed{moment}"), moment)
        restore(backup, left.address, "skip", dry_run=False)
        assert differences(source.contents(), left.contents()) == [], f"killed at commit {moment}"


def killed_while_restoring(backup: Path, target: Sample, commit: int) -> Sample:
    """The target as it is on disk: this process lives on, and still has a transaction open."""
    with killed_at(commit), pytest.raises(Killed):
        restore(backup, target.address, "skip", dry_run=False)
    on_disk = f"sqlite:///{shutil.copy(target.folder / 'mlflow.db', target.folder / 'on_disk.db')}"
    return replace(target, address=on_disk, database=on_disk)


@pytest.mark.slow
def test_the_command_killed_three_times_and_started_again_is_as_one(
    source: Sample, backup: Path, tmp_path: Path, empty_store: Path
) -> None:
    server = server_in(tmp_path, empty_store)
    server.start()
    command = [str(Path(sys.executable).parent / "fingers"), "restore", str(backup)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server.address}
    try:
        with sqlite3.connect(server.folder / "server.db") as database:
            for table, rows in (("runs", 2), ("metrics", 20), ("model_versions", 1)):
                restoring = subprocess.Popen(command, cwd=ROOT, env=environment)
                while database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] < rows:  # noqa: S608
                    assert restoring.poll() is None
                restoring.kill()
                assert restoring.wait() == -signal.SIGKILL
        assert differences(source.contents(), served(server).contents()) != []
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        assert differences(source.contents(), served(server).contents()) == []
    finally:
        server.kill()


def test_nothing_is_cut_off_at_a_page(
    source: Sample, new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "A_PAGE", 1)
    monkeypatch.setattr(store, "POINTS_A_PAGE", 2)
    monkeypatch.setattr(store, "A_BATCH", 3)
    target = new_store("target")
    into(target, take(tmp_path / "backup.zip", source.address).path)
    assert differences(source.contents(), target.contents()) == []


def test_an_experiment_of_that_name_takes_the_runs(source: Sample, backup: Path, new_store: NewStore) -> None:
    target = new_store("target")
    target.experiment("finger-counter", {"team": "theirs"})
    steps = into(target, backup)
    assert ("update", "finger-counter", "tag mlflow.note.content") in told(steps)
    there, wanted = target.contents(), source.contents()
    assert there["experiments"]["finger-counter"]["tags"] == {"team": "theirs", "mlflow.note.content": "des doigts ✋"}
    assert differences(wanted["runs"], there["runs"]) == []


@pytest.mark.parametrize(
    ("on_conflict", "expected", "note"),
    [
        ("skip", ("skip", "finger-counter", "there with another tag mlflow.note.content"), "theirs"),
        ("overwrite", ("update", "finger-counter", "tag mlflow.note.content"), "des doigts ✋"),
        ("copy", ("create", "finger-counter-COPY", ""), "theirs"),
    ],
)
def test_an_experiment_of_that_name_with_other_tags(
    backup: Path, new_store: NewStore, on_conflict: OnConflict, expected: tuple[str, str, str], note: str
) -> None:
    target = new_store("target")
    target.experiment("finger-counter", {"mlflow.note.content": "theirs"})
    copy = copied(backup, "finger-counter")
    assert tuple(text.replace("finger-counter-COPY", copy) for text in expected) in told(
        into(target, backup, on_conflict)
    )
    there = target.contents()
    assert there["experiments"]["finger-counter"]["tags"]["mlflow.note.content"] == note
    home = copy if on_conflict == "copy" else "finger-counter"
    assert Counter(run["experiment"] for run in there["runs"].values()) == {home: 5, "gone": 1}
    assert {step.verb for step in into(target, backup, on_conflict)} <= {"skip"}
    assert differences(there, target.contents()) == []


@pytest.mark.parametrize("on_conflict", ["skip", "overwrite", "copy"])
def test_a_model_of_that_name_with_other_versions(
    source: Sample, backup: Path, new_store: NewStore, on_conflict: OnConflict
) -> None:
    """There: versions 1 and 2, version 1 as champion, deleted 3. In the backup: 2, 5 and 6."""
    target = new_store("target")
    theirs = target.client
    theirs.create_registered_model("fingers", {"task": "pose"}, "")
    for _ in range(3):
        theirs.create_model_version("fingers", "s3://theirs/model")
    theirs.delete_model_version("fingers", "3")
    theirs.set_registered_model_alias("fingers", "champion", "1")
    before = target.contents()["models"]["fingers"]
    steps = told(into(target, backup, on_conflict))
    there, wanted = target.contents()["models"], source.contents()["models"]["fingers"]
    if on_conflict == "skip":
        assert ("skip", "fingers 2", "another version has this number") in steps
        assert ("skip", "fingers@champion", "points to version 1") in steps
        versions = {number: wanted["versions"][number] for number in (5, 6)}
        expected = {**before, "versions": before["versions"] | versions, "description": "Counts fingers."}
        assert differences({**expected, "aliases": {"champion": 1, "challenger": 6}}, there["fingers"]) == []
    elif on_conflict == "overwrite":
        assert ("delete", "fingers", "with its versions 1, 2") in steps
        assert differences(wanted, there["fingers"]) == []
    else:
        assert differences(before, there["fingers"]) == []
        assert differences(wanted, there[copied(backup, "fingers")]) == []
    assert {step.verb for step in into(target, backup, on_conflict)} <= {"skip"}
    assert differences(there, target.contents()["models"]) == []


def test_a_version_that_was_deleted_comes_back_under_the_next_number(
    backup: Path, new_store: NewStore, source: Sample
) -> None:
    target = new_store("target")
    into(target, backup)
    target.client.delete_model_version("fingers", "5")
    assert told(into(target, backup)) == [
        ("create", "fingers 5", "its number was deleted there: it gets the next one"),
        ("create", "fingers@champion", "version 5"),
    ]
    there, wanted = target.contents()["models"]["fingers"], source.contents()["models"]["fingers"]
    assert there["aliases"] == {"champion": 7, "challenger": 6}
    assert differences(wanted["versions"][5], there["versions"][7]) == []
    assert into(target, backup) == []


def test_versions_that_can_keep_their_number_do_before_others_get_the_next(backup: Path, new_store: NewStore) -> None:
    """There: 1, 3 and 4, and a deleted 2. In the backup: 2, 5 and 6."""
    target = new_store("target")
    target.client.create_registered_model("fingers")
    for _ in range(4):
        target.client.create_model_version("fingers", "s3://theirs/model")
    target.client.delete_model_version("fingers", "2")
    into(target, backup)
    versions = target.contents()["models"]["fingers"]["versions"]
    assert {number: versions[number]["description"] for number in versions} == {
        1: "",
        3: "",
        4: "",
        5: "card 5",
        6: "card 6",
        7: "card 2",
    }


def test_what_was_deleted_by_mistake_comes_back_when_told_to(source: Sample, backup: Path, new_store: NewStore) -> None:
    target = new_store("target")
    into(target, backup)
    experiment = target.client.get_experiment_by_name("finger-counter")
    target.client.delete_experiment(experiment.experiment_id)
    assert ("skip", "finger-counter", "deleted there; overwrite would bring it back") in told(into(target, backup))
    into(target, backup, "overwrite")
    assert differences(source.contents(), target.contents()) == []


def test_the_champion_loads_from_the_server_it_was_restored_to(
    local_store: Path, new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = model(tmp_path / "detector.onnx")
    run_id = open_run("key", name="", resume=True).run_id
    registry = Registry("fingers")
    registry.set_alias("champion", registry.register(release(onnx, run_id), {ONNX_FILE: onnx}, "# card\n"))
    backup = take(tmp_path / "backup.zip", tracking_uri()).path
    target = new_store("target")
    into(target, backup)
    shutil.rmtree(local_store / ".local")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", target.address)
    champion = Registry("fingers").with_alias("champion")
    assert champion
    assert champion.run_id != run_id
    found = Registry("fingers").download(champion, tmp_path / "files")
    assert found == release(onnx, run_id), "the release is as it was signed: it names the run by its first id"
    detector = engines.load(tmp_path / "files", found)
    assert finger_count(detector(blurred_noise(0, SIZE, SIZE), 0.4).class_ids, COUNTS) == 3


def test_a_version_keeps_its_files_where_mlflow_has_them(new_store: NewStore, tmp_path: Path) -> None:
    """Registered from a logged model, whose files are in no run; a copy; only pointed to; without its run."""
    source, target = new_store("source"), new_store("target")
    client = source.client
    experiment = source.experiment("models")
    run_id = client.create_run(experiment).info.run_id
    logged = client.create_logged_model(experiment, "net", run_id)
    write(tmp_path / "files/weights", b"weights")
    client.log_model_artifacts(logged.model_id, str(tmp_path / "files"))
    for name in ("logged", "pointed", "orphan"):
        client.create_registered_model(name)
    client.create_model_version("logged", logged.artifact_location, run_id, model_id=logged.model_id)
    client.copy_model_version("models:/logged/1", "copied")
    client.create_model_version("pointed", "s3://elsewhere/model")
    client.create_model_version("orphan", f"runs:/{'0' * 32}/model", "0" * 32)
    taken = take(tmp_path / "backup.zip", source.address)
    assert taken.manifest.left_out == [
        f"files of orphan version 1: MLflow only points to them, at runs:/{'0' * 32}/model",
        "files of pointed version 1: MLflow only points to them, at s3://elsewhere/model",
        "logged models, but for the files of those that are registered",
    ]
    steps = told(into(target, taken.path))
    assert ("omit", "orphan 1", f"its files, runs:/{'0' * 32}/model, are in no run of the backup") in steps
    there = target.contents()["models"]
    for name in ("logged", "copied"):
        assert there[name]["versions"][1]["files"] == {"weights": sha256(b"weights").hexdigest()}
        assert there[name]["versions"][1]["run"] == run_id
    assert target.client.get_model_version("pointed", "1").source == "s3://elsewhere/model"
    assert there["orphan"]["versions"] == {}


@pytest.mark.slow
def test_a_run_that_goes_on_is_read_as_it_was_at_one_moment(running_server: MlflowServer, tmp_path: Path) -> None:
    """Metrics logged together are there equally often, or the backup says that the run never held still."""
    client = connect(running_server.address)
    experiment = client.create_experiment("a run that goes on")
    run_id = client.create_run(experiment).info.run_id
    begun, stop = threading.Event(), threading.Event()

    def train() -> None:
        for step in count():
            client.log_batch(run_id, [Metric(f"m{n}", step, 1_700_000_000_000 + step, step) for n in range(METRICS)])
            begun.set()
            if stop.wait(0.5):  # reading them all takes about as long
                return

    training = threading.Thread(target=train)
    training.start()
    try:
        begun.wait()
        for n in range(4):
            taken = take(tmp_path / f"{n}.zip", running_server.address)
            with Archive(taken.path) as archive:
                points = Counter(point.key for point in archive.points(run_id))
            never_still = any(run_id in what for what in taken.manifest.left_out)
            assert len(points) == METRICS
            assert len(set(points.values())) == 1 or never_still
    finally:
        stop.set()
        training.join()


@systems.files
def test_a_backup_that_fails_leaves_nothing_and_what_a_killed_one_left_goes(
    source: Sample, new_store: NewStore, tmp_path: Path
) -> None:
    odd = new_store("odd")
    run_id = odd.client.create_run(odd.experiment("odd")).info.run_id
    write(tmp_path / "back\\slash", b"")
    odd.client.log_artifact(run_id, str(tmp_path / "back\\slash"))
    folder = tmp_path / "backups"
    write(folder / ".fingers-20260101T000000Z.zip.partial/backup.zip", b"half")
    write(folder / "other.zip", b"theirs")
    with pytest.raises(StageError, match="no other system could take this name out of a zip"):
        take(folder / "backup.zip", odd.address)
    assert {path.name for path in folder.iterdir()} - {".fingers-backup.lock"} == {"other.zip"}
    with FileLock(folder / ".fingers-backup.lock"), pytest.raises(StageError, match="another backup is being written"):
        take(folder / "backup.zip", source.address)
    with pytest.raises(StageError, match=r"other\.zip: .*; name a folder that backups can be written to"):
        take(folder / "other.zip/backup.zip", source.address)
    path = take(folder / "backup.zip", source.address).path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_revision_without_a_lock_is_told_before_the_server_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(empty_repository(tmp_path / "repository")))
    with pytest.raises(StageError, match=r"HEAD: has no dvc\.lock"):
        take(tmp_path / "backup.zip", NOWHERE, ["HEAD"])
    with pytest.raises(StageError, match="no such revision"):
        take(tmp_path / "backup.zip", NOWHERE, ["nowhere"])


def test_dated_backups_go_but_for_the_newest_and_no_other_file_does(tmp_path: Path) -> None:
    days = [f"fingers-202601{day:02d}T000000Z.zip" for day in range(1, 6)]
    others = ["fingers.zip", "fingers-20260101.zip", "theirs-20260101T000000Z.zip", "fingers-20260101T000000Z.zip.txt"]
    for name in [*days, *others]:
        write(tmp_path / name, b"")
    assert schedule.prune(tmp_path, None) == []
    assert [path.name for path in schedule.prune(tmp_path, 2)] == days[:3]
    assert {path.name for path in tmp_path.iterdir()} == {*days[3:], *others}
    assert schedule.prune(tmp_path, 2) == []


def test_a_failed_backup_costs_no_older_one_its_place_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder whose newest backup is two days old, on a clock that only sleeping moves."""
    clock, slept = [datetime(2026, 1, 9, tzinfo=UTC)], []
    monkeypatch.setattr(schedule, "now", lambda: clock[0])

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += timedelta(seconds=seconds)
        if len(slept) == 4:
            raise Killed

    monkeypatch.setattr(time, "sleep", sleep)
    for day in (5, 6, 7):
        write(tmp_path / f"fingers-2026010{day}T000000Z.zip", b"")
    seen = []

    def back_up(path: Path) -> None:
        seen.append(sorted(found.name[8:16] for found in tmp_path.iterdir()))
        if len(seen) <= 2:
            raise StageError("MLflow is away")
        write(path, b"")

    with pytest.raises(Killed):
        schedule.repeat(tmp_path, timedelta(hours=24), 2, back_up)
    assert slept == [600, 600, 86_400, 86_400]
    assert seen == [["20260105", "20260106", "20260107"]] * 3 + [["20260107", "20260109"]]
    assert sorted(found.name[8:16] for found in tmp_path.iterdir()) == ["20260109", "20260110"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", timedelta(seconds=90)), ("30m", timedelta(minutes=30)), ("24h", timedelta(days=1)), ("7d", timedelta(7))],
)
def test_intervals(text: str, expected: timedelta) -> None:
    assert schedule.parsed_interval(text) == expected


@pytest.mark.parametrize("text", ["", "24", "h", "0h", "-1h", "1.5h", "24H"])
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(ValueError, match="is no interval"):
        schedule.parsed_interval(text)


def empty_repository(folder: Path) -> Path:
    folder.mkdir()
    for command in (["init", "-q"], ["config", "user.name", "t"], ["config", "user.email", "t@localhost"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "empty"], cwd=folder, check=True)
    return folder


@pytest.mark.slow
def test_the_cache_of_a_revision_comes_along(
    source: Sample, new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dvc.lock names a file, a directory, and a file that git holds itself."""
    repository = empty_repository(tmp_path / "repository")
    monkeypatch.setenv("DVC_ROOT", str(repository))
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=repository, check=True)
    cache = repository / ".dvc/cache/files/md5"
    model_md5, picture = cached(cache, b"model"), cached(cache, b"picture")
    listing = cached(cache, json.dumps([{"md5": picture, "relpath": "a.png"}]).encode(), ".dir")
    outs = [{"path": "model", "md5": model_md5}, {"path": "data", "md5": listing}, {"path": "metrics", "md5": "0" * 32}]
    write(repository / "dvc.lock", json.dumps({"schema": "2.0", "stages": {"train": {"outs": outs}}}).encode())
    write(repository / "metrics", b"")
    subprocess.run(["git", "add", "-A"], cwd=repository, check=True)
    subprocess.run(["git", "commit", "-q", "-m", "v1"], cwd=repository, check=True)
    backup = take(tmp_path / "backup.zip", source.address, ["HEAD"]).path
    held = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    shutil.rmtree(cache)
    assert ("create", str(cache), "3 objects") in told(into(new_store("target"), backup))
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == held
    assert told(into(source, backup)) == []
    shutil.rmtree(cache)
    with pytest.raises(StageError, match="model of HEAD is not in the DVC cache"):
        take(tmp_path / "backup.zip", source.address, ["HEAD"])


def cached(cache: Path, content: bytes, suffix: str = "") -> str:
    name = f"{md5(content, usedforsecurity=False).hexdigest()}{suffix}"
    write(cache / name[:2] / name[2:], content)
    return name


@pytest.mark.slow
def test_through_a_server_every_file_keeps_its_name(
    source: Sample, backup: Path, new_store: NewStore, tmp_path: Path, empty_store: Path
) -> None:
    server, target = server_in(tmp_path, empty_store), new_store("target")
    server.start()
    try:
        into(served(server), backup)
        assert differences(source.contents(), served(server).contents()) == []
        into(target, take(tmp_path / "again.zip", server.address).path)
        assert differences(source.contents(), target.contents()) == []
    finally:
        server.kill()


@pytest.mark.slow
def test_between_a_platform_of_postgresql_and_s3_and_another_server(
    short_path: Path, tmp_path: Path, empty_store: Path
) -> None:
    server = server_in(tmp_path, empty_store)
    server.start()
    try:
        ours, theirs = on_platform(start_platform(short_path)), served(server)
        fill(ours)
        there = take(tmp_path / "there.zip", ours.address)
        assert there.manifest.left_out == []
        into(theirs, there.path)
        assert differences(ours.contents(), theirs.contents()) == []
        assert into(theirs, there.path) == []
        ours.client.delete_registered_model("fingers")
        into(ours, take(tmp_path / "back.zip", theirs.address).path)
        assert differences(ours.contents(), theirs.contents()) == []
    finally:
        server.kill()


Members = list[tuple[zipfile.ZipInfo, bytes]]


def entry(name: str, content: bytes = b"x", *, packed: int = zipfile.ZIP_STORED, mode: int = 0) -> Members:
    info = zipfile.ZipInfo(name)
    info.compress_type, info.external_attr = packed, mode << 16
    return [(info, content)]


def manifest_of(members: Members, **changes: object) -> Members:
    """Which vouches for whatever is there."""
    known = {info.filename: Member(size=len(content), sha256=sha256(content).hexdigest()) for info, content in members}
    fields: dict[str, Any] = {"format": 1, "taken": "2026-01-01T00:00:00Z", "server": "", "mlflow": "", "counts": {}}
    manifest = Manifest.model_validate({**fields, "left_out": [], "revisions": {}, "members": known, **changes})
    return entry(MANIFEST, manifest.model_dump_json().encode())


def zipped(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for info, content in members:
            file.writestr(info, content)
    return path


RUN = entry("runs/a/run.json")
BAD: dict[str, tuple[Members, str]] = {
    "empty": ([], "has no manifest.json"),
    "no manifest": (RUN, "has no manifest.json"),
    "a later format": (manifest_of([], format=2), "has the format 2, not 1"),
    "not in the manifest": ([*RUN, *manifest_of([])], "runs/a/run.json is not in the manifest"),
    "missing": (manifest_of(RUN), "runs/a/run.json is missing"),
    "another content": (
        [*entry("runs/a/run.json", b"y"), *manifest_of(RUN)],
        "runs/a/run.json is not what was written",
    ),
    "no record": ([*RUN, *manifest_of(RUN)], "damaged, or no backup"),
    "a manifest that is none": (entry(MANIFEST, b"[1]"), "damaged, or no backup"),
    "above": ([*entry("runs/../../evil"), *manifest_of(entry("runs/../../evil"))], "a name that is not safe"),
    "from the root": ([*entry("/etc/evil"), *manifest_of(entry("/etc/evil"))], "a name that is not safe"),
    "of Windows": ([*entry("C:/evil"), *manifest_of(entry("C:/evil"))], "a name that is not safe"),
    "a link": (entry("runs/a/run.json", b"/etc/passwd", mode=stat.S_IFLNK | 0o777), "no plain file"),
    "a folder": (entry("runs/", b"", mode=stat.S_IFDIR | 0o755), "a name that is not safe"),
    "packed otherwise": (entry("runs/a/run.json", packed=zipfile.ZIP_LZMA), "packed in another way"),
    "a bomb": (
        entry("runs/a/metrics.jsonl", bytes(2**24), packed=zipfile.ZIP_DEFLATED),
        "a bomb: .* would become 16777216",
    ),
}


@pytest.mark.parametrize("members, why", BAD.values(), ids=BAD)
def test_a_hostile_or_broken_zip_is_refused_before_the_server_is_asked(
    members: Members, why: str, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=f"bad.zip: .*{why}"):
        restore(zipped(tmp_path / "bad.zip", members), NOWHERE, "skip", dry_run=False)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bad.zip", [*entry("runs/a/run.json"), *entry("runs/b/run.json"), *manifest_of([])])
    path.write_bytes(path.read_bytes().replace(b"runs/b", b"runs/a"))
    with pytest.raises(StageError, match="is there twice"):
        restore(path, NOWHERE, "skip", dry_run=False)


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bad.zip", [*RUN, *manifest_of(RUN)])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flags, in the zip's directory
    path.write_bytes(content)
    with pytest.raises(StageError, match="is encrypted"):
        restore(path, NOWHERE, "skip", dry_run=False)


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """The same compressed bytes under two names: small, and yet no single member expands much."""
    path = zipped(tmp_path / "bad.zip", [*RUN, *entry("runs/b/run.json"), *manifest_of([])])
    content = bytearray(path.read_bytes())
    offset = content.rindex(b"runs/b/run.json") - 4  # in the zip's directory: where the member begins
    content[offset : offset + 4] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(StageError, match="lies inside"):
        restore(path, NOWHERE, "skip", dry_run=False)


def test_a_backup_with_any_byte_changed_or_missing_is_refused_or_says_the_same(
    new_store: NewStore, tmp_path: Path
) -> None:
    """Some bytes of a zip mean nothing: dates, attributes."""
    path = take(tmp_path / "backup.zip", new_store("source").address).path
    whole, damaged = path.read_bytes(), tmp_path / "damaged.zip"
    with Archive(path) as archive:
        meant = (archive.manifest, list(archive.experiments()))
    refused = 0
    for at, mask in product(range(len(whole)), (0x01, 0x20, 0xFF)):
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
        try:
            with Archive(damaged) as archive:
                assert (archive.manifest, list(archive.experiments())) == meant, f"byte {at}"
        except StageError as error:
            refused += 1
            assert str(error).startswith(f"{damaged}: ")
    assert refused > len(whole)
    for end in range(len(whole)):
        damaged.write_bytes(whole[:end])
        with pytest.raises(StageError, match=r"damaged\.zip: "):
            Archive(damaged)


@pytest.mark.parametrize(
    ("name", "safe"),
    [("", False), ("a", True), ("a/b c é ✓.txt", True), ("a/..b", True), ("a//b", False), ("./a", False)]
    + [(name, False) for name in ("a/..", "a\\b", "a\nb", "a\x00", "c:a", "/a", "a/")],
)
def test_safe_names(name: str, safe: bool) -> None:
    assert is_safe(name) is safe


@pytest.mark.parametrize("value", ["0.1", "5e-324", "1e308", "-0.0", "nan", "inf", "-inf"])
def test_a_point_survives_its_line(value: str) -> None:
    point = Point("a b/c", -3, 1_700_000_000_000, float(value))
    assert repr(parsed(line(point))) == repr(point)


def told(steps: list[Step]) -> list[tuple[str, str, str]]:
    return [(step.verb, step.name, step.why) for step in steps]


def copied(backup: Path, name: str) -> str:
    with Archive(backup) as archive:
        return f"{name}-{archive.manifest.taken.replace('-', '').replace(':', '')}"
