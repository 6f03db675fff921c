"""The page of a comparison: one HTML file that needs nothing else, for a reader who didn't run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softprune.errors import SoftpruneError
from softprune.runs import atomic_io
from softprune.studies.comparison.columns import build_sections
from softprune.studies.comparison.texts import title

try:
    from softprune.report.interactive import assets
    from softprune.report.pictures import Picture, draw_pictures
    from softprune.report.templating import environment
    from softprune.studies.comparison.figures import plans
except ImportError as error:
    raise SoftpruneError(
        "matplotlib, jinja2 and plotly for pages", str(error), "pip install 'softprune[report]'"
    ) from error


def write_page(found: Mapping[str, Any], folder: Path) -> Path:
    """Write `figures/` (PNG and SVG) and `index.html` into a comparison's folder.

    Args:
        found: what its compare.json holds.
        folder: where.
    """
    pictures = draw_pictures(plans(found), folder / "figures")
    recipe = (folder / "resolved.yaml").read_text(encoding="utf-8")
    page = folder / "index.html"
    atomic_io.write_bytes(page, html(found, pictures, recipe).encode("utf-8", errors="replace"))
    return page


def html(found: Mapping[str, Any], pictures: list[Picture], recipe: str) -> str:
    """The page's text; `recipe` is resolved.yaml."""
    template = environment(Path(__file__).parent / "templates").get_template("compare.html.j2")
    return template.render(
        found=found,
        assets=assets(),
        title=title(found),
        sections=build_sections(found),
        pictures=pictures,
        recipe=recipe,
    )
