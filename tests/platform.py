"""The team's platform, as `fingers up` starts it, on free loopback ports in a folder of its own."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ops import stack
from ops.dotenv import add_to_dotenv, read_dotenv
from ops.processes import free_ports


@dataclass(frozen=True)
class Platform:
    """Its folder stands for a repository's: `.env` and `.local/` are there, and outlive it."""

    folder: Path
    environment: dict[str, str] = field(repr=False)  # addresses and keys

    @property
    def s3(self) -> str:
        return self.environment["AWS_ENDPOINT_URL_S3"]

    @property
    def mlflow(self) -> str:
        return self.environment["MLFLOW_TRACKING_URI"]

    def stop(self) -> None:
        stack.down(self.folder)


def start_platform(folder: Path) -> Platform:
    """S3 with the buckets dvc and mlflow, PostgreSQL, MLflow; seconds. Again in the same folder: the same data."""
    settings = read_dotenv(folder / ".env")
    if not settings:
        s3, mlflow = free_ports(2)
        settings = {"FINGERS_S3_PORT": str(s3), "FINGERS_MLFLOW_PORT": str(mlflow)}
        add_to_dotenv(folder / ".env", settings)
    stack.up(folder, settings)
    return Platform(folder, read_dotenv(folder / ".env"))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty folder. pytest's own are closed to other users, and as root PostgreSQL runs as another."""
    folder = Path(tempfile.mkdtemp(prefix="fingers-"))
    yield folder
    remove(folder)


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """One for all tests that leave it running; what they write must not disturb the others."""
    folder = Path(tempfile.mkdtemp(prefix="fingers-"))
    yield start_platform(folder)
    remove(folder)


def remove(folder: Path) -> None:
    stack.down(folder)
    settings = read_dotenv(stack.home(folder) / "settings.env")
    for port in (
        settings.get("AWS_ENDPOINT_URL_S3", "").rpartition(":")[2],
        *settings.get("WEED_PORTS", "").split(","),
    ):
        for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 -- weed puts them there
            socket.unlink()
    shutil.rmtree(folder)
