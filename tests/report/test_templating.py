from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from softprune.report.templating import environment


def test_a_page_elsewhere_has_the_style_and_the_filters(tmp_path: Path) -> None:
    (tmp_path / "own.j2").write_text('<style>{% include "style.css" %}</style>{{ name }} {{ 0.5|percent }}')
    page = environment(tmp_path).get_template("own.j2").render(name="<b>")
    assert "prefers-color-scheme: dark" in page
    assert page.endswith("&lt;b&gt; 50.0")


def test_what_is_not_given_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "own.j2").write_text("{{ nothing }}")
    with pytest.raises(jinja2.UndefinedError):
        environment(tmp_path).get_template("own.j2").render()
