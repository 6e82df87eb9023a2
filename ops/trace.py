"""A registered version -> where it came from, whether that is still at hand, and the commands that make it again."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ops.models import released
from stages.lineage import LOCK_FILE, lock_hash
from stages.params import PARAMS_FILE, StageError
from stages.registry import Registry, Version
from stages.release import Release
from stages.runs import Run, Runs
from stages.tracking import flat


@dataclass(frozen=True)
class Check:
    holds: bool
    text: str


@dataclass(frozen=True)
class Trace:
    model: str
    version: str
    sha256: str
    run_id: str | None
    git: str | None  # the revision that was checked out; for a DVC experiment its baseline
    commit: str | None  # the one whose dvc.lock, and so whose data, code and parameters, the version came from
    lock: str | None
    data: str | None
    params: Mapping[str, Any]
    checks: list[Check]
    commands: list[str]  # none when no commit is at hand


def trace(registry: Registry, runs: Runs, root: Path, version: Version) -> Trace:
    """Raises StageError when the version's files are not as registered."""
    release = released(registry, version)
    lineage = release.lineage
    commit = commit_with_lock(root, lineage.lock) if lineage.lock else None
    base = commit or (lineage.git if lineage.git and has_commit(root, lineage.git) else None)
    return Trace(
        model=registry.name,
        version=version.number,
        sha256=version.sha256,
        run_id=lineage.run_id,
        git=lineage.git,
        commit=commit,
        lock=lineage.lock,
        data=lineage.data,
        params=lineage.params,
        checks=list(checks(release, runs.get(version.run_id), commit, base)),
        commands=commands(root, base, lineage.params) if base else [],
    )


def checks(release: Release, run: Run | None, commit: str | None, base: str | None) -> Iterator[Check]:
    lineage = release.lineage
    yield Check(True, f"{release.file} in the registry has the sha256 that was registered")
    yield Check(run is not None, f"run {lineage.run_id} is {'in MLflow' if run else 'no longer in MLflow'}")
    if lineage.git is None:
        yield Check(False, "no git revision was recorded: it was made outside a repository")
    elif base is None:
        yield Check(False, f"commit {lineage.git} is not in this clone: git fetch --all, or dvc exp pull")
    elif commit is None:
        yield Check(False, f"no commit in this clone has its dvc.lock: what {lineage.git[:12]} makes is trained anew")
    else:
        yield Check(True, f"commit {commit[:12]} has its dvc.lock: data, code and parameters are as they were")
    if commit is None and run is not None and run.tags.get("git_dirty") == "true":
        yield Check(False, "files differed from the commit when it was trained; of these only params.yaml is known")


def commands(root: Path, base: str, params: Mapping[str, Any]) -> list[str]:
    """In a shell, at the root of a clone that has the commit base."""
    changes = overrides(yaml.safe_load(_git(root, "show", f"{base}:{PARAMS_FILE}") or "{}"), params)
    settings = "".join(f" -S {shlex.quote(change)}" for change in changes)
    differently = [f"./run dvc exp run --pull --allow-missing{settings}"]
    as_it_was = ["./run dvc pull # brings data and model as they were;", "./run dvc repro -f # makes them again"]
    weights = needed_weights(root, base, str(params["train"]["weights"]))
    return [f"git checkout {base}", *weights, *(differently if changes else as_it_was)]


def needed_weights(root: Path, base: str, weights: str) -> Iterator[str]:
    """An architecture's .yaml and a file in git need nothing."""
    if weights.endswith(".pt") and _git(root, "cat-file", "-e", f"{base}:{weights}") is None:
        yield f"test -f {shlex.quote(weights)} # train.weights: put the same file there; official ones are fetched"


def overrides(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What `dvc exp run -S` takes to make params.yaml say wanted: Hydra's syntax, only what differs, sorted."""
    old, new = dict(flat(before)), dict(flat(wanted))
    removed = [f"~{name}" for name in old.keys() - new.keys() if not any(key.startswith(f"{name}.") for key in new)]
    changed = [
        f"{'' if name in old else '+'}{name}={in_hydra(value)}"
        for name, value in new.items()
        if name not in old or old[name] != value
    ]
    return sorted([*removed, *changed], key=lambda change: change.lstrip("+~"))


def in_hydra(value: object) -> str:
    """https://hydra.cc/docs/advanced/override_grammar/basic/: a backslash counts only before a quote."""
    match value:
        case str() if re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value.lower() not in (
            "true",
            "false",
            "null",
            "nan",
        ):
            return value
        case str():
            return '"' + re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + (m[2] and '\\"'), value) + '"'
        case list():
            return f"[{','.join(map(in_hydra, value))}]"
        case _:
            return json.dumps(value)


def matching(registry: Registry, root: Path, *, sha256: str = "", git: str = "", run: str = "") -> list[Version]:
    """Versions with that file, of that run, or of that revision, newest first; each may be given by its beginning.

    A revision, branch or tag is a version's when that was made on it, or when it holds the version's dvc.lock.
    Raises StageError when there is none.
    """
    revision = (
        _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{git}^{{commit}}") or git if git else ""
    )
    lock = hash_at(root, revision) if revision else None
    found = [
        version
        for version in registry.versions()
        if (sha256 and version.sha256.startswith(sha256.lower()))
        or (run and version.run_id.startswith(run))
        or (revision and version.tags.get("git", "").startswith(revision))
        or (lock and version.tags.get("lock") == lock)
    ]
    if not found:
        raise StageError(f"{registry.name}: no version of {sha256 or git or run!r}; fingers models lists them")
    return found


def commit_with_lock(root: Path, lock: str) -> str | None:
    """The newest commit on any branch, tag or DVC experiment of the clone whose dvc.lock has this hash."""
    commits = (_git(root, "log", "--all", "--format=%H", "--", str(LOCK_FILE)) or "").split()
    return next((commit for commit in commits if hash_at(root, commit) == lock), None)


def hash_at(root: Path, revision: str) -> str | None:
    text = _git(root, "show", f"{revision}:{LOCK_FILE}")
    return lock_hash(yaml.load(text, yaml.CSafeLoader).get("stages") or {}) if text else None


def has_commit(root: Path, revision: str) -> bool:
    return _git(root, "cat-file", "-e", f"{revision}^{{commit}}") is not None


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None when it fails, as where the repository has no such thing."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
