"""Lines of log: one a request, with its id, and nothing in them that was sent."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from serve.logs import JsonLines, TextLines
from serve.settings import read_settings
from tests.layered import KEYS, USER, ask, site


class Kept(logging.Handler):
    """What both formats make of a record while it is written, when the request's id is still known."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.json: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(TextLines().format(record))
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


def test_off_a_terminal_the_log_is_json_of_our_own_lines_and_others_warnings() -> None:
    script = (
        "import logging; from serve.logs import configure_logging; configure_logging('auto');"
        "logging.getLogger('serve.x').info('ours'); logging.getLogger('other').info('theirs');"
        "logging.getLogger('other').warning('their warning')"
    )
    written = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=True).stderr
    assert [json.loads(line)["message"] for line in written.splitlines()] == ["ours", "their warning"]
