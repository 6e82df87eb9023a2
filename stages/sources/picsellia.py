"""A dataset version on Picsellia -> assets: every one that the platform lists, with all its annotations.

The one home of the SDK, which is asked for the connection, the dataset and single files. Its calls for many at once
lose things: a listing forgets tags and upload status, and fails whole for one asset without a size; annotations come
in the order in which threads finish; a download logs what failed and goes on.
"""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from pydantic import ConfigDict, Field, SecretStr, TypeAdapter, ValidationError
from tqdm import tqdm

from stages.params import PicselliaParams, StageError
from stages.sources import Source, SourceAsset
from stages.sources.store import WORKERS, Lost, Wanted, open_store
from stages.vision.annotations import Annotation, Native

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = 1000  # assets in an answer: the most that the platform gives
CHUNK, SMALL_CHUNK = 100, 10  # annotations in an answer; fewer where each may have hundreds of points:
POINTED = ("SEGMENTATION", "LINE", "MULTI")
EVERY_STATE = {"upload_statuses": ["PENDING", "COMPUTING", "DONE", "ERROR"], "types": ["IMAGE", "VIDEO"]}
CONNECT_TIMEOUT, READ_TIMEOUT = 5, 300  # s; the SDK waits 300 to connect, five times, and for some answers for ever
TRIES, BACKOFF, LONGEST_WAIT = 5, 0.5, 60  # of the API's 429 and 5xx; s: 0, 1, 2, 4, 8, or what Retry-After says
NAMED = 10  # of what there is, in an error
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
    meta: Size | None = None


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

    def wanted(self) -> Wanted:
        size = self.data.meta
        return Wanted(str(self.id), self.data.filename, (size.width, size.height) if size else None)


class Page(Native):
    items: list[Listed]
    count: int  # of the whole listing
    next_cursor: str | None = None


class Loaded(Native):
    """An annotation as the platform hands it over; what is drawn is in model_extra."""

    model_config = ConfigDict(extra="allow")

    asset_id: UUID
    id: str = ""  # known from practice: the SDK does not read it


def read(params: PicselliaParams) -> Source:
    """Raises StageError for a token, name or network that does not work, and for a listing or annotations in part."""
    version = find_version(Platform(params), params)
    listed = list_assets(version)
    annotations = load_annotations(version, listed)
    summary = (
        f"picsellia ({version.name}: {len(listed)} assets, {len(annotations)} annotated; "
        "DVC does not watch the platform: `dvc repro -f pull` looks again)"
    )
    origin = f"picsellia:{params.dataset}"  # without the version: in the next one a picture keeps its id and its side
    labels = {origin: list_labels(version)}
    return Source(summary, len(listed), assets(version, listed, annotations, origin), labels)


def check_token(params: PicselliaParams) -> str:
    """The name of the user whose token PICSELLIA_TOKEN or PICSELLIA_TOKEN_FILE gives; it opens the organization, too.

    For `fingers doctor`: check_token(load_params().pull.picsellia). Raises StageError with the remedy.
    """
    platform = Platform(params)
    with platform.errors():
        return str(platform.client.connection.get("/api/home/ping").json()["username"])


def assets(
    version: "Version", listed: Sequence[Listed], annotations: Mapping[UUID, Sequence[Annotation]], origin: str
) -> Iterator[SourceAsset]:
    pictures = {one.id: one for one in listed if not one.unusable}

    def fetch(asked: Wanted, path: Path) -> None:
        version.download(pictures[UUID(asked.id)], path)

    with open_store(f"picsellia/{version.id}") as store:
        files = store.fill([picture.wanted() for picture in pictures.values()], fetch)
        for one in listed:
            size = one.data.meta if one.id in pictures else None
            yield SourceAsset(
                key=str(one.data.id),
                file_name=one.data.filename,
                content=files[str(one.id)].read_bytes() if one.id in pictures else b"",
                width=size.width if size else None,
                height=size.height if size else None,
                tags=tuple(tag.name for tag in one.tags),
                annotations=tuple(annotations.get(one.id, ())),
                origin=origin,
                unusable=one.unusable,
            )


