"""Both layouts of every task give the same examples; every complaint says what, where and what to do."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from softprune.data import load_task, task_names
from softprune.errors import ManyErrors, SoftpruneError

FIXTURES = Path(__file__).parent.parent / "fixtures" / "tasks"
READ = [task for task in task_names() if task != "demo"]


@pytest.fixture
def rte(tmp_path):
    return Path(shutil.copytree(FIXTURES / "official" / "rte", tmp_path / "rte"))


def test_thirteen_tasks_are_read():
    assert len(READ) == 13


@pytest.mark.parametrize("task", READ)
def test_official_and_hub_layouts_give_identical_examples(task):
    official = load_task(task).load(FIXTURES / "official" / task)
    hub = load_task(task).load(FIXTURES / "hub" / task)
    same_names_and_labels = task == "imdb"
    assert (official.layout, hub.layout) == ("official", "official" if same_names_and_labels else "hub")
    seen = task not in ("cnn_dailymail", "metamath_gsm8k")  # no copy of their files was at hand
    assert (official.verified, hub.verified) == (seen, same_names_and_labels)
    assert len(official.train) >= 4
    assert official.train == hub.train
    assert official.validation == hub.validation


def test_gold_ids_and_groups():
    cb = load_task("cb").load(FIXTURES / "official" / "cb").train
    assert [example.gold for example in cb] == [2, 0, 1, 0]
    assert [example.id for example in cb] == ["4", "0", "9", "2"]
    multirc = load_task("multirc").load(FIXTURES / "official" / "multirc").train
    assert [example.index for example in multirc] == list(range(8))
    assert [example.id for example in multirc][:4] == ["0-0-0", "0-0-1", "0-0-2", "0-1-3"]
    assert [example.group for example in multirc] == ["0"] * 5 + ["3"] * 3
    assert [example.gold for example in multirc] == [1, 0, 1, 0, 1, 1, 0, 0]
    assert load_task("multirc").metric.positive == 1


def test_quotes_and_line_breaks_survive():
    boolq = load_task("boolq").load(FIXTURES / "official" / "boolq").train
    assert boolq[3].text.endswith('The mill, called "Gust", turns every Sunday.')
    news = load_task("ag_news").load(FIXTURES / "official" / "ag_news").train
    assert news[0].text == 'Paper mill sold A buyer called it "a fair deal", and paid at once. topic:'
    imdb = load_task("imdb").load(FIXTURES / "official" / "imdb").train
    assert imdb[0].text == "A slow start.  Then it never gets going at all. sentiment:"


def test_without_a_validation_set_dev_is_reported_and_said():
    splits = load_task("wsc").load(FIXTURES / "official" / "wsc")
    assert splits.validation is None
    assert splits.report == splits.dev
    assert "no validation set" in splits.notes[0]
    assert load_task("rte").load(FIXTURES / "official" / "rte").reported == "validation"


@pytest.mark.parametrize("below", ["", "RTE", "superglue/RTE"])
def test_a_folder_above_will_do(tmp_path, below):
    shutil.copytree(FIXTURES / "official" / "rte", tmp_path / below, dirs_exist_ok=True)
    assert load_task("rte").load(tmp_path).layout == "official"


def test_a_hub_folder_with_shards_and_configuration(tmp_path):
    shutil.copytree(FIXTURES / "hub" / "rte", tmp_path / "rte")
    for split in ("train", "validation"):
        shutil.move(tmp_path / f"rte/{split}.parquet", tmp_path / f"rte/{split}-00000-of-00001.parquet")
    assert load_task("rte").load(tmp_path).layout == "hub"


def test_unknown_task_gets_a_suggestion():
    with pytest.raises(SoftpruneError, match='did you mean "boolq"'):
        load_task("bolq")


def test_missing_folder_and_files(tmp_path):
    with pytest.raises(SoftpruneError, match=r"no such folder.*nowhere"):
        load_task("rte").load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SoftpruneError, match=r"train.jsonl, dev32.jsonl, val.jsonl") as caught:
        load_task("rte").load(tmp_path)
    assert "notes.txt" in caught.value.found
    with pytest.raises(SoftpruneError, match="a file"):
        load_task("rte").load(tmp_path / "notes.txt")


def test_missing_column_lists_both_sides(rte):
    (rte / "train.jsonl").write_text(json.dumps({"premise": "A.", "hypo": "B.", "label": "entailment"}) + "\n")
    with pytest.raises(SoftpruneError) as caught:
        load_task("rte").load(rte)
    assert "premise, hypothesis, label, idx" in caught.value.expected
    assert 'no "hypothesis"' in caught.value.found
    assert "line 1" in caught.value.found
    assert "premise, hypo, label" in caught.value.found


def test_missing_column_of_a_nested_layout(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"idx": 1, "text": "A."}\n')
    with pytest.raises(SoftpruneError, match='no "passage"'):
        load_task("multirc").load(tmp_path)


def test_unknown_label(rte):
    row = {"premise": "A.", "hypothesis": "B.", "label": "maybe", "idx": 0}
    with (rte / "val.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(SoftpruneError, match=r'"maybe" in .*val.jsonl, line 5'):
        load_task("rte").load(rte)


def test_value_that_is_not_text(rte):
    row = {"premise": None, "hypothesis": "B.", "label": "entailment", "idx": 0}
    (rte / "val.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(SoftpruneError, match=r"text in premise"):
        load_task("rte").load(rte)


def test_empty_file(rte):
    (rte / "train.jsonl").write_text("\n")
    with pytest.raises(SoftpruneError, match=r"at least one example for train"):
        load_task("rte").load(rte)


@pytest.mark.parametrize(("line", "told"), [("{broken", "one JSON object"), ("[1]", "a list")])
def test_malformed_json_line(rte, line, told):
    with (rte / "val.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(SoftpruneError, match=told) as caught:
        load_task("rte").load(rte)
    assert "val.jsonl, line 5" in caught.value.found


def test_malformed_csv_line(tmp_path):
    shutil.copytree(FIXTURES / "official" / "ag_news", tmp_path / "news")
    with (tmp_path / "news/test.csv").open("a") as file:
        file.write('"1","only a title"\n')
    with pytest.raises(SoftpruneError, match=r"2 values in .*test.csv, line 5"):
        load_task("ag_news").load(tmp_path / "news")


def test_not_utf8(rte):
    with (rte / "train.jsonl").open("ab") as file:
        file.write('{"premise": "caf\xe9"}\n'.encode("latin-1"))
    with pytest.raises(SoftpruneError, match=r"byte 0xe9 in .*train.jsonl, line 5"):
        load_task("rte").load(rte)


def test_broken_archives(tmp_path):
    (tmp_path / "train.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(SoftpruneError, match="gzip"):
        load_task("imdb").load(tmp_path)
    (tmp_path / "train.jsonl.gz").unlink()
    (tmp_path / "train.parquet").write_bytes(b"not parquet")
    with pytest.raises(SoftpruneError, match="Parquet"):
        load_task("imdb").load(tmp_path)


class FakeDatasets:
    """Stands in for the library `datasets`: what it was asked, and what it gives or raises."""

    def __init__(self, *outcomes):
        self.outcomes, self.calls = list(outcomes), []

    def load_dataset(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def hub_rows(task, split):
    path = FIXTURES / "hub" / task / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_hub_by_name(monkeypatch):
    fake = FakeDatasets({split: hub_rows("cb", split) for split in ("train", "validation")})
    monkeypatch.setitem(sys.modules, "datasets", fake)
    splits = load_task("cb").load()
    assert fake.calls == [(("aps/super_glue", "cb"), {})]
    assert splits.train == load_task("cb").load(FIXTURES / "official" / "cb").train
    assert (splits.source, splits.layout, splits.verified) == ("aps/super_glue/cb", "hub", False)


def test_two_data_sets_of_the_hub_are_one_task(monkeypatch):
    task, folder = load_task("metamath_gsm8k"), FIXTURES / "official" / "metamath_gsm8k"
    train, test = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("MetaMathQA.jsonl", "test.jsonl")
    )
    fake = FakeDatasets({"train": train}, {"train": train, "test": test})
    monkeypatch.setitem(sys.modules, "datasets", fake)
    splits = task.load()
    assert [call[0] for call in fake.calls] == [("meta-math/MetaMathQA", None), ("openai/gsm8k", "main")]
    assert splits.source == "meta-math/MetaMathQA, openai/gsm8k/main"
    assert splits.train == task.load(folder).train
    assert splits.validation == task.load(folder).validation
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets({"train": train}, {"train": train}))
    with pytest.raises(SoftpruneError, match="a split test of openai/gsm8k"):
        task.load()


def test_a_repository_that_is_still_a_script_loads_its_parquet_branch(monkeypatch):
    rows = {"train": hub_rows("trec", "train"), "test": hub_rows("trec", "test")}
    fake = FakeDatasets(RuntimeError("Dataset scripts are no longer supported"), rows)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    assert len(load_task("trec").load().validation) == 6
    assert fake.calls[1][1] == {"revision": "refs/convert/parquet"}


def test_unreachable_hub_says_to_pass_a_folder(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets(ConnectionError("no route to host")))
    with pytest.raises(SoftpruneError, match=r"(?s)no route to host.*--data FOLDER"):
        load_task("cb").load()


def test_a_hub_that_is_silent_is_asked_once_and_briefly(monkeypatch):
    import huggingface_hub

    asked = []

    def silent(self, repository, timeout):
        asked.append((repository, timeout))
        raise TimeoutError("no answer")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", silent)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets(ConnectionError("offline mode is enabled")))
    with pytest.raises(SoftpruneError, match=r"doesn't answer \(TimeoutError\), and nothing is in the cache"):
        load_task("cb").load(patient=False)
    assert asked == [("aps/super_glue", 3.0)]
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    rows = {split: hub_rows("cb", split) for split in ("train", "validation")}
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets(rows))  # what the cache holds
    assert load_task("cb").load(patient=False).layout == "hub"


def test_local_hub_folders_read_as_datasets_reads_them(tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(FIXTURES / "hub" / "cb"), cache_dir=str(tmp_path))
    assert list(loaded["train"]) == hub_rows("cb", "train")


OWN = """
id: moods
version: 1
title: Moods
instruction: Name the mood.
fields:
  note: {shortenable: true}
