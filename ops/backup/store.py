"""One MLflow, wherever it is <-> its content as records, page by page: alone here in knowing MLflow's client."""

import os
import posixpath
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ops.backup.records import NO_STAGE, Dataset, Experiment, Model, Place, Point, Run, Version
from stages.mlflow_client import connect, mlflow_errors, mlflow_exception, pages
from stages.params import StageError

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

A_PAGE = 100  # experiments, runs, models or versions in one answer
POINTS_A_PAGE = 10_000  # MLflow's most is 25,000
A_BATCH = 1000  # points in one request, MLflow's most
SAFE = "/ !$&'()*+,:;=@[]~"  # and letters: what is left, as ?, ends or changes an address
USER_TAG = "mlflow.user"
PATIENCE = "60"  # s, for the answer to one request; a restore fills the server with work


@contextmanager
def open_store(address: str, *, retries: int) -> Iterator["Store"]:
    """retries: of a request without answer; for reading only, since a run that is made twice may be there twice."""
    settings = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": PATIENCE,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    ours = settings.keys() - os.environ.keys()
    store = Store(address)  # connecting has settings of its own, which find out in seconds whether there is a server
    before = {name: os.environ.pop(name, None) for name in ours}
    os.environ.update({name: settings[name] for name in ours})
    try:
        yield store
    finally:
        for name, value in before.items():
            del os.environ[name]
            os.environ.update({name: value} if value is not None else {})


