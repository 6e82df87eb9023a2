"""An experiment in MLflow -> its runs as data, newest first, and whether anybody still works on one."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from filelock import Timeout

from stages import journal
from stages.journal import Journal, Metrics
from stages.lineage import local_folder
from stages.mlflow_client import (
    connect,
    experiment_name,
    mlflow_errors,
    mlflow_exception,
    pages,
    redacted,
    tracking_uri,
)
from stages.params import StageError
from stages.tracking import lock_of

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.store.entities import PagedList

LENGTH_OF_ID = 32
A_PAGE = 100  # runs in one answer of the server
SILENT_AFTER = 600.0  # s without an epoch, and no less than five epochs' time: then a training may be dead

Sort = Literal["started", "name", "state", "architecture", "map50", "count_accuracy"]
ORDERS: Final[Mapping[Sort, str]] = {  # as MLflow calls them; it sorts by nothing that it would have to work out
    "started": "attributes.start_time",
    "name": "attributes.run_name",
    "state": "attributes.status",
    "architecture": "params.`train.weights`",
    "map50": "metrics.`test/map50`",
    "count_accuracy": "metrics.`test/count_accuracy`",
}


@dataclass(frozen=True)
class Run:
    """Times in ms since 1970."""

    id: str
    name: str
    status: str
    started: int
    ended: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]  # the newest value of each
    epoch: "Point | None" = None  # the newest of val mAP50


@dataclass(frozen=True)
class Point:
    step: int
    value: float
    time: int  # ms since 1970


@dataclass(frozen=True)
class Wanted:
    """Which runs, in which order. Texts are parts of names, whatever the case; no quote may be in them."""

    status: str = ""  # as MLflow calls it: RUNNING, FINISHED, FAILED, KILLED
    name: str = ""
    architecture: str = ""
    sort: Sort = "started"
    descending: bool = True

    @property
    def filter(self) -> str:
        """In MLflow's language, which has no way to write a quote."""
        tests = {
            "attributes.status = '{}'": self.status,
            "attributes.run_name ILIKE '%{}%'": self.name,
            "params.`train.weights` ILIKE '%{}%'": self.architecture,
        }
        return " AND ".join(test.format(text) for test, text in tests.items() if text)

    @property
    def order(self) -> list[str]:
        """MLflow puts what has no such value last, and what is equal newest first."""
        return [f"{ORDERS[self.sort]} {'DESC' if self.descending else 'ASC'}"]


