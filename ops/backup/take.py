"""A server -> a backup: the registry first, then every run that had begun by then, each read until it holds still."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

from tqdm import tqdm

from ops.backup.archive import ArchiveWriter, Manifest, line, new_archive
from ops.backup.cache import FOLDER, cached_objects, commits_of
from ops.backup.records import Experiment, Run, Version
from ops.backup.store import Store, open_store
from stages.mlflow_client import Refused, redacted

logger = logging.getLogger(__name__)

READINGS = 5  # of a run that changes while it is read
RETRIES = 3  # of a request
COUNTED = ("experiments", "runs", "points", "artifacts", "artifact_bytes", "models", "versions")
POINTS, FILES = "metrics.jsonl", "files"  # of the run that is being read, in the workspace


@dataclass(frozen=True)
class Taken:
    path: Path
    size: int  # bytes
    manifest: Manifest


def take(path: Path, address: str, revisions: Sequence[str] = ()) -> Taken:
    """revisions: of git, whose DVC cache is put in too. path appears whole, or not at all. Raises StageError."""
    taken = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    commits = commits_of(revisions)
    objects = cached_objects(commits)
    with open_store(address, retries=RETRIES) as store, new_archive(path) as archive:
        backup = Backup(store, archive)
        backup.add_all()
        for name, file in sorted(objects.items()):
            archive.add_file(f"{FOLDER}/{name}", file)
        manifest = archive.close(
            taken=taken,
            server=redacted(address),
            mlflow=installed("mlflow"),
            counts=dict(backup.counts),
            left_out=backup.left_out,
            revisions=commits,
        )
    for what in manifest.left_out:
        logger.warning("left out: %s", what)
    return Taken(path, path.stat().st_size, manifest)


@dataclass
class Backup:
    """One backup while it is taken."""

    store: Store
    archive: ArchiveWriter
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTED, 0)))
    left_out: list[str] = field(default_factory=list)

    def add_all(self) -> None:
        """A version's run and files are there before the version: read later, none of them can be missing."""
        self.add_models()
        experiments = list(self.store.experiments())
        for experiment in experiments:
            self.archive.add_record(f"experiments/{experiment.id}.json", experiment)
            self.counts["experiments"] += 1
        self.add_runs(experiments)
        self.left_out += self.store.not_in_a_backup([experiment.id for experiment in experiments])

    def add_models(self) -> None:
        models = list(self.store.models())
        for number, model in enumerate(tqdm(models, desc="models", disable=None), 1):
            folder = f"models/{number:04d}"
            self.archive.add_record(f"{folder}/model.json", model)
            self.counts["models"] += 1
            for version in self.store.versions(model.name):
                if not version.is_placeholder:
                    self.add_version(folder, model.name, version)

    def add_version(self, folder: str, name: str, version: Version) -> None:
        """Files that MLflow keeps outside the version's run come along; those that it only points to do not."""
        run, _ = (self.store.run(version.run_id) if version.run_id else None) or (None, None)
        address = version.source
        if address.startswith("models:/"):  # a logged model, or a version of which this is a copy
            address = self.store.files_of_version(name, version.number)
        path = below(run.artifact_uri, address) or below(f"runs:/{run.id}", address) if run else None
        if run and path is None and below(run.artifact_uri.removesuffix(f"/{run.id}/artifacts"), address):
            self.add_files(f"{folder}/files/{version.number}", address)
        elif path is None:
            self.left_out.append(f"files of {name} version {version.number}: MLflow only points to them, at {address}")
        kept = version.model_copy(update={"path_in_run": path})
        self.archive.add_record(f"{folder}/versions/{version.number}.json", kept)
        self.counts["versions"] += 1

    def add_runs(self, experiments: Sequence[Experiment]) -> None:
        """Those there are now: only their ids are kept in memory."""
        listed = self.store.runs([experiment.id for experiment in experiments])
        for run_id in tqdm(list(dict.fromkeys(run.id for run in listed)), desc="runs", disable=None):
            self.add_run(run_id)

    def add_run(self, run_id: str) -> None:
        """As it is when nothing changed while it was read; the last reading of one that never holds still."""
        for attempt in range(1, READINGS + 1):
            before = self.store.run(run_id)
            if before is None:
                self.left_out.append(f"run {run_id}: deleted for good while the backup was taken")
                return
            run, newest = before
            if run.is_half_restored:
                self.left_out.append(f"run {run_id}: half restored; let the restore come to its end")
                return
            try:
                points = self.read_points(run, newest)
                files = self.read_files(run.artifact_uri)
            except Refused:  # what was listed is gone
                if attempt == READINGS:
                    raise
                continue
            if self.store.run(run_id) == before and files == self.store.files(run.artifact_uri):
                break
        else:
            self.left_out.append(f"what was logged to run {run_id} in its last moments: it never held still")
        self.archive.add_record(f"runs/{run_id}/run.json", run)
        self.archive.add_points(f"runs/{run_id}/metrics.jsonl", self.archive.workspace / POINTS)
        self.add_read_files(f"runs/{run_id}/artifacts", files)
        self.counts.update(runs=1, points=points)

    def read_points(self, run: Run, keys: Iterable[str]) -> int:
        count = 0
        with (self.archive.workspace / POINTS).open("wb") as file:
            for key in sorted(keys):
                for point in self.store.history(run.id, key):
                    file.write(line(point))
                    count += 1
        return count

    def read_files(self, uri: str) -> dict[str, int]:
        """Path: size of each file, as they have come into the workspace."""
        folder = self.archive.workspace / FILES
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if files := self.store.files(uri):
            self.store.download(uri, files, folder)
        return {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}

    def add_read_files(self, folder: str, files: Mapping[str, int]) -> None:
        for path in files:
            self.archive.add_file(f"{folder}/{path}", self.archive.workspace / FILES / path)
        self.counts.update(artifacts=len(files), artifact_bytes=sum(files.values()))

    def add_files(self, folder: str, uri: str) -> None:
        self.add_read_files(folder, self.read_files(uri))


def below(root: str, address: str) -> str | None:
    """The path from one artifact address to another; None when it does not lead down."""
    return address.removeprefix(f"{root}/") if address.startswith(f"{root}/") else None
