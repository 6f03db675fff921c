"""How pages are made of templates: one style, HTML and control characters escaped, no undefined name passed over."""

from __future__ import annotations

from pathlib import Path

from softprune.errors import SoftpruneError
from softprune.printable import printable
from softprune.report import formatting

try:
    import jinja2
except ImportError as error:
    raise SoftpruneError("jinja2 for pages", str(error), "pip install 'softprune[report]'") from error

OWN = Path(__file__).parent / "templates"


def environment(*folders: Path) -> jinja2.Environment:
    """The templates of some folders, which may include the report's own (`style.css`), and filters for numbers."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, OWN]),
        autoescape=True,
        finalize=_escape_controls,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("percent", "points", "interval", "number", "seconds", "p_value", "storage", "printable"):
        templates.filters[name] = getattr(formatting, name)
    return templates


def _escape_controls(value: object) -> object:
    """Texts without control characters; HTML as it is, since it was made of such texts."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
