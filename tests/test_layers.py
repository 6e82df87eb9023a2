"""What stands around every answer: ids, headers, CORS, limits of the body, WebSockets; over sockets where it counts."""

import asyncio
import json
import socket
import time
from collections.abc import Mapping

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from serve.settings import read_settings
from tests.layered import ADMIN, KEYS, MODEL, USER, ask, code_of, running, site

SMALL = KEYS | {"MAX_BODY_MB": "1", "REQUEST_TIMEOUT": "0.3"}
BY_KEY = {"X-API-Key": USER}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/health", {}, 200),
        ("POST", "/predict", {"X-API-Key": USER}, 200),
        ("GET", "/docs", {}, 401),
        ("POST", "/models/load", {"X-API-Key": USER}, 403),
        ("GET", "/nothing", {"X-API-Key": USER}, 404),
        ("GET", "/predict", {"X-API-Key": USER}, 405),
        ("GET", "/bug", {"X-API-Key": USER}, 500),
        ("OPTIONS", "/predict", {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}, 400),
        ("OPTIONS", "/predict", {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}, 200),
    ],
)
def test_every_answer_says_which_model_and_request_it_is(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = ask(site(read_settings(KEYS | {"CORS_ORIGINS": "https://app.example"})), path, headers, method=method)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in MODEL} == MODEL
    assert len(answer.headers["X-Request-Id"]) == 32
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"


def test_what_an_answer_says_about_its_model_stays() -> None:
    answer = ask(site(read_settings({})), "/problem")
    assert code_of(answer) == (409, "model_not_loaded")
    assert answer.headers.get_list("X-Model-Version") == ["3"]


def test_a_bug_is_answered_without_its_words() -> None:
    answer = ask(site(read_settings({})), "/bug")
    assert code_of(answer) == (500, "internal")
    assert "face" not in answer.text


@pytest.mark.parametrize("given", ["a", "3f2c-9", "trace:00.ff_1-x", "x" * 64])
def test_a_request_keeps_its_id(given: str) -> None:
    answer = ask(site(read_settings({})), "/predict", {"X-Request-Id": given}, method="POST")
    assert answer.headers["X-Request-Id"] == given == answer.json()["id"]


@pytest.mark.parametrize(
    "given", ["", "x" * 65, "a b", "a\r\nSet-Cookie: x=1", "a\nb", "é", "<script>", '"', "-a", "a\x00"]
)
def test_an_id_that_is_no_plain_token_is_replaced(given: str) -> None:
    app = site(read_settings({}))
    answer = asyncio.run(raw(app, [(b"x-request-id", given.encode("latin-1"))]))
    assert answer["x-request-id"].isalnum()
    assert len(answer["x-request-id"]) == 32
    assert "set-cookie" not in answer


async def raw(app: FastAPI, headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers of /health's answer to a request that no client would send."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/health", "raw_path": b"/health", "query_string": b""}
    await app({**scope, "headers": headers, "client": ("127.0.0.1", 1), "http_version": "1.1"}, receive, send)
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def test_a_listed_page_may_call_and_read_why_it_was_refused() -> None:
    app = site(read_settings(KEYS | {"CORS_ORIGINS": "https://app.example"}))
    asks = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    allowed = ask(app, "/predict", asks, method="OPTIONS")
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example"
    refused = ask(app, "/predict", {"Origin": "https://app.example"}, method="POST")
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origins", ["", "https://app.example"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.evil.example", "null", "http://app.example"]
)
def test_any_other_page_may_not_and_nobody_may_with_cookies(origins: str, origin: str) -> None:
    app = site(read_settings(KEYS | {"CORS_ORIGINS": origins}))
    for method in ("OPTIONS", "POST"):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST", "X-API-Key": USER}
        answer = ask(app, "/predict", headers, method=method)
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(("size", "status"), [(0, 200), (999_999, 200), (10**6, 200), (10**6 + 1, 413), (10**7, 413)])
def test_a_body_may_have_so_many_bytes(size: int, status: int) -> None:
    answer = ask(site(read_settings(SMALL)), "/predict", BY_KEY, method="POST", content=b"x" * size)
    assert answer.status_code == status
    assert status == 200 or code_of(answer) == (413, "too_large")


def test_who_parses_the_body_cannot_turn_its_refusal_into_another() -> None:
    content = json.dumps({"a": "x" * 10**6}).encode()
    headers = {**BY_KEY, "Content-Type": "application/json"}
    answer = ask(site(read_settings(SMALL)), "/parsed", headers, method="POST", content=content)
    assert code_of(answer) == (413, "too_large")


