"""A released detector in each precision, on one thread and two: `python -m benchmarks.precisions MODELS PICTURES`.

MODELS holds release.json and its files; PICTURES, photographs that convert wrote. All are timed in turn, a picture at a
time, so that a machine whose speed drifts slows each of them.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from stages.params import DetectParams, Precision
from stages.release import read_release
from stages.vision.detector import Detector, letterboxed
from stages.vision.engines import Choice, network
from stages.vision.faces import read_blurred
from stages.vision.network import processor_has

THREADS = (1, 2)
PICTURES = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    release = read_release(asked.models / "release.json")
    limits = release.thresholds
    rules = DetectParams(iou=limits.iou, max_boxes=limits.max_boxes)
    pictures = [read_blurred(path) for path in sorted(asked.pictures.iterdir())[:PICTURES]]
    precisions = [p for p in get_args(Precision) if p in release.precisions and processor_has(p)]
    networks = {(p, n): network(asked.models, release, Choice("cpu", p), n) for p in precisions for n in THREADS}
    taken: dict[tuple[Precision, int], list[tuple[float, float]]] = {key: [] for key in networks}
    for _ in range(asked.rounds):
        for picture in pictures:
            for key, loaded in networks.items():
                detector, (canvas, _, _) = Detector(loaded, rules), letterboxed(picture, loaded.image_size)
                whole = milliseconds(lambda: detector(picture, limits.confidence))  # noqa: B023 -- called at once
                taken[key].append((whole, milliseconds(lambda: loaded.run(canvas))))  # noqa: B023
    sys.stdout.write(
        f"{os.cpu_count()} cores, {asked.rounds} rounds of {len(pictures)} pictures, sha256 {release.sha256[:12]}\n\n"
        "| precision | threads | a picture, ms | the network alone, ms |\n|---|---:|---:|---:|\n"
    )
    for (precision, threads), times in taken.items():
        whole, alone = (statistics.median(column) for column in zip(*times, strict=True))
        sys.stdout.write(f"| {precision} | {threads} | {whole:.1f} | {alone:.1f} |\n")


def milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
