"""What is to be logged -> lines on disk that survive a kill, and how far each server has got with them."""

import os
import shutil
import uuid
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

JOURNAL = "journal.jsonl"


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Opened(Record):
    """The first line. id is a tag of the run, by which it is found when a kill came before its id was noted."""

    kind: Literal["opened"] = "opened"
    id: str
    name: str | None
    address: str  # of the server that was meant
    adopts: bool  # True: goes on with the newest run of the key, if the server has one
    time: int  # ms since 1970, as everywhere below


class Params(Record):
    kind: Literal["params"] = "params"
    values: dict[str, str]


class Tags(Record):
    kind: Literal["tags"] = "tags"
    values: dict[str, str]


class Metrics(Record):
    kind: Literal["metrics"] = "metrics"
    values: dict[str, float]
    step: int
    time: int


class Artifact(Record):
    """A copy under the journal's folder, kept until the server has it."""

    kind: Literal["artifact"] = "artifact"
    copy_path: str
    folder: str


class Finished(Record):
    kind: Literal["finished"] = "finished"
    status: Literal["FINISHED", "FAILED"]
    time: int


class Sent(Record):
    """The server at address has the first `count` records in the run run_id. The last such line holds."""

    kind: Literal["sent"] = "sent"
    address: str
    run_id: str
    count: int


Logged = Params | Tags | Metrics | Artifact | Finished
_LINE: TypeAdapter[Opened | Sent | Logged] = TypeAdapter(Annotated[Opened | Sent | Logged, Field(discriminator="kind")])


class Journal:
    """One executed training: a folder with journal.jsonl, which only grows, and copies of artifacts not yet sent.

    One process at a time writes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[Logged] = []
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.metrics: dict[tuple[str, int], float] = {}  # (name, step): the newest value
        self._sent: dict[str, Sent] = {}
        first, *others = _whole_lines(folder / JOURNAL)
        self.opened = Opened.model_validate_json(first)
        for line in others:
            self._take(_LINE.validate_json(line))

    @classmethod
    def begin(cls, root: Path, key: str, *, name: str | None, address: str, adopts: bool, time: int) -> Self:
        """A further journal of the key. It has its first line from the moment at which it has its name."""
        opened = Opened(id=uuid.uuid4().hex, name=name, address=address, adopts=adopts, time=time)
        partial = root / key / f".{opened.id}"
        partial.mkdir(parents=True)
        _append(partial / JOURNAL, opened)
        folder = root / key / f"{len(folders(root, key)) + 1:04d}"
        os.replace(partial, folder)
        return cls(folder)

    def append(self, record: Logged) -> None:
        _append(self.folder / JOURNAL, record)
        self._take(record)

    def append_copy(self, path: Path, folder: str) -> None:
        """path, a file or a directory, as it is now."""
        copy = self.folder / "artifacts" / str(len(self.records)) / path.name
        shutil.rmtree(copy.parent, ignore_errors=True)  # what a kill between the copy and its line left
        copy.parent.mkdir(parents=True)
        if path.is_dir():
            shutil.copytree(path, copy)
        else:
            shutil.copyfile(path, copy)
        self.append(Artifact(copy_path=copy.relative_to(self.folder).as_posix(), folder=folder))

    def run_id(self, address: str) -> str | None:
        return self._sent[address].run_id if address in self._sent else None

    def count_sent(self, address: str) -> int:
        return self._sent[address].count if address in self._sent else 0

    def acknowledge(self, address: str, run_id: str, count: int) -> None:
        sent = Sent(address=address, run_id=run_id, count=count)
        _append(self.folder / JOURNAL, sent)
        self._take(sent)

    @property
    def status(self) -> Literal["FINISHED", "FAILED"] | None:
        """None: still running, or killed."""
        return next((r.status for r in reversed(self.records) if isinstance(r, Finished)), None)

    def _take(self, line: Opened | Sent | Logged) -> None:
        match line:
            case Opened():
                raise ValueError(f"{self.folder / JOURNAL}: opened twice")
            case Sent():
                self._sent[line.address] = line
                return
            case Params():
                self.params |= line.values
            case Tags():
                self.tags |= line.values
            case Metrics():
                self.metrics |= {(name, line.step): value for name, value in line.values.items()}
        self.records.append(line)


def folders(root: Path, key: str = "*") -> list[Path]:
    """The journals of one key, oldest first; or of all."""
    return sorted(path.parent for path in root.glob(f"{key}/[0-9]*/{JOURNAL}"))


def _append(path: Path, record: Record) -> None:
    """A last line that a kill tore is cut off first, so that this one does not continue it."""
    with path.open("a+b") as file:
        if end := file.tell():
            file.seek(end - 1)
            if file.read() != b"\n":
                file.truncate(sum(map(len, _whole_lines(path))))
        file.write(record.model_dump_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[bytes]:
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
