"""Runs of a real MLflow over HTTP: listed page by page, and their curves; and what is said when MLflow is away."""

import math
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.runs import NO_MLFLOW, newest_of_each_step, thinned
from stages.registry import Registry
from stages.runs import Point, Wanted
from stages.tracking import TrackedRun, open_run
from tests.mlflow_server import MlflowServer, server_in
from tests.pictures import saved
from tests.released import model, registered
from tests.server import Server, start_server, write_repository

slow = pytest.mark.slow


def points(*values: float) -> list[Point]:
    return [Point(step, value, step) for step, value in enumerate(values)]


def test_a_short_curve_stays_as_it_is() -> None:
    assert thinned([], 4) == []
    assert thinned(points(1, 2, 3, 4), 4) == points(1, 2, 3, 4)


def test_a_long_curve_keeps_its_ends_and_every_spike() -> None:
    curve = points(*[math.sin(n / 50) for n in range(1000)])
    curve[500], curve[777] = Point(500, 99, 500), Point(777, -99, 777)
    kept = thinned(curve, 100)
    assert len(kept) <= 100
    assert (kept[0], kept[-1]) == (curve[0], curve[-1])
    assert {curve[500], curve[777]} <= set(kept)
    assert [point.step for point in kept] == sorted({point.step for point in kept})


def test_a_curve_with_holes_is_thinned_too() -> None:
    assert len(thinned(points(*[math.nan] * 50), 10)) <= 10


def test_of_an_epoch_that_was_done_twice_the_newer_counts() -> None:
    assert newest_of_each_step([]) == []
    twice = [Point(1, 0.1, 10), Point(2, 0.3, 40), Point(2, 0.2, 20), Point(3, 0.4, 50)]
    assert newest_of_each_step(twice) == [twice[0], twice[1], twice[3]]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), ""),
        (Wanted(status="RUNNING"), "attributes.status = 'RUNNING'"),
        (
            Wanted(name="a", architecture="n"),
            "attributes.run_name ILIKE '%a%' AND params.`train.weights` ILIKE '%n%'",
        ),
    ],
)
def test_what_is_wanted_in_the_words_of_mlflow(wanted: Wanted, expected: str) -> None:
    assert wanted.filter == expected


def test_without_mlflow_the_list_is_empty_and_says_why(server: Server) -> None:
    answer = httpx.get(f"{server.url}/runs")
    assert (answer.status_code, answer.json()) == (200, {"runs": [], "next": None, "unavailable": NO_MLFLOW})
    curves = httpx.get(f"{server.url}/runs/{'0' * 32}/metrics")
    assert (curves.status_code, curves.json()["error"]["message"]) == (503, NO_MLFLOW)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/runs?size=0", "size"),
        ("/runs?size=101", "size"),
        ("/runs?sort=seconds", "sort"),
        ("/runs?state=asleep", "state"),
        ("/runs?text=it's", "text"),
        ("/runs?architecture=a%22b", "architecture"),
        ("/runs?page=%27", "page"),
        ("/runs/42/metrics", "id"),
        (f"/runs/{'F' * 32}/metrics", "id"),
        (f"/runs/{'0' * 32}/metrics?name=a%60b", "name"),
        (f"/runs/{'0' * 32}/metrics?points=1", "points"),
    ],
)
def test_a_parameter_that_is_not_taken_is_named(server: Server, path: str, field: str) -> None:
    error = httpx.get(f"{server.url}{path}").json()["error"]
    assert error["code"] == "invalid_parameter"
    assert error["message"].startswith(field)


@dataclass(frozen=True)
class Laboratory:
    """A server that knows of an MLflow, in whose experiment there are runs `one` to `five`, and one in progress."""

    server: Server
    ids: dict[str, str]
    training: TrackedRun

    def runs(self, **query: Any) -> dict[str, Any]:
        time.sleep(0 if query else 2.1)  # what was just asked is remembered
        answer = httpx.get(f"{self.server.url}/runs", params=query, timeout=30)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        assert document["unavailable"] is None
        return document

    def names(self, **query: Any) -> list[str]:
        return [run["name"] for run in self.runs(**query)["runs"]]

    def curves(self, run: str, *names: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.server.url}/runs/{self.ids[run]}/metrics", params={"name": names}, timeout=30)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document


