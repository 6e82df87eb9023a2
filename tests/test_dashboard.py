"""The page and its view `Try it`, in a real browser before a real server."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from stages.files import write_json, write_text
from tests.browser import PHONE, VIEWS, opened, overflow, picture_file, violations
from tests.fixed_model import row, write_model
from tests.proxy import behind_prefix
from tests.released import CLASSES, SIZE, metrics, release
from tests.server import Server, start_server

KEY = "a-key-of-24-characters-x"
NASTY = "<img src=x onerror=alert(1)>"
HANDS = [  # three fingers for sure, two perhaps, and one hand that cannot be told
    row((4.0, 4.0, 20.0, 20.0), 3, 0.9),
    row((40.0, 4.0, 56.0, 20.0), 2, 0.6),
    row((4.0, 40.0, 20.0, 56.0), 6, 0.5),
]


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Sees HANDS in every picture; its last class has a name that is an attack."""
    folder = tmp_path_factory.mktemp("hands")
    classes = [*CLASSES[:-1], NASTY]
    (folder / "models").mkdir()
    onnx = write_model(folder / "models/detector.onnx", HANDS, size=SIZE)
    scores = dict.fromkeys(classes, metrics()["classes"]["3"])
    made = release(onnx, None, classes=classes, metrics=metrics(classes=scores))
    write_text(folder / "dvc.yaml", "stages: {}\n")
    write_json(folder / "models/release.json", made.model_dump())
    running = start_server(folder)
    yield running
    running.stop()


@pytest.fixture
def page(browser: Browser, hands: Server) -> Iterator[Page]:
    with opened(browser, hands.url) as shown:
        yield shown


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return picture_file(tmp_path / "kitchen.png")


def give(page: Page, *files: Path) -> None:
    page.set_input_files("input[type=file]", list(files))
    expect(page.locator(".result:has(.picture), .result:has(.note)")).to_have_count(len(files))


def test_a_person_who_clicks_a_sample_sees_the_count_and_the_boxes(browser: Browser, server: Server) -> None:
    with opened(browser, server.url) as page:
        assert page.title() == "Try it · Finger counter"
        page.locator(".sample").first.click()
        expect(page.locator(".count")).to_have_text("3")
        expect(page.locator(".overlay text")).to_have_text(["3 · 90 %"])
        shown = page.locator(".picture img")
        assert (shown.get_attribute("src") or "").startswith("data:image/jpeg;base64,")
        expect(shown).to_have_attribute("alt", "sample-1.jpg, faces hidden: 3 fingers, 1 hand")


def test_the_page_comes_under_a_strict_policy_and_is_asked_about_again(server: Server) -> None:
    for path in ("/", "/dashboard/app.js", "/dashboard/style.css"):
        answer = httpx.get(f"{server.url}{path}")
        assert answer.status_code == 200
        policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert answer.headers["Cache-Control"] == "no-cache"
        again = httpx.get(f"{server.url}{path}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert "Content-Security-Policy" in again.headers


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/", "/dashboard/none.js", "/dashboard/%2e%2e%2fapi.py"])
def test_no_other_file_is_given(server: Server, path: str) -> None:
    assert httpx.get(f"{server.url}{path}").json()["error"]["code"] == "not_found"


def test_no_script_puts_text_into_the_page_as_html() -> None:
    folder = Path(__file__).parents[1] / "serve/dashboard"
    ways = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|https?://"
    )
    for path in sorted(folder.glob("*.*")):
        if path.suffix in (".js", ".html", ".css"):
            found = [line for line in path.read_text().splitlines() if ways.search(line) and "www.w3.org" not in line]
            assert found == [], path.name


@pytest.mark.slow
def test_the_first_paint_takes_less_than_100_kb(browser: Browser, hands: Server) -> None:
    sizes = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("response", lambda response: sizes.append(len(response.body())))
        page.goto(hands.url)
        page.wait_for_load_state("networkidle")
        assert sum(sizes) < 100_000, sizes


