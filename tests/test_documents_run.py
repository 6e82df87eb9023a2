"""README and docs: their commands run, section by section, as a reader types them; errors are said as quoted."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import yaml

from ops import stack
from ops.processes import free_ports
from stages.release import read_release
from tests.checkout import Checkout, clone, shrink
from tests.documents import ASSIGNMENT, commands, documents, read, typed
from tests.native import ROOT, noise
from tests.pictures import saved
from tests.symptoms import quoted

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="the commands are for a POSIX shell")]

# What is only checked for existence (tests/test_documents.py), and why it does not run here.
CANNOT = {
    r"^(docker|dc) |^alias dc|^compose|^podman": "there is no container engine",
    r"^(sudo|apt|brew|winget|systemctl|nvidia-smi)\b": "it would change this machine",
    r"picsellia": "it asks a real Picsellia",
    r"camera --url|predict camera": "there is no camera",
    r"PATH/TO|sources=\[folder|params\.full\.yaml": "it wants photographs, weights from the network, and hours",
    r"python -m benchmarks": "it measures for minutes; docs/benchmarks.md says on what",
    r"run test\b|pytest": "it runs these very tests",
    r"uv pip compile|pip-audit": "it asks the package index",
    r"^git (clone|push|pull|add|commit)|\.\./": "it wants a second repository",
    r"REQUEST_ID|example\.org|\b[A-Z]{4,}( |$)|…$": "it names something of the reader's own",
    r"dvc gc": "it asks before it deletes",
    r"v1\.2\.0": "nobody has released that",
}
ELSEWHERE = {
    Path("docs/api.md"): "tests/test_api_docs.py runs it",
    Path("docs/deployment.md"): "it is for a server with Docker",
    Path("docs/runbook.md"): "likewise",
    Path("docs/scale.md"): "tests/test_ray.py starts a cluster for it",
}
FOR_EVER = re.compile(r"fingers (serve|exporter)|mlflow ui|--follow|--every \d+h|--watch")
SETTLE = 3  # s after which what goes on for ever must still run
LIMIT = 1200  # s a command may take, beside others


@dataclass(frozen=True)
class Section:
    path: Path
    name: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path.as_posix()}: {self.name or 'the beginning'}"


def sections() -> Iterator[Section]:
    """The command lines of each section's blocks; and of each document those in its text that no block has."""
    in_blocks: set[str] = set()
    for path in documents():
        document = read((ROOT / path).read_text(encoding="utf-8"))
        blocks = [block for block in document.blocks if block.language in ("sh", "console")]
        for name in dict.fromkeys(block.section for block in blocks):
            lines = tuple(line for block in blocks if block.section == name for line in typed(block))
            in_blocks.update(map(without_comments, lines))
            yield Section(path, name, lines)
    for path in documents():
        code = read((ROOT / path).read_text(encoding="utf-8")).code
        lines = tuple(dict.fromkeys(line for line in code if line.startswith("./run ")))
        yield Section(path, "in the text", tuple(line for line in lines if without_comments(line) not in in_blocks))


def runnable() -> Iterator[Section]:
    for section in sections():
        lines = tuple(line for line in section.lines if can_run(line))
        if lines and section.path not in ELSEWHERE:
            yield replace(section, lines=lines)


def can_run(line: str) -> bool:
    plain = without_comments(line)
    return not ASSIGNMENT.fullmatch(plain) and not any(re.search(pattern, plain) for pattern in CANNOT)


def without_comments(line: str) -> str:
    return " ".join(word for command in commands(line) for word in command)


SECTIONS = sorted(runnable(), key=str)


