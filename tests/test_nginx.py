"""What stands before the server: the real nginx with deploy/nginx, in front of the real server."""

import asyncio
import http.client
import io
import json
import random
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image as PillowImage
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from serve.client import FingerClient, ServerError
from serve.models import LOAD_WITHIN
from serve.settings import Settings
from serve.static import FOLDER, HEADERS
from tests.load import Load, wait_until
from tests.names import serving
from tests.native import ROOT
from tests.nginx import TEMPLATES, UNREACHED, Nginx, certify, needs_nginx, nginx_before
from tests.pictures import saved
from tests.server import Server, free_port, start_server

pytestmark = needs_nginx

BURST, CONNECTIONS, SOCKETS, SENT = 40, 64, 16, 16  # of one address
ELSEWHERE = "127.0.0.9"  # another address of this machine
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def nginx(server: Server) -> Iterator[Nginx]:
    """For all that do not change it, with a rate that none of them reaches."""
    with nginx_before(server.port, FRONTEND_RATE=UNREACHED, HTTPS_PORT="443") as running:
        yield running


@pytest.fixture(scope="module")
def client(nginx: Nginx) -> Iterator[httpx.Client]:
    with nginx.client() as client:
        yield client


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """The port of a server that answers with the headers it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps(dict(self.headers)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening, serving(listening):
        yield listening.server_port


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Fails unless it has the shape of the API's errors, and the id that its header has."""
    (error,) = answer.json().values()
    assert sorted(error) == ["code", "message", "request_id"]
    assert answer.headers.get_list("X-Request-Id") == [error["request_id"]]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.status_code, error["code"]


