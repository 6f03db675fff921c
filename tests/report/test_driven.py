"""The run page as people use it, in headless Chromium: mouse, keyboard, phone, themes, without scripts, printed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from safetensors.numpy import load_file, save_file

from browser import CHROMIUM
from softprune.report import write_report

pytestmark = pytest.mark.real

ATTACK = "</script><img src=x onerror=\"document.title='taken'\"><b>bold</b><a href='javascript:alert(1)'>go</a>"
MISSING = "t0.2-p0.3"
"""A candidate that the run is made not to have tried."""


@dataclass
class Watched:
    """An open page, and what it said and asked for."""

    page: Page
    console: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def told(self, name: str) -> str:
        """What the page tells under a name; spaces as one sees them."""
        return " ".join(self.page.locator(f'[data-out="{name}"]').inner_text().split())

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, query: str) -> None:
        """Goes with Tab alone to an element, as somebody without a mouse does."""
        self.page.evaluate("document.activeElement.blur()")
        for _ in range(120):
            self.press("Tab")
            if self.page.evaluate("query => document.activeElement.matches(query)", query):
                return
        raise AssertionError(f"Tab never came to {query}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "install Chromium: these tests fail rather than skip"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    build: Callable[..., Path],
    edit: Callable[..., None],
    add_near: Callable[..., None],
) -> Path:
    """A run with hostile texts and a gap in its grid; beside it one that compares and one that doesn't."""
    root = tmp_path_factory.mktemp("driven")
    run, same, different = (build(root / name, 20, 6) for name in ("run", "same", "<i>different"))

    def poison(info: dict[str, Any]) -> None:
        info["task"].update(title=ATTACK, instruction=ATTACK, notes=[ATTACK], template=ATTACK, sample=ATTACK)
        info["results"]["winner"]["predicted"] = {ATTACK: 3}
        info.update(command=ATTACK)

    edit(run, poison)
    add_near(run, ATTACK)
    edit(different, lambda info: info["task"].update(id="boolq"))
    path = run / "candidates.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    gap = next(at for at, line in enumerate(lines) if json.loads(line)["id"] == MISSING)
    named = next(at for at, line in enumerate(lines) if json.loads(line)["id"] == "t0.1-p0.1")
    hostile = json.dumps(json.loads(lines[named]) | {"id": ATTACK}) + "\n"
    path.write_text("".join(hostile if at == named else line for at, line in enumerate(lines) if at != gap))
    masks = load_file(run / "masks.safetensors")
    left = [at for at in range(len(lines)) if at != gap]
    save_file({name: tensor[left] for name, tensor in masks.items()}, run / "masks.safetensors")
    write_report(run, [same, different])
    return run


def watch(browser: Browser, address: str, **options: Any) -> Watched:
    page = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options)).new_page()
    found = Watched(page)
    page.on("console", lambda message: found.console.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: found.console.append(str(error)))
    page.on("request", lambda request: found.left.append(request.url))
    page.goto(address)
    return found


@pytest.fixture
def look(browser: Browser, folder: Path) -> Iterator[Callable[..., Watched]]:
    """Opens the page; whatever a test does with it, it stays silent and asks for nothing but itself."""
    address = (folder / "report" / "index.html").as_uri()
    opened: list[Watched] = []

    def open_page(**options: Any) -> Watched:
        opened.append(watch(browser, address, **options))
        return opened[-1]

    yield open_page
    for found in opened:
        found.page.context.close()
        assert found.console == []
        assert [url for url in found.left if not url.startswith(("data:", "blob:"))] == [address]


@pytest.fixture
def seen(look: Callable[..., Watched]) -> Watched:
    return look()


