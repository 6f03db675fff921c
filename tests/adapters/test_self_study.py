"""Self-study: whose texts the rows are, that they are written once in a run, and how they share batches with others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import transformers
from adapted import TEXTS, example, fresh, recipe_of, run
from pefts import difference, no_prompt

from killing import DiedError, dying_after_saves
from models import CORPUS
from softprune.adapters.base import AdapterPlan
from softprune.adapters.cartridge import Cartridge, document_ids, new_cartridge
from softprune.adapters.jobs import AdapterTrainable
from softprune.adapters.self_study import REQUESTS, as_examples, as_text, write_rows
from softprune.config import Recipe
from softprune.errors import SoftpruneError
from softprune.models.batching import take_rows
from softprune.pipelines import adapt as pipeline
from softprune.training.scoring import Scoring
from softprune.types import Batch

Models = Callable[[str], Path]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
DOCUMENT = "\n".join(CORPUS[:3]) + "\n"
ANSWER_TOKENS = 6


@pytest.fixture(params=["gpt2", "llama"])
def cartridge(request: pytest.FixtureRequest, tiny_models: Models) -> Iterator[Cartridge]:
    backbone = fresh(tiny_models(request.param), "float64")
    made = new_cartridge(backbone, AdapterPlan("cartridge", tokens=5), 0)
    made.study(document_ids(backbone, DOCUMENT))
    yield made
    made.detach()


def rows_of(cartridge: Cartridge, count: int = 8, seed: int = 0) -> list[dict[str, str]]:
    ids = document_ids(cartridge.backbone, DOCUMENT)
    return write_rows(cartridge, ids, count, seed=seed, answer_tokens=ANSWER_TOKENS)


def test_answers_are_the_models_behind_the_document(cartridge: Cartridge, tiny_models: Models) -> None:
    backbone = cartridge.backbone
    rows = rows_of(cartridge)
    assert len(rows) > 4
    folder = tiny_models("llama" if backbone.tokenizer("a")["input_ids"][0] == 1 else "gpt2")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    first = backbone.tokenizer.bos_token_id
    behind, alone = [], []
    for row in rows:
        text = backbone.tokenizer(as_text(row["question"], None))["input_ids"]
        start = int(text[0] == first)
        for ids, said in ((document_ids(backbone, DOCUMENT) + text[start:], behind), (text, alone)):
            written = model.generate(
                torch.tensor([ids]), max_new_tokens=ANSWER_TOKENS, do_sample=False, pad_token_id=backbone.pad_id
            )
            said.append(backbone.tokenizer.decode(written[0, len(ids) :], skip_special_tokens=True).strip())
    assert [row["answer"] for row in rows] == behind
    assert alone != behind


def test_questions_are_of_parts_of_the_document(cartridge: Cartridge, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    generate = type(cartridge.backbone).generate

    def noted(backbone: Any, prompts: torch.Tensor, batch: Batch, tokens: int) -> list[str]:
        lengths = batch.input_mask.sum(1).tolist()
        for ids, length in zip(batch.input_ids.tolist(), lengths, strict=True):
            read.append(backbone.tokenizer.decode(ids[:length], skip_special_tokens=True))
        return generate(backbone, prompts, batch, tokens)

    monkeypatch.setattr(type(cartridge.backbone), "generate", noted)
    rows_of(cartridge)
    asked = [text.partition("\n\n") for text in read if any(request in text for request in REQUESTS)]
    assert len(asked) == 8
    whole = cartridge.backbone.tokenizer.decode(document_ids(cartridge.backbone, DOCUMENT), skip_special_tokens=True)
    assert all(part.strip() in whole for part, _, _ in asked)
    assert len({part for part, _, _ in asked}) > 4
    assert len({request for _, _, request in asked}) == len(REQUESTS)


def test_the_seed_draws_them(cartridge: Cartridge) -> None:
    assert rows_of(cartridge) == rows_of(cartridge)
    assert rows_of(cartridge, seed=1) != rows_of(cartridge)


@pytest.mark.parametrize(("said", "expected"), [(" What is\nNext", 1), ("Question: what is", 1), (" \n ", 0)])
def test_a_question_is_asked_once_and_an_empty_one_never(
    said: str, expected: int, cartridge: Cartridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(cartridge.backbone), "generate", lambda _, __, batch, ___: [said] * len(batch))
    if not expected:
        with pytest.raises(SoftpruneError, match=r"none among 8 of[\s\S]*leave adapter\.self_study out"):
            rows_of(cartridge)
        return
    (row,) = rows_of(cartridge)
    assert row["question"].lower() == "what is"


def test_an_answer_ends_where_the_next_question_begins(cartridge: Cartridge, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "To sell fish.\nOn the quay.\nQuestion: What else?\nAnswer: No"
    monkeypatch.setattr(type(cartridge.backbone), "generate", lambda _, __, batch, ___: [said] * len(batch))
    assert rows_of(cartridge) == [{"question": "To sell fish.", "answer": "To sell fish.\nOn the quay."}]


def test_rows_of_both_kinds_in_a_batch(tiny_models: Models) -> None:
    backbone = fresh(tiny_models("gpt2"), "float64")
    cartridge = new_cartridge(backbone, AdapterPlan("cartridge", tokens=5), 0)
    cartridge.study(document_ids(backbone, DOCUMENT))
    chosen = [example(text, n) for n, text in enumerate(TEXTS)]
    written = as_examples([{"question": "what is it", "answer": "a red box and an apple"}], None)
    mixed = [chosen[0], written[0], chosen[1]]
    batch = backbone.batch(backbone.encode(mixed, 64, 32))
    scoring = Scoring("likelihood", "sum")
    workspace = cast(Any, SimpleNamespace(backbone=backbone, scoring=scoring))
    teacher = cartridge.teacher()
    trainable = AdapterTrainable(workspace, cartridge, teacher)

    def alone(examples: Sequence[Any]) -> torch.Tensor:
        part = backbone.batch(backbone.encode(examples, 64, 32))
        return teacher.losses(backbone, no_prompt(backbone), part, "likelihood", "sum", [len(part)])

    together = trainable._taught(teacher, no_prompt(backbone), batch).detach()
    wanted = torch.cat([alone([each]) for each in mixed]).detach()
    assert difference(together, wanted) <= 1e-9
    assert bool((wanted > 0).all())
    # As one batch over answers, the row with one answer would teach nothing.
    at_once = teacher.losses(backbone, no_prompt(backbone), batch, "likelihood", "sum", [3]).detach()
    assert float(at_once[1].abs()) <= 1e-12


def test_rows_are_taken_with_their_answers(tiny_models: Models) -> None:
    backbone = fresh(tiny_models("gpt2"))
    written = as_examples([{"question": "what is it", "answer": "a red box and an apple"}], None)
    chosen = [example(text, n) for n, text in enumerate(TEXTS[:2])]
    batch = backbone.batch(backbone.encode([chosen[0], written[0], chosen[1]], 64, 32))
    for at, examples in (([1], written), ([2, 0], [chosen[1], chosen[0]])):
        part, wanted = take_rows(batch, torch.tensor(at)), backbone.batch(backbone.encode(examples, 64, 32))
        assert torch.equal(part.answer_ids, wanted.answer_ids)
        assert torch.equal(part.answer_mask, wanted.answer_mask)
        assert torch.equal(part.gold, wanted.gold)
        assert torch.equal(part.input_ids[:, : wanted.input_ids.shape[1]], wanted.input_ids)
        assert torch.equal(part.input_mask.sum(1), wanted.input_mask.sum(1))


# --- whole runs ---


@pytest.fixture
def recipe(tiny_models: Models, task_file: Path, tmp_path: Path) -> Recipe:
    (tmp_path / "document.txt").write_text(DOCUMENT)
    keys = ("prompt.tokens=5", "tuning.lr=0.02", f"adapter.document={tmp_path / 'document.txt'}")
    own = ("adapter.self_study=10", f"task.max_answer_length={ANSWER_TOKENS}")
    return recipe_of(tiny_models("gpt2"), task_file, "cartridge", *keys, *own)


def test_a_run_writes_them_once_and_goes_on_bit_by_bit(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = run(recipe, tmp_path / "whole")
    lines = (tmp_path / "whole" / "self_study.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert 5 < len(rows) <= 10
    assert f"self-study: {len(rows)} questions in self_study.jsonl, of 10 asked for" in info["notes"]
    assert info["cost"]["steps"] == 2 * -(-(19 + len(rows)) // 8)

    def write_again(*_: object, **__: object) -> None:
        raise AssertionError("rows were written a second time")

    with pytest.raises(DiedError), dying_after_saves():
        run(recipe, tmp_path / "broken")
    monkeypatch.setattr(pipeline, "write_rows", write_again)
    run(recipe, tmp_path / "broken")
    for file in ("self_study.jsonl", "adapter/adapter.safetensors", "predictions/adapted.jsonl"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "broken" / file).read_bytes()
    with pytest.raises(AssertionError, match="a second time"):
        run(recipe, tmp_path / "another")


def test_other_methods_have_none(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match=r"adapter\.self_study for cartridge alone[\s\S]*found: +lora"):
        run(recipe_of(tiny_models("gpt2"), task_file, "lora", "adapter.self_study=3"), tmp_path / "run")
