"""The sources named in params.yaml -> data/raw: pictures named by asset id, and what was drawn on them."""

import hashlib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from stages.files import whole_directory, write_json
from stages.launch import launch
from stages.params import Params, PullParams
from stages.sources import Source, SourceAsset, demo, folder, picsellia
from stages.vision.annotations import Asset

logger = logging.getLogger(__name__)

SOURCES: dict[str, Callable[[PullParams], Source]] = {
    "demo": lambda params: demo.draw(params.demo),
    "folder": lambda params: folder.read(params.folder),
    "picsellia": lambda params: picsellia.read(params.picsellia),
}


def pull(params: Params, raw: Path) -> None:
    """Every asset of every source, under an id that stays the same on every machine."""
    sources = [SOURCES[name](params.pull) for name in params.pull.sources]
    labels = {origin: list(names) for source in sources for origin, names in source.labels.items()}
    expected = sum(source.pictures for source in sources)
    logger.info("%d pictures from %s", expected, "; ".join(source.summary for source in sources))

    assets, annotations = [], {}
    with whole_directory(raw) as partial:
        (partial / "images").mkdir()
        stream = chain.from_iterable(source.assets for source in sources)
        for found in tqdm(stream, total=expected, unit="picture", desc="pull", disable=None, delay=2):
            asset = describe(found)
            (partial / "images" / asset.file).write_bytes(found.content)
            assets.append(asset)
            annotations[asset.id] = [each.model_dump(exclude_unset=True) for each in found.annotations]
        assets.sort(key=lambda asset: asset.id)
        write_json(partial / "assets.json", [asset.model_dump(exclude_defaults=True) for asset in assets])
        write_json(partial / "annotations.json", annotations)
        if labels:
            write_json(partial / "labels.json", labels)

    origins = Counter(asset.source for asset in assets)
    by_source = ", ".join(f"{origin} {count}" for origin, count in sorted(origins.items()))
    logger.info("%d pictures, %d annotations: %s", len(assets), sum(map(len, annotations.values())), by_source)


def describe(found: SourceAsset) -> Asset:
    id_ = asset_id(found.origin, found.key, found.file_name)
    extension = PurePosixPath(found.file_name).suffix.lower()
    return Asset(
        id=id_,
        file=id_ + (extension if re.fullmatch(r"\.[a-z0-9]{1,8}", extension) else ""),
        file_name=found.file_name,
        width=found.width,
        height=found.height,
        sha256=hashlib.sha256(found.content).hexdigest(),
        tags=list(found.tags),
        source=found.origin,
        unusable=found.unusable,
    )


def asset_id(origin: str, key: str, file_name: str) -> str:
    """The file's stem for people, and a hash of where it stands, which tells apart files of one name.

    Unicode is composed before it is hashed: macOS lists the same name decomposed.
    """
    place = unicodedata.normalize("NFC", f"{origin}\0{key}")
    ascii_stem = unicodedata.normalize("NFKD", PurePosixPath(file_name).stem).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_stem).strip("-_")[:60]
    return f"{slug or 'picture'}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


if __name__ == "__main__":
    launch(pull)
