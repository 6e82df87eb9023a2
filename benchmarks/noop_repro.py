"""`dvc repro` with nothing to do, here and in an empty pipeline of as many stages: `python -m benchmarks.noop_repro`.

The two are timed in turn, so that a machine whose speed drifts slows both; the ratio is the median of the pairs'.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAGES = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    if "up to date" not in (said := repro(ROOT)):
        sys.exit(f"run `dvc repro` first: this checkout is not up to date\n{said}")
    with tempfile.TemporaryDirectory() as folder:
        empty = empty_pipeline(Path(folder))
        pairs = [(timed(ROOT), timed(empty)) for _ in range(rounds)]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    sys.stdout.write(
        f"{platform.machine()}, {os.cpu_count()} cores, {rounds} rounds\n\n"
        "| no-op `dvc repro` | median s |\n|---|---|\n"
        f"| this pipeline | {ours:.2f} |\n| as many stages of `true` | {theirs:.2f} |\n| ratio | {ratio:.2f} |\n"
    )


def empty_pipeline(folder: Path) -> Path:
    stages = "".join(f"  stage{n}: {{cmd: 'true', deps: [dep{n}]}}\n" for n in range(STAGES))
    (folder / "dvc.yaml").write_text(f"stages:\n{stages}")
    for n in range(STAGES):
        (folder / f"dep{n}").write_text(str(n))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    dvc(folder, "init", "--quiet")
    dvc(folder, "config", "core.analytics", "false")
    repro(folder)
    return folder


def timed(folder: Path) -> float:
    started = time.perf_counter()
    repro(folder)
    return time.perf_counter() - started


def repro(folder: Path) -> str:
    return dvc(folder, "repro")


def dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["dvc", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
