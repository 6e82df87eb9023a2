"""A release -> a version in MLflow's registry with an alias, and back: its files, checked by sha256."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from stages.files import sha256_of, whole_directory, write_text
from stages.mlflow_client import connect, mlflow_errors, tracking_uri
from stages.params import StageError
from stages.release import ONNX_FILE, Release, read_release

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

Alias = Literal["challenger", "champion"]
RELEASE_FILE, CARD_FILE = "release.json", "README.md"


@dataclass(frozen=True)
class Version:
    number: str
    sha256: str
    identity: str  # stages.release.Release.identity
    run_id: str


class Registry:
    """One registered model on the server of MLFLOW_TRACKING_URI, or in `.local/`.

    Every method raises StageError: ServerAway where waiting may help.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._address = tracking_uri()
        self._client = connect(self._address)

    def register(self, release: Release, onnx: Path, card: str) -> Version:
        """A new version, or the one that gives the same answers, with its release and card brought up to date."""
        version = self.find(release.identity)
        run_id = version.run_id if version else release.lineage.run_id
        assert run_id is not None, "a release without a run has no place for its files"
        folder = f"model/{release.identity[:12]}"
        with TemporaryDirectory() as temporary, mlflow_errors(self._address):
            write_model(Path(temporary), release, onnx, card)
            self._client.log_artifacts(run_id, temporary, folder)
            if version is None:
                self._make_name()
                run = self._client.get_run(run_id)
                tags = {"sha256": release.sha256, "identity": release.identity}
                made = self._client.create_model_version(
                    self.name, f"{run.info.artifact_uri}/{folder}", run_id, tags, description=card
                )
                return _version(made)
            self._client.update_model_version(self.name, version.number, card)
            return version

    def find(self, identity: str) -> Version | None:
        with mlflow_errors(self._address):
            found = self._client.search_model_versions(f"name = '{self.name}' and tags.identity = '{identity}'")
            return _version(found[0]) if found else None

    def with_alias(self, alias: Alias) -> Version | None:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 -- seconds

        with mlflow_errors(self._address):
            try:
                return _version(self._client.get_model_version_by_alias(self.name, alias))
            except MlflowException as error:
                # the first: no such model; the second: no such alias
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                return None

    def set_alias(self, alias: Alias, version: Version) -> None:
        with mlflow_errors(self._address):
            self._client.set_registered_model_alias(self.name, alias, version.number)

    def download(self, version: Version, folder: Path) -> Release:
        """Fills folder: detector.onnx, release.json, README.md. StageError if the file is not what was registered."""
        from mlflow.artifacts import download_artifacts  # noqa: PLC0415 -- seconds

        with whole_directory(folder) as partial:
            with mlflow_errors(self._address):
                source = self._client.get_model_version_download_uri(self.name, version.number)
                for name in (ONNX_FILE, RELEASE_FILE, CARD_FILE):
                    download_artifacts(f"{source}/{name}", dst_path=str(partial), tracking_uri=self._address)
            release = read_release(partial / RELEASE_FILE)
            found = sha256_of(partial / ONNX_FILE)
            if not found == release.sha256 == version.sha256:
                raise StageError(
                    f"{self.name} version {version.number}: {ONNX_FILE} has the sha256 {found}, registered was "
                    f"{version.sha256}: the artifact store changed it; register the model again: dvc repro -f register"
                )
        return release

    def _make_name(self) -> None:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 -- seconds

        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def write_model(folder: Path, release: Release, onnx: Path, card: str) -> None:
    """An MLflow model of the flavour onnx: mlflow.onnx.load_model reads it. No pickle, and the file is as it was."""
    from mlflow.models import Model  # noqa: PLC0415 -- seconds

    shutil.copyfile(onnx, folder / ONNX_FILE)
    write_text(folder / RELEASE_FILE, release.model_dump_json(indent=1) + "\n")
    write_text(folder / CARD_FILE, card)
    model = Model(signature=signature_of(onnx), metadata={"sha256": release.sha256})
    model.add_flavor("onnx", data=ONNX_FILE, providers=["CPUExecutionProvider"])
    model.save(str(folder / "MLmodel"))


def signature_of(onnx: Path) -> "ModelSignature":
    """Names, types and shapes of inputs and outputs, as MLflow shows them."""
    import onnx as onnx_format  # noqa: PLC0415 -- the serving install has none
    from mlflow.models import ModelSignature  # noqa: PLC0415 -- seconds
    from mlflow.types import Schema, TensorSpec  # noqa: PLC0415

    graph = onnx_format.load(onnx, load_external_data=False).graph

    def schema(values: "Iterable[onnx_format.ValueInfoProto]") -> Schema:
        return Schema([spec(value.name, value.type.tensor_type) for value in values])

    def spec(name: str, tensor: "onnx_format.TypeProto.Tensor") -> TensorSpec:
        shape = [axis.dim_value or -1 for axis in tensor.shape.dim]
        return TensorSpec(onnx_format.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape, name)

    return ModelSignature(schema(graph.input), schema(graph.output))


def _version(found: "ModelVersion") -> Version:
    """A version that somebody else made has no tags, and equals none of ours."""
    return Version(str(found.version), found.tags.get("sha256", ""), found.tags.get("identity", ""), str(found.run_id))
