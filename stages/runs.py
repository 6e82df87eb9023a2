"""An experiment in MLflow -> its runs as data, newest first, and whether anybody still works on one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

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
    tracking_uri,
    without_password,
)
from stages.params import StageError
from stages.tracking import lock_of

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

LENGTH_OF_ID = 32
A_PAGE = 100  # runs in one answer of the server


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


@dataclass(frozen=True)
class Point:
    step: int
    value: float
    time: int  # ms since 1970


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
            if experiment is None:
                return
            wanted = f"attributes.status = '{status}'" if status else ""
            found = pages(
                lambda token: self._client.search_runs(
                    [experiment.experiment_id],
                    wanted,
                    max_results=A_PAGE,
                    order_by=["attributes.start_time DESC"],
                    page_token=token,
                )
            )
            yield from map(_run, found)

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
        server = without_password(self._address)
        for folder in journal.folders(local_folder() / "tracking", run.tags.get("training_key", "-")):
            if Journal(folder).run_id(server) == run.id:
                return _is_held(folder)
        return None


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
    return Run(
        id=info.run_id,
        name=info.run_name,
        status=info.status,
        started=info.start_time,
        ended=info.end_time,
        params=dict(data.params),
        tags=dict(data.tags),
        metrics=dict(data.metrics),
    )
