"""What a training reports -> its one run in MLflow, kept on disk for as long as the server is away."""

import csv
import json
import logging
import math
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from filelock import BaseFileLock, FileLock, Timeout

from stages import journal
from stages.journal import Artifact, Finished, Journal, Logged, Metrics, Params, Tags
from stages.lineage import local_folder, read_checkout
from stages.mlflow_client import (
    Refused,
    ServerAway,
    connect,
    experiment_name,
    mlflow_errors,
    mlflow_exception,
    probe,
    redacted,
    tracking_uri,
)
from stages.params import StageError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

logger = logging.getLogger(__name__)

RETRY_AFTER = 30.0  # s; a training logs on without asking more often than this for a server that is away
A_RECORD = 100  # params, tags or metrics: MLflow's limit for the first two in one request
LONGEST_PARAM, LONGEST_TAG = 6000, 5000  # characters, MLflow's limits

T = TypeVar("T")


def open_run(key: str, *, name: str, resume: bool) -> "TrackedRun":
    """The run of the training with this content key, which is its tag `training_key`.

    resume: the newest run of the key is gone on with; one is made if there is none. Without it (a training that
    starts from its first epoch) an unfinished run is gone on with if it has no metrics yet, else a new one begins.
    name is the run's unless a DVC experiment gives its own; empty: MLflow invents one.
    A server that is away raises nothing and costs seconds: all is kept on disk, and sent when it is back.
    Another process that opens the run waits until this one lets go of it: experiments side by side may share one.
    Raises StageError when the address answers something that is not MLflow, or refuses the credentials.
    """
    address = tracking_uri()
    checkout = read_checkout()
    lock = _alone(key)
    run = TrackedRun(key, address, _journal(key, checkout.experiment or name or None, address, resume), lock)
    tags = {
        "training_key": key,
        "git": checkout.git,
        "git_dirty": str(checkout.dirty).lower() if checkout.git else None,
        "dvc_lock": checkout.lock,
        "data": checkout.data,
        "dvc_experiment": checkout.experiment,
        "mlflow.source.git.commit": checkout.git,  # what MLflow's own pages show
    }
    run.reach()
    run.set_tags({name: value for name, value in tags.items() if value is not None})
    run.send_what_others_left()
    return run


def backfill_epochs(run: "TrackedRun", epochs_csv: Path) -> None:
    """Gives run those epochs of models/train/epochs.csv that it lacks: a train stage restored by DVC logged none."""
    with epochs_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    run.log_steps({int(row.pop("epoch")): {name: float(text) for name, text in row.items() if text} for row in rows})


