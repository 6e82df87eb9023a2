"""scripts/: one name, three shells, the same commands; their arguments passed on, every exit code kept."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ops.doctor import checks
from tests.__main__ import checks as checks_of
from tests.native import ROOT
from tests.test_workflows import program

NAMES = ("backup", "down", "restore", "serve", "train", "up")
FORMS = ("sh", "ps1", "bat")
GIVEN = {"sh": '"$@"', "ps1": "@args", "bat": "%*"}
posix = pytest.mark.skipif(os.name != "posix", reason="cmd and PowerShell are held by their text alone")

# What the environment's programs do in a test: say what they were called with, and fail when told to.
RECORDER = """#!/bin/sh
printf '%s' "${0##*/}" >> "$CALLS"
for argument; do printf '|%s' "$argument" >> "$CALLS"; done
printf ' in %s\\n' "$PWD" >> "$CALLS"
case "${0##*/} $1" in "$FAILS") exit 7 ;; esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """With the real scripts and the real ./run, whose environment holds programs that only record."""
    root = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run", root)
    (root / ".venv/in-step").mkdir(parents=True)
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
        shutil.copy(ROOT / name, root / ".venv/in-step")
    (root / ".venv/bin").mkdir()
    for name in ("dvc", "fingers", "python"):
        (root / ".venv/bin" / name).write_text(RECORDER)
        (root / ".venv/bin" / name).chmod(0o755)
    return root


def run(script: Path, *arguments: str, fails: str = "", cwd: Path | None = None) -> tuple[int, list[str]]:
    """The exit code, and what was called: a line each, its arguments after bars."""
    calls = script.parent.parent.parent / "calls"
    environment = {"PATH": os.environ["PATH"], "CALLS": str(calls), "FAILS": fails}
    done = subprocess.run([script, *arguments], env=environment, cwd=cwd or script.parent.parent.parent, check=False)
    return done.returncode, calls.read_text().splitlines()


def said(name: str, form: str) -> list[str]:
    return (ROOT / f"scripts/{name}.{form}").read_bytes().decode("ascii").splitlines()


def commands(name: str, form: str) -> list[str]:
    """What it runs through ./run, with ARGUMENTS for those that it was given."""
    opening = {"sh": r"(?:exec )?\./run ", "ps1": r" *\./run\.bat ", "bat": r"(?:call )?\.\\run\.bat "}[form]
    found = [re.fullmatch(f"{opening}(.*)", line) for line in said(name, form)]
    return [one[1].replace(GIVEN[form], "ARGUMENTS") for one in found if one]


def test_there_are_no_others() -> None:
    found = {path.name for form in FORMS for path in (ROOT / "scripts").glob(f"*.{form}")}
    assert found == {f"{name}.{form}" for name in NAMES for form in FORMS}


@pytest.mark.parametrize("name", NAMES)
def test_the_three_forms_say_and_do_the_same(name: str) -> None:
    shell, powershell, cmd = (commands(name, form) for form in FORMS)
    assert shell == powershell == cmd
    assert shell[-1].endswith(" ARGUMENTS")
    words = {form: next(line for line in said(name, form) if re.match(r"(#|rem) ", line)) for form in FORMS}
    assert words["sh"] == words["ps1"] == words["bat"].replace("rem", "#", 1)


@pytest.mark.parametrize("name", NAMES)
def test_what_they_call_exists(name: str) -> None:
    for command in commands(name, "sh"):
        first, *rest = command.split()
        if first == "python":
            assert (ROOT / rest[0]).is_file()
        elif rest[0] == "doctor":
            assert set(rest[1:]) <= set(checks())
        else:
            called = [program(first), *(word for word in rest[:1] if word != "ARGUMENTS"), "--help"]
            assert subprocess.run(called, capture_output=True, check=False, cwd=ROOT).returncode == 0, command


@posix
@pytest.mark.parametrize("name", NAMES)
def test_every_argument_arrives_as_it_was_given(checkout: Path, name: str) -> None:
    code, calls = run(checkout / f"scripts/{name}.sh", "a b", "", "*", "$HOME", "'", '"', "--x=é")
    assert code == 0
    assert (
        calls[-1]
        == f"{calls[-1].split('|')[0]}|{commands(name, 'sh')[-1].split()[1]}|a b||*|$HOME|'|\"|--x=é in {checkout}"
    )
    assert len(calls) == len(commands(name, "sh"))


@posix
@pytest.mark.parametrize("name", NAMES)
def test_the_exit_code_is_that_of_the_command_that_failed_and_nothing_follows_it(checkout: Path, name: str) -> None:
    for position, command in enumerate(commands(name, "sh"), 1):
        (checkout.parent / "calls").write_text("")
        code, calls = run(checkout / f"scripts/{name}.sh", fails=" ".join(command.split()[:2]))
        assert (code, len(calls)) == (7, position)