def trained(name: str, weights: str, map50: list[float], test: float | None, status: Any = "FINISHED") -> str:
    """A run's id."""
    run = open_run(f"key of {name}", name=name, resume=False)
    run.log_params({"train": {"weights": weights, "epochs": 3}})
    for epoch, value in enumerate(map50, 1):
        run.log_metrics({"map50": value, "val_box_loss": 1 / epoch}, step=epoch)
    if test is not None:
        run.log_metrics({"test/map50": test, "test/count_accuracy": test / 2})
        run.set_tags({"model_version": "7"})
    run.finish(status)
    time.sleep(0.01)  # so that the next starts later
    assert run.run_id
    return run.run_id


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory, running_server: MlflowServer) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("laboratory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", running_server.address)
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "laboratory")
        patch.setenv("DVC_ROOT", str(folder))
        ids = {
            "one": trained("one", "yolo11n.pt", [0.1, 0.9, 0.5], test=0.7),
            "two": trained("two", "yolo11s.pt", [0.2, 0.3, 0.6], test=0.8),
            "three": trained("three", "yolo11n.pt", [], test=None, status="FAILED"),
            "four": trained("four %_", "yolo26n.pt", [0.4], test=0.6),
            "five": trained("five", "yolo11n.pt", [0.5], test=0.9),
        }
        training = open_run("key of six", name="six", resume=False)
        training.log_params({"train": {"weights": "yolo11n.pt", "epochs": 3}})
        training.log_metrics({"map50": 0.25}, step=1)
        assert training.run_id
        version = registered(Registry("laboratory"), model(folder / "made/3.onnx"), key="key of five")
        Registry("laboratory").set_alias("champion", version)
        write_repository(folder)
        running = start_server(folder, DEFAULT_MODEL_NAME="laboratory", MLFLOW_TRACKING_URI=running_server.address)
        yield Laboratory(running, ids | {"six": training.run_id}, training)
        training.finish("FINISHED")
        running.stop()


@slow
def test_runs_are_listed_newest_first_with_what_became_of_them(laboratory: Laboratory) -> None:
    listed = laboratory.runs()
    assert [run["name"] for run in listed["runs"]] == ["six", "five", "four %_", "three", "two", "one"]
    assert listed["next"] is None
    six, five, _, three, *_ = listed["runs"]
    assert (six["state"], six["epochs"], six["of_epochs"], six["val_map50"]) == ("running", 1, 3, 0.25)
    assert (six["map50"], six["version"]) == (None, None)
    assert (three["state"], three["epochs"], three["val_map50"]) == ("failed", 0, None)
    assert five["id"] == laboratory.ids["five"]
    assert (five["state"], five["architecture"], five["version"]) == ("finished", "yolo11n", "7")
    assert (five["map50"], five["count_accuracy"]) == (0.9, 0.45)
    assert {"map50", "val_box_loss", "test/map50"} <= set(five["metrics"])
    assert five["seconds"] >= 0


@slow
def test_runs_are_sorted_by_mlflow_those_without_a_value_last(laboratory: Laboratory) -> None:
    best = laboratory.names(sort="map50")
    assert best[:4] == ["five", "two", "one", "four %_"]
    assert set(best[4:]) == {"three", "six"}
    assert laboratory.names(sort="map50", descending=False)[:4] == ["four %_", "one", "two", "five"]
    assert laboratory.names(sort="name", descending=False) == ["five", "four %_", "one", "six", "three", "two"]
    assert laboratory.names(sort="architecture")[0] == "four %_"
    for sort in ("state", "count_accuracy", "started"):
        assert len(laboratory.names(sort=sort)) == 6


