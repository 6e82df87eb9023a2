"""data/raw, the native layout, read and checked: assets.json and annotations.json as typed values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from stages.files import read_json
from stages.params import StageError

T = TypeVar("T")
ACCEPTED = "ACCEPTED"


class Native(BaseModel):
    """Keys that only the platform needs (duration, text, area…) are let through unread."""

    model_config = ConfigDict(frozen=True, extra="ignore")


FileName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
]  # names nothing outside its folder
Pixels = Annotated[float, Field(allow_inf_nan=False)]


class Asset(Native):
    """One picture as its source knows it."""

    id: FileName
    file: FileName  # in images/, named by the id: two assets of one file name stay two
    file_name: str  # what it was called where it came from
    width: int | None  # px, as displayed; None where the source does not say
    height: int | None
    sha256: str
    tags: list[str]
    source: str
    unusable: str | None = None  # why the source itself has no picture; its file is empty


def _label_name(value: object) -> object:
    """Picsellia hands over a label as its name or as an object, by the call that was used."""
    return value.get("name") if isinstance(value, Mapping) else value


class Rectangle(Native):
    """px from the picture's top left."""

    x: Pixels
    y: Pixels
    w: Pixels
    h: Pixels
    label: Annotated[str, BeforeValidator(_label_name)]


class Annotation(Native):
    """One pass over one asset. Older exports carry no status: what they hold was accepted."""

    status: str = ACCEPTED
    rectangles: Sequence[Rectangle] = ()  # an empty tuple weighs nothing, and 100,000 assets have many
    polygons: Sequence[Any] = ()
    classifications: Sequence[Any] = ()
    lines: Sequence[Any] = ()
    points: Sequence[Any] = ()
    keypoints: Sequence[Any] = ()
    masks: Sequence[Any] = ()

    def other_shapes(self) -> dict[str, int]:
        """What is drawn beside rectangles, counted by kind."""
        kinds = ("polygons", "classifications", "lines", "points", "keypoints", "masks")
        return {kind: len(getattr(self, kind)) for kind in kinds if getattr(self, kind)}


_ASSETS = TypeAdapter(list[Asset])
_ANNOTATIONS = TypeAdapter(dict[str, list[Annotation]])
_LABELS = TypeAdapter(dict[str, list[str]])


def read_assets(raw: Path) -> list[Asset]:
    """Sorted by id. Raises StageError for another shape, an id twice, or a file that two assets share."""
    path = raw / "assets.json"
    assets = _checked(_ASSETS, read_json(path), path)
    for field in ("id", "file"):
        seen: set[str] = set()
        for value in (getattr(asset, field) for asset in assets):
            if value in seen:
                raise StageError(f"{path}: {field} {value!r} stands twice; each asset needs its own")
            seen.add(value)
    return sorted(assets, key=lambda asset: asset.id)


def read_annotations(raw: Path, assets: Sequence[Asset]) -> dict[str, list[Annotation]]:
    """Asset id -> its annotations, newest first. Raises StageError when one names no asset."""
    path = raw / "annotations.json"
    annotations = _checked(_ANNOTATIONS, read_json(path), path)
    strangers = sorted(annotations.keys() - {asset.id for asset in assets})
    if strangers:
        raise StageError(
            f"{path}: {len(strangers)} asset ids that assets.json does not have, the first {strangers[0]!r}; "
            "pull again, so that both files are of one version"
        )
    return annotations


def read_labels(raw: Path) -> dict[str, list[str]]:
    """Source: its labels in its own order. Empty without labels.json: few sources state one."""
    path = raw / "labels.json"
    return _checked(_LABELS, read_json(path), path) if path.exists() else {}


def newest_accepted(annotations: Sequence[Annotation]) -> Annotation | None:
    """annotations newest first. None when none of them was accepted."""
    return next((a for a in annotations if a.status == ACCEPTED), None)


def _checked(adapter: TypeAdapter[T], document: object, path: Path) -> T:
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        shown = repr(first["input"])
        value = shown if len(shown) <= 80 else f"{shown[:77]}..."
        raise StageError(f"{path}: {where}: {value}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
