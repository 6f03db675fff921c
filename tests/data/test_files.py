"""Readers: one row at a time, whatever the format, and every complaint with its place."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from decimal import Decimal

import numpy as np
import pytest

from softprune.data.row_files import RowWriter, file_format, plain_row, read_rows
from softprune.errors import SoftpruneError

TEXT = "a text of some length " * 20


def rows_of(path, header=None):
    return [located.row for located in read_rows(path, file_format(path), header)]


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
    next(read_rows(path, file_format(path)))
    tracemalloc.start()
    rows = read_rows(path, file_format(path))
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


@pytest.mark.parametrize(
    ("encoding", "mark", "advised"),
    [
        ("utf-16-le", b"\xff\xfe", "iconv -f utf-16 "),
        ("utf-16-be", b"\xfe\xff", "iconv -f utf-16 "),
        ("utf-32-le", b"\xff\xfe\0\0", "iconv -f utf-32 "),
        ("utf-32-be", b"\0\0\xfe\xff", "iconv -f utf-32 "),
        ("utf-16-le", b"", "iconv -f utf-16le "),
        ("utf-16-be", b"", "iconv -f utf-16be "),
        ("utf-32-le", b"", "iconv -f utf-32le "),
        ("utf-32-be", b"", "iconv -f utf-32be "),
        ("cp1252", b"", "iconv -f windows-1252 "),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl.gz"])
def test_the_conversion_that_is_advised_gives_the_text(tmp_path, name, encoding, mark, advised):
    text = 'text,label\n"“5 €”",a\n' if "csv" in name else '{"text": "“5 €”", "label": "a"}\n'
    data = mark + text.encode(encoding)
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(SoftpruneError, match="UTF-8") as caught:
        rows_of(path)
    assert advised in caught.value.do
    assert ("gzip -dc FILE |" in caught.value.do) == name.endswith("gz")
    new = tmp_path / name.removesuffix(".gz")
    new.write_bytes(data.decode(advised.split()[2]).encode())
    assert rows_of(new) == [{"text": "“5 €”", "label": "a"}]


@pytest.mark.parametrize("encoding", ["utf-16le", "utf-16be", "utf-32le", "utf-32be"])
def test_letters_of_other_scripts_in_wide_encodings(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes("текст,метка\nда,нет\n".encode(encoding))
    with pytest.raises(SoftpruneError, match=f"zero bytes as in {encoding.upper()}") as caught:
        rows_of(path)
    assert f"iconv -f {encoding} -t utf-8 FILE > NEW" in caught.value.do
    path.write_text("текст,метка\nда,нет\n", encoding="utf-8")
    assert rows_of(path) == [{"текст": "да", "метка": "нет"}]


def test_cells_longer_than_pythons_limit_come_back(tmp_path):
    row = {"text": "a b, " * 60_000, "label": "x"}
    with RowWriter(tmp_path / "a.csv") as writer:
        writer.write([row])
    assert rows_of(tmp_path / "a.csv") == [row]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"text";"label"\n"a, b";"x"\n', "semicolons in"),
        ('text;label\n"a, b";"x"\n', "semicolons in"),
        ('"text"\t"label"\n"a"\t"x"\n', "tabs in"),
        ("text|label\na|x\n", "bars in"),
    ],
)
def test_other_separators_are_named(tmp_path, text, found):
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert f"columns with commas between them: {found} {path}, line 1" == told(path)
    path.write_text('"text; all",label\nx,y\n')
    assert rows_of(path) == [{"text; all": "x", "label": "y"}]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"text": "a"}, {"text": "b"}]', "an array from"),
        ('[\n {"text": "a"}\n]', "an array from"),
        ('{\n "text": "a"\n}', "an object over several lines"),
        ('{"text": {"0": "a", "1": "b"}, "label": {"0": "x", "1": "y"}}', "columns of a whole table"),
        ('{"0": {"text": "a"}, "1": {"text": "b"}}', "columns of a whole table"),
        ('{"columns": ["text"], "index": [0], "data": [["a"]]}', "columns of a whole table"),
        ('{"schema": {"fields": []}, "data": [{"text": "a"}]}', "columns of a whole table"),
    ],
)
def test_other_forms_of_json_are_named(tmp_path, text, found):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert told(path).startswith(f"one JSON object per line: {found}")
    path.write_text('{"idx": {"a": 1}, "target": {"b": 2}}\n')
    assert len(rows_of(path)) == 1


def test_missing_values_of_every_library_are_null(tmp_path):
    pandas = pytest.importorskip("pandas")
    missing = [float("nan"), float("inf"), np.nan, np.float32("nan"), Decimal("NaN"), pandas.NA, pandas.NaT]
    assert plain_row(dict(enumerate(missing))) == dict.fromkeys(range(len(missing)))
    row = {"a": np.int64(2), "b": np.bool_(True), "c": np.float32(0.5), "d": Decimal("1.5"), "e": [np.nan, "nan"]}
    assert plain_row(row) == {"a": 2, "b": True, "c": 0.5, "d": 1.5, "e": [None, "nan"]}
    assert plain_row(row)["b"] is True
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": NaN, "b": [Infinity, 1.5], "c": "NaN"}\n')
    assert rows_of(path) == [{"a": None, "b": [None, 1.5], "c": "NaN"}]
    path = tmp_path / "a.parquet"
    pandas.DataFrame({"a": [1.0, float("nan")], "b": ["x", None]}).to_parquet(path)
    assert rows_of(path) == [{"a": 1.0, "b": "x"}, {"a": None, "b": None}]
