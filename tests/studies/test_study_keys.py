"""What a study's runs are made of: whose keys win, what overrides are called, that all mistakes are told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softprune.config import Study, list_shipped, load_study, resolve
from softprune.errors import ManyErrors, SoftpruneError


def study(**keys: Any) -> Study:
    return Study.model_validate({"title": "t", "scales": {"smoke": {"tasks": ["demo"]}}} | keys)


def test_the_nearer_key_wins() -> None:
    """Study < task < scale < run < what the user changed; each level is seen once the ones above it are gone."""
    levels: dict[str, Any] = {
        "change": {"tuning.epochs": 5},
        "run": {"tuning": {"epochs": 4}},
        "scale": {"tuning.epochs": 3},
        "task": {"tuning": {"epochs": 2}},
        "study": {"tuning.epochs": 1},
    }
    for expected in (5, 4, 3, 2, 1):
        made = study(
            keys=levels.get("study", {}),
            by_task={"demo": levels.get("task", {}), "other": {"tuning.epochs": 9}},
            scales={"smoke": {"keys": levels.get("scale", {})}},
            change=levels.get("change", {}),
        )
        assert made.run("demo", 0, levels.get("run", {}))["tuning"]["epochs"] == expected
        levels.pop(next(iter(levels)))
    assert "tuning" not in study().run("demo", 0, {})


def test_a_run_has_its_task_seed_backbone_and_data() -> None:
    made = study(seed=3, data="there", backbone="tiny").run("demo", 7, {"kind": "tune"})
    expected = {"backbone": {"name": "tiny"}, "task": {"id": "demo", "report_seed": 3, "data": "there"}, "seed": 7}
    assert made == {**expected, "kind": "tune"}
    assert study().run("demo", 0, {"backbone.name": "tiny-causal"})["backbone"]["name"] == "tiny-causal"
    assert resolve(base=made).task.report_seed == 3


def test_nothing_of_the_study_is_changed_by_its_runs() -> None:
    made = study(keys={"search": {"token_ratios": [0.3]}}, change={"search": {"epochs": 2}})
    before = made.resolved()
    made.run("demo", 0, {"search.strategy": "grid"})["search"]["token_ratios"].append(0.9)
    assert made.resolved() == before


def test_overrides_are_keys_of_the_study_or_of_its_runs() -> None:
    made = load_study(
        "table-4",
        [
            "seeds=1",
            "backbone=tiny-causal",
            "cluster.cpus=2",
            "backbone.dtype=float32",
            "backbone.revision=123",
            "tuning.epochs=3",
            "task.id=demo,trec",
            "task.data=1",
        ],
    )
    assert (made.size.seeds, made.size.backbone, made.cluster.cpus) == (1, "tiny-causal", 2)
    assert (made.size.tasks, made.data) == (("demo", "trec"), "1")
    # Texts stay texts, as they do in recipes.
    assert made.change == {"backbone": {"dtype": "float32", "revision": "123"}, "tuning": {"epochs": 3}}
    assert load_study("table-4").size.seeds == 3


def test_an_option_of_the_scale_gives_way_to_what_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    scales = "scales: {smoke: {options: {many: 3}}, full: {options: {many: 30}}}"
    file.write_text(f"kind: study\ntitle: t\noptions: {{many: 1, far: 2}}\n{scales}\n")
    assert load_study(file).settings == {"many": 3, "far": 2}
    assert load_study(file, ["options.many=7", "options.far=8"]).settings == {"many": 7, "far": 8}
    assert load_study(file, ["options.many=7", "scale=full"]).settings["many"] == 7
    with pytest.raises(SoftpruneError, match=r'option of the study[\s\S]*"mani"[\s\S]*did you mean "many"'):
        load_study(file, ["options.mani=7"])


def test_odd_options_are_told(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("kind: study\ntitle: t\noptions: {1: 2}\n")
    with pytest.raises(ManyErrors, match=r"options[\s\S]*option of the study"):
        load_study(tmp_path / "s.yaml", ["options.far=7"])


def test_all_mistakes_are_told_at_once_and_each_once(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "kind: study\ntitle: t\nseeds: -1\n"
        "scales: {smoke: {tasks: [demo, trec]}}\nkeys: {tuning: {epochz: 1}, seed: 3}\n"
        "variants: [{name: a, label: a, keys: {search.epochs: x}}, {name: b, label: b, keys: {backbone.name: tiny}}]\n"
        "published: [{title: t, columns: [a, b], rows: [[1]]}]\n"
    )
    with pytest.raises(ManyErrors) as caught:
        load_study(file, ["tuning.lr=-1", "nothing"])
    text = str(caught.value)
    assert text.startswith(f"7 mistakes in study {file}\n")
    for told in ('"nothing"', "seeds: greater", '"epochz"', "variant a: search.epochs", "tuning.lr: ", "of 2 cells"):
        assert text.count(told) == 1
    assert "keys without what the study says of all its runs\nfound:    seed\n" in text


def test_misspelt_keys_rows_and_recipe_keys_are_told_together(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "kind: study\ntitel: t\nvariants:\n"
        "  - {name: a, label: a, row: tunedd, keys: {prunning.levels: token}}\n  - {name: b}\n  - {name: c, lable: c}\n"
    )
    with pytest.raises(ManyErrors) as caught:
        load_study(file)
    text = str(caught.value)
    assert text.startswith(f"5 mistakes in study {file}\n")
    assert 'a known key of a study\nfound:    "titel"\ndo:       did you mean "title"' in text
    assert 'did you mean "tuned"? available: adapted, control, random, tuned, winner\n' in text
    assert "variants.1.label, which is required\nfound:    nothing\ndo:       add label: ... (text): as tables" in text
    assert 'a known key of variants.2\nfound:    "lable"\ndo:       did you mean "label"' in text
    assert 'variant a: a known key of a recipe (recipe of a run)\nfound:    "prunning"' in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: study\ntile: t\nvariants: [3, {name: a, label: 3}]", r"variants\.1\.label: [\s\S]*write label: \.\.\."),
        ("kind: xprompt", r"a study[\s\S]*kind: xprompt[\s\S]*softprune run"),
        ("task: {id: demo}", r"a study[\s\S]*kind: xprompt"),
        ("kind: study", r"title, which is required"),
        ("kind: study\ntitle: t\nscale: full\nscales: {smoke: {}}", r"a scale that the study has: smoke[\s\S]*'full'"),
        ("kind: study\ntitle: t\nscales: {large: {}}", r"large"),
        (
            "kind: study\ntitle: t\nscales: {smoke: {seedz: 1}}",
            r'of scales\.smoke[\s\S]*"seedz"[\s\S]*did you mean "seeds"',
        ),
        ("kind: study\ntitle: t\nexecutor: rya", r'"rya"[\s\S]*did you mean "ray"'),
        ("kind: study\ntitle: t\nvariants: 3", r"variants"),
        ("- a", r"as a mapping of keys"),
    ],
)
def test_what_is_no_study_is_told(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(SoftpruneError, match=expected):
        load_study(file)


@pytest.mark.parametrize("name", list_shipped("study"))
def test_what_ships_loads_at_both_scales_and_says_what_it_takes(name: str) -> None:
    for scale in ("smoke", "full"):
        made = load_study(name, [f"scale={scale}"])
        assert made.title
        assert made.question
        assert made.source
        assert made.size.hardware
        assert made.size.hours
        assert made.size.tasks
        assert load_study(name, [f"scale={scale}", "seeds=9"]).matters != made.matters


def test_what_is_written_loads_to_the_same_study(small: Callable[..., Study], tmp_path: Path) -> None:
    made = small("tuning.epochs=1", "seeds=2")
    (tmp_path / "s.yaml").write_text(made.dump())
    assert load_study(tmp_path / "s.yaml") == made
    assert load_study(tmp_path / "s.yaml", ["seeds=1"]) != made


def test_texts_for_readers_and_other_scales_do_not_matter(small: Callable[..., Study]) -> None:
    made = small().matters
    texts = ["title=x", "question=y", "source=z", "scales.smoke.hours=long", "scales.full.seeds=9", "executor=ray"]
    assert small(*texts, "seeds=1").matters == made
    for change in ("seeds=2", "tuning.epochs=1", "scale=full", "seed=1", "backbone=tiny"):
        assert small(change).matters != made


@pytest.mark.parametrize(
    ("hours", "told"),
    [
        ("0.31 of one core, measured", "0.31 hours of one core, measured"),
        ("about 90, estimated", "about 90 hours, estimated"),
        ("0.02 and the downloads", "0.02 hours and the downloads"),
        ("7", "7 hours"),
        ("30 minutes", "30 minutes"),
        ("seconds", "seconds"),
        ("", ""),
    ],
)
def test_hours_have_their_unit(hours: str, told: str) -> None:
    assert study(scales={"smoke": {"hours": hours}}).size.takes == told
