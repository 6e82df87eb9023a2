"""Lines of log: one a request, with its id, and nothing in them that was sent."""

import asyncio
import base64
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import httpx
import jwt
import psutil
import pytest
from requests import HTTPError
from websockets.sync.client import connect

from serve.dispatch import Dispatch
from serve.jobs import Job, Outcome
from serve.logs import JsonLines, TextLines, current_request
from serve.metrics import Metrics
from serve.models import Loaded, Served
from serve.problems import Problem, unavailable
from serve.service import Question, Service
from serve.settings import Settings, read_settings
from stages.mlflow_client import mlflow_errors, redacted
from stages.params import StageError
from tests.layered import ADMIN, KEYS, SECOND, USER, ask, site
from tests.load import pid, wait_until
from tests.pictures import saved
from tests.released import release
from tests.server import start_server

JWT_SECRET = "s" * 32
SIGNED = "http://s3:9000/mlflow/1/model.onnx?X-Amz-Credential=key%2F20260101&X-Amz-Signature=0f1e"


class Kept(logging.Handler):
    """What both formats make of a record while it is written, when the request's id is still known."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.json: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(TextLines("serve").format(record))
        self.json.append(JsonLines().format(record))


@pytest.fixture
def kept() -> Iterator[Kept]:
    ours, handler = logging.getLogger("serve"), Kept()
    level = ours.level
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)
    yield handler
    ours.removeHandler(handler)
    ours.setLevel(level)


def test_a_request_is_one_line_without_its_query_key_or_body(kept: Kept) -> None:
    answer = ask(site(read_settings(KEYS)), f"/predict?x={USER}", {"X-API-Key": USER}, method="POST", content=b"a face")
    (text,), (line,) = kept.text, kept.json
    assert text.startswith("serve: POST /predict 200 ")
    assert text.endswith(f" ms [{answer.headers['X-Request-Id']}]")
    assert not [secret for secret in (USER, "face") if secret in text + line]


def test_a_line_of_json_holds_what_a_person_searches_for(kept: Kept) -> None:
    answer = ask(site(read_settings({})), "/nowhere")
    line = json.loads(kept.json[0])
    assert line.pop("time").endswith("+00:00")
    assert line.pop("message").startswith("GET /nowhere 404 ")
    assert line.pop("ms") >= 0
    about = {"level": "info", "logger": "serve.layers", "request_id": answer.headers["X-Request-Id"]}
    assert line == about | {"method": "GET", "path": "/nowhere", "status": 404}


def test_probes_do_not_fill_the_log(kept: Kept) -> None:
    ask(site(read_settings(KEYS)), "/health")
    assert not kept.text


def test_a_path_cannot_write_a_second_line(kept: Kept) -> None:
    ask(site(read_settings({})), "/a%0Aserve:%20all%20is%20well%1b[2J")
    assert kept.text[0].startswith("serve: GET /a%0Aserve%3A%20all%20is%20well%1B%5B2J 404 ")


def test_a_bug_is_logged_with_the_way_to_it_and_not_with_what_it_says(kept: Kept) -> None:
    answer = ask(site(read_settings({})), "/bug")
    for line in (kept.text[0], json.loads(kept.json[0])["error"]):
        assert "in bug" in line
        assert line.index("ValueError") < line.index("RuntimeError")
        assert "a face" not in line
    assert json.loads(kept.json[0])["request_id"] == answer.headers["X-Request-Id"]


def written(script: str) -> list[dict[str, str]]:
    """What a process wrote off a terminal, line by line."""
    begin = "import logging, threading, warnings; from serve.logs import configure_logging; configure_logging('auto')\n"
    done = subprocess.run([sys.executable, "-c", begin + script], stderr=subprocess.PIPE, text=True, check=False)
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_off_a_terminal_the_log_is_json_of_our_own_lines_and_others_warnings() -> None:
    lines = written(
        "logging.getLogger('serve.x').info('ours')\n"
        "logging.getLogger('other').info('theirs')\n"
        "logging.getLogger('other').warning('their warning')\n"
        "warnings.warn('a warning of Python')\n"
    )
    *logged, warned = [line["message"] for line in lines]
    assert logged == ["ours", "their warning"]
    assert "UserWarning: a warning of Python" in warned


@pytest.mark.parametrize("run", ["bug()", "threading.Thread(target=bug).start()"])
def test_what_nobody_caught_is_a_line_of_json_too_without_what_it_says(run: str) -> None:
    (line,) = written(f"def bug():\n    raise ValueError('a face')\n{run}")
    assert line["level"] == "critical"
    assert "in bug" in line["error"]
    assert line["error"].endswith("ValueError")
    assert "a face" not in json.dumps(line)


def test_a_thread_that_exits_is_no_error() -> None:
    assert written("import sys; threading.Thread(target=sys.exit).start()") == []


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("", ""),
        ("is it ready? yes", "is it ready? yes"),
        ("http://mlflow:5000/health", "http://mlflow:5000/health"),
        ("http://me:secret@mlflow:5000 is away", "http://mlflow:5000 is away"),
        (f"403 for url: {SIGNED}", "403 for url: http://s3:9000/mlflow/1/model.onnx?[...]"),
        (f"GET '{SIGNED}' failed", "GET 'http://s3:9000/mlflow/1/model.onnx?[...]' failed"),
        ("url: /mlflow/1?X-Amz-Signature=0f (Caused by x)", "url: /mlflow/1?[...] (Caused by x)"),
        ("https://blob/x?sv=1&sig=a%2Fb=&se=2, retrying", "https://blob/x?[...] retrying"),
        ("postgresql://fingers:secret@db/mlflow?sslmode=require", "postgresql://db/mlflow?[...]"),
    ],
)
def test_passwords_and_signatures_are_taken_out_of_addresses(text: str, without: str) -> None:
    assert redacted(text) == without


def test_a_library_that_asks_a_signed_address_again_does_not_log_it(kept: Kept) -> None:
    library = logging.getLogger("serve.as.urllib3")  # below ours, where `kept` listens
    library.warning("Retrying (%r) after connection broken by %r: %s", "Retry(total=1)", TimeoutError(SIGNED), SIGNED)
    for line in kept.text + kept.json:
        assert "model.onnx?[...]" in line
        assert "0f1e" not in line


def test_mlflow_that_quotes_a_signed_address_does_not_bring_it_into_our_errors() -> None:
    away = pytest.raises(StageError)
    with away as error, mlflow_errors("http://me:secret@mlflow:5000"):
        raise HTTPError(f"500 Server Error: Internal Server Error for url: {SIGNED}")
    assert "model.onnx?[...]" in str(error.value)
    assert not [word for word in ("0f1e", "secret") if word in str(error.value)]


def test_the_id_goes_along_to_the_worker() -> None:
    asked: list[Job] = []

    async def dispatch(job: Job) -> tuple[Outcome, float]:
        asked.append(job)
        return unavailable("busy"), 0.0

    service = Service(Settings(), cast(Loaded, None), cast(Dispatch, dispatch), Metrics())
    served = Served("7", Path(), release(Path(__file__), None))

    async def ask_twice() -> None:
        current_request.set("4f1c")
        for answer in (service.blur(b"a face"), service.count(b"a face", served, Question(), 0.0)):
            with pytest.raises(Problem):
                await answer

    asyncio.run(ask_twice())
    assert [job.request_id for job in asked] == ["4f1c", "4f1c"]


@pytest.mark.slow
def test_all_that_a_server_writes_in_its_life_is_json_without_pictures_keys_or_tokens(tmp_path: Path) -> None:
    """It is asked in every way, well and badly, loses a worker, and ends."""
    picture = saved("JPEG", size=(64, 48))
    token = jwt.encode({"sub": "anna", "aud": "fingers", "exp": time.time() + 600, "roles": ["predict"]}, JWT_SECRET)
    environment = {"JWT_SECRET": JWT_SECRET, "JWT_AUDIENCE": "fingers"}
    server = start_server(tmp_path, None, **KEYS, **environment)
    try:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            jpeg = {"Content-Type": "image/jpeg"}
            client.post("/predict", content=picture, headers={**jpeg, "X-API-Key": USER})
            client.post(f"/predict?key={SECOND}", content=picture, headers={**jpeg, "Authorization": f"Bearer {token}"})
            client.post("/predict", json={"image": base64.b64encode(picture).decode()}, headers={"X-API-Key": USER})
            client.post("/predict", files={"file": ("anna.jpg", picture)}, headers={"X-API-Key": USER})
            client.post("/predict", content=picture[:200], headers={**jpeg, "X-API-Key": USER})
            client.post("/predict", content=picture, headers={**jpeg, "X-API-Key": f"{USER}-wrong"})
            client.post("/models/load", json={"version": "7"}, headers={"X-API-Key": ADMIN})
        with connect(f"{server.url.replace('http', 'ws')}/ws/predict") as socket:
            socket.send(json.dumps({"key": SECOND}))
            socket.recv()
            socket.send(picture)
            socket.recv()
        psutil.Process(pid(server, "worker-0", USER)).kill()
        wait_until(lambda: "worker 0 died" in server.log, 30)
    finally:
        server.stop()
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    answered = [line for line in lines if line.get("path") == "/predict"]
    assert sorted(line["status"] for line in answered) == [200, 200, 200, 200, 401, 422]
    assert len({line["request_id"] for line in answered}) == 6
    sent = (USER, SECOND, ADMIN, JWT_SECRET, token, "anna.jpg", base64.b64encode(picture).decode()[:40], "JFIF")
    assert [secret for secret in sent if secret in server.log] == []
