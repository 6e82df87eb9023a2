"""Directories and zips -> assets: finds the sets in them and tells their formats apart."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from stages.lineage import local_folder
from stages.params import FolderParams, StageError
from stages.sources import Source, SourceAsset, coco, native, voc, yolo
from stages.sources.layout import is_layout
from stages.sources.tree import PICTURES, Tree, open_tree, suffix

Format = tuple[Callable[[Tree], bool], Callable[[Tree], Iterator[SourceAsset]]]
FORMATS: dict[str, Format] = {
    "Pascal VOC": (voc.recognises, voc.read),
    "YOLO": (yolo.recognises, yolo.read),
    "COCO": (coco.recognises, coco.read),
    "native": (native.recognises, native.read),
}
KNOWN = (
    "Pascal VOC (.xml), YOLO (.txt, and data.yaml or classes.txt), COCO (.json), "
    "or the native layout (assets.json, annotations.json, images/)"
)


@dataclass(frozen=True)
class Set:
    """Pictures and annotations of one format."""

    path: Path  # of the directory or zip
    inside: str  # the folder in it; "" for the whole
    name: str  # enters the ids, which so do not depend on where the set lies
    format: str
    pictures: int

    @property
    def where(self) -> str:
        return "/".join(part for part in (self.path.as_posix(), self.inside) if part)


def read(params: FolderParams) -> Source:
    """Raises StageError for a path that is missing, empty or of no known format, and for two sets of one name."""
    sets = [found for path in params.paths for found in find_sets(located(path))]
    named: dict[str, Set] = {}
    for found in sets:
        twin = named.setdefault(found.name, found)
        if twin is not found:
            raise StageError(f"{twin.where} and {found.where}: two sets called {found.name!r}; rename or remove one")
    contents = ", ".join(f"{found.name}: {found.pictures} in {found.format}" for found in sets)
    return Source(f"folder ({contents}{unwatched(params)})", sum(found.pictures for found in sets), assets(sets))


def located(path: str) -> Path:
    """From here; or from the main checkout, when git did not carry it into the copy of a queued experiment."""
    in_main = local_folder().parent / path
    return in_main if is_bare(Path(path)) and not is_bare(in_main) else Path(path)


def is_bare(path: Path) -> bool:
    if not path.is_dir():
        return not path.exists()
    with open_tree(path) as tree:
        return not any(suffix(one) in (*PICTURES, ".zip") for one in tree.paths)


def unwatched(params: FolderParams) -> str:
    outside = [path for path in params.paths if not Path(path).resolve().is_relative_to(Path.cwd())]
    if not outside:
        return ""
    return f"; DVC does not watch {', '.join(outside)}, outside the repository: `dvc repro -f pull` looks again"


def assets(sets: list[Set]) -> Iterator[SourceAsset]:
    for found in sets:
        with open_tree(found.path) as tree:
            _, read_format = FORMATS[found.format]
            yield from read_format(part(tree, found.inside, found.name))


def find_sets(path: Path) -> list[Set]:
    """A path is a set, or holds some, one a folder or zip."""
    named = path if path.name not in ("", "..") else path.resolve()  # a link is called as its owner called it
    with open_tree(path) as tree:
        if not tree.paths:
            raise StageError(f"{path.as_posix()}: empty (pull.folder.paths); known formats: {KNOWN}")
        return sets_in(tree, path, "", named.stem if path.is_file() else named.name)


def sets_in(tree: Tree, path: Path, inside: str, name: str) -> list[Set]:
    here = part(tree, inside, name)
    folders = sorted({one.split("/")[0] for one in here.paths if "/" in one})
    zips = [one for one in here.paths if "/" not in one and suffix(one) == ".zip"]
    if is_one_set(here, folders) or not (folders or zips):
        return [Set(path, inside, name, format_of(here), len(here.pictures()))]
    if zips and path.is_file():
        raise StageError(f"{here.where}: {zips[0]} is a zip in a zip; unpack the outer one")
    found = [sets_in(tree, path, f"{inside}/{folder}".strip("/"), folder) for folder in folders]
    found += [find_sets(path / inside / one) for one in zips]
    return list(chain.from_iterable(found))


def is_one_set(here: Tree, folders: list[str]) -> bool:
    """Pictures, annotations or a list of classes lie at its top, or folders such as a set is made of."""
    top = replace(here, paths=tuple(path for path in here.paths if "/" not in path))
    named = yolo.class_names(top) is not None
    return named or any(is_layout(folder) for folder in folders) or bool(top.pictures() or formats(top))


def format_of(here: Tree) -> str:
    match formats(here):
        case [one]:
            return one
        case []:
            count = len(here.pictures()) or "no"
            raise StageError(f"{here.where}: {count} pictures and no annotations of a known format: {KNOWN}")
        case several:
            raise StageError(f"{here.where}: {' and '.join(several)} in one set; keep one of them")


def formats(tree: Tree) -> list[str]:
    return [name for name, (recognises, _) in FORMATS.items() if recognises(tree)]


def part(tree: Tree, inside: str, name: str) -> Tree:
    return replace(tree.below(inside) if inside else tree, name=name)
