"""The native layout, as pull writes it and the platform exports it -> assets: nothing is lost or added on the way."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from stages.params import StageError
from stages.sources import SourceAsset
from stages.sources.tree import Tree
from stages.vision.annotations import Annotation, Asset, read_annotations, read_assets

INDEX_FILES = ("assets.json", "annotations.json")


def recognises(tree: Tree) -> bool:
    return set(INDEX_FILES) <= set(tree.paths)


def read(tree: Tree) -> Iterator[SourceAsset]:
    """Raises StageError for another shape, and for a picture that is missing, changed or listed nowhere."""
    assets, annotations = read_index(tree)
    files = {f"images/{asset.file}" for asset in assets}
    missing = sorted(files - set(tree.paths))
    if missing:
        raise StageError(
            f"{tree.where}/{missing[0]}: missing, but assets.json lists it (as {len(missing)} in all); add it"
        )
    strangers = sorted(set(tree.pictures()) - files)
    if strangers:
        raise StageError(f"{tree.where}/{strangers[0]}: assets.json does not list it; add it there, or remove it")
    for asset in assets:
        path = f"images/{asset.file}"
        content = tree.read(path)
        if hashlib.sha256(content).hexdigest() != asset.sha256:
            raise StageError(f"{tree.where}/{path}: its sha256 is not that of assets.json; pull or copy it again")
        yield SourceAsset(
            key=asset.id,
            file_name=asset.file_name,
            content=content,
            width=asset.width,
            height=asset.height,
            tags=tuple(asset.tags),
            annotations=tuple(annotations.get(asset.id, ())),
            origin=f"folder:{tree.name}/{asset.source}",
            unusable=asset.unusable,
        )


def read_index(tree: Tree) -> tuple[list[Asset], dict[str, list[Annotation]]]:
    """Both files checked as every later stage checks them, out of a zip, too."""
    with TemporaryDirectory() as folder:
        for name in INDEX_FILES:
            (Path(folder) / name).write_bytes(tree.read(name))
        try:
            assets = read_assets(Path(folder))
            return assets, read_annotations(Path(folder), assets)
        except StageError as error:
            raise StageError(str(error).replace(str(Path(folder)), tree.where)) from None
