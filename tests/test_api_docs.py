"""docs/api.md: each example runs against a real server and prints what it says, and no route or error is missing."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.schema import Answer, Error
from serve.server import CODES
from tests.native import ROOT, noise, png
from tests.pictures import saved
from tests.server import Server, start_server

API = (ROOT / "docs/api.md").read_text(encoding="utf-8")
KEYS = {"API_KEY": "a-key-of-the-examples", "ADMIN_KEY": "an-admin-of-the-examples"}
TOKENS = {"JWT_SECRET": "a secret of thirty-two bytes at least", "JWT_AUDIENCE": "finger-counter"}
INSTALL = {"sh": ("curl", "apt install curl"), "js": ("node", "apt install nodejs, of version 20 or newer")}
PRINTS = re.compile(r"^ *(?:print|console\.log)\(.*\);? +(?:#|//) (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    section: str
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.section.split(':')[0]}, {self.language}"


def blocks() -> list[Block]:
    return [
        Block(section.partition("\n")[0], language, code)
        for section in API.split("\n## ")
        for language, code in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    ]


EXAMPLES = [block for block in blocks() if block.language != "json"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It lets in who has a key or a token."""
    settings: dict[str, Any] = {"API_KEYS": KEYS["API_KEY"], "ADMIN_KEYS": KEYS["ADMIN_KEY"], **TOKENS}
    running = start_server(tmp_path_factory.mktemp("guarded"), **settings)
    yield running
    running.stop()


def command(block: Block) -> list[str]:
    if block.language in INSTALL:
        program, how = INSTALL[block.language]
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: {how}")
    match block.language:
        case "sh":
            return ["sh", "-euc", block.code]
        case "js":
            wants_flag = "WebSocket(" in block.code and node_version() < 22
            return [
                "node",
                *(["--experimental-websocket"] if wants_flag else []),
                "--input-type=module",
                "-e",
                block.code,
            ]
        case _:
            return [sys.executable, "-c", block.code]


def node_version() -> int:
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.removeprefix("v").split(".")[0])


@pytest.mark.slow
@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_an_example_runs_and_prints_what_it_says(block: Block, guarded: Server, tmp_path: Path) -> None:
    (tmp_path / "hand.jpg").write_bytes(saved("JPEG"))
    (tmp_path / "other.png").write_bytes(png(noise(2)))
    (tmp_path / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
    environment = {**os.environ, **KEYS, **TOKENS, "URL": guarded.url, "CURL_HOME": str(tmp_path)}
    done = subprocess.run(command(block), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block.code}\n{done.stdout}{done.stderr}"
    printed = done.stdout.splitlines()
    for expected in PRINTS.findall(block.code):
        assert expected in printed


def test_every_route_has_an_example_in_each_language(server: Server) -> None:
    routes = {
        f"{method.upper()} {path}"
        for path, methods in httpx.get(f"{server.url}/openapi.json").json()["paths"].items()
        for method in methods
    }
    for route in routes:
        languages = {block.language for block in EXAMPLES if route in block.section}
        assert languages == {"sh", "js", "python"}, route
    assert {block.language for block in EXAMPLES if "/ws/predict" in block.section} == {"js", "python"}


def test_what_is_shown_as_an_answer_is_one() -> None:
    answer, error = (json.loads(block.code) for block in blocks() if block.language == "json")
    Answer.model_validate(answer)
    Error.model_validate(error)


def test_the_table_of_errors_has_each_that_the_server_answers_with() -> None:
    raised = {(int(status), code) for path in (ROOT / "serve").glob("*.py") for status, code in literals(path)}
    listed = {(int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", API, re.MULTILINE)}
    assert listed == raised | set(CODES.items())


def literals(path: Path) -> list[tuple[str, str]]:
    return re.findall(r'Problem\(\s*(\d{3}),\s*"(\w+)"', path.read_text(encoding="utf-8"))
