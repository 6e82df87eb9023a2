"""data/raw -> pictures without faces, YOLO labels, and the ledger: where each asset went, what was dropped and why."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

import numpy as np
from tqdm import tqdm

from stages.files import whole_directory, write_json
from stages.launch import launch
from stages.params import ConvertParams, FaceParams, Params, StageError
from stages.vision import images
from stages.vision.annotations import (
    Annotation,
    Asset,
    Rectangle,
    newest_accepted,
    read_annotations,
    read_assets,
    read_labels,
)
from stages.vision.boxes import Boxes, area, clip, iou, to_yolo
from stages.vision.faces import Blur, Blurred

logger = logging.getLogger(__name__)

SAME_HAND = 0.9  # overlap above which two boxes were drawn around one hand
BATCH = 256  # assets handed to the threads at a time: a future for each of 100,000 would outweigh the ledger


@dataclass(frozen=True)
class Entry:
    """One asset's line in the ledger. Exactly one of file and reason is None."""

    outcome: Literal["kept", "excluded"]
    file_name: str
    source: str
    tags: list[str]
    file: str | None = None
    reason: str | None = None
    sha256: str | None = None  # of the picture as written
    width: int | None = None
    height: int | None = None
    faces: int = 0  # hidden
    boxes: dict[str, int] = field(default_factory=dict)  # class -> how many were kept
    dropped_boxes: list[dict[str, str]] = field(default_factory=list)
    other_shapes: dict[str, int] = field(default_factory=dict)  # drawn beside the rectangles, unused


class Excluded(Exception):
    """The asset cannot be used; the reason's words before a colon are its kind."""


def convert(params: Params, raw: Path, yolo: Path) -> None:
    rules = params.convert
    assets = read_assets(raw)
    annotations = read_annotations(raw, assets)
    check_files(raw, assets)
    check_labels(raw, annotations, rules)
    for line in orders_compared(read_labels(raw), rules):
        logger.info("%s", line)
    logger.info("%d assets, %d annotated", len(assets), sum(bool(a) for a in annotations.values()))
    with whole_directory(yolo) as out:
        (out / "images").mkdir()
        (out / "labels").mkdir()
        entries = dict(convert_each(assets, annotations, rules, params.faces, raw, out))
        check_losses(entries, rules)
        write_json(out / "ledger.json", ledger(entries, rules))
    logger.info("%s", in_words(entries))


def check_files(raw: Path, assets: Sequence[Asset]) -> None:
    """Raises StageError unless assets.json and images/ name the same files."""
    named = {asset.file for asset in assets}
    there = set(os.listdir(raw / "images")) if (raw / "images").is_dir() else set()
    remedy = "pull again: dvc repro -f pull"
    if missing := sorted(named - there):
        raise StageError(f"{raw}/assets.json: {len(missing)} pictures are not in images/, first {missing[0]}; {remedy}")
    if strangers := sorted(there - named):
        raise StageError(f"{raw}/images: {len(strangers)} files not in assets.json, first {strangers[0]}; {remedy}")


def check_labels(raw: Path, annotations: Mapping[str, Sequence[Annotation]], rules: ConvertParams) -> None:
    """Raises StageError for a label that would be lost, before any picture is read."""
    meaning = rules.class_of()
    strange: Counter[str] = Counter()
    first: dict[str, str] = {}
    for asset_id in sorted(annotations):
        accepted = newest_accepted(annotations[asset_id])
        for rectangle in accepted.rectangles if accepted else ():
            if rectangle.label.strip().casefold() not in meaning:
                strange[rectangle.label] += 1
                first.setdefault(rectangle.label, asset_id)
    if strange:
        label, number = strange.most_common(1)[0]
        others = f", and {len(strange) - 1} more such labels" if len(strange) > 1 else ""
        raise StageError(
            f"{raw}/annotations.json: asset {first[label]}: label {label!r} ({number} boxes{others}) is none of "
            f"{' '.join(rules.classes)}; name it in convert.aliases, or correct it (convert.classes)"
        )


def orders_compared(labels: Mapping[str, Sequence[str]], rules: ConvertParams) -> Iterator[str]:
    """A line for each source whose labels stand in another order than convert.classes, or mean none of them."""
    meaning = rules.class_of()
    for source, names in sorted(labels.items()):
        meant = [meaning.get(name.strip().casefold()) for name in names]
        known = list(dict.fromkeys(filter(None, meant)))
        if known != [name for name in rules.classes if name in known]:
            yield f"{source} orders its labels {', '.join(names)}; ids follow convert.classes all the same"
        if strange := [name for name, known_as in zip(names, meant, strict=True) if known_as is None]:
            yield f"{source} has labels that mean no class, and no box uses them: {', '.join(strange)}"


