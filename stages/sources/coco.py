"""COCO (JSON lists of pictures and boxes) -> assets: listed without a box is background, unlisted is not annotated."""

import json
import logging
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.params import StageError
from stages.sources import SourceAsset
from stages.sources.layout import asset_at, place_of, split_of
from stages.sources.tree import Tree, suffix
from stages.vision.annotations import ACCEPTED, Annotation, Pixels, Rectangle

logger = logging.getLogger(__name__)

Length = Annotated[Pixels, Field(ge=0)]


class Listed(BaseModel):
    """Further keys (licence, caption, area…) are let through unread."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Category(Listed):
    id: int
    name: str


class Picture(Listed):
    id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None


class Drawn(Listed):
    image_id: int | str
    category_id: int
    bbox: tuple[Pixels, Pixels, Length, Length] | None = None  # x y w h in px
    segmentation: Any = None  # polygons, or a run-length mask
    iscrowd: int = 0


class Document(Listed):
    images: list[Picture]
    annotations: list[Drawn]
    categories: list[Category]


@dataclass(frozen=True)
class Found:
    """What one file says about one picture."""

    file: str
    size: tuple[int, int] | None
    annotation: Annotation


def recognises(tree: Tree) -> bool:
    return any(True for _ in documents(tree))


def read(tree: Tree) -> Iterator[SourceAsset]:
    """Raises StageError for a file of another shape, an id that leads nowhere, or a picture missing or listed twice."""
    pictures = tree.pictures()
    by_name = defaultdict(list)
    for picture in pictures:
        by_name[PurePosixPath(picture).name].append(picture)
    found: dict[str, Found] = {}
    for path, raw in documents(tree):
        document = checked(raw, f"{tree.where}/{path}")
        boxes = rectangles(document, f"{tree.where}/{path}")
        for listed in document.images:
            picture = locate(listed.file_name, path, by_name, tree.where)
            if picture in found:
                raise StageError(
                    f"{tree.where}/{path}: lists {picture}, as {found[picture].file} does; keep one of them"
                )
            size = (listed.width, listed.height) if listed.width and listed.height else None
            found[picture] = Found(path, size, Annotation(status=ACCEPTED, rectangles=boxes[listed.id]))
    for picture in pictures:
        one = found.get(picture)
        yield asset_at(picture, tree, tree.read(picture), one.size if one else None, (one.annotation,) if one else ())


def documents(tree: Tree) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON files that have images, annotations and categories; others may lie about."""
    for path in tree.paths:
        if suffix(path) == ".json":
            try:
                document = json.loads(tree.read(path))
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise StageError(f"{tree.where}/{path}: not JSON: {error}") from None
            if isinstance(document, dict) and {"images", "annotations", "categories"} <= document.keys():
                yield path, document


def checked(document: dict[str, Any], where: str) -> Document:
    try:
        return Document.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field, message = ".".join(str(part) for part in first["loc"]), first["msg"]
        raise StageError(f"{where}: {field}: {first['input']!r:.80}: {message[0].lower()}{message[1:]}") from None


def rectangles(document: Document, where: str) -> dict[int | str, list[Rectangle]]:
    """Picture id -> boxes, those around outlines without a box among them; a crowd is no hand and is left out."""
    names = {category.id: category.name for category in document.categories}
    boxes: dict[int | str, list[Rectangle]] = {picture.id: [] for picture in document.images}
    kinds: Counter[str] = Counter()
    for row, drawn in enumerate(document.annotations):
        if drawn.image_id not in boxes:
            raise StageError(f"{where}: annotations.{row}: image_id {drawn.image_id!r} is none of the images")
        if drawn.category_id not in names:
            raise StageError(f"{where}: annotations.{row}: category_id {drawn.category_id} is none of the categories")
        if drawn.iscrowd:
            kinds["crowds were left out"] += 1
            continue
        if drawn.bbox is None:
            kinds["outlines became the boxes around them"] += 1
        x, y, w, h = drawn.bbox or around(drawn.segmentation, f"{where}: annotations.{row}")
        boxes[drawn.image_id].append(Rectangle(x=x, y=y, w=w, h=h, label=names[drawn.category_id]))
    for kind, count in sorted(kinds.items()):
        logger.info("%s: %d %s", where, count, kind)
    return boxes


def around(polygons: Any, where: str) -> tuple[float, float, float, float]:
    """[[x1, y1, x2, y2, …], …] -> x y w h."""
    try:
        xs = [float(x) for polygon in polygons for x in polygon[::2]]
        ys = [float(y) for polygon in polygons for y in polygon[1::2]]
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    except (TypeError, ValueError):
        raise StageError(f"{where}: neither a bbox nor polygons in segmentation; give a bbox [x, y, w, h]") from None


def locate(file_name: str, path: str, by_name: dict[str, list[str]], where: str) -> str:
    """The picture that the JSON at path means: beside it, in the same place or split, or alone of its name."""
    file_name = posixpath.normpath(file_name.replace("\\", "/"))
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), file_name))
    same_name = by_name.get(posixpath.basename(file_name), [])
    if beside in same_name:
        return beside
    alike = [picture for picture in same_name if f"/{picture}".endswith(f"/{file_name}")]
    narrowed = (
        [picture for picture in alike if place_of(picture) == place_of(beside)],
        [picture for picture in alike if split_of(picture) == spoken_split(path)],
        alike,
    )
    for pictures in narrowed:
        if len(pictures) == 1:
            return pictures[0]
    if not alike:
        raise StageError(f"{where}/{path}: {file_name!r}: its picture is missing; add it")
    raise StageError(f"{where}/{path}: {file_name!r} may be {' or '.join(alike)}; write the folder before it")


def spoken_split(path: str) -> str | None:
    """annotations/instances_train2017.json speaks of train."""
    words = PurePosixPath(path).stem.replace("-", "_").split("_")
    return split_of(path) or split_of("/".join([*words, ""]) + "x")
