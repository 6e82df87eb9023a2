"""deploy/compose*.yaml -> what Compose itself makes of them; no container engine is needed to read."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.native import ROOT

DEPLOY = ROOT / "deploy"
OVERRIDES = ("seaweedfs", "cuda", "dev")
PROFILES = ("training", "restore", "grafana")

Service = dict[str, Any]


@cache
def config(*overrides: str, settings: Path = Path(os.devnull)) -> dict[str, Any]:
    """Everything, with all profiles on. settings: what stands for deploy/.env."""
    said = compose(overrides, ["config", "--format=json"], settings=settings)
    found: dict[str, Any] = json.loads(said)
    return found


def services(*overrides: str) -> dict[str, Service]:
    found: dict[str, Service] = config(*overrides)["services"]
    return found


def compose(
    overrides: Sequence[str],
    arguments: Sequence[str],
    profiles: Sequence[str] = PROFILES,
    settings: Path = Path(os.devnull),
) -> str:
    """What it printed. Nothing of the developer's environment is read."""
    files = [f"--file={DEPLOY / name}" for name in ("compose.yaml", *(f"compose.{one}.yaml" for one in overrides))]
    chosen = [f"--profile={profile}" for profile in profiles]
    return _said([f"--env-file={settings}", *files, *chosen, *arguments])


def composed_in(folder: Path, *arguments: str) -> dict[str, Service]:
    """The services, as who types `docker compose` in that folder gets them."""
    found: dict[str, Service] = json.loads(_said([*arguments, "config", "--format=json"], folder))["services"]
    return found


def _said(arguments: Sequence[str], folder: Path | None = None) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("docker-compose"), *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # a warning, as of a variable that nobody set
    return done.stdout
