"""params.train -> what Ultralytics is told: its spelling, a device that is there, a weights file that is there."""
# mypy: disable-error-code="no-untyped-call"

import os
import socket
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import torch
from ultralytics.cfg import check_cfg
from ultralytics.nn.tasks import load_checkpoint, yaml_model_load
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.checks import check_model_file_from_stem
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

from stages.lineage import local_folder
from stages.params import PARAMS_FILE, StageError, TrainParams

Settings = dict[str, Any]  # Ultralytics' name: value

SPELLED = {  # ours: theirs
    "image_size": "imgsz",
    "epochs": "epochs",
    "batch_size": "batch",
    "optimizer": "optimizer",
    "patience": "patience",
    "seed": "seed",
}
ELSEWHERE = {theirs: f"train.{ours}" for ours, theirs in SPELLED.items()} | {
    "model": "train.weights",
    "device": "train.device",
}
FREE = {  # what steers a training, and is nobody else's to decide
    *("lr0", "lrf", "momentum", "weight_decay", "warmup_epochs", "warmup_momentum", "warmup_bias_lr", "cos_lr", "nbs"),
    *("box", "cls", "cls_pw", "cls_remap", "dfl", "freeze", "workers", "multi_scale", "rect", "max_det"),
    *("close_mosaic", "mosaic", "mixup", "cutmix", "copy_paste", "copy_paste_mode", "hsv_h", "hsv_s", "hsv_v", "bgr"),
    *("degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr"),
}
CHOSEN_BY_AUTO = ("lr0", "momentum", "warmup_bias_lr")  # optimizer=auto replaces them, whatever they say
REACHABLE_WITHIN = 3  # s


def settings_for(train: TrainParams) -> Settings:
    """Raises StageError for a key that does not steer a training, or whose value Ultralytics refuses."""
    for key in train.ultralytics:
        where = f"{PARAMS_FILE}: train.ultralytics.{key}"
        if key in ELSEWHERE:
            raise StageError(f"{where}: set {ELSEWHERE[key]} instead")
        if key in DEFAULT_CFG_DICT and key not in FREE:
            raise StageError(f"{where}: the stage sets this itself, or it does not steer a training; take it out")
        if key not in FREE:
            raise StageError(f"{where}: Ultralytics has no such setting; allowed: {' '.join(sorted(FREE))}")
        if train.optimizer == "auto" and key in CHOSEN_BY_AUTO:
            raise StageError(f"{where}: optimizer auto would ignore it; set train.optimizer, AdamW for example")
    settings = {theirs: getattr(train, ours) for ours, theirs in SPELLED.items()} | train.ultralytics
    try:
        check_cfg({**DEFAULT_CFG_DICT, **settings})
    except (TypeError, ValueError) as error:
        raise StageError(f"{PARAMS_FILE}: train.ultralytics: {' '.join(str(error).split())}") from None
    return settings


def device_for(name: str) -> str:
    """auto: CUDA, else Apple's GPU, else the processor. Raises StageError for a device that is not there."""
    there = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    there += ["mps"] if torch.backends.mps.is_available() else []
    there += ["cpu"]
    if name == "auto":
        return there[0]
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in there:
        raise StageError(f"{PARAMS_FILE}: train.device: {name!r} is not on this machine; it has {' '.join(there)}")
    return wanted


def threads_for(threads: int) -> int:
    if threads:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_weights(name: str) -> str:
    """A .pt file, fetched once if it is an official one, or the name of an architecture that Ultralytics knows.

    A relative path is looked up from here and from the main checkout, which is not here in a queued experiment.
    """
    name = str(check_model_file_from_stem(name))
    main, fetched = local_folder().parent, local_folder() / "weights"
    found = next((path for path in (Path(name), main / name, fetched / name) if path.is_file()), None)
    if Path(name).suffix in (".yaml", ".yml"):
        return str(found) if found else _architecture(name)
    if found is None:
        found = _fetch(name, fetched)
    try:
        load_checkpoint(found)
    except (TypeError, RuntimeError, EOFError, KeyError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise StageError(f"{found}: not the weights of an Ultralytics detector (train.weights): {reason}") from None
    return str(found)


def _architecture(name: str) -> str:
    try:
        yaml_model_load(name)
    except FileNotFoundError:
        raise StageError(f"{name}: no such file, and no architecture of Ultralytics (train.weights)") from None
    return name


def _fetch(name: str, folder: Path) -> Path:
    ways_out = f"put the file there or name its path in train.weights, or start from random ones: {_random(name)}"
    if name not in GITHUB_ASSETS_NAMES:
        raise StageError(f"{name}: no such file (train.weights); {ways_out}")
    try:
        if not getproxies():  # Ultralytics waits half a minute to connect, four times
            socket.create_connection(("github.com", 443), REACHABLE_WITHIN).close()
        folder.mkdir(parents=True, exist_ok=True)
        return Path(attempt_download_asset(folder / name, retry=0, progress=False))
    except OSError as error:  # also requests' own, and ConnectionError
        raise StageError(f"{name}: not found, and no network to fetch it ({error}); {ways_out}") from None


def _random(name: str) -> str:
    return f"{Path(name).stem}.yaml" if name in GITHUB_ASSETS_NAMES else "yolo11n.yaml"
