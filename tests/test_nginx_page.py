"""The dashboard in Chromium, over TLS and through nginx, with the limits that it has in deploy/compose.yaml."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import opened
from tests.nginx import Nginx, needs_nginx, nginx_before
from tests.server import Server

pytestmark = [needs_nginx, pytest.mark.slow]


@pytest.fixture(scope="module")
def nginx(server: Server) -> Iterator[Nginx]:
    with nginx_before(server.port) as running:
        yield running


@pytest.fixture
def page(with_camera: Browser, nginx: Nginx) -> Iterator[Page]:
    """Its certificate is one that nobody vouches for."""
    with opened(with_camera, nginx.https, ignore_https_errors=True) as page:
        yield page


def test_a_sample_is_counted(page: Page) -> None:
    page.locator(".sample").first.click()
    expect(page.locator(".count")).to_have_text("3")


def test_the_camera_is_counted_over_a_websocket(page: Page) -> None:
    page.get_by_role("tab", name="Live").click()
    with page.expect_websocket() as opening:
        page.get_by_role("button", name="Start the camera").click()
    assert opening.value.url.startswith("wss://127.0.0.1:")
    expect(page.locator(".count")).to_have_text("3")


@pytest.mark.parametrize("view", ["Models", "Experiments", "Monitor"])
def test_each_view_finds_what_it_shows(view: str, page: Page) -> None:
    with page.expect_response(lambda answer: "/dashboard/" not in answer.url and answer.status == 200):
        page.get_by_role("tab", name=view).click()
    page.wait_for_timeout(500)  # ms, in which trouble would show
    expect(page.locator(".note.bad")).to_have_count(0)
