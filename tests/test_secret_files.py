"""Secrets that come as files, for programs that read none, and the health check of the images."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ops.secret_files import from_files
from stages.params import StageError
from tests.native import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="images are of Linux, where exec keeps the process")

PRINT = ("-c", "import os; print(os.environ['PGPASSWORD'], os.getpid())")


def test_without_files_there_is_nothing_to_add() -> None:
    assert from_files({}) == {}
    assert from_files({"PGPASSWORD": "a", "PGPASSWORD_FILE": "", "SSL_CERT_FILE": "/etc/ssl/cert.pem"}) == {}


def test_a_file_holds_what_its_name_would(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("opensesame\n")
    assert from_files({"PGPASSWORD_FILE": str(file)}) == {"PGPASSWORD": "opensesame"}


@pytest.mark.parametrize(
    ("content", "more", "fault"),
    [
        (None, {}, "PGPASSWORD_FILE: .* cannot be read: No such file"),
        ("", {}, "PGPASSWORD_FILE: .* is empty"),
        ("opensesame", {"PGPASSWORD": "x"}, "PGPASSWORD: set, and PGPASSWORD_FILE too"),
    ],
)
def test_a_secret_that_cannot_be_had_is_one_line_without_it(
    tmp_path: Path, content: str | None, more: dict[str, str], fault: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StageError, match=fault) as caught:
        from_files({"PGPASSWORD_FILE": str(file), **more})
    assert "opensesame" not in str(caught.value)


def test_a_folder_where_docker_found_no_secret_is_told(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"PGPASSWORD_FILE: .* cannot be read: Is a directory"):
        from_files({"PGPASSWORD_FILE": str(tmp_path)})


def test_the_command_takes_the_place_of_the_entry_point(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("opensesame")
    process = enter(sys.executable, *PRINT, PGPASSWORD_FILE=str(tmp_path / "password"))
    assert process.communicate() == (f"opensesame {process.pid}\n", "")
    assert process.returncode == 0


def test_a_program_that_is_not_there_is_one_line() -> None:
    process = enter("no-such-program")
    assert process.communicate() == ("", "no-such-program: no such program in this image\n")
    assert process.returncode == 1


def enter(*command: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "ops.secret_files", *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def answering() -> Iterator[HTTPServer]:
    """Each path is the status that it answers."""

    class Status(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path[1:]))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Status) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(("path", "code"), [("204", 0), ("200", 0), ("403", 1), ("503", 1)])
def test_who_answers_well_is_healthy(answering: HTTPServer, path: str, code: int) -> None:
    assert healthy(f"http://127.0.0.1:$PORT/{path}", answering.server_port) == code


def test_who_does_not_answer_is_not_healthy(answering: HTTPServer) -> None:
    answering.socket.close()
    assert healthy("http://127.0.0.1:$PORT/204", answering.server_port) == 1


def healthy(address: str, port: int) -> int:
    command = [sys.executable, str(ROOT / "deploy/images/healthy.py"), address]
    return subprocess.run(command, env={"PORT": str(port)}, capture_output=True, check=False).returncode
