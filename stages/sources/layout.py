"""A file's path in a set -> what its folders say: the split it was in, and the place it shares with its annotation."""

import re
from pathlib import PurePosixPath

from stages.sources import SourceAsset
from stages.sources.tree import Tree
from stages.vision.annotations import Annotation

KINDS = {
    "images",
    "jpegimages",
    "annotations",
    "labels",
    "imagesets",
}  # folders that say what is in them, not where from
SPLITS = re.compile(r"^(?:(train)(?:ing)?|(val)(?:id|idation)?|(test)(?:ing)?)(?:\d{4})?$", re.IGNORECASE)  # train2017


def split_of(path: str) -> str | None:
    """train, val or test, when a folder on the way is called so."""
    names = (SPLITS.match(folder) for folder in PurePosixPath(path).parts[:-1])
    return next((name[name.lastindex or 0].lower() for name in names if name), None)


def place_of(path: str) -> str:
    """train/images/a.jpg, images/train/a.jpg and labels/train/a.txt: all train/a."""
    whole = PurePosixPath(path)
    folders = [folder for folder in whole.parts[:-1] if folder.lower() not in KINDS]
    return "/".join([*folders, whole.stem])


def is_layout(folder: str) -> bool:
    """Whether a folder of this name is part of a set, not a set of its own."""
    return folder.lower() in KINDS or SPLITS.match(folder) is not None


def asset_at(
    path: str, tree: Tree, content: bytes, size: tuple[int, int] | None, annotations: tuple[Annotation, ...]
) -> SourceAsset:
    split = split_of(path)
    return SourceAsset(
        key=path,
        file_name=PurePosixPath(path).name,
        content=content,
        width=size[0] if size else None,
        height=size[1] if size else None,
        tags=(f"split:{split}",) if split else (),
        annotations=annotations,
        origin=f"folder:{tree.name}",
    )
