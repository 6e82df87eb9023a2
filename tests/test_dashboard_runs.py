"""The views Experiments and Monitor, in a real browser before a real server and the runs of a real MLflow store."""

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from stages.files import write_json, write_text
from stages.registry import Registry
from stages.tracking import TrackedRun, open_run
from tests.browser import PHONE, opened, overflow, violations
from tests.pictures import saved
from tests.released import model, registered, release
from tests.server import Server, start_server, write_repository

NASTY = "<img src=x onerror=alert(1)>"
JPEG = {"Content-Type": "image/jpeg"}
TRAINING = {"p05": 100.0, "p25": 110.0, "p50": 120.0, "p75": 130.0, "p95": 140.0}
slow = pytest.mark.slow


def test_without_mlflow_the_page_says_so_and_how_to_get_one(browser: Browser, server: Server) -> None:
    with opened(browser, server.url, "experiments") as page:
        expect(page.locator(".note")).to_contain_text("No experiments to show.")
        expect(page.locator(".note")).to_contain_text("MLFLOW_TRACKING_URI")
        expect(page.get_by_role("table")).to_have_count(0)
        assert violations(page) == []


@dataclass(frozen=True)
class Laboratory:
    """A server, and the training in progress whose run is the newest that it lists."""

    server: Server
    training: TrackedRun


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("laboratory")
    store = folder / ".local/mlflow/mlflow.db"
    store.parent.mkdir(parents=True)
    shutil.copy(empty_store, store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
        patch.setenv("DVC_ROOT", str(folder))
        for number in range(26):
            trained(f"old {number:02d}", "yolo11n.pt", [0.3, 0.4], 0.5)
        trained(NASTY, "yolo11n.pt", [0.1, 0.2], None, status="FAILED")
        trained("wide", "yolo11s.pt", [0.2, 0.6, 0.8], 0.9)
        trained("small", "yolo11n.pt", [0.1, 0.5, 0.7], 0.7)
        training = open_run("in progress", name="moving", resume=False)
        training.log_params({"train": {"weights": "yolo26n.pt", "epochs": 9}})
        training.log_metrics({"map50": 0.25, "val_box_loss": 2.0}, step=1)
        version = registered(Registry("fingers"), model(folder / "made/3.onnx"), key="key of small")
        Registry("fingers").set_alias("champion", version)
        write_repository(folder)
        server = start_server(folder, MLFLOW_TRACKING_URI=f"sqlite:///{store}", DEFAULT_MODEL_NAME="fingers")
        yield Laboratory(server, training)
        training.finish("FINISHED")
        server.stop()


def trained(name: str, weights: str, map50: list[float], test: float | None, status: Any = "FINISHED") -> None:
    run = open_run(f"key of {name}", name=name, resume=False)
    run.log_params({"train": {"weights": weights, "epochs": 3}})
    run.log_steps({epoch: {"map50": value, "val_box_loss": 2 - value} for epoch, value in enumerate(map50, 1)})
    if test is not None:
        run.log_metrics({"test/map50": test, "test/count_accuracy": test / 2})
    run.finish(status)


@pytest.fixture
def experiments(browser: Browser, laboratory: Laboratory) -> Iterator[Page]:
    with opened(browser, laboratory.server.url, "experiments") as page:
        expect(rows(page)).to_have_count(25)
        yield page


def rows(page: Page) -> Locator:
    return page.locator("section[aria-label=Runs] tbody tr")


def chart(page: Page, title: str) -> Locator:
    return page.locator("figure").filter(has=page.get_by_role("heading", name=title, exact=True))


def cells(page: Page, run: str) -> list[str]:
    return page.get_by_role("row", name=run).locator("td").all_inner_texts()


@slow
def test_runs_are_listed_with_what_became_of_them(experiments: Page) -> None:
    expect(rows(experiments).first).to_contain_text("moving")
    state, architecture, epochs, val, test, accuracy, *_ = cells(experiments, "wide")
    assert (state, architecture, epochs, val, test, accuracy) == (
        "finished",
        "yolo11s",
        "3 of 3",
        "0.800",
        "0.900",
        "45.0 %",
    )
    assert cells(experiments, "moving")[:4] == ["running", "yolo26n", "1 of 9", "0.250"]
    assert violations(experiments) == []


@slow
def test_a_header_sorts_and_says_how(experiments: Page) -> None:
    header = experiments.get_by_role("columnheader", name="mAP50, test")
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", "descending")
    expect(rows(experiments).first).to_contain_text("wide")
    header.get_by_role("button").press("Enter")
    expect(header).to_have_attribute("aria-sort", "ascending")
    expect(rows(experiments).first).to_contain_text("old")
    expect(experiments.locator("[aria-sort]")).to_have_count(1)


@slow
def test_runs_are_filtered_and_leafed_through(experiments: Page) -> None:
    experiments.get_by_role("button", name="More").click()
    expect(rows(experiments)).to_have_count(5)
    expect(experiments.get_by_text("5 runs, page 2")).to_be_visible()
    experiments.get_by_role("button", name="Back").click()
    expect(rows(experiments)).to_have_count(25)
    experiments.get_by_label("Architecture").fill("11S")
    expect(rows(experiments)).to_have_count(1)
    experiments.get_by_label("Architecture").fill("")
    experiments.get_by_label("State").select_option("failed")
    expect(rows(experiments)).to_have_count(1)
    experiments.get_by_label("Name").fill("no'body")
    expect(experiments.get_by_text("No run fits.")).to_be_visible()


@slow
def test_curves_of_the_chosen_runs_lie_over_one_another(experiments: Page) -> None:
    curves = chart(experiments, "Curves")
    expect(curves.locator(".legend li")).to_have_text(["moving0.25", "small0.7", "wide0.8"])
    experiments.get_by_label("wide").uncheck()
    expect(curves.locator(".legend li")).to_have_text(["moving0.25", "small0.7"])
    experiments.get_by_label(NASTY).check()
    expect(curves.locator(".legend li").nth(2)).to_have_text(f"{NASTY}0.2")
    assert experiments.locator("img[onerror]").count() == 0
    experiments.get_by_label("Metric").select_option("val_box_loss")
    expect(curves.locator(".legend li").nth(1)).to_have_text("small1.3")
    expect(curves.locator(".series")).to_have_count(3)


@slow
def test_a_curve_is_read_out_by_the_keyboard_and_as_a_table(experiments: Page) -> None:
    plot = experiments.get_by_role("slider", name="Curves")
    expect(plot).to_have_attribute("aria-valuetext", re.compile("small 0.7"))
    plot.focus()
    plot.press("Home")
    expect(plot).to_have_attribute("aria-valuetext", "epoch 1: moving 0.25, small 0.1, wide 0.2")
    plot.press("ArrowRight")
    expect(chart(experiments, "Curves").locator(".readout")).to_contain_text("epoch 2")
    chart(experiments, "Curves").get_by_text("Table", exact=True).click()
    first = chart(experiments, "Curves").locator("tbody tr").first
    expect(first).to_have_text("3–0.70.8")
    assert violations(experiments) == []


@slow
def test_a_training_moves_by_itself_and_what_has_the_focus_keeps_it(experiments: Page, laboratory: Laboratory) -> None:
    box = experiments.get_by_label("moving")
    box.focus()
    laboratory.training.log_metrics({"map50": 0.75, "val_box_loss": 1.0}, step=2)
    expect(chart(experiments, "Curves").locator(".legend li").first).to_have_text("moving0.75", timeout=20_000)
    expect(experiments.get_by_role("row", name="moving")).to_contain_text("2 of 9")
    expect(box).to_be_focused()


@slow
def test_a_tab_out_of_sight_asks_nothing(experiments: Page) -> None:
    asked = list[str]()
    experiments.on("request", lambda request: asked.append(request.url))
    hide = "hidden => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden }); "
    hide += "document.dispatchEvent(new Event('visibilitychange')); }"
    experiments.evaluate(hide, True)
    experiments.wait_for_timeout(1000)  # for what was under way
    asked.clear()
    experiments.wait_for_timeout(6000)
    assert asked == []
    with experiments.expect_request("**/runs?*"):
        experiments.evaluate(hide, False)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its model learnt from pictures of a mean grey of 120."""
    folder = tmp_path_factory.mktemp("watched")
    made = release(model(folder / "models/detector.onnx"), None, input_profile={"brightness": TRAINING})
    write_text(folder / "dvc.yaml", "stages: {}\n")
    write_json(folder / "models/release.json", made.model_dump())
    running = start_server(folder)
    yield running
    running.stop()


def send(server: Server, grey: int, pictures: int) -> None:
    picture = cv2.imencode(".jpg", np.full((48, 64, 3), grey, np.uint8))[1].tobytes()
    for _ in range(pictures):
        assert httpx.post(f"{server.url}/predict", content=picture, headers=JPEG, timeout=30).status_code == 200


@slow
def test_the_monitor_shows_what_the_server_does_and_whether_pictures_are_as_in_training(
    browser: Browser, watched: Server
) -> None:
    with opened(browser, watched.url, "monitor") as page:
        expect(page.locator(".verdict")).to_have_text("It takes 30 recent pictures to tell.")
        send(watched, 121, 40)
        expect(page.locator(".verdict")).to_contain_text("Yes, as far as can be told from 40 pictures")
        assert httpx.post(f"{watched.url}/predict", content=b"no", headers=JPEG).status_code == 422
        send(watched, 62, 60)
        expect(page.locator(".findings li")).to_have_text(
            ["Pictures are darker than those in training (median brightness 62 against 120)."]
        )
        expect(chart(page, "Brightness").locator(".newest")).to_have_text("62")
        expect(chart(page, "Brightness").locator(".band")).to_have_count(1)
        expect(chart(page, "Requests a second").locator(".legend li").first).not_to_have_text("requests0")
        expect(chart(page, "Errors a second").locator(".newest")).not_to_have_text("0")
        expect(chart(page, "Time of POST /predict").locator(".legend")).to_contain_text(re.compile(r"95 %[\d.]+ ms"))
        expect(chart(page, "Hands a minute, by class").locator(".legend li")).to_have_count(1)
        expect(chart(page, "Confidence of hands").locator(".legend")).to_contain_text("0.8")
        expect(chart(page, "Memory").locator(".legend")).to_contain_text("worker-0")
        assert violations(page) == []
    document = httpx.get(f"{watched.url}/drift").json()
    assert document["version"] == "release"
    (brightness,) = [each for each in document["inputs"] if each["drifted"]]
    assert brightness["score"] == pytest.approx(-2.9, abs=0.1)
    assert 'fingers_drift{input="brightness"} -2.' in httpx.get(f"{watched.url}/metrics").text


@slow
def test_a_change_of_view_loses_none_of_the_lines(browser: Browser, watched: Server) -> None:
    with opened(browser, watched.url, "monitor") as page:
        queue = chart(page, "Queue").locator(".plot")
        expect(queue).to_be_visible()
        since = queue.get_attribute("aria-valuemin")
        page.get_by_role("tab", name="Try it").click()
        page.get_by_role("tab", name="Monitor").click()
        expect(queue).to_have_attribute("aria-valuemin", since or "")


@slow
def test_a_monitor_whose_server_is_gone_says_so_and_goes_on(browser: Browser, tmp_path: Path) -> None:
    first = start_server(tmp_path / "site")
    with opened(browser, first.url, "monitor") as page:
        first.stop()
        expect(page.locator(".view .note")).to_contain_text("The server does not answer.")
        second = start_server(tmp_path / "site", port=int(first.url.rpartition(":")[2]))
        try:
            expect(page.locator(".view .note")).to_have_count(0)
            expect(chart(page, "Memory").locator(".plot")).to_be_visible()
        finally:
            second.stop()


@slow
@pytest.mark.parametrize("view", ["experiments", "monitor"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_views_fit_a_phone_and_everybody(browser: Browser, laboratory: Laboratory, view: str, scheme: Any) -> None:
    assert httpx.post(f"{laboratory.server.url}/predict", content=saved("JPEG"), headers=JPEG).status_code == 200
    with opened(browser, laboratory.server.url, view, viewport=PHONE, color_scheme=scheme) as page:
        expect(page.locator(".plot svg").first).to_be_visible()
        time.sleep(0.2)
        assert overflow(page) == 0
        assert violations(page) == []
