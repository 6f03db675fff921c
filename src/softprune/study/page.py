"""The page of a study: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softprune.errors import SoftpruneError
from softprune.recipe import Study
from softprune.runs import atomic
from softprune.study.findings import findings_of, shown
from softprune.study.texts import published_tables

try:
    from softprune.report import templating
except ImportError as error:
    raise SoftpruneError("jinja2 for pages", str(error), "pip install 'softprune[report]'") from error

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(folder: Path, study: Study, info: Mapping[str, Any]) -> Path:
    """Write the page of a finished study."""
    found = findings_of(info["findings"])
    template = templating.environment(_TEMPLATES).get_template("study.html.j2")
    text = template.render(
        study=study,
        info=info,
        findings=found,
        tables=[*found.tables, *published_tables(study.published)],
        shown=shown,
    )
    page = folder / "index.html"
    atomic.write_bytes(page, text.encode("utf-8", errors="replace"))
    return page
