"""Versions of a real registry, put in place of one another in a running server."""

from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from tests.pictures import saved
from tests.released import model, registered
from tests.server import start_server
from tests.team import ADMIN, USER, Team, address, founded, put

pytestmark = pytest.mark.slow


@pytest.fixture
def team(team: Team) -> Team:
    """Version 1 answers."""
    assert team.load("1").status_code == 200
    return team


def test_the_champion_answers_and_another_version_takes_its_place(team: Team) -> None:
    assert team.count().json()["finger_count"] == 1
    swapped = team.load("2").json()
    assert (swapped["before"]["version"], swapped["current"]["version"]) == ("1", "2")
    answer = team.count()
    assert answer.json()["finger_count"] == 2
    assert answer.json()["model"]["version"] == answer.headers["X-Model-Version"] == "2"
    assert answer.json()["model"]["sha256"] == answer.headers["X-Model-Sha256"] == team.registry.find("2").sha256
    assert team.models()["current"] == "2"


def test_a_version_is_also_named_by_its_alias_or_stage(team: Team) -> None:
    team.load("3")
    assert team.load("Production").json()["current"]["version"] == "1"


def test_loaded_versions_answer_side_by_side_and_the_least_used_goes_first(team: Team) -> None:
    team.load("2")
    assert [team.count(version).json()["finger_count"] for version in ("2", "1")] == [2, 1]
    team.load("3")
    assert sorted(team.loaded()) == ["1", "3"]
    refused = team.count("2")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_not_loaded")


def test_while_versions_change_no_request_fails_or_mixes_them(team: Team) -> None:
    done = Event()
    answers: list[tuple[int, bool]] = []

    def ask() -> None:
        while not done.is_set():
            response = team.count()
            seen = response.json()
            answers.append(
                (response.status_code, str(seen.get("finger_count")) == seen.get("model", {}).get("version"))
            )

    clients = [Thread(target=ask) for _ in range(6)]
    for client in clients:
        client.start()
    swaps = [team.load(version).status_code for version in ("2", "3", "1", "2", "1", "3")]
    done.set()
    for client in clients:
        client.join()
    assert swaps == [200] * 6
    assert len(answers) > 30
    assert set(answers) == {(200, True)}


def test_a_file_that_was_changed_is_refused_and_the_old_model_goes_on(team: Team) -> None:
    version = put(team.registry, team.server.folder / "made", 4)
    onnx = (team.server.folder / "made/4.onnx").read_bytes()
    for path in [path for path in team.server.folder.rglob("detector.onnx") if path.read_bytes() == onnx]:
        path.write_bytes(onnx[:-1] + b"\0")
    refused = team.load(version)
    assert refused.status_code == 404
    assert "sha256" in refused.json()["error"]["message"]
    assert team.count().json()["finger_count"] == 1


def test_a_registered_file_that_is_no_detector_is_refused_by_the_workers(team: Team) -> None:
    onnx = model(team.server.folder / "made/bad.onnx", 4)
    of_one_class = {"classes": ["hand"], "counts": [1]}  # the file has seven
    version = registered(team.registry, onnx, key="bad", **of_one_class)
    refused = team.load(version.number)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_not_loaded")
    assert "output" in refused.json()["error"]["message"]
    assert team.count().json()["finger_count"] == 1
    assert version.number not in team.loaded()


def test_only_an_admin_changes_the_model(team: Team) -> None:
    assert team.load("2", key=USER).status_code == 403
    assert team.load("2", key="nobody's").status_code == 401
    assert team.count().json()["finger_count"] == 1


def test_a_version_that_is_not_there_is_not_found_and_named(team: Team) -> None:
    refused = team.load("77")
    assert refused.status_code == 404
    assert "'77'" in refused.json()["error"]["message"]


def test_without_the_registry_a_start_serves_what_was_served_last_and_says_so(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address(tmp_path))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    team = founded(tmp_path, empty_store, API_KEYS=USER, ADMIN_KEYS=ADMIN)
    swapped = team.load("2")
    assert team.server.stop() == 0
    assert swapped.status_code == 200
    again = start_server(tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9", DEFAULT_MODEL_NAME="fingers")
    try:
        health = httpx.get(f"{again.url}/health").json()
        answer = httpx.post(f"{again.url}/predict", content=saved("JPEG"), headers={"Content-Type": "image/jpeg"})
    finally:
        again.stop()
    assert health["status"] == "degraded"
    assert "serving what was served last" in health["reasons"][0]
    assert answer.json()["finger_count"] == 2
