"""Files and folders are whole or absent, and errors a person can mend take one line."""

import errno
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stages.files import read_json, sha256_of, whole_directory, write_bytes, write_json
from stages.launch import launch
from stages.params import Params, StageError
from tests import systems
from tests.native import ROOT


def test_json_is_sorted_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "new/a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "new/a.json").read_bytes() == '{\n "a": "é",\n "b": 1\n}\n'.encode()
    assert read_json(tmp_path / "new/a.json") == {"b": 1, "a": "é"}


@systems.processes
def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")
    code = textwrap.dedent(f"""
        import resource, signal
        from pathlib import Path
        from stages.files import write_bytes
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        write_bytes(Path({str(path)!r}), b"x" * 5000)
    """)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "OSError" in done.stderr
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_takes_its_place_only_when_it_is_full(tmp_path: Path) -> None:
    with whole_directory(tmp_path / "out") as out:
        (out / "first").write_text("1")
    with pytest.raises(KeyError), whole_directory(tmp_path / "out") as out:
        (out / "second").write_text("2")
        raise KeyError
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["first"]


def test_what_a_killed_run_left_does_not_reach_the_next(tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial/stale").write_text("")
    with whole_directory(tmp_path / "out") as out:
        (out / "fresh").write_text("")
    assert os.listdir(tmp_path / "out") == ["fresh"]


def test_json_that_is_absent_or_broken_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"a.json: not found; the stage before it writes it: dvc repro"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": }')
    with pytest.raises(StageError, match=r"a.json: not JSON: .*line 1"):
        read_json(tmp_path / "a.json")


def test_sha256_is_the_one_that_everybody_computes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def mended(params: Params, path: Path) -> None:
    raise StageError(f"{path}: wrong")


def full(params: Params, path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def a_bug(params: Params, path: Path) -> None:
    raise KeyError(path)


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        (mended, "mended: error: data/x: wrong\n"),
        (full, "full: error: data/x: disk full; nothing was left half-written: free some space and run it again\n"),
    ],
)
def test_what_a_person_can_mend_is_one_line_and_exit_1(
    stage: object, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["stage", "data/x"])
    with pytest.raises(SystemExit) as stopped:
        launch(stage)  # type: ignore[arg-type]
    logging.getLogger().handlers.clear()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == line


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["stage", "data/x"])
    with pytest.raises(KeyError):
        launch(a_bug)
    logging.getLogger().handlers.clear()


def test_missing_paths_are_told_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(SystemExit):
        launch(mended)
    logging.getLogger().handlers.clear()
    assert capsys.readouterr().err == "mended: error: 0 paths given; usage: python -m stages.mended PATH\n"
