"""What makes a page interactive and self-contained: plots, sortable tables, a theme, data, and a strict policy.

A page is one file that asks for nothing. It holds its scripts, and its content security policy names them by the
SHA-256 of their text (CSP level 3, 'hash-source'), so that no other script runs, whatever a task's texts hold. Data is
in `<script type="application/json">`, which browsers don't run. Templates use the macros of `interactive.html.j2`;
without scripts a plot's place holds what the template put there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from softprune.errors import SoftpruneError
from softprune.report.mpl_style import DARK, LIGHT, Theme
from softprune.report.templating import OWN

try:
    from markupsafe import Markup, escape
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise SoftpruneError("plotly and jinja2 for pages", str(error), "pip install 'softprune[report]'") from error

Cell = str | float | int | None

SERIES = {
    "light": ("#0072b2", "#d55e00", "#009e73", "#b85c92", "#a87000", "#7d858f", "#8a5a3c", "#2f8fc7"),
    "dark": ("#56b4e9", "#f08a3c", "#2fc79a", "#e39ac5", "#f0b429", "#8d959f", "#b07a55", "#2f8fc7"),
}
"""Colours `theme:c0` to `theme:c7`: Okabe and Ito's, made to stand out 3:1 from either paper (WCAG 1.4.11).

The second blue is the last, and none is the ink, in which intervals are drawn over bars.
"""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A table as it is shown: strings as they are, numbers as `formatting.number` writes them."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure that plotly draws.

    Strings of traces and layout are shown as they are: plotly would read tags in them, so they are escaped, but for
    `Markup`. A colour may be `theme:NAME`, a field of `mpl_style.Theme`, `c0` to `c7`, `scale` or `signed_scale`; it
    follows the page's theme.
    """

    name: str  # unique on its page; also the figure's id
    title: str
    caption: str  # what one sees, in a sentence or two; also what a screen reader says
    traces: Sequence[Mapping[str, Any]]  # as plotly.js takes them, of plain values and numpy arrays
    layout: Mapping[str, Any] = field(default_factory=dict)
    # The numbers in it, for readers who can't see or hover it; under the figure, folded.
    table: Numbers = field(default_factory=lambda: Numbers((), ()))


@dataclass(frozen=True, slots=True)
class Assets:
    """What a page needs of this module, for the macros `head` and `foot`."""

    policy: str  # its content security policy
    data: Markup  # its data elements
    scripts: Markup  # its script elements, in the order in which they run


def assets(plots: Sequence[Plot] = (), data: Mapping[str, object] | None = None, own: Sequence[str] = ()) -> Assets:
    """Scripts, data and policy of a page that shows these plots; without any plotly stays out, which is 5 MB.

    A script of the page reads `data` as `softprune.data(NAME)`; `own` are texts of such scripts, which run last.
    """
    drawn = []
    for plot in plots:
        traces, layout = _plain(plot.traces, for_plotly=True), _plain(plot.layout, for_plotly=True)
        drawn.append({"name": plot.name, "traces": traces, "layout": layout})
    known: dict[str, object] = {"palettes": palettes(), "plots": drawn, **(data or {})}
    scripts = [*([_plotly()] if plots else []), read_script("interactive.js"), *own]
    elements = []
    for text in scripts:
        # A browser hashes what it parsed: text that would end early, or that it would normalise, must not get there.
        if "</script" in text.lower() or "<!--" in text or "\r" in text:
            raise SoftpruneError("a script that a page can hold", "one with </script, <!-- or CR in it", "fix it")
        elements.append(Markup(f"<script>{text}</script>"))
    return Assets(
        policy=policy(scripts),
        data=Markup("\n").join(data_element(name, value) for name, value in known.items()),
        scripts=Markup("\n").join(elements),
    )


def policy(scripts: Sequence[str]) -> str:
    """A content security policy under which these scripts run, and no others; nothing is asked of a network."""
    hashes = " ".join(dict.fromkeys(f"'sha256-{_hash(text)}'" for text in scripts)) or "'none'"
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {hashes}"


def data_element(name: str, value: object) -> Markup:
    """A JSON data element. No text in it can end the element, or begin a comment or another script in it."""
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup('<script type="application/json" id="data-{}">{}</script>').format(name, Markup(text))


def read_script(name: str) -> str:
    """A script of the templates folder."""
    return (OWN / name).read_text(encoding="utf-8")


def palettes() -> dict[str, dict[str, object]]:
    """Colours by theme and name; `scale` and `signed_scale` are plotly's lists of places and colours."""
    from matplotlib.colors import to_hex

    themes = {}
    places = [at / 8 for at in range(9)]
    for name, theme in (("light", LIGHT), ("dark", DARK)):
        colours: dict[str, object] = {field: getattr(theme, field) for field in Theme.__dataclass_fields__}
        colours |= {f"c{at}": colour for at, colour in enumerate(SERIES[name])}
        for scale in ("scale", "signed_scale"):
            colours[scale] = [[place, to_hex(getattr(theme, scale)(place))] for place in places]
        themes[name] = colours
    return themes


@cache
def _plotly() -> str:
    return str(get_plotlyjs())


@cache
def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _plain(value: object, *, for_plotly: bool = False) -> object:
    """What JSON can hold; a number that isn't finite is null: not measured.

    plotly reads tags and entities in every text, so that strings for it are escaped, but for `Markup`.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, for_plotly=for_plotly) for key, item in value.items()}
    if isinstance(value, str):
        if for_plotly and not isinstance(value, Markup) and any(char in value for char in "&<>"):
            value = str(escape(value))
        return value.encode("utf-8", "replace").decode("utf-8")  # a lone half of a character can't be written
    if isinstance(value, Sequence):
        return [_plain(item, for_plotly=for_plotly) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