def list_assets(version: "Version") -> list[Listed]:
    """Every asset, whatever its state. Raises StageError for none, for fewer than announced, and for one twice."""
    page = version.ask(Page, "assets", params={"limit": PAGE, **EVERY_STATE})
    listed, count = page.items, page.count
    with tqdm(total=count, initial=len(listed), desc="list", unit="asset", disable=None, delay=2) as bar:
        while page.items and page.next_cursor and len(listed) < count:
            page = version.ask(Page, "assets", params={"limit": PAGE, "cursor": page.next_cursor, **EVERY_STATE})
            listed += page.items
            bar.update(len(page.items))
    if not listed:
        raise StageError(f"{version}: has no assets (pull.picsellia.version)")
    if len(listed) != count:
        raise StageError(f"{version}: announces {count} assets and lists {len(listed)}; pull when nobody changes it")
    for what, ids in (("asset", [one.id for one in listed]), ("picture", [one.data.id for one in listed])):
        (id_, times), *_ = Counter(ids).most_common(1)
        if times > 1:
            raise StageError(f"{version}: lists {what} {id_} {times} times; leave one of them there, and pull again")
    return listed


def load_annotations(version: "Version", listed: Sequence[Listed]) -> dict[UUID, list[Annotation]]:
    """Asset id -> its annotations, newest first, whatever their status; an asset that nobody annotated is not there.

    Raises StageError when fewer come than are listed, or some belong to no listed asset. Those of a video are not read.
    """
    ids = version.ask(list[str], "annotations/ids")
    size = SMALL_CHUNK if version.sdk.type.value in POINTED else CHUNK
    loaded: list[Loaded] = []
    bar = tqdm(total=len(ids), desc="load", unit="annotation", disable=None, delay=2)
    with ThreadPoolExecutor(WORKERS) as pool, bar:
        for chunk in pool.map(version.annotations, [ids[start : start + size] for start in range(0, len(ids), size)]):
            loaded += chunk
            bar.update(len(chunk))
    if len(loaded) != len(ids):
        raise StageError(f"{version}: lists {len(ids)} annotations and hands over {len(loaded)}; pull again")
    known = {one.id: one for one in listed}
    if strange := {str(each.asset_id) for each in loaded if each.asset_id not in known}:
        raise StageError(
            f"{version}: has annotations of {len(strange)} assets that it does not list, first {min(strange)}; "
            "pull when nobody changes it"
        )
    found: dict[UUID, list[Annotation]] = {}
    for each in loaded:
        if not known[each.asset_id].unusable:
            found.setdefault(each.asset_id, []).append(drawn(each, f"{version}: {known[each.asset_id].data.filename}"))
    if unstated := sum("status" not in each.model_fields_set for several in found.values() for each in several):
        logger.warning("%s: %d annotations come without a status, and count as accepted", version, unstated)
    return found


def drawn(loaded: Loaded, where: str) -> Annotation:
    try:
        return Annotation.model_validate(loaded.model_extra)
    except ValidationError as error:
        raise StageError(f"{where}: annotation {loaded.id}: {first_of(error)}; correct it on the platform") from None


def list_labels(version: "Version") -> list[str]:
    """In the platform's order."""
    with version.platform.errors():
        return [str(label.name) for label in version.sdk.list_labels()]


@dataclass(frozen=True)
class Version:
    """A dataset version, and what it is asked beyond the SDK's own calls. Its methods raise StageError."""

    platform: "Platform"
    sdk: Any  # a DatasetVersion: the SDK ships no types

    def __str__(self) -> str:
        return f"{self.platform.host}: {self.name}"

    @property
    def id(self) -> UUID:
        return UUID(str(self.sdk.id))

    @property
    def name(self) -> str:
        return f"{self.sdk.name}/{self.sdk.version}"

    def annotations(self, ids: Sequence[str]) -> list[Loaded]:
        """In the order of ids, which is newest first, where the platform names them."""
        place = {id_: number for number, id_ in enumerate(ids)}
        return sorted(self.ask(list[Loaded], "annotations", body=ids), key=lambda each: place.get(each.id, 0))

    def ask(self, kind: type[T], what: str, *, params: Mapping[str, Any] | None = None, body: object = None) -> T:
        """The answer, read as kind; a question with a body is an XGET."""
        path = f"/api/dataset/version/{self.id}/{what}"
        with self.platform.errors():
            if body is None:
                answer = self.sdk.connection.get(path, params=params)
            else:
                answer = self.sdk.connection.xget(path, data=json.dumps(body))
        try:
            return TypeAdapter(kind).validate_json(answer.content)
        except ValidationError as error:
            raise StageError(
                f"{self}: {what}: {first_of(error)}; not what SDK 6.37 knows: is there a newer one?"
            ) from None

    def download(self, listed: Listed, path: Path) -> None:
        """Asks again for an address that has expired, and on 429 and 5xx. Raises Lost."""
        from picsellia.exceptions import PicselliaError  # noqa: PLC0415
        from picsellia.sdk.asset import Asset  # noqa: PLC0415
        from requests import RequestException  # noqa: PLC0415

        data = listed.data.model_dump(mode="json")
        # Named by the id alone, whatever its name may try; the SDK insists on a size and makes no use of it.
        item = {"id": path.name, "data": {**data, "filename": "", "meta": {"width": 0, "height": 0}}}
        try:
            Asset(self.sdk.connection, self.id, item).download(path.parent, force_replace=True, use_id=True)
        except (PicselliaError, RequestException) as error:
            raise Lost(self.platform.redacted(error)) from None


