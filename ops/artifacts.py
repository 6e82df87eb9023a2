"""An MLflow's artifact store -> where it is, once it was written to, read and deleted from."""

from pathlib import Path
from tempfile import TemporaryDirectory

from stages.mlflow_client import connect, experiment_name, mlflow_errors
from stages.params import StageError


def probe_artifacts(address: str, name: str) -> str:
    """Where the experiment keeps artifacts, once one of that name was written there, read, deleted. Raises as connect.

    By the same classes that log and download them, so that proxied ones go through the server and others do not.
    """
    client = connect(address)
    with mlflow_errors(address), TemporaryDirectory() as folder:
        from mlflow.store.artifact.artifact_repository_registry import (  # noqa: PLC0415 -- seconds
            get_artifact_repository,
        )

        experiment = client.get_experiment_by_name(experiment_name()) or client.get_experiment("0")
        repository = get_artifact_repository(experiment.artifact_location, tracking_uri=address)
        path = Path(folder) / name
        path.write_text(name)
        repository.log_artifact(str(path))  # type: ignore[no-untyped-call]
        path.unlink()
        repository.download_artifacts(name, folder)  # type: ignore[no-untyped-call]
        repository.delete_artifacts(name)  # type: ignore[no-untyped-call]
        if path.read_text() != name:
            raise StageError(f"{experiment.artifact_location}: what is read is not what was written")
        return str(experiment.artifact_location)