template: "{note} mood: {mask}"
answers: [sad, glad]
gold: mood
metric: accuracy
sources:
  file:
    format: csv
    files: {train: notes.csv, validation: more.csv}
    columns: {note: Text}
    labels: {s: sad, g: glad}
"""


def test_own_csv_beside_its_yaml(tmp_path):
    (tmp_path / "moods.yaml").write_text(OWN)
    (tmp_path / "notes.csv").write_text('Text,mood\n"Rain, again",s\nSun,g\n', encoding="utf-8-sig")
    (tmp_path / "more.csv").write_text("Text,mood\nFog,s\n")
    splits = load_task(tmp_path / "moods.yaml").load()
    assert [(example.text, example.gold, example.id) for example in splits.train] == [
        ("Rain, again mood:", 0, "0"),
        ("Sun mood:", 1, "1"),
    ]
    assert (splits.layout, len(splits.validation)) == ("file", 1)


def test_every_mistake_of_a_yaml_is_told_at_once(tmp_path):
    wrong = OWN.replace("{note} mood: {mask}", "{nota} mood:").replace("metric: accuracy", "metric: acuracy")
    wrong = wrong.replace("g: glad", "g: merry").replace("note: Text", "nte: Text")
    (tmp_path / "moods.yaml").write_text(wrong)
    with pytest.raises(ManyErrors) as caught:
        load_task(str(tmp_path / "moods.yaml"))
    told = str(caught.value)
    for part in ("{nota}", "one {mask}", 'did you mean "accuracy"', "g -> merry", "`nte`"):
        assert part in told


def test_unknown_keys_and_missing_keys_are_told_at_once(tmp_path):
    (tmp_path / "moods.yaml").write_text(OWN.replace("title: Moods", "titel: Moods").replace("template:", "tempalte:"))
    with pytest.raises(ManyErrors) as caught:
        load_task(tmp_path / "moods.yaml")
    for part in ('did you mean "title"', 'did you mean "template"', "`template`"):
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", 'template: "{a"'])
def test_what_is_no_task_yaml_at_all(tmp_path, text):
    (tmp_path / "moods.yaml").write_text(text)
    with pytest.raises(SoftpruneError):
        load_task(tmp_path / "moods.yaml")
    with pytest.raises(SoftpruneError, match=r"absent\.yaml: No such file"):
        load_task(tmp_path / "absent.yaml")
