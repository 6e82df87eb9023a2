"""./run: nothing to activate, .env read, one line for what is missing."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.native import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="run is for POSIX shells; run.bat is its twin")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose .venv is in step: its python is the one that runs the tests."""
    root = tmp_path / "a checkout"
    (root / "scripts").mkdir(parents=True)
    (root / ".venv/in-step").mkdir(parents=True)
    (root / ".venv/bin").mkdir()
    (root / ".venv/bin/python").symlink_to(sys.executable)
    shutil.copy(ROOT / "run", root)
    shutil.copy(ROOT / "scripts/setup_venv.py", root / "scripts")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
        shutil.copy(ROOT / name, root / ".venv/in-step")
    return root


def run(checkout: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(checkout / "run"), *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=checkout.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_arguments_reach_the_program_as_they_are(checkout: Path) -> None:
    done = run(checkout, "python", "-c", "import sys; print(sys.argv[1:])", "a b", "", "*", "$HOME", "'")
    assert done.stdout == "['a b', '', '*', '$HOME', \"'\"]\n"


def test_the_exit_code_is_the_programs(checkout: Path) -> None:
    assert run(checkout, "python", "-c", "raise SystemExit(7)").returncode == 7


def test_dotenv_is_read_as_it_stands_and_the_environment_wins(checkout: Path) -> None:
    (checkout / ".env").write_text("# secrets\n\nA=one two\r\nB=$(touch x)`\"'\nC=from file\nD=x=y", newline="")
    code = "import os; print([os.environ[k] for k in 'ABCD'])"
    assert run(checkout, "python", "-c", code, C="kept").stdout == "['one two', '$(touch x)`\"\\'', 'kept', 'x=y']\n"
    assert not (checkout.parent / "x").exists()


@pytest.mark.parametrize("line", ["no equals", "=value", "1A=x", "A B=x", "A;touch x=y"])
def test_a_line_of_dotenv_that_is_no_assignment_is_named(checkout: Path, line: str) -> None:
    (checkout / ".env").write_text(f"A=1\n{line}\n")
    done = run(checkout, "true")
    assert (done.returncode, done.stderr) == (1, "run: .env line 2 is not KEY=value\n")


def test_without_arguments_it_says_what_to_type(checkout: Path) -> None:
    done = run(checkout)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "./run dvc repro" in done.stderr


def out_of_step(checkout: Path) -> Path:
    (checkout / ".venv/in-step/requirements.lock").write_text("older\n")
    return checkout


def bin_with(folder: Path, *names: str) -> str:
    """A PATH that holds only these programs of this machine."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(shutil.which(name) or name)
    return str(folder)


def test_without_git_one_line_says_what_to_install(checkout: Path) -> None:
    done = run(out_of_step(checkout), "true", PATH=bin_with(checkout / "bin", "cmp", "dirname"))
    assert (done.returncode, done.stderr) == (1, "run: git is not installed; DVC needs it (Debian: apt install git)\n")


def test_an_old_python_is_refused_in_one_line(checkout: Path) -> None:
    path = bin_with(checkout / "bin", "cmp", "dirname", "git")
    old = checkout / "bin/python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = run(out_of_step(checkout), "true", PATH=path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("run: no Python 3.11 or newer found; install one, or name it: PYTHON=")


def test_without_a_network_one_line_says_what_to_do(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    done = run(checkout, "true", PYTHON=sys.executable, **nowhere)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith("run: could not install uv; is the package index reachable?")
    assert not (checkout / ".venv/in-step").exists()


def test_a_second_call_costs_little(checkout: Path) -> None:
    run(checkout, "true")
    started = time.perf_counter()
    run(checkout, "true")
    assert time.perf_counter() - started < 2  # 0.01 s here; the bound only catches a set-up that runs each time
