"""What a result came from, read off a checkout."""

import subprocess
from pathlib import Path

import pytest

from stages.lineage import lock_hash, read_checkout

LOCK = """schema: '2.0'
stages:
  convert:
    cmd: python -m stages.convert
    outs:
    - {path: data/yolo, hash: md5, md5: 1234.dir}
  evaluate:
    cmd: python -m stages.evaluate
    outs:
    - {path: metrics.json, hash: md5, md5: '99'}
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    (tmp_path / "dvc.lock").write_text(LOCK)
    (tmp_path / "metrics.json").write_text("1")
    (tmp_path / "train.py").write_text("1")
    git("init", "-q")
    git("add", "-A")
    git("-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "start")
    return tmp_path


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_a_folder_that_is_no_repository_has_no_lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    found = read_checkout()
    assert (found.git, found.dirty, found.lock, found.data, found.experiment) == (None, False, None, None, None)


@pytest.mark.usefixtures("repository")
def test_a_checkout_names_its_revision_and_its_data() -> None:
    found = read_checkout()
    assert found.git == git("rev-parse", "HEAD")
    assert found.data == "1234.dir"
    assert not found.dirty


def test_what_the_pipeline_writes_does_not_make_it_dirty_and_code_does(repository: Path) -> None:
    (repository / "metrics.json").write_text("2")
    (repository / "dvc.lock").write_text(LOCK.replace("99", "98"))
    (repository / "new.py").write_text("untracked")
    assert not read_checkout().dirty
    (repository / "train.py").write_text("2")
    assert read_checkout().dirty


def test_the_lock_has_one_hash_before_and_after_register_is_entered_in_it() -> None:
    stages = {"train": {"cmd": "a", "outs": []}}
    assert lock_hash({}) is None
    assert lock_hash(stages) == lock_hash({**stages, "register": {"cmd": "b"}})
    assert lock_hash(stages) != lock_hash({"train": {"cmd": "c", "outs": []}})
