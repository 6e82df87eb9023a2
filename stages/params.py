"""params.yaml -> Params: every number that changes a result, checked whole before any work."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

PARAMS_FILE = Path("params.yaml")


class StageError(Exception):
    """What a person can mend: one line that names file, field, value and remedy. The process ends with 1."""


def load_params(path: Path = PARAMS_FILE) -> "Params":
    """Raises StageError, naming the key, its value and what is allowed, also for sections of other stages."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"{path}: not found; run from the repository's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return parse_params(document, path)


def parse_params(document: object, path: Path = PARAMS_FILE) -> "Params":
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        first, *others = error.errors()
        more = f" (and {len(others)} more)" if others else ""
        raise StageError(f"{path}: {_one_line(first)}{more}") from None


def _one_line(error: ErrorDetails) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the document"
    match error["type"]:
        case "extra_forbidden":
            allowed = _allowed_keys(error["loc"])
            return f"{key}: no such key{f'; allowed here: {allowed}' if allowed else ''}"
        case "missing":
            return f"{key}: missing; params.full.yaml shows every key"
        case "value_error":
            return f"{key}: {error['msg'].removeprefix('Value error, ')}"
        case _:
            return f"{key}: {error['input']!r} is not allowed: {error['msg'][0].lower()}{error['msg'][1:]}"


def _allowed_keys(location: tuple[int | str, ...]) -> str:
    model: Any = Params
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return ""
        model = field.annotation
    return ", ".join(getattr(model, "model_fields", {}))


class Section(BaseModel):
    """Frozen and strict: a key nobody reads, or a value of another type, is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _whole_numbers_are_names(value: object) -> object:
    """YAML reads the class name 3 as a number; `-S convert.may_be_absent=[3]` means the class "3"."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, BeforeValidator(_whole_numbers_are_names), Field(min_length=1, pattern=r"^\S(.*\S)?$")]
NameOrEmpty = Annotated[str, BeforeValidator(_whole_numbers_are_names), Field(pattern=r"^(\S(.*\S)?)?$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _is_regex(value: str) -> str:
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"{value!r} needs exactly one (group): what it captures names the session")
    return value


SessionRegex = Annotated[str, Field(min_length=1)]


class DemoParams(Section):
    """The drawn data set."""

    pictures: Annotated[int, Field(ge=60)]
    image_size: Annotated[int, Field(ge=64, le=1024)]  # px, the longer side
    seed: Seed


class FolderParams(Section):
    """Directories or zips with annotated pictures; the format of each is recognised."""

    paths: Annotated[list[str], Field(min_length=1)]


class PicselliaParams(Section):
    """A dataset version on the annotation platform. The token is no parameter: PICSELLIA_TOKEN."""

    dataset: NameOrEmpty
    version: NameOrEmpty
    organization: NameOrEmpty  # empty: the one that the token's user belongs to
    host: Annotated[str, Field(pattern=r"^https?://[^/\s?#@]+$")]  # without a path, which the SDK would drop


class PullParams(Section):
    sources: Annotated[list[Literal["demo", "folder", "picsellia"]], Field(min_length=1)]
    demo: DemoParams
    folder: FolderParams
    picsellia: PicselliaParams

    @model_validator(mode="after")
    def _each_source_once(self) -> Self:
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"sources: {self.sources} names a source twice; give folder several paths instead")
        return self

    @model_validator(mode="after")
    def _what_is_used_is_named(self) -> Self:
        for key in ("dataset", "version"):
            if "picsellia" in self.sources and not getattr(self.picsellia, key):
                raise ValueError(
                    f"picsellia.{key}: empty; name it, as the platform does, or take picsellia off sources"
                )
        return self


class ConvertParams(Section):
    classes: Annotated[list[Name], Field(min_length=1)]
    counts: list[Annotated[int, Field(ge=0)] | None]  # what each class adds to the count; null: nothing, told apart
    aliases: dict[Name, list[Name]]  # class: what annotators write for it
    may_be_absent: list[Name]
    max_excluded: Fraction  # of all assets
    min_visible: Fraction  # of a box's area that must lie inside the picture
    min_box_px: Annotated[float, Field(ge=0)]  # of the shorter side, after clipping

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: {self.classes} names a class twice")
        if len(self.counts) != len(self.classes):
            raise ValueError(f"counts: {len(self.counts)} values for {len(self.classes)} classes; give one each")
        for key, names in (("aliases", list(self.aliases)), ("may_be_absent", self.may_be_absent)):
            for name in names:
                if name not in self.classes:
                    raise ValueError(f"{key}: {name!r} is none of the classes {' '.join(self.classes)}")
        self.class_of()
        return self

    def class_of(self) -> dict[str, str]:
        """What may be written, in lower case -> the class it means."""
        meaning = {name.casefold(): name for name in self.classes}
        for name, written in self.aliases.items():
            for alias in written:
                if meaning.setdefault(alias.casefold(), name) != name:
                    raise ValueError(f"aliases: {alias!r} stands for both {meaning[alias.casefold()]!r} and {name!r}")
        return meaning