class Store:
    """Every method raises StageError: ServerAway where waiting may help."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = connect(address)

    # Reading

    def experiments(self) -> Iterator[Experiment]:
        """Deleted ones too."""
        from mlflow.entities import ViewType  # noqa: PLC0415 -- seconds

        with mlflow_errors(self.address):
            found = pages(
                lambda token: self._client.search_experiments(
                    ViewType.ALL, A_PAGE, order_by=["experiment_id ASC"], page_token=token
                )
            )
            for one in found:
                yield Experiment(
                    id=str(one.experiment_id),
                    name=one.name,
                    lifecycle=one.lifecycle_stage,
                    artifact_location=one.artifact_location,
                    created=one.creation_time,
                    updated=one.last_update_time,
                    tags=dict(one.tags),
                )

    def runs(self, experiment_ids: Sequence[str]) -> Iterator[Run]:
        """Deleted ones too, oldest first, so that those which begin meanwhile come last; without their datasets."""
        from mlflow.entities import ViewType  # noqa: PLC0415 -- seconds

        with mlflow_errors(self.address):
            found = pages(
                lambda token: self._client.search_runs(
                    list(experiment_ids), "", ViewType.ALL, A_PAGE, ["attributes.start_time ASC"], token
                )
            )
            yield from map(_run, found)

    def run(self, run_id: str) -> tuple[Run, dict[str, str]] | None:
        """With each metric's newest point, as text, in which NaN equals NaN; None when it is gone for good."""
        with mlflow_errors(self.address):
            try:
                found = self._client.get_run(run_id)
            except mlflow_exception() as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
            # the public `metrics` has values only, and a value that stays the same tells nothing
            newest = {m.key: f"{m.step} {m.timestamp} {m.value}" for m in found.data._metric_objs}
            return _run(found), newest

    def history(self, run_id: str, key: str) -> Iterator[Point]:
        """Every point of the metric, in the order of their times."""
        with mlflow_errors(self.address):
            # the client's own get_metric_history puts all pages into memory
            store = self._client._tracking_client.store
            found = pages(
                lambda token: store.get_metric_history(run_id, key, max_results=POINTS_A_PAGE, page_token=token)
            )
            for metric in found:
                yield Point(key, metric.step, metric.timestamp, metric.value)

    def files(self, uri: str) -> dict[str, int]:
        """Every file below the artifact address: its size in bytes."""
        with mlflow_errors(self.address), self._artifacts(uri) as repository:
            return dict(_files(repository, None))

    def download(self, uri: str, files: Collection[str], folder: Path) -> None:
        """files: all that are below the artifact address."""
        with mlflow_errors(self.address), self._artifacts(uri) as repository:
            if all(_in_address(uri, name) == name for name in files):
                repository.download_artifacts("", str(folder))  # type: ignore[no-untyped-call]
                return
            for name in files:
                local = repository.download_artifacts(_in_address(uri, name), str(folder))  # type: ignore[no-untyped-call]
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Path(local).replace(path)

    def models(self) -> Iterator[Model]:
        with mlflow_errors(self.address):
            found = pages(
                lambda token: self._client.search_registered_models(
                    max_results=A_PAGE, order_by=["name ASC"], page_token=token
                )
            )
            yield from map(_model, found)

    def model(self, name: str) -> tuple[Model, list[Version]] | None:
        """None when there is none of that name."""
        with mlflow_errors(self.address):
            try:
                found = self._client.get_registered_model(name)
            except mlflow_exception() as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
            return _model(found), list(self.versions(name))

    def versions(self, name: str) -> Iterator[Version]:
        """By number; path_in_run is not looked for."""
        with mlflow_errors(self.address):
            found = pages(
                lambda token: self._client.search_model_versions(
                    f"name = {_quoted(name)}", A_PAGE, ["version_number ASC"], token
                )
            )
            yield from map(_version, found)

    def files_of_version(self, name: str, number: int) -> str:
        """The artifact address of its files, also where its source names another version or a logged model."""
        with mlflow_errors(self.address):
            return str(self._client.get_model_version_download_uri(name, str(number)))

    def not_in_a_backup(self, experiment_ids: Sequence[str]) -> Iterator[str]:
        """What MLflow has and a backup has not, where there is any of it."""
        listed = list(experiment_ids)
        is_prompt = "tags.`mlflow.prompt.is_prompt` = 'true'"
        with mlflow_errors(self.address):
            if self._client.search_registered_models(is_prompt, max_results=1):
                yield "prompts"
            if self._client.search_logged_models(listed, max_results=1):
                yield "logged models, but for the files of those that are registered"
            if self._client.search_traces(locations=listed, max_results=1, include_spans=False):
                yield "traces"

    # Writing

    def create_experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """Its id. Beside a database that is a file, artifacts are files too; elsewhere the server has its place."""
        path = self.address.removeprefix("sqlite:///")
        location = None if path == self.address else (Path(path).resolve().parent / "artifacts").as_uri()
        with mlflow_errors(self.address):
            return str(self._client.create_experiment(name, location, dict(tags)))

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        with mlflow_errors(self.address):
            for key, text in tags.items():
                self._client.set_experiment_tag(experiment_id, key, text)

    def delete_experiment(self, experiment_id: str) -> None:
        with mlflow_errors(self.address):
            self._client.delete_experiment(experiment_id)

    def undelete_experiment(self, experiment_id: str) -> None:
        """With all its runs: MLflow knows it no other way."""
        with mlflow_errors(self.address):
            self._client.restore_experiment(experiment_id)

    def create_run(self, experiment_id: str, run: Run, tags: Mapping[str, str]) -> Place:
        """Empty. Its user is what the tag mlflow.user says: the client has no other way to set it."""
        user = {USER_TAG: run.tags[USER_TAG]} if USER_TAG in run.tags else {}
        with mlflow_errors(self.address):
            made = self._client.create_run(experiment_id, run.started, {**user, **tags}, run.name or None)
            return Place(made.info.run_id, made.info.artifact_uri)

    def log_points(self, run_id: str, points: Iterable[Point]) -> None:
        """What is there already stays as it is: a point is all of its key, step, time and value."""
        from mlflow.entities import Metric  # noqa: PLC0415 -- seconds

        with mlflow_errors(self.address):
            for batch in _batched(points, A_BATCH):
                self._client.log_batch(run_id, [Metric(p.key, p.value, p.time, p.step) for p in batch])

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param  # noqa: PLC0415 -- seconds

        with mlflow_errors(self.address):
            self._client.log_batch(run_id, params=[Param(key, text) for key, text in params.items()])

    def set_run_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag  # noqa: PLC0415 -- seconds

        with mlflow_errors(self.address):
            self._client.log_batch(run_id, tags=[RunTag(key, text) for key, text in tags.items()])

    def delete_run_tag(self, run_id: str, key: str) -> None:
        with mlflow_errors(self.address):
            self._client.delete_tag(run_id, key)

    def log_datasets(self, run_id: str, datasets: Sequence[Dataset]) -> None:
        from mlflow.entities import Dataset as MlflowDataset  # noqa: PLC0415 -- seconds
        from mlflow.entities import DatasetInput, InputTag  # noqa: PLC0415

        inputs = [
            DatasetInput(
                MlflowDataset(one.name, one.digest, one.source_type, one.source, one.columns, one.profile),
                [InputTag(key, text) for key, text in one.tags.items()],
            )
            for one in datasets
        ]
        with mlflow_errors(self.address):
            if inputs:
                self._client.log_inputs(run_id, inputs)

    @contextmanager
    def uploads(self, uri: str) -> Iterator[Callable[[Path, str], None]]:
        """upload(file, path): puts it at the path below the artifact address, and removes it here."""
        with self._artifacts(uri) as repository:

            def upload(file: Path, path: str) -> None:
                folder, name = posixpath.split(_in_address(uri, path))
                named = file.replace(file.with_name(name))
                with mlflow_errors(self.address):
                    repository.log_artifact(str(named), folder or None)  # type: ignore[no-untyped-call]
                named.unlink()

            yield upload

    def end_run(self, run_id: str, status: str, ended: int | None) -> None:
        with mlflow_errors(self.address):
            if ended is None:
                self._client.update_run(run_id, status)
            else:
                self._client.set_terminated(run_id, status, ended)

    def delete_run(self, run_id: str) -> None:
        with mlflow_errors(self.address):
            self._client.delete_run(run_id)

    def undelete_run(self, run_id: str) -> None:
        with mlflow_errors(self.address):
            self._client.restore_run(run_id)

    def create_model(self, name: str, tags: Mapping[str, str], description: str) -> None:
        with mlflow_errors(self.address):
            self._client.create_registered_model(name, dict(tags), description or None)

    def update_model(self, name: str, tags: Mapping[str, str], description: str | None) -> None:
        """description None: as it is."""
        with mlflow_errors(self.address):
            for key, text in tags.items():
                self._client.set_registered_model_tag(name, key, text)
            if description is not None:
                self._client.update_registered_model(name, description)

    def delete_model(self, name: str) -> None:
        """With all its versions; their files stay with their runs."""
        with mlflow_errors(self.address):
            self._client.delete_registered_model(name)

    def create_version(self, name: str, version: Version, tags: Mapping[str, str]) -> int:
        """Its number, which is the server's choice: one more than it ever gave in this model."""
        with mlflow_errors(self.address):
            made = self._client.create_model_version(
                name,
                version.source,
                version.run_id or None,
                dict(tags),
                version.run_link or None,
                version.description or None,
                await_creation_for=0,  # it is ready at once wherever files are not copied
            )
            return int(made.version)

    def update_version(
        self, name: str, number: int, tags: Mapping[str, str], description: str | None, stage: str | None
    ) -> None:
        """None: as it is."""
        with mlflow_errors(self.address), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated; what has one keeps it
            for key, text in tags.items():
                self._client.set_model_version_tag(name, str(number), key, text)
            if description is not None:
                self._client.update_model_version(name, str(number), description)
            if stage not in (None, NO_STAGE):
                self._client.transition_model_version_stage(name, str(number), stage)

    def delete_version(self, name: str, number: int) -> None:
        with mlflow_errors(self.address):
            self._client.delete_model_version(name, str(number))

    def set_alias(self, name: str, alias: str, number: int) -> None:
        with mlflow_errors(self.address):
            self._client.set_registered_model_alias(name, alias, str(number))

    @contextmanager
    def _artifacts(self, uri: str) -> "Iterator[ArtifactRepository]":
        """Not the client's own, which keeps the last 1,024 with their threads."""
        from mlflow.store.artifact.artifact_repository_registry import (  # noqa: PLC0415 -- seconds
            get_artifact_repository,
        )

        repository = get_artifact_repository(uri, tracking_uri=self.address)
        try:
            yield repository
        finally:
            repository.thread_pool.shutdown()


