"""The checkout as it stands -> what a result came from: git revision, dvc.lock, data."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LOCK_FILE = Path("dvc.lock")


@dataclass(frozen=True)
class Checkout:
    """None where there is no git, no commit, no dvc.lock, or no experiment."""

    git: str | None  # the revision; in a DVC experiment its baseline's
    dirty: bool  # a tracked file differs from it, those apart that the pipeline itself writes
    lock: str | None
    data: str | None
    experiment: str | None


def read_checkout() -> Checkout:
    lock = _read_lock()
    outs = [out["path"] for stage in lock.values() for out in stage.get("outs", [])]
    return Checkout(
        git=_git("rev-parse", "--verify", "HEAD"),
        dirty=bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", *_except([LOCK_FILE, *outs]))),
        lock=lock_hash(lock),
        data=_data_hash(lock),
        experiment=os.environ.get("DVC_EXP_NAME"),
    )


def local_folder() -> Path:
    """`.local/` of the main checkout, which DVC names also to stages that run in an experiment's temporary copy."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()) / ".local"


def lock_hash(stages: Mapping[str, Any]) -> str | None:
    """sha256 of dvc.lock's stages, as sorted JSON, without register.

    DVC writes register's own entry after the stage has ended: with it the hash would match no dvc.lock ever committed.
    """
    kept = {name: stage for name, stage in stages.items() if name != "register"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest() if kept else None


def _data_hash(stages: Mapping[str, Any]) -> str | None:
    """What DVC calls the output of convert in its cache."""
    outs = stages.get("convert", {}).get("outs", [])
    return str(outs[0]["md5"]) if outs else None


def _read_lock() -> dict[str, Any]:
    try:
        document = yaml.safe_load(LOCK_FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return dict(document.get("stages") or {})


def _except(paths: list[Any]) -> list[str]:
    return [f":(exclude){path}" for path in paths]


def _git(*arguments: str) -> str | None:
    """What git prints; None when there is no git, no repository, or no commit."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
