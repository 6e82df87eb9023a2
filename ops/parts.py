"""Pictures in a folder on S3 -> a result for each in another, by the processors of a Ray cluster; killed, it goes on.

A picture's part follows from its name alone, and the results of a part are one object, written whole. Whoever does a
part again, after a kill or beside somebody who only seemed dead, puts its lines into the same place: each picture has
exactly one.
"""

import hashlib
import logging
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import ray
from pydantic import BaseModel, ConfigDict, ValidationError
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError
from tqdm import tqdm

from ops.bucket import Folder, Stored, Withheld
from ops.counter import Here, chosen
from ops.predict import Result, as_line, in_order, saved, told
from serve.models import Served
from serve.problems import Problem
from serve.schema import ErrorDetail
from stages.nodes import File, received, sent
from stages.params import FaceParams, StageError
from stages.registry import RELEASE_FILE
from stages.release import read_release
from stages.sources.tree import PICTURES, suffix
from stages.vision.faces import Blur
from stages.vision.images import Unreadable, decode, encode_jpeg

logger = logging.getLogger(__name__)

A_PART = 200  # pictures: some seconds of work, which is what a node that dies costs
AHEAD = 4  # pictures that are fetched while one is looked at
LARGEST = 100_000_000  # bytes of a picture; a processor holds several
TRIES = 10  # of a part whose process dies: with its node, or of what is in the part
PLAN_FILE = "plan.json"
COPIES = "pictures"


class Line(Result):
    """A line of results."""

    etag: str  # of the picture, and
    made_by: str  # what looked at it: when either changes, it is looked at again
    faces: int | None = None  # hidden, where that is all that was asked for


Look = Callable[[Line, bytes], Line]  # a picture's line, and its content -> what came of it too


class Plan(BaseModel):
    """Made once for a folder of results: with more parts a picture would come into another, and have two lines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    parts: int


@dataclass(frozen=True)
class Totals:
    pictures: int = 0
    there_already: int = 0
    failed: int = 0
    faces: int = 0  # hidden


class Task(Protocol):
    """What is asked about each picture. It travels to the processes that open it."""

    @property
    def made_by(self) -> str: ...

    def open(self, folder: Path) -> Look:
        """folder: empty, and this process's own. Raises StageError."""


@dataclass(frozen=True)
class Counting:
    """Fingers, by a model whose files are sent."""

    version: str
    sha256: str
    files: "list[ray.ObjectRef[list[File]]]"

    @property
    def made_by(self) -> str:
        return f"{self.version} {self.sha256}"

    def open(self, folder: Path) -> Look:
        received(self.files, folder)
        here = Here(Served(self.version, folder, read_release(folder / RELEASE_FILE)), "cpu", threads=1)

        def look(line: Line, content: bytes) -> Line:
            try:
                return line.model_copy(update={"answer": here.picture(content).answer})
            except Problem as refused:
                return line.model_copy(update={"error": told(refused)})

        return look


@dataclass(frozen=True)
class Hiding:
    """Faces, in copies that a person can check."""

    faces: FaceParams
    out: Folder

    @property
    def made_by(self) -> str:
        return hashlib.sha256(self.faces.model_dump_json().encode()).hexdigest()

    def open(self, folder: Path) -> Look:
        blur = Blur(self.faces, threads=1)

        def look(line: Line, content: bytes) -> Line:
            try:
                picture = blur(decode(content))
            except Unreadable as error:
                return line.model_copy(update={"error": problem("unreadable_image", str(error))})
            self.out.write(copy_of(line.file), encode_jpeg(picture.image))
            return line.model_copy(update={"faces": len(picture.faces)})

        return look


def counting(version: str | None) -> Counting:
    """By a version that this machine can reach; the nodes of the cluster need no registry. Raises StageError."""
    served = chosen(version)
    files = {name: served.folder / name for name in (RELEASE_FILE, *served.release.files())}
    return Counting(served.version, served.release.sha256, sent(files))


def hiding(faces: FaceParams, out: Folder) -> Hiding:
    """Raises StageError."""
    if faces.detector == "none":
        raise StageError("faces.detector: none hides nothing, so there is nothing to check; set centerface or haar")
    return Hiding(faces, out)


