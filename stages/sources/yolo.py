"""YOLO (one text file a picture) -> assets. A picture without its file was not annotated; an empty file is background.

Ultralytics takes a missing file for background, too. Here only what somebody accepted as empty is: a forgotten picture
of a hand would teach the network not to see it. Roboflow and labelImg do write the empty file.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import PurePosixPath

import numpy as np
import yaml

from stages.params import StageError
from stages.sources import SourceAsset
from stages.sources.layout import asset_at, place_of
from stages.sources.tree import Tree, suffix
from stages.vision.annotations import ACCEPTED, Annotation, Rectangle
from stages.vision.boxes import from_yolo
from stages.vision.images import Unreadable, probe

logger = logging.getLogger(__name__)

CLASS_FILES = {"classes.txt", "obj.names"}
OTHER_TEXTS = ("classes", "train", "val", "valid", "test", "readme", "license")  # they may lie beside labels


@dataclass(frozen=True)
class Label:
    """One line: a box, or the box around an outline."""

    name: str
    box: tuple[float, float, float, float]  # x_centre y_centre w h as fractions of the picture
    outline: bool


def recognises(tree: Tree) -> bool:
    return bool(label_files(tree))


def read(tree: Tree) -> Iterator[SourceAsset]:
    """Raises StageError for a line that is no label, a class without a name, or labels whose picture is missing."""
    names = class_names(tree)
    if names is None:
        raise StageError(f"{tree.where}: no data.yaml with names and no classes.txt say what the class numbers mean")
    labels, pictures = label_files(tree), tree.pictures()
    orphans = sorted(labels.keys() - {place_of(picture) for picture in pictures})
    if orphans:
        raise StageError(
            f"{tree.where}/{labels[orphans[0]]}: its picture is missing (as {len(orphans)} in all); add it"
        )
    outlines = 0
    for picture in pictures:
        content, path = tree.read(picture), labels.get(place_of(picture))
        found = parse(tree.read(path), names, f"{tree.where}/{path}") if path else None
        outlines += sum(label.outline for label in found or ())
        yield asset_at(picture, tree, content, None, in_pixels(found, content) if found is not None else ())
    if outlines:
        logger.info("%s: %d outlines became the boxes around them", tree.where, outlines)


def label_files(tree: Tree) -> dict[str, str]:
    """Place -> .txt: those below folders called labels; where there is none, those beside pictures (darknet's layout).

    Raises StageError where two stand for one place.
    """
    pictures = tree.pictures()
    places, folders = (
        {place_of(picture) for picture in pictures},
        {PurePosixPath(picture).parent for picture in pictures},
    )
    texts = [path for path in tree.paths if suffix(path) == ".txt"]
    texts = [path for path in texts if place_of(path) in places or not is_other_text(path)]
    below = [path for path in texts if "labels" in folders_of(path)]
    files: dict[str, str] = {}
    for path in below or [path for path in texts if PurePosixPath(path).parent in folders]:
        twin = files.setdefault(place_of(path), path)
        if twin != path:
            raise StageError(f"{tree.where}: {twin} and {path} label the same picture; keep one of them")
    return files


def is_other_text(path: str) -> bool:
    return PurePosixPath(path).name.lower().split(".")[0] in OTHER_TEXTS


def folders_of(path: str) -> list[str]:
    return [folder.lower() for folder in PurePosixPath(path).parts[:-1]]


def class_names(tree: Tree) -> dict[int, str] | None:
    """Class number -> name, from the YAML at the set's root or from classes.txt. Raises StageError if two disagree."""
    tables: dict[str, dict[int, str]] = {}
    for path in tree.paths:
        if "/" not in path and suffix(path) in (".yaml", ".yml") and (names := names_in_yaml(tree, path)) is not None:
            tables[path] = names
    if not tables:
        files = [path for path in tree.paths if PurePosixPath(path).name.lower() in CLASS_FILES]
        tables = {path: dict(enumerate(decoded(tree, path).split("\n"))) for path in files}
    if len({tuple(names.items()) for names in tables.values()}) > 1:
        raise StageError(f"{tree.where}: {' and '.join(tables)} name the classes differently; keep one of them")
    return next(iter(tables.values()), None)


def names_in_yaml(tree: Tree, path: str) -> dict[int, str] | None:
    where = f"{tree.where}/{path}"
    try:
        document = yaml.safe_load(decoded(tree, path))
    except yaml.YAMLError as error:
        raise StageError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    names = document.get("names") if isinstance(document, dict) else None
    match names:
        case None:
            return None
        case list():
            return {number: str(name) for number, name in enumerate(names)}
        case dict() if all(isinstance(number, int) for number in names):
            return {number: str(name) for number, name in sorted(names.items())}
    raise StageError(f"{where}: names is {names!r}; it must be a list, or a mapping of class numbers to names")


def parse(content: bytes, names: dict[int, str], where: str) -> list[Label]:
    lines = content.decode("utf-8", "replace").splitlines()
    return [
        label(line.split(), names, f"{where}: line {row}: {line.strip()!r}")
        for row, line in enumerate(lines, 1)
        if line.strip()
    ]


def label(words: list[str], names: dict[int, str], where: str) -> Label:
    """Class and box, 5 numbers; or class and 3 or more corners of an outline, which also is how rotated boxes come."""
    try:
        number, *values = (float(word) for word in words)
    except ValueError:
        raise StageError(f"{where}: a label is numbers: class x_centre y_centre width height") from None
    if number not in names:
        known = " ".join(f"{key}={name}" for key, name in names.items())
        raise StageError(f"{where}: class {words[0]} has no name; the set names {known}")
    if not all(isfinite(value) and -1 <= value <= 2 for value in values):  # a box may reach over the edge
        raise StageError(f"{where}: coordinates are fractions of the picture, from 0 to 1")
    name = names[int(number)]
    if len(values) == 4:
        x, y, w, h = values
        if w < 0 or h < 0:
            raise StageError(f"{where}: width and height must not be negative")
        return Label(name, (x, y, w, h), outline=False)
    if len(values) < 6 or len(values) % 2:
        raise StageError(f"{where}: {len(values)} numbers after the class; a box has 4, an outline 6, 8, 10…")
    left, right, top, bottom = min(values[::2]), max(values[::2]), min(values[1::2]), max(values[1::2])
    return Label(name, ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), outline=True)


def in_pixels(labels: list[Label], content: bytes) -> tuple[Annotation, ...]:
    """The boxes need the picture's size: of one that cannot be read none is known, and nobody will look at it."""
    try:
        _, width, height, _ = probe(content)
    except Unreadable:
        return ()
    fractions = np.array([label.box for label in labels], np.float64).reshape(-1, 4)
    corners = from_yolo(fractions, width, height).astype(np.float64).round(2).tolist()
    rectangles = [
        Rectangle(x=x1, y=y1, w=x2 - x1, h=y2 - y1, label=label.name)
        for label, (x1, y1, x2, y2) in zip(labels, corners, strict=True)
    ]
    return (Annotation(status=ACCEPTED, rectangles=rectangles),)


def decoded(tree: Tree, path: str) -> str:
    try:
        return tree.read(path).decode("utf-8-sig").replace("\r\n", "\n").strip("\n")
    except UnicodeDecodeError as error:
        raise StageError(f"{tree.where}/{path}: not UTF-8: {error}; save it as UTF-8") from None
