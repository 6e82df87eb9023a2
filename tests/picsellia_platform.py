"""A stand-in for Picsellia that speaks what SDK 6.37 says on the wire, and breaks where a test wants it to."""

import json
import re
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.native import noise, png

TOKEN = "pxl-0123456789abcdef"  # noqa: S105 -- opens nothing but this
SIGNATURE = "X-Amz-Signature"
SLOW = 0.5  # s


def known_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


ORGANIZATION, DATASET, VERSION = map(known_id, ("organization", "dataset", "version"))
Question = Mapping[str, Sequence[str]]

# What goes wrong with one answer: a status; a connection closed half-way, or before a word; a body of unstated length;
# a body that comes late; one of no JSON.
Fault = int | Literal["short", "dropped", "unsized", "slow", "html"]


@dataclass(frozen=True)
class Picture:
    """An asset. content None: a picture of its own, 64 x 48."""

    file_name: str
    annotations: Sequence[Mapping[str, Any]] = ()  # newest first
    content: bytes | None = None
    size: tuple[int, int] | None = (64, 48)  # as the platform states it
    status: str = "DONE"
    type: str = "IMAGE"
    tags: Sequence[str] = ()


@dataclass
class Stored:
    picture: Picture
    content: bytes
    asset_id: str
    data_id: str
    annotation_ids: list[str]


