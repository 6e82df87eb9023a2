"""convert and split at 1,000, 10,000 and 100,000 generated pictures -> a Markdown table: time a picture, peak memory.

./run python -m benchmarks.convert_split [--counts 1000 10000] [--faces centerface] [--work FOLDER]

Looking for faces takes as long for the last picture as for the first, and longer than all the rest: it is left out,
unless --faces names a detector.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from tqdm import tqdm

from benchmarks.cost import Cost, cost_of
from stages.files import write_json
from stages.vision.images import encode_jpeg

ROOT = Path(__file__).resolve().parent.parent
COUNTS = [1_000, 10_000, 100_000]
FRAMES = 20  # pictures a session
WIDTH, HEIGHT = 320, 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--faces", default="none", help="faces.detector")
    parser.add_argument("--work", type=Path, help="where pictures are generated: about 20 KB each, twice")
    options = parser.parse_args()
    rows = []
    for count in options.counts:
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            rows.append((count, *measure(Path(folder), count, options.faces)))
    sys.stdout.write(table(rows))


def measure(folder: Path, count: int, face_detector: str) -> tuple[Cost, Cost]:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["faces"]["detector"] = face_detector
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    write_raw(folder / "raw", count, params["convert"]["classes"])
    converting = run(folder, "convert", "raw", "yolo")
    return converting, run(folder, "split", "yolo", "splits", "sides.csv")


def write_raw(raw: Path, count: int, classes: Sequence[str]) -> None:
    """Sessions of FRAMES pictures of one background each, over which a hand's patch moves."""
    (raw / "images").mkdir(parents=True)
    assets: list[dict[str, Any]] = []
    annotations: dict[str, list[dict[str, Any]]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sessions = pool.map(lambda session: write_session(raw, session, classes), range(-(-count // FRAMES)))
        frames = (frame for session in sessions for frame in session)
        for asset, annotation in tqdm(frames, total=count, desc="draw", unit="picture", disable=None):
            if len(assets) < count:
                assets.append(asset)
                annotations[asset["id"]] = [annotation]
    write_json(raw / "assets.json", assets)
    write_json(raw / "annotations.json", annotations)


def write_session(raw: Path, session: int, classes: Sequence[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    rng = np.random.default_rng(session)
    background = smooth(rng, (9, 12))
    written = []
    for frame in range(FRAMES):
        image = background.copy()
        x, y = int(rng.integers(0, WIDTH - 80)), int(rng.integers(0, HEIGHT - 80))
        image[y : y + 80, x : x + 80] = smooth(rng, (5, 5))[:80, :80]
        content = encode_jpeg(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8), quality=85)
        id_ = f"s{session:05}-{frame:02}"
        (raw / f"images/{id_}.jpg").write_bytes(content)
        asset = {
            "id": id_,
            "file": f"{id_}.jpg",
            "file_name": f"s{session}_pic{frame:04}.jpg",
            "width": WIDTH,
            "height": HEIGHT,
            "sha256": hashlib.sha256(content).hexdigest(),
            "tags": [],
            "source": "generated",
        }
        rectangle = {"x": x, "y": y, "w": 80, "h": 80, "label": classes[int(rng.integers(len(classes)))]}
        written.append((asset, {"status": "ACCEPTED", "rectangles": [rectangle]}))
    return written


def smooth(rng: np.random.Generator, cells: tuple[int, int]) -> Any:
    return cv2.resize(rng.integers(0, 256, (*cells, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def run(folder: Path, stage: str, *paths: str) -> Cost:
    """The stage as DVC runs it, in a process of its own: its start is part of the time."""
    command = [sys.executable, "-m", f"stages.{stage}", *paths]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return cost_of(command, folder=folder, environment=environment, report=folder / "cost.json")


def table(rows: Sequence[tuple[int, Cost, Cost]]) -> str:
    lines = ["| pictures | convert ms/picture | MB | split ms/picture | MB |", "|---:|---:|---:|---:|---:|"]
    for count, *costs in rows:
        cells = (f"{1000 * cost.seconds / count:.2f} | {cost.peak_mb:.0f}" for cost in costs)
        lines.append(f"| {count:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
