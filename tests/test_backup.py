"""Backups of real MLflow stores, restored into others, and the two compared table by table."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.backup.restore import restore
from ops.backup.take import take
from tests.mlflow_sample import Sample, fill
from tests.mlflow_tables import differences

NewStore = Callable[[str], Sample]


@pytest.fixture
def new_store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> NewStore:
    """An empty store in files, which no server serves."""
    monkeypatch.chdir(tmp_path)  # MLflow keeps the artifacts of the experiment Default below it

    def made(name: str) -> Sample:
        folder = tmp_path / name
        (folder / "artifacts").mkdir(parents=True)
        shutil.copy(empty_store, folder / "mlflow.db")
        address = f"sqlite:///{folder}/mlflow.db"
        return Sample(folder, address, address, folder / "artifacts")

    return made


def test_an_empty_store_comes_back_empty(new_store: NewStore, tmp_path: Path) -> None:
    source, target = new_store("source"), new_store("target")
    taken = take(tmp_path / "backup.zip", source.address)
    assert taken.manifest.counts == {"experiments": 1}
    assert [step.verb for step in restore(taken.path, target.address, "skip", dry_run=False)] == ["keep"]
    assert differences(source.contents(), target.contents()) == []


def test_everything_comes_back(new_store: NewStore, tmp_path: Path) -> None:
    source, target = new_store("source"), new_store("target")
    fill(source)
    taken = take(tmp_path / "backup.zip", source.address)
    assert taken.manifest.left_out == []
    restore(taken.path, target.address, "skip", dry_run=False)
    assert differences(source.contents(), target.contents()) == []
