"""Pictures -> fingers counted in each, and a file with a line for each that goes on where a killed run left it."""

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from ops.audit import VIDEOS
from ops.counter import Counter
from ops.show import Row
from serve.client import ServerError
from serve.problems import Problem
from serve.schema import Answer, ErrorDetail
from stages.files import sha256_of, write_bytes, write_text
from stages.params import StageError
from stages.sources.tree import PICTURES, list_directory, suffix

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

OPENING = '{"file":'  # of each line
# What every further picture would be told, too.
FOR_ALL = ("unreachable", "unauthorized", "forbidden", "not_found", "method_not_allowed", "model_not_loaded")


class Result(BaseModel):
    """A line of results."""

    model_config = ConfigDict(frozen=True)

    file: str  # relative to the folder, with /
    sha256: str | None = None  # None: it could not be read
    answer: Answer | None = None
    error: ErrorDetail | None = None  # why there is no answer


def pictures_in(what: Sequence[Path], save: Path | None = None) -> dict[str, Path]:
    """Name -> path, sorted: relative to what, if that is one folder, else as given.

    Raises StageError, also when copies in save would replace pictures, or be taken for such the next time.
    """
    found: dict[str, Path] = {}
    for path in what:
        if path.is_dir():
            names = list_directory(path)
            inside = [name for name in names if suffix(name) in PICTURES]
            if videos := [name for name in names if suffix(name) in VIDEOS]:
                logger.info("%s: %d videos are left out, which are given one by one", path, len(videos))
            if not inside:
                raise StageError(f"{path}: no pictures in it or below")
            if save and save.resolve().is_relative_to(path.resolve()):
                raise StageError(f"--save: {save} is in {path}, whose pictures are counted; give a folder elsewhere")
            found |= {printable(name if len(what) == 1 else (path / name).as_posix()): path / name for name in inside}
        elif suffix(path.name) in VIDEOS:
            raise StageError(f"{path}: a video; give it alone")
        elif path.is_file():
            found[printable(path.as_posix())] = path
        else:
            raise StageError(f"{path}: not found; give pictures, a folder, a video, or camera")
    if save:
        check_apart(found, save)
    return dict(sorted(found.items()))


def check_apart(pictures: Mapping[str, Path], save: Path) -> None:
    """Raises StageError when a copy would take the place of a picture, or of another copy."""
    taken = {path.resolve() for path in pictures.values()}
    for name in pictures:
        if (copy := saved(save, name).resolve()) in taken:
            raise StageError(f"--save: {copy} would be written over; give another folder, or fewer pictures")
        taken.add(copy)


def printable(name: str) -> str:
    """As it can stand in UTF-8: on Linux a name may be any bytes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def count(pictures: Mapping[str, Path], counter: Counter, out: Path | None, save: Path | None) -> list[Result]:
    """One a picture, in their order; in out as soon as it is there. What out answers already is not counted again:
    where picture and model are the same and, if asked for, the copy is in save.

    Raises StageError when no further picture can be counted; what is done stays.
    """
    results = kept(out, pictures, counter, save) if out else {}
    waiting = [name for name in pictures if name not in results]
    if results:
        logger.info("%s: has %d of %d pictures already", out, len(results), len(pictures))
    done = in_order(lambda name: one(name, pictures[name], counter, save), waiting, counter.at_once)
    for result in tqdm(done, total=len(waiting), desc="count", unit="picture", disable=None, delay=2):
        results[result.file] = result
        if out:
            append(out, result)
    return [results[name] for name in pictures]


def one(name: str, path: Path, counter: Counter, save: Path | None) -> Result:
    """Raises StageError where no further picture would be answered either."""
    result = Result(file=name)
    try:
        content = path.read_bytes()
    except OSError as error:
        why = (error.strerror or "cannot be read").lower()
        return result.model_copy(update={"error": ErrorDetail(code="unreadable_file", message=why, request_id="")})
    result = result.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    try:
        counted = counter.picture(content, draw=save is not None)
    except (Problem, ServerError) as error:
        return result.model_copy(update={"error": told(error)})
    if save and counted.drawn:
        write_bytes(saved(save, name), counted.drawn)
    return result.model_copy(update={"answer": counted.answer})


def told(error: Problem | ServerError) -> ErrorDetail:
    """Raises StageError for what every further picture would be told, too."""
    if error.code in FOR_ALL:
        raise StageError(str(error)) from None
    request_id = error.request_id if isinstance(error, ServerError) else ""
    return ErrorDetail(code=error.code, message=error.message, request_id=request_id)


def in_order(work: Callable[[T], R], items: Iterable[T], at_once: int) -> Iterator[R]:
    """work(item) for each, so many at a time; no more are begun than can soon be handed on."""
    ahead: deque[Future[R]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > at_once:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def kept(out: Path, pictures: Mapping[str, Path], counter: Counter, save: Path | None) -> dict[str, Result]:
    """What out answers already. Afterwards it holds that, and lines about other pictures, each whole."""
    found: dict[str, Result] = {}
    others: dict[str, Result] = {}
    for result in read_results(out):
        if result.file not in pictures:
            others[result.file] = result
        elif (
            result.answer
            and (result.answer.model.version, result.answer.model.sha256) == counter.model
            and (save is None or saved(save, result.file).is_file())
            and result.sha256 == sha256_there(pictures[result.file])
        ):
            found[result.file] = result
    write_text(out, "".join(as_line(result) for result in (others | found).values()))
    return found


def sha256_there(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None  # `one` says why


def read_results(path: Path) -> list[Result]:
    """A last line that was torn is left out. Raises StageError for a file of something else, which stays as it is."""
    try:
        *lines, torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    with suppress(ValidationError):
        if torn[: len(OPENING)] == OPENING[: len(torn)]:
            return [Result.model_validate_json(line) for line in lines]
    raise StageError(f"{path}: has lines that `fingers predict` did not write; give another --out")


def append(out: Path, result: Result) -> None:
    with out.open("a", encoding="utf-8", newline="\n") as file:
        file.write(as_line(result))


def as_line(result: BaseModel) -> str:
    return result.model_dump_json(exclude_none=True) + "\n"


def saved(folder: Path, name: str) -> Path:
    """Where in folder the picture with hidden faces goes, wherever it came from."""
    inside = folder.joinpath(*(part for part in PurePath(name).parts if part not in ("..", PurePath(name).anchor)))
    return inside if suffix(name) in (".jpg", ".jpeg") else inside.with_name(f"{inside.name}.jpg")


def default_out(what: Sequence[Path]) -> Path | None:
    """Of a folder its name, here; of single pictures none."""
    return Path(f"{what[0].resolve().name}.jsonl") if len(what) == 1 and what[0].is_dir() else None


def rows(results: Sequence[Result]) -> list[Row]:
    """A row a picture, for people."""
    return [
        {
            "file": result.file,
            "fingers": result.answer.finger_count if result.answer else None,
            "hands": ", ".join(f"{hand.class_name} {hand.confidence:.0%}" for hand in result.answer.predictions)
            if result.answer
            else None,
            "faces hidden": result.answer.faces_blurred if result.answer else None,
            "problem": result.error.message if result.error else None,
        }
        for result in results
    ]