class TrackedRun:
    """One run. Every call is on disk when it returns, and with the server as soon as that can be."""

    def __init__(self, key: str, address: str, records: Journal, lock: BaseFileLock) -> None:
        self.key = key
        self.run_id: str | None = None  # None while the server has not been reached
        self._address = address
        self._server = redacted(address)  # its name in the journal
        self._journal = records
        self._lock = lock  # held for as long as this object lives
        self._client: MlflowClient | None = None
        self._in_doubt = True  # whether a kill or a broken connection may have hidden that something arrived
        self._next_try = 0.0
        self._warned = False

    def reach(self) -> None:
        """Raises StageError when waiting would not help: no MLflow at the address, or it lets nobody in."""
        try:
            self._client = connect(self._address)
        except ServerAway as error:
            self._wait(error)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Nested mappings become names with dots. MLflow's params never change: the first value of a name stays."""
        flat = as_logged(params)
        known = self._journal.params
        for name, text in flat.items():
            if known.get(name, text) != text:
                logger.warning("%s stays %s in this run, now it is %s", name, known[name], text)
        for part in _parts({name: text for name, text in flat.items() if name not in known}):
            self._journal.append(Params(values=part))
        self._send()

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Epochs count from 1, and each is logged once: what the run already has of a (name, step) stays.

        Step 0 is for what describes the whole run: there a new value counts. NaN and infinity are left out.
        """
        self.log_steps({step: metrics})

    def log_steps(self, steps: Mapping[int, Mapping[str, float]]) -> None:
        for step, metrics in steps.items():
            values = {_name(name): float(value) for name, value in metrics.items() if math.isfinite(value)}
            for part in _parts({name: value for name, value in values.items() if not self._has(name, step, value)}):
                self._journal.append(Metrics(values=part, step=step, time=_now()))
        self._send()

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """A file, or a directory with its name, as it is now, put into folder."""
        self._journal.append_copy(path, folder)
        self._send()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        known = self._journal.tags
        texts = {name: text[:LONGEST_TAG] for name, text in tags.items()}
        for part in _parts({name: text for name, text in texts.items() if known.get(name) != text}):
            self._journal.append(Tags(values=part))
        self._send()

    def finish(self, status: Literal["FINISHED", "FAILED"]) -> None:
        """May be called by each stage that adds to the run: its end is that of the first with this status."""
        if self._journal.status != status:
            self._journal.append(Finished(status=status, time=_now()))
        self._next_try = 0.0
        self._send()

    def send_what_others_left(self) -> None:
        """Finished runs that this server was meant to get, and could not then."""
        for folder in journal.folders(local_folder() / "tracking") if self._client else []:
            lock = lock_of(folder.parent.name)
            with suppress(Timeout), lock.acquire(timeout=0):  # another process may be at it
                left = Journal(folder)
                waits = left.count_sent(self._server) < len(left.records)
                if waits and left.status and left.opened.address == self._server:
                    run = TrackedRun(folder.parent.name, self._address, left, lock)
                    run._send()
                    logger.info("run %s, which waited on disk, is now in MLflow", run.run_id)

    def _has(self, name: str, step: int, value: float) -> bool:
        known = self._journal.metrics.get((name, step))
        return known is not None and (step > 0 or known == value)

    def _send(self) -> None:
        """All that waits, in order; what cannot be sent keeps waiting. Costs seconds at most, and raises nothing."""
        if time.monotonic() < self._next_try:
            return
        try:
            self._client = self._client or connect(self._address)
            with mlflow_errors(self._address):
                self.run_id = self._find_run(self._client)
                self._send_records(self._client, self.run_id)
            self._in_doubt = self._warned = False
        except StageError as error:
            self._wait(error)

    def _wait(self, reason: StageError) -> None:
        self._client, self._in_doubt = None, True
        self._next_try = time.monotonic() + RETRY_AFTER
        if not self._warned:
            logger.warning("%s; what is logged waits in %s", reason, self._journal.folder)
        self._warned = True

    def _find_run(self, client: "MlflowClient") -> str:
        """The run that was noted for this server, or was made and not noted, or is gone on with, or a new one."""
        run_id = self._journal.run_id(self._server)
        if run_id is not None and not (self._in_doubt and _is_gone(client, run_id)):
            return run_id
        opened = self._journal.opened
        experiment_id = _experiment(client, self._address)
        run = _newest(client, experiment_id, "journal", opened.id)
        if run is None and opened.adopts:
            run = _newest(client, experiment_id, "training_key", self.key)
        if run is None:
            tags = {"training_key": self.key, "journal": opened.id}
            run = client.create_run(experiment_id, opened.time, tags, opened.name)
        self._journal.acknowledge(self._server, run.info.run_id, 0)
        return str(run.info.run_id)

    def _send_records(self, client: "MlflowClient", run_id: str) -> None:
        count = self._journal.count_sent(self._server)
        for batch in _batches(self._journal.records[count:]):
            try:
                with mlflow_errors(self._address):
                    self._send_batch(client, run_id, batch)
            except Refused as error:
                probe(self._address)  # raises unless it is MLflow that refuses, which it would do again
                logger.warning("%s; left out", error)
            count += len(batch)
            self._journal.acknowledge(self._server, run_id, count)
            for record in batch:
                if isinstance(record, Artifact):
                    shutil.rmtree((self._journal.folder / record.copy_path).parent, ignore_errors=True)

    def _send_batch(self, client: "MlflowClient", run_id: str, batch: Sequence[Logged]) -> None:
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 -- seconds

        may_have_more = self._in_doubt or self._journal.opened.adopts
        match batch[0]:
            case Params(values=values):
                there = client.get_run(run_id).data.params if may_have_more else {}
                params = [Param(name, text) for name, text in values.items() if name not in there]
                client.log_batch(run_id, params=params)
            case Tags(values=values):
                client.log_batch(run_id, tags=[RunTag(name, text) for name, text in values.items()])
            case Metrics():
                records = [record for record in batch if isinstance(record, Metrics)]
                metrics = [Metric(name, value, r.time, r.step) for r in records for name, value in r.values.items()]
                client.log_batch(run_id, metrics=_not_there(client, run_id, metrics) if may_have_more else metrics)
            case Artifact(copy_path=copy_path, folder=folder):
                copy = self._journal.folder / copy_path
                if copy.exists():  # it is gone where one server got it and this is another
                    client.log_artifact(run_id, str(copy), folder or None)
            case Finished(status=status, time=end):
                client.set_terminated(run_id, status, end)


def _experiment(client: "MlflowClient", address: str) -> str:
    """Its id; made if need be. Beside a database that is a file, the artifacts are files too."""
    name = experiment_name()
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    path = address.removeprefix("sqlite:///")
    artifacts = None if path == address else (Path(path).resolve().parent / "artifacts").as_uri()
    try:
        return client.create_experiment(name, artifact_location=artifacts)
    except mlflow_exception():
        if found := client.get_experiment_by_name(name):  # another process was faster
            return str(found.experiment_id)
        raise


def _newest(client: "MlflowClient", experiment_id: str, tag: str, value: str) -> "Run | None":
    runs = client.search_runs(
        [experiment_id], f"tags.`{tag}` = '{value}'", max_results=1, order_by=["attributes.start_time DESC"]
    )
    return runs[0] if runs else None


def _is_gone(client: "MlflowClient", run_id: str) -> bool:
    """Deleted by somebody, or made by a server whose database is no longer the same."""
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage != "active")
    except mlflow_exception() as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return True


def _not_there(client: "MlflowClient", run_id: str, metrics: Sequence["Metric"]) -> list["Metric"]:
    """Those of metrics whose epoch the run lacks; at step 0, whose very moment it lacks."""
    there = {
        (name, logged.step, logged.step or logged.timestamp)
        for name in {metric.key for metric in metrics}
        for logged in client.get_metric_history(run_id, name)
    }
    return [metric for metric in metrics if (metric.key, metric.step, metric.step or metric.timestamp) not in there]


def _batches(records: Sequence[Logged]) -> Iterator[Sequence[Logged]]:
    """In order: metrics that follow each other together, up to MLflow's 1000 values; everything else alone."""
    for kind, group in groupby(records, key=type):
        alike, most = list(group), 1000 // A_RECORD if kind is Metrics else 1
        yield from (alike[start : start + most] for start in range(0, len(alike), most))