def work_off(source: Folder, out: Folder, task: Task) -> Totals:
    """Raises StageError when no further picture can be looked at; what is done stays."""
    if source.holds(out) or out.holds(source):
        raise StageError(f"--out: {out.url} and {source.url} are one in the other; give a folder beside it")
    pictures = pictures_in(source)
    plan = agreed(out, Plan(source=source.url, parts=-(-len(pictures) // A_PART)))
    if plan.source != source.url:
        raise StageError(f"--out: {out.url} holds results of {plan.source}; give another folder")
    totals = Totals()
    with tqdm(total=len(pictures), desc="pictures", unit="picture", disable=None) as bar:
        for done in on_cluster(parts_of(pictures, plan.parts), source, out, task):
            totals = Totals(*map(sum, zip(astuple(totals), astuple(done), strict=True)))
            bar.update(done.pictures)
    return totals


def pictures_in(source: Folder) -> list[Stored]:
    """Raises StageError when there are none, or the copies of two would have one name."""
    files = source.listed()
    pictures = [stored for stored in files if suffix(stored.name) in PICTURES]
    if not pictures:
        raise StageError(f"{source.url}: no pictures in it or below")
    if len(pictures) < len(files):
        logger.info("%s: %d files are no pictures by name, and left out", source.url, len(files) - len(pictures))
    copies: dict[str, str] = {}
    for stored in pictures:
        if (other := copies.setdefault(copy_of(stored.name), stored.name)) != stored.name:
            raise StageError(f"{source.url}: the copies of {other} and {stored.name} would have one name; rename one")
    return pictures


def copy_of(name: str) -> str:
    return saved(Path(COPIES), name).as_posix()


def agreed(out: Folder, plan: Plan) -> Plan:
    """The plan that somebody made before, or made at the same time, else this one."""
    before = out.read(PLAN_FILE)
    if before is None:
        out.write(PLAN_FILE, plan.model_dump_json().encode(), only_first=True)
        before = out.read(PLAN_FILE)
    try:
        return Plan.model_validate_json(before or b"")
    except ValidationError:
        raise StageError(f"{out.url}/{PLAN_FILE}: not written by fingers; give another --out") from None


def parts_of(pictures: Sequence[Stored], count: int) -> list[list[Stored]]:
    """Each picture in the part that its name decides."""
    parts: list[list[Stored]] = [[] for _ in range(count)]
    for stored in pictures:
        parts[zlib.crc32(stored.name.encode()) % count].append(stored)
    return parts


def on_cluster(parts: Sequence[Sequence[Stored]], source: Folder, out: Folder, task: Task) -> Iterator[Totals]:
    """Of each part, as they are finished; those of a node that dies are done by others. Raises StageError."""
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    processors = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    items = [
        {
            "file": f"part-{number:05}-of-{len(parts):05}.jsonl",
            "names": [stored.name for stored in part],
            "etags": [stored.etag for stored in part],
            "sizes": [stored.size for stored in part],
        }
        for number, part in enumerate(parts)
    ]
    done = ray.data.from_items(items, override_num_blocks=len(items)).map(
        Processor,  # type: ignore[arg-type]  # a class of such functions is as good
        fn_constructor_args=(source, out, task),
        compute=ActorPoolStrategy(min_size=1, initial_size=processors, max_size=processors),
        num_cpus=1,
        max_task_retries=TRIES,
    )
    try:
        for row in done.iter_rows():
            if refusal := row.pop("refusal"):
                raise StageError(refusal)
            yield Totals(**row)
    except RayError as error:
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise StageError(
            f"{source.url}: whatever looks at one of its parts ends ({why}); out of memory? What is done stays"
        ) from None


class Processor:
    """A process on the cluster, with one thread."""

    def __init__(self, source: Folder, out: Folder, task: Task) -> None:
        self._source = source
        self._out = out
        self._task = task

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The totals of a part, or why none can be done: as a value, since Ray would wrap an error, and try again."""
        pictures = [Stored(*one) for one in zip(row["names"], row["etags"], row["sizes"], strict=True)]
        try:
            return {"refusal": "", **asdict(self._part(row["file"], pictures))}
        except StageError as error:
            return {"refusal": str(error), **asdict(Totals())}

    def _part(self, file: str, pictures: Sequence[Stored]) -> Totals:
        before = self._out.read(file) or b""
        kept = self._kept(before, file, pictures)
        missing = [stored for stored in pictures if stored.name not in kept]
        contents = in_order(self._content, missing, AHEAD)
        made = {stored.name: self._line(stored, content) for stored, content in zip(missing, contents, strict=True)}
        lines = [(kept | made)[stored.name] for stored in pictures]
        after = "".join(map(as_line, lines)).encode()
        if after != before:
            self._out.write(file, after)
        faces = sum(line.answer.faces_blurred if line.answer else line.faces or 0 for line in lines)
        return Totals(len(lines), len(kept), sum(line.error is not None for line in lines), faces)

    def _kept(self, before: bytes, file: str, pictures: Sequence[Stored]) -> dict[str, Line]:
        """Of the lines written before, those that would come out the same. Raises StageError."""
        wanted = {(stored.name, stored.etag) for stored in pictures}
        try:
            lines = [Line.model_validate_json(line) for line in before.splitlines()]
        except ValidationError:
            raise StageError(f"{self._out.url}/{file}: not written by fingers; give another --out") from None
        return {
            line.file: line
            for line in lines
            if (line.file, line.etag) in wanted and line.made_by == self._task.made_by and line.error is None
        }

    def _content(self, stored: Stored) -> bytes | ErrorDetail:
        if stored.size > LARGEST:
            return problem("too_large", f"{stored.size:,} bytes; a picture may have {LARGEST:,}")
        try:
            content = self._source.read(stored.name)
        except Withheld as refusal:
            return problem("unreadable_file", str(refusal))
        return problem("unreadable_file", "gone since it was listed") if content is None else content

    def _line(self, stored: Stored, content: bytes | ErrorDetail) -> Line:
        line = Line(file=stored.name, etag=stored.etag, made_by=self._task.made_by)
        if isinstance(content, ErrorDetail):
            return line.model_copy(update={"error": content})
        return self._look(line.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()}), content)

    @cached_property
    def _look(self) -> Look:
        return self._task.open(Path(tempfile.mkdtemp(prefix="fingers-")))


def problem(code: str, message: str) -> ErrorDetail:
    return ErrorDetail(code=code, message=message, request_id="")
