"""Small data in the native raw layout, written as a test says."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from stages.files import write_json
from stages.params import Params, parse_params
from stages.vision.boxes import no_boxes
from stages.vision.faces import Blurred
from stages.vision.images import Image

ROOT = Path(__file__).resolve().parent.parent


def params(**changes: object) -> Params:
    """params.yaml as committed, with values at dotted keys replaced: params(**{"split.seed": 1})."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = document
        for name in sections:
            section = section[name]
        section[last] = value
    return parse_params(document)


def noise(seed: int, width: int = 64, height: int = 48) -> Image:
    """A picture that resembles no other: (H, W, 3) RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def blurred_noise(seed: int, width: int = 64, height: int = 48) -> Blurred:
    """Such a picture, which shows no face."""
    return Blurred(noise(seed, width, height), no_boxes())


def png(image: Image) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def rectangle(label: str, x: float = 8, y: float = 8, w: float = 20, h: float = 20) -> dict[str, Any]:
    return {"x": x, "y": y, "w": w, "h": h, "label": label}


def accepted(*rectangles: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"status": "ACCEPTED", "rectangles": list(rectangles), **other}


@dataclass(frozen=True)
class Item:
    """One asset to be written. content None: a picture of its own."""

    annotations: Sequence[Mapping[str, Any]]
    content: bytes | None = None
    file_name: str | None = None
    tags: Sequence[str] = ()
    size: tuple[int, int] | None = None  # (width, height) as the source states it


def write_raw(raw: Path, items: Mapping[str, Item]) -> Path:
    """items by asset id; those with no annotations at all are left out of annotations.json, as the platform does."""
    (raw / "images").mkdir(parents=True)
    assets = []
    for number, (asset_id, item) in enumerate(items.items()):
        content = png(noise(number)) if item.content is None else item.content
        (raw / "images" / f"{asset_id}.png").write_bytes(content)
        width, height = item.size or (None, None)
        assets.append(
            {
                "id": asset_id,
                "file": f"{asset_id}.png",
                "file_name": item.file_name or f"{asset_id}.png",
                "width": width,
                "height": height,
                "sha256": hashlib.sha256(content).hexdigest(),
                "tags": list(item.tags),
                "source": "test",
            }
        )
    write_json(raw / "assets.json", assets)
    write_json(raw / "annotations.json", {i: list(item.annotations) for i, item in items.items() if item.annotations})
    return raw


def one_of_each_class() -> dict[str, Item]:
    """Seven pictures, one box each, so that no class is absent."""
    return {f"class-{name}": Item([accepted(rectangle(name))]) for name in [*"012345", "unknown"]}


def with_tags(item: Item, *tags: str) -> Item:
    return replace(item, tags=tags)
