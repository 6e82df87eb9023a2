"""Our server, the usual one, and the bare sum of the parts, on the same pictures in turn -> a Markdown table.

./run python -m benchmarks.serve MODELS PICTURES [--rounds 5]

MODELS: a release with its files, and detector.pt for the usual server (benchmarks/usual_server.py). PICTURES: a folder
of photographs as they came. Each round measures, in turn: the bare sum (decode, faces, detector; one process), each
server with one client, the most that two processes do without a server, each server with eight clients. Medians over
the rounds. Nothing else may run beside it.
"""

import argparse
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import httpx
import psutil

from serve.settings import read_settings
from serve.sight import Model, decoded, hiding, look
from stages.files import write_text
from stages.release import read_release
from stages.vision import engines
from stages.vision.faces import Blur

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = 8
WARM = 20  # pictures before each measurement
WAIT = 90  # s for a server to start


@dataclass
class Figures:
    """Of one contender, a value a round."""

    p50: list[float] = field(default_factory=list)  # ms, one client
    p95: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)  # pictures a second, eight clients; for the bare sum two processes


@dataclass(frozen=True)
class Running:
    name: str
    port: int
    process: subprocess.Popen[bytes]
    start: float  # s from the command to the first answer

    def memory(self) -> float:
        """MB of all its processes; pages they share are counted in each."""
        tree = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return sum(process.memory_info().rss for process in tree) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--number", type=int, default=200, help="of pictures, evenly taken")
    asked = parser.parse_args()
    files = sorted(path for path in asked.pictures.iterdir() if path.suffix in (".jpg", ".jpeg", ".png"))
    pictures = [path.read_bytes() for path in files[:: -(-len(files) // asked.number)]]
    with tempfile.TemporaryDirectory() as folder, both(asked.models, Path(folder), pictures[0]) as servers:
        figures = {"bare sum": Figures(), **{server.name: Figures() for server in servers}}
        bare = bare_sum(asked.models)
        with get_context("spawn").Pool(2, initializer=begin, initargs=[asked.models]) as pool:
            for number in range(asked.rounds):
                add(figures["bare sum"], one_by_one(bare, pictures))
                for server in servers:
                    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
                        add(figures[server.name], one_by_one(partial(ask, client), pictures))
                pool.map(bare_in_pool, pictures[:WARM])
                rate = per_second(lambda: pool.map(bare_in_pool, pictures, chunksize=5), pictures)
                figures["bare sum"].rate.append(rate)
                for server in servers:
                    figures[server.name].rate.append(at_once(server, pictures))
                sys.stderr.write(f"round {number + 1} of {asked.rounds}\n")
        report(figures, servers, len(pictures), asked.rounds)


@contextmanager
def both(models: Path, folder: Path, picture: bytes) -> Iterator[list[Running]]:
    servers: list[Running] = []
    try:
        servers.append(ours(models, folder, picture))
        servers.append(usual(models / "detector.pt", picture))
        yield servers
    finally:
        for server in servers:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(30)


def ours(models: Path, folder: Path, picture: bytes) -> Running:
    (folder / "models").mkdir()
    write_text(folder / "dvc.yaml", "stages: {}\n")
    for file in ("release.json", *read_release(models / "release.json").files()):
        shutil.copy(models / file, folder / "models" / file)
    environment = {**os.environ, "DVC_ROOT": str(folder), "RATE_LIMIT": "off", "MLFLOW_TRACKING_URI": ""}
    command = [str(Path(sys.executable).with_name("fingers")), "serve", "--port", "18431"]
    first = started("ours", command, 18431, picture, folder, environment)
    first.process.send_signal(signal.SIGTERM)  # that one compiled what the next finds
    first.process.wait(30)
    return started("ours", command, 18431, picture, folder, environment)


def usual(checkpoint: Path, picture: bytes) -> Running:
    command = [sys.executable, "-m", "benchmarks.usual_server", str(checkpoint), "18432"]
    return started("usual", command, 18432, picture, ROOT, dict(os.environ))


def started(
    name: str, command: Sequence[str], port: int, picture: bytes, folder: Path, environment: dict[str, str]
) -> Running:
    begun = time.perf_counter()
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=quiet, stderr=quiet)
    while True:
        try:
            ask(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60), picture)
            return Running(name, port, process, time.perf_counter() - begun)
        except httpx.TransportError:
            if process.poll() is not None or time.perf_counter() - begun > WAIT:
                raise
            time.sleep(0.02)


def ask(client: httpx.Client, content: bytes) -> None:
    client.post("/predict", files={"file": ("hand.jpg", content, "image/jpeg")}).raise_for_status()


def bare_sum(models: Path) -> Callable[[bytes], object]:
    settings = read_settings({})
    release = read_release(models / "release.json")
    choice = engines.pick(models, release, "auto", settings.serve_threads)
    detector = engines.load(models, release, choice, settings.serve_threads)
    model = Model(release, detector, Blur(hiding(release.faces), settings.serve_threads))
    return lambda content: look(decoded(content, settings.max_pixels), model.blur, model)


def begin(models: Path) -> None:
    global in_pool  # noqa: PLW0603 -- of a process of the pool
    in_pool = bare_sum(models)


def bare_in_pool(content: bytes) -> None:
    in_pool(content)


in_pool: Callable[[bytes], object]


def one_by_one(count: Callable[[bytes], object], pictures: Sequence[bytes]) -> list[float]:
    """ms for each picture."""
    for content in pictures[:WARM]:
        count(content)
    taken = []
    for content in pictures:
        begun = time.perf_counter()
        count(content)
        taken.append((time.perf_counter() - begun) * 1000)
    return taken


def at_once(server: Running, pictures: Sequence[bytes]) -> float:
    address = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=address, timeout=60) as client, ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda content: ask(client, content), pictures[:WARM]))
        return per_second(lambda: list(pool.map(lambda content: ask(client, content), pictures)), pictures)


def per_second(work: Callable[[], object], pictures: Sequence[bytes]) -> float:
    begun = time.perf_counter()
    work()
    return len(pictures) / (time.perf_counter() - begun)


def add(figures: Figures, taken: Sequence[float]) -> None:
    figures.p50.append(statistics.median(taken))
    figures.p95.append(statistics.quantiles(taken, n=20)[-1])


def report(figures: dict[str, Figures], servers: Sequence[Running], number: int, rounds: int) -> None:
    median = {name: Figures(*([statistics.median(v)] for v in vars(one).values())) for name, one in figures.items()}
    lines = [
        f"{number} pictures, {rounds} rounds, {os.cpu_count()} cores, {platform.machine()}\n",
        "| | one client: p50, ms | p95, ms | eight clients: pictures a second | first answer after, s | memory, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    told = {server.name: (f"{server.start:.1f}", f"{server.memory():.0f}") for server in servers}
    for name, of in median.items():
        start, memory = told.get(name, ("", ""))
        lines.append(f"| {name} | {of.p50[0]:.1f} | {of.p95[0]:.1f} | {of.rate[0]:.1f} | {start} | {memory} |")
    us, bare, them = median["ours"], median["bare sum"], median["usual"]
    faster, over = them.p50[0] / us.p50[0], us.p50[0] / bare.p50[0]
    more, of_most = us.rate[0] / them.rate[0], us.rate[0] / bare.rate[0]
    lines.append(f"\nOne client: {faster:.2f} times faster than the usual server, {over:.2f} times the bare sum.")
    lines.append(f"Eight: {more:.1f} times as many as the usual server, {of_most:.0%} of what two processes do bare.")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
