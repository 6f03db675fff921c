"""Whatever a file holds: a value of ours or a SoftpruneError, and nothing else. The same examples in every run."""

from __future__ import annotations

import copy
import gzip
import io
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softprune.data import load_task, task_names
from softprune.data.definition import Definition, named_sources
from softprune.data.definition_loading import check_definition, read_definition
from softprune.data.row_files import Located, read_rows
from softprune.data.scaffold import guess, write_task
from softprune.data.template import examples_from
from softprune.errors import SoftpruneError
from softprune.types import Example

pytestmark = pytest.mark.slow

fuzzed = settings(
    derandomize=True,
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],  # files are overwritten
)
HERE = Path("task.yaml")
DEFINITIONS = Path(str(load_task("rte").folder))

words = st.sampled_from(
    ["text", "label", "mask", "{text}", "{mask}", "{", "{{", "}", "{0}", "{text.x}", "{text!r}", "a"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words | st.dates()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars.filter(bool), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [*Definition.model_fields, "file", "official", "files", "labels", "columns", "train", "held_out"]
)


def ours(function, *arguments):
    """What it gives, or None for a SoftpruneError; any other error is the test's failure."""
    try:
        return function(*arguments)
    except SoftpruneError:
        return None


def _examples(definition, source, rows):
    return list(examples_from(definition, source, rows))


def check(value):
    """A definition, or a SoftpruneError; what passes reads any row, or complains."""
    definition = ours(check_definition, value, HERE)
    assert definition is None or isinstance(definition, Definition)
    if definition is None:
        return False
    for source in named_sources(definition.sources).values():
        names = dict.fromkeys(source.columns.values(), "0") | dict.fromkeys(definition.fields, "{x}")
        for label in (*source.labels, None):
            rows = [Located({definition.gold: label, **names}, "here")]
            for example in ours(_examples, definition, source, rows) or ():
                assert isinstance(example, Example)
    return True


@fuzzed
@given(st.dictionaries(KEYS | st.text(max_size=4), values, max_size=8) | values)
def test_any_value_as_a_task(value):
    check(value)


def test_the_check_fails_where_something_else_is_raised():
    with pytest.raises(ZeroDivisionError):
        ours(lambda: 1 / 0)


def paths_of(value, here=()):
    """The way to every value inside a value."""
    yield here
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_of(inner, (*here, key))


SHIPPED = [yaml.safe_load((DEFINITIONS / f"{name}.yaml").read_text()) for name in task_names()]


@st.composite
def mutated(draw):
    """A shipped task with one to three of its values replaced, removed or renamed."""
    task = copy.deepcopy(draw(st.sampled_from(SHIPPED)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(sorted(filter(None, paths_of(task)), key=str) or [("id",)]))
        parent = task
        for key in path[:-1]:
            parent = parent[key]
        kind = draw(st.sampled_from(["replace", "remove", "rename"]))
        if kind == "replace" or isinstance(parent, list):
            parent[path[-1]] = draw(values)
        elif kind == "remove":
            parent.pop(path[-1], None)
        else:
            parent[draw(st.text(max_size=6) | words)] = parent.pop(path[-1], None)
    return task


@fuzzed
@given(mutated())
def test_any_slip_in_a_task_that_ships(task):
    check(task)


def test_the_tasks_that_ship_pass_the_same_check():
    assert all(check(task) for task in SHIPPED)


ROWS = [{"text": f'row {i}, "quoted" é\n', "label": "ab"[i % 2], "n": i / 7} for i in range(40)]


def parquet():
    pyarrow = pytest.importorskip("pyarrow")
    sink = io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(ROWS), sink, row_group_size=16)
    return sink.getvalue()


def valid(name):
    """A file's bytes, by its ending."""
    if name.endswith("parquet"):
        return parquet()
    lines = [json.dumps(row) for row in ROWS]
    if "csv" in name:
        quoted = [",".join('"' + str(value).replace('"', '""') + '"' for value in row.values()) for row in ROWS]
        lines = ["text,label,n", *quoted]
    data = "\n".join(lines).encode()
    return gzip.compress(data) if name.endswith("gz") else data


NAMES = ("a.jsonl", "a.csv", "a.jsonl.gz", "a.csv.gz", "a.parquet")
FORMATS = {"jsonl": "jsonl", "csv": "csv", "parquet": "parquet"}


def rows_in(path, data):
    path.write_bytes(data)
    rows = ours(lambda: list(read_rows(path, FORMATS[path.name.split(".")[1]])))
    assert rows is None or all(isinstance(row.row, dict) and str(path) in row.where for row in rows)
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_valid_files_give_all_rows(tmp_path, name):
    assert len(rows_in(tmp_path / name, valid(name))) == len(ROWS)


@pytest.mark.parametrize("name", NAMES)
@fuzzed
@given(data=st.binary(max_size=200))
def test_any_bytes(tmp_path, name, data):
    rows_in(tmp_path / name, data)
    if name.endswith("gz"):
        rows_in(tmp_path / name, gzip.compress(data, 1))


@pytest.mark.parametrize("name", NAMES)
@fuzzed
@given(data=st.data())
def test_damaged_files(tmp_path, name, data):
    whole = bytearray(valid(name))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(whole)) | st.just(len(whole)))
    rows_in(tmp_path / name, bytes(whole[:end]))


tables = st.integers(2, 5).flatmap(
    lambda width: st.tuples(
        st.lists(st.text(max_size=6) | words, min_size=width, max_size=width, unique=True),
        st.lists(st.lists(st.text(max_size=8) | words, min_size=width, max_size=width), min_size=2, max_size=8),
    )
)


@fuzzed
@given(tables)
def test_any_columns_make_a_task_that_loads(tmp_path, table):
    names, cells = table
    path, out = tmp_path / "a.jsonl", tmp_path / "a.yaml"
    out.unlink(missing_ok=True)
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in cells))
    found = ours(guess, path)
    if found is not None:
        splits = ours(write_task, found, out, path)
        assert out.exists() == (splits is not None)
        assert splits is None or {e.answers for e in splits.train}
    if out.exists():
        assert read_definition(out).template == found.template


def test_a_plain_table_makes_a_task(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert len(write_task(guess(path), tmp_path / "a.yaml", path).train) == 32
