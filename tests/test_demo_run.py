"""The demo as committed, from drawn pictures to a champion, and its scores against Ultralytics' own."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages.files import sha256_of
from tests.checkout import Checkout, clone, stored
from tests.native import params

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = clone(tmp_path_factory.mktemp("demo") / "clone")
    started = time.monotonic()
    sys.stderr.write(checkout.run("dvc", "repro"))
    sys.stderr.write(f"demo: dvc repro took {time.monotonic() - started:.0f} s\n")
    return checkout


def read(checkout: Checkout, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((checkout.root / path).read_text())
    return found


def test_the_demo_reaches_its_floors_and_becomes_champion(demo: Checkout) -> None:
    metrics, release = read(demo, "models/evaluate/metrics.json"), read(demo, "models/release.json")
    floors = params().register_
    assert metrics["map50"] >= floors.min_map50
    assert metrics["count_accuracy"] >= floors.min_count_accuracy
    assert release["gates"] == {"passed": True, "failures": []}
    (version,) = stored(demo)["versions"]
    assert sorted(version["aliases"]) == ["challenger", "champion"]
    assert release["sha256"] == sha256_of(demo.root / "models/detector.onnx")


def test_every_plot_is_drawn(demo: Checkout) -> None:
    demo.run("dvc", "plots", "show")
    page = (demo.root / "dvc_plots/index.html").read_text()
    titles = (
        "training loss",
        "validation loss",
        "validation mAP",
        "precision and recall",
        "confusion",
        "count accuracy",
    )
    assert [title for title in titles if title not in page] == []


def test_the_demo_exercises_every_rule_of_the_ledger(demo: Checkout) -> None:
    summary = read(demo, "data/yolo/ledger.json")["summary"]
    assert {"annotation pending", "annotation refused", "unreadable"} <= summary["excluded"].keys()
    assert summary["dropped_boxes"]
    assert summary["background"] > 0
    assert all(summary["boxes"].values())
    assert summary["kept"] + sum(summary["excluded"].values()) == summary["assets"]


def test_map_agrees_with_ultralytics_on_the_same_model_and_pictures(demo: Checkout, tmp_path: Path) -> None:
    """Its own validation of the torch weights, with the suppression set alike."""
    detect, train = params().detect, params().train
    code = f"""
import json
from ultralytics import YOLO
scores = YOLO("models/detector.pt").val(
    data="data/splits/data.yaml", split="test", imgsz={train.image_size}, rect=False, batch=8, workers=0, device="cpu",
    agnostic_nms=True, iou={detect.iou}, max_det={detect.max_boxes}, conf=0.001, plots=False, verbose=False,
    project={str(tmp_path)!r},
)
print(json.dumps([scores.box.map50, scores.box.map]))
"""
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=demo.root,
        env=demo.environment(YOLO_CONFIG_DIR=str(tmp_path), YOLO_OFFLINE="true"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    map50, map50_95 = json.loads(said.splitlines()[-1])
    metrics = read(demo, "models/evaluate/metrics.json")
    assert metrics["map50"] == pytest.approx(map50, abs=0.02)
    assert metrics["map50_95"] == pytest.approx(map50_95, abs=0.02)
