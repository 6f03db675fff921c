"""Characters that no file system and no encoder takes: one message, wherever they come in."""

from __future__ import annotations

from functools import partial

import pytest

from softprune.config import CompareRecipe, Recipe, TokensRecipe, load_config, resolve
from softprune.config.study import load_study
from softprune.config.yaml_io import check_writable, parse_yaml
from softprune.data import load_task
from softprune.data.definition_loading import read_definition
from softprune.errors import SoftpruneError

KEYS = ("task.id", "task.data", "backbone.name", "prompt.file", "cluster.address")
BAD = ("a\0b", "a\ud800b")


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("key", KEYS)
def test_values_from_python(bad, key):
    section, name = key.split(".")
    for made in (lambda: resolve(base={section: {name: bad}}), lambda: resolve([f"{key}={bad}"])):
        with pytest.raises(SoftpruneError) as caught:
            made()
        assert f"`{key}`" in caught.value.expected
        assert str(caught.value).encode().count(b"\0") == 0


@pytest.mark.parametrize(
    ("load", "kind"),
    [
        (partial(load_config, Recipe), "xprompt"),
        (partial(load_config, Recipe), "tune"),
        (partial(load_config, TokensRecipe), "tokens"),
        (partial(load_config, CompareRecipe), "compare"),
        (load_study, "study"),
    ],
)
@pytest.mark.parametrize("escaped", [r"a\0b", r"a\ud800b"])
def test_yaml_of_every_kind(tmp_path, load, kind, escaped):
    path = tmp_path / "r.yaml"
    path.write_text(f'kind: {kind}\ntask: {{id: "{escaped}"}}\n')
    with pytest.raises(SoftpruneError) as caught:
        load(path)
    assert "`task.id`" in caught.value.expected


def test_task_files_and_paths(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text('title: "a\\0b"\n')
    with pytest.raises(SoftpruneError, match="`title`"):
        load_task(path)
    for name in (f"{tmp_path}/a\0b.yaml", f"{tmp_path}/a\ud800b.yaml"):
        with pytest.raises(SoftpruneError, match="task YAML"):
            load_task(name)
        with pytest.raises(SoftpruneError, match="recipe"):
            load_config(Recipe, name)
    assert read_definition(load_task("rte").folder / "rte.yaml").id == "rte"


def test_what_files_hold_passes():
    check_writable(parse_yaml('a: &x [*x, "é 😀 \\t", 1, null]'), "here")
    with pytest.raises(SoftpruneError, match=r"`a\.1`"):
        check_writable({"a": ["b", "\0"]}, "here")
