"""Pascal VOC (one XML a picture) -> assets: an XML without objects is background, a picture without XML not annotated.

Read with the standard library behind defusedxml, not a converter's: those skip what they do not understand, and here
each file, field and value that is wrong is named.
"""

from collections import defaultdict
from collections.abc import Iterator
from math import isfinite
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from stages.params import StageError
from stages.sources import SourceAsset
from stages.sources.layout import asset_at, place_of
from stages.sources.tree import Tree, suffix
from stages.vision.annotations import ACCEPTED, Annotation, Rectangle

MASKS = {"segmentationclass", "segmentationobject"}  # beside the pictures of the original VOC; not pictures themselves


def recognises(tree: Tree) -> bool:
    return any(suffix(path) == ".xml" for path in tree.paths)


def read(tree: Tree) -> Iterator[SourceAsset]:
    """Raises StageError for an XML of another kind, with wrong values, or whose picture is missing or taken."""
    pictures = [path for path in tree.pictures() if not MASKS & set(path.lower().split("/"))]
    written = pair(tree, pictures)
    for picture in pictures:
        content = tree.read(picture)
        if picture not in written:
            yield asset_at(picture, tree, content, None, ())
            continue
        where = f"{tree.where}/{written[picture]}"
        root = parse(tree.read(written[picture]), where)
        yield asset_at(picture, tree, content, size_of(root, where), (annotation_of(root, where),))


def pair(tree: Tree, pictures: list[str]) -> dict[str, str]:
    """Picture -> its XML: the one of the same stem; where that leaves a choice, or none, <filename> decides."""
    by_place, by_name = defaultdict(list), {}
    for picture in pictures:
        by_place[place_of(picture)].append(picture)
        by_name[named_place(place_of(picture), picture)] = picture
    pairs: dict[str, str] = {}
    for path in (path for path in tree.paths if suffix(path) == ".xml"):
        where = f"{tree.where}/{path}"
        place = place_of(path)
        if len(by_place.get(place, ())) == 1:
            picture = by_place[place][0]
        else:
            name = text(parse(tree.read(path), where), "filename", where)
            if named_place(place, name) not in by_name:
                raise StageError(f"{where}: its picture is missing: no {place}.*, and no {name} (<filename>); add it")
            picture = by_name[named_place(place, name)]
        if picture in pairs:
            raise StageError(f"{where}: annotates {picture}, as {pairs[picture]} does; keep one of them")
        pairs[picture] = path
    return pairs


def named_place(place: str, file_name: str) -> str:
    return str(PurePosixPath(place).with_name(PurePosixPath(file_name).name or "?"))


def parse(content: bytes, where: str) -> Element:
    try:
        root: Element = fromstring(content)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise StageError(f"{where}: not XML that may be read: {' '.join(str(error).split())}") from None
    if root.tag != "annotation":
        raise StageError(f"{where}: <{root.tag}> is not Pascal VOC, whose files open with <annotation>")
    return root


def size_of(root: Element, where: str) -> tuple[int, int] | None:
    """Some tools leave it out, or write 0 for what they do not know."""
    if root.find("size") is None:
        return None
    width, height = (round(number(root, f"size/{side}", where)) for side in ("width", "height"))
    return (width, height) if width > 0 and height > 0 else None


def annotation_of(root: Element, where: str) -> Annotation:
    return Annotation(status=ACCEPTED, rectangles=[rectangle(each, where) for each in root.findall("object")])


def rectangle(element: Element, where: str) -> Rectangle:
    """Corners as they stand: labelImg and its heirs count from 0, VOC of 2007 from 1, and no file says which."""
    x1, y1, x2, y2 = (number(element, f"bndbox/{corner}", where) for corner in ("xmin", "ymin", "xmax", "ymax"))
    if x2 < x1 or y2 < y1:
        raise StageError(f"{where}: <bndbox> {x1:g} {y1:g} {x2:g} {y2:g} is inside out: max must not be below min")
    return Rectangle(x=x1, y=y1, w=x2 - x1, h=y2 - y1, label=text(element, "name", where))


def number(element: Element, tag: str, where: str) -> float:
    written = text(element, tag, where)
    try:
        value = float(written)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise StageError(f"{where}: <{tag}> is {written!r}; it must be a number")
    return value


def text(element: Element, tag: str, where: str) -> str:
    written = (element.findtext(tag) or "").strip()
    if not written:
        raise StageError(f"{where}: <{element.tag}> has no <{tag}>; add it")
    return written