def candidates(folder: Path) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in map(json.loads, (folder / "candidates.jsonl").read_text().splitlines())}


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than what one sees of it."""
    wide: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wide


def colours(png: bytes) -> int:
    return len(Image.open(io.BytesIO(png)).convert("RGB").getcolors(1 << 24) or [])


def test_a_page_that_speaks_asks_or_overflows_is_seen(browser: Browser, tmp_path: Path) -> None:
    """The negative control of every other test."""
    page = tmp_path / "bad.html"
    page.write_text("<p style='width:2000px'>wide</p><script>console.warn('no')</script><img src='other.png'>")
    found = watch(browser, page.as_uri())
    assert overflow(found.page) > 0
    assert any("no" in line for line in found.console)
    assert [url for url in found.left if url.endswith("other.png")]
    found.page.set_content("<p>")
    assert colours(found.page.screenshot()) == 1


def test_plots_are_drawn_and_pictures_stay_where_there_is_no_plot(seen: Watched) -> None:
    seen.page.wait_for_selector("#training .main-svg")
    assert seen.page.locator(".canvas .main-svg").first.is_visible()
    assert not seen.page.locator("#frontier img").is_visible()
    assert seen.page.locator("#piece_retention img").is_visible()
    assert seen.page.locator("#frontier .scatterlayer .point").count() >= 71


def test_a_point_tells_its_candidate_as_text(seen: Watched) -> None:
    seen.page.locator("#frontier").scroll_into_view_if_needed()
    trace, at = seen.page.evaluate(
        """() => {
            const traces = document.querySelector('[data-plot=frontier]').data;
            for (let t = 0; t < traces.length; t++) {
                const at = (traces[t].hovertext ?? []).findIndex((text) => text.includes('onerror'));
                if (at >= 0) return [t, at];
            }
        }"""
    )
    seen.page.evaluate(
        """([t, at]) => Plotly.Fx.hover(document.querySelector('[data-plot=frontier]'),
            [{curveNumber: t, pointNumber: at}])""",
        [trace, at],
    )
    label = seen.page.locator("#frontier .hoverlayer .hovertext")
    label.wait_for()
    assert "<b>bold</b>" in str(label.text_content())
    assert "parameters" in str(label.text_content())
    assert label.locator("a").count() == 0


def test_sliders_show_exactly_what_was_measured(seen: Watched, folder: Path) -> None:
    kept = load_file(folder / "masks.safetensors")
    for name, token, piece in (("t0.4-p0.2", 0.4, 0.2), ("t0.7-p0.6", 0.7, 0.6), ("t0.9-p0.1", 0.9, 0.1)):
        for slider, ratio in (("tokenRatio", token), ("pieceRatio", piece)):
            seen.page.locator(f'[data-slider="{slider}"]').fill(str(round(10 * ratio) - 1))
            assert seen.told(slider) == f"{100 * ratio:.0f}%"
        line = candidates(folder)[name]
        told = seen.told("candidate")
        assert name in told
        assert f"parameters {line['parameters']:,}" in told
        shown = "not measured" if line["select"] is None else f"{100 * line['select']:.1f}"
        assert f"select (%) {shown}" in told
        at = list(candidates(folder)).index(name)
        gone = (~kept["piece_CPS"][at]).sum() + (~kept["token_CP"][at]).sum()
        assert seen.page.locator("td.pruned").count() == gone
    assert line["select"] is None


def test_a_pair_that_was_not_tried_says_so(seen: Watched) -> None:
    seen.page.locator('[data-slider="tokenRatio"]').fill("1")
    seen.page.locator('[data-slider="pieceRatio"]').fill("2")
    assert seen.told("candidate") == "This pair of ratios was not tried: not measured."
    assert seen.page.locator("td.pruned").count() == 0
    seen.page.locator('td[data-at="0,3"]').hover()
    assert "fate not measured" in seen.told("cell")


def test_a_cell_tells_itself_to_mouse_and_keyboard_alike(seen: Watched, folder: Path) -> None:
    kept = load_file(folder / "masks.safetensors")
    winner = next(at for at, c in enumerate(candidates(folder).values()) if c["status"] == "winner")
    scores = load_file(folder / "importance.safetensors")
    seen.page.locator("#data-explore").wait_for(state="attached")
    seen.tab_to("table.map td")
    for p in range(3):
        for s in range(3):
            seen.page.locator(f'td[data-at="{p},{s + 1}"]').hover()
            hovered = seen.told("cell")
            fate = "token pruned" if not kept["token_CP"][winner, p] else "piece pruned"
            assert hovered.endswith("kept" if kept["piece_CPS"][winner, p, s] else fate)
            shown = float(hovered.partition("importance ")[2].partition(" ")[0])
            assert shown == pytest.approx(float(scores["winner_piece_PS"][p, s]), rel=1e-3)
            seen.page.mouse.move(5, 5)
            seen.press("Control+Home", *["ArrowDown"] * p, *["ArrowRight"] * (s + 1))
            assert seen.told("cell") == hovered
    assert f"piece P{s}" in hovered
    assert "onerror" in hovered


def test_the_whole_prompt_can_be_seen(seen: Watched) -> None:
    seen.page.locator('[data-pick="candidate"]').select_option("whole")
    assert seen.page.locator("td.pruned").count() == 0
    assert "nothing is pruned" in seen.told("candidate")


@pytest.mark.parametrize("way", ["click", "key", "select"])
def test_picking_a_token_shows_its_words(seen: Watched, way: str) -> None:
    if way == "select":
        seen.page.locator('[data-pick="token"]').select_option("7")
    elif way == "click":
        seen.page.locator('td[data-at="7,2"]').click()
    else:
        seen.tab_to("table.map td")
        seen.press("Control+Home", *["ArrowDown"] * 7, "Enter")
    assert seen.page.locator('[data-pick="token"]').input_value() == "7"
    words = seen.page.locator("[data-near]").inner_text()
    assert "c7" in words
    assert "日本" in words
    assert "c6" not in words
    assert "moved by 1.2" in seen.told("moved")
    seen.page.locator('[data-pick="measure"]').select_option("cosine")
    assert "d7" in seen.page.locator("[data-near]").inner_text()
    seen.page.locator('[data-pick="prompt"]').select_option("winner")
    assert seen.told("moved") == "T7 is not in this prompt: it was pruned."
    assert seen.page.locator("[data-near]").inner_text() == ""


def column(page: Page, at: int) -> list[str]:
    return page.locator(f'[aria-label="candidates"] tbody tr > :nth-child({at + 1})').all_inner_texts()


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_tables_sort_by_number_with_what_is_not_measured_last(seen: Watched, way: str) -> None:
    seen.page.locator("details:has([aria-label=candidates]) > summary").click()
    written = column(seen.page, 0)
    heading = seen.page.locator('[aria-label="candidates"] th', has_text="select (%)")

    def go(key: str) -> None:
        if way == "mouse":
            heading.locator("button").click()
        else:
            heading.locator("button").focus()
            seen.press(key)

    for direction, key in (("ascending", "Enter"), ("descending", "Space")):
        go(key)
        assert heading.get_attribute("aria-sort") == direction
        texts = column(seen.page, 7)
        known = [float(text) for text in texts if text != "not measured"]
        assert known == sorted(known, reverse=direction == "descending")
        assert texts[len(known) :] == ["not measured"] * 9
    go("Enter")
    assert heading.get_attribute("aria-sort") is None
    assert column(seen.page, 0) == written
    sizes = seen.page.locator('[aria-label="candidates"] th', has_text="parameters")
    sizes.locator("button").click()
    numbers = [int(text.replace(",", "")) for text in column(seen.page, 5)]
    assert numbers == sorted(numbers)
    assert max(numbers) >= 1000  # with a comma: as text it would come first


def test_every_table_of_numbers_can_be_sorted(seen: Watched) -> None:
    tables = seen.page.locator("table:not([data-fixed])")
    assert tables.count() >= 8
    assert tables.count() == seen.page.locator("table:has(th.sortable)").count()


def test_themes_colour_text_plots_and_pictures(look: Callable[..., Watched], tmp_path: Path) -> None:
    seen = look(color_scheme="dark")
    page = seen.page
    ink = "getComputedStyle(document.querySelector('#training .xtick text')).fill"
    paper = "getComputedStyle(document.body).backgroundColor"
    picture = "document.querySelector('#token_importance img').currentSrc.slice(-400)"
    cell = "document.querySelector('td[data-at=\"1,2\"]').style.background"
    found = {}
    for theme in ("auto", "light", "dark"):
        page.get_by_role("button", name=theme, exact=True).click()
        page.wait_for_timeout(100)
        found[theme] = [page.evaluate(each) for each in (ink, paper, picture, cell)]
        shot = page.screenshot(path=tmp_path / f"{theme}.png", full_page=True)
        assert colours(shot) > 200
    assert found["auto"] == found["dark"]
    assert all(a != b for a, b in zip(found["light"], found["dark"], strict=True))
    assert page.get_by_role("button", name="dark", exact=True).get_attribute("aria-pressed") == "true"
    page.emulate_media(media="print")
    assert page.evaluate(paper) == found["light"][1]


def test_printed_plots_are_light(look: Callable[..., Watched], tmp_path: Path) -> None:
    seen = look(color_scheme="dark")
    seen.page.wait_for_selector("#training .main-svg")
    ink = "getComputedStyle(document.querySelector('#training .xtick text')).fill"
    dark = seen.page.evaluate(ink)
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert seen.page.evaluate(ink) != dark
    seen.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert seen.page.evaluate(ink) == dark
    assert len(seen.page.pdf(path=tmp_path / "page.pdf")) > 50_000


def test_runs_stand_beside_each_other(seen: Watched) -> None:
    same, different = (seen.page.locator(f'[data-run="{at}"]') for at in range(2))
    assert same.is_visible()
    assert not different.is_visible()
    assert "Not comparable" not in same.inner_text()
    seen.tab_to('[data-pick="run"]')
    seen.press("ArrowDown")
    assert different.is_visible()
    assert not same.is_visible()
    assert "Not comparable: the tasks differ: rte and boolq." in different.inner_text()
    assert "<i>different" in different.inner_text()


def test_everything_can_be_done_from_the_keyboard(seen: Watched) -> None:
    seen.tab_to('[data-theme-choice="dark"]')
    seen.press("Enter")
    assert seen.page.evaluate("document.documentElement.dataset.theme") == "dark"
    seen.tab_to('[data-slider="tokenRatio"]')
    before = seen.told("candidate")
    seen.press("ArrowRight", "ArrowRight")
    assert seen.told("candidate") != before
    assert seen.page.locator('[data-slider="tokenRatio"]').get_attribute("aria-valuetext") == seen.told("tokenRatio")
    seen.tab_to("#frontier summary")
    seen.press("Enter")
    assert seen.page.locator("#frontier details table").is_visible()
    ring = seen.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"


def test_hostile_text_shows_as_text(seen: Watched) -> None:
    assert seen.page.title().startswith("</script><img")
    assert seen.page.locator("h1").inner_text() == ATTACK
    assert seen.page.locator("img[src=x], a[href^=javascript], b").count() == 0
    assert ATTACK in seen.page.locator('[data-pick="token"]').inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_one_column_and_targets_to_touch(look: Callable[..., Watched], tmp_path: Path, scheme: str) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": scheme}
    seen = look(**phone)
    seen.page.wait_for_selector("#training .main-svg")
    for summary in seen.page.locator("summary").all():
        summary.tap()
    assert overflow(seen.page) == 0
    seen.page.locator('td[data-at="5,1"]').tap()
    assert "T5" in seen.told("cell")
    small = seen.page.evaluate(
        """[...document.querySelectorAll('button, select, input, summary')].filter((e) => e.checkVisibility()
            && e.getBoundingClientRect().height < 40).map((e) => e.outerHTML)"""
    )
    assert small == []
    assert colours(seen.page.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)) > 200


def test_a_window_that_changes_leaves_legends_above_captions(seen: Watched) -> None:
    page = seen.page
    page.wait_for_selector("#training .main-svg")
    below = """[...document.querySelectorAll('.canvas')].map((box) => {
        const [legend, caption] = [box.querySelector('.legend'), box.closest('figure').querySelector('figcaption')];
        return Math.round(legend.getBoundingClientRect().bottom - caption.getBoundingClientRect().top); })"""
    drawn = """() => [...document.querySelectorAll('.canvas')]
        .every((box) => box.querySelector('svg').clientWidth === box.clientWidth)"""
    wide = page.evaluate(below)
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(drawn)
        assert max(page.evaluate(below)) < 0
        assert overflow(page) == 0
    assert page.evaluate(below) == wide


def test_without_scripts_the_page_reads_as_before(look: Callable[..., Watched]) -> None:
    page = look(java_script_enabled=False).page
    assert page.locator("img").count() == 8
    assert page.locator("#training img").is_visible()
    for control in page.locator(".scripted, .canvas").all():
        assert not control.is_visible()
    assert page.locator("[data-run]:visible").count() == 2
    assert page.locator(".still-text").first.is_visible()
