"""A dataset version on Picsellia -> assets: every one that the platform lists, its file fetched, checked and kept.

The one home of the SDK, which is asked for the connection, the dataset and single files only. Its calls for many at
once lose things: a listing forgets tags and upload status and fails whole for one asset without a size, a download
logs what failed and goes on, annotations come in the order in which threads finish.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from filelock import FileLock
from pydantic import Field, SecretStr, TypeAdapter, ValidationError, model_validator
from tqdm import tqdm

from stages.files import sha256_of
from stages.lineage import local_folder
from stages.params import PicselliaParams, StageError
from stages.sources import Source, SourceAsset
from stages.vision.annotations import Annotation, Native
from stages.vision.images import Unreadable, decode

if TYPE_CHECKING:
    from requests import Session

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = 1000  # assets in an answer: the most that the platform gives
CHUNK, SMALL_CHUNK = 100, 10  # annotations in an answer; fewer where each may hold hundreds of points
POINTED = ("SEGMENTATION", "LINE", "MULTI")  # such datasets
WORKERS = 8
BATCH = 64  # files asked for at a time: Ctrl-C waits for no more
CONNECT_TIMEOUT = 5  # s; the SDK waits 300, five times
TRIES, BACKOFF, LONGEST_WAIT = 5, 0.5, 60  # for the API's 429 and 5xx; s: 0, 1, 2, 4, 8, or what Retry-After says
NAMED = 10  # that an error lists
REMEDY = "make one in the platform's Profile Settings > Token and put it into PICSELLIA_TOKEN, or a file of its own"


class Size(Native):
    width: int  # px, as displayed
    height: int


class Data(Native):
    """What lies in the datalake; every version that holds it lists an asset of it."""

    id: UUID
    filename: str
    object_name: str
    type: str  # IMAGE, VIDEO
    content_type: str
    upload_status: str  # PENDING, COMPUTING, DONE, ERROR
    presigned_url: str | None = Field(default=None, repr=False)
    meta: Size | None = None  # DONE ones have it


class Tag(Native):
    name: str


class Listed(Native):
    """An asset as the platform lists it."""

    id: UUID
    data: Data
    tags: Sequence[Tag] = ()

    @property
    def unusable(self) -> str | None:
        """Why there is no picture, in words for the ledger."""
        if self.data.type != "IMAGE":
            return self.data.type.lower()
        return None if self.data.upload_status == "DONE" else f"upload {self.data.upload_status.lower()}"


class Loaded(Native):
    """An annotation as the platform hands it over."""

    asset_id: UUID
    id: str = ""  # known from practice; the SDK does not read it
    annotation: Annotation

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, item: object) -> object:
        return {**item, "annotation": item} if isinstance(item, Mapping) else item


class Page(Native):
    items: list[Listed]
    count: int  # of the whole listing
    next_cursor: str | None = None


def read(params: PicselliaParams) -> Source:
    """Raises StageError for a token, name or network that does not work, and for a listing or annotations in part."""
    platform = Platform(params)
    version = find_version(platform, params)
    listed = list_assets(platform, version)
    annotations = load_annotations(platform, version, listed)
    with platform.errors():
        labels = [str(label.name) for label in version.list_labels()]
    name = f"{params.dataset}/{params.version}"
    summary = (
        f"picsellia ({name}: {len(listed)} assets, {len(annotations)} annotated; "
        "DVC does not watch the platform: `dvc repro -f pull` looks again)"
    )
    origin = f"picsellia:{params.dataset}"  # without the version: in the next one a picture keeps its id and its side
    return Source(summary, len(listed), assets(platform, version, listed, annotations, origin), {origin: labels})


def check_token(params: PicselliaParams) -> str:
    """The name of the user whose token PICSELLIA_TOKEN or PICSELLIA_TOKEN_FILE gives; it opens the organization, too.

    For `fingers doctor`: check_token(load_params().pull.picsellia). Raises StageError with the remedy.
    """
    platform = Platform(params)
    with platform.errors():
        return str(platform.client.connection.get("/api/home/ping").json()["username"])


def assets(
    platform: "Platform",
    version: Any,
    listed: Sequence[Listed],
    annotations: Mapping[UUID, tuple[Annotation, ...]],
    origin: str,
) -> Iterator[SourceAsset]:
    folder = local_folder() / "picsellia" / str(version.id)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # a second experiment waits, and finds all there
        files = fetch_all(platform, version, [one for one in listed if not one.unusable], folder)
        for one in listed:
            size = one.data.meta if not one.unusable else None
            yield SourceAsset(
                key=str(one.data.id),
                file_name=one.data.filename,
                content=files[one.id].read_bytes() if not one.unusable else b"",
                width=size.width if size else None,
                height=size.height if size else None,
                tags=tuple(tag.name for tag in one.tags),
                annotations=annotations.get(one.id, ()),
                origin=origin,
                unusable=one.unusable,
            )


def fetch_all(platform: "Platform", version: Any, wanted: Sequence[Listed], folder: Path) -> dict[UUID, Path]:
    """Asset id -> its file in folder. What arrived stays for the next run: a kill costs only what was under way.

    A file called <asset id>.<sha256> was found to be as listed. One that the platform no longer lists goes: somebody
    may have asked for it. Raises StageError, naming those that could not be fetched, after all had two turns.
    """
    kept = {path.stem: path for path in folder.iterdir() if path.suffix}
    for id_ in kept.keys() - {str(one.id) for one in wanted}:
        kept[id_].unlink()
    files: dict[UUID, Path] = {}
    lost: dict[UUID, str] = {}
    one = partial(fetch, platform, version, folder, kept)
    bar = tqdm(total=len(wanted), desc="fetch", unit="picture", disable=None, delay=2)
    with ThreadPoolExecutor(WORKERS) as pool, bar:
        for _ in range(2):
            waiting = [asset for asset in wanted if asset.id not in files]
            for start in range(0, len(waiting), BATCH):
                batch = waiting[start : start + BATCH]
                for asset, found in zip(batch, pool.map(one, batch), strict=True):
                    if isinstance(found, Path):
                        files[asset.id] = found
                        bar.update()
                    else:
                        lost[asset.id] = found
    if missing := [asset for asset in wanted if asset.id not in files]:
        named = "; ".join(f"{asset.data.filename} ({asset.id}): {lost[asset.id]}" for asset in missing[:NAMED])
        more = f"; and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise StageError(
            f"{platform.host}: {len(missing)} of {len(wanted)} pictures could not be fetched: {named}{more}. "
            "Run it again: what arrived is kept"
        )
    return files


def fetch(platform: "Platform", version: Any, folder: Path, kept: Mapping[str, Path], asset: Listed) -> Path | str:
    """The asset's file; or why it could not be fetched.

    A whole file that is not the picture that was listed is asked for once more, and then left as it is under a name
    that the next run does not trust: the platform itself may hold it so, which convert says, or something on the way
    spoilt it, which passes.
    """
    from picsellia.exceptions import PicselliaError  # type: ignore[import-untyped]  # noqa: PLC0415
    from picsellia.sdk.asset import Asset  # type: ignore[import-untyped]  # noqa: PLC0415
    from requests import RequestException  # noqa: PLC0415

    if path := kept.get(str(asset.id)):
        if f".{sha256_of(path)}" == path.suffix:
            return path
        path.unlink()
    item = asset.model_dump(mode="json")
    item["data"]["filename"] = ""  # so that the file is named by the id alone, whatever the platform calls it
    path = folder / str(asset.id)
    for _ in range(2):
        try:
            Asset(version.connection, version.id, item).download(folder, force_replace=True, use_id=True)
        except (PicselliaError, RequestException) as error:
            return platform.redacted(error)
        content = path.read_bytes()
        if is_as_listed(content, asset.data.meta):
            return path.replace(folder / f"{asset.id}.{sha256(content).hexdigest()}")
    return path


def is_as_listed(content: bytes, size: Size | None) -> bool:
    try:
        height, width, _ = decode(content).shape
    except Unreadable:
        return False
    return size is None or (size.width, size.height) == (width, height)


def find_version(platform: "Platform", params: PicselliaParams) -> Any:
    """Raises StageError, naming what there is, for a dataset or version that is not."""
    from picsellia.exceptions import ResourceNotFoundError  # noqa: PLC0415

    with platform.errors():
        try:
            dataset = platform.client.get_dataset(params.dataset)
        except ResourceNotFoundError:
            there = [str(each.name) for each in platform.client.list_datasets()]
            where = f"dataset {params.dataset!r} in {platform.client.name}"
            raise StageError(f"pull.picsellia.dataset: no {where}; there {in_words(there)}") from None
        try:
            return dataset.get_version(params.version)
        except ResourceNotFoundError:
            there = [str(each.version) for each in dataset.list_versions()]
            where = f"version {params.version!r} of dataset {params.dataset!r}"
            raise StageError(f"pull.picsellia.version: no {where}; there {in_words(there)}") from None


def in_words(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"is {', '.join(sorted(names)[:NAMED])}{more}" if names else "is none"


def list_assets(platform: "Platform", version: Any) -> list[Listed]:
    """Every asset, whatever its state. Raises StageError for none, for fewer than announced, and for one twice."""
    where = f"{platform.host}: {version.name}/{version.version}"
    states = {"upload_statuses": ["PENDING", "COMPUTING", "DONE", "ERROR"], "types": ["IMAGE", "VIDEO"]}
    listed: list[Listed] = []
    count, cursor = 0, ""
    with tqdm(desc="list", unit="asset", disable=None, delay=2) as bar:
        while not listed or (cursor and len(listed) < count):
            question = {"limit": PAGE, **states, **({"cursor": cursor} if cursor else {})}
            page = platform.ask(Page, version, "assets", params=question)
            if not page.items:
                break
            listed += page.items
            count, cursor = count or page.count, page.next_cursor or ""
            bar.total = count
            bar.update(len(page.items))
    if not listed:
        raise StageError(f"{where}: has no assets (pull.picsellia.version)")
    if len(listed) != count:
        raise StageError(f"{where}: {count} assets announced, {len(listed)} listed; if somebody changes it, pull later")
    for kind, ids in (("asset", [one.id for one in listed]), ("picture", [one.data.id for one in listed])):
        if len(set(ids)) < count:
            twice = next(id_ for id_ in ids if ids.count(id_) > 1)
            raise StageError(f"{where}: {kind} {twice} is listed twice; remove one on the platform, or pull again")
    return listed


def load_annotations(
    platform: "Platform", version: Any, listed: Sequence[Listed]
) -> dict[UUID, tuple[Annotation, ...]]:
    """Asset id -> its annotations, newest first, whatever their status; an asset that nobody annotated is not there.

    Raises StageError when fewer come than are listed, or some belong to no listed asset.
    """
    where = f"{platform.host}: {version.name}/{version.version}"
    ids = platform.ask(list[str], version, "annotations/ids")
    size = SMALL_CHUNK if version.type in POINTED else CHUNK
    chunks = [ids[start : start + size] for start in range(0, len(ids), size)]
    loaded: list[Loaded] = []
    bar = tqdm(total=len(ids), desc="load", unit="annotation", disable=None, delay=2)
    with ThreadPoolExecutor(WORKERS) as pool, bar:
        for chunk in pool.map(partial(load_chunk, platform, version), chunks):
            loaded += chunk
            bar.update(len(chunk))
    if len(loaded) != len(ids):
        raise StageError(f"{where}: {len(ids)} annotations listed, {len(loaded)} handed over; pull again")
    strange = {str(each.asset_id) for each in loaded} - {str(one.id) for one in listed}
    if strange:
        raise StageError(
            f"{where}: annotations of {len(strange)} assets that it does not list, first {min(strange)}; "
            "somebody changes it: pull again"
        )
    if unstated := sum("status" not in each.annotation.model_fields_set for each in loaded):
        logger.warning("%s: %d annotations come without a status, and count as accepted", where, unstated)
    found: dict[UUID, tuple[Annotation, ...]] = {}
    for each in loaded:
        found[each.asset_id] = (*found.get(each.asset_id, ()), each.annotation)
    return found


def load_chunk(platform: "Platform", version: Any, ids: Sequence[str]) -> list[Loaded]:
    """In the order of ids, newest first, if the platform names them."""
    place = {id_: number for number, id_ in enumerate(ids)}
    loaded = platform.ask(list[Loaded], version, "annotations", body=ids)
    return sorted(loaded, key=lambda each: place.get(each.id, 0))


@dataclass(frozen=True)
class Redaction:
    """Takes out of a text what opens doors: the token, and the signatures of URLs. A filter for loggers, too."""

    token: SecretStr

    def __call__(self, text: object) -> str:
        without_token = str(text).replace(self.token.get_secret_value(), "[PICSELLIA_TOKEN]")
        return " ".join(re.sub(r"\?[^\s'\")]+", "?[...]", without_token).split())

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self(record.getMessage()), None
        return True


class Platform:
    """A connection as the token's user in one organization; and the words for what goes wrong on it."""

    def __init__(self, params: PicselliaParams) -> None:
        """Raises StageError with the remedy: no token, one that is refused, no such organization, nobody there."""
        self.host = params.host
        token = read_token()
        self.redacted = Redaction(token)
        for name in ("picsellia", "urllib3.connectionpool"):
            logging.getLogger(name).addFilter(self.redacted)
        logging.getLogger("picsellia").setLevel(logging.ERROR)  # it greets, and wants to be upgraded
        os.environ.setdefault("PICSELLIA_SDK_CUSTOM_LOGGING", "1")  # else its import sets up logging for everybody
        from picsellia import Client  # type: ignore[import-untyped]  # noqa: PLC0415 -- a second
        from picsellia.exceptions import ResourceNotFoundError  # noqa: PLC0415

        with self.errors():
            try:
                self.client = Client(
                    api_token=token.get_secret_value(),
                    organization_name=params.organization or None,
                    host=params.host,
                    session=session(params.host),
                )
            except ResourceNotFoundError:
                raise StageError(
                    f"pull.picsellia.organization: {params.organization!r} is none that the token's user belongs to; "
                    "empty means the user's own"
                ) from None
            except (KeyError, TypeError, ValueError) as error:  # whatever a stranger may answer
                what = f"{type(error).__name__}: {self.redacted(error)}"
                raise StageError(f"{params.host}: is no Picsellia (pull.picsellia.host): {what}") from None

    def ask(
        self, kind: type[T], version: Any, what: str, params: Mapping[str, Any] | None = None, body: object = None
    ) -> T:
        """What the platform says about a version, read as kind. Raises StageError."""
        path = f"/api/dataset/version/{version.id}/{what}"
        with self.errors():
            if body is None:
                answer = version.connection.get(path, params=params)
            else:
                answer = version.connection.xget(path, data=json.dumps(body))
        try:
            return TypeAdapter(kind).validate_json(answer.content)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise StageError(f"{self.host}{path}: {field}: {first['msg'].lower()}; another SDK may know why") from None

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What the SDK and requests raise -> StageError. Nothing of theirs is told unredacted, nor chained."""
        from picsellia.exceptions import PicselliaError  # noqa: PLC0415
        from requests import RequestException  # noqa: PLC0415

        try:
            yield
        except (PicselliaError, RequestException) as error:
            hidden = error.__context__  # Client() wraps why it could not connect
            raise self.explained(hidden if isinstance(hidden, (PicselliaError, RequestException)) else error) from None

    def explained(self, error: Exception) -> StageError:
        from picsellia.exceptions import ForbiddenError, UnauthorizedError  # noqa: PLC0415
        from requests import RequestException  # noqa: PLC0415
        from requests.exceptions import InvalidJSONError  # noqa: PLC0415

        said = self.redacted(error)
        match error:
            case UnauthorizedError():
                return StageError(f"{self.host}: refuses the token; {REMEDY}")
            case ForbiddenError():
                return StageError(
                    f"{self.host}: the token's user may not do this: {said}; ask the organization's owner"
                )
            case InvalidJSONError():
                return StageError(f"{self.host}: is no Picsellia (pull.picsellia.host): its answer is not JSON")
            case RequestException():
                return StageError(f"{self.host}: cannot be reached (pull.picsellia.host, or the network): {said}")
            case _:
                return StageError(f"{self.host}: {said}; try later")


def read_token() -> SecretStr:
    """PICSELLIA_TOKEN, or what the file of PICSELLIA_TOKEN_FILE holds. Raises StageError where neither is a token."""
    where, text = "PICSELLIA_TOKEN", os.environ.get("PICSELLIA_TOKEN", "")
    if not text and (path := os.environ.get("PICSELLIA_TOKEN_FILE")):
        where = f"PICSELLIA_TOKEN_FILE: {path}"
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise StageError(f"{where}: {(error.strerror or 'cannot be read').lower()}") from None
        except UnicodeDecodeError:
            raise StageError(f"{where}: is not text; it should hold the token and nothing else") from None
    text = text.strip()
    if not text:
        raise StageError(f"{where}: no token; {REMEDY}")
    if not re.fullmatch(r"[!-~]+", text):
        raise StageError(f"{where}: holds more than a token: spaces, lines, or letters beyond ASCII")
    return SecretStr(text)


def session(host: str) -> "Session":
    """Where the SDK gives up at once, it waits and asks again; where the SDK waits for minutes, it gives up."""
    from requests import PreparedRequest, Response, Session  # noqa: PLC0415
    from requests.adapters import HTTPAdapter  # noqa: PLC0415
    from urllib3 import Retry  # noqa: PLC0415

    class Adapter(HTTPAdapter):
        def send(  # type: ignore[override]
            self, request: PreparedRequest, stream: bool = False, timeout: float | None = None, **more: Any
        ) -> Response:
            return super().send(request, stream, (CONNECT_TIMEOUT, timeout), **more)

    busy = Retry(
        total=None,
        connect=0,  # the SDK does
        read=False,
        status=TRIES,
        other=0,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods={"GET", "XGET"},
        backoff_factor=BACKOFF,
        raise_on_status=False,  # the SDK has its words for each
        retry_after_max=LONGEST_WAIT,
    )
    made = Session()
    made.mount("http://", Adapter(pool_maxsize=WORKERS))
    made.mount("https://", Adapter(pool_maxsize=WORKERS))
    made.mount(f"{host}/api/", Adapter(pool_maxsize=WORKERS, max_retries=busy))
    return made