def raw(nginx: Nginx, path: str, **headers: str) -> tuple[int, str]:
    """The answer about a path as it stands here: httpx would tidy it up."""
    connection = http.client.HTTPSConnection("127.0.0.1", nginx.tls_port, context=nginx.trust, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, content


@dataclass(frozen=True)
class Live:
    """A WebSocket, whose counts may be waited for."""

    loop: asyncio.Runner
    connection: ClientConnection

    def counted(self) -> int:
        return self.loop.run(self._counted())

    async def _counted(self) -> int:
        await self.connection.send(saved("JPEG"))
        count: int = json.loads(await asyncio.wait_for(self.connection.recv(), 30))["finger_count"]
        return count


@contextmanager
def live(nginx: Nginx, path: str = "/ws/predict", **options: Any) -> Iterator[Live]:
    """By asyncio: the client without has two threads in one TLS connection, which now and then lose its request."""

    async def opened() -> ClientConnection:
        return await connect(f"{nginx.https.replace('http', 'ws')}{path}", ssl=nginx.trust, open_timeout=60, **options)

    with asyncio.Runner() as loop:
        connection = loop.run(opened())
        yield Live(loop, connection)
        loop.run(connection.close())


@pytest.mark.parametrize(
    ("version", "spoken"), [("tls1", False), ("tls1_1", False), ("tls1_2", True), ("tls1_3", True)]
)
def test_old_protocols_are_refused(nginx: Nginx, version: str, spoken: bool) -> None:
    any_cipher = ["-cipher", "ALL:@SECLEVEL=0"]  # this machine's own rules would not even offer the old protocols
    done = subprocess.run(
        ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{nginx.tls_port}", f"-{version}", *any_cipher],
        input="GET /frontend/livez HTTP/1.0\r\n\r\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("HTTP/1.1 " in done.stdout) == spoken
    assert ("alert protocol version" in done.stderr) != spoken


@pytest.mark.parametrize("cipher", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA"])
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(nginx: Nginx, cipher: str) -> None:
    context = nginx.trust
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", nginx.tls_port)) as plain,
        pytest.raises(ssl.SSLError, match="HANDSHAKE"),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_http_2_is_spoken(nginx: Nginx) -> None:
    picture = ["--form", "file=@-;filename=hand.jpg"]
    asked = ["curl", "--silent", "--cacert", str(nginx.certificate), *picture, f"{nginx.https}/predict"]
    said = subprocess.run(
        [*asked, "--write-out", "\n%{http_version} %{http_code}"],
        input=saved("JPEG"),
        capture_output=True,
        check=True,
    )
    answer, _, status = said.stdout.decode().partition("\n")
    assert status == "2 200"
    assert json.loads(answer)["finger_count"] == 3


def test_the_server_name_says_no_version(client: httpx.Client) -> None:
    assert client.get("/livez").headers["Server"] == "nginx"


def test_plain_http_is_led_to_tls_where_that_is_switched_on(server: Server) -> None:
    with nginx_before(server.port, FRONTEND_HTTP="redirect", HTTPS_PORT="443") as nginx:
        answer = httpx.post(f"{nginx.url}/predict?render=image", headers={"Host": "fingers.example.org:80"})
        assert answer.status_code == 308, "a POST stays one"
        assert answer.headers["Location"] == "https://fingers.example.org:443/predict?render=image"
        assert "Strict-Transport-Security" not in answer.headers, "RFC 6797, 7.2"
        assert httpx.get(f"{nginx.url}/frontend/livez").status_code == 200, "the container's health check"


def test_plain_http_on_the_port_of_tls_is_led_there_too(nginx: Nginx) -> None:
    answer = httpx.get(f"http://127.0.0.1:{nginx.tls_port}/docs?x=1")
    assert (answer.status_code, answer.headers["Location"]) == (308, f"{nginx.https}/docs?x=1")


@pytest.mark.parametrize("path", ["/", *(f"/dashboard/{file.name}" for file in sorted(FOLDER.iterdir()))])
def test_the_page_is_the_servers_to_the_byte_and_the_header(path: str, client: httpx.Client, server: Server) -> None:
    plain = {"Accept-Encoding": "identity"}
    ours, theirs = client.get(path, headers=plain), httpx.get(f"{server.url}{path}", headers=plain)
    assert ours.status_code == theirs.status_code == 200
    assert ours.content == theirs.content
    for name in (*HEADERS, "Content-Type", "X-Content-Type-Options"):
        assert ours.headers.get_list(name) == theirs.headers.get_list(name), name


@pytest.mark.parametrize(("path", "status"), [("/dashboard/", 404), ("/dashboard/none.js", 404), ("/problem", 404)])
def test_what_is_no_page_is_not_found(path: str, status: int, client: httpx.Client) -> None:
    assert error_of(client.get(path)) == (status, "not_found")


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_browser_keeps_the_page_and_asks_whether_it_is_still_the_same(encoding: str, client: httpx.Client) -> None:
    headers = {"Accept-Encoding": encoding}
    first = client.get("/dashboard/app.js", headers=headers)
    again = client.get("/dashboard/app.js", headers={**headers, "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("path", "packed"),
    [
        ("/livez", False),
        ("/health", False),
        ("/dashboard/sample-1.jpg", False),
        ("/", True),
        ("/dashboard/app.js", True),
        ("/dashboard/style.css", True),
        ("/openapi.json", True),
    ],
)
def test_text_is_compressed_and_pictures_are_not(path: str, packed: bool, client: httpx.Client) -> None:
    answer = client.get(path)
    assert answer.headers.get("Content-Encoding") == ("gzip" if packed else None)
    assert ("Accept-Encoding" in answer.headers.get("Vary", "")) == packed


@pytest.mark.parametrize(
    "path", ["/", "/dashboard/app.js", "/dashboard/none.js", "/health", "/none", "/metrics", "/docs"]
)
def test_every_answer_has_the_headers_that_protect_once(path: str, client: httpx.Client) -> None:
    headers = client.get(path).headers
    assert headers.get_list("Strict-Transport-Security") == ["max-age=31536000"]
    assert headers.get_list("X-Content-Type-Options") == ["nosniff"]
    assert len(headers.get_list("X-Request-Id")) == 1


def test_localhost_is_not_bound_to_tls(client: httpx.Client) -> None:
    assert "Strict-Transport-Security" not in client.get("/livez", headers={"Host": "localhost"}).headers


def test_a_name_is_bound_to_tls_where_a_browser_finds_it_behind_plain_http(server: Server) -> None:
    """Else http://NAME:8080 would become https://NAME:8080, where nobody speaks TLS."""
    with nginx_before(server.port) as nginx, nginx.client() as client:
        for path in ("/", "/livez", "/none"):
            assert "Strict-Transport-Security" not in client.get(path).headers


@pytest.mark.parametrize(
    ("given", "kept"), [("mine-1", True), ("x" * 65, False), ('"}', False), ("a b", False), ("é", False)]
)
@pytest.mark.parametrize("path", ["/health", "/", "/dashboard/none.js"])
def test_a_request_keeps_its_sane_id_all_the_way(path: str, given: str, kept: bool, client: httpx.Client) -> None:
    answer = client.get(path, headers=httpx.Headers({"X-Request-Id": given}, encoding="utf-8"))
    (the_id,) = answer.headers.get_list("X-Request-Id")
    assert (the_id == given) == kept
    assert kept or re.fullmatch("[0-9a-f]{32}", the_id)


def test_a_body_may_have_as_many_bytes_as_the_server_takes_and_not_one_more(client: httpx.Client) -> None:
    most = Settings().max_body
    assert error_of(client.post("/predict", headers=JPEG, content=bytes(most))) == (422, "unreadable_image")
    refused = client.post("/predict", headers=JPEG, content=bytes(most + 1))
    assert error_of(refused) == (413, "too_large")
    assert "20,000,000 bytes (MAX_BODY_MB)" in refused.text
    assert error_of(client.post("/predict", headers=JPEG, content=iter([bytes(most), b"x"]))) == (413, "too_large")


def test_the_limit_of_a_body_is_a_setting(server: Server) -> None:
    with nginx_before(server.port, MAX_BODY_MB="1") as nginx, nginx.client() as client:
        assert error_of(client.post("/predict", content=bytes(1_000_001))) == (413, "too_large")


@pytest.mark.parametrize("pieces", [False, True])
def test_no_picture_touches_a_disk_on_its_way(pieces: bool, server: Server) -> None:
    buffer = io.BytesIO()
    grains = random.Random(1).randbytes(2500 * 2500 * 3)
    PillowImage.frombytes("RGB", (2500, 2500), grains).save(buffer, "PNG", compress_level=0)
    large = buffer.getvalue()
    assert len(large) > 18_000_000
    content = (large[at : at + 10_000] for at in range(0, len(large), 10_000)) if pieces else large
    kind = {"Content-Type": "image/png"}
    few = {"proxy_buffers 32 64k": "proxy_buffers 4 64k"}  # so that an answer would have to go somewhere else
    with (
        nginx_before(server.port, changes=few) as nginx,
        nginx.client() as client,
        client.stream("POST", "/predict?render=image", headers=kind, content=content) as answer,
    ):
        assert answer.status_code == 200
        time.sleep(1)  # for which the answer has to wait
        assert len(answer.read()) > 5_000_000
        assert "temporary file" not in nginx.log  # nginx warns of each


def test_answers_of_nginx_are_those_of_the_api(nginx: Nginx, client: httpx.Client) -> None:
    assert error_of(client.post("/dashboard/app.js")) == (405, "method_not_allowed")
    assert error_of(client.get("/livez", headers={"X": "x" * 40_000})) == (400, "bad_request")
    status, content = raw(nginx, "/%2e%2e/etc/passwd")
    assert (status, json.loads(content)["error"]["code"]) == (400, "bad_request")


def test_a_server_that_is_away_is_unavailable_and_its_client_understands() -> None:
    with nginx_before(free_port()) as nginx, nginx.client() as client:
        answer = client.get("/health")
        assert error_of(answer) == (502, "unavailable")
        assert answer.headers["Retry-After"] == "1"
        assert client.get("/").status_code == 200, "the page says so itself"
        with FingerClient(nginx.url, retries=0) as fingers, pytest.raises(ServerError) as raised:
            fingers.health()
        assert (raised.value.status, raised.value.code) == (502, "unavailable")


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        changes = {"proxy_read_timeout 30s": "proxy_read_timeout 1s"}
        with nginx_before(silent.getsockname()[1], changes=changes) as nginx, nginx.client() as client:
            assert error_of(client.get("/health")) == (504, "timeout")


def test_nginx_is_more_patient_than_the_server_which_has_better_words() -> None:
    patience = [int(seconds) for seconds in re.findall(r"proxy_read_timeout (\d+)s", configuration())]
    assert sorted(patience) == [30, 90]
    assert min(patience) > 2 * Settings().request_timeout
    assert max(patience) > LOAD_WITHIN


def test_a_flood_from_one_address_is_refused_and_the_page_still_comes(server: Server) -> None:
    with nginx_before(server.port, FRONTEND_RATE="1r/m") as nginx, nginx.client() as client:
        spoofed = (
            {"X-Forwarded-For": f"10.0.0.{n}", "X-Real-IP": f"10.0.0.{n}", "Forwarded": f"for=10.0.0.{n}"}
            for n in range(99)
        )
        statuses = [client.get("/livez", headers=headers).status_code for headers in spoofed]
        assert statuses == [204] * (1 + BURST) + [429] * (98 - BURST)
        refused = client.get("/livez")
        assert error_of(refused) == (429, "rate_limited")
        assert refused.headers["Retry-After"] == "1"
        assert client.get("/").status_code == client.get("/dashboard/app.js").status_code == 200
        with nginx.client(ELSEWHERE) as other:
            assert other.get("/livez").status_code == 204


def test_behind_a_trusted_proxy_its_clients_are_told_apart_and_a_64_is_one(server: Server) -> None:
    with nginx_before(server.port, FRONTEND_RATE="1r/m", FRONTEND_PROXY=ELSEWHERE) as nginx:
        with nginx.client(ELSEWHERE) as proxy:

            def status(client: str) -> int:
                return proxy.get("/livez", headers={"X-Forwarded-For": f"127.0.0.1, {client}"}).status_code

            assert [status(f"2001:db8:0:1::{n:x}") for n in range(1 + BURST)] == [204] * (1 + BURST)
            assert status("2001:db8:0:1:ffff::") == 429, "the same customer"
            assert status("2001:db8:0:2::1") == 204
            assert status("192.0.2.7") == 204
        with nginx.client() as client:  # nobody's proxy
            assert client.get("/livez", headers={"X-Forwarded-For": "2001:db8:0:1::1"}).status_code == 204


def unfinished(nginx: Nginx, path: str, address: str = "127.0.0.1") -> socket.socket:
    """A request whose body nginx waits for."""
    waiting = socket.create_connection(("127.0.0.1", nginx.port), source_address=(address, 0))
    waiting.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode())
    return waiting


def test_only_so_many_pictures_are_under_way_whoever_sends_them(server: Server) -> None:
    """Each is in nginx's memory, before the server has seen a key."""
    most = 2 * SENT - 1
    with (
        nginx_before(server.port, FRONTEND_RATE=UNREACHED, FRONTEND_PICTURES=str(most)) as nginx,
        ExitStack() as stack,
        nginx.client() as client,
        nginx.client(ELSEWHERE) as other,
        nginx.client("127.0.0.8") as third,
    ):

        def status(asking: httpx.Client) -> int:
            return asking.post("/blur", headers=JPEG, content=saved("JPEG")).status_code

        def full(asking: httpx.Client, path: str, address: str) -> bool:
            """One more each time: a connection that came too fast after another was refused."""
            stack.enter_context(unfinished(nginx, path, address))
            return all(status(asking) == 503 for _ in range(5))

        for _ in range(SENT - 1):
            stack.enter_context(unfinished(nginx, "/predict"))
        assert status(client) == 200, "one less than it may send"
        wait_until(lambda: full(client, "/predict", "127.0.0.1"), 5)
        assert status(other) == 200, "one address is not all"
        wait_until(lambda: full(third, "/blur", ELSEWHERE), 5)
        refused = client.post("/predict", headers=JPEG, content=saved("JPEG"))
        assert error_of(refused) == (503, "unavailable")
        assert "too many pictures" in refused.text
        assert refused.headers["Retry-After"] == "1"
        assert other.get("/health").status_code == client.get("/").status_code == 200, "whatever is no picture goes on"
        stack.close()
        wait_until(lambda: status(client) == 200, 5)


def test_what_is_no_picture_is_small(client: httpx.Client) -> None:
    """Or else it would fill the memory past the limit of pictures."""
    for method, path in (("POST", "/models/load"), ("POST", "/none"), ("GET", "/health")):
        assert error_of(client.request(method, path, content=bytes(33_000))) == (413, "too_large")
        assert error_of(client.request(method, path, content=iter([bytes(33_000)]))) == (413, "too_large")


def test_an_address_has_so_many_connections(server: Server) -> None:
    with nginx_before(server.port, FRONTEND_RATE=UNREACHED) as nginx, ExitStack() as stack, nginx.client() as client:

        def one_more() -> None:
            stack.enter_context(unfinished(nginx, "/models/load"))

        def refused() -> bool:
            """A connection more each time, for those that were refused since too many came within a millisecond."""
            one_more()
            return all(client.get("/livez").status_code == 429 for _ in range(5))

        for _ in range(CONNECTIONS - 1):
            one_more()
        assert client.get("/livez").status_code == 204, "one less than it may have"
        wait_until(refused, 5)
        assert error_of(client.get("/livez")) == (429, "rate_limited")
        with nginx.client(ELSEWHERE) as other:
            assert other.get("/livez").status_code == 204
        stack.close()
        wait_until(lambda: client.get("/livez").status_code == 204, 5)


def test_frames_are_counted_over_a_websocket(nginx: Nginx) -> None:
    with live(nginx, origin=nginx.https) as opened:
        assert [opened.counted() for _ in range(3)] == [3, 3, 3]


def test_a_page_of_another_origin_gets_no_websocket(nginx: Nginx) -> None:
    with pytest.raises(InvalidStatus, match="403"), live(nginx, origin="https://evil.example.org"):
        pass


def test_an_address_has_so_many_websockets(nginx: Nginx) -> None:
    with ExitStack() as stack:
        for _ in range(SOCKETS):
            stack.enter_context(live(nginx))
        with pytest.raises(InvalidStatus, match="429"), live(nginx):
            pass


def test_a_server_is_told_what_nginx_saw_and_not_what_a_client_says(echo: int) -> None:
    lies = {
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Proto": "ftp",
        "X-Real-IP": "10.0.0.1",
        "Forwarded": "for=10.0.0.1",
    }
    smuggling = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "Keep-Alive": "timeout=900"}
    with nginx_before(echo) as nginx, nginx.client(ELSEWHERE) as client:
        told = client.get("/health", headers={**lies, **smuggling, "X-Request-Id": "mine"}).json()
        assert {name: told.get(name) for name in (*lies, *smuggling, "Host", "X-Request-Id")} == {
            "X-Forwarded-For": ELSEWHERE,
            "X-Forwarded-Proto": "https",
            "X-Real-IP": None,
            "Forwarded": None,
            "Upgrade": None,
            "Connection": "close",
            "Keep-Alive": None,
            "Host": f"127.0.0.1:{nginx.tls_port}",
            "X-Request-Id": "mine",
        }


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/metrics?x=1",
        "/metrics/",
        "//metrics",
        "/%6detrics",
        "/x/../metrics",
        "/x/..%2fmetrics",
        "/./metrics",
    ],
)
def test_what_prometheus_reads_cannot_be_had_from_outside(path: str, nginx: Nginx) -> None:
    status, content = raw(nginx, path)
    assert status in (307, 404)
    assert "fingers_" not in content


