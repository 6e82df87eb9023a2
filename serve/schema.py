"""The shapes of what the server answers, for /openapi.json and for clients."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Prediction(Shape):
    class_name: str = Field(examples=["3"])
    class_id: int = Field(ge=0, examples=[3])
    confidence: float = Field(ge=0, le=1, examples=[0.91])
    bbox: tuple[float, float, float, float] = Field(
        description="x1, y1, x2, y2 in px of the picture, upright", examples=[[120.5, 80.0, 260.25, 240.0]]
    )


class Size(Shape):
    width: int = Field(ge=1, examples=[640], description="px, upright")
    height: int = Field(ge=1, examples=[480], description="px, upright")


class Timing(Shape):
    """ms."""

    decode: float = Field(examples=[1.9])
    faces: float = Field(examples=[8.7], description="finding and hiding")
    detect: float = Field(examples=[5.1])
    total: float = Field(examples=[17.2], description="from the request's last byte to the answer, queue included")


class ModelRef(Shape):
    name: str = Field(examples=["yolo11-finger-counter"])
    version: str = Field(examples=["7"], description="of the registry, or `release` for models/release.json")
    sha256: str = Field(examples=["9f2c" + 60 * "0"], description="of the model's file")


class Answer(Shape):
    """What was seen in one picture."""

    finger_count: int = Field(ge=0, examples=[3], description="the sum over hands")
    unknown_hands: int = Field(ge=0, examples=[0], description="hands whose fingers could not be told")
    predictions: list[Prediction] = Field(description="by falling confidence")
    faces_blurred: int = Field(ge=0, examples=[1])
    preprocessing_applied: bool = Field(description="true when faces were looked for and hidden first")
    image: Size
    inference_time_ms: float = Field(examples=[5.1], description="of the hand detector alone")
    timing_ms: Timing
    model: ModelRef
    blurred: str | None = Field(
        default=None,
        description="with render=blurred the blurred picture, in a batch with render=image boxes too: JPEG in base64",
    )


class ErrorDetail(Shape):
    code: str = Field(examples=["unreadable_image"])
    message: str = Field(examples=["not a JPEG, PNG or WebP"])
    request_id: str = Field(examples=["4f1c9a70e6c34d1b"])


class Error(Shape):
    error: ErrorDetail


class Batch(Shape):
    """For several files: an answer or an error each, in their order."""

    results: list[Answer | Error]


class Version(Shape):
    version: str = Field(examples=["7"])
    aliases: list[str] = Field(examples=[["champion"]])
    loaded: bool
    current: bool
    sha256: str
    metrics: dict[str, float | None] = Field(examples=[{"map50": 0.976, "count_accuracy": 0.949}])
    lineage: dict[str, str | None] = Field(examples=[{"data": "2f2d….dir", "lock": "5aac…", "git": "634d…"}])


class Models(Shape):
    name: str
    current: str | None = Field(description="the version that answers by default; null when there is none yet")
    registry: str | None = Field(description="why it could not be asked; null when it could, or there is none")
    versions: list[Version] = Field(description="newest first")


class LoadRequest(Shape):
    version: str = Field(
        min_length=1, max_length=100, examples=["7"], description="a number, an alias, Staging or Production"
    )


class Swapped(Shape):
    current: ModelRef
    before: ModelRef | None
    seconds: float


class Health(Shape):
    status: Literal["ok", "degraded", "not ready"]
    reasons: list[str] = Field(description="why it is not ok, one sentence each")
    preprocessing: bool = Field(description="false: faces are NOT hidden")
    model: ModelRef | None
    engine: str | None = Field(examples=["cpu/bf16"], description="what the model runs on, and in which precision")
    workers: dict[str, Literal["ready", "starting"]] = Field(examples=[{"0": "ready", "1": "starting"}])
    git: str | None = Field(description="the revision that the model was made at")


class ListedRun(Shape):
    """A training, as MLflow has it."""

    id: str = Field(examples=["4f1c9a70e6c34d1b8a5f0e2d7c6b9a81"])
    name: str = Field(examples=["wistful-finch-204"])
    state: str = Field(
        examples=["finished"],
        description="running, finished, failed, killed; interrupted: its process died; silent: no epoch for long",
    )
    architecture: str | None = Field(examples=["yolo11n"], description="what it was trained from")
    epochs: int = Field(ge=0, examples=[37], description="done")
    of_epochs: int | None = Field(examples=[50], description="asked for")
    val_map50: float | None = Field(examples=[0.951], description="on val pictures, at its newest epoch")
    map50: float | None = Field(examples=[0.976], description="on test pictures; null before it was evaluated")
    count_accuracy: float | None = Field(examples=[0.949], description="on test pictures")
    version: str | None = Field(examples=["7"], description="that it was registered as")
    started: datetime
    seconds: float = Field(ge=0, examples=[812.4], description="to its end, or to its newest epoch")
    metrics: list[str] = Field(examples=[["box_loss", "map50", "test/map50"]], description="that it has curves of")


class RunList(Shape):
    runs: list[ListedRun]
    next: str | None = Field(description="the page that follows, as `page`; null at the last")
    unavailable: str | None = Field(description="why there are none to show; null when MLflow answered")


class Series(Shape):
    name: str = Field(examples=["map50"])
    steps: list[int] = Field(examples=[[1, 2, 3]], description="epochs; 0: of the run as a whole")
    values: list[float | None] = Field(examples=[[0.41, 0.77, 0.92]], description="null: not a finite number")


class Curves(Shape):
    id: str
    state: str = Field(examples=["running"], description="as in /runs")
    series: list[Series]


class InputDrift(Shape):
    """One property of the pictures, of late and in training."""

    name: str = Field(examples=["brightness"])
    values: int = Field(ge=0, examples=[212], description="that were seen lately")
    recent: dict[str, float] | None = Field(examples=[{"p05": 41.0, "p50": 62.0}], description="null: too few")
    training: dict[str, float] | None = Field(
        examples=[{"p05": 88.0, "p50": 112.0}], description="null: not in the release"
    )
    score: float | None = Field(
        examples=[-2.1], description="beyond 1 or -1, the median is outside of nine in ten training pictures"
    )
    drifted: bool
    words: str | None = Field(
        examples=["pictures are darker than those in training (median brightness 62 against 112)"],
        description="null: as in training, or it cannot be told",
    )


class DriftReport(Shape):
    version: str | None = Field(description="of the model that answers by default; null when there is none yet")
    inputs: list[InputDrift]
