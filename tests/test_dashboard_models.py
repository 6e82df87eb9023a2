"""The view `Models` before a real registry: look at one, put another in place, ask two about the same pictures."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import opened, picture_file, violations
from tests.server import Server
from tests.team import ADMIN, USER, Team

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser: Browser, team: Team) -> Iterator[Page]:
    assert team.load("1").status_code == 200
    with opened(browser, team.server.url, "models") as shown:
        give_key(shown, USER)
        expect(shown.get_by_label("Version")).to_have_value("1")
        yield shown


def give_key(page: Page, key: str) -> None:
    page.get_by_label("API key or token").fill(key)
    page.get_by_role("button", name="Use it").click()


def test_versions_are_listed_with_their_aliases_and_scores(page: Page) -> None:
    options = page.get_by_label("Version").locator("option")
    expect(options).to_have_count(3)
    expect(options.nth(2)).to_have_text("1 · champion · 90.0 % of counts right · answers now")
    expect(options.nth(1)).to_contain_text("2 · 90.0 % of counts right")
    expect(page.get_by_role("button", name="Answers now")).to_be_disabled()


def test_the_card_tells_how_it_decides_and_where_it_comes_from(page: Page, team: Team) -> None:
    card = page.locator(".model")
    expect(card).to_contain_text("fingers · version 1")
    expect(card).to_contain_text("90.0 % (80 % to 97 %)")
    expect(card).to_contain_text(team.registry.find("1").sha256)
    expect(card).to_contain_text(team.registry.find("1").run_id)
    expect(card.get_by_role("rowheader", name="unknown")).to_be_visible()
    assert violations(page) == []
    page.get_by_label("Version").select_option("3")
    expect(card).to_contain_text("version 3")


def test_loading_asks_for_an_admin_key_and_then_the_version_answers(page: Page) -> None:
    page.get_by_label("Version").select_option("2")
    page.get_by_role("button", name="Load").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Loading a model needs an admin key")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".told")).to_contain_text("This needs a key of the role admin.")
    page.get_by_role("button", name="Load").click()
    give_key(page, ADMIN)
    expect(page.locator(".told")).to_have_text("Version 2 answers now.")
    expect(page.get_by_label("Version").locator("option:checked")).to_contain_text(
        "2 · 90.0 % of counts right · answers"
    )


def test_two_models_are_asked_about_the_same_pictures(page: Page, team: Team, tmp_path: Path) -> None:
    assert team.load("2").status_code == 200
    page.reload()
    give_key(page, USER)
    expect(page.get_by_label("Between")).to_have_value("2")
    expect(page.get_by_label("and", exact=True)).to_have_value("1")
    page.set_input_files("input[type=file]", [picture_file(tmp_path / name) for name in ("a.png", "b.png")])
    expect(page.locator(".pair.differs")).to_have_count(2)
    expect(page.locator(".pair").first).to_contain_text("2 or 1?")
    expect(page.locator(".pair").first.locator(".picture .overlay")).to_have_count(2)
    expect(page.locator(".words")).to_have_text("The same count in 0 of 2 pictures, but not in a.png, b.png")
    page.get_by_label("and", exact=True).select_option("2")
    page.set_input_files("input[type=file]", picture_file(tmp_path / "c.png"))
    expect(page.locator(".pair.same")).to_contain_text("Both count 2")
    page.get_by_label("Disagreements only").check()
    expect(page.locator(".pair.same")).to_be_hidden()


def test_one_model_alone_is_no_pair(browser: Browser, server: Server) -> None:
    with opened(browser, server.url, "models") as page:
        expect(page.get_by_text("Only one version is loaded.")).to_be_visible()
