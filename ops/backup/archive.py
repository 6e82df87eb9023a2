"""Records and files <-> one zip with a manifest: written whole or not at all, and checked whole before it is used."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import zipfile
import zlib
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Self, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel
from tqdm import tqdm

from ops.backup.records import Experiment, Model, Point, Record, Run, Version
from stages.params import StageError

FORMAT = 1
MANIFEST = "manifest.json"
CHUNK = 2**20  # bytes held at a time
# Only our own JSON is deflated, which shrinks 10 to 50 times; files are stored as they are. What grows more is a bomb.
MOST_GROWTH = 200
SMALL = 2**20  # bytes: up to that a member may grow as it likes
HEADER = 30  # bytes before an entry's name
ENCRYPTED, UTF8 = 0x1, 0x800  # in an entry's flags
LONGEST_LINE = 2**12  # bytes of one point
LARGEST_RECORD = 2**26  # bytes: it is held in memory

T = TypeVar("T", bound=Record)


class Member(Record):
    size: int
    sha256: str


class Format(BaseModel):
    """What manifests of every format have."""

    format: int


class Manifest(Record):
    """The last member. left_out: what the server had and the backup has not, and why."""

    format: int
    taken: str  # UTC, ISO 8601: runs begun later are not in it
    server: str
    mlflow: str
    counts: dict[str, int]
    left_out: list[str]
    revisions: dict[str, str]  # whose DVC cache is in it: as they were asked for, and their commits
    members: dict[str, Member]


@contextmanager
def new_archive(path: Path) -> Iterator["ArchiveWriter"]:
    """path appears when the block, which closes the writer, ends well, and only if it can be read back.

    Until then all lies in a hidden folder beside it. One backup at a time in a folder: what a killed one left goes.
    """
    folder = path.parent
    try:
        _make_writable(folder)
        with FileLock(folder / ".fingers-backup.lock", timeout=0):
            for left in folder.glob(".*.zip.partial"):
                shutil.rmtree(left)
            partial = folder / f".{path.name}.partial"
            partial.mkdir(mode=0o700)  # whoever could read it could read all that was ever logged
            try:
                writer = ArchiveWriter(partial)
                yield writer
                with Archive(writer.path):
                    os.replace(writer.path, path)
            finally:
                shutil.rmtree(partial)
    except Timeout:
        raise StageError(f"{folder}: another backup is being written there; wait, or name another folder") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StageError(
            f"{folder}: disk full; nothing was left half-written: free some space, or name another"
        ) from None


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StageError(f"{folder}: {error.strerror}; name a folder that backups can be written to") from None


class ArchiveWriter:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "backup.zip"
        self.workspace = folder / "workspace"  # for what is to be added
        self.workspace.mkdir()
        self._members: dict[str, Member] = {}
        self.path.touch(mode=0o600)
        self._zip = zipfile.ZipFile(self.path, "w")

    def add_record(self, name: str, record: Record) -> None:
        self._add(name, [record.model_dump_json(indent=1).encode() + b"\n"], zipfile.ZIP_DEFLATED)

    def add_points(self, name: str, path: Path) -> None:
        """path: a file of `line` after line."""
        self._add(name, _chunks(path), zipfile.ZIP_DEFLATED)

    def add_file(self, name: str, path: Path) -> None:
        self._add(name, _chunks(path), zipfile.ZIP_STORED)

    def close(self, **fields: object) -> Manifest:
        """fields: those of the manifest, but for format and members."""
        manifest = Manifest.model_validate({"format": FORMAT, **fields, "members": self._members})
        self.add_record(MANIFEST, manifest)
        self._zip.close()
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        return manifest

    def _add(self, name: str, chunks: Iterable[bytes], method: int) -> None:
        if not is_safe(name):
            raise StageError(f"{name!r}: no other system could take this name out of a zip; rename it where it is")
        info = zipfile.ZipInfo(name)  # of 1980, like all: no clock in an output
        info.compress_type = method
        info.external_attr = (stat.S_IFREG | 0o600) << 16
        size, digest = 0, hashlib.sha256()
        with self._zip.open(info, "w", force_zip64=True) as member:
            for chunk in chunks:
                member.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        self._members[name] = Member(size=size, sha256=digest.hexdigest())


class Archive:
    """Nothing of it can be had before every member was checked. Raises StageError, naming the member and the fault."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with self._understood():
                self._zip = zipfile.ZipFile(path)
        except OSError as error:
            raise StageError(f"{path}: cannot be read: {error.strerror or error}") from None
        try:
            with self._understood():
                self._infos = checked_directory(path, self._zip.infolist())
                self._names = sorted(self._infos)
                self.manifest = self._read_manifest()
                self._check_members()
                self._check_content()
        except StageError:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def experiments(self) -> Iterator[Experiment]:
        for name in self._under("experiments/"):
            yield self.experiment(name.removeprefix("experiments/").removesuffix(".json"))

    def experiment(self, experiment_id: str) -> Experiment:
        return self._record(Experiment, f"experiments/{experiment_id}.json")

    def runs(self) -> Iterator[Run]:
        """Oldest first, as they were written."""
        for name in self._infos:
            if found := re.fullmatch(r"runs/([^/]+)/run\.json", name):
                run = self.run(found[1])
                if run.id != found[1]:
                    raise StageError(f"{self.path}: {name} is about another run, {run.id}")
                yield run

    def run(self, run_id: str) -> Run:
        return self._record(Run, f"runs/{run_id}/run.json")

    def points(self, run_id: str) -> Iterator[Point]:
        with self._understood(), self._zip.open(f"runs/{run_id}/metrics.jsonl") as lines:
            while text := lines.readline(LONGEST_LINE):
                yield parsed(text)

    def models(self) -> Iterator[tuple[str, Model]]:
        """Each with the folder that it has in the archive."""
        for name in self._under("models/"):
            if name.endswith("/model.json"):
                folder = name.removesuffix("/model.json")
                yield folder, self.model(folder)

    def model(self, folder: str) -> Model:
        return self._record(Model, f"{folder}/model.json")

    def versions(self, folder: str) -> Iterator[Version]:
        for path in self.files(f"{folder}/versions"):
            yield self.version(folder, int(path.removesuffix(".json")))

    def version(self, folder: str, number: int) -> Version:
        return self._record(Version, f"{folder}/versions/{number}.json")

    def files(self, folder: str) -> Iterator[str]:
        """Paths below folder, sorted."""
        for name in self._under(f"{folder}/"):
            yield name.removeprefix(f"{folder}/")

    def extract(self, name: str, path: Path) -> None:
        with self._understood(), self._zip.open(name) as member, path.open("wb") as file:
            shutil.copyfileobj(member, file, CHUNK)

    def _read_manifest(self) -> Manifest:
        """Of a format that this program knows: a later one may have other fields."""
        if MANIFEST not in self._infos:
            raise StageError(f"{self.path}: has no {MANIFEST}: it is no backup, or not a whole one")
        content = self._content(MANIFEST)
        written = Format.model_validate_json(content).format
        if written != FORMAT:
            raise StageError(
                f"{self.path}: has the format {written}, not {FORMAT}: read it with the program that wrote it"
            )
        return Manifest.model_validate_json(content)

    def _check_members(self) -> None:
        found = {name for name in self._infos if name != MANIFEST}
        if differing := sorted(found ^ set(self.manifest.members)):
            what = "is not in the manifest" if differing[0] in found else "is missing"
            raise StageError(f"{self.path}: {differing[0]} {what}")
        size = sum(member.size for member in self.manifest.members.values())
        with tqdm(total=size, desc="check", unit="B", unit_scale=True, disable=None) as bar:
            for name, member in self.manifest.members.items():
                digest, read = hashlib.sha256(), 0
                with self._zip.open(name) as file:
                    while chunk := file.read(CHUNK):
                        digest.update(chunk)
                        read += len(chunk)
                        bar.update(len(chunk))
                if (read, digest.hexdigest()) != (member.size, member.sha256):
                    raise StageError(f"{self.path}: {name} is not what was written: its sha256 differs")

    def _check_content(self) -> None:
        """Every record and every point can be read: a restore must not find out half-way."""
        deque(self.experiments(), maxlen=0)
        for run in self.runs():
            deque(self.points(run.id), maxlen=0)
        for folder, _ in self.models():
            deque(self.versions(folder), maxlen=0)

    def _record(self, kind: type[T], name: str) -> T:
        with self._understood():
            return kind.model_validate_json(self._content(name))

    def _content(self, name: str) -> bytes:
        if self._infos[name].file_size > LARGEST_RECORD:
            raise StageError(f"{self.path}: {name} would take {self._infos[name].file_size} bytes of memory")
        return self._zip.read(name)

    def _under(self, prefix: str) -> Iterator[str]:
        first, end = bisect_left(self._names, prefix), bisect_left(self._names, f"{prefix}\U0010ffff")
        return iter(self._names[first:end])

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """What zipfile, zlib, json and pydantic raise about the content -> StageError."""
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, ValueError) as error:
            what = str(error).partition("\n")[0] or type(error).__name__
            raise StageError(f"{self.path}: damaged, or no backup: {what}") from None


