"""A stand-in for Picsellia that speaks what SDK 6.37 says on the wire, and breaks where a test wants it to."""

import json
import re
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email import message_from_bytes
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
LAKE, CONNECTOR = map(known_id, ("datalake", "connector"))
POLICY = "signed-upload"  # opens the place for uploads
Question = Mapping[str, Sequence[str]]

# What goes wrong with one answer: a status; a connection closed half-way, or before a word, nothing done or all done; a
# body of unstated length; a body that comes late; one of no JSON.
Fault = int | Literal["short", "dropped", "lost", "unsized", "slow", "html"]


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
    tags: Sequence[str] = ()  # ids, of what lies in the datalake


@dataclass
class Version:
    """A version of the dataset, and who is in it, by asset id."""

    id: str
    name: str
    type: str
    stored: dict[str, Stored]
    labels: Sequence[str]


@dataclass
class Job:
    """Time passes with each request to the API: after so many the work is done, or has failed."""

    requests: int
    work: Callable[[], None]
    end: str = "SUCCESS"
    status: str = "RUNNING"


@dataclass
class Platform:
    """One organization, acme, of one user, alice, with one dataset, hands, and one version of it at first."""

    pictures: Sequence[Picture]
    version: str = "v1"
    labels: Sequence[str] = ("0", "1", "2", "3", "4", "5", "unknown")
    version_type: str = "OBJECT_DETECTION"
    page: int = 1000  # assets in an answer at most
    addresses: bool = True  # whether the listing says where files are
    unlisted: int = 0  # assets that the listing announces and does not have
    keep: Callable[[Any], bool] = lambda _: True  # which annotations are handed over
    jobs_take: int = 3  # requests
    jobs_end: str = "SUCCESS"
    uploads_end: str = "DONE"
    loses: str | None = None  # of the files added to a version, the one that does not get there
    host: str = ""
    asked: Counter[str] = field(default_factory=Counter)  # method and path of each request
    headers: dict[str, str] = field(default_factory=dict)  # of the newest request to the API

    def __post_init__(self) -> None:
        self._faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self._events: dict[str, Callable[[], None]] = {}
        self._signature = 0
        self._lock = threading.Lock()
        self.stored = {s.asset_id: s for s in (store(self.version, n, p) for n, p in enumerate(self.pictures))}
        self.lake = {stored.data_id: stored for stored in self.stored.values()}
        self.versions = [Version(VERSION, self.version, self.version_type, self.stored, self.labels)]
        self.received: dict[str, bytes] = {}  # object name: what was uploaded
        self.tags: dict[str, str] = {}  # name: id
        self._jobs: dict[str, Job] = {}

    def fail(self, path: str, *faults: Fault) -> None:
        """The next requests with a match of the expression in their path, or in "METHOD path", get these, in order."""
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

    def names(self, version: str) -> list[str] | None:
        """Of the files in it."""
        found = next((one for one in self.versions if one.name == version), None)
        return sorted(stored.picture.file_name for stored in found.stored.values()) if found else None

    def asset_id(self, file_name: str) -> str:
        return next(id_ for id_, stored in self.stored.items() if stored.picture.file_name == file_name)

    def fault(self, command: str, path: str) -> Fault | None:
        def meant(regex: str) -> bool:
            return bool(re.search(regex, path) or re.search(regex, f"{command} {path}"))

        with self._lock:
            for event in [event for regex, event in self._events.items() if meant(regex)]:
                event()
            waiting = next((faults for regex, faults in self._faults.items() if faults and meant(regex)), [])
            return waiting.pop(0) if waiting else None

    def answer(self, command: str, path: str, question: Question, body: Any) -> Any:
        """JSON for a path below /api. Raises KeyError for what is not there, FileExistsError for a taken name."""
        with self._lock:
            self.pass_time()
            if command in ("POST", "PATCH"):
                return self.change(path, body)
            if named := re.fullmatch("/dataset/version/([^/]+)/(.+)", path):
                return self.ask_version(self.version_of(named[1]), named[2], question, body)
            return self.ask(path, question, body)

    def ask(self, path: str, question: Question, body: Any) -> Any:
        organization = {"id": ORGANIZATION, "name": "acme", "default_connector_id": CONNECTOR}
        dataset = {"id": DATASET, "name": "hands"}
        if named := re.fullmatch("/data/(.+)/presigned-url", path):
            return {"presigned_url": self.url(self.lake[named[1]])}
        if named := re.fullmatch("/job/(.+)", path):
            return {"id": named[1], "status": self._jobs[named[1]].status}
        ping = {"username": "alice", "sdk_version": "6.99.0", "default_organization": ORGANIZATION}
        versions = [described(version) for version in self.versions]
        routes: dict[str, Callable[[], Any]] = {
            "/home/ping": lambda: ping,
            "/organizations/find": lambda: only([organization], "name", question),
            f"/organization/{ORGANIZATION}": lambda: organization,
            f"/organization/{ORGANIZATION}/datasets": lambda: {"items": [dataset], "count": 1},
            f"/organization/{ORGANIZATION}/datasets/find": lambda: only([dataset], "name", question),
            f"/organization/{ORGANIZATION}/datalake": lambda: {
                "id": LAKE,
                "name": "default",
                "connector_id": CONNECTOR,
            },
            f"/datalake/{LAKE}/tags/find": lambda: tag(question["name"][0], self.tags[question["name"][0]], "DATA"),
            f"/datalake/{LAKE}/datas": lambda: self.data(body),
            f"/dataset/{DATASET}/versions": lambda: {"items": versions, "count": len(versions)},
            f"/dataset/{DATASET}/versions/find": lambda: only(versions, "version", question),
        }
        return routes[path]()

    def ask_version(self, version: Version, what: str, question: Question, body: Any) -> Any:
        routes: dict[str, Callable[[], Any]] = {
            "labels": lambda: {
                "items": [{"id": known_id(f"label {name}"), "name": name, "group_id": None} for name in version.labels]
            },
            "assets": lambda: self.assets(version, question),
            "annotations/ids": lambda: [id_ for stored in version.stored.values() for id_ in stored.annotation_ids],
            "annotations": lambda: self.annotations(version, body),
        }
        return routes[what]()

    def change(self, path: str, body: Any) -> Any:
        if named := re.fullmatch("/dataset/version/([^/]+)", path):
            return self.rename(self.version_of(named[1]), body["version"])
        if named := re.fullmatch("/dataset/version/([^/]+)/assets", path):
            version = self.version_of(named[1])
            return {"job": self.start(lambda: self.add(version, body["data_ids"]))}
        routes: dict[str, Callable[[Any], Any]] = {
            f"/organization/{ORGANIZATION}/connector/{CONNECTOR}/generate_object_name": self.name_object,
            f"/object-storage/{CONNECTOR}/generate_presigned_url": self.sign_upload,
            f"/datalake/{LAKE}/tags": self.make_tag,
            f"/datalake/{LAKE}/datas": self.register,
            f"/dataset/{DATASET}/fork": self.fork,
        }
        return routes[path](body)

    def name_object(self, body: Mapping[str, Any]) -> Any:
        return {"object_name": f"{ORGANIZATION}/data/{uuid.uuid4()}-{body['filename']}"}

    def sign_upload(self, body: Mapping[str, Any]) -> Any:
        url = f"{self.host}/uploads?{SIGNATURE}={self._signature}"
        fields = {"key": body["object_name"], "policy": POLICY}
        return {"client_type": "minio", "presigned_url_data": {"url": url, "fields": fields}}

    def make_tag(self, body: Mapping[str, Any]) -> Any:
        return tag(body["name"], self.tags.setdefault(body["name"], known_id(f"data tag {body['name']}")), "DATA")

    def rename(self, version: Version, name: str) -> Any:
        if version.name != name:
            self.refuse_taken(name)
        version.name = name
        return described(version)

    def register(self, body: Mapping[str, Any]) -> Any:
        """What was uploaded becomes data of the datalake, and is looked at for a while."""
        size = body["meta"]["width"], body["meta"]["height"]
        picture = Picture(body["filename"], size=size, status="COMPUTING")
        stored = Stored(picture, self.received[body["object_name"]], "", str(uuid.uuid4()), [], body["tags"])
        self.lake[stored.data_id] = stored

        def look() -> None:
            stored.picture = replace(picture, status=self.uploads_end)

        self._jobs[stored.data_id] = Job(3, look)
        return self.listed(stored)["data"]

    def data(self, body: Mapping[str, Any]) -> Any:
        found = [stored for stored in self.lake.values() if stored.picture.file_name in body["filenames"]]
        return {"items": [self.listed(stored)["data"] for stored in found], "count": len(found)}

    def fork(self, body: Mapping[str, Any]) -> Any:
        self.refuse_taken(body["version"])
        parent = self.version_of(body["parent_id"])
        made = Version(str(uuid.uuid4()), body["version"], body["type"], {}, parent.labels * body["with_labels"])
        self.versions.append(made)

        def copy() -> None:
            for stored in parent.stored.values():
                ids = [f"{made.id} {id_}" for id_ in stored.annotation_ids] if body["with_annotations"] else []
                tags = stored.picture.tags if body["with_tags"] else ()
                one = replace(stored, picture=replace(stored.picture, tags=tags), annotation_ids=ids)
                made.stored[one.asset_id] = replace(one, asset_id=str(uuid.uuid4()))

        return {"dataset_version": described(made), "job": self.start(copy)}

    def add(self, version: Version, data_ids: Sequence[str]) -> None:
        """Whoever adds twice has it twice."""
        for stored in (self.lake[id_] for id_ in data_ids):
            if stored.picture.file_name != self.loses:
                asset_id = str(uuid.uuid4())
                version.stored[asset_id] = replace(stored, asset_id=asset_id)

    def start(self, work: Callable[[], None]) -> Any:
        job_id = str(uuid.uuid4())
        self._jobs[job_id] = Job(self.jobs_take, work, self.jobs_end)
        return {"id": job_id, "status": "RUNNING"}

    def pass_time(self) -> None:
        for job in [job for job in self._jobs.values() if job.status == "RUNNING"]:
            job.requests -= 1
            if not job.requests:
                job.status = job.end
                if job.status == "SUCCESS":
                    job.work()

    def version_of(self, id_: str) -> Version:
        return {version.id: version for version in self.versions}[id_]

    def refuse_taken(self, name: str) -> None:
        if self.names(name) is not None:
            raise FileExistsError(name)

    def assets(self, version: Version, question: Question) -> Any:
        """The cursor is the number of the next asset."""
        start, wanted = int(question.get("cursor", ["0"])[0]), min(int(question["limit"][0]), self.page)
        statuses, types = question["upload_statuses"], question["types"]
        every = [s for s in version.stored.values() if s.picture.status in statuses and s.picture.type in types]
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
        tags = [tag(name, known_id(f"tag {name}"), "ASSET") for name in picture.tags]
        return {"id": stored.asset_id, "data": data, "tags": tags}

    def annotations(self, version: Version, ids: Sequence[str]) -> list[dict[str, Any]]:
        """In an order of the server's own."""
        wanted = set(ids)
        found = [
            {"id": id_, "asset_id": stored.asset_id, "duration": 1.5, "attributes": None, **annotation}
            for stored in version.stored.values()
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
        return self.lake[data_id].content

    def receive(self, content_type: str, body: bytes) -> None:
        """A form, as S3 takes it. Raises PermissionError for one that nobody has signed."""
        form: Any = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
        parts = {part.get_param("name", header="Content-Disposition"): part for part in form.get_payload()}
        fields = {name: part.get_payload(decode=True) for name, part in parts.items()}
        if fields["policy"] != POLICY.encode():
            raise PermissionError
        with self._lock:
            self.received[fields["key"].decode()] = fields["file"]


def store(version: str, number: int, picture: Picture) -> Stored:
    """What lies in the datalake is the same in every version; assets and annotations are a version's own."""
    content = png(noise(number)) if picture.content is None else picture.content
    ids = [known_id(f"annotation {version} {number} {place}") for place, _ in enumerate(picture.annotations)]
    return Stored(picture, content, known_id(f"asset {version} {number}"), known_id(f"data {number}"), ids)


def described(version: Version) -> dict[str, Any]:
    return {
        "id": version.id,
        "origin_name": "hands",
        "origin_id": DATASET,
        "version": version.name,
        "type": version.type,
        "annotation_campaign_id": None,
    }


def tag(name: str, id_: str, target: str) -> dict[str, str]:
    return {"id": id_, "name": name, "target_type": target}


def only(items: Sequence[Mapping[str, Any]], key: str, question: Question) -> Mapping[str, Any]:
    (wanted,) = question[key]
    return {item[key]: item for item in items}[wanted]


class Handler(BaseHTTPRequestHandler):
    """Any method may be asked, the SDK's XGET among them."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    platform: Platform

    def do_GET(self) -> None:
        where = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.platform._lock:
            self.platform.asked[f"{self.command} {where.path}"] += 1
        fault = self.platform.fault(self.command, where.path)
        if isinstance(fault, int):
            self.say(fault, problem(fault))
        elif fault == "dropped":
            self.close_connection = True
        else:
            self.say(*self.answer(where.path, parse_qs(where.query), body, fault), fault)

    do_XGET = do_POST = do_PATCH = do_GET  # noqa: N815

    def answer(self, path: str, question: Question, body: bytes, fault: Fault | None) -> tuple[int, bytes]:
        try:
            if path == "/uploads":
                self.platform.receive(self.headers["Content-Type"], body)
                return 204, b""
            if path.startswith("/files/"):
                return 200, self.platform.file(path.removeprefix("/files/"), question)
        except PermissionError:
            return 403, b"<Error><Code>AccessDenied</Code></Error>"
        self.platform.headers = dict(self.headers)
        status, found = 401, None
        if self.headers["Authorization"] == f"Bearer {TOKEN}":
            status, found = self.answer_api(path.removeprefix("/api"), question, json.loads(body or b"null"))
        if status != 200:
            return status, problem(status)
        return status, b"<html>" if fault == "html" else json.dumps(found).encode()

    def answer_api(self, path: str, question: Question, body: Any) -> tuple[int, Any]:
        try:
            return 200, self.platform.answer(self.command, path, question, body)
        except KeyError:
            return 404, None
        except FileExistsError:
            return 409, None

    def say(self, status: int, body: bytes, fault: Fault | None = None) -> None:
        if fault == "slow":
            time.sleep(SLOW)
        self.close_connection = fault in ("short", "lost", "unsized")
        if fault == "lost":
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
