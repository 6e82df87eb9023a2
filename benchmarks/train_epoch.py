"""An epoch of this stage beside one of stock `yolo train`, same pictures, weights and settings -> a Markdown table.

./run python -m benchmarks.train_epoch [--data FOLDER] [--weights FILE] [--pictures N] [--image-size PX] [--epochs N]

Data come through the project's own pull, convert and split. Both train in turn, so that a machine whose speed drifts
slows both; an epoch's time is the median over all of a side's epochs but each training's first, which warms up.
"""

import argparse
import csv
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {"optimizer": "AdamW", "patience": 100, "seed": 42}
FREE = {"lr0": 0.001}


@dataclass
class Side:
    """What one of the two took and reached, a value a training."""

    name: str
    train: Callable[[Path, argparse.Namespace], tuple[list[float], float, float]]
    epochs: list[float] = field(default_factory=list)  # s
    whole: list[float] = field(default_factory=list)  # s, from start to exported
    map50: list[float] = field(default_factory=list)
    map50_95: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("HANDS_DATA"), help="annotated pictures; absent: drawings")
    add_training(parser, pictures=1000, epochs=3, rounds=1)
    arguments = parser.parse_args()
    sides = [Side("stock `yolo train`", train_stock), Side("this stage", train_here)]
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), arguments)
        for _ in range(arguments.rounds):
            for side in sides:
                measure(side, Path(folder), arguments)
        pictures = len((Path(folder) / "data/splits/train.txt").read_text().splitlines())
    sys.stdout.write(report(sides, pictures, arguments))


def add_training(parser: argparse.ArgumentParser, *, pictures: int, epochs: int, rounds: int) -> None:
    """What prepare and report read beside `data`, with these defaults."""
    parser.add_argument("--weights", default=os.environ.get("HANDS_WEIGHTS", "yolo11n.yaml"))
    parser.add_argument("--pictures", type=int, default=pictures, help="at most")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--rounds", type=int, default=rounds)


def prepare(root: Path, arguments: argparse.Namespace) -> None:
    """params.yaml, data/yolo and data/splits in root."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    if arguments.data:
        document["pull"] |= {"sources": ["folder"], "folder": {"paths": [str(Path(arguments.data).resolve())]}}
        document["convert"]["may_be_absent"] = document["convert"]["classes"]
    else:
        document["pull"]["demo"] |= {"pictures": round(arguments.pictures / document["split"]["train"])}
    weights = Path(arguments.weights)
    document["train"] |= SETTINGS | {
        "weights": str(weights.resolve() if weights.exists() else weights),
        "image_size": arguments.image_size,
        "batch_size": arguments.batch_size,
        "epochs": arguments.epochs,
        "device": "cpu",
        "threads": 0,
        "ultralytics": FREE,
    }
    (root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    run(root, sys.executable, "-m", "stages.pull", "data/raw")
    run(root, sys.executable, "-m", "stages.convert", "data/raw", "data/yolo")
    run(root, sys.executable, "-m", "stages.split", "data/yolo", "data/splits", "data/sides.csv")
    train = root / "data/splits/train.txt"
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join(lines[:: -(-len(lines) // arguments.pictures)]))


def measure(side: Side, root: Path, arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    epochs, map50, map50_95 = side.train(root, arguments)
    side.whole.append(time.monotonic() - started)
    side.epochs += epochs[1:] or epochs
    side.map50.append(map50)
    side.map50_95.append(map50_95)


def train_stock(root: Path, arguments: argparse.Namespace) -> tuple[list[float], float, float]:
    settings = {
        **yaml.safe_load((root / "params.yaml").read_text())["train"]["ultralytics"],
        **SETTINGS,
        "data": root / "data/splits/data.yaml",
        "model": yaml.safe_load((root / "params.yaml").read_text())["train"]["weights"],
        "imgsz": arguments.image_size,
        "batch": arguments.batch_size,
        "epochs": arguments.epochs,
        "device": "cpu",
        "project": root / "stock",
        "name": "run",
        "exist_ok": True,
    }
    yolo = str(Path(sys.executable).with_name("yolo"))
    run(root, yolo, "settings", "mlflow=False", "dvc=False", "sync=False")
    run(root, yolo, "train", *(f"{name}={value}" for name, value in settings.items()))
    rows = read_rows(root / "stock/run/results.csv")
    ends = [0.0, *(float(row["time"]) for row in rows)]
    best = max(rows, key=lambda row: float(row["metrics/mAP50-95(B)"]))
    seconds = [end - start for start, end in pairwise(ends)]
    return seconds, float(best["metrics/mAP50(B)"]), float(best["metrics/mAP50-95(B)"])


def train_here(root: Path, _: argparse.Namespace) -> tuple[list[float], float, float]:
    shutil.rmtree(root / "models", ignore_errors=True)
    outs = ("models/detector.pt", "models/detector.onnx", "models/train")
    run(root, sys.executable, "-m", "stages.train", "data/yolo", "data/splits", *outs)
    rows = read_rows(root / "models/train/epochs.csv")
    best = max(rows, key=lambda row: float(row["map50_95"]))
    return [float(row["seconds"]) for row in rows], float(best["map50"]), float(best["map50_95"])


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(root: Path, *command: str) -> None:
    environment: Mapping[str, str] = {
        **{key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "DVC_ROOT")},
        "PYTHONPATH": str(ROOT),
        "YOLO_CONFIG_DIR": str(root / "settings"),
        "YOLO_OFFLINE": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db",
    }
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")


def report(sides: list[Side], pictures: int, arguments: argparse.Namespace) -> str:
    def row(name: str, values: Callable[[Side], list[float]], shown: str, ratio: bool) -> str:
        stock, ours = (statistics.median(values(side)) for side in sides)
        return f"| {name} | {stock:{shown}} | {ours:{shown}} | {f'{stock / ours:.2f}' if ratio else ''} |\n"

    weights = Path(arguments.weights).name
    return (
        f"{platform.machine()}, {os.cpu_count()} cores; {weights}, {pictures} pictures at {arguments.image_size} px, "
        f"batch {arguments.batch_size}, {arguments.epochs} epochs, {arguments.rounds} rounds\n\n"
        f"| median | {sides[0].name} | {sides[1].name} | times as fast |\n|---|---|---|---|\n"
        + row("s an epoch", lambda side: side.epochs, ".1f", ratio=True)
        + row("s in all", lambda side: side.whole, ".1f", ratio=True)
        + row("val mAP50", lambda side: side.map50, ".4f", ratio=False)
        + row("val mAP50-95", lambda side: side.map50_95, ".4f", ratio=False)
    )


if __name__ == "__main__":
    main()
