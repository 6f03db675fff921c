"""Several tasks behind one prompt: the sets of each alone, batches that mix answers, a ticket for them all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from whole_runs import TINY

from softprune.config import resolve
from softprune.data import load_task, select_sets
from softprune.data.definition_loading import read_definition
from softprune.errors import SoftpruneError
from softprune.evaluation.predict import predict
from softprune.models.base import Backbone
from softprune.pipelines.xprompt import execute
from softprune.prompts.ticket import Ticket
from softprune.training.scoring import ScoredSet, Scoring, score_prompts
from tickets import ticket_of, vectors_of


def test_each_task_has_the_sets_that_it_has_alone(task_file: Path) -> None:
    joined = select_sets(load_task(f"demo+{task_file}").load(), shots=21, limit_report=9, seed=3)
    for task in ("demo", str(task_file)):
        loaded = load_task(task)
        alone = select_sets(loaded.load(), shots=10, limit_report=4, seed=3)
        other = select_sets(loaded.load(), shots=10, limit_report=4, seed=4)
        for name in ("train", "select", "report"):
            mine = [e for e in getattr(joined, name) if e.task == loaded.id]
            assert [e.id for e in mine] == [f"{loaded.id}:{e.id}" for e in getattr(alone, name)]
            assert [(e.text, e.answers, e.gold) for e in mine] == [
                (e.text, e.answers, e.gold) for e in getattr(alone, name)
            ]
        assert [e.id for e in alone.train] != [e.id for e in other.train], "another seed draws others"
    assert Counter(e.task for e in joined.train + joined.select) == {"demo": 10, "mood": 10}
    assert Counter(e.task for e in joined.report) == {"demo": 4, "mood": 4}


REFUSED = (
    ("trec+trec", "each once", "trec twice"),
    ("trec+multirc", "counted by accuracy", "multirc, which is counted by f1"),
    ("trec+cnn_dailymail", "answers to choose from", "cnn_dailymail, whose texts are written"),
    ("trec+copa", "scored alike", "trec by sum, copa by mean"),
    ("trec+ag_newz", "a known task", "ag_newz"),
    ("trec+", "a known task", '""'),
)


@pytest.mark.parametrize(("name", "expected", "found"), REFUSED)
def test_what_cannot_be_counted_together_is_refused(name: str, expected: str, found: str) -> None:
    with pytest.raises(SoftpruneError) as error:
        load_task(name)
    assert expected in error.value.expected
    assert found in error.value.found


def test_fewer_shots_than_tasks_are_refused_and_files_name_no_parts(task_file: Path, tmp_path: Path) -> None:
    splits = load_task(f"demo+{task_file}").load()
    with pytest.raises(SoftpruneError, match=r"task\.shots of at least 2"):
        select_sets(splits, shots=1, seed=0)
    (tmp_path / "own.yaml").write_text("parts: [trec, ag_news]\n")
    with pytest.raises(SoftpruneError, match="joined by name"):
        read_definition(tmp_path / "own.yaml")


@pytest.mark.parametrize("name", ["sentence", "t5_v1_1", "gpt2", "bert"])
def test_answers_in_a_mixed_batch_score_as_apart(
    name: str, backbone_of: Callable[..., Backbone], task_file: Path
) -> None:
    backbone = backbone_of(name)
    sets = select_sets(load_task(f"demo+{task_file}").load(), shots=12, seed=0)
    prompts = torch.stack([vectors_of(backbone, 3, seed) for seed in (0, 1)]) * 4 * backbone.embeddings_VH().std()
    scoring = Scoring(backbone.check_loss("auto"), "sum")

    def scored(examples: tuple) -> dict[str, tuple[float, ...]]:
        data = ScoredSet(examples, backbone.encode(examples, 60))
        found = score_prompts(backbone, prompts, data, scoring)[0]
        return dict(zip([e.id for e in examples], found.answer_scores, strict=True))

    mixed = scored(sets.train)
    apart = {}
    for task in ("demo", "mood"):
        apart |= scored(tuple(e for e in sets.train if e.task == task))
    assert {len(scores) for scores in mixed.values()} == {3, 4}, "tasks of different numbers of answers"
    largest = max(abs(score) for scores in apart.values() for score in scores)
    pairs = [(a, b) for key, scores in apart.items() for a, b in zip(mixed[key], scores, strict=True)]
    assert max(abs(a - b) for a, b in pairs) <= 1e-5 * largest
    shifted = [(a, b) for (a, _), (_, b) in zip(pairs[1:], pairs[:-1], strict=True)]
    assert max(abs(a - b) for a, b in shifted) > 1e-2 * largest


def test_a_run_on_two_tasks_and_its_ticket(
    tiny_models: Callable[[str], Path], task_file: Path, tmp_path: Path, one_thread: None
) -> None:
    keys = ["kind=xprompt", f"task.id=demo+{task_file}", *TINY]
    keys += ["task.shots=24", "task.limit_report=20", "task.report_seed=9"]  # one of those where the two bars differ
    small = ["search.strategy=grid", "search.token_ratios=0.5", "search.piece_ratios=0.5", "tuning.epochs=1"]
    model = tiny_models("sentence")
    recipe = resolve([*keys, *small, "search.epochs=1", "selection.seeds=0", f"backbone.name={model}"])
    execute(recipe, tmp_path / "run", "test", "")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "winner.jsonl").read_text().splitlines()]
    golds = {task: Counter(line["gold"] for line in lines if line["id"].startswith(task)) for task in ("demo", "mood")}
    best = sum(count.most_common(1)[0][1] for count in golds.values()) / len(lines)
    shared = max(sum(count[answer] for count in golds.values()) for answer in range(4)) / len(lines)
    assert info["results"]["constant"]["value"] == pytest.approx(best)
    assert best > shared, "one position for both tasks would be a lower bar"
    assert info["task"]["id"] == "demo+mood"
    predicted = info["results"]["winner"]["predicted"]
    assert sum(n for answer, n in predicted.items() if answer.startswith("mood: ")) == 10

    ticket = Ticket.load(tmp_path / "run")
    assert [part.id for part in ticket.definition.parts] == ["demo", "mood"]
    rows = [{"task": "demo", "text": "it never arrived"}, {"task": "mood", "text": "the cast of it", "label": "good"}]
    first, second = predict(ticket, rows)
    both = (load_task("demo"), load_task(task_file))
    assert (first.answers, second.answers) == tuple(task.definition.answers for task in both)
    assert (first.gold, second.gold) == (None, "positive")
    for row, found in (({"text": "a red box"}, 'a column "task"'), ({"task": "trec", "text": "x"}, '"trec" in row 0')):
        with pytest.raises(SoftpruneError) as error:
            list(predict(ticket, [row]))
        assert found in f"{error.value.expected} {error.value.found}"


def test_a_ticket_of_one_task_is_written_as_ever(backbone_of: Callable[..., Backbone]) -> None:
    assert "parts" not in ticket_of(backbone_of("sentence"), "demo", 2, 0).document()["definition"]
