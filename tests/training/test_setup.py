"""From a recipe to a workspace: the sealed report, disagreements with the backbone, the step size, the first prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toys import drawn, example

from softprune.config import resolve
from softprune.data import load_task
from softprune.errors import ManyErrors, SoftpruneError
from softprune.models import describe
from softprune.models.base import Backbone
from softprune.prompts.initialization import Initial, common_words, initial_prompt, settle_tokens
from softprune.training.input_checks import check, task_mistakes
from softprune.training.scoring import SealedSet

Backbones = Callable[..., Backbone]
Models = Callable[[str], Path]


def test_report_opens_once_after_every_choice() -> None:
    sealed = SealedSet([example(0), example(1)])
    assert len(sealed) == 2
    with pytest.raises(RuntimeError, match="before every choice was fixed"):
        sealed.open()
    sealed.fix("t0.5-p0.5")
    assert [e.index for e in sealed.open()] == [0, 1]
    with pytest.raises(RuntimeError, match="twice"):
        sealed.open()
    sealed.fix("another")
    with pytest.raises(RuntimeError, match="twice"):
        sealed.open()


def test_every_disagreement_with_the_backbone_is_told_at_once(tiny_models: Models) -> None:
    recipe = resolve(["prompt.tokens=125", "prompt.pieces=5", "tuning.loss=likelihood", "task.match=generate"])
    with pytest.raises(ManyErrors) as caught:
        check(recipe, describe(str(tiny_models("sentence"))))
    text = str(caught.value)
    assert text.startswith("4 mistakes in recipe for this backbone")
    for part in (
        "divide H = 32",
        "one of 1, 2, 4, 8, 16, 32",
        "rank or auto",
        "doesn't generate",
        "positions",
    ):
        assert part in text


def test_one_disagreement_is_told_alone(tiny_models: Models) -> None:
    with pytest.raises(SoftpruneError, match="divide H = 32") as caught:
        check(resolve(["prompt.pieces=5"]), describe(str(tiny_models("sentence"))))
    assert not isinstance(caught.value, ManyErrors)
    check(resolve(["prompt.pieces=5", "kind=tune"]), describe(str(tiny_models("sentence"))))
    check(resolve([]), describe(str(tiny_models("t5"))))


def rate(lr: str, backbone: Backbone) -> float:
    return resolve([f"tuning.lr={lr}"]).tuning.learning_rate(backbone.embeddings_rms())


def test_a_relative_step_size_counts_in_the_embeddings_size(backbone_of: Backbones) -> None:
    for model in ("t5", "bart_scaled"):
        backbone = backbone_of(model)
        with torch.no_grad():
            ids = torch.arange(backbone.embeddings_VH().shape[0])
            rms = float(backbone.model.get_input_embeddings()(ids).pow(2).mean().sqrt())
        assert rate("{relative: 0.5}", backbone) == pytest.approx(0.5 * rms, rel=1e-5)
        assert rate("0.3", backbone) == 0.3


def test_the_embeddings_size_is_read_in_parts(backbone_of: Backbones, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbone_of("t5")
    whole = backbone.embeddings_rms()
    asked: list[int] = []
    lookup = backbone.lookup
    monkeypatch.setattr(backbone, "lookup", lambda ids: asked.append(len(ids)) or lookup(ids))  # type: ignore[func-returns-value]
    monkeypatch.setattr("softprune.models.base.ROWS_AT_ONCE", 100)
    assert backbone.embeddings_rms() == pytest.approx(whole, rel=1e-6)
    assert max(asked) == 100
    assert sum(asked) == backbone.vocabulary


# --- the first prompt ---


def test_vocabulary_gives_embeddings_of_words(backbone_of: Backbones) -> None:
    backbone, task = backbone_of("bert"), load_task("demo")
    first = initial_prompt(resolve(["prompt.tokens=6"]), backbone, task)
    table = backbone.embeddings_VH()
    ids = backbone.tokenizer.convert_tokens_to_ids(list(first.words))
    assert torch.equal(first.vectors_PH, table[ids])
    assert len(set(ids)) == 6
    assert torch.equal(initial_prompt(resolve(["prompt.tokens=6"]), backbone, task).vectors_PH, first.vectors_PH)
    other = initial_prompt(resolve(["prompt.tokens=6", "seed=1"]), backbone, task)
    assert not torch.equal(other.vectors_PH, first.vectors_PH)


@pytest.mark.parametrize("model", ["t5", "llama", "bert", "gpt2"])
def test_words_are_words(model: str, backbone_of: Backbones) -> None:
    tokenizer = backbone_of(model).tokenizer
    ids, words = common_words(tokenizer, len(tokenizer))
    assert len(ids) > 20
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert not [w for w in words if w.startswith(("<", "["))]


def test_uniform_numbers_stay_in_range(backbone_of: Backbones) -> None:
    def start(seed: int) -> Initial:
        keys = ["prompt.tokens=100", "prompt.init=uniform", "prompt.uniform_range=0.25", f"seed={seed}"]
        return initial_prompt(resolve(keys), backbone_of("bert"), load_task("demo"))

    vectors = start(1).vectors_PH
    assert vectors.shape == (100, 32)
    assert -0.25 <= float(vectors.min()) < -0.245
    assert 0.245 < float(vectors.max()) <= 0.25
    assert abs(float(vectors.mean())) < 0.01
    assert start(1).words == ("",) * 100
    assert torch.equal(vectors, start(1).vectors_PH)
    assert not torch.equal(vectors, start(2).vectors_PH)


def test_text_and_labels(backbone_of: Backbones) -> None:
    backbone, task = backbone_of("bert"), load_task("demo")
    table = backbone.embeddings_VH()
    ids = backbone.tokenizer("the slow film", add_special_tokens=False)["input_ids"]
    recipe = resolve(["prompt.tokens=9", "prompt.init=text", "prompt.text=the slow film"])
    first = initial_prompt(recipe, backbone, task)
    assert torch.equal(first.vectors_PH[: len(ids)], table[ids])
    assert "sampled vocabulary" in first.notes[0]
    labels = initial_prompt(resolve(["prompt.tokens=9", "prompt.init=labels"]), backbone, task)
    assert labels.words[: len(task.definition.answers)] == task.definition.answers
    ids = backbone.tokenizer(task.definition.answers[1], add_special_tokens=False)["input_ids"]
    assert torch.equal(labels.vectors_PH[1], table[ids].mean(0))
    assert len(ids) > 1, "a label of several pieces"
    assert "4 class labels, the prompt has 9 tokens: the other 5" in labels.notes[0]
    (note,) = initial_prompt(resolve(["prompt.tokens=1", "prompt.init=labels"]), backbone, task).notes
    assert "4 class labels, the prompt has 1 tokens: the last 3" in note


def test_a_saved_prompt(backbone_of: Backbones, tmp_path: Path) -> None:
    save_file({"vectors_PH": drawn(3, 32)}, tmp_path / "mine.safetensors")
    recipe = resolve(["prompt.tokens=2", "prompt.init=file", f"prompt.file={tmp_path / 'mine.safetensors'}"])
    first = initial_prompt(recipe, backbone_of("bert"), load_task("demo"))
    assert torch.equal(first.vectors_PH, drawn(3, 32)[:2])
    assert first.words == ("mine.safetensors[0]", "mine.safetensors[1]")
    assert first.notes == ("mine.safetensors holds 3 tokens, the prompt has 2 tokens: the last 1 were left out",)


def test_a_text_is_the_tasks_instruction_where_none_is_given(backbone_of: Backbones) -> None:
    backbone, task = backbone_of("bert"), load_task("demo")
    first = initial_prompt(resolve(["prompt.tokens=6", "prompt.init=text"]), backbone, task)
    ids = backbone.tokenizer(task.definition.instruction, add_special_tokens=False)["input_ids"][:6]
    assert torch.equal(first.vectors_PH, backbone.embeddings_VH()[ids])
    assert task_mistakes(resolve(["prompt.init=text"]), task) == []
    silent = replace(task, definition=task.definition.model_copy(update={"instruction": ""}))
    (mistake,) = task_mistakes(resolve(["prompt.init=text"]), silent)
    assert "neither prompt.text nor an instruction of demo" in str(mistake)
    assert task_mistakes(resolve(["prompt.init=text", "prompt.text=a"]), silent) == []


def test_the_prompt_file_is_held_to_the_backbone_with_the_rest(tiny_models: Models, tmp_path: Path) -> None:
    path, described = tmp_path / "mine.safetensors", describe(str(tiny_models("sentence")))
    recipe = resolve(["prompt.init=file", f"prompt.file={path}", "prompt.pieces=5"])
    with pytest.raises(ManyErrors, match="no file") as caught:
        check(recipe, described)
    assert "divide H = 32" in str(caught.value)
    save_file({"vectors_PH": drawn(3, 16)}, path)
    with pytest.raises(ManyErrors, match=r"a prompt \[P, 32\] for this backbone\nfound:    \[3, 16\]"):
        check(recipe, described)
    save_file({"vectors_PH": drawn(3, 32)}, path)
    check(resolve(["prompt.init=file", f"prompt.file={path}", "prompt.pieces=4"]), described)


def test_the_prompt_files_own_number_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    recipe = resolve(["prompt.init=file", f"prompt.file={path}"])
    assert settle_tokens(recipe) == recipe  # a file that isn't there is told later, with the rest
    save_file({"vectors_PH": drawn(3, 32)}, path)
    assert settle_tokens(recipe).prompt.tokens == 3
    assert settle_tokens(recipe).resolved()["prompt"]["tokens"] == 3
    for told in (resolve(["prompt.init=file", f"prompt.file={path}", "prompt.tokens=20"]), resolve()):
        assert settle_tokens(told) is told
