"""A folder -> `fingers serve` running there for real, on a free loopback port; the model sees one hand everywhere."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from serve.settings import SECRETS, Settings
from stages.files import write_json, write_text
from tests.released import model, release

START_SECONDS = 60  # on a busy machine; 3 s on an idle one
STOP_SECONDS = 30
SETTINGS = {name.upper() for name in Settings.model_fields} | {f"{name.upper()}_FILE" for name in SECRETS}


@dataclass(frozen=True)
class Server:
    """Its processes are a group of their own, led by the main one."""

    url: str
    folder: Path  # a repository's root
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(encoding="utf-8")

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """All its processes at once, with whatever is under way."""
        os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Its exit code after SIGTERM. Whatever is left of the group does not outlive the test."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        finally:
            with suppress(ProcessLookupError):  # as it should be: nothing is left
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()


def start_server(folder: Path, port: int | None = None, **environment: str) -> Server:
    """Ready when it returns. environment: settings, such as API_KEYS; the developer's own are left out.

    Serves models/release.json of folder; where there is none, one that sees three fingers in every picture.
    """
    if not hasattr(os, "fork"):
        pytest.skip("fingers serve needs fork, which Windows lacks")
    if not (folder / "models/release.json").exists():
        write_repository(folder)
    port = port or free_port()
    given = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("fingers"), "serve"],
            cwd=folder,
            env={**given, "DVC_ROOT": str(folder), "PORT": str(port), "RATE_LIMIT": "off", **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", folder, process)
    deadline = time.monotonic() + START_SECONDS
    try:
        while not server.is_ready():
            assert process.poll() is None, f"the server ended:\n{server.log}"
            assert time.monotonic() < deadline, f"the server is not ready:\n{server.log}"
            time.sleep(0.05)
    except BaseException:
        server.stop()
        raise
    return server


def write_repository(folder: Path, count: int = 3) -> Path:
    """What `fingers` needs of a checkout: dvc.yaml, and a release with its file."""
    onnx = model(folder / "models/detector.onnx", count)
    write_text(folder / "dvc.yaml", "stages: {}\n")
    write_json(folder / "models/release.json", release(onnx, None).model_dump())
    return folder


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that neither stop nor change it: no key needed, three fingers in every picture."""
    folder = tmp_path_factory.mktemp("server")
    running = start_server(folder)
    yield running
    code = running.stop()
    shutil.rmtree(folder)
    assert code == 0, "SIGTERM is a good end"
