"""What stands in a page for its scripts: no text gets out of its place, and the policy names every script."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import numpy as np
import pytest
from markupsafe import Markup

from softprune.errors import SoftpruneError
from softprune.report import interactive
from softprune.report.interactive import Numbers, Plot, assets, data_element, palettes, policy
from softprune.report.templating import environment

ATTACK = "</script><img src=x onerror=alert(1)><!-- <b>\u2028&amp;"
PAGE = """{% import "interactive.html.j2" as ui %}<!doctype html><html><head>{{ ui.head(title, assets) }}</head><body>
{{ ui.theme() }}{% call ui.plot(plot) %}<i>still</i>{% endcall %}{{ ui.foot(assets) }}</body></html>"""


def elements(text: str) -> list[tuple[str, str]]:
    """Attributes and text of each script element."""
    return re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)


def element_text(name: str, value: object) -> str:
    ((_, text),) = elements(str(data_element(name, value)))
    return text


def a_plot(**changes: object) -> Plot:
    fields: dict[str, object] = {
        "name": "a",
        "title": ATTACK,
        "caption": ATTACK,
        "traces": [{"x": np.array([1.0, np.nan]), "text": [ATTACK, Markup("<b>meant</b>")]}],
        "layout": {"xaxis": {"title": {"text": ATTACK}}},
        "table": Numbers(("what", ATTACK), ((ATTACK, 0.5), ("two", None))),
    }
    return Plot(**{**fields, **changes})  # type: ignore[arg-type]


def test_data_comes_back_as_it_was() -> None:
    value = {"text": ATTACK, "numbers": [1, 0.1, None], "other": "日本 é"}
    assert json.loads(element_text("x", value)) == value
    assert json.loads(element_text("x", value)) != {**value, "text": ATTACK[1:]}


def test_no_text_ends_its_element() -> None:
    assert not set("<>&\u2028\u2029") & set(element_text("x", {ATTACK: [ATTACK]}))
    assert set("<>&") & set(json.dumps(ATTACK))


def test_what_is_no_number_is_null() -> None:
    found = element_text("x", [float("nan"), float("inf"), np.float32(0.5), np.arange(2), np.bool_(True), "\ud800"])
    assert json.loads(found) == [None, None, 0.5, [0, 1], True, "?"]


def test_plotly_is_given_text_as_text() -> None:
    (_, plots), *_ = [e for e in elements(str(assets([a_plot()]).data)) if "data-plots" in e[0]]
    (plot,) = json.loads(plots)
    assert plot["traces"][0]["text"] == [str(interactive.escape(ATTACK)), "<b>meant</b>"]
    assert plot["traces"][0]["x"] == [1.0, None]
    assert "<" not in plot["layout"]["xaxis"]["title"]["text"]


def rendered(plots: list[Plot], **more: object) -> str:
    template = environment().from_string(PAGE)
    return template.render(title=ATTACK, plot=a_plot(), assets=assets(plots, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("plots", [[], [a_plot()]])
def test_the_policy_names_every_script_and_nothing_else(plots: list[Plot]) -> None:
    text = rendered(plots, own=["let mine = 1;"])
    run = [body for kind, body in elements(text) if "application/json" not in kind]
    hashes = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in run]
    named = re.findall(r"&#39;sha256-([^&]+)&#39;", text)
    assert named == hashes
    assert len(named) == 2 + len(plots)
    assert "script-src &#39;sha256" in text
    assert "default-src &#39;none&#39;" in text
    assert "unsafe-eval" not in text.partition("<style>")[0]


def test_plotly_stands_once_and_only_where_there_is_a_plot() -> None:
    one, none = rendered([a_plot(), a_plot(name="b")]), rendered([])
    assert one.count("* plotly.js v") == 1
    assert "* plotly.js v" not in none
    assert len(none) < 60_000


def test_hostile_text_is_text_in_the_macros() -> None:
    text = rendered([a_plot()])
    assert "<img" not in text.partition("* plotly.js v")[0]
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") >= 5
    assert ">not measured</td>" in text


@pytest.mark.parametrize("bad", ["a </SCRIPT>", "<!-- a", "a\r\nb"])
def test_a_script_that_a_browser_would_read_otherwise_is_refused(bad: str) -> None:
    with pytest.raises(SoftpruneError, match="fix it"):
        assets(own=[bad])


def test_without_scripts_none_may_run() -> None:
    assert policy([]).endswith("script-src 'none'")


def _luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_series_stand_out_from_the_paper(theme: str) -> None:
    colours = palettes()[theme]
    found = {
        name: contrast(str(colours[name]), str(colours["paper"])) for name in ("ink", *(f"c{i}" for i in range(8)))
    }
    assert min(found.values()) >= 3, found
    assert found["ink"] >= 7
    assert colours["ink"] not in {colours[f"c{i}"] for i in range(8)}  # intervals are drawn in it, over bars
    assert contrast("#f0e442", "#ffffff") < 3  # Okabe and Ito's yellow, on white


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "accent", "good", "bad"])
@pytest.mark.parametrize("paper", ["paper", "soft"])
def test_text_can_be_read(theme: str, ink: str, paper: str) -> None:
    """WCAG 2.1, 1.4.3: 4.5:1."""
    style = environment().get_template("style.css").render()
    block = {"light": r":root\[data-theme=light\]", "dark": r":root\[data-theme=dark\]"}[theme]
    found = re.search(block + r" \{(.*?)\}", style, re.DOTALL)
    assert found
    colours = dict(re.findall(r"--([\w-]+):(#\w+)", found[1]))
    colours = {name: c if len(c) == 7 else "#" + "".join(2 * d for d in c[1:]) for name, c in colours.items()}
    assert contrast(colours[ink], colours[paper]) >= 4.5
