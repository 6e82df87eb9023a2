"""How many faces are hidden, what that costs the hands, and how long it takes -> Markdown tables.

./run python -m benchmarks.blur [--faces FOLDER] [--hands FOLDER] [--release FOLDER] [--every N] [--designs NAME ...]

Faces: recall, a face counting as hidden when 90 % of its box is; benchmarks/hard_faces.py says what is done to them.
Hands: the share of the area of their boxes that is hidden, which a face beside or behind a hand costs too. Designs are
held against each other on every N-th picture; the one that convert and the server use is measured on all. Release: a
folder with detector.onnx, release.json and evaluate/pictures.json; its test pictures are counted with and without blur.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from tqdm import tqdm

from benchmarks.hard_faces import CHANGES, boxed_faces, hidden
from stages.files import read_json
from stages.params import DetectParams, FaceParams, load_params
from stages.pull import asset_id
from stages.sources import voc
from stages.sources.tree import open_tree
from stages.vision import faces, network
from stages.vision.boxes import Boxes, area
from stages.vision.detector import Detector, finger_count
from stages.vision.faces import Blur, Blurred, CenterFace, covered, regions
from stages.vision.images import Image, decode

ROOT = Path(__file__).resolve().parent.parent
CHOSEN = "two looks"
ONE_LOOK = {"_small_and_turned": lambda self, image: iter(())}


@dataclass(frozen=True)
class Design:
    """What differs from the committed code and params."""

    params: Mapping[str, Any]
    constants: Mapping[str, Any]
    methods: Mapping[str, Any]


DESIGNS = {
    "haar": Design({"detector": "haar"}, {}, {}),
    "one look": Design({}, {}, ONE_LOOK),
    CHOSEN: Design({}, {}, {}),
    "first look at 640 px": Design({}, {"CANVASES": ((640, 480), (480, 640), (640, 640), (640, 320), (320, 640))}, {}),
    "every box grown": Design({}, {"CLEAR": 2.0}, {}),
    "no box grown": Design({}, {"LOOSE": 0.0}, {}),
    "second look not turned": Design({}, {"QUARTER_TURNS": (0,)}, {}),
    "second look also upside down": Design({}, {"QUARTER_TURNS": (0, 1, 2, 3)}, {}),
}


@dataclass(frozen=True)
class Hands:
    """An annotated picture: boxes (N, 4) in px, and the number of fingers."""

    id: str
    image: Image
    boxes: Boxes
    fingers: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, default=os.environ.get("FACES_DATA"), help="images/ and faces.json")
    parser.add_argument("--hands", type=Path, default=os.environ.get("HANDS_DATA"), help="Pascal VOC")
    parser.add_argument("--release", type=Path, help="detector.onnx, release.json, evaluate/pictures.json")
    parser.add_argument("--every", type=int, default=8, help="of the hands' pictures, where designs are compared")
    parser.add_argument("--designs", nargs="*", default=list(DESIGNS), choices=list(DESIGNS))
    options = parser.parse_args()
    params = load_params(ROOT / "params.yaml").faces
    sys.stdout.write(f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}\n\n")
    if options.designs:
        for line in compared(options, params):
            sys.stdout.write(f"| {' | '.join(line)} |\n")
            sys.stdout.flush()
        sys.stdout.write("\n")
    blur = Blur(params)
    shares = [hidden_area(blur(hands.image), hands, params) for hands in read_hands(options.hands)]
    sys.stdout.write(f"hands hidden, all {len(shares)} pictures: {share(shares):.2f} %\n")
    if options.release:
        sys.stdout.write(counted(options, blur))


def compared(options: argparse.Namespace, params: FaceParams) -> Iterator[list[str]]:
    """The lines of the table, as they are measured: minutes each."""
    head = ["design", *CHANGES, "hands hidden", "ms"]
    yield head
    yield ["---", *["---:"] * (len(head) - 1)]
    pictures = boxed_faces(options.faces)
    for name in tqdm(options.designs, desc="designs", disable=None):
        design = DESIGNS[name]
        changed = params.model_copy(update=dict(design.params))
        with ExitStack() as stack:
            for where, changes in ((faces, design.constants), (CenterFace, design.methods)):
                for attribute, value in changes.items():
                    stack.enter_context(patch.object(where, attribute, value))
            blur = Blur(changed)
            recalls = [f"{100 * np.mean(list(hidden(blur, changed, pictures, change))):.1f}" for change in CHANGES]
            shares, milliseconds = [], []
            for hands in islice(read_hands(options.hands), 0, None, options.every):
                started = time.perf_counter()
                blurred = blur(hands.image)
                milliseconds.append(1000 * (time.perf_counter() - started))
                shares.append(hidden_area(blurred, hands, changed))
        yield [name, *recalls, f"{share(shares):.2f}", f"{statistics.median(milliseconds):.1f}"]


def hidden_area(picture: Blurred, hands: Hands, params: FaceParams) -> tuple[float, float]:
    """Of the hands' boxes what is hidden, and all, in px²."""
    height, width = picture.image.shape[:2]
    areas = area(hands.boxes)
    found = regions(picture.faces, params.margin, width, height)
    return float(areas @ covered(hands.boxes, found, width, height)), float(areas.sum())


def share(areas: Sequence[tuple[float, float]]) -> float:
    """In per cent."""
    lost, whole = np.sum(areas, axis=0)
    return float(100 * lost / whole)


def counted(options: argparse.Namespace, blur: Blur) -> str:
    """The share of pictures counted right, on the release's test pictures, blurred and as they came."""
    release = read_json(options.release / "release.json")
    thresholds = release["thresholds"]
    rules = DetectParams(iou=thresholds["iou"], max_boxes=thresholds["max_boxes"])
    classes, counts = release["classes"], release["counts"]
    detector = Detector(network.openvino_network(options.release / "detector.onnx", len(classes)), rules)
    tested = {picture["id"] for picture in read_json(options.release / "evaluate/pictures.json")}
    as_they_came = Blur(FaceParams(detector="none", confidence=0.5, margin=0, method="solid", cells=1))
    right: dict[str, list[bool]] = {"without blur": [], "with blur": []}
    for hands in read_hands(options.hands):
        for name, hide in (("without blur", as_they_came), ("with blur", blur)):
            if hands.id in tested:
                seen = detector(hide(hands.image), thresholds["confidence"])
                right[name].append(finger_count(seen.class_ids, counts) == hands.fingers)
    return "".join(f"counted right {name}: {100 * np.mean(of):.1f} % of {len(of)}\n" for name, of in right.items())


def read_hands(folder: Path) -> Iterator[Hands]:
    with open_tree(folder) as tree:
        for asset in tqdm(voc.read(tree), desc="hands", disable=None):
            drawn = asset.annotations[0].rectangles if asset.annotations else []
            boxes = np.array([(r.x, r.y, r.x + r.w, r.y + r.h) for r in drawn], np.float32).reshape(-1, 4)
            fingers = sum(int(r.label[0]) for r in drawn)
            yield Hands(asset_id(asset.origin, asset.key, asset.file_name), decode(asset.content), boxes, fingers)


if __name__ == "__main__":
    main()
