"""The typed client, against the real server, and against one that answers as servers and proxies in trouble do."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serve.client import FingerClient, ServerError
from serve.schema import Answer
from stages.vision.images import read_header
from tests.native import noise, png
from tests.server import Server, free_port

PICTURE = png(noise(1, 64, 48))


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[FingerClient]:
    with FingerClient(server.url) as connected:
        yield connected


@contextmanager
def answering(answers: Sequence[tuple[int, dict[str, str], bytes]]) -> Iterator[tuple[str, list[float]]]:
    """A server that gives these answers (status, headers, body) one after the other, and when it was asked."""
    waiting, asked = list(answers), list[float]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(time.monotonic())
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, body = waiting.pop(0)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", asked
        finally:
            listening.shutdown()
            thread.join()


def refusal(code: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": "no", "request_id": "abc"}}).encode()


def test_a_picture_is_counted(client: FingerClient) -> None:
    answer = client.count(PICTURE)
    assert (answer.finger_count, answer.preprocessing_applied) == (3, True)
    assert (answer.image.width, answer.image.height) == (64, 48)
    assert client.count(PICTURE, confidence=0.95).finger_count == 0, "the hand is seen with 0.9"


def test_a_file_is_sent_as_it_is(client: FingerClient, tmp_path: Path) -> None:
    (tmp_path / "hand.png").write_bytes(PICTURE)
    assert client.count(tmp_path / "hand.png", model="release").finger_count == 3


@pytest.mark.parametrize("pictures", [[], [PICTURE], [b"none"], [PICTURE, b"none", PICTURE]])
def test_a_batch_of_any_size_has_an_answer_or_an_error_each(client: FingerClient, pictures: list[bytes]) -> None:
    results = client.count_batch(pictures)
    assert [isinstance(result, Answer) for result in results] == [picture == PICTURE for picture in pictures]
    assert {result.code for result in results if isinstance(result, ServerError)} <= {"unreadable_image"}


def test_pictures_come_back_as_jpeg(client: FingerClient) -> None:
    blurred, drawn = client.blur(PICTURE), client.render(PICTURE)
    assert {read_header(content).extension for content in (blurred, drawn)} == {".jpg"}
    assert blurred != drawn


def test_models_and_health_are_told(client: FingerClient) -> None:
    models, health = client.models(), client.health()
    assert [version.version for version in models.versions] == [models.current] == ["release"]
    assert health.status == "ok"
    assert health.model
    assert health.model.version == models.current
    assert client.load("release").current == health.model


def test_an_error_says_what_the_server_said(client: FingerClient) -> None:
    with pytest.raises(ServerError, match="loaded: release") as raised:
        client.count(PICTURE, model="7")
    assert (raised.value.status, raised.value.code) == (409, "model_not_loaded")
    assert raised.value.request_id


def test_a_server_that_is_away_is_an_error_like_another() -> None:
    with FingerClient(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(ServerError) as raised:
        client.health()
    assert (raised.value.status, raised.value.code) == (0, "unreachable")


def test_a_busy_server_is_asked_again_when_it_says(client: FingerClient) -> None:
    good = client.count(PICTURE).model_dump_json().encode()
    answers = [(503, {"Retry-After": "0"}, refusal("unavailable")), (429, {"Retry-After": "1"}, b""), (200, {}, good)]
    with answering(answers) as (url, asked), FingerClient(url) as other:
        assert other.count(PICTURE).finger_count == 3
    assert asked[2] - asked[1] >= 1


@pytest.mark.parametrize(
    ("status", "retry_after", "times"),
    [(503, "0", 3), (502, "0", 3), (429, "3600", 1), (500, "0", 1), (422, "0", 1)],
    ids=["not for ever", "nor behind nginx", "not tomorrow", "not after a fault", "not what is wrong"],
)
def test_asking_again_has_its_bounds(status: int, retry_after: str, times: int) -> None:
    answers = [(status, {"Retry-After": retry_after}, refusal("no"))] * 9
    with answering(answers) as (url, asked), FingerClient(url, retries=2) as client:
        with pytest.raises(ServerError) as raised:
            client.count(PICTURE)
        assert (raised.value.status, raised.value.request_id, len(asked)) == (status, "abc", times)


@pytest.mark.parametrize(("status", "body"), [(504, b"<html>Gateway Time-out</html>"), (200, b"<html>"), (200, b"{}")])
def test_what_is_no_answer_of_ours_is_an_error(status: int, body: bytes) -> None:
    with answering([(status, {}, body)]) as (url, _), FingerClient(url) as client:
        with pytest.raises(ServerError, match="not an answer") as raised:
            client.count(PICTURE)
        assert (raised.value.status, raised.value.code) == (status, "unexpected")


def test_a_newer_server_may_say_more(client: FingerClient) -> None:
    more = client.count(PICTURE).model_dump() | {"new": 1}
    with answering([(200, {}, json.dumps(more).encode())]) as (url, _), FingerClient(url) as other:
        assert other.count(PICTURE).finger_count == 3


def test_the_client_needs_nothing_of_the_server() -> None:
    """So that another program can import it in a moment."""
    heavy = "litserve", "fastapi", "openvino", "cv2", "numpy", "mlflow"
    code = f"import sys, serve.client; sys.exit(str([name for name in {heavy} if name in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
