"""The system's Chromium in front of a running server: any page that breaks a rule of the dashboard fails its test."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Playwright, ViewportSize, sync_playwright

from tests.native import noise

INSTALL = "Chromium is not on the PATH; Debian and Ubuntu: apt-get install chromium"
QUIET = [  # no sandbox: CI runs as root; the rest keeps it from calling anybody
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
VIEWS = ("try", "live", "models", "experiments", "monitor")
DESK: ViewportSize = {"width": 1280, "height": 850}
PHONE: ViewportSize = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Of one module: while it runs, its thread cannot run another event loop, as tests elsewhere do."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    with chromium(playwright) as running:
        yield running


@pytest.fixture(scope="module")
def with_camera(playwright: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that gives its camera to any page: a file that begins again at its end."""
    file = tmp_path_factory.mktemp("camera") / "noise.mjpeg"
    file.write_bytes(b"".join(cv2.imencode(".jpg", noise(n, 640, 480))[1].tobytes() for n in range(30)))
    options = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with chromium(playwright, *options, f"--use-file-for-fake-video-capture={file}") as browser:
        yield browser


@contextmanager
def chromium(playwright: Playwright, *options: str) -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, INSTALL
    running = playwright.chromium.launch(executable_path=path, args=[*QUIET, *options])
    yield running
    running.close()


@contextmanager
def opened(browser: Browser, url: str, view: str = "", **context: Any) -> Iterator[Page]:
    """The dashboard at url. It must ask no other host, raise no error and break no rule of its own policy."""
    with browser.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **context}) as private:
        page = private.new_page()
        page.set_default_timeout(15_000)
        asked, faults = list[str](), list[str]()
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url.replace("ws", "http", 1)))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Security Policy" in said.text else None)
        page.goto(f"{url}/#{view}")
        page.wait_for_selector("#health[data-state]")
        page.wait_for_selector(".view:not(:empty)")
        yield page
        assert faults == []
        assert {one for one in asked if not one.startswith((url, "data:", "blob:"))} == set()


def violations(page: Page) -> list[str]:
    """What axe-core finds against accessibility: rule, and the elements."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {', '.join(str(node['target']) for node in one['nodes'])}" for one in found]


def overflow(page: Page) -> int:
    """px by which the page is wider than its window."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wider


def picture_file(path: Path, width: int = 64, height: int = 48) -> Path:
    cv2.imwrite(str(path), noise(1, width, height))
    return path
