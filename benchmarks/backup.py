"""Backup and restore of 100 and 1,000 runs, 1,000 points a metric -> a Markdown table of time and peak memory.

./run python -m benchmarks.backup [--runs 100 1000] [--metrics 1]

From one platform (PostgreSQL, S3, MLflow) to another, both started for it as `fingers up` does.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlflow.entities import Metric
from tqdm import tqdm

from benchmarks.cost import Cost, cost_of
from ops import stack
from ops.dotenv import read_dotenv
from ops.processes import free_ports
from stages.mlflow_client import connect

ROOT = Path(__file__).resolve().parent.parent
POINTS = 1000  # of each metric
ARTIFACT = 20_000  # bytes, one a run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--metrics", type=int, default=1)
    options = parser.parse_args()
    rows: list[tuple[str, int, Cost]] = []
    with platform() as source, tempfile.TemporaryDirectory() as folder:
        experiment = connect(source["MLFLOW_TRACKING_URI"]).create_experiment("benchmark")
        for before, runs in zip([0, *options.runs], options.runs, strict=False):
            fill(source["MLFLOW_TRACKING_URI"], experiment, runs - before, options.metrics)
            zipped = f"{folder}/{runs}.zip"
            rows.append((f"backup, {Path(zipped).name}", runs, fingers(source, "backup", zipped)))
            with platform() as target:
                rows.append(("restore", runs, fingers(target, "restore", zipped)))
                rows.append(("restore again", runs, fingers(target, "restore", zipped)))
        sizes = {f"backup, {path.name}": path.stat().st_size for path in Path(folder).iterdir()}
    sys.stdout.write(table(rows, sizes))


@contextmanager
def platform() -> Iterator[dict[str, str]]:
    """Its addresses and keys. In a folder that other users can reach: as root, PostgreSQL runs as another."""
    folder = Path(tempfile.mkdtemp(prefix="fingers-"))
    s3, mlflow = free_ports(2)
    try:
        stack.up(folder, {"FINGERS_S3_PORT": str(s3), "FINGERS_MLFLOW_PORT": str(mlflow)})
        yield read_dotenv(folder / ".env")
    finally:
        stack.down(folder)
        shutil.rmtree(folder)


def fill(address: str, experiment: str, runs: int, metrics: int) -> None:
    client = connect(address)
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "curve.bin"
        artifact.write_bytes(os.urandom(ARTIFACT))
        for _ in tqdm(range(runs), desc="fill", unit="run", disable=None):
            run_id = client.create_run(experiment).info.run_id
            for metric in range(metrics):
                points = [
                    Metric(f"loss{metric}", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(POINTS)
                ]
                client.log_batch(run_id, points)
            client.log_artifact(run_id, str(artifact))
            client.update_run(run_id, "FINISHED")


def fingers(environment: dict[str, str], *arguments: str) -> Cost:
    """The command as a person runs it, in a process of its own."""
    command = [str(Path(sys.executable).parent / "fingers"), *arguments]
    with tempfile.TemporaryDirectory() as folder:
        return cost_of(command, folder=ROOT, environment=os.environ | environment, report=Path(folder) / "cost.json")


def table(rows: Sequence[tuple[str, int, Cost]], sizes: dict[str, int]) -> str:
    lines = ["| command | runs | s | ms/run | peak MB | zip MB |", "|---|---:|---:|---:|---:|---:|"]
    for command, runs, cost in rows:
        size = f"{sizes[command] / 1e6:.1f}" if command in sizes else ""
        cells = (command.partition(",")[0], f"{runs:,}", f"{cost.seconds:.0f}", f"{1000 * cost.seconds / runs:.0f}")
        lines.append(f"| {' | '.join(cells)} | {cost.peak_mb:.0f} | {size} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