@dataclass
class Platform:
    """One organization, acme, of one user, alice, with one version of one dataset, hands."""

    pictures: Sequence[Picture]
    version: str = "v1"
    labels: Sequence[str] = ("0", "1", "2", "3", "4", "5", "unknown")
    version_type: str = "OBJECT_DETECTION"
    page: int = 1000  # assets in an answer at most
    addresses: bool = True  # whether the listing says where files are
    unlisted: int = 0  # assets that the listing announces and does not have
    keep: Callable[[Any], bool] = lambda _: True  # which annotations are handed over
    host: str = ""
    asked: Counter[str] = field(default_factory=Counter)  # method and path of each request
    headers: dict[str, str] = field(default_factory=dict)  # of the newest request to the API

    def __post_init__(self) -> None:
        self._faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self._events: dict[str, Callable[[], None]] = {}
        self._signature = 0
        self._lock = threading.Lock()
        self.stored = {s.asset_id: s for s in (store(self.version, n, p) for n, p in enumerate(self.pictures))}
        self._by_data = {stored.data_id: stored for stored in self.stored.values()}

    def fail(self, path: str, *faults: Fault) -> None:
        """The next requests whose path contains a match of the expression get these, in order."""
        self._faults[path] += faults

    def on(self, path: str, event: Callable[[], None]) -> None:
        """What happens on the platform before it answers such a request."""
        self._events[path] = event

    def heal(self) -> None:
        self._faults.clear()

    def expire(self) -> None:
        """No address handed out so far opens its file any more."""
        self._signature += 1

    def fetched(self) -> int:
        """Requests for files, whatever came of them."""
        return sum(count for path, count in self.asked.items() if path.startswith("GET /files/"))

    def asset_id(self, file_name: str) -> str:
        return next(id_ for id_, stored in self.stored.items() if stored.picture.file_name == file_name)

    def fault(self, path: str) -> Fault | None:
        with self._lock:
            for event in [event for regex, event in self._events.items() if re.search(regex, path)]:
                event()
            waiting = next((faults for regex, faults in self._faults.items() if faults and re.search(regex, path)), [])
            return waiting.pop(0) if waiting else None

    def answer(self, path: str, question: Question, body: Any) -> Any:
        """JSON for a path below /api. Raises KeyError for what is not there."""
        organization = {"id": ORGANIZATION, "name": "acme", "default_connector_id": known_id("connector")}
        dataset = {"id": DATASET, "name": "hands"}
        version = {
            "id": VERSION,
            "origin_name": "hands",
            "origin_id": DATASET,
            "version": self.version,
            "type": self.version_type,
            "annotation_campaign_id": None,
        }
        labels = [{"id": known_id(f"label {name}"), "name": name, "group_id": None} for name in self.labels]
        annotation_ids = [id_ for stored in self.stored.values() for id_ in stored.annotation_ids]
        if named := re.fullmatch("/data/(.+)/presigned-url", path):
            return {"presigned_url": self.url(self._by_data[named[1]])}
        ping = {"username": "alice", "sdk_version": "6.99.0", "default_organization": ORGANIZATION}
        routes: dict[str, Callable[[], Any]] = {
            "/home/ping": lambda: ping,
            "/organizations/find": lambda: only(organization, "name", question),
            f"/organization/{ORGANIZATION}": lambda: organization,
            f"/organization/{ORGANIZATION}/datasets": lambda: {"items": [dataset], "count": 1},
            f"/organization/{ORGANIZATION}/datasets/find": lambda: only(dataset, "name", question),
            f"/dataset/{DATASET}/versions": lambda: {"items": [version], "count": 1},
            f"/dataset/{DATASET}/versions/find": lambda: only(version, "version", question),
            f"/dataset/version/{VERSION}/labels": lambda: {"items": labels},
            f"/dataset/version/{VERSION}/assets": lambda: self.assets(question),
            f"/dataset/version/{VERSION}/annotations/ids": lambda: annotation_ids,
            f"/dataset/version/{VERSION}/annotations": lambda: self.annotations(body),
        }
        return routes[path]()

    def assets(self, question: Question) -> Any:
        """The cursor is the number of the next asset."""
        start, wanted = int(question.get("cursor", ["0"])[0]), min(int(question["limit"][0]), self.page)
        statuses, types = question["upload_statuses"], question["types"]
        every = [s for s in self.stored.values() if s.picture.status in statuses and s.picture.type in types]
        end = start + wanted
        return {
            "items": [self.listed(stored) for stored in every[start:end]],
            "count": len(every) + self.unlisted,
            "next_cursor": str(end) if end < len(every) else None,
        }

    def listed(self, stored: Stored) -> dict[str, Any]:
        picture = stored.picture
        data = {
            "id": stored.data_id,
            "object_name": f"{ORGANIZATION}/data/{stored.data_id}",
            "filename": picture.file_name,
            "type": picture.type,
            "content_type": "image/png",
            "upload_status": picture.status,
            "presigned_url": self.url(stored) if self.addresses and picture.status == "DONE" else None,
            "meta": dict(zip(("width", "height"), picture.size, strict=True)) if picture.size else None,
            "metadata": None,
            "custom_metadata": None,
        }
        tags = [{"id": known_id(f"tag {tag}"), "name": tag, "target_type": "ASSET"} for tag in picture.tags]
        return {"id": stored.asset_id, "data": data, "tags": tags}

    def annotations(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """In an order of the server's own."""
        wanted = set(ids)
        found = [
            {"id": id_, "asset_id": stored.asset_id, "duration": 1.5, "attributes": None, **annotation}
            for stored in self.stored.values()
            for id_, annotation in zip(stored.annotation_ids, stored.picture.annotations, strict=True)
            if id_ in wanted
        ]
        return sorted(filter(self.keep, found), key=lambda each: str(each["id"]))

    def url(self, stored: Stored) -> str:
        return f"{self.host}/files/{stored.data_id}?{SIGNATURE}={self._signature}"

    def file(self, data_id: str, question: Question) -> bytes:
        """Raises PermissionError once the address has expired."""
        if question.get(SIGNATURE) != [str(self._signature)]:
            raise PermissionError
        return self._by_data[data_id].content


def store(version: str, number: int, picture: Picture) -> Stored:
    """What lies in the datalake is the same in every version; assets and annotations are a version's own."""
    content = png(noise(number)) if picture.content is None else picture.content
    ids = [known_id(f"annotation {version} {number} {place}") for place, _ in enumerate(picture.annotations)]
    return Stored(picture, content, known_id(f"asset {version} {number}"), known_id(f"data {number}"), ids)


def only(item: Mapping[str, Any], key: str, question: Question) -> Mapping[str, Any]:
    if question.get(key) != [item[key]]:
        raise KeyError(key)
    return item


class Handler(BaseHTTPRequestHandler):
    """Any method may be asked, the SDK's XGET among them."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    platform: Platform

    def do_GET(self) -> None:
        where = urlsplit(self.path)
        question = parse_qs(where.query)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.platform._lock:
            self.platform.asked[f"{self.command} {where.path}"] += 1
        fault = self.platform.fault(where.path)
        if isinstance(fault, int):
            self.say(fault, problem(fault))
        elif where.path.startswith("/files/"):
            try:
                self.say(200, self.platform.file(where.path.removeprefix("/files/"), question), fault)
            except PermissionError:
                self.say(403, b"<Error><Code>AccessDenied</Code></Error>")
        else:
            self.platform.headers = dict(self.headers)
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                self.say(401, problem(401))
                return
            try:
                found = self.platform.answer(where.path.removeprefix("/api"), question, json.loads(body or b"null"))
            except KeyError:
                self.say(404, problem(404))
                return
            self.say(200, b"<html>" if fault == "html" else json.dumps(found).encode(), fault)

    do_XGET = do_GET  # noqa: N815

    def say(self, status: int, body: bytes, fault: Fault | None = None) -> None:
        if fault == "slow":
            time.sleep(SLOW)
        self.close_connection = fault in ("short", "dropped", "unsized")
        if fault == "dropped":
            return
        self.send_response(status)
        if fault != "unsized":
            self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "short" else body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- not on the tests' stderr
        pass


def problem(status: int) -> bytes:
    return json.dumps({"message": f"the platform says {status}", "detail": None}).encode()


class Server(ThreadingHTTPServer):
    daemon_threads = True  # a connection that a killed process left open ends with the tests

    def handle_error(self, request: Any, client_address: Any) -> None:  # a client that was killed hangs up
        pass


Serve = Callable[..., Platform]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(pictures, ...) -> a platform that answers until the test ends."""
    servers = []

    def start(pictures: Sequence[Picture], **settings: Any) -> Platform:
        platform = Platform(pictures, **settings)
        server = Server(("127.0.0.1", 0), type("", (Handler,), {"platform": platform}))
        platform.host = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return platform

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
