"""Predictions files, as studies read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from softprune.studies.run_result import FinishedRun


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029", "\x1c"])
def test_a_line_separator_within_a_text_ends_no_line(tmp_path: Path, separator: str) -> None:
    texts = [f"one{separator}two", "three"]
    (tmp_path / "predictions").mkdir()
    lines = "".join(json.dumps({"id": text, "gold": 0, "predicted": 0}, ensure_ascii=False) + "\n" for text in texts)
    assert len(lines.splitlines()) >= len(texts)
    (tmp_path / "predictions" / "tuned.jsonl").write_text(lines, encoding="utf-8")
    run = FinishedRun(tmp_path, "demo", 0)
    assert [line["id"] for line in run.answers("tuned")] == texts
    scored = run.scored("tuned")
    assert scored is not None
    assert scored.ids == tuple(texts)
