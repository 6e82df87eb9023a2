"""Two clones and a remote: what one pushes the other has, and what fails on the way costs nothing."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ops.processes import free_ports
from tests.buckets import Bucket, new_bucket
from tests.checkout import TINY, Checkout, clone
from tests.native import ROOT
from tests.platform import Platform

# What ours has: a parameter, a directory, a file in DVC's cache, and one in git.
PIPELINE = """
stages:
  draw:
    cmd: python draw.py data
    deps: [draw.py]
    params: [pictures]
    outs: [data]
  score:
    cmd: python score.py data model.bin metrics.json
    deps: [data, score.py]
    outs: [model.bin]
    metrics:
      - metrics.json: {cache: false}
"""
DRAW = """
import pathlib, random, sys
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
for number in range(int(pathlib.Path("params.yaml").read_text().split()[1])):
    (folder / f"{number}.jpg").write_bytes(random.Random(number).randbytes(2000))
"""
SCORE = """
import pathlib, sys
data, model, metrics = map(pathlib.Path, sys.argv[1:])
pictures = sorted(data.iterdir())
model.write_bytes(b"".join(path.read_bytes()[:9] for path in pictures))
metrics.write_text('{"pictures": %d}' % len(pictures))
"""
PICTURES = 150
WHOLE = PICTURES + 2  # objects on the remote: and the list of the pictures, and the model


@dataclass(frozen=True)
class Member(Checkout):
    """One of the team, with the addresses and keys of their environment."""

    settings: Mapping[str, str]

    def dvc(self, *arguments: str, code: int = 0) -> str:
        return self.run("dvc", *arguments, code=code, **self.settings)

    def with_settings(self, **changes: str) -> "Member":
        return replace(self, settings={**self.settings, **changes})

    def use(self, url: str) -> None:
        (self.root / ".dvc/config.local").write_text(f"['remote \"minio\"']\n    url = {url}\n")

    def invite(self) -> "Member":
        """Somebody with a clone of this one's commits, and nothing of its cache."""
        root = self.root.with_name(f"{self.root.name}-cloned")
        subprocess.run(["git", "clone", "--quiet", str(self.root), str(root)], check=True)
        second = replace(self, root=root)
        shutil.copy(self.root / ".dvc/config.local", root / ".dvc/config.local")
        return second

    def cached(self) -> int:
        return sum(path.is_file() for path in (self.root / ".dvc/cache/files").rglob("*"))