def test_the_monitor_reads_the_numbers_as_json(client: httpx.Client) -> None:
    assert "fingers_process_pid" in client.get("/metrics", headers={"Accept": "application/json"}).json()


def test_nobody_who_comes_through_nginx_is_at_the_machine(nginx: Nginx, client: httpx.Client) -> None:
    for headers in ({}, {"Host": "127.0.0.1"}, {"Host": "localhost", "X-Forwarded-For": "", "Forwarded": ""}):
        answer = client.post("/models/load", json={"version": "release"}, headers=headers)
        assert error_of(answer) == (403, "forbidden")


def test_the_log_has_a_line_a_request_and_nothing_of_what_it_carried(
    nginx: Nginx, client: httpx.Client, server: Server
) -> None:
    key = "a-key-that-nobody-writes-down"
    client.get(f"/none?key={key}", headers={"X-API-Key": key, "Referer": key, "X-Request-Id": "the-logged"})
    wait_until(lambda: "the-logged" in nginx.lines, 10)  # nginx writes it once the answer is gone
    (line,) = [line for line in nginx.lines.splitlines() if "the-logged" in line]
    entry = json.loads(line)
    assert (entry["client"], entry["method"], entry["path"], entry["status"]) == ("127.0.0.1", "GET", "/none", "404")
    assert "the-logged" in server.log
    assert key not in nginx.lines + nginx.log


