"""The view `Live` with a camera that Chromium makes of a file, and with servers that come, go and change."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import PHONE, opened, violations
from tests.native import noise
from tests.server import Server, start_server
from tests.team import USER, Team

pytestmark = pytest.mark.slow


@pytest.fixture
def live(with_camera: Browser, server: Server) -> Iterator[Page]:
    """Counting."""
    with opened(with_camera, server.url, "live") as page:
        start(page)
        yield page


def start(page: Page) -> None:
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator(".count")).to_have_text("3")


def figure(page: Page, name: str) -> str:
    return page.locator(".numbers div", has_text=name).locator("dd").inner_text()


def turned(page: Page, hidden: bool) -> None:
    """As when another tab is put before this one."""
    page.evaluate(
        """(hidden) => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def is_filming(page: Page) -> bool:
    filming: bool = page.evaluate("document.querySelector('video').srcObject?.active ?? false")
    return filming


def test_a_camera_is_counted_with_boxes_and_figures(live: Page) -> None:
    expect(live.locator(".overlay text")).to_have_text(["3 · 90 %"])
    expect(live.locator(".numbers")).to_contain_text("640 × 480")
    live.wait_for_timeout(1500)
    assert float(figure(live, "Frames a second")) > 1
    assert figure(live, "Latency").endswith(" ms")
    assert figure(live, "Model") == "release"
    assert live.get_by_label("Camera", exact=True).locator("option").count() >= 1
    assert violations(live) == []


def test_the_picture_is_mirrored_and_its_boxes_with_it(live: Page) -> None:
    box = live.locator(".overlay .box")
    mirrored = float(box.get_attribute("x") or 0) + float(box.get_attribute("width") or 0)
    live.get_by_label("As in a mirror").uncheck()
    expect(live.locator("video")).not_to_have_class("mirrored")
    straight = float(box.get_attribute("x") or 0)
    assert mirrored == pytest.approx(640 - straight, abs=1)


def test_the_threshold_holds_live_too(live: Page) -> None:
    live.get_by_role("slider").fill("0.95")
    expect(live.locator(".count")).to_have_text("0")


def test_stopping_lets_go_of_the_camera(live: Page) -> None:
    assert is_filming(live)
    live.get_by_role("button", name="Stop").click()
    assert not is_filming(live)
    expect(live.locator(".overlay")).to_have_count(0)
    start(live)
    live.get_by_role("tab", name="Models").click()
    expect(live.get_by_role("heading", name="Models", exact=True)).to_be_visible()


def test_a_hidden_page_does_not_film_and_goes_on_when_it_is_back(live: Page) -> None:
    turned(live, hidden=True)
    expect(live.get_by_text("Paused while this page is hidden.")).to_be_visible()
    assert not is_filming(live)
    turned(live, hidden=False)
    expect(live.locator(".count")).to_have_text("3")
    assert is_filming(live)


def test_a_video_file_is_counted_likewise(browser: Browser, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "hands.webm"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"VP80"), 10, (320, 240))
    for n in range(10):
        writer.write(noise(n, 320, 240))
    writer.release()
    with opened(browser, server.url, "live", viewport=PHONE) as page:
        page.set_input_files("input[type=file]", file)
        expect(page.locator(".count")).to_have_text("3")
        expect(page.locator(".numbers")).to_contain_text("320 × 240")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "There is no camera."), (b"no video", "The browser cannot play this file.")],
)
def test_what_cannot_be_shown_is_told_in_words(
    browser: Browser, server: Server, tmp_path: Path, content: bytes | None, words: str
) -> None:
    with opened(browser, server.url, "live") as page:
        if content is None:
            page.get_by_role("button", name="Start the camera").click()
        else:
            (tmp_path / "odd.webm").write_bytes(content)
            page.set_input_files("input[type=file]", tmp_path / "odd.webm")
        expect(page.locator(".told")).to_contain_text(words)
        expect(page.get_by_role("button", name="Start the camera")).to_be_visible()


def test_a_server_that_comes_back_is_found_again(with_camera: Browser, tmp_path: Path) -> None:
    first = start_server(tmp_path / "site")
    port = int(first.url.rpartition(":")[2])
    with opened(with_camera, first.url, "live") as page:
        start(page)
        first.stop()
        expect(page.locator(".state")).to_contain_text("The server is away")
        second = start_server(tmp_path / "site", port=port)
        try:
            expect(page.locator(".state")).to_have_text("", timeout=15_000)
            before = int(figure(page, "Dropped"))
            expect(page.locator(".overlay")).to_have_count(1)
            page.wait_for_timeout(1000)
            assert int(figure(page, "Dropped")) >= before
            assert is_filming(page)
        finally:
            second.stop()


def test_a_model_that_is_swapped_while_live_goes_on_counting(with_camera: Browser, team: Team) -> None:
    """The key is asked for once, and sent as the WebSocket's first message."""
    with opened(with_camera, team.server.url, "live") as page:
        page.get_by_role("button", name="Start the camera").click()
        page.get_by_label("API key or token").fill(USER)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator(".count")).to_have_text("1")
        for version in ("2", "3", "1"):
            assert team.load(version).status_code == 200
            expect(page.locator(".count")).to_have_text(version)
            assert figure(page, "Model") == version
        expect(page.locator(".told")).to_be_empty()


def evaluated(page: Page, module: str, expression: str) -> Any:
    return page.evaluate(f"import('./dashboard/{module}').then((module) => {expression})")


@pytest.mark.parametrize(
    ("counts", "steady"),
    [([3], 3), ([3, 2, 3], 3), ([3, 3, 2, 2], 2), ([5, 5, 5, 0], 5)],
)
def test_a_count_that_most_frames_agree_on_is_shown(
    browser: Browser, server: Server, counts: list[int], steady: int
) -> None:
    with opened(browser, server.url, "live") as page:
        assert evaluated(page, "live.js", f"module.steady({counts})") == steady


def test_frames_become_smaller_while_the_way_is_long_and_larger_again(browser: Browser, server: Server) -> None:
    """Answers come every 100 ms of a clock of the test's own."""
    script = """{
        let clock = 0;
        const size = module.sizes(() => clock);
        const during = (seconds, way) => {
            for (const end = clock + seconds * 1000; clock < end; clock += 100) size.heard(way);
            return size.side;
        };
        return [during(10, 20), during(1.5, 900), during(3, 900), during(30, 900), during(1, 20), during(60, 20)];
    }"""
    with opened(browser, server.url, "live") as page:
        assert evaluated(page, "stream.js", script) == [640, 480, 320, 320, 320, 640]