def _parts(values: Mapping[str, T]) -> Iterator[dict[str, T]]:
    names = list(values)
    for start in range(0, len(names), A_RECORD):
        yield {name: values[name] for name in names[start : start + A_RECORD]}


def _alone(key: str) -> BaseFileLock:
    lock = lock_of(key)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process writes the run of this very training; waiting until it has ended")
        lock.acquire()
    return lock


def lock_of(key: str) -> BaseFileLock:
    """Of all journals of the key. The operating system gives it back when its holder ends, however it ends."""
    folder = local_folder() / "tracking" / key
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "lock", is_singleton=True)


def _journal(key: str, name: str | None, address: str, resume: bool) -> Journal:
    root = local_folder() / "tracking"
    if existing := journal.folders(root, key):
        latest = Journal(existing[-1])
        if resume or (latest.status is None and not latest.metrics):
            return latest
    return Journal.begin(root, key, name=name, address=redacted(address), adopts=resume, time=_now())


def as_logged(params: Mapping[str, object]) -> dict[str, str]:
    """Params as a run has them: names with dots, values as text."""
    return {_name(name): _text(value)[:LONGEST_PARAM] for name, value in flat(params)}


def flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested mappings become names with dots; an empty one is a value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _name(name: str) -> str:
    """With only what MLflow allows in a name on every system."""
    return re.sub(r"[^\w./ -]", "_", name)[:250]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _now() -> int:
    return time.time_ns() // 1_000_000
