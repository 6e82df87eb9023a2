"""A registry with three versions, and a server that takes its models from there: version n sees n fingers."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from stages.registry import Registry
from tests.pictures import saved
from tests.released import model, registered
from tests.server import Server, start_server, write_repository

ADMIN, USER = "a-key-of-an-admin-in-tests", "a-key-of-a-user-in-tests"


@dataclass(frozen=True)
class Team:
    """A server, and the registry that it takes models from."""

    server: Server
    registry: Registry

    def load(self, version: str, key: str = ADMIN) -> httpx.Response:
        return self.post("/models/load", key, json={"version": version})

    def count(self, version: str = "") -> httpx.Response:
        query = f"?model={version}" if version else ""
        return self.post(f"/predict{query}", USER, content=saved("JPEG"), headers={"Content-Type": "image/jpeg"})

    def post(self, path: str, key: str, **request: Any) -> httpx.Response:
        headers = {**request.pop("headers", {}), "X-API-Key": key}
        return httpx.post(f"{self.server.url}{path}", headers=headers, timeout=60, **request)

    def models(self) -> dict[str, Any]:
        document: dict[str, Any] = httpx.get(f"{self.server.url}/models", headers={"X-API-Key": USER}).json()
        return document

    def loaded(self) -> list[str]:
        return [version["version"] for version in self.models()["versions"] if version["loaded"]]


def put(registry: Registry, folder: Path, count: int) -> str:
    """The number of a version that sees count fingers."""
    return registered(registry, model(folder / f"{count}.onnx", count), key=f"k{count}").number


def founded(folder: Path, empty_store: Path, **environment: Any) -> Team:
    """Champion is version 1; the server keeps two. The caller has set MLFLOW_TRACKING_URI to `address` of folder."""
    (folder / ".local/mlflow").mkdir(parents=True)
    shutil.copy(empty_store, folder / ".local/mlflow/mlflow.db")
    registry = Registry("fingers")
    assert [put(registry, folder / "made", count) for count in (1, 2, 3)] == ["1", "2", "3"]
    registry.set_alias("champion", registry.find("1"))
    write_repository(folder, count=5)
    names: dict[str, Any] = {
        "MLFLOW_TRACKING_URI": address(folder),
        "DEFAULT_MODEL_NAME": "fingers",
        "MODELS_KEPT": "2",
    }
    return Team(start_server(folder, **names, **environment), registry)


def address(folder: Path) -> str:
    return f"sqlite:///{folder}/.local/mlflow/mlflow.db"


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Team]:
    """One for all tests of a module, with keys."""
    folder = tmp_path_factory.mktemp("team")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address(folder))
        patch.setenv("DVC_ROOT", str(folder))
        team = founded(folder, empty_store, API_KEYS=USER, ADMIN_KEYS=ADMIN)
        yield team
        team.server.stop()