@posix
def test_they_work_from_anywhere_and_through_a_link(checkout: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(checkout / "scripts/up.sh")
    (elsewhere / "link of link").symlink_to("link")
    environment = {"PATH": os.environ["PATH"], "CALLS": str(tmp_path / "calls"), "FAILS": ""}
    for script in ("./link", "./link of link", str(checkout / "scripts/up.sh")):
        subprocess.run([script, "--json"], env=environment, cwd=elsewhere, check=True)
    assert (tmp_path / "calls").read_text().splitlines() == [f"fingers|up|--json in {checkout}"] * 3


@posix
def test_shellcheck_finds_nothing() -> None:
    scripts = [ROOT / "run", ROOT / ".ci/run", *(ROOT / "scripts").glob("*.sh")]
    done = subprocess.run([program("shellcheck"), *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_shell_form_may_be_executed_and_stops_at_the_first_failure(name: str) -> None:
    lines = said(name, "sh")
    assert lines[0] == "#!/bin/sh"
    assert "set -e" in lines
    assert os.name != "posix" or os.access(ROOT / f"scripts/{name}.sh", os.X_OK)


@pytest.mark.parametrize("name", NAMES)
def test_the_powershell_form_keeps_to_its_rules(name: str) -> None:
    """Not run here. A native program's failure is no error to PowerShell: each is followed by a look at its code."""
    lines = said(name, "ps1")
    assert lines[1:3] == ["Push-Location (Join-Path $PSScriptRoot '..')", "try {"]
    assert lines[-3:] == ["} finally {", "    Pop-Location", "}"], "the caller's folder comes back"
    body = lines[3:-3]
    assert body[-1] == "    exit $LASTEXITCODE"
    for call, after in zip(body[:-2:2], body[1:-2:2], strict=True):
        assert call.startswith("    ./run.bat ")
        assert after == "    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }"


@pytest.mark.parametrize("name", NAMES)
def test_the_cmd_form_keeps_to_its_rules(name: str) -> None:
    """Not run here. Without `call` the first batch file would be the last; with it, cmd reads %* twice."""
    assert (ROOT / f"scripts/{name}.bat").read_bytes().count(b"\n") == len(said(name, "bat"))
    assert b"\n" not in (ROOT / f"scripts/{name}.bat").read_bytes().replace(b"\r\n", b""), "cmd wants CRLF"
    lines = said(name, "bat")
    assert lines[0] == "@echo off"
    assert lines[2] == "setlocal DisableDelayedExpansion", "an argument's ! stays, and the caller's folder comes back"
    assert lines[3] == 'cd /d "%~dp0.."'
    *first, last = lines[4:]
    assert last.startswith(".\\run.bat ")
    for call, after in zip(first[::2], first[1::2], strict=True):
        assert call.startswith("call .\\run.bat ")
        assert after == "if %errorlevel% neq 0 exit /b %errorlevel%"


@pytest.mark.parametrize(
    "arguments", [[], ["test"], ["TEST"], ["--all"], ["test", "--all", *"123456789", "--maxfail=1"]]
)
def test_a_test_run_takes_what_run_bat_cannot_leave_out(arguments: list[str]) -> None:
    assert b"\r\npython -m tests %*\r\n" in (ROOT / "run.bat").read_bytes()
    *_, pytest_ = checks_of(arguments)
    chosen = [] if "--all" in arguments else ["-m", "not slow"]
    assert pytest_ == ["pytest", *chosen, *(word for word in arguments if word.lower() not in ("test", "--all"))]


@pytest.mark.parametrize(
    ("arguments", "environment", "root"),
    [
        ([], {}, "http://127.0.0.1:8000"),
        ([], {"PORT": "8123"}, "http://127.0.0.1:8123"),
        (["--port", "8200", "--device", "cpu"], {"PORT": "8123"}, "http://127.0.0.1:8200"),
        (["--port=8200"], {}, "http://127.0.0.1:8200"),
        ([], {"HOST": "0.0.0.0", "API_KEYS": "k" * 16}, f"http://{socket.gethostname()}:8000"),  # noqa: S104
    ],
)
def test_the_addresses_are_those_of_the_server(arguments: list[str], environment: dict[str, str], root: str) -> None:
    done = addresses(*arguments, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"page     {root}/\npredict  {root}/predict\ndocs     {root}/docs\nmetrics  {root}/metrics\n"


def test_a_setting_that_is_not_allowed_is_named_instead() -> None:
    done = addresses("--port", "80")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("addresses: PORT: '80' is not allowed: ")


def addresses(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, ROOT / "scripts/addresses.py", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )
