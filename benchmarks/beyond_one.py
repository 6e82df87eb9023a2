"""What goes by a Ray cluster beside the same without one, on the same processors -> two Markdown tables.

./run fingers up
./run ray start --head --include-dashboard=false --disable-usage-stats --num-cpus=N    # N: of this machine
./run python -m benchmarks.beyond_one MODELS PICTURES [--weights FILE] [--pictures N] [--epochs N] [--rounds N]

A training: by one process with N threads, and by N workers with one each; another seed in each round. Pictures:
`fingers predict` of a folder, the same on S3 with --ray, and that once more, when every result is there. On one machine
nothing is gained: the tables say what a cluster costs, and what several workers do to the scores. MODELS is a folder
models/ with its release.json, PICTURES one that pull's source `folder` reads.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
import yaml

from benchmarks.train_epoch import Side, add_training, measure, prepare, report, train_here
from stages.sources.tree import PICTURES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path, metavar="PICTURES")
    add_training(parser, pictures=500, epochs=6, rounds=3)
    arguments = parser.parse_args()
    for measured in (trainings, predictions):
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(f"{measured(Path(folder), arguments)}\n")
            sys.stdout.flush()


def trainings(root: Path, arguments: argparse.Namespace) -> str:
    cores = os.cpu_count() or 1
    alone = {"executor": "local", "threads": cores}
    together = {"executor": "ray", "workers": cores, "threads": 1}

    def side(name: str, changes: dict[str, object]) -> Side:
        def train(folder: Path, options: argparse.Namespace) -> tuple[list[float], float, float]:
            change_training(folder, changes)
            return train_here(folder, options)

        return Side(name, train)

    prepare(root, arguments)
    sides = [side("one process", alone), side(f"{cores} workers", together)]
    for seed in range(arguments.rounds):
        change_training(root, {"seed": seed})
        for one in sides:
            measure(one, root, arguments)
    pictures = len((root / "data/splits/train.txt").read_text().splitlines())
    return report(sides, pictures, arguments)


def change_training(root: Path, changes: dict[str, object]) -> None:
    path = root / "params.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["train"] |= changes
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def predictions(root: Path, arguments: argparse.Namespace) -> str:
    shutil.copytree(arguments.models, root / "models")
    (root / "dvc.yaml").write_text("stages: {}\n")
    found = [path for path in sorted(arguments.data.rglob("*")) if path.suffix.lower() in PICTURES]
    chosen = found[:: -(-len(found) // arguments.pictures)]
    bucket = f"benchmark-{os.getpid()}"
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=bucket)
    (root / "pictures").mkdir()
    for number, path in enumerate(chosen):
        name = f"{number:06}{path.suffix}"
        shutil.copy(path, root / "pictures" / name)
        s3.upload_file(str(path), bucket, f"pictures/{name}")
    seconds: dict[str, list[float]] = {"one machine": [], "--ray": [], "--ray, again": []}
    try:
        for number in range(arguments.rounds):
            there = (f"s3://{bucket}/pictures", "--ray", "--out", f"s3://{bucket}/counted-{number}")
            seconds["one machine"].append(predict(root, "pictures", "--out", f"counted-{number}.jsonl"))
            seconds["--ray"].append(predict(root, *there))
            seconds["--ray, again"].append(predict(root, *there))
            check_same(root, s3, bucket, number)
    finally:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in page.get("Contents", []):
                s3.delete_object(Bucket=bucket, Key=item["Key"])
        s3.delete_bucket(Bucket=bucket)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = "".join(f"| {name} | {value:.1f} | {len(chosen) / value:.1f} |\n" for name, value in medians.items())
    head = "| median | s in all | pictures a second |\n|---|---:|---:|\n"
    return f"{len(chosen)} pictures, {arguments.rounds} rounds\n\n{head}{rows}"


def predict(root: Path, *arguments: str) -> float:
    started = time.monotonic()
    command = [str(Path(sys.executable).with_name("fingers")), "predict", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_ROOT", "MLFLOW_"))}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return time.monotonic() - started


def check_same(root: Path, s3: Any, bucket: str, number: int) -> None:
    """Raises AssertionError where a picture's hands differ between the two."""
    parts = s3.list_objects_v2(Bucket=bucket, Prefix=f"counted-{number}/part-")["Contents"]
    bodies = [s3.get_object(Bucket=bucket, Key=part["Key"])["Body"].read() for part in parts]
    texts = [b"".join(bodies), (root / f"counted-{number}.jsonl").read_bytes()]
    there, here = (sorted(hands(line) for line in text.splitlines()) for text in texts)
    assert there == here, "a picture was counted differently"


def hands(line: bytes) -> tuple[str, int, int]:
    result = json.loads(line)
    return Path(result["file"]).name, result["answer"]["finger_count"], len(result["answer"]["predictions"])


if __name__ == "__main__":
    main()