@pytest.mark.slow
def test_several_pictures_are_counted_and_saved_as_a_table_and_as_pictures(page: Page, tmp_path: Path) -> None:
    named = [picture_file(tmp_path / name, 640, 480) for name in ("a.png", "=1+1, really.png")]
    give(page, *named)
    expect(page.locator(".count")).to_have_text(["5", "5"])
    with page.expect_download() as table:
        page.get_by_role("button", name="Save table").click()
    rows = list(csv.DictReader(io.StringIO(table.value.path().read_text("utf-8-sig"))))
    assert len(rows) == 6
    assert rows[3]["picture"] == "'=1+1, really.png", "no formula for a spreadsheet"
    assert (rows[0]["finger_count"], rows[0]["class_name"], float(rows[0]["x1"])) == ("5", "3", 40)
    assert rows[2]["class_name"] == NASTY
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save picture", exact=True).first.click()
    assert saved.value.suggested_filename == "a-counted.jpg"
    drawn, plain = cv2.imread(str(saved.value.path())), cv2.imread(str(named[0]))
    assert drawn is not None
    assert plain is not None
    assert drawn.shape == plain.shape
    edge, inside = np.s_[100:140, 38:42], np.s_[100:140, 100:140]
    difference = abs(drawn.astype(int) - plain)
    assert difference[edge].mean() > 2 * difference[inside].mean(), "a box is drawn where the hand is"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(page: Page, picture: Path, way: str) -> None:
    page.evaluate(
        """([way, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "given.png", { type: "image/png" }));
            const event = way === "drop"
                ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
            document.querySelector("main").dispatchEvent(event);
        }""",
        [way, list(picture.read_bytes())],
    )
    expect(page.get_by_role("heading", name="given.png")).to_be_visible()
    expect(page.locator(".count")).to_have_text("5")


@pytest.mark.slow
def test_the_threshold_filters_without_asking_the_server_again(page: Page, picture: Path) -> None:
    give(page, picture)
    slider = page.get_by_role("slider")
    expect(slider).to_have_value("0.4")  # the release's own
    expect(page.locator(".words")).to_have_text("raised fingers, and 1 hand that could not be told")
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url) if "predict" in request.url else None)
    slider.fill("0.7")
    expect(page.locator(".count")).to_have_text("3")
    expect(page.locator(".overlay text")).to_have_count(1)
    slider.fill("0.95")
    expect(page.locator(".words")).to_have_text("raised fingers: no hand seen")
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".count")).to_have_text("5")
    assert asked == []


@pytest.mark.slow
def test_the_answer_is_there_to_copy_without_the_picture(browser: Browser, hands: Server, picture: Path) -> None:
    with opened(browser, hands.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        give(page, picture)
        page.get_by_text("JSON").click()
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_text("Copied")).to_be_visible()
        answer: dict[str, Any] = json.loads(page.evaluate("navigator.clipboard.readText()"))
        assert answer["image"] == {"width": 64, "height": 48}
        assert "blurred" not in answer


@pytest.mark.slow
def test_what_is_no_picture_is_refused_in_words_with_what_to_do(page: Page, picture: Path, tmp_path: Path) -> None:
    text, half = tmp_path / "notes.txt", tmp_path / "half.png"
    text.write_text("no picture")
    half.write_bytes(picture.read_bytes()[:-800])
    give(page, text, half, picture)
    notes = page.locator(".result .note")
    expect(notes).to_have_count(2)
    expect(notes.nth(0)).to_contain_text("This is no JPEG, PNG or WebP picture, but text/plain.")
    expect(notes.nth(0)).to_contain_text("Save the picture as JPEG, PNG or WebP")
    expect(notes.nth(1)).to_contain_text("Is the file whole?")
    expect(page.locator(".count")).to_have_text("5")


@pytest.mark.slow
def test_a_class_with_a_name_that_is_an_attack_is_only_a_name(page: Page, picture: Path) -> None:
    alerts = list[str]()
    page.on("dialog", lambda dialog: alerts.append(dialog.message))
    give(page, picture)
    expect(page.locator(".hands li").nth(2)).to_contain_text(NASTY)
    expect(page.locator(".overlay text").nth(2)).to_contain_text(NASTY)
    page.get_by_role("tab", name="Models").click()
    expect(page.get_by_role("rowheader", name=NASTY)).to_be_visible()
    assert page.locator("img[onerror]").count() == 0
    assert alerts == []