def test_a_certificate_that_was_renewed_is_shown_after_a_reload_and_no_request_is_lost(server: Server) -> None:
    with nginx_before(server.port, FRONTEND_RATE=UNREACHED) as nginx, nginx.client() as client:
        assert client.get("/livez").status_code == 204
        before, load = nginx.certificate.read_text(), Load(nginx)
        for name in ("certificate.pem", "key.pem"):
            nginx.certificate.with_name(name).unlink()
        certify(nginx.folder)
        with load.running():
            load.answered(20)
            nginx.reload()
            wait_until(lambda: shown(nginx) == nginx.certificate.read_text(), 5)
            load.answered(20)
        assert set(load.answers) == {200}
        assert shown(nginx) != before


def shown(nginx: Nginx) -> str:
    return ssl.get_server_certificate(("127.0.0.1", nginx.tls_port))


def test_it_starts_without_a_complaint_and_without_any_right(server: Server) -> None:
    with nginx_before(server.port) as nginx:
        main = psutil.Process(nginx.pid)
        users = {user for process in (main, *main.children()) for user in process.uids()}
        assert 0 not in users
        assert nginx.log == ""
        assert nginx.stop() == 0


@pytest.mark.slow
def test_the_server_counts_by_the_address_that_nginx_saw(tmp_path: Path) -> None:
    server = start_server(tmp_path, RATE_LIMIT="3/hour", TRUSTED_PROXIES="127.0.0.0/8")  # all clients here, too
    try:
        with nginx_before(server.port) as nginx, nginx.client(ELSEWHERE) as client:
            for n in range(3):
                spoofed = {"X-Forwarded-For": f"10.0.0.{n}", "Forwarded": f"for=10.0.0.{n}"}
                assert client.get("/models", headers=spoofed).headers["X-RateLimit-Remaining"] == str(2 - n)
            refused = client.get("/models", headers={"X-Forwarded-For": "10.0.0.4"})
            assert error_of(refused) == (429, "rate_limited")
            with nginx.client("127.0.0.8") as other:
                assert other.get("/models").status_code == 200
    finally:
        server.stop()


