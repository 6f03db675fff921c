"""Readers: one row at a time, whatever the format, and every complaint with its place."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pytest

from softprune.errors import SoftpruneError
from softprune.tasks.files import format_of, read_rows

TEXT = "a text of some length " * 20


def rows_of(path, header=None):
    return [located.row for located in read_rows(path, format_of(path), header)]


def told(path):
    with pytest.raises(SoftpruneError) as caught:
        rows_of(path)
    return f"{caught.value.expected}: {caught.value.found}"


def written(path, n):
    """n rows of about half a kilobyte each."""
    rows = [{"text": f"{TEXT}{i}", "label": "a"} for i in range(n)]
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=500)
        return path
    lines = ["text,label"] if "csv" in path.name else []
    lines += [f"{row['text']},a" if "csv" in path.name else json.dumps(row) for row in rows]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


def peak_of(path, hold):
    """The most bytes that Python holds while reading the file, one row after the other or all of them."""
    next(read_rows(path, format_of(path)))
    tracemalloc.start()
    rows = read_rows(path, format_of(path))
    held = list(rows) if hold else [sum(1 for _ in rows)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, len(held)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz", "a.csv.gz", "a.parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    path = written(tmp_path / name, 4000)  # 1.8 MB of text; Parquet has 1024 rows of it in memory
    assert peak_of(path, hold=False)[0] < 1_000_000
    assert peak_of(path, hold=True)[0] > 1_700_000


def test_quotes_and_breaks_of_every_kind(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\r\n"x, ""y""","one\r\ntwo\n\nthree"\r\n\r\nlast,row')
    assert rows_of(path) == [{"a": 'x, "y"', "b": "one\r\ntwo\n\nthree"}, {"a": "last", "b": "row"}]
    path.write_bytes(b"a,b\r1,2\r3,4\r")
    assert rows_of(path) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"one\ntwo",2\n3\n')
    assert f"1 values in {path}, line 4" in told(path)
    path.write_bytes(b"a,b\n1,2\n3,caf\xe9\n")
    assert told(path) == f"text in UTF-8: byte 0xe9 in {path}, line 3"
    path.write_bytes(b"\xef\xbb\xbfa,\xe9\n")
    assert told(path) == f"text in UTF-8: byte 0xe9 in {path}, line 1"


@pytest.mark.parametrize(
    ("header", "found"),
    [("a,,b", "column 2 without one"), ("a, ,b", "column 2"), ("a,b,a", "a twice"), (",a,b", "column 1")],
)
def test_every_column_has_a_name_of_its_own(tmp_path, header, found):
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n1,2,3\n")
    assert found in told(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz", "a.csv.gz"])
def test_an_empty_file_gives_no_rows(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    assert rows_of(tmp_path / name) == []
    (tmp_path / name).write_bytes(b"")
    assert rows_of(tmp_path / name) == []


def test_a_truncated_archive_gives_its_rows_and_then_an_error(tmp_path):
    path = written(tmp_path / "a.jsonl.gz", 2000)
    path.write_bytes(path.read_bytes()[:-200])
    read = read_rows(path, "jsonl")
    assert next(read).row["label"] == "a"
    with pytest.raises(SoftpruneError, match="gzip archive"):
        list(read)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("[" * 100_000, "one JSON object"),
        ('{"a": ' + "9" * 5000 + "}", "one JSON object"),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"a": "\\uD83D\\uDE00 \\udc00"}', "surrogate"),
        ("nul", "one JSON object"),
    ],
)
def test_json_that_python_alone_would_take_or_choke_on(tmp_path, line, found):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n')
    assert found in told(path)
    assert "line 2" in told(path)


def test_a_surrogate_pair_is_a_character(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "\\ud83d\\ude00"}\n')
    assert rows_of(path) == [{"a": "😀"}]
