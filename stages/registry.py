"""A release -> a version in MLflow's registry with an alias, and back: its files, checked by sha256."""

import getpass
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.files import sha256_of, whole_directory, write_text
from stages.mlflow_client import connect, mlflow_errors, pages, tracking_uri
from stages.params import StageError
from stages.release import ONNX_FILE, Release, read_release

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

Alias = Literal["challenger", "champion"]
STAGES: Mapping[str, Alias] = MappingProxyType({"staging": "challenger", "production": "champion"})
RELEASE_FILE, CARD_FILE = "release.json", "README.md"
LISTED = 10  # versions that an error names
PROMOTION = "became_champion."  # opens the names of tags that record it


@dataclass(frozen=True)
class Version:
    """One that somebody else made has no tags, and equals none of ours."""

    number: str
    sha256: str
    identity: str  # stages.release.Release.identity
    run_id: str
    created: int = field(compare=False)  # ms since 1970
    tags: Mapping[str, str] = field(compare=False)  # those of `summary`, and promotions


class Promotion(BaseModel):
    """A version became champion; the value of a tag of that version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: str  # UTC, ISO 8601
    by: str
    command: str  # register, promote, rollback
    version: str
    before: str | None  # the champion until then


class Registry:
    """One registered model on the server of MLFLOW_TRACKING_URI, or in `.local/`.

    Every method raises StageError: ServerAway where waiting may help.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._address = tracking_uri()
        self._client = connect(self._address)

    def find(self, reference: str) -> Version:
        """By number, alias, or the stage that older teams know: Staging is challenger, Production is champion.

        Raises StageError, naming what there is.
        """
        if version := self.look_up(reference):
            return version
        versions, aliases = self.versions(), self.aliases()
        names = [", ".join([v.number, *(a for a, n in aliases.items() if n == v.number)]) for v in versions]
        known = "; ".join(names[:LISTED]) + ("; ..." if len(names) > LISTED else "")
        raise StageError(
            f"{self.name}: no version {reference!r}; there is {known or 'none yet here: dvc repro -sf register'}"
        )

    def look_up(self, reference: str) -> Version | None:
        """As find, without the error."""
        number = self.aliases().get(STAGES.get(reference.lower(), reference), reference)
        return next((version for version in self.versions() if version.number == number), None)

    def versions(self) -> list[Version]:
        """Newest first; empty when nobody has registered the name."""
        with mlflow_errors(self._address):
            found = pages(lambda token: self._client.search_model_versions(f"name = '{self.name}'", page_token=token))
            return sorted((_version(one) for one in found), key=lambda version: -int(version.number))

    def aliases(self) -> dict[str, str]:
        """Alias: the number of its version."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 -- seconds

        with mlflow_errors(self._address):
            try:
                aliases = self._client.get_registered_model(self.name).aliases
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return {}
            return {alias: str(number) for alias, number in sorted(aliases.items())}

    def promotions(self) -> list[Promotion]:
        """Who became champion when, oldest first, of the versions that are still there."""
        tags = [(key, text, version.number) for version in self.versions() for key, text in version.tags.items()]
        return [_promotion(*tag) for tag in sorted(tags) if tag[0].startswith(PROMOTION)]

    def register(self, release: Release, files: Mapping[str, Path], card: str) -> Version:
        """A new version, or the one that gives the same answers, with its release and card brought up to date.

        files: by their names in release.files().
        """
        version = self.with_identity(release.identity)
        run_id = version.run_id if version else release.lineage.run_id
        assert run_id is not None, "a release without a run has no place for its files"
        folder = f"model/{release.identity[:12]}"
        with TemporaryDirectory() as temporary, mlflow_errors(self._address):
            write_model(Path(temporary), release, files, card)
            self._client.log_artifacts(run_id, temporary, folder)
            if version is None:
                self._make_name()
                run = self._client.get_run(run_id)
                made = self._client.create_model_version(
                    self.name, f"{run.info.artifact_uri}/{folder}", run_id, summary(release), description=card
                )
                return _version(made)
            self._client.update_model_version(self.name, version.number, card)
            for key, text in summary(release).items():
                if version.tags.get(key) != text:
                    self._client.set_model_version_tag(self.name, version.number, key, text)
            return version

    def with_identity(self, identity: str) -> Version | None:
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

    def set_alias(self, alias: Alias, version: Version, command: str = "register") -> None:
        """A new champion is recorded, and by which command: `promotions` reads it.

        The alias goes first, so that a kill in between leaves a champion that is not recorded, never a record of what
        did not happen. Each record is a tag of its own: two people at once overwrite neither's.
        """
        before = self.with_alias(alias)
        with mlflow_errors(self._address):
            self._client.set_registered_model_alias(self.name, alias, version.number)
            if alias == "champion" and before != version:
                now = datetime.now(UTC)
                record = Promotion(
                    at=now.isoformat(timespec="milliseconds"),
                    by=_user(),
                    command=command,
                    version=version.number,
                    before=before.number if before else None,
                )
                key = f"{PROMOTION}{now:%Y%m%dT%H%M%S.%f}"
                self._client.set_model_version_tag(self.name, version.number, key, record.model_dump_json())

    def card(self, version: Version) -> str:
        """The model card in Markdown."""
        with mlflow_errors(self._address):
            return self._client.get_model_version(self.name, version.number).description or ""

    def download(self, version: Version, folder: Path) -> Release:
        """Fills folder: release.json, its files, README.md. StageError if one is not what was registered."""
        with whole_directory(folder) as partial:
            self._fetch(version, (RELEASE_FILE, CARD_FILE), partial)
            release = read_release(partial / RELEASE_FILE)
            registered = {**release.files(), ONNX_FILE: version.sha256}
            self._fetch(version, registered, partial)
            found = {name: sha256_of(partial / name) for name in registered}
            for name, sha256 in registered.items():
                if not found[name] == sha256 == release.files()[name]:
                    raise StageError(
                        f"{self.name} version {version.number}: {name} has the sha256 {found[name]}, registered was "
                        f"{sha256}: the artifact store changed it; register the model again: dvc repro -sf register"
                    )
            # The tags, which the artifact store cannot change, name the other files only by way of the identity.
            if release.int8 and release.identity != version.identity:
                raise StageError(
                    f"{self.name} version {version.number}: {RELEASE_FILE} is not the one that was registered; "
                    "register the model again: dvc repro -sf register"
                )
        return release

    def _fetch(self, version: Version, names: Iterable[str], folder: Path) -> None:
        from mlflow.artifacts import download_artifacts  # noqa: PLC0415 -- seconds

        with mlflow_errors(self._address):
            source = self._client.get_model_version_download_uri(self.name, version.number)
            for name in names:
                download_artifacts(f"{source}/{name}", dst_path=str(folder), tracking_uri=self._address)

    def _make_name(self) -> None:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 -- seconds

        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def write_model(folder: Path, release: Release, files: Mapping[str, Path], card: str) -> None:
    """An MLflow model of the flavour onnx: mlflow.onnx.load_model reads it. No pickle; the files are as they were."""
    from mlflow.models import Model  # noqa: PLC0415 -- seconds

    for name in release.files():
        shutil.copyfile(files[name], folder / name)
    write_text(folder / RELEASE_FILE, release.model_dump_json(indent=1) + "\n")
    write_text(folder / CARD_FILE, card)
    model = Model(signature=signature_of(folder / ONNX_FILE), metadata={"sha256": release.sha256})
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


def summary(release: Release) -> dict[str, str]:
    """What a list of versions shows, as tags: reading release.json of each would be a download a version."""
    metrics, lineage = release.metrics, release.lineage
    values = {
        "sha256": release.sha256,
        "identity": release.identity,
        "gates": "passed" if release.gates.passed else "failed",
        "map50": metrics.map50,
        "count_accuracy": metrics.count_accuracy,
        "count_accuracy_low": metrics.count_accuracy_low,
        "count_accuracy_high": metrics.count_accuracy_high,
        "data": lineage.data,
        "lock": lineage.lock,
        "git": lineage.git,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _version(found: "ModelVersion") -> Version:
    tags = dict(found.tags)
    return Version(
        number=str(found.version),
        sha256=tags.get("sha256", ""),
        identity=tags.get("identity", ""),
        run_id=found.run_id or "",
        created=found.creation_timestamp,
        tags=tags,
    )


def _promotion(key: str, text: str, number: str) -> Promotion:
    """number is that of the version which carries the tag: a restored backup may have given it another."""
    try:
        return Promotion.model_validate_json(text).model_copy(update={"version": number})
    except ValidationError:
        raise StageError(f"MLflow: the tag {key} of a version is not as it was written; delete it there") from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return "unknown"