class Runs:
    """The runs of one experiment on the server of MLFLOW_TRACKING_URI, or in `.local/`.

    Every method raises StageError: ServerAway where waiting may help.
    """

    def __init__(self) -> None:
        self.experiment = experiment_name()
        self._address = tracking_uri()
        self._client = connect(self._address)

    def newest_first(self, status: str | None = None) -> Iterator[Run]:
        """Read from the server as they are asked for; none when the experiment does not exist.

        status: only those that MLflow calls so: RUNNING, FINISHED, FAILED, KILLED.
        """
        with mlflow_errors(self._address):
            experiment = self._client.get_experiment_by_name(self.experiment)
            if experiment is not None:
                wanted = Wanted(status=status or "")
                found = pages(lambda token: self._search(experiment.experiment_id, wanted, A_PAGE, token))
                yield from map(_run, found)

    def page(self, wanted: Wanted, size: int, token: str | None = None) -> tuple[list[Run], str | None]:
        """Up to size runs, and the token of those that follow; None: there are no more."""
        with mlflow_errors(self._address):
            experiment = self._client.get_experiment_by_name(self.experiment)
            if experiment is None:
                return [], None
            found = self._search(experiment.experiment_id, wanted, size, token)
            return [_run(run) for run in found], found.token or None

    def find(self, reference: str) -> Run:
        """By id, by the first characters of it, or by name. Raises StageError when that is none, or several."""
        if len(reference) == LENGTH_OF_ID and (known := self.get(reference)):
            return known
        found = list(islice((run for run in self.newest_first() if _is(run, reference)), 2))
        match found:
            case [run]:
                return run
            case []:
                raise StageError(f"{self.experiment}: no run {reference!r}; fingers runs lists them")
            case _:
                ids = " and ".join(run.id for run in found)
                raise StageError(f"{self.experiment}: {reference!r} is more than one run: {ids}; give more of the id")

    def get(self, run_id: str) -> Run | None:
        """Of whatever experiment; None when it was deleted."""
        with mlflow_errors(self._address):
            try:
                found = self._client.get_run(run_id)
            except mlflow_exception() as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                return None
            return _run(found) if found.info.lifecycle_stage == "active" else None

    def history(self, run: Run, metric: str) -> list[Point]:
        """Every value of metric, in the order of its steps."""
        with mlflow_errors(self._address):
            points = self._client.get_metric_history(run.id, metric)
            return sorted((Point(p.step, p.value, p.timestamp) for p in points), key=lambda point: point.step)

    def is_written_here(self, run: Run) -> bool | None:
        """Whether a process of this machine works on the run; None: its journal is not here, another machine knows."""
        server = redacted(self._address)
        for folder in journal.folders(local_folder() / "tracking", run.tags.get("training_key", "-")):
            if Journal(folder).run_id(server) == run.id:
                return _is_held(folder)
        return None

    def condition(self, run: Run) -> str:
        """MLflow's status in lower case; of one that it takes for running, what can be told."""
        if run.status != "RUNNING":
            return run.status.lower()
        return condition(run.started, run.epoch, self.is_written_here(run), time.time())

    def _search(self, experiment: str, wanted: Wanted, size: int, token: str | None) -> "PagedList[MlflowRun]":
        return self._client.search_runs(
            [experiment], wanted.filter, max_results=size, order_by=wanted.order, page_token=token
        )


def condition(started: int, last: Point | None, written_here: bool | None, now: float) -> str:
    """Of a run that MLflow takes for running, because nobody told it otherwise. started in ms, now in s since 1970.

    interrupted: the process was killed, here, and the next dvc repro goes on with it;
    silent: another machine's, and no epoch has come for long.
    """
    if written_here is not None:
        return "running" if written_here else "interrupted"
    last_sign = last.time if last else started
    an_epoch = (last_sign - started) / 1000 / max(last.step if last else 0, 1)
    return "silent" if now - last_sign / 1000 > max(SILENT_AFTER, 5 * an_epoch) else "running"


def in_progress_here() -> list[tuple[Run, list[Point]]]:
    """What processes of this machine train, with val mAP50 epoch by epoch: from their journals, whatever the server."""
    newest = {folder.parent: folder for folder in journal.folders(local_folder() / "tracking")}.values()
    held = [Journal(folder) for folder in newest if _is_held(folder)]
    return [_run_of(records) for records in held if records.status is None]  # evaluate and register hold it too


def _is_held(folder: Path) -> bool:
    lock = lock_of(folder.parent.name)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def _run_of(records: Journal) -> tuple[Run, list[Point]]:
    opened, key = records.opened, records.folder.parent.name
    logged = [record for record in records.records if isinstance(record, Metrics) and "map50" in record.values]
    run = Run(
        id=records.run_id(opened.address) or opened.id,
        name=opened.name or key[:12],
        status="RUNNING",
        started=opened.time,
        ended=None,
        params=records.params,
        tags=records.tags,
        metrics={},
    )
    return run, [Point(record.step, record.values["map50"], record.time) for record in logged]


def _is(run: Run, reference: str) -> bool:
    return run.name == reference or (len(reference) >= 4 and run.id.startswith(reference))


def _run(found: "MlflowRun") -> Run:
    info, data = found.info, found.data
    newest = {metric.key: metric for metric in data.to_proto().metrics}  # the one way to their steps
    epoch = newest.get("map50")
    return Run(
        id=info.run_id,
        name=info.run_name,
        status=info.status,
        started=info.start_time,
        ended=info.end_time,
        params=dict(data.params),
        tags=dict(data.tags),
        metrics=dict(data.metrics),
        epoch=Point(epoch.step, epoch.value, epoch.timestamp) if epoch and epoch.step > 0 else None,
    )
