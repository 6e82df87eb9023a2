"""Releases and the files they come from, small and complete."""

from pathlib import Path
from typing import Any

import cv2

from stages.files import sha256_of, write_json, write_text
from stages.registry import Registry, Version
from stages.release import ONNX_FILE, Release
from stages.tracking import open_run
from tests.fixed_model import row, write_model
from tests.native import noise

CLASSES = [*"012345", "unknown"]
COUNTS = [0, 1, 2, 3, 4, 5, None]
SIZE = 64  # px of pictures and of the network's input, so that boxes are the same in both
HAND = (8.0, 8.0, 40.0, 40.0)
FACES = {"detector": "centerface", "confidence": 0.2, "margin": 0.15, "method": "mosaic", "cells": 6}
FORM = {"map50": 0.95, "map50_95": 0.7, "count_accuracy": 0.9}


def model(path: Path, count: int = 3) -> Path:
    """A detector that sees one hand with that many fingers in every picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_model(path, [row(HAND, count, 0.9)], size=SIZE)


def metrics(**changes: Any) -> dict[str, Any]:
    """models/evaluate/metrics.json of a model that passes the floors."""
    scores = {"precision": 0.9, "recall": 0.9, "f1": 0.9, "ap50": 0.95, "ap50_95": 0.7}
    return {
        **FORM,
        "count_accuracy_low": 0.8,
        "count_accuracy_high": 0.97,
        "count_mae": 0.1,
        "confidence": 0.4,
        "pictures": 40,
        "classes": dict.fromkeys(CLASSES, scores),
        "precisions": {"f32": {"map50": 0.95, "count_accuracy": 0.9, "latency_ms": 4.2, "latency_p95_ms": 5.0}},
        **changes,
    }


def release(onnx: Path, run_id: str | None, **changes: Any) -> Release:
    scores = metrics()
    return Release.model_validate(
        {
            "name": "fingers",
            "sha256": sha256_of(onnx),
            "int8": {},
            "faces": FACES,
            "classes": CLASSES,
            "counts": COUNTS,
            "thresholds": {"confidence": scores["confidence"], "iou": 0.6, "max_boxes": 20},
            "precisions": scores["precisions"],
            "metrics": scores,
            "gates": {"passed": True, "failures": []},
            "comparison": None,
            "input_profile": {"pictures": 4},
            "lineage": {
                "data": None,
                "lock": None,
                "git": None,
                "training_key": "k",
                "run_id": run_id,
                "params": {"pull": {"sources": ["folder"]}},
            },
            **changes,
        }
    )


def registered(registry: Registry, onnx: Path, key: str = "k", **changes: Any) -> Version:
    """A version, of the run with this key; changes: of its release."""
    run_id = open_run(key, name="", resume=True).run_id
    return registry.register(release(onnx, run_id, **changes), {ONNX_FILE: onnx}, "# fingers\n")


def write_data(root: Path, counts: list[int]) -> tuple[Path, Path]:
    """data/yolo and data/splits whose test pictures each show one hand, with these counts."""
    yolo, splits = root / "data/yolo", root / "data/splits"
    assets = {}
    for n, count in enumerate(counts):
        picture = yolo / f"images/p{n:02d}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(picture), noise(n, SIZE, SIZE))
        write_text(yolo / f"labels/p{n:02d}.txt", f"{count} 0.375 0.375 0.5 0.5\n")
        assets[f"p{n:02d}"] = {"outcome": "kept", "source": "test", "boxes": {str(count): 1}}
    assets["lost"] = {"outcome": "excluded", "reason": "unreadable", "source": "test", "boxes": {}}
    write_json(yolo / "ledger.json", {"classes": CLASSES, "counts": COUNTS, "assets": assets})
    lines = "".join(f"./../yolo/images/p{n:02d}.png\n" for n in range(len(counts)))
    for name in ("train", "val", "test"):
        write_text(splits / f"{name}.txt", lines)
    return yolo, splits
