"""Answers in written texts: what is found, what counts as the same, what is wrong with a pattern, and shipped tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from softprune.data import load_task, metric_named
from softprune.data.data_statistics import compute_statistics
from softprune.data.definition_loading import check_definition
from softprune.data.exact_match import comparable, extract_answer, is_same_answer
from softprune.data.metrics import ExactMatch, pair_texts
from softprune.errors import ManyErrors, SoftpruneError
from softprune.types import Scores

SUMS = r"""
fields: [question]
template: "{question} = {mask}"
target: answer
extract: '#### (\S+)'
sources:
  file:
    files: {train: sums.jsonl, validation: sums.jsonl}
"""
ROWS = [{"question": f"{a} + 2", "answer": f"{a} and 2 make {a + 2}.\n#### {a + 2}"} for a in (1, 2, 3, 1)]


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "sums.yaml").write_text(SUMS)
    return tmp_path / "sums.yaml"


@pytest.mark.parametrize(
    ("text", "pattern", "found"),
    [
        ("1 + 1 = 2\n#### 2", r"#### (\S+)", "2"),
        ("#### 1, no: #### 2", r"#### (\S+)", "2"),  # the last one
        ("it is 7 or 8 apples", r"\d+", "8"),  # no group: the whole match
        ("a  b\n\tc", r"(?s)a.*", "a b c"),
        ("x=4", r"y=(\d)|x=(\d)", "4"),  # the first group that took part
        ("#### ", r"#### (.*)", None),
        ("no mark", r"#### (\S+)", None),
        ("", r"#### (\S+)", None),
        (" the  whole\ntext ", None, "the whole text"),
        ("  ", None, None),
    ],
)
def test_what_is_found(text: str, pattern: str | None, found: str | None) -> None:
    assert extract_answer(text, pattern) == found


SAME = [
    *(("1,000", "1000.0"), ("$5", "5"), ("5.", "5"), ("$1,234.50.", "1234.5"), ("-3", "-3.0"), ("-$3", "-3")),
    *((".5", "0.50"), ("0", "-0"), ("+2", "2"), ("blue", "blue"), ("007", "7")),
]
OTHER = [
    *(("1,000", "1"), ("1,00", "100"), ("1,5", "15"), ("5", "-5"), ("5%", "5"), ("1e3", "1000"), ("nan", "NaN")),
    *(("blue", "Blue"), ("blue.", "blue"), ("1/2", "0.5"), (".", ""), ("3 4", "34"), ("1000000000000000001", "1e18")),
    ("1000000000000000001", "1000000000000000000"),  # equal as floats
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_answer(one: str, other: str) -> None:
    assert comparable(one) == comparable(other)
    assert hash(comparable(one)) == hash(comparable(other))


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_another_answer(one: str, other: str) -> None:
    assert comparable(one) != comparable(other)


def test_nothing_found_is_wrong_even_twice() -> None:
    assert is_same_answer("#### 4", "so: #### 4.0", r"#### (\S+)")
    assert not is_same_answer("4", "#### 4", r"#### (\S+)")
    assert not is_same_answer("4", "4", r"#### (\S+)")


def test_counts_are_of_right_and_wrong() -> None:
    metric = metric_named("exact_match", extract=r"#### (\S+)")
    scores = Scores(texts=("#### 4", "#### 5", "4", "is #### 1,000"), references=("#### 4",) * 3 + ("#### 1000",))
    assert metric.counts(scores).tolist() == [[1, 1], [0, 1], [0, 1], [1, 1]]
    assert metric.value(scores) == 0.5
    assert (metric.grain, metric.reads) == (1.0, "texts")
    assert metric_named("exact_match").counts(scores).tolist() == [[1, 1], [0, 1], [0, 1], [0, 1]]
    with pytest.raises(SoftpruneError, match="one generated text per example"):
        metric.value(Scores(texts=("#### 4",)))


def test_the_rest_is_filled_in(task_file: Path) -> None:
    task = load_task(task_file)
    assert (task.definition.metric, task.definition.targets) == ("exact_match", "text")
    assert task.metric == ExactMatch(r"#### (\S+)")
    assert task.choice.name == "loss"
    task_file.write_text(SUMS.replace("extract: '#### (\\S+)'", "metric: exact_match"))
    assert load_task(task_file).metric == ExactMatch(None)


def test_the_best_constant_answer(task_file: Path) -> None:
    task = load_task(task_file)
    found = compute_statistics(task, task.load())
    assert found.constant == 0.5  # 3, of 1 + 2, twice
    references = ["#### 7", "#### 1,000", "#### 1000.0", "#### 7 or 8"]
    assert ExactMatch(r"#### (.*)").constant_text(references) == "#### 1,000"  # two of the four
    assert ExactMatch(r"#### (\S+)").constant_text(references) == "#### 7"  # of equals the first


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (r"'#### (\S+)'", "'#### ((a)'", 'missing ), unterminated subpattern at character 6, before "((a)"'),
        (r"'#### (\S+)'", "'a**'", 'multiple repeat at character 3, before "*"'),
        (r"'#### (\S+)'", "'a{99999999999}'", "the repetition number is too large"),
        (r"'#### (\S+)'", r"'#### (\S+)'" + "\nmetric: rougeL", "the metric exact_match beside `extract`"),
        ("target: answer", "answers: [a, b]", "`target` beside `extract`"),
        (r"'#### (\S+)'", "4", "text in `extract`"),
    ],
)
def test_a_mistake_in_the_yaml(task_file: Path, old: str, new: str, told: str) -> None:
    text = SUMS.replace(old, new)
    assert text != SUMS
    task_file.write_text(text)
    with pytest.raises(SoftpruneError) as caught:
        load_task(task_file)
    assert not isinstance(caught.value, ManyErrors)
    assert told in str(caught.value)


def test_a_target_without_an_answer(task_file: Path) -> None:
    data = task_file.with_name("sums.jsonl")
    data.write_text(data.read_text() + json.dumps({"question": "4 + 2", "answer": "four and two\nmake 6"}) + "\n")
    with pytest.raises(SoftpruneError) as caught:
        load_task(task_file).load()
    assert str(caught.value.expected) == r"text in answer in which `extract` finds an answer (#### (\S+))"
    assert caught.value.found.endswith('line 5, which ends in "four and two make 6"')


def test_keys_are_written_where_they_say_something(task_file: Path) -> None:
    """Records of tasks without the key stay as they were; with it, a dump is read back as it was."""
    dump = load_task(task_file).definition.model_dump(mode="json")
    assert dump["extract"] == r"#### (\S+)"
    assert check_definition(dump, task_file).extract == dump["extract"]
    for name in ("rte", "cnn_dailymail"):
        dump = load_task(name).definition.model_dump(mode="json")
        assert {"extract", "parts"}.isdisjoint(dump)
        assert "elsewhere" not in dump["sources"]["hub"]
        keys = ["columns", "labels", "rows", "verified", "repository", "config", "splits"]
        assert list(dump["sources"]["hub"]) == keys
    both = load_task("trec+ag_news").definition.model_dump(mode="json")
    assert [part["id"] for part in both["parts"]] == ["trec", "ag_news"]


# --- GSM8K after MetaMathQA ---

MATH = load_task("metamath_gsm8k")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 1200+600=$<<1200+600=1800>>1,800.\n#### 1,800", "1800"),
        ("So it is 7.\n#### 7\nThe answer is: 7", "7"),
        ("It is $x = \\boxed{16}$.The answer is: 16", "16"),
        ("The answer is $50.\n\nQuestion: how many?", "50"),
        ("The answer is: 3. No, the answer is: 4.", "4"),
        ("The final answer is 20%.", "20"),
        ("The answer is:\n-5", "-5"),
        ("The answer is: \\frac{3}{4}", "\\frac{3}{4}"),
    ],
)
def test_both_ways_to_end_are_found(text: str, answer: str) -> None:
    assert isinstance(MATH.metric, ExactMatch)
    assert MATH.metric.is_right(text, f"#### {answer}")
    assert not MATH.metric.is_right(text, f"#### {answer}1")


def test_texts_that_do_not_end_are_wrong() -> None:
    assert isinstance(MATH.metric, ExactMatch)
    for text in ("7", "#### ", "The answer is: ", "The result is 7"):
        assert MATH.metric.answer(text) is None


def test_rows_of_both_read_as_one_task() -> None:
    splits = MATH.load(Path(__file__).parent.parent / "fixtures" / "tasks" / "official" / "metamath_gsm8k")
    assert splits.train is not None
    assert splits.validation is not None
    assert isinstance(MATH.metric, ExactMatch)
    answers = [[MATH.metric.answer(e.answers[0]) for e in part] for part in (splits.train, splits.validation)]
    assert answers == [["7", "\\frac{3}{4}", "2,000", "250"], ["30", "1,800", "22"]]
    mill = "A mill grinds 250 sacks of flour in a week. How many sacks does it grind in 8 weeks?"
    assert [example.group == mill for example in splits.train] == [False, False, True, True]
    text = f"Question: {mill} Think step by step.\nAnswer:"
    assert splits.train[2].text == text
    references = tuple(example.answers[0] for example in splits.validation)
    assert MATH.metric.value(pair_texts(references, splits.validation)) == 1
    assert MATH.metric.value(pair_texts(references[::-1], splits.validation)) == pytest.approx(1 / 3)


def test_joined_tasks_still_write_no_texts() -> None:
    with pytest.raises(SoftpruneError, match="whose texts are written"):
        load_task("trec+metamath_gsm8k")
