"""Pictures and settings -> the states of a detector, one an epoch, by several processes on a Ray cluster.

Each has the same weights and its part of every batch, and they average their gradients: docs/scale.md says in what that
differs from a single process. Pictures go to the nodes through Ray's memory, states come back the same way, so that the
nodes need no disk in common; a node that dies costs the epoch that was under way.
"""

import io
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from stages.nodes import File, below, connected, on_this_node, received, sent
from stages.params import StageError, TrainParams
from stages.training.checkpoint import State

Settings = dict[str, Any]  # Ultralytics' name: value; stages.training.settings would import Ultralytics

RESTARTS = 10  # after which a training whose workers die is given up
POLL = 0.5  # s


@dataclass(frozen=True)
class Work:
    """What each worker is given. Paths in settings are relative to a folder of its own, into which the files go."""

    settings: Settings
    workers: int
    threads: int
    files: "list[ray.ObjectRef[list[File]]]"
    versions: dict[str, str]  # of the packages that decide the weights
    desk: Any


def fit_on_cluster(
    asked: TrainParams,
    settings: Settings,
    folders: tuple[Path, Path],
    versions: dict[str, str],
    state: State | None,
    keep: Callable[[State], None],
) -> State:
    """The state after the last epoch, going on after the one given. keep gets each; it runs here, in another thread.

    folders: data/yolo and data/splits. Raises StageError, also for what a worker finds wrong.
    """
    yolo, splits = folders
    files = {**below(yolo, yolo.name), **below(splits, splits.name)}
    settings = settings | {"data": f"{splits.name}/data.yaml"}
    if (weights := Path(settings["model"])).is_file():
        files[weights.name] = weights
        settings["model"] = weights.name
    with connected(GOMP_SPINCOUNT=os.environ["GOMP_SPINCOUNT"]), tempfile.TemporaryDirectory() as storage:
        desk = Desk.options(**on_this_node()).remote(state and dumped(state))  # type: ignore[attr-defined]
        work = Work(settings, asked.workers, asked.threads, sent(files), versions, desk)
        on_gpus = asked.device == "cuda"
        trainer = TorchTrainer(
            train_part,
            train_loop_config={"work": work},
            scaling_config=ScalingConfig(
                num_workers=asked.workers,
                use_gpu=on_gpus,
                resources_per_worker={"CPU": asked.threads, "GPU": int(on_gpus)},
                placement_strategy="PACK" if on_gpus else "SPREAD",  # GPUs talk fastest within a node
            ),
            run_config=RunConfig(storage_path=storage, failure_config=FailureConfig(max_failures=RESTARTS)),
        )
        ended = Event()
        with ThreadPoolExecutor(1) as pool:
            handing_on = pool.submit(hand_on, desk, keep, ended)
            try:
                trainer.fit()
            finally:
                ended.set()
        last = handing_on.result()
        if refusal := ray.get(desk.refusal.remote()):
            raise StageError(refusal)
    if last is None or not last["finished"]:
        raise StageError("the workers on the cluster were stopped before the last epoch; dvc repro goes on from there")
    return last


def hand_on(desk: Any, keep: Callable[[State], None], ended: Event) -> State | None:
    """Until ended, what workers leave at the desk. The last of it."""
    last = None
    while True:
        over = ended.is_set()
        for content in ray.get(desk.take.remote()):
            last = loaded(content)
            try:
                keep(last)
            except Exception as error:
                ray.get(desk.refuse.remote(str(error)))  # the workers need not go on
                raise
        if over:
            return last
        ended.wait(POLL)


@ray.remote
class Desk:
    """Where workers leave the state after each epoch, and get it when they begin again. It outlives them."""

    def __init__(self, newest: bytes | None) -> None:
        self._newest = newest
        self._left: list[bytes] = []
        self._refusal: str | None = None

    def newest(self) -> bytes | None:
        return self._newest

    def leave(self, state: bytes) -> None:
        self._newest = state
        self._left.append(state)

    def take(self) -> list[bytes]:
        """What was left since the last time."""
        left, self._left = self._left, []
        return left

    def refuse(self, why: str) -> None:
        self._refusal = self._refusal or why

    def refusal(self) -> str | None:
        return self._refusal


def train_part(config: dict[str, Work]) -> None:
    """In the process of a worker, which Ray has joined to the others."""
    work = config["work"]
    if ray.get(work.desk.refusal.remote()):  # begun again, although that would not help
        return
    with tempfile.TemporaryDirectory(prefix="fingers-") as folder, chdir(folder):
        os.environ["YOLO_CONFIG_DIR"] = folder  # Ultralytics' settings are not shared with the worker beside
        try:
            fit_part(work, Path(folder))
        except StageError as error:
            ray.get(work.desk.refuse.remote(str(error)))
            raise


def fit_part(work: Work, folder: Path) -> None:
    from stages.training.fit import Fit, keep_freed_memory  # noqa: PLC0415 -- Ultralytics looks up its rank when imported

    check_versions(work.versions)
    keep_freed_memory()
    content = ray.get(work.desk.newest.remote())
    state = content and loaded(content)
    if state and state["finished"]:
        return
    received(work.files, folder)
    settings = work.settings | {"device": str(get_device()), "data": str(folder / work.settings["data"])}

    def keep(state: State) -> None:
        if ray.get(work.desk.refusal.remote()):
            raise RuntimeError("the states are no longer wanted")
        ray.get(work.desk.leave.remote(dumped(state)))

    Fit(settings, work.threads, folder / "ultralytics", state, keep, work.workers).run()


def check_versions(wanted: dict[str, str]) -> None:
    """Raises StageError when this node would train otherwise."""
    there = {name: version(name) for name in wanted}
    for name, one in wanted.items():
        if there[name] != one:
            raise StageError(
                f"a node of the cluster has {name} {there[name]}, this one has {one}: install requirements.lock on both"
            )


def dumped(state: State) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def loaded(content: bytes) -> State:
    state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state
