"""A clean clone of this repository in which DVC runs, with nothing of the caller's that could reach a server."""

import json
import operator
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.native import ROOT

# Seconds instead of minutes: everything runs, nothing is learnt.
TINY = {
    "pull.demo.pictures": "120",
    "pull.demo.image_size": "96",
    "train.image_size": "64",
    "train.epochs": "2",
    "quantize.pictures": "8",
    "evaluate.worst": "3",
}


@dataclass(frozen=True)
class Checkout:
    """The clone's root, and what runs in it."""

    root: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "AWS_", "DVC_", "GIT_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**kept, "PATH": path, "PYTHONWARNINGS": "ignore", **more}

    def run(self, *command: str, code: int = 0, **environment: str) -> str:
        """What it printed. Fails with it when the exit code is another."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}"
        return done.stdout

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)


def clone(folder: Path) -> Checkout:
    """HEAD with what is not committed yet on top, committed there. Skips the test where DVC could not run in it."""
    if yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["pull"]["sources"] != ["demo"]:
        pytest.skip("pull.sources names more than drawings, and a clone has no other pictures")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    for name in git_lines("ls-files", "--modified", "--others", "--exclude-standard"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    checkout = Checkout(folder)
    checkout.git("config", "user.name", "tests")
    checkout.git("config", "user.email", "tests@localhost")
    checkout.git("add", "--all")
    checkout.git("commit", "--quiet", "--allow-empty", "--message", "as it stands")
    checkout.run(sys.executable, "scripts/plots_page.py")
    return checkout


def shrink(checkout: Checkout) -> None:
    """Its params are TINY then, and it forgets the committed demo's sides: few of those drawings are left."""
    params = yaml.safe_load((checkout.root / "params.yaml").read_text())
    for key, value in TINY.items():
        *sections, last = key.split(".")
        reduce(operator.getitem, sections, params)[last] = int(value)
    (checkout.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (checkout.root / "data/sides.csv").unlink()


def git_lines(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def stored(checkout: Checkout) -> dict[str, Any]:
    """All runs and versions of the clone's own MLflow store, oldest first."""
    said = checkout.run("python", "-m", "tests.mlflow_store", "sqlite:///.local/mlflow/mlflow.db")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found
