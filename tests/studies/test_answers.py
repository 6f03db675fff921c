"""Predictions files, as studies read them."""

from __future__ import annotations

import json
from pathlib import Path

from softprune.studies.run_result import FinishedRun


def test_a_line_separator_within_a_text_ends_no_line(tmp_path: Path) -> None:
    texts = ["one\u2028two", "three\x85four"]
    (tmp_path / "predictions").mkdir()
    lines = "".join(json.dumps({"id": text}, ensure_ascii=False) + "\n" for text in texts)
    assert len(lines.splitlines()) > len(texts)
    (tmp_path / "predictions" / "tuned.jsonl").write_text(lines, encoding="utf-8")
    assert [line["id"] for line in FinishedRun(tmp_path, "demo", 0).answers("tuned")] == texts
