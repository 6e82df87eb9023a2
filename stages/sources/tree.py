"""A directory or a zip -> the files in it: sorted paths, and the bytes behind each. A zip is read where it lies."""

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from stages.params import StageError

PICTURES = {
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp",
    ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif",  # not for us, but pictures: convert says so, and counts them
}  # fmt: skip

MAX_FILE = 1 << 30  # bytes of one file in a zip when unpacked: an index of a large COCO set is half of that
MAX_RATIO = 100  # of all unpacked bytes to the zip's own: pictures hardly shrink, label files by 20
SMALL = 1 << 28  # bytes unpacked that are no bomb at any ratio


@dataclass(frozen=True)
class Tree:
    """Hidden files are left out: .DS_Store, .git, and what macOS adds to a zip."""

    name: str
    where: str  # for messages: what it was opened as, and the folder inside that it is about
    paths: tuple[str, ...]  # relative, with /, sorted
    read: Callable[[str], bytes]

    def pictures(self) -> list[str]:
        return [path for path in self.paths if suffix(path) in PICTURES]

    def below(self, folder: str) -> "Tree":
        prefix = f"{folder}/"
        paths = tuple(path.removeprefix(prefix) for path in self.paths if path.startswith(prefix))
        return replace(self, where=f"{self.where}/{folder}", paths=paths, read=lambda path: self.read(prefix + path))


def suffix(path: str) -> str:
    """In lower case: cameras write .JPG."""
    return PurePosixPath(path).suffix.lower()


@contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """Raises StageError for a path that is neither, cannot be read, or for a zip that is damaged or not safe."""
    if path.is_dir():
        yield Tree(path.name, path.as_posix(), list_directory(path), lambda name: read_file(path / name))
    elif not path.exists():
        raise StageError(f"{path.as_posix()}: not found (pull.folder.paths); give a directory or a zip")
    elif not zipfile.is_zipfile(path):
        raise StageError(f"{path.as_posix()}: neither a directory nor a zip (pull.folder.paths)")
    else:
        with open_zip(path) as archive:
            yield Tree(
                path.name, path.as_posix(), list_zip(archive, path), lambda name: read_member(archive, name, path)
            )


def list_directory(path: Path) -> tuple[str, ...]:
    """Linked folders are followed, but not upwards, where they would never end."""

    def refuse(error: OSError) -> None:
        raise StageError(f"{error.filename}: {(error.strerror or 'cannot be read').lower()}; pull needs to read it")

    names = []
    for folder, folders, files in os.walk(path, onerror=refuse, followlinks=True):
        here = Path(folder)
        for name in folders:
            if (here / name).is_symlink() and here.resolve().is_relative_to((here / name).resolve()):
                raise StageError(f"{(here / name).as_posix()}: links to a folder that it lies in; remove the link")
        names += [(here / name).relative_to(path).as_posix() for name in files]
    return visible(names)


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, PermissionError) as error:  # a link that leads nowhere is listed, too
        raise StageError(f"{path.as_posix()}: {(error.strerror or 'cannot be read').lower()}") from None


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise StageError(f"{path.as_posix()}: damaged: {error}; fetch it again") from None


def list_zip(archive: zipfile.ZipFile, path: Path) -> tuple[str, ...]:
    """Nothing is ever unpacked to these names; a zip that tries such things is refused whole, for it is no data set."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    seen: set[str] = set()
    for member in members:
        name = member.filename
        if problem := unsafe(member) or ("stands twice" if name in seen else None):
            raise StageError(f"{path.as_posix()}: member {name!r} {problem}; pack the set again")
        seen.add(name)
    unpacked, packed = sum(member.file_size for member in members), path.stat().st_size
    if unpacked > max(SMALL, MAX_RATIO * packed):
        raise StageError(
            f"{path.as_posix()}: {packed:,} bytes would become {unpacked:,}: a zip bomb; unpack it yourself"
        )
    return visible(list(seen))


def unsafe(member: zipfile.ZipInfo) -> str | None:
    name = member.filename
    if name.startswith("/") or "\\" in member.orig_filename or re.match("[A-Za-z]:", name):
        return "has an absolute or Windows path"
    if ".." in name.split("/"):
        return "leads out of the zip"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > MAX_FILE:
        return f"has {member.file_size:,} bytes, more than {MAX_FILE:,}"
    return None


def read_member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """No more than the directory states is unpacked, whatever the compressed bytes hold; their checksum is checked."""
    try:
        with archive.open(name) as file:
            return file.read(archive.getinfo(name).file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise StageError(
            f"{path.as_posix()}: member {name!r} cannot be unpacked: {error}; fetch the zip again"
        ) from None


def visible(names: list[str]) -> tuple[str, ...]:
    return tuple(
        sorted(name for name in names if not any(p.startswith(".") or p == "__MACOSX" for p in name.split("/")))
    )