def _files(repository: "ArtifactRepository", folder: str | None) -> Iterator[tuple[str, int]]:
    for file in repository.list_artifacts(folder):
        if file.is_dir:
            yield from _files(repository, file.path)
        else:
            yield file.path, file.file_size or 0


def _in_address(uri: str, path: str) -> str:
    """As MLflow's client must be given the path of an artifact: it quotes none that goes through the server."""
    return quote(path, safe=SAFE) if uri.startswith("mlflow-artifacts:") else path


def _run(found: "MlflowRun") -> Run:
    info, data, inputs = found.info, found.data, found.inputs
    return Run(
        id=info.run_id,
        experiment_id=str(info.experiment_id),
        name=info.run_name or "",
        user=info.user_id or "",
        status=info.status,
        started=info.start_time,
        ended=info.end_time,
        lifecycle=info.lifecycle_stage,
        artifact_uri=info.artifact_uri,
        params=dict(data.params),
        tags=dict(data.tags),
        datasets=sorted((_dataset(one) for one in inputs.dataset_inputs), key=Dataset.model_dump_json)
        if inputs
        else [],
    )


def _dataset(found: "DatasetInput") -> Dataset:
    return Dataset(
        name=found.dataset.name,
        digest=found.dataset.digest,
        source_type=found.dataset.source_type,
        source=found.dataset.source,
        columns=found.dataset.schema,
        profile=found.dataset.profile,
        tags={tag.key: tag.value for tag in found.tags},
    )


def _model(found: "RegisteredModel") -> Model:
    return Model(
        name=found.name,
        description=found.description or "",
        created=found.creation_timestamp,
        updated=found.last_updated_timestamp,
        tags=dict(found.tags),
        aliases={alias: int(number) for alias, number in found.aliases.items()},
    )


def _version(found: "ModelVersion") -> Version:
    return Version(
        number=int(found.version),
        description=found.description or "",
        created=found.creation_timestamp,
        updated=found.last_updated_timestamp or found.creation_timestamp,
        run_id=found.run_id or "",
        run_link=found.run_link or "",
        source=found.source or "",
        stage=found.current_stage or NO_STAGE,
        tags=dict(found.tags),
        path_in_run=None,
    )


def _quoted(name: str) -> str:
    """For a filter, which has no way to write a quotation mark of its own kind."""
    if "'" not in name:
        return f"'{name}'"
    if '"' not in name:
        return f'"{name}"'
    raise StageError(f"model {name}: MLflow cannot search for a name with both kinds of quotation marks; rename it")


def _batched(points: Iterable[Point], size: int) -> Iterator[list[Point]]:
    """As itertools.batched, which is there from Python 3.12 on."""
    left = iter(points)
    while batch := list(islice(left, size)):
        yield batch
