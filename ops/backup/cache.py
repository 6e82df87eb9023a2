"""The DVC cache of named revisions <-> members of a backup: what dvc.lock names and git does not hold itself."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from ops.backup.archive import Archive
from stages.lineage import LOCK_FILE, local_folder
from stages.params import StageError

FOLDER = "cache"


def commits_of(revisions: Sequence[str]) -> dict[str, str]:
    """By revision. Raises StageError for one that is unknown."""
    return {revision: git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") for revision in revisions}


def cached_objects(commits: Mapping[str, str], paths: Collection[str] | None = None) -> dict[str, Path]:
    """Name in the cache: file, of everything that the commits' outputs are made of; directories with their content.

    paths: only these outputs. Raises StageError when one is not in the local cache.
    """
    outs = [(revision, out) for revision, commit in commits.items() for out in outputs(commit, revision)]
    outs = [(revision, out) for revision, out in outs if paths is None or out["path"] in paths]
    cache = cache_folder() if outs else Path()
    found: dict[str, Path] = {}

    def add(md5: str, what: str) -> Path:
        name = f"{md5[:2]}/{md5[2:]}"
        path = found[name] = cache / name
        if not path.is_file():
            raise StageError(f"{what} is not in the DVC cache: check that revision out, and dvc fetch")
        return path

    for revision, out in outs:
        listing = add(out["md5"], f"{out['path']} of {revision}")
        if out["md5"].endswith(".dir"):
            for entry in json.loads(listing.read_bytes()):
                add(entry["md5"], f"{out['path']}/{entry['relpath']} of {revision}")
    return found


def outputs(commit: str, revision: str) -> Iterator[dict[str, str]]:
    """Those of dvc.lock that git itself does not hold (`cache: false`)."""
    tracked = set(git("ls-tree", "-r", "--name-only", commit).splitlines())
    if LOCK_FILE.as_posix() not in tracked:
        raise StageError(f"{revision}: has no {LOCK_FILE}; name a revision in which dvc repro ran")
    stages = yaml.safe_load(git("show", f"{commit}:./{LOCK_FILE}")).get("stages", {})
    for stage in stages.values():
        yield from (out for out in stage.get("outs", []) if out["path"] not in tracked)


def missing_objects(archive: Archive, cache: Path) -> list[str]:
    """Names of those in the archive that the cache has not."""
    return [name for name in archive.files(FOLDER) if not (cache / name).is_file()]


def restore_object(archive: Archive, name: str, cache: Path) -> None:
    """Under its final name only when its md5 is the one that the name says."""
    path = cache / name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    archive.extract(f"{FOLDER}/{name}", partial)
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != name.replace("/", "").removesuffix(".dir"):
        partial.unlink()
        raise StageError(f"{archive.path}: {FOLDER}/{name} has the md5 {found}")
    partial.chmod(0o444)  # as DVC protects what it may link to
    partial.replace(path)


def cache_folder() -> Path:
    """Of DVC's files by md5, where .dvc/config has it."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "cache", "dir"], cwd=root(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StageError(f"dvc cache dir: {done.stderr.strip().splitlines()[-1]}")
    return Path(done.stdout.strip()) / "files/md5"


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageError(f"git {' '.join(arguments)}: {done.stderr.strip() or 'no such revision'}")
    return done.stdout.strip()


def root() -> Path:
    """Where dvc.yaml is, to which the paths of dvc.lock are relative."""
    return local_folder().parent
