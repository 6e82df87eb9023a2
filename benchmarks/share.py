"""`dvc push` and `dvc pull` of many small files beside plain boto3 -> a Markdown table.

./run fingers up && ./run python -m benchmarks.share [--files N] [--kilobytes N] [--rounds N] [--set SECTION.KEY=VALUE]

boto3 is timed twice: by upload_file and download_file, which its guide shows, and by put_object and get_object, one
request a file, below which nothing can go. All speak to the server of AWS_ENDPOINT_URL_S3, each round under a prefix of
its own in the remote's bucket, which is emptied at the end. They take turns, so that a machine whose speed drifts slows
all; a ratio is the median of the rounds'. DVC's times are of whole commands, the start of Python and the files' way
through its cache included; boto3's are of the transfers alone.
"""

import argparse
import filecmp
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "dvc"


Seconds = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--kilobytes", type=int, default=10, help="of each file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=8, help="of boto3")
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE", help="changes of .dvc/config")
    options = parser.parse_args()
    rounds = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(measure(Path(folder), number, options))
    sys.stdout.write(report(rounds, options))


def measure(folder: Path, number: int, options: argparse.Namespace) -> Seconds:
    prefix = f"benchmark-{os.getpid()}-{number}"
    here, there, fetched = folder / "here", folder / "there", folder / "fetched"
    prepare(here, prefix, number, options)
    shutil.copytree(here, there, ignore=shutil.ignore_patterns("cache", "images", "tmp"))
    fetched.mkdir()
    names = sorted(path.name for path in (here / "images").iterdir())
    s3 = boto3.client("s3", config=Config(max_pool_connections=options.threads))

    def put(name: str) -> None:
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}/plain/{name}", Body=(here / "images" / name).read_bytes())

    def get(name: str) -> None:
        body = s3.get_object(Bucket=BUCKET, Key=f"{prefix}/plain/{name}")["Body"]
        (fetched / name).write_bytes(body.read())

    def upload(name: str) -> None:
        s3.upload_file(str(here / "images" / name), BUCKET, f"{prefix}/plain/{name}")

    def download(name: str) -> None:
        s3.download_file(BUCKET, f"{prefix}/plain/{name}", str(fetched / name))

    def in_threads(transfer: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(options.threads) as pool:
            list(pool.map(transfer, names))

    try:
        seconds = {
            "dvc push": timed(lambda: dvc(here, "push")),
            "put_object": timed(lambda: in_threads(put)),
            "upload_file": timed(lambda: in_threads(upload)),
            "dvc pull": timed(lambda: dvc(there, "pull")),
            "get_object": timed(lambda: in_threads(get)),
            "download_file": timed(lambda: in_threads(download)),
        }
    finally:
        empty(s3, prefix)
    for copy in (there / "images", fetched):
        assert filecmp.cmpfiles(here / "images", copy, names, shallow=False)[0] == names, f"{copy} is not what was sent"
    return seconds


def prepare(folder: Path, prefix: str, seed: int, options: argparse.Namespace) -> None:
    """A repository with the committed configuration that tracks a directory of files of noise."""
    (folder / "images").mkdir(parents=True)
    noise = random.Random(seed)
    for number in range(options.files):
        (folder / f"images/{number:06}.jpg").write_bytes(noise.randbytes(1024 * options.kilobytes))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    dvc(folder, "init", "--quiet")
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    dvc(folder, "remote", "modify", "minio", "url", f"s3://{BUCKET}/{prefix}")
    for setting in options.set:
        dvc(folder, "config", *setting.split("=", 1))
    dvc(folder, "add", "--quiet", "images")


def dvc(folder: Path, *arguments: str) -> None:
    own = {f"DVC_{name}_DIR": str(folder.parent / name) for name in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG")}
    environment = {**os.environ, **own, "PYTHONDONTWRITEBYTECODE": ""}  # else each start compiles all that it imports
    environment.pop("DVC_ROOT", None)
    done = subprocess.run(["dvc", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"dvc {' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-2000:]}")


def empty(s3: Any, prefix: str) -> None:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/"):
        if keys := [{"Key": entry["Key"]} for entry in page.get("Contents", [])]:
            s3.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})


def timed(do: Callable[[], None]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def report(rounds: Sequence[Seconds], options: argparse.Namespace) -> str:
    def row(ours: str, theirs: str) -> str:
        a, b = ([seconds[name] for seconds in rounds] for name in (ours, theirs))
        ratio = statistics.median(x / y for x, y in zip(a, b, strict=True))
        return f"| {ours} | {statistics.median(a):.1f} | {theirs} | {statistics.median(b):.1f} | {ratio:.2f} |\n"

    return (
        f"{platform.machine()}, {os.cpu_count()} cores; {options.files:,} files of {options.kilobytes} KB, "
        f"boto3 in {options.threads} threads, {options.rounds} rounds{', '.join(['', *options.set])}\n\n"
        "| DVC | median s | boto3 | median s | ratio |\n|---|---:|---|---:|---:|\n"
        + row("dvc push", "upload_file")
        + row("dvc push", "put_object")
        + row("dvc pull", "download_file")
        + row("dvc pull", "get_object")
    )


if __name__ == "__main__":
    main()