def convert_each(
    assets: Sequence[Asset],
    annotations: Mapping[str, Sequence[Annotation]],
    rules: ConvertParams,
    faces: FaceParams,
    raw: Path,
    out: Path,
) -> Iterator[tuple[str, Entry]]:
    """Decoding and finding faces leave Python's lock, so threads fill the cores; pictures in memory: one a thread."""
    threads = os.cpu_count() or 1
    idle = SimpleQueue[Blur]()
    for _ in range(threads):
        idle.put(Blur(faces, threads=1))  # f32 in one thread: the same boxes whatever the processor has

    def one(asset: Asset) -> Entry:
        blur = idle.get()
        try:
            return convert_one(asset, annotations.get(asset.id, ()), rules, blur, raw, out)
        finally:
            idle.put(blur)

    bar = tqdm(total=len(assets), desc="convert", unit="picture", disable=None, delay=2)
    with ThreadPoolExecutor(threads) as pool, bar:
        for start in range(0, len(assets), BATCH):
            batch = assets[start : start + BATCH]
            for asset, entry in zip(batch, pool.map(one, batch), strict=True):
                bar.update()
                yield asset.id, entry


def convert_one(
    asset: Asset, annotations: Sequence[Annotation], rules: ConvertParams, blur: Blur, raw: Path, out: Path
) -> Entry:
    entry = partial(Entry, file_name=asset.file_name, source=asset.source, tags=sorted(asset.tags))
    if asset.unusable:
        return entry(outcome="excluded", reason=asset.unusable)
    try:
        accepted = accepted_annotation(annotations)
        extension, image = readable(asset, (raw / "images" / asset.file).read_bytes())
        height, width = image.shape[:2]
        names, boxes, dropped = usable_boxes(accepted.rectangles, rules, width, height)
    except Excluded as reason:
        return entry(outcome="excluded", reason=str(reason))
    blurred = blur(image)
    extension, content = published(blurred, extension)
    (out / "images" / f"{asset.id}{extension}").write_bytes(content)
    label_file = out / "labels" / f"{asset.id}.txt"
    label_file.write_text(yolo_lines(names, boxes, rules.classes, width, height), encoding="utf-8", newline="\n")
    return entry(
        outcome="kept",
        file=f"images/{asset.id}{extension}",
        sha256=hashlib.sha256(content).hexdigest(),
        width=width,
        height=height,
        faces=len(blurred.faces),
        boxes=dict(sorted(Counter(names).items())),
        dropped_boxes=dropped,
        other_shapes=accepted.other_shapes(),
    )


def accepted_annotation(annotations: Sequence[Annotation]) -> Annotation:
    """Only an accepted annotation makes a picture usable, and only an accepted empty one makes it background."""
    if not annotations:
        raise Excluded("not annotated")
    accepted = newest_accepted(annotations)
    if accepted is None:
        raise Excluded(f"annotation {annotations[0].status.lower()}")
    if accepted.other_shapes() and not accepted.rectangles:
        raise Excluded(f"no rectangles: {', '.join(f'{n} {kind}' for kind, n in accepted.other_shapes().items())}")
    return accepted


def readable(asset: Asset, content: bytes) -> tuple[str, images.Image]:
    """The extension that the bytes call for, and the pixels, upright."""
    if hashlib.sha256(content).hexdigest() != asset.sha256:
        raise Excluded("altered: its bytes are not those that were pulled")
    try:
        extension, *_ = images.probe(content)
        image = images.decode(content)
    except images.Unreadable as error:
        raise Excluded(f"unreadable: {error}") from None
    height, width = image.shape[:2]
    if (asset.width or width, asset.height or height) != (width, height):
        raise Excluded(f"size differs: {width}x{height} decoded, {asset.width}x{asset.height} annotated")
    return extension, image