class GroupBy(Section):
    """Where the session's name is found: the one capture group of a regular expression; null: nowhere."""

    file_name: SessionRegex | None
    tag: SessionRegex | None

    @model_validator(mode="after")
    def _are_regexes(self) -> Self:
        for regex in (self.file_name, self.tag):
            if regex is not None:
                _is_regex(regex)
        return self


class SplitParams(Section):
    train: Annotated[float, Field(gt=0, lt=1)]
    val: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed
    group_by: GroupBy
    near_duplicate_bits: Annotated[int, Field(ge=0, le=32)]  # perceptual hashes that differ in no more are one group

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test is {total:g}; make it 1")
        return self


class TrainParams(Section):
    weights: Annotated[str, Field(min_length=1)]  # a .pt to start from, or an architecture's .yaml
    image_size: Annotated[int, Field(ge=32, le=4096, multiple_of=32)]  # px, square
    epochs: Positive
    batch_size: Positive
    optimizer: Literal["auto", "SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSProp"]
    patience: Annotated[int, Field(ge=0)]  # epochs without a better val mAP before stopping; 0: never
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    threads: Annotated[int, Field(ge=0)]  # 0: one per core
    seed: Seed
    executor: Literal["local", "ray"] = "local"  # ray: worker processes on a cluster that average their gradients
    workers: Positive = 1  # of ray; each has so many threads, or a GPU, and its part of every batch
    ultralytics: dict[str, Any]  # further settings of Ultralytics, verbatim

    @model_validator(mode="after")
    def _is_the_same_on_every_node(self) -> Self:
        if self.executor == "local":
            return self
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device: {self.device!r} differs from node to node; with executor ray say cpu or cuda")
        if self.threads == 0:
            raise ValueError("threads: 0 differs from node to node; with executor ray say how many each worker has")
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size: {self.batch_size} cannot be shared evenly by {self.workers} workers")
        return self


class FaceParams(Section):
    """How faces are found and hidden, before anything else looks at a picture."""

    detector: Literal["centerface", "haar", "none"]  # none: the pictures are known to show no face
    confidence: Annotated[float, Field(gt=0, lt=1)]  # of centerface; lower finds more, also what is no face
    margin: Annotated[float, Field(ge=0, le=2)]  # of a face's width and height, added on each side
    method: Literal["mosaic", "gaussian", "solid"]
    cells: Annotated[int, Field(ge=1, le=16)]  # patches along a face's shorter side, whatever its size
    shape: Literal["box", "ellipse"] = "box"  # ellipse: its corners stay, a fifth of the area


Precision = Literal["f32", "bf16", "int8"]


class QuantizeParams(Section):
    """How the detector becomes int8."""

    pictures: Positive  # of the training ones, evenly taken, that show which range each layer's numbers have


class DetectParams(Section):
    """How boxes are chosen from the network's output, in scoring and in serving."""

    iou: Annotated[float, Field(gt=0, le=1)]  # boxes that overlap more suppress each other, across classes
    max_boxes: Positive


class EvaluateParams(Section):
    precisions: list[Precision]
    bootstrap: Annotated[int, Field(ge=100)]  # resamplings of the test pictures
    worst: Annotated[int, Field(ge=0)]  # pictures in the gallery
    seed: Seed

    @model_validator(mode="after")
    def _has_the_reference(self) -> Self:
        if "f32" not in self.precisions:
            raise ValueError("precisions: f32 is the reference; keep it in the list")
        return self


class RegisterParams(Section):
    model_name: Annotated[str, Field(pattern=r"^[^/:.\s]+$")]
    min_map50: Fraction
    min_count_accuracy: Fraction
    min_class_ap50: Fraction
    margin: Fraction  # how much worse than the champion, on the same pictures, is still not worse
    require_gates: bool


class Params(Section):
    """The whole of params.yaml."""

    pull: PullParams
    convert: ConvertParams
    split: SplitParams
    train: TrainParams
    faces: FaceParams
    quantize: QuantizeParams
    detect: DetectParams
    evaluate: EvaluateParams
    register_: RegisterParams = Field(alias="register")

    def section(self, name: str) -> Mapping[str, Any]:
        """One section as params.yaml has it."""
        return dict(self.model_dump(by_alias=True)[name])
