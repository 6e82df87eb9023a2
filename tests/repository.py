"""This repository -> what there is to name: paths, outputs, words of the code, variables that are read, parameters."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import typer
import yaml

from ops.cli import app
from serve.settings import SECRETS, Settings
from stages.params import Params, StageError, parse_params
from tests.checkout import git_lines
from tests.native import ROOT

# Read by what the project calls, not by its own code.
READ_BY_OTHERS: Mapping[str, str] = {  # a package, or a program beside Python
    "AWS_CA_BUNDLE": "botocore",
    "COMPOSE_FILE": "docker-compose",
    "COMPOSE_PROJECT_NAME": "docker-compose",
    "MLFLOW_TRACKING_PASSWORD": "mlflow",
    "MLFLOW_TRACKING_TOKEN": "mlflow",
    "MLFLOW_TRACKING_USERNAME": "mlflow",
    "PIP_INDEX_URL": "pip",
    "RAY_AUTH_TOKEN_PATH": "ray",
    "RAY_USE_TLS": "ray",
    "REQUESTS_CA_BUNDLE": "requests",
}
ANY = object()  # a parameter's value that is not told


@cache
def tracked() -> frozenset[str]:
    """What git has, or would take."""
    found = git_lines("ls-files", "--cached", "--others", "--exclude-standard")
    return frozenset(name for name in found if (ROOT / name).exists())


@cache
def outputs() -> frozenset[str]:
    outs = [out for stage in stages().values() for kind in ("outs", "metrics") for out in stage.get(kind, ())]
    return frozenset(next(iter(out)) if isinstance(out, dict) else out for out in outs)


@cache
def stages() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return found


@cache
def source() -> str:
    """All that is no document, no example of settings, and does not itself check documents."""
    left_out = {"tests/repository.py", "tests/test_documents.py", ".env.example", "requirements.lock", "dvc.lock"}
    kept = [name for name in sorted(tracked() - left_out) if not name.endswith((".md", ".png", ".jpg", ".svg"))]
    return "\n".join((ROOT / name).read_text(encoding="utf-8", errors="replace") for name in kept)


@cache
def words() -> frozenset[str]:
    return frozenset(re.findall(r"\w+", source()))


@cache
def options() -> frozenset[str]:
    """Every long option of a command or a script of this repository."""
    written = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", source())
    return frozenset(written) | frozenset(_declared(fingers()))


def _declared(command: Any) -> Iterator[str]:
    for param in command.params:
        yield from param.opts
    for child in getattr(command, "commands", {}).values():
        yield from _declared(child)


def is_there(path: str, folder: Path = Path()) -> bool:
    """From the root, from folder, or by its name alone; … and <name> stand for anything.

    In git, an output of a stage or in one, ignored by git because something makes it, or written by the code.
    """
    if path.startswith(("/mnt/", "~/")):  # the reader's own
        return True
    if path.startswith("/"):  # a route, or a place in a container
        return path.rstrip("/") in source()
    pattern = re.sub(r"<\w+>|…", "*", path.removeprefix("./")).rstrip("/")
    return any(map(_is_known, (pattern, (folder / pattern).as_posix()))) or _is_a_name(pattern) or is_ignored(pattern)


def _is_known(place: str) -> bool:
    known = any(fnmatch(one, place) or one.startswith(f"{place}/") for one in tracked() | outputs())
    return known or any(place.startswith(f"{out}/") for out in outputs())


def _is_a_name(name: str) -> bool:
    is_bare = "/" not in name and any(fnmatch(Path(one).name, name) for one in tracked() | outputs())
    begins, varies, _ = name.partition("*")
    is_written = f'"{begins.rstrip("/")}' in source() if varies else f'"{name}"' in source()
    return is_bare or (is_written and bool(Path(name).suffix or begins.endswith("/")))


@cache
def is_ignored(path: str) -> bool:
    """As a file, or as a folder, which need not be there yet."""
    asked = ["git", "check-ignore", path, f"{path}/"]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, check=False).returncode == 0


@cache
def is_read(variable: str) -> bool:
    """Whether something looks at this variable of the environment."""
    settings = {name.upper() for name in Settings.model_fields} | {f"{name.upper()}_FILE" for name in SECRETS}
    if variable in settings or re.search(rf"\b{variable}\b", source()):
        return True
    return variable in READ_BY_OTHERS and any(
        variable.encode() in file.read_bytes() for file in files_of(READ_BY_OTHERS[variable])
    )


def files_of(name: str) -> Iterator[Path]:
    package = importlib.util.find_spec(name)
    if package is None:
        yield Path(sys.executable).with_name(name)
        return
    for folder in package.submodule_search_locations or ():
        yield from Path(folder).rglob("*.py")


@cache
def sections() -> frozenset[str]:
    return frozenset(field.alias or name for name, field in Params.model_fields.items())


def param_faults(changes: Mapping[str, Any]) -> list[str]:
    """section.key: value -> those that params.yaml does not have, or what is refused of all of them together."""
    document = json.loads(params())
    for name, value in changes.items():
        *keys, last = name.split(".")
        at = document
        for key in keys:
            at = at.get(key) if isinstance(at, dict) else None
        if not isinstance(at, dict) or last not in (ultralytics() if keys == ["train", "ultralytics"] else at):
            return [f"{name}: no such parameter"]
        if value is not ANY:
            at[last] = value
    if all(value is ANY for value in changes.values()):
        return []
    try:
        parse_params(document)
    except StageError as error:
        return [str(error)]
    return []


@cache
def params() -> str:
    """As JSON, of which a copy is soon made."""
    return json.dumps(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))


@cache
def fingers() -> Any:
    """The command and all below it."""
    return typer.main.get_command(app)


@cache
def ultralytics() -> frozenset[str]:
    """The settings of the Ultralytics installed, which is not imported for them."""
    package = importlib.util.find_spec("ultralytics")
    if package is None or package.origin is None:
        return frozenset()
    text = Path(package.origin).with_name("cfg").joinpath("default.yaml").read_text(encoding="utf-8")
    return frozenset(yaml.safe_load(text))