@slow
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"state": "failed"}, ["three"]),
        ({"state": "running"}, ["six"]),
        ({"text": "F"}, ["five", "four %_"]),
        ({"text": "nobody"}, []),
        ({"architecture": "yolo11s"}, ["two"]),
        ({"architecture": "YOLO", "text": "o", "state": "finished"}, ["four %_", "two", "one"]),
        ({"text": "é --"}, []),
        ({"text": "((("}, []),
    ],
)
def test_runs_are_found_by_state_name_and_architecture(
    laboratory: Laboratory, query: dict[str, str], names: list[str]
) -> None:
    assert laboratory.names(**query) == names


@slow
def test_pages_follow_one_another_without_a_gap(laboratory: Laboratory) -> None:
    seen, page = [], laboratory.runs(size=4)
    while page["next"]:
        seen += [run["name"] for run in page["runs"]]
        page = laboratory.runs(size=4, page=page["next"])
    assert [*seen, *(run["name"] for run in page["runs"])] == ["six", "five", "four %_", "three", "two", "one"]


@slow
def test_a_page_that_nobody_named_is_not_found(laboratory: Laboratory) -> None:
    answer = httpx.get(f"{laboratory.server.url}/runs", params={"page": "made_up"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@slow
def test_curves_are_those_asked_for_or_all(laboratory: Laboratory) -> None:
    curves = laboratory.curves("one", "map50")
    assert curves == {
        "id": laboratory.ids["one"],
        "state": "finished",
        "series": [{"name": "map50", "steps": [1, 2, 3], "values": [0.1, 0.9, 0.5]}],
    }
    names = [series["name"] for series in laboratory.curves("one")["series"]]
    assert names == sorted(names)
    assert {"map50", "val_box_loss", "test/map50"} <= set(names)
    assert laboratory.curves("one", "nobody")["series"] == []


@slow
def test_a_training_moves(laboratory: Laboratory) -> None:
    before = laboratory.curves("six", "map50")["series"][0]["steps"]
    laboratory.training.log_metrics({"map50": 0.5}, step=before[-1] + 1)
    time.sleep(2.1)
    assert laboratory.curves("six", "map50")["series"][0]["steps"] == [*before, before[-1] + 1]


@slow
def test_a_run_that_is_not_there_is_not_found(laboratory: Laboratory) -> None:
    answer = httpx.get(f"{laboratory.server.url}/runs/{'0' * 32}/metrics")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@slow
def test_an_mlflow_that_does_not_answer_delays_nobody_else(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = server_in(tmp_path, empty_store)
    mlflow.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.address)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    version = registered(Registry("fingers"), model(tmp_path / "made/3.onnx"))
    Registry("fingers").set_alias("champion", version)
    server = start_server(write_repository(tmp_path), DEFAULT_MODEL_NAME="fingers", MLFLOW_TRACKING_URI=mlflow.address)
    try:
        assert len(httpx.get(f"{server.url}/runs", timeout=30).json()["runs"]) == 1
        os.killpg(mlflow.process.pid, signal.SIGSTOP)
        time.sleep(2.1)
        with ThreadPoolExecutor(4) as others, httpx.Client(base_url=server.url, timeout=30) as client:
            waiting = [others.submit(client.get, f"/runs?size={size}") for size in (1, 2, 3, 4)]
            since = time.monotonic()
            for _ in range(10):
                assert client.post("/predict", content=saved("JPEG"), headers={"Content-Type": "image/jpeg"}).is_success
            assert time.monotonic() - since < 5
            assert not any(answer.done() for answer in waiting)
            for answer in waiting:
                assert answer.result().json()["runs"] == []
                assert "MLflow" in answer.result().json()["unavailable"]
        os.killpg(mlflow.process.pid, signal.SIGCONT)
        mlflow.kill()
        time.sleep(2.1)
        assert "cannot be reached" in httpx.get(f"{server.url}/runs", timeout=30).json()["unavailable"]
    finally:
        server.stop()
        if mlflow.process.poll() is None:
            mlflow.kill()