@dataclass(frozen=True)
class Desk:
    """What a reader has before them: a checkout, its results, files of their own, and free ports."""

    root: Path
    port: int
    environment: dict[str, str]

    def said(self, line: str) -> tuple[int, str]:
        done = subprocess.run(
            ["timeout", "--kill-after=5", str(LIMIT), "bash", "-o", "pipefail", "-c", line],  # ends its children, too
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return trained(tmp_path_factory.mktemp("documents"))


def trained(folder: Path) -> Checkout:
    """After `dvc repro`: versions 1 and 2 were champion, 3 failed its gates; all is tiny, and committed."""
    checkout = clone(folder / "checkout")
    root = checkout.root
    shrink(checkout)
    easy = {"register.min_map50": "0", "register.min_count_accuracy": "0", "register.min_class_ap50": "0"}
    for changes in (easy | {"register.margin": "1"}, {"detect.iou": "0.55"}):
        change(root, changes)
        checkout.run("dvc", "repro")
        checkout.git("add", "--all")
        checkout.git("commit", "--quiet", "--message", "as trained")
    change(root, {"detect.iou": "0.5", "register.min_map50": "1"})
    checkout.run("dvc", "repro")
    checkout.run("dvc", "remote", "add", "--local", "--default", "disk", str(folder / "remote"))
    in_step(root)
    own_files(root)
    checkout.run("fingers", "backup", "backup.zip")
    checkout.git("commit", "--quiet", "--all", "--message", "as it stands")
    checkout.git("tag", "v1.0")
    return checkout


def change(root: Path, values: dict[str, str]) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    for key, value in values.items():
        *sections, last = key.split(".")
        at = params
        for section in sections:
            at = at[section]
        at[last] = yaml.safe_load(value)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def in_step(root: Path) -> None:
    """A .venv for ./run: the one that runs the tests."""
    (root / ".venv/in-step").mkdir(parents=True)
    for name in ("bin", "lib", "pyvenv.cfg"):
        (root / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(root / name, root / ".venv/in-step")


def own_files(root: Path) -> None:
    """Those that the documents name as the reader's; git is told to look away."""
    (root / "photos").mkdir()
    for number in range(3):
        (root / f"photos/{number}.jpg").write_bytes(saved("JPEG", size=(160, 120 + number)))
    shutil.copy(root / "photos/0.jpg", root / "hand.jpg")
    writer = cv2.VideoWriter(str(root / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 120))
    for number in range(5):
        writer.write(np.ascontiguousarray(noise(number, 160, 120)))
    writer.release()
    ignored = (
        "photos",
        "photos.jsonl",
        "hand.jpg",
        "clip.*",
        "boxed",
        "checked",
        "nas",
        "*.zip",
        "log",
        ".fingers-backup.lock",
    )
    (root / ".git/info/exclude").write_text("\n".join(ignored) + "\n")


@pytest.fixture
def desk(finished: Checkout, tmp_path: Path) -> Iterator[Desk]:
    root = tmp_path / "checkout"
    shutil.copytree(finished.root, root, symlinks=True)
    s3, mlflow, port = free_ports(3)
    ports = {"FINGERS_S3_PORT": str(s3), "FINGERS_MLFLOW_PORT": str(mlflow), "PORT": str(port)}
    yield Desk(root, port, finished.environment(**ports, AWS_EC2_METADATA_DISABLED="true"))
    stack.down(root)


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_the_commands_of_a_section_run(section: Section, desk: Desk) -> None:
    running: list[subprocess.Popen[bytes]] = []
    try:
        for line in section.lines:
            command = as_here(line, desk)
            if FOR_EVER.search(command):
                running.append(start(command, desk))
            else:
                code, said = desk.said(command)
                assert code == 0, f"{line}: exit {code}\n{said}"
    finally:
        for process in running:
            end(process)


def as_here(line: str, desk: Desk) -> str:
    """With the reader's own names and numbers as they are on this desk."""
    other_s3, other_mlflow, browsed = free_ports(3)
    names = {
        "mlflow ui": f"mlflow ui --port {browsed}",
        "127.0.0.1:8000": f"127.0.0.1:{desk.port}",
        "FINGERS_S3_PORT=9100": f"FINGERS_S3_PORT={other_s3}",
        "FINGERS_MLFLOW_PORT=5100": f"FINGERS_MLFLOW_PORT={other_mlflow}",
        "/mnt/nas/fingers-….zip": "backup.zip",
        "/mnt/nas": "nas",
        "~/camera": "photos",
        "promote 7": "promote 1",
        "train.epochs=50": "train.epochs=3",  # or each trial of the sweep that follows has so many
        "range(1,4)": "range(1,2)",  # one trial shows it
        "range(1,3)": "range(1,2)",
        "96ab1f": read_release(desk.root / "models/release.json").sha256[:6],
    }
    for name, here in names.items():
        line = line.replace(name, here)
    return line


def start(line: str, desk: Desk) -> "subprocess.Popen[bytes]":
    """What does not end by itself, once it is up."""
    with (desk.root / "log").open("ab") as log:
        process = subprocess.Popen(
            ["bash", "-c", line],
            cwd=desk.root,
            env=desk.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 60
    time.sleep(SETTLE)
    while "fingers serve" in line and process.poll() is None and not is_ready(desk.port):
        assert time.monotonic() < deadline, (desk.root / "log").read_text()
        time.sleep(0.2)
    assert process.poll() is None, f"{line}\n{(desk.root / 'log').read_text()}"
    return process


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def end(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_with_the_lines_of_privacy_no_unblurred_picture_leaves_and_others_go_on(desk: Desk, tmp_path: Path) -> None:
    pipeline = yaml.safe_load((desk.root / "dvc.yaml").read_text(encoding="utf-8"))
    pipeline["stages"]["pull"] |= example("docs/privacy.md")
    (desk.root / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False), encoding="utf-8")
    remote = f"./run dvc remote add --local --force --default disk {tmp_path}/remote"
    assert desk.said(f"{remote} && ./run dvc push && git commit --quiet --all --message 'raw stays'")[0] == 0

    sent = {path.parent.name + path.name for path in (tmp_path / "remote/files/md5").glob("*/*")}
    kept = {md5_of(path) for path in (desk.root / "data/raw/images").iterdir()}
    given = {md5_of(path) for path in (desk.root / "data/yolo/images").iterdir()}
    assert kept
    assert not kept & sent
    assert given <= sent

    other = replace(desk, root=tmp_path / "other")
    assert desk.said(f"git clone --quiet . {other.root}")[0] == 0
    in_step(other.root)
    code, said = other.said(f"{remote} && ./run dvc repro --pull --allow-missing")
    assert code == 0, said
    assert "Running stage" not in said
    code, said = other.said("./run dvc pull")
    assert code != 0
    assert "Checkout failed for following targets:\ndata/raw\n" in said
    assert (other.root / "data/yolo/ledger.json").exists()


def test_the_example_of_training_counts_hands_in_the_same_pictures(desk: Desk) -> None:
    params = yaml.safe_load((desk.root / "params.yaml").read_text(encoding="utf-8"))
    (desk.root / "params.yaml").write_text(yaml.safe_dump(params | example("docs/training.md")), encoding="utf-8")
    code, said = desk.said("./run dvc repro convert")
    assert code == 0, said
    ledger = json.loads((desk.root / "data/yolo/ledger.json").read_text(encoding="utf-8"))
    assert {name for asset in ledger["assets"].values() for name in asset.get("boxes", {})} == {"hand"}


def example(document: str) -> dict[str, Any]:
    """Its block of YAML."""
    (found,) = (b for b in read((ROOT / document).read_text(encoding="utf-8")).blocks if b.language == "yaml")
    values: dict[str, Any] = yaml.safe_load(found.code)
    return values


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_each_reason_not_to_run_something_is_needed() -> None:
    lines = [without_comments(line) for section in sections() for line in section.lines]
    assert [pattern for pattern in CANNOT if not any(re.search(pattern, line) for line in lines)] == []


PROVOKED: Sequence[tuple[str, str]] = [
    ("echo 'x y' > .env; ./run true", ".env line … is not KEY=value"),
    ("cd /; {root}/run fingers status", "…: no dvc.yaml here or above"),
    ("echo A=1 > .env; chmod 644 .env; ./run fingers doctor .env", ".env may be read by others"),
    (
        "touch .env; chmod 600 .env; git add -f .env; ./run fingers doctor .env",
        ".env is in git, with every secret in it",
    ),
    ("./run dvc exp run -S train.epochs=0", "…: … is not allowed: …"),
    ("./run dvc exp run -S train.epoch=1", "Could not override '…'"),
    ("sed -i 's/^  epochs:/  epoch: 1\\n&/' params.yaml; {split}", "…: no such key"),
    ("sed -i '/^  epochs:/d' params.yaml; {split}", "…: missing; params.full.yaml shows every key"),
    ("sed -i 's/^  ultralytics:/&\\n    absent: 1/' params.yaml; {train}", "…: Ultralytics has no such setting"),
    ("sed -i 's/^  ultralytics:/&\\n    imgsz: 64/' params.yaml; {train}", "…: set … instead"),
    ("sed -i 's/^  optimizer: .*/  optimizer: auto/' params.yaml; {train}", "…: optimizer auto would ignore it"),
    ("sed -i 's/^  device: .*/  device: cuda:9/' params.yaml; {train}", "train.device: … is not on this machine"),
    ("sed -i 's/^  weights: .*/  weights: absent.pt/' params.yaml; {train}", "…: no such file (train.weights)"),
    ("sed -i 's/^  - demo/  - folder/' params.yaml; {pull}", "…: … pictures and no annotations of a known format"),
    (
        "sed -i -e 's/^  - demo/  - folder/' -e 's/data.sources$/absent/' params.yaml; {pull}",
        "…: not found (pull.folder.paths)",
    ),
    (
        "sed -i 's/^  near_duplicate_bits: .*/  near_duplicate_bits: 32/' params.yaml; {split}",
        "… pictures in … groups; train, val and test need one each",
    ),
    (
        "sed -i 's/^  max_excluded: .*/  max_excluded: 0/' params.yaml; {convert}",
        "… of … assets excluded, more than convert.max_excluded … allows",
    ),
    (
        "sed -i 's/^    - fist$/    - fists/' params.yaml; {convert}",
        "name it in convert.aliases, or correct it (convert.classes)",
    ),
    ("./run fingers picsellia check", "pull.picsellia: names no dataset and version"),
    ("./run fingers models 99", "…: no version …; there is …"),
    ("./run fingers promote 3", "… failed its gates: …"),
    ("MLFLOW_TRACKING_URI=http://127.0.0.1:9 ./run fingers models", "MLflow at … cannot be reached"),
    ("AWS_ACCESS_KEY_ID=a ./run fingers up", "… is not set, while the other half of the key is"),
    ("AWS_ENDPOINT_URL_S3=https://s3.example.org ./run fingers up", "… is …, so servers here would not be used"),
    ("HOST=0.0.0.0 ./run fingers serve", "HOST: … is reached by others, and nothing says who may come in"),
    ("API_KEYS=short ./run fingers serve", "key … has … characters; at least …"),
    ("ENABLE_PREPROCESSING=false ./run fingers serve", "ENABLE_PREPROCESSING: false leaves faces as they are"),
    ("SERVE_DEVICE=cuda ./run fingers predict hand.jpg", "SERVE_DEVICE: … is not on this machine"),
    ("rm models/detector.onnx; ./run fingers predict hand.jpg", "…: not found; dvc pull, or dvc repro, brings it"),
    (
        "rm models/detector.onnx; rm -r .local; ./run fingers doctor model",
        "models/release.json is here, models/… is not",
    ),
    ("./run fingers predict absent.jpg", "…: not found; give pictures, a folder, a video, or camera"),
    ("./run fingers predict hand.jpg --out dvc.yaml", "…: has lines that `fingers predict` did not write"),
    ("echo x > clip.mp4; ./run fingers predict clip.mp4", "…: not found, or not a video that OpenCV reads"),
    (
        "head -c 400 photos/1.jpg > hand.jpg; ./run fingers predict hand.jpg",
        "…; send a whole JPEG, PNG or WebP picture",
    ),
    ("echo x > backup.zip; ./run fingers restore backup.zip", "…: damaged, or no backup: …"),
    ("./run dvc remote default --local minio; ./run dvc push", "Unable to locate credentials"),
    (
        "./run dvc remote default --local minio; export AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b; "  # noqa: ISC004
        "AWS_ENDPOINT_URL_S3=http://127.0.0.1:9 ./run fingers doctor remote",
        "nobody answers",
    ),
]


@pytest.mark.parametrize(("line", "symptom"), PROVOKED)
def test_what_goes_wrong_is_said_as_troubleshooting_quotes_it(line: str, symptom: str, desk: Desk) -> None:
    assert symptom in quoted()
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    typed = {name: f"./run {stage['cmd']}" for name, stage in stages.items()}
    code, said = desk.said(line.format(root=desk.root, **typed))
    assert code != 0
    assert re.search(".*".join(map(re.escape, symptom.split("…"))), said), said