@pytest.fixture(scope="module")
def finished(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Member:
    """The pipeline has run and is committed; nothing is pushed. To be copied."""
    folder = tmp_path_factory.mktemp("finished")
    settings = {
        **{name: value for name, value in platform.environment.items() if name.startswith("AWS_")},
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        **{f"DVC_{name}_DIR": str(folder / name) for name in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG")},
    }
    member = Member(folder / "repository", settings)
    (member.root / ".dvc").mkdir(parents=True)
    for name in (".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, member.root / name)
    for name, text in {
        "dvc.yaml": PIPELINE,
        "draw.py": DRAW,
        "score.py": SCORE,
        "params.yaml": f"pictures: {PICTURES}\n",
        ".gitignore": "/data\n/model.bin\n",
    }.items():
        (member.root / name).write_text(text)
    member.git("init", "--quiet", "--initial-branch", "main")
    member.git("config", "user.name", "tests")
    member.git("config", "user.email", "tests@localhost")
    member.dvc("repro")
    member.git("add", "--all")
    member.git("commit", "--quiet", "--message", "finished")
    return member


def first_of_the_team(finished: Member, folder: Path, bucket: Bucket) -> Member:
    first = replace(finished, root=shutil.copytree(finished.root, folder / "first"))
    first.use(bucket.url)
    return first


@pytest.fixture
def first(finished: Member, tmp_path: Path, bucket: Bucket) -> Member:
    return first_of_the_team(finished, tmp_path, bucket)


def contents(member: Member) -> dict[str, bytes]:
    paths = [member.root / "model.bin", *(member.root / "data").iterdir()]
    return {path.name: path.read_bytes() for path in paths}


def test_in_a_second_clone_nothing_runs_and_a_pull_brings_everything(first: Member, bucket: Bucket) -> None:
    first.dvc("push")
    assert len(bucket.keys()) == WHOLE
    second = first.invite()
    assert "Running stage" not in second.dvc("repro", "--pull", "--allow-missing")
    second.dvc("pull")
    assert contents(second) == contents(first)
    assert "up to date" in second.dvc("status")


@pytest.mark.slow
def test_in_a_second_clone_a_change_fetches_what_it_needs_and_runs_what_it_touches(first: Member) -> None:
    first.dvc("push")
    second = first.invite()
    (second.root / "score.py").write_text(SCORE + "# changed")
    said = second.dvc("repro", "--pull", "--allow-missing")
    assert "Running stage 'score'" in said
    assert "Running stage 'draw'" not in said
    assert contents(second) == contents(first)


@dataclass(frozen=True)
class Mishap:
    """What is wrong for a while, and a part of DVC's line about it."""

    said: str
    settings: Mapping[str, str]
    url: str | None = None


MISHAPS = {
    "down": Mishap(
        "Could not connect to the endpoint", {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_ports(1)[0]}"}
    ),
    "wrong key": Mishap("Forbidden", {"AWS_SECRET_ACCESS_KEY": "guessed"}),
    "missing bucket": Mishap("bucket does not exist", {}, url="s3://absent"),
}


@pytest.fixture(scope="module")
def mishaps(
    finished: Member, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, bool]]:
    """Of each: what a push says, and whether a push after that brings all there. At once, as each mostly waits."""

    def suffer(mishap: Mishap) -> tuple[str, bool]:
        bucket = new_bucket(platform)
        first = first_of_the_team(finished, tmp_path_factory.mktemp("mishap"), bucket)
        first.use(mishap.url or bucket.url)
        said = first.with_settings(**mishap.settings).dvc("push", code=255)
        first.use(bucket.url)
        first.dvc("push")
        return said, len(bucket.keys()) == WHOLE

    with ThreadPoolExecutor() as pool:
        return dict(zip(MISHAPS, pool.map(suffer, MISHAPS.values()), strict=True))


@pytest.mark.parametrize("name", MISHAPS)
def test_a_push_that_fails_says_why_in_one_line_and_the_next_one_is_whole(
    name: str, mishaps: dict[str, tuple[str, bool]]
) -> None:
    said, whole_then = mishaps[name]
    errors = [line for line in said.splitlines() if "ERROR" in line]
    assert len(errors) == 1, said
    assert MISHAPS[name].said in errors[0]
    assert "guessed" not in said
    assert whole_then


def test_a_key_that_may_only_read_pulls_and_its_push_is_refused(first: Member, bucket: Bucket) -> None:
    first.dvc("push", "model.bin")
    there = bucket.keys()
    with bucket.read_only():
        said = first.dvc("push", code=1)
        assert bucket.keys() == there
        first.invite().dvc("pull", "model.bin")
    assert f"{PICTURES + 1} files failed to upload" in said.splitlines()[-1]
    first.dvc("push")
    assert len(bucket.keys()) == WHOLE


def killed_when(member: Member, command: str, half_way: Callable[[], bool]) -> None:
    process = subprocess.Popen(
        [Path(sys.executable).with_name("dvc"), command, "--jobs", "1", "--quiet"],
        cwd=member.root,
        env=member.environment(**member.settings),
        stderr=subprocess.DEVNULL,
    )
    while not half_way():
        assert process.poll() is None, f"dvc {command} ended before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_what_a_kill_left_half_sent_and_half_fetched_is_completed(first: Member, bucket: Bucket) -> None:
    killed_when(first, "push", lambda: len(bucket.keys()) > PICTURES // 10)
    assert len(bucket.keys()) < WHOLE
    first.dvc("push")
    assert len(bucket.keys()) == WHOLE
    second = first.invite()
    killed_when(second, "pull", lambda: second.cached() > PICTURES // 10)
    assert second.cached() < WHOLE
    second.dvc("pull")
    assert contents(second) == contents(first)


@pytest.mark.slow
def test_an_experiment_travels_with_what_it_made(first: Member, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", "--bare", str(first.root), str(tmp_path / "hub")], check=True)
    first.git("remote", "add", "hub", str(tmp_path / "hub"))
    first.dvc("exp", "run", "--set-param", "pictures=5", "--name", "few")
    first.dvc("exp", "push", "hub", "few")
    second = first.invite()
    second.git("remote", "add", "hub", str(tmp_path / "hub"))
    second.dvc("exp", "pull", "hub", "few")
    second.dvc("exp", "apply", "few")
    assert len(contents(second)) == 5 + 1
    assert contents(second) == contents(first)
    assert "Running stage" not in second.dvc("repro")


@pytest.mark.slow
def test_a_second_clone_of_this_very_pipeline_runs_nothing(platform: Platform, bucket: Bucket, tmp_path: Path) -> None:
    checkout = clone(tmp_path / "first")
    settings = {**platform.environment, "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    first = Member(checkout.root, settings)
    first.use(bucket.url)
    (first.root / "data/sides.csv").unlink()  # it remembers the committed demo, of which few drawings are here
    first.dvc("exp", "run", *(part for key, value in TINY.items() for part in ("--set-param", f"{key}={value}")))
    first.git("commit", "--quiet", "--all", "--message", "tiny")
    first.dvc("push")
    second = first.invite()
    assert "Running stage" not in second.dvc("repro", "--pull", "--allow-missing")
    second.dvc("pull")
    assert "up to date" in second.dvc("status")
    assert (second.root / "models/detector.onnx").read_bytes() == (first.root / "models/detector.onnx").read_bytes()
