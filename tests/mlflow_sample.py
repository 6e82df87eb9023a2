"""An MLflow store with one of everything that a backup must bring back, and with what has gone wrong elsewhere."""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ops.ask import s3_client
from stages.files import sha256_of
from stages.mlflow_client import connect
from tests.mlflow_server import MlflowServer
from tests.mlflow_tables import contents
from tests.platform import Platform


@dataclass(frozen=True)
class Sample:
    """A store, whoever serves it."""

    folder: Path  # for what is made on the way
    address: str
    database: str
    files: Callable[[], dict[str, str]]  # by address below the store's root: sha256
    location: str | None = None  # of artifacts; None: the server knows

    def contents(self) -> dict[str, Any]:
        return contents(self.database, self.files())

    @property
    def client(self) -> Any:
        return connect(self.address)

    def experiment(self, name: str, tags: dict[str, str] | None = None) -> str:
        return str(self.client.create_experiment(name, self.location, tags))


def in_files(folder: Path, empty_store: Path) -> Sample:
    """Empty, and served by nobody."""
    artifacts = folder / "artifacts"
    artifacts.mkdir(parents=True)
    shutil.copy(empty_store, folder / "mlflow.db")
    address = f"sqlite:///{folder}/mlflow.db"
    return Sample(folder, address, address, lambda: hashes(artifacts, Path("/")), artifacts.as_uri())


def served(server: MlflowServer) -> Sample:
    database = f"sqlite:///{server.folder}/server.db"
    artifacts = server.folder / "artifacts"
    return Sample(server.folder, server.address, database, lambda: hashes(artifacts, artifacts))


def on_platform(platform: Platform) -> Sample:
    """PostgreSQL and S3."""
    s3 = s3_client(platform.environment)

    def files() -> dict[str, str]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="mlflow")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: sha256(s3.get_object(Bucket="mlflow", Key=key)["Body"].read()).hexdigest() for key in keys}

    return Sample(platform.folder, platform.mlflow, platform.environment["MLFLOW_BACKEND_STORE_URI"], files)


def hashes(folder: Path, root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def fill(sample: Sample) -> None:
    """Two experiments, one of them deleted; runs of each status; a model whose numbers have gaps."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    client = sample.client
    here = sample.experiment("finger-counter", {"mlflow.note.content": "des doigts ✋"})
    gone = sample.experiment("gone")

    parent = client.create_run(here, 1_700_000_000_000, {"mlflow.user": "ann"}, "sweep").info.run_id
    child = client.create_run(here, 1_700_000_000_500, {"mlflow.parentRunId": parent}, "first").info.run_id
    values = [1.0, math.nan, math.inf, -math.inf, 0.1, 0.1, 5e-324]
    points = [Metric("loss", value, 1_700_000_001_000 + n, n) for n, value in enumerate(values)]
    points += [Metric("loss", 0.5, 1_700_000_009_999, 2), Metric("loss", 0.6, 1_700_000_000_001, 2)]  # step 2 again
    points += [Metric("a/b c", float(n), 1_700_000_002_000, -n) for n in range(25)]
    client.log_batch(child, points, [Param("lr", "0.1"), Param("empty", "")], [RunTag("note", "two\nlines ✓")])
    source = Dataset("hands", "abc123", "local", '{"uri": "data"}', '{"columns": []}', '{"rows": 3}')
    client.log_inputs(child, [DatasetInput(source, [InputTag("mlflow.data.context", "training")])])
    write(sample.folder / "files/weights.bin", os.urandom(300_000))
    write(sample.folder / "files/deep/er/a b é.txt", b"hello\n")
    write(sample.folder / "files/deep/empty", b"")
    client.log_artifacts(child, str(sample.folder / "files"), "model/abc")
    if sample.location:  # MLflow's client cannot send such names to a server
        for name in ("100% a?b", "100% a"):
            write(sample.folder / name, name.encode())
            client.log_artifact(child, str(sample.folder / name), "o?d")
    client.log_artifact(child, str(sample.folder / "files/weights.bin"))
    client.set_terminated(child, "FAILED", 1_700_000_100_000)
    client.set_terminated(parent, "KILLED", 1_700_000_200_000)
    client.create_run(here, 1_700_000_300_000, {}, "still running")
    without_end = client.create_run(here, 1_700_000_400_000, {}, "no end").info.run_id
    client.update_run(without_end, "FINISHED")
    deleted = client.create_run(here, 1_700_000_500_000, {}, "deleted").info.run_id
    client.log_metric(deleted, "loss", 3.0)
    client.delete_run(deleted)
    lost = client.create_run(gone, 1_700_000_600_000, {}, "in a deleted experiment").info.run_id
    client.set_terminated(lost, "FINISHED", 1_700_000_700_000)
    client.delete_experiment(gone)

    files = f"{client.get_run(child).info.artifact_uri}/model/abc"
    client.create_registered_model("fingers", {"task": "count"}, "Counts fingers.")
    for number in range(1, 7):
        tags = {"sha256": f"{number}"}
        client.create_model_version("fingers", files, child, tags, f"https://run/{number}", f"card {number}")
    for deleted_number in ("1", "3", "4"):
        client.delete_model_version("fingers", deleted_number)
    client.set_registered_model_alias("fingers", "champion", "5")
    client.set_registered_model_alias("fingers", "challenger", "6")
    client.create_registered_model("l'autre")
    client.create_model_version("l'autre", f"runs:/{child}/model/abc", child)
    client.create_registered_model("without versions")


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