@pytest.mark.slow
def test_a_server_that_is_away_is_told_and_one_that_is_back_goes_on(
    browser: Browser, tmp_path: Path, picture: Path
) -> None:
    first = start_server(tmp_path / "site")
    port = int(first.url.rpartition(":")[2])
    with opened(browser, first.url) as page:
        first.stop()
        page.get_by_role("tab", name="Models").click()
        expect(page.locator(".note")).to_contain_text("This view could not be fetched from the server.")
        page.get_by_role("tab", name="Try it").click()
        give(page, picture)
        expect(page.locator(".result .note")).to_contain_text("The server does not answer.")
        expect(page.locator("#banner")).to_contain_text("The server does not answer.")
        expect(page.locator("#health")).to_have_text("no server")
        second = start_server(tmp_path / "site", port=port)
        try:
            expect(page.locator("#banner")).to_be_hidden(timeout=15_000)
            page.get_by_role("button", name="Try again").click()
            expect(page.locator(".count")).to_have_text("3")
        finally:
            second.stop()


@pytest.mark.slow
def test_a_server_with_keys_asks_for_one_and_it_is_kept_only_if_wanted(
    browser: Browser, tmp_path: Path, picture: Path
) -> None:
    server = start_server(tmp_path / "site", API_KEYS=KEY)
    try:
        with opened(browser, server.url) as page:
            dialog = page.get_by_role("dialog", name="This server asks for a key")
            give_key(page, picture, "wrong")
            expect(dialog).to_contain_text("The key or token is not valid")
            page.get_by_label("API key or token").fill(KEY)
            page.get_by_role("button", name="Use it").click()
            expect(page.locator(".count")).to_have_text("3")
            assert page.evaluate("Object.keys(sessionStorage).length + Object.keys(localStorage).length") == 0
            page.reload()
            page.set_input_files("input[type=file]", picture)
            expect(dialog).to_be_visible()
            assert violations(page) == []
            page.get_by_role("button", name="Cancel").click()
            expect(page.locator(".result .note")).to_contain_text("Give a key that this server knows")
            page.get_by_role("button", name="Try again").click()
            page.get_by_label("Keep it").check()
            page.get_by_label("API key or token").fill(KEY)
            page.keyboard.press("Enter")
            expect(page.locator(".count")).to_have_text("3")
            page.reload()
            give(page, picture)
            expect(page.locator(".count")).to_have_text("3")
    finally:
        server.stop()


def give_key(page: Page, picture: Path, key: str) -> None:
    page.set_input_files("input[type=file]", picture)
    page.get_by_label("API key or token").fill(key)
    page.get_by_role("button", name="Use it").click()


@pytest.mark.slow
def test_the_keyboard_alone_goes_everywhere(page: Page) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "view", "past the tabs"
    page.get_by_role("tab", name="Try it").focus()
    for view in (*VIEWS[1:], VIEWS[0]):
        page.keyboard.press("ArrowRight")
        expect(page.locator(f"#tab-{view}")).to_be_focused()
        expect(page.locator(f"#tab-{view}")).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("tabpanel")).to_have_attribute("aria-labelledby", f"tab-{view}")
    page.locator(".sample").first.wait_for()
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".count")).to_have_text("5")
    page.get_by_role("slider").focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".count")).to_have_text("3")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus shows"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_accessible_and_fits_a_phone(browser: Browser, hands: Server, view: str, scheme: str) -> None:
    with opened(browser, hands.url, view, viewport=PHONE, color_scheme=scheme) as page:
        page.wait_for_load_state("networkidle")
        if view == "try":
            page.locator(".sample").first.click()
            page.locator(".overlay").wait_for()
        assert violations(page) == []
        assert overflow(page) <= 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [700, 1280, 3840])
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits_its_window(browser: Browser, hands: Server, view: str, width: int) -> None:
    with opened(browser, hands.url, view, viewport={"width": width, "height": 900}) as page:
        page.wait_for_load_state("networkidle")
        assert overflow(page) <= 0


@pytest.mark.slow
def test_the_page_works_behind_a_prefix_that_a_proxy_takes_off(browser: Browser, tmp_path: Path) -> None:
    server = start_server(tmp_path / "site", ROOT_PATH="/fingers")
    try:
        with behind_prefix("/fingers", server.url) as url, opened(browser, url) as page:
            page.locator(".sample").first.click()
            expect(page.locator(".count")).to_have_text("3")
            page.goto(f"{url}/docs")
            expect(page.locator(".opblock-summary-path").first).to_be_visible()
    finally:
        server.stop()
