"""requirements.lock -> a .venv that holds exactly that and this project; run and run.bat call it when they differ."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
IN_STEP = VENV / "in-step"  # copies of what was installed: run compares them with what stands in the tree
INPUTS = ("requirements.lock", "pyproject.toml")


def main() -> None:
    started = time.monotonic()
    with exclusive(ROOT / ".venv.lock"):
        if in_step():  # another process set it up while this one waited
            return
        say("setting up .venv from requirements.lock (once; 5 GB with torch)")
        create_venv()
        shutil.rmtree(IN_STEP, ignore_errors=True)
        # compiled once, here: where Python may not write bytecode (PYTHONDONTWRITEBYTECODE, as in many containers),
        # each start would compile torch again
        uv("pip", "sync", "--quiet", "--compile-bytecode", str(ROOT / "requirements.lock"))
        uv("pip", "install", "--quiet", "--no-deps", "--editable", str(ROOT))
        step([str(PYTHON), str(ROOT / "scripts/plots_page.py")], "could not write .dvc/plots_page.html")
        IN_STEP.mkdir()
        for name in INPUTS:
            shutil.copyfile(ROOT / name, IN_STEP / name)
    say(f"ready after {time.monotonic() - started:.0f} s")


def in_step() -> bool:
    return all((IN_STEP / n).is_file() and (IN_STEP / n).read_bytes() == (ROOT / n).read_bytes() for n in INPUTS)


def create_venv() -> None:
    """A venv with the locked uv in it. One whose Python is gone or too old is made anew."""
    version = (
        subprocess.run(
            [str(PYTHON), "-c", "import sys; print(sys.version_info >= (3, 11))"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        if PYTHON.exists()
        else ""
    )
    if version != "True":
        shutil.rmtree(VENV, ignore_errors=True)
        step([sys.executable, "-m", "venv", str(VENV)], "python cannot make a venv; Debian: apt install python3-venv")
    locked = re.search(r"^uv==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    if locked is None:
        fail("requirements.lock does not name uv; refresh it as docs/architecture.md says")
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", f"uv=={locked.group(1)}"]
    step(pip, "could not install uv; is the package index reachable? Try again with a network, or set PIP_INDEX_URL")


def uv(*arguments: str) -> None:
    environment = {**os.environ, "VIRTUAL_ENV": str(VENV)}
    step(
        [str(PYTHON), "-m", "uv", *arguments],
        "could not install the packages; is the package index reachable? What was fetched is kept: run it again",
        environment,
    )


def step(command: list[str], remedy: str, environment: dict[str, str] | None = None) -> None:
    """Runs one command; when it fails, its own last line goes before the remedy."""
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        fail(f"{remedy} ({lines[-1] if lines else f'exit {done.returncode}'})")


class exclusive:  # noqa: N801 - reads as a verb in `with`
    """One set-up at a time: the operating system gives the lock back when its holder dies."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.file = self.path.open("a+b")
        if sys.platform == "win32":
            import msvcrt

            while True:
                try:
                    msvcrt.locking(self.file.fileno(), msvcrt.LK_LOCK, 1)
                    return
                except OSError:  # it gives up after ten seconds; a set-up takes longer
                    time.sleep(1)
        import fcntl

        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self.file.close()


def say(text: str) -> None:
    sys.stderr.write(f"run: {text}\n")


def fail(text: str) -> NoReturn:
    say(text)
    sys.exit(1)


if __name__ == "__main__":
    main()
