"""Copy what finished studies say into docs/studies: one page a study, with its command as anybody would type it.

python scripts/collect_studies.py runs/studies docs/studies
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PLACES = {"--data": "DATA", "--out": "runs/studies"}
"""What stands for the folders of whoever ran them."""


def page(text: str) -> str:
    """A study's text without the folders of the machine that it was made on."""
    for flag, place in PLACES.items():
        text = re.sub(rf"({flag}) \S+", rf"\1 {place}", text)
    return text


def main(root: Path, docs: Path) -> None:
    """Copies every study of a folder."""
    for study in sorted(root.glob("*/study.md")):
        (docs / f"{study.parent.name}.md").write_text(page(study.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
