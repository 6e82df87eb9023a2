"""A `.env` of KEY=value lines <-> settings: read as `run` reads it, written for its owner alone."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from stages.params import StageError


def read_dotenv(path: Path) -> dict[str, str]:
    """Empty without a file. Values are verbatim: no quotes, no expansion. Raises StageError, naming the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    settings: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise StageError(f"{path}: line {number} is not KEY=value")
        settings[key] = value
    return settings


def add_to_dotenv(path: Path, settings: Mapping[str, str]) -> None:
    """Sets each key, in its line if it has one, else in a new one; all other lines stay. Only the owner may read it."""
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    waiting = dict(settings)
    lines = [f"{key}={waiting.pop(key)}" if (key := line.partition("=")[0]) in waiting else line for line in old]
    lines += [f"{key}={value}" for key, value in waiting.items()]
    partial = path.with_name(f"{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
        file.write("".join(f"{line}\n" for line in lines))
    partial.replace(path)