@pytest.mark.slow
def test_all_of_it_may_stand_under_a_prefix(tmp_path: Path) -> None:
    server = start_server(tmp_path, ROOT_PATH="/team/fingers")
    try:
        with nginx_before(server.port, ROOT_PATH="/team/fingers") as nginx, nginx.client() as client:
            for path in ("/", "/dashboard/app.js", "/health", "/docs"):
                assert client.get(f"/team/fingers{path}").status_code == 200
                assert error_of(client.get(path)) == (404, "not_found")
            assert client.get("/team/fingers").headers["Location"] == "/team/fingers/"
            answer = client.post("/team/fingers/predict", headers=JPEG, content=saved("JPEG"))
            assert answer.json()["finger_count"] == 3
            with live(nginx, "/team/fingers/ws/predict", origin=nginx.https) as opened:
                assert opened.counted() == 3
            for path in ("/metrics", "/team/fingers/metrics", "/team/fingers/team/fingers/metrics"):
                assert raw(nginx, path)[0] == 404
    finally:
        server.stop()


def test_a_trial_certificate_is_for_the_names_given_and_never_replaces_one(tmp_path: Path) -> None:
    (tmp_path / "deploy/nginx").mkdir(parents=True)
    script = shutil.copy(ROOT / "deploy/nginx/trial_certificate.sh", tmp_path / "deploy/nginx")
    made = subprocess.run(
        [script, "a.example.org", "192.0.2.7", "2001:db8::1"], capture_output=True, text=True, check=True
    )
    assert "DNS:a.example.org,IP:192.0.2.7,IP:2001:db8::1" in made.stderr
    secrets = tmp_path / "deploy/secrets"
    assert (secrets.stat().st_mode & 0o777, (secrets / "certificates").stat().st_mode & 0o777) == (0o700, 0o755)
    key = (secrets / "certificates/key.pem").read_bytes()
    again = subprocess.run([script, "b.example.org"], capture_output=True, text=True, check=False)
    assert (again.returncode, "there is one already" in again.stderr) == (1, True)
    assert (secrets / "certificates/key.pem").read_bytes() == key
    shutil.rmtree(secrets)
    wrong = subprocess.run([script, "999.999.999.999"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert list((secrets / "certificates").iterdir()) == []


def configuration() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in TEMPLATES)
