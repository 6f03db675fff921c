from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeReader, by_chance, made_texts, make_trace, prefers

from softprune.errors import SoftpruneError
from softprune.token_pruning.analysis.keywords import find_keywords, keyword_report, read_keywords
from softprune.token_pruning.analysis.words import word_table


def keep_all(piece: str, _: object) -> int:
    return 3


def test_keywords_of_a_file_or_a_list(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffGreat\r\n\r\n  wall   street \ngreat\n".encode())
    assert read_keywords(path) == ("great", "wall street")
    assert read_keywords(["Great", " "]) == ("great",)


@pytest.mark.parametrize("content", [None, "\n \n", b"\xff\xfe\x00"])
def test_a_file_without_keywords(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SoftpruneError):
        read_keywords(path)


def test_whole_words_in_any_case_and_the_longer_keyword_first() -> None:
    text = "Wall  Street walls wall STREETS street"
    trace = FakeReader(keep_all).trace([text])[0]
    found = find_keywords(word_table([trace]), ("wall", "street", "wall street"))
    assert [one.keyword for one in found] == ["wall street", "wall", "street"]
    assert [len(one.pieces) for one in found] == [3, 1, 2]  # pieces of up to four letters


def test_kept_and_chance_by_hand() -> None:
    traces = [
        make_trace("good film", [("good", 3), ("film", 1)], gold=1, predicted=1),
        make_trace("good good sea", [("good", 1), ("good", 3), ("sea", 3)], gold=1, predicted=1),
        make_trace("good tree", [("good", 1), ("tree", 3)], gold=1, predicted=0),
        make_trace("sea", [("sea", 3)], gold=0, predicted=0),
    ]
    report = keyword_report(word_table(traces), ("good", "absent"), resamples=300)
    (row,) = report.rows
    assert (row.words, row.texts, report.absent) == (4, 3, ("absent",))
    assert row.kept.value == pytest.approx(2 / 4)
    assert row.baseline == pytest.approx((1 / 2 + 2 * 2 / 3 + 1 / 2) / 4)
    accuracy = report.accuracy
    assert accuracy is not None
    assert (accuracy.texts, accuracy.texts_kept) == (3, 2)
    assert accuracy.whole.value == pytest.approx(2 / 3)
    assert (accuracy.when_kept.value, accuracy.when_dropped.value) == (1.0, 0.0)
    assert accuracy.forced_out is None


def test_forcing_out_what_the_class_depends_on() -> None:
    texts = [f"{text} good" for text in made_texts(60, words=8)]
    reader = FakeReader(keep_all, says=("good",))
    traces = reader.trace(texts, [1] * 60)
    report = keyword_report(word_table(traces), ("good",), reader, resamples=500)
    accuracy = report.accuracy
    assert accuracy is not None
    assert accuracy.effect is not None
    assert accuracy.beyond_random is not None
    assert accuracy.whole.value == 1.0
    assert accuracy.forced_out is not None
    assert accuracy.forced_out.value == 0.0
    assert (accuracy.effect.value, accuracy.effect.high) == (-1.0, -1.0)
    assert accuracy.random_out is not None
    assert accuracy.random_out.value == 1.0
    assert accuracy.beyond_random.value == -1.0
    assert reader.calls == 3


def test_forcing_out_what_nothing_depends_on() -> None:
    """Negative control: words that the model doesn't look at change nothing, and are kept as chance has it."""
    texts = made_texts(150)
    reader = FakeReader(by_chance, says=("good",))
    traces = reader.trace(texts, [i % 2 for i in range(150)])
    report = keyword_report(word_table(traces), ("cinematography", "sea"), reader, resamples=1000)
    assert report.overall.difference.interval is not None
    assert report.overall.difference.interval[0] < 0 < report.overall.difference.interval[1]
    assert not any(row.clear for row in (report.overall, *report.rows))
    assert report.accuracy is not None
    assert report.accuracy.effect is not None
    assert report.accuracy.effect.value == 0.0


def test_a_preferred_keyword_is_found() -> None:
    traces = FakeReader(prefers("sea")).trace(made_texts(80))
    report = keyword_report(word_table(traces), ("sea", "the"), resamples=1000)
    rows = {row.keyword: row for row in report.rows}
    assert rows["sea"].kept.value == 1.0
    assert rows["sea"].difference.low is not None
    assert rows["sea"].difference.low > 0
    assert rows["sea"].clear
    assert report.accuracy is None  # no true classes


def test_no_keyword_in_sight() -> None:
    report = keyword_report(word_table([make_trace("a b", [("a", 3), ("b", 1)])] * 2), ("zebra",), resamples=50)
    assert report.overall.words == 0
    assert report.overall.kept.value is None
    assert report.rows == ()
    assert report.accuracy is None