def usable_boxes(
    rectangles: Sequence[Rectangle], rules: ConvertParams, width: int, height: int
) -> tuple[list[str], Boxes, list[dict[str, str]]]:
    """Class names and boxes (N, 4) clipped to the picture, and what was dropped: label and reason."""
    meaning = rules.class_of()
    names = [meaning[r.label.strip().casefold()] for r in rectangles]
    drawn = np.array([(r.x, r.y, r.x + r.w, r.y + r.h) for r in rectangles], np.float32).reshape(-1, 4)
    clipped = clip(drawn, width, height)
    visible = area(clipped) / np.maximum(area(drawn), np.finfo(np.float32).tiny)
    shorter_side = (clipped[:, 2:] - clipped[:, :2]).min(axis=1, initial=np.inf)
    kept: list[int] = []
    dropped: list[dict[str, str]] = []
    for i, name in enumerate(names):
        twin = next((k for k in kept if iou(clipped[[k]], clipped[[i]])[0, 0] > SAME_HAND), None)
        if visible[i] < rules.min_visible or area(clipped[[i]])[0] == 0:
            dropped.append({"label": name, "reason": "outside the picture"})
        elif shorter_side[i] < rules.min_box_px:
            dropped.append({"label": name, "reason": "too small"})
        elif twin is None:
            kept.append(i)
        elif names[twin] == name:
            dropped.append({"label": name, "reason": "drawn twice"})
        else:
            raise Excluded(f"labels conflict: {names[twin]} and {name} on one hand")
    if dropped and not kept:
        raise Excluded("all boxes dropped")
    return [names[i] for i in kept], clipped[kept], dropped


def published(picture: Blurred, extension: str) -> tuple[str, bytes]:
    """The picture that training, scoring and people will see, and its extension: the one place pixels pass through.

    Made from the pixels alone, also where no face was found: metadata, thumbnails and what follows a file's end stay
    behind. What came as JPEG is a JPEG again, of a quality that training does not notice; all else keeps every pixel.
    """
    if extension == ".jpg":
        return ".jpg", images.encode_jpeg(picture.image)
    return ".png", images.encode_png(picture.image)


def yolo_lines(names: Sequence[str], boxes: Boxes, classes: Sequence[str], width: int, height: int) -> str:
    rows = zip(names, to_yolo(boxes, width, height), strict=True)
    return "".join(f"{classes.index(name)} {' '.join(f'{v:.6f}' for v in row)}\n" for name, row in rows)


def check_losses(entries: Mapping[str, Entry], rules: ConvertParams) -> None:
    """Raises StageError when too much went, or a class with it. Says which assets."""
    excluded = {asset_id: entry.reason for asset_id, entry in entries.items() if entry.reason}
    listed = "; ".join(f"{asset_id}: {reason}" for asset_id, reason in list(excluded.items())[:10])
    more = f"; and {len(excluded) - 10} more" if len(excluded) > 10 else ""
    if len(excluded) > rules.max_excluded * len(entries):
        raise StageError(
            f"{len(excluded)} of {len(entries)} assets excluded, more than convert.max_excluded "
            f"{rules.max_excluded:g} allows ({by_kind(excluded.values())}): {listed}{more}"
        )
    present = {name for entry in entries.values() for name in entry.boxes}
    if lost := [name for name in rules.classes if name not in present and name not in rules.may_be_absent]:
        raise StageError(
            f"no box left of class {', '.join(lost)}; annotate some, or name it in convert.may_be_absent. "
            f"Excluded: {listed + more if excluded else 'nothing'}"
        )


def ledger(entries: Mapping[str, Entry], rules: ConvertParams) -> dict[str, object]:
    """Everything that the stages after this one know about the pictures."""
    kept = [entry for entry in entries.values() if entry.file]
    boxes = sum((Counter(entry.boxes) for entry in kept), Counter[str]())
    return {
        "classes": rules.classes,
        "counts": rules.counts,
        "summary": {
            "assets": len(entries),
            "kept": len(kept),
            "background": sum(not entry.boxes for entry in kept),
            "excluded": kinds(entry.reason for entry in entries.values()),
            "boxes": {name: boxes[name] for name in rules.classes},
            "dropped_boxes": kinds(box["reason"] for entry in kept for box in entry.dropped_boxes),
            "faces": sum(entry.faces for entry in kept),
        },
        "assets": {asset_id: vars(entry) for asset_id, entry in entries.items()},
    }


def in_words(entries: Mapping[str, Entry]) -> str:
    kept = [entry for entry in entries.values() if entry.file]
    excluded = [entry.reason for entry in entries.values() if entry.reason]
    dropped = [box["reason"] for entry in kept for box in entry.dropped_boxes]
    words = f"{len(kept)} pictures, {sum(sum(entry.boxes.values()) for entry in kept)} boxes"
    words += f"; hid {sum(entry.faces for entry in kept)} faces"
    words += f"; excluded {len(excluded)}{f' ({by_kind(excluded)})' if excluded else ''}"
    return words + (f"; dropped {len(dropped)} boxes ({by_kind(dropped)})" if dropped else "")


def kinds(reasons: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(reason.split(":")[0] for reason in reasons if reason).items()))


def by_kind(reasons: Iterable[str | None]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in kinds(reasons).items())


if __name__ == "__main__":
    launch(convert)
