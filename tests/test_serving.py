"""The routes of a running server, each once as it should be used and once as it should not."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from serve.jobs import Hand, Seen
from serve.metrics import Metrics
from stages.vision.images import decode
from tests.pictures import saved
from tests.released import HAND, model, release
from tests.server import Server

JPEG = {"Content-Type": "image/jpeg"}


def post(server: Server, path: str = "/predict", content: bytes = b"", **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", content=content or saved("JPEG"), headers=JPEG | headers, timeout=30)


def problem(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    assert error["request_id"] == response.headers["X-Request-Id"]
    return response.status_code, error["code"], error["message"]


def test_a_picture_is_counted_in_each_way_of_sending_it(server: Server) -> None:
    content = saved("PNG")
    url = f"{server.url}/predict"
    answers = [
        httpx.post(url, content=content, headers={"Content-Type": "image/png"}),
        httpx.post(url, files={"file": content}),
        httpx.post(url, json={"image": base64.b64encode(content).decode()}),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        seen = answer.json()
        assert seen["finger_count"] == 3
        assert seen["unknown_hands"] == 0
        assert [(p["class_name"], p["class_id"]) for p in seen["predictions"]] == [("3", 3)]
        assert seen["preprocessing_applied"] is True
        assert seen["image"] == {"width": 64, "height": 48}
        assert seen["inference_time_ms"] == seen["timing_ms"]["detect"] > 0
        assert seen["model"]["version"] == "release"
        assert "blurred" not in seen


def test_every_answer_says_which_model_there_is_and_which_request_it_was(server: Server) -> None:
    release = json.loads((server.folder / "models/release.json").read_text())
    for response in (post(server), httpx.get(f"{server.url}/nowhere"), httpx.get(f"{server.url}/livez")):
        assert response.headers["X-Model-Version"] == "release"
        assert response.headers["X-Model-Sha256"] == release["sha256"]
        assert response.headers["X-Request-Id"]


def test_a_confidence_above_the_hands_leaves_none(server: Server) -> None:
    assert post(server, "/predict?confidence=0.95").json()["predictions"] == []
    assert post(server, "/predict?confidence=0.5").json()["finger_count"] == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [("confidence=2", "confidence"), ("iou=x", "iou"), ("render=all", "render"), ("model=", "model")],
)
def test_a_wrong_parameter_is_named(server: Server, query: str, field: str) -> None:
    status, code, message = problem(post(server, f"/predict?{query}"))
    assert (status, code) == (422, "invalid_parameter")
    assert field in message


def test_a_version_that_is_not_loaded_is_a_conflict(server: Server) -> None:
    status, code, message = problem(post(server, "/predict?model=9"))
    assert (status, code) == (409, "model_not_loaded")
    assert "loaded: release" in message


def test_a_batch_answers_each_picture_or_says_what_is_wrong_with_it(server: Server) -> None:
    files = [("file", saved("JPEG")), ("file", b"no picture"), ("file", saved("PNG")), ("file", saved("JPEG")[:-200])]
    response = httpx.post(f"{server.url}/predict", files=files)
    results = response.json()["results"]
    assert response.status_code == 200
    assert ["finger_count" in result for result in results] == [True, False, True, False]
    assert {result["error"]["code"] for result in results if "error" in result} == {"unreadable_image"}


def test_the_picture_comes_back_with_boxes_when_asked_for(server: Server) -> None:
    plain, drawn = (decode(post(server, path).content) for path in ("/blur", "/predict?render=image"))
    assert plain.shape == drawn.shape == (48, 64, 3)
    assert abs(plain.astype(int) - drawn.astype(int)).max() > 60
    inline = decode(base64.b64decode(post(server, "/predict?render=blurred").json()["blurred"]))
    assert (inline == plain).all()


def test_several_pictures_come_back_in_one_answer_and_blur_takes_one(server: Server) -> None:
    files = [("file", saved("JPEG"))] * 2
    results = httpx.post(f"{server.url}/predict?render=image", files=files).json()["results"]
    assert [decode(base64.b64decode(result["blurred"])).shape for result in results] == [(48, 64, 3)] * 2
    assert problem(httpx.post(f"{server.url}/blur", files=files))[:2] == (400, "bad_request")


def test_health_tells_what_runs_and_where(server: Server) -> None:
    health = httpx.get(f"{server.url}/health").json()
    assert health["status"] == "ok"
    assert health["preprocessing"] is True
    assert health["engine"].startswith("cpu/")
    assert set(health["workers"].values()) == {"ready"}
    assert httpx.get(f"{server.url}/ready").status_code == 200
    assert httpx.get(f"{server.url}/livez").status_code == 204


def test_the_models_are_listed_with_scores_and_lineage(server: Server) -> None:
    (version,) = httpx.get(f"{server.url}/models").json()["versions"]
    assert version["loaded"] is version["current"] is True
    assert version["metrics"]["map50"] == 0.95
    assert set(version["lineage"]) == {"data", "lock", "git", "run_id"}


def test_a_loaded_version_tells_its_classes_their_numbers_and_its_thresholds(server: Server) -> None:
    card = httpx.get(f"{server.url}/models/release").json()
    assert card["counts"] == [0, 1, 2, 3, 4, 5, None]
    assert card["classes"][6] == "unknown"
    assert card["thresholds"] == {"confidence": 0.4, "iou": 0.6, "max_boxes": 20}
    assert problem(httpx.get(f"{server.url}/models/9"))[:2] == (409, "model_not_loaded")


def test_a_path_that_is_not_there_and_a_method_that_is_not_are_errors_like_others(server: Server) -> None:
    assert problem(httpx.get(f"{server.url}/nowhere"))[:2] == (404, "not_found")
    assert problem(httpx.get(f"{server.url}/predict"))[:2] == (405, "method_not_allowed")


def test_the_api_documents_itself_without_another_host(server: Server) -> None:
    page = httpx.get(f"{server.url}/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert httpx.get(f"{server.url}/docs/files/swagger-ui-bundle.js").status_code == 200
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert {"/predict", "/blur", "/models", "/models/load", "/health", "/ready", "/livez", "/metrics"} <= set(paths)
    assert set(paths["/predict"]["post"]["requestBody"]["content"]) == {
        *("image/jpeg", "image/png", "image/webp"),
        *("multipart/form-data", "application/json"),
    }


def samples(server: Server) -> dict[tuple[str, str], float]:
    document = httpx.get(f"{server.url}/metrics", headers={"Accept": "application/json"}).json()
    return {(name, json.dumps(one["labels"])): one["value"] for name, found in document.items() for one in found}


def change(
    before: dict[tuple[str, str], float], after: dict[tuple[str, str], float], name: str, **labels: Any
) -> float:
    key = (name, json.dumps(labels))
    return after[key] - before.get(key, 0.0)


def test_metrics_count_what_every_worker_did(server: Server) -> None:
    before = samples(server)
    for _ in range(12):
        post(server)
    post(server, content=b"no picture")
    after = samples(server)
    assert change(before, after, "fingers_requests_total", route="/predict", code="200") == 12
    assert change(before, after, "fingers_errors_total", route="/predict", code="422") == 1
    assert change(before, after, "fingers_hands_total", class_name="3") == 12
    assert change(before, after, "fingers_finger_counts_total", count="3") == 12
    for part in ("queue", "decode", "faces", "detect"):
        assert change(before, after, "fingers_picture_seconds_count", part=part) == 12
    assert after["fingers_model_test", '{"metric": "map50"}'] == 0.95
    assert after["fingers_process_up", '{"process": "worker-0"}'] == 1


def test_a_hand_below_the_releases_threshold_is_not_counted_though_it_was_asked_for(tmp_path: Path) -> None:
    metrics, served = Metrics(), release(model(tmp_path / "detector.onnx"), None)
    hands = [Hand(3, confidence, HAND) for confidence in (0.9, 0.1)]
    metrics.saw(Seen(hands, 0, True, 64, 64, 120.0, 80.0, 0.001, 0.01, 0.005, None), 0.0, served)
    assert metrics.registry.get_sample_value("fingers_finger_counts_total", {"count": "3"}) == 1
    assert metrics.registry.get_sample_value("fingers_hands_total", {"class_name": "3"}) == 1


def test_metrics_are_prometheus_own_text(server: Server) -> None:
    response = httpx.get(f"{server.url}/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert "# TYPE fingers_requests_total counter" in response.text
    assert "fingers_model_info{" in response.text


def test_frames_are_counted_over_a_websocket(server: Server) -> None:
    with connect(f"{server.url.replace('http', 'ws')}/ws/predict") as socket:
        for number in (1, 2):
            socket.send(saved("JPEG"))
            answer = json.loads(socket.recv(10))
            assert (answer["frame"], answer["finger_count"]) == (number, 3)


def test_of_frames_that_come_too_fast_the_newest_is_looked_at_and_the_rest_are_counted(server: Server) -> None:
    with connect(f"{server.url.replace('http', 'ws')}/ws/predict") as socket:
        for width in range(100, 130):
            socket.send(saved("JPEG", size=(width, 48)))
        answers: list[dict[str, Any]] = []
        while not answers or answers[-1]["image"]["width"] < 129:
            answers.append(json.loads(socket.recv(10)))
    assert len(answers) + sum(answer["dropped"] for answer in answers) == 30
    assert len(answers) < 30


def test_a_bad_frame_or_message_is_told_and_a_bad_message_ends_the_conversation(server: Server) -> None:
    with connect(f"{server.url.replace('http', 'ws')}/ws/predict") as socket:
        socket.send(b"no picture")
        assert json.loads(socket.recv(10))["error"]["code"] == "unreadable_image"
        socket.send('{"confidence": 0.95}')
        socket.send(saved("JPEG"))
        assert json.loads(socket.recv(10))["predictions"] == []
        socket.send('{"confidence": 7}')
        assert json.loads(socket.recv(10))["error"]["code"] == "bad_request"
