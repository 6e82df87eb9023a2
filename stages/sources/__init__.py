"""Where annotated pictures come from: a source turns its params into a stream of assets, one in memory at a time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stages.vision.annotations import Annotation


@dataclass(frozen=True)
class SourceAsset:
    """One picture with what was drawn on it, as its source hands it over."""

    key: str  # tells it from the others of its origin, alike on every machine: never an absolute path
    file_name: str  # two assets may have the same
    content: bytes  # the file as it is, readable or not
    width: int | None  # px, as displayed; None where the source does not say
    height: int | None
    tags: tuple[str, ...]
    annotations: tuple[Annotation, ...]  # newest first; none: nobody annotated it
    origin: str  # demo, folder:hands, picsellia:hands, …
    unusable: str | None = None  # why the source itself has no picture to give; content is empty then


@dataclass(frozen=True)
class Source:
    """A source opened: it is known what will come, and no picture has been read yet."""

    summary: str  # for the line that opens the stage
    pictures: int
    assets: Iterable[SourceAsset]  # to go through once
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)  # origin: its labels in its own order, if stated
