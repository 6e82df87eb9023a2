"""A command -> the time it took and the memory it had at most."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# A child begins as a copy of its parent, whose memory counts in its ru_maxrss. So a small process stands between.
BETWEEN = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1], "w") as file:
    json.dump([code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss], file)
"""
UNIT = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak_mb: float


def cost_of(command: Sequence[str], *, folder: Path, environment: Mapping[str, str], report: Path) -> Cost:
    """Runs it in folder; report is a file to be written. Ends the program when the command fails."""
    start = time.perf_counter()
    between = [sys.executable, "-I", "-c", BETWEEN, str(report), *command]
    subprocess.run(between, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - start
    code, peak = json.loads(report.read_text())
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return Cost(seconds, peak / UNIT)