def checked_directory(path: Path, infos: Sequence[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Name: entry, of a zip whose entries are plain files of our kind, each once. Raises StageError, naming the fault.

    After David Fifield, "A better zip bomb" (2019): entries that share bytes grow without being compressed much.
    """
    known: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if fault := "there twice" if info.filename in known else fault_of(info):
            raise StageError(f"{path}: {info.filename!r} is {fault}; nothing was restored")
        known[info.filename] = info
    for one, other in pairwise(sorted(infos, key=lambda info: info.header_offset)):
        if one.header_offset + HEADER + len(one.filename.encode()) + one.compress_size > other.header_offset:
            raise StageError(f"{path}: {other.filename!r} lies inside {one.filename!r}: a bomb; nothing was restored")
    return known


def fault_of(info: zipfile.ZipInfo) -> str | None:
    """Why no backup has such an entry."""
    faults = {
        "a name that is not safe": not is_safe(info.filename) or info.filename != info.orig_filename,
        "outside the file": info.header_offset < 0,
        "no plain file": stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG),
        "encrypted": info.flag_bits & ENCRYPTED,
        "packed in another way than backups are": info.flag_bits & ~UTF8
        or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
        f"a bomb: {info.compress_size} bytes that would become {info.file_size}": info.file_size
        > max(SMALL, MOST_GROWTH * info.compress_size),
    }
    return next((fault for fault, found in faults.items() if found), None)


def is_safe(name: str) -> bool:
    """Whether a file of that name stays below the folder it is taken out to, on every system."""
    plain = not re.search(r"[\\\x00-\x1f\x7f\ud800-\udfff]", name)
    return plain and all(part not in ("", ".", "..") for part in name.split("/")) and ":" not in name.partition("/")[0]


def line(point: Point) -> bytes:
    """JSON has no NaN and no infinity: there they are text, as in MLflow's own answers."""
    value = point.value if math.isfinite(point.value) else str(point.value)
    return json.dumps([point.key, point.step, point.time, value]).encode() + b"\n"


def parsed(text: bytes) -> Point:
    """Raises ValueError."""
    match json.loads(text):
        case [str(key), int(step), int(time), int() | float() | "nan" | "inf" | "-inf" as value]:
            return Point(key, step, time, float(value))
        case _:
            raise ValueError(f"{text[:80]!r} is no point of a metric")


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
