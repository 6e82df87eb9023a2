"""The real MLflow server on a free loopback port, and stores in files that cost no start."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest

START_SECONDS = 60


class MlflowServer:
    """Its database and artifacts are in folder, and outlive it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if not hasattr(os, "killpg"):
            pytest.skip("its worker is killed with its group of processes, which Windows lacks")
        places = ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        places += ["--artifacts-destination", str(self.folder / "artifacts")]
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *where, *places],
                cwd=self.folder,
                env={
                    **os.environ,
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes in place of 15
                },
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that its worker can be killed with it
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the MLflow server did not start"
            time.sleep(0.1)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=1):  # noqa: S310 -- loopback
                return True
        except (URLError, TimeoutError, ConnectionError):
            return False


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[MlflowServer]:
    """One for all tests that do not stop it."""
    server = server_in(tmp_path_factory.mktemp("mlflow"), empty_store)
    server.start()
    yield server
    server.kill()


def server_in(folder: Path, empty_store: Path) -> MlflowServer:
    shutil.copy(empty_store, folder / "server.db")  # making the tables takes seconds
    return MlflowServer(folder)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing in them."""
    from stages.mlflow_client import connect

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def local_store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `.local/` is used, with an empty store; nothing of the caller's MLflow is."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_TRACKING", "MLFLOW_EXPERIMENT", "DVC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / ".local/mlflow").mkdir(parents=True)
    shutil.copy(empty_store, tmp_path / ".local/mlflow/mlflow.db")
    return tmp_path
