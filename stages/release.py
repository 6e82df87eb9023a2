"""models/release.json <-> Release: all that serving knows about a model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from stages.files import read_json
from stages.params import FaceParams, Precision, StageError

# Their names in the registry, whatever they were called before.
ONNX_FILE: Final = "detector.onnx"
INT8_FILE: Final = "detector.int8.xml"
INT8_WEIGHTS_FILE: Final = "detector.int8.bin"
NO_WORSE = 0.005  # than f32's count accuracy: half a point

T = TypeVar("T", bound=BaseModel)


class Part(BaseModel):
    """Frozen, and the same on every machine: no clock, no path."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClassMetrics(Part):
    """Of the test pictures; None where none of them shows the class."""

    model_config = ConfigDict(extra="ignore")

    precision: float | None
    recall: float | None
    f1: float | None
    ap50: float | None
    ap50_95: float | None


class Metrics(Part):
    """Of the test pictures, as evaluate writes them; what else stands there is left to MLflow and DVC."""

    model_config = ConfigDict(extra="ignore")

    map50: float | None
    map50_95: float | None
    count_accuracy: float | None
    count_accuracy_low: float | None
    count_accuracy_high: float | None
    count_mae: float | None
    classes: dict[str, ClassMetrics]


class PrecisionMetrics(Part):
    """What tells whether this precision may serve in place of f32."""

    model_config = ConfigDict(extra="ignore")

    map50: float | None
    count_accuracy: float | None
    latency_ms: float | None = None


def servable(scored: Mapping[str, PrecisionMetrics]) -> list[Precision]:
    """f32, and the precisions that lose at most half a point of its count accuracy: a collapsed int8 never serves."""
    reference = scored["f32"].count_accuracy
    accuracies = {
        precision: scored[precision].count_accuracy for precision in get_args(Precision) if precision in scored
    }
    return [
        precision
        for precision, accuracy in accuracies.items()
        if precision == "f32"
        or (reference is not None and accuracy is not None and round(reference - accuracy, 9) <= NO_WORSE)
    ]


class Thresholds(Part):
    confidence: float  # chosen on val
    iou: float
    max_boxes: int


class Failure(Part):
    gate: str
    value: float | None  # None: there is none
    needed: float | None
    text: str


class Comparison(Part):
    """Count accuracy of the challenger minus the champion's, on the same test pictures."""

    champion: str  # its version
    pictures: int
    difference: float
    low: float  # of the 95 % interval
    high: float


class Gates(Part):
    passed: bool
    failures: list[Failure]


class Lineage(Part):
    """Where the model came from. None: no DVC, no git, or no MLflow within reach when it was released."""

    data: str | None  # what DVC calls data/yolo
    lock: str | None  # stages.lineage.lock_hash of dvc.lock
    git: str | None
    training_key: str
    run_id: str | None
    params: dict[str, Any]


class Release(Part):
    schema_version: Literal[2] = 2
    name: str
    file: Literal["detector.onnx"] = ONNX_FILE
    sha256: str
    # sha256 of the same detector in int8, in OpenVINO's format; empty: there is none
    int8: dict[Literal["detector.int8.xml", "detector.int8.bin"], str]
    faces: FaceParams  # how they were hidden in the pictures it learnt from, and are to be in those it sees
    classes: list[str]
    counts: list[int | None]
    thresholds: Thresholds
    precisions: dict[str, PrecisionMetrics]
    metrics: Metrics
    gates: Gates
    comparison: Comparison | None  # None: there was no other champion
    input_profile: dict[str, Any]
    lineage: Lineage

    @model_validator(mode="before")
    @classmethod
    def _as_schema_2(cls, document: Any) -> Any:
        """Schema 1 had no int8, and said how faces are to be hidden among the params alone."""
        if not isinstance(document, dict) or document.get("schema_version") != 1:
            return document
        faces = document.get("lineage", {}).get("params", {}).get("faces")
        return {**document, "schema_version": 2, "int8": {}, "faces": faces}

    def files(self) -> dict[str, str]:
        """Name: sha256 of all that serves."""
        return {self.file: self.sha256} | {str(name): sha256 for name, sha256 in self.int8.items()}

    @property
    def servable(self) -> list[Precision]:
        """In which it may serve, f32 always among them."""
        return servable(self.precisions)

    @property
    def identity(self) -> str:
        """sha256 of what decides its answers: the files and how they are used. Equal identity: the same version.

        A parameter of faces that came later has a default, and counts where it differs from it: what was registered
        before keeps its identity.
        """
        served = {
            "files": self.files(),
            "faces": self.faces.model_dump(exclude_defaults=True),
            "classes": self.classes,
            "counts": self.counts,
            "thresholds": self.thresholds.model_dump(),
            "precisions": self.servable,
        }
        return hashlib.sha256(json.dumps(served, sort_keys=True).encode()).hexdigest()

    @property
    def is_demo(self) -> bool:
        """Trained on drawings only."""
        return bool(self.lineage.params["pull"]["sources"] == ["demo"])


def read_release(path: Path) -> Release:
    """Raises StageError, naming the file and the first field that is not as this program knows it."""
    return checked(Release, path, "register it again: dvc repro -sf register")


def checked(model: type[T], path: Path, remedy: str) -> T:
    """The JSON file as a model; StageError names what is wrong in it, and the remedy."""
    document = read_json(path)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise StageError(f"{path}: {field}: {first['msg'].lower()}; {remedy}") from None
