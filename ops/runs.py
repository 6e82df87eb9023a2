"""Runs of the experiment -> how far each has got, once or again and again while a training goes on."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Literal

from tqdm import tqdm

from stages.mlflow_client import ServerAway
from stages.runs import Point, Run, Runs, in_progress_here

logger = logging.getLogger(__name__)

Sort = Literal["started", "seconds", "best_map50", "test_map50", "count_accuracy"]


@dataclass(frozen=True)
class Progress:
    """A run, its val mAP50 epoch by epoch, and what becomes of it as far as can be told."""

    run: Run
    epochs: list[Point]
    condition: str  # of stages.runs

    @property
    def asked(self) -> int | None:
        """Epochs that it was to have."""
        text = self.run.params.get("train.epochs", "")
        return int(text) if text.isdecimal() else None

    @property
    def best_map50(self) -> float | None:
        return max((point.value for point in self.epochs), default=None)

    @property
    def last_sign(self) -> int:
        """ms since 1970."""
        return self.epochs[-1].time if self.epochs else self.run.started


@dataclass(frozen=True)
class Listed:
    """A run as a list shows it. None: not reached, or not logged."""

    name: str
    status: str
    started: str  # UTC, ISO 8601
    seconds: float
    epochs: int
    of_epochs: int | None
    best_map50: float | None  # of val, over the epochs
    test_map50: float | None
    count_accuracy: float | None
    version: str | None  # of the registered model
    experiment: str | None  # DVC's name
    run_id: str


def listed(runs: Runs, limit: int, status: str | None = None, sort: Sort = "started") -> list[Listed]:
    """The newest, or the highest first of what sort names; those without it last."""
    rows = (as_listed(progress(runs, run)) for run in runs.newest_first(status.upper() if status else None))
    if sort == "started":
        return list(islice(rows, limit))
    everything = list(tqdm(rows, desc="runs", unit="run", disable=None, delay=2))
    return sorted(everything, key=lambda row: (getattr(row, sort) is None, -(getattr(row, sort) or 0)))[:limit]


def as_listed(progress: Progress) -> Listed:
    run = progress.run
    end = run.ended or progress.last_sign
    return Listed(
        name=run.name,
        status=progress.condition,
        started=datetime.fromtimestamp(run.started / 1000, UTC).isoformat(timespec="seconds"),
        seconds=(end - run.started) / 1000,
        epochs=progress.epochs[-1].step if progress.epochs else 0,
        of_epochs=progress.asked,
        best_map50=progress.best_map50,
        test_map50=run.metrics.get("test/map50"),
        count_accuracy=run.metrics.get("test/count_accuracy"),
        version=run.tags.get("model_version"),
        experiment=run.tags.get("dvc_experiment"),
        run_id=run.id,
    )


def watch(every: float, until_done: bool) -> Iterator[list[Progress]]:
    """The runs in progress, every so many seconds, and after them those that have ended since it began.

    A server that is away is asked again; what this machine trains is meanwhile read from its own disk.
    until_done: ends when nothing is in progress any more.
    """
    runs: Runs | None = None
    seen: dict[str, None] = {}  # ids, in the order in which they came
    away = False
    while True:
        try:
            runs = runs or Runs()
            going = [now for run in runs.newest_first("RUNNING") if (now := progress(runs, run)).condition == "running"]
            ids = {now.run.id for now in going}
            ended = [progress(runs, run) for run_id in seen if run_id not in ids and (run := runs.get(run_id))]
            away = False
        except ServerAway as error:
            if not away:
                logger.warning("%s; shown is what this machine trains", error)
            runs, away = None, True
            going, ended = [Progress(run, epochs, "running") for run, epochs in in_progress_here()], []
        seen |= dict.fromkeys(now.run.id for now in going)
        yield going + ended
        if until_done and not going:
            return
        time.sleep(every)


def progress(runs: Runs, run: Run) -> Progress:
    epochs = [point for point in runs.history(run, "map50") if point.step > 0]
    return Progress(run, epochs, runs.condition(run))