def exchange(port: int, head: str, *chunks: bytes, key: str = USER, pause: float = 0) -> str:
    """All that the server says until it closes the connection, while it is sent whatever it says."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n{head}\r\n\r\n".encode())
        for chunk in chunks:
            client.sendall(chunk)
            time.sleep(pause)
        said = b""
        while received := client.recv(65536):
            said += received
        return said.decode()


MEGABYTES = [b"x" * 1_000_000] * 30  # more than the buffers between two sockets hold
CHUNKS = [b"400\r\n" + b"x" * 1024 + b"\r\n"] * 3000
TRICKLE = [b"x"] * 10


@pytest.mark.parametrize(
    ("head", "chunks", "key", "status", "code"),
    [
        ("Content-Length: 30000000", MEGABYTES, USER, 413, "too_large"),
        ("Content-Length: 30000000", MEGABYTES, "wrong", 401, "unauthorized"),
        ("Transfer-Encoding: chunked", [*CHUNKS, b"0\r\n\r\n"], USER, 413, "too_large"),
        ("Content-Length: 30000000\r\nExpect: 100-continue", [], USER, 413, "too_large"),
        ("Content-Length: 900", TRICKLE, USER, 408, "timeout"),
        ("Transfer-Encoding: chunked", [CHUNKS[0][:20]], USER, 408, "timeout"),
    ],
)
def test_over_a_socket_a_refusal_arrives_before_the_connection_closes(
    head: str, chunks: list[bytes], key: str, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.layers.LINGER", 0.5 if status == 408 else 3)  # s; the others end when all is sent
    with running(site(read_settings(SMALL))) as port:
        answer = exchange(port, head, *chunks, key=key, pause=0.05 if chunks is TRICKLE else 0)
    opening, _, body = answer.partition("\r\n\r\n")
    assert opening.startswith(f"HTTP/1.1 {status} ")
    assert "connection: close" in opening.lower()
    assert json.loads(body)["error"]["code"] == code


def test_a_connection_serves_on_where_nothing_was_left_unread() -> None:
    with running(site(read_settings(SMALL))) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        answers = [client.post("/predict", headers={"X-API-Key": key}) for key in ("wrong", USER)]
        answers.append(client.post("/predict", headers=BY_KEY, content=b"x" * 10**6))
    assert [answer.status_code for answer in answers] == [401, 200, 200]
    assert "Connection" not in answers[0].headers


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    with running(site(read_settings({}))) as port, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://127.0.0.1:{port}/cut")


def greet(port: int, headers: Mapping[str, str], first: str | None = None, path: str = "/ws/predict") -> str:
    with connect(f"ws://127.0.0.1:{port}{path}", additional_headers=headers, proxy=None) as ws:
        if first is not None:
            ws.send(first)
        return str(ws.recv())


def test_a_websocket_s_key_comes_in_a_header_or_in_its_first_message() -> None:
    with running(site(read_settings(KEYS | {"CORS_ORIGINS": "https://app.example"}))) as port:
        assert greet(port, {"X-API-Key": USER}) == "API_KEYS 1 predict"
        assert greet(port, {}, ADMIN) == "ADMIN_KEYS 1 admin"
        assert greet(port, {"Origin": "https://app.example"}, USER) == "API_KEYS 1 predict"
        assert greet(port, {"Origin": f"http://127.0.0.1:{port}"}, USER) == "API_KEYS 1 predict"
        assert json.loads(greet(port, {}, "wrong"))["error"]["code"] == "unauthorized"
        for headers, path, status in (
            ({"X-API-Key": "wrong"}, "/ws/predict", 401),
            ({"Origin": "https://evil.example", "X-API-Key": USER}, "/ws/predict", 403),
            ({"Origin": "null"}, "/ws/predict", 403),
            ({}, "/elsewhere", 401),
        ):
            with pytest.raises(InvalidStatus) as refused:
                greet(port, headers, path=path)
            answer = refused.value.response
            assert answer.status_code == status
            assert json.loads(answer.body)["error"]["request_id"] == answer.headers["X-Request-Id"]


def test_a_bug_ends_a_websocket_as_no_good_end() -> None:
    with running(site(read_settings({}))) as port, pytest.raises(ConnectionClosedError):
        greet(port, {}, path="/ws/bug")
