"""A study's page in Chromium: silent, alone, no text of it runs, and it fits a phone in either theme."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_studies import made_up

from browser import CHROMIUM
from softprune.studies.page import write_page

pytestmark = pytest.mark.real

TOO_WIDE = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_the_page_is_silent_alone_and_fits(chromium: Any, tmp_path: Path, width: int, scheme: str) -> None:
    path = write_page(tmp_path, *made_up())
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert page.locator(".plot svg.main-svg").count() >= 4
    assert page.title().startswith("Title <script>")
    assert page.locator("main img").count() == 0
    assert (said, asked) == ([], [path.as_uri()])
    assert not page.evaluate(TOO_WIDE)
    page.locator("th button").first.click()
    page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    page.evaluate("() => { document.querySelector('h1').style.width = '2000px' }")
    assert page.evaluate(TOO_WIDE)  # the control
    page.close()


@pytest.mark.parametrize(("width", "beside"), [(1280, True), (390, False)])
def test_ours_stand_beside_the_published_where_there_is_room(
    chromium: Any, tmp_path: Path, width: int, beside: bool
) -> None:
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.goto(write_page(tmp_path, *made_up("plain")).as_uri())
    ours, theirs = (page.locator(".sides > section").nth(n).bounding_box() for n in (0, 1))
    assert (ours["x"] + ours["width"] <= theirs["x"]) == beside
    assert (ours["y"] + ours["height"] <= theirs["y"]) != beside
    assert not page.evaluate(TOO_WIDE)
    page.close()
