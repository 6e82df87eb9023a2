"""`python -m benchmarks.live_page URL FOLDER`: frames a second of the dashboard's view Live, browser and all.

URL: of a running server, such as `fingers serve`. FOLDER: pictures, which become the frames of a camera, 640 x 480.
Keep server and browser to the cores in question: taskset -c 0,1 for both.
"""

import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import cv2
from playwright.sync_api import Page, sync_playwright

from tests.browser import chromium

PICTURES = 10
EACH = 30  # frames: a second
WARM_UP, SECONDS = 5, 30
FAKE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    with TemporaryDirectory() as made, sync_playwright() as playwright:
        file = camera_file(Path(made) / "camera.mjpeg", folder)
        with chromium(playwright, *FAKE, f"--use-file-for-fake-video-capture={file}") as browser:
            page = browser.new_page()
            page.goto(f"{url}/#live")
            page.get_by_role("button", name="Start the camera").click()
            page.wait_for_timeout(WARM_UP * 1000)
            rates, latencies = zip(*(looked(page) for _ in range(SECONDS)), strict=True)
            size = shown(page, "Frame size")
    print(f"{median(rates):.1f} frames a second, {min(rates):.1f} at least; {size}")  # noqa: T201
    print(f"{median(latencies):.0f} ms from a frame to its boxes, {max(latencies):.0f} ms at most")  # noqa: T201


def camera_file(path: Path, folder: Path) -> Path:
    files = sorted(file for file in folder.iterdir() if file.suffix in (".jpg", ".jpeg", ".png"))
    with path.open("wb") as camera:
        for file in files[:: max(1, len(files) // PICTURES)][:PICTURES]:
            picture = cv2.imread(str(file))
            assert picture is not None, file
            camera.write(cv2.imencode(".jpg", cv2.resize(picture, (640, 480)))[1].tobytes() * EACH)
    return path


def looked(page: Page) -> tuple[float, float]:
    """Frames a second and ms, a second later."""
    page.wait_for_timeout(1000)
    return float(shown(page, "Frames a second")), float(shown(page, "Latency").removesuffix(" ms"))


def shown(page: Page, name: str) -> str:
    return page.locator(".numbers div", has_text=name).locator("dd").inner_text()


if __name__ == "__main__":
    main()