class Platform:
    """A connection as the token's user in one organization, and the words for what goes wrong on it."""

    def __init__(self, params: PicselliaParams) -> None:
        """Raises StageError with the remedy: no token, one that is refused, no such organization, nobody there."""
        self.host = params.host
        token = read_token()
        self.redacted = Redaction(token)
        for name in ("picsellia", "urllib3.connectionpool"):
            logging.getLogger(name).addFilter(self.redacted)
        logging.getLogger("picsellia").setLevel(logging.ERROR)  # it greets, and wants to be upgraded
        os.environ.setdefault("PICSELLIA_SDK_CUSTOM_LOGGING", "1")  # else its import sets up logging for everybody
        from picsellia import Client  # noqa: PLC0415 -- a second
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
                    f"pull.picsellia.organization: {params.organization!r} is none of those of the token's user; "
                    "empty means the user's own"
                ) from None
            except (KeyError, TypeError, ValueError) as error:  # what a stranger may answer
                what = f"{type(error).__name__}: {self.redacted(error)}"
                raise StageError(f"{params.host}: is no Picsellia (pull.picsellia.host): {what}") from None

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What the SDK and requests raise -> StageError. Nothing of theirs is told unredacted, nor chained."""
        from picsellia.exceptions import PicselliaError  # noqa: PLC0415
        from requests import RequestException  # noqa: PLC0415

        try:
            yield
        except (PicselliaError, RequestException) as error:
            # Client() wraps why it could not connect
            hidden = error.__context__ if type(error) is PicselliaError else None
            raise self.explained(hidden or error) from None

    def explained(self, error: BaseException) -> StageError:
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
                return StageError(f"{self.host}: {said}; try again later, or ask Picsellia")


def find_version(platform: Platform, params: PicselliaParams) -> Version:
    """Raises StageError, naming what there is, for a dataset or version that is not."""
    from picsellia.exceptions import ResourceNotFoundError  # noqa: PLC0415

    with platform.errors():
        try:
            dataset = platform.client.get_dataset(params.dataset)
        except ResourceNotFoundError:
            there = in_words(each.name for each in platform.client.list_datasets())
            where = f"no {params.dataset!r} in {platform.client.name}, where {there}"
            raise StageError(f"{platform.host}: {where} (pull.picsellia.dataset)") from None
        try:
            return Version(platform, dataset.get_version(params.version))
        except ResourceNotFoundError:
            there = in_words(each.version for each in dataset.list_versions())
            where = f"no {params.version!r} of {params.dataset}, of which {there}"
            raise StageError(f"{platform.host}: {where} (pull.picsellia.version)") from None


def in_words(names: Iterator[Any]) -> str:
    known = sorted(str(name) for name in names)
    more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
    return f"there is {', '.join(known[:NAMED]) or 'none'}{more}"


@dataclass(frozen=True)
class Redaction:
    """Takes out of a text what opens doors: the token, and what signs a URL. A filter for loggers, too."""

    token: SecretStr

    def __call__(self, text: object) -> str:
        without_token = str(text).replace(self.token.get_secret_value(), "[PICSELLIA_TOKEN]")
        return " ".join(re.sub(r"\?[^\s'\")]+", "?[...]", without_token).split())

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self(record.getMessage()), None
        record.exc_info = None  # a traceback would show the address
        return True


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
    from requests import Session  # noqa: PLC0415
    from requests.adapters import HTTPAdapter  # noqa: PLC0415
    from urllib3 import Retry  # noqa: PLC0415

    class Adapter(HTTPAdapter):
        def send(  # type: ignore[override]
            self, request: "PreparedRequest", stream: bool = False, timeout: float | None = None, **more: Any
        ) -> "Response":
            return super().send(request, stream, (CONNECT_TIMEOUT, timeout or READ_TIMEOUT), **more)

    busy = Retry(
        total=None,
        connect=0,  # the SDK tries again
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


def first_of(error: ValidationError) -> str:
    """Where and what, without the value: it may hold an address that opens a file."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'the answer'}: {first['msg'].lower()}"
