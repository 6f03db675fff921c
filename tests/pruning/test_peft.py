"""Prompts to peft and from it: peft's own forward gives the answers that softprune's does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from models import FAMILY, t5_tokenizer
from softprune.cli.app import app
from softprune.config import resolve
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.models.tokenization import continuation_ids
from softprune.pipelines.xprompt import execute
from softprune.prompts.exports import export
from softprune.prompts.prompt_io import read_prompt
from softprune.prompts.ticket import Ticket
from softprune.training import jobs
from softprune.types import Example, Segment
from tickets import small_ticket

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    # peft asks transformers for something that transformers is about to drop; neither is ours.
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils"),
]
Backbones = Callable[..., Backbone]
Models = Callable[[str], Path]
NAMES = ("t5_v1_1", "bart", "bart_scaled", "gpt2", "llama")
TOLERANCE = 1e-4
TEXTS = ("bread .", "the film was a slow and quiet joy .", "he said that she opened the window in the small room")
ANSWERS = ("great", "not at all great", "rather disappointing")
CLASSES = {"seq2seq": transformers.AutoModelForSeq2SeqLM, "causal": transformers.AutoModelForCausalLM}
TASKS = {"seq2seq": "SEQ_2_SEQ_LM", "causal": "CAUSAL_LM"}


def plain(name: str, folder: Path) -> Any:
    return CLASSES[FAMILY[name]].from_pretrained(folder, dtype=torch.float32).eval()


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def of_peft(model: Any, tokenizer: Any, family: str, tokens: int) -> torch.Tensor:
    """Log-likelihoods `[B, A]` from peft's forward of one right-padded batch of every text with every answer."""
    pairs = [(text, answer) for text in TEXTS for answer in ANSWERS]
    texts: list[list[int]] = [tokenizer(text)["input_ids"] for text, _ in pairs]
    if family == "seq2seq":
        targets = [tokenizer(text_target=answer)["input_ids"] for _, answer in pairs]
        rows, labels = texts, padded(targets, -100)
    else:
        targets = [list(continuation_ids(tokenizer, answer)) for _, answer in pairs]
        rows = [text + target for text, target in zip(texts, targets, strict=True)]
        labels = padded([[-100] * len(text) + target for text, target in zip(texts, targets, strict=True)], -100)
    lengths = torch.tensor([len(row) for row in rows])
    ids = padded(rows, tokenizer.pad_token_id or 0)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    more = {"labels": labels} if family == "seq2seq" else {}
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, **more).logits
    if family == "causal":
        logits, labels = logits[:, tokens:][:, :-1], labels[:, 1:]
    if (
        tokenizer.bos_token_id is not None and family == "seq2seq"
    ):  # BART's targets open with <s>: no answer is about it
        logits, labels = logits[:, 1:], labels[:, 1:]
    found = -torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return found.sum(1).view(len(TEXTS), len(ANSWERS))


def of_softprune(backbone: Backbone, prompt: torch.Tensor) -> torch.Tensor:
    """The same from softprune: sums `[B, A]`."""
    segments = [(Segment(text, shortenable=True), Segment(" "), Segment("", answer_slot=True)) for text in TEXTS]
    examples = [Example(str(i), i, parts, ANSWERS, 0) for i, parts in enumerate(segments)]
    with torch.no_grad():
        return backbone.scores(prompt[None], backbone.batch(backbone.encode(examples, 64)), "sum")[0]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def loaded(name: str, model: Path, adapter: Path) -> Any:
    return PeftModel.from_pretrained(plain(name, model), adapter).eval()


@pytest.mark.parametrize("removal", ["drop", "zero"])
@pytest.mark.parametrize("name", NAMES)
def test_an_exported_adapter_answers_alike(
    name: str, removal: str, backbone_of: Backbones, tiny_models: Models, tmp_path: Path
) -> None:
    backbone, model = backbone_of(name), tiny_models(name)
    ticket, folder = small_ticket(backbone, removal, name=str(model)), tmp_path / "adapter"
    export(ticket, "peft", folder)
    tokens = 2 if removal == "drop" else 4
    assert ticket.prompt().shape == (tokens, 32)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["num_virtual_tokens"], config["num_transformer_submodules"]) == (tokens, 1)
    assert (config["task_type"], config["base_model_name_or_path"]) == (TASKS[FAMILY[name]], str(model))

    ours = of_softprune(backbone, ticket.prompt())
    theirs = of_peft(loaded(name, model, folder), backbone.tokenizer, FAMILY[name], tokens)
    assert difference(theirs, ours) <= TOLERANCE
    # Negative control: an adapter with one token zeroed answers otherwise, by far.
    weights = load_file(folder / "adapter_model.safetensors")
    weights["prompt_embeddings"][0] = 0
    save_file(weights, folder / "adapter_model.safetensors")
    broken = of_peft(loaded(name, model, folder), backbone.tokenizer, FAMILY[name], tokens)
    assert difference(broken, ours) > 100 * TOLERANCE


def test_the_shown_code_loads_the_adapter(backbone_of: Backbones, tiny_models: Models, tmp_path: Path) -> None:
    ticket = small_ticket(backbone_of("gpt2"), name=str(tiny_models("gpt2")))
    _, code = export(ticket, "peft", tmp_path / "adapter")
    assert len(code) == 3
    assert "\n".join(code) in (tmp_path / "adapter" / "README.md").read_text()
    names: dict[str, Any] = {}
    exec("\n".join(code), names)
    assert torch.equal(names["model"].get_prompt(1)[0], ticket.prompt())


@pytest.mark.parametrize("name", ["t5_v1_1", "pegasus", "bert", "sentence", "sentence_bare"])
def test_vectors_for_any_family(name: str, backbone_of: Backbones, tmp_path: Path) -> None:
    backbone = backbone_of(name)
    ticket = small_ticket(backbone)
    files, code = export(ticket, "safetensors", tmp_path / "vectors")
    assert (files, len(code)) == (("prompt.safetensors", "README.md"), 3)
    assert ticket.prompt().shape == (2, 32)
    saved = read_prompt(tmp_path / "vectors" / "prompt.safetensors")
    assert torch.equal(saved.vectors_PH, ticket.prompt())
    assert saved.metadata == {
        "backbone": "org/model",
        "family": backbone.family,
        "fingerprint": backbone.info.fingerprint,
        "task": "demo",
        "template": ticket.definition.template,
        "removal": "drop",
        "index": "0,2",
    }
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    names: dict[str, Any] = {"model": backbone.model, "input_ids": ids}
    exec("\n".join(code), names)
    embeds, _ = backbone.combine(ticket.prompt().expand(2, -1, -1), ids, torch.ones_like(ids))
    assert torch.equal(names["inputs_embeds"], embeds)


@pytest.mark.parametrize(("name", "why"), [("bert", "no task type for masked"), ("sentence", "no answers by cosine")])
def test_peft_has_no_place_for_it(name: str, why: str, backbone_of: Backbones, tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError) as error:
        export(small_ticket(backbone_of(name)), "peft", tmp_path / "adapter")
    assert why in str(error.value)
    assert "--format safetensors" in str(error.value)
    assert not (tmp_path / "adapter").exists()


def test_peft_would_feed_it_otherwise(backbone_of: Backbones, tiny_models: Models, tmp_path: Path) -> None:
    """Pegasus scales the embeddings of its input, and peft gives it unscaled ones."""
    backbone, model = backbone_of("pegasus"), tiny_models("pegasus")
    ticket = small_ticket(backbone, name=str(model))
    with pytest.raises(SoftpruneError, match=r"pegasus.*, which multiplies them by [\d.]+, and peft doesn't"):
        export(ticket, "peft", tmp_path / "adapter")
    unscaled = replace(ticket, info=replace(ticket.info, embedding_scale=1.0))
    export(unscaled, "peft", tmp_path / "adapter")
    theirs = of_peft(loaded("pegasus", model, tmp_path / "adapter"), backbone.tokenizer, "seq2seq", 2)
    assert difference(theirs, of_softprune(backbone, ticket.prompt())) > 100 * TOLERANCE


def test_peft_would_give_it_too_little(backbone_of: Backbones, tmp_path: Path) -> None:
    """Gemma 3n and 4 look up a second embedding of every token, and peft gives them vectors alone."""
    ticket = small_ticket(backbone_of("gpt2"))
    layered = replace(ticket, info=replace(ticket.info, has_layer_embeddings=True))
    with pytest.raises(SoftpruneError, match="looks up an embedding of every token id for each layer"):
        export(layered, "peft", tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
    export(layered, "safetensors", tmp_path / "vectors")
    export(ticket, "peft", tmp_path / "adapter")


def test_nothing_is_overwritten(backbone_of: Backbones, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(SoftpruneError, match="holds mine"):
        export(small_ticket(backbone_of("gpt2")), "peft", tmp_path)
    with pytest.raises(SoftpruneError, match="format"):
        export(small_ticket(backbone_of("gpt2")), "pickle", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# --- from peft ---


def trained_by_peft(name: str, model: Path, tokenizer: Any, folder: Path) -> Any:
    """A few steps of peft's own prompt tuning, saved as peft saves; for T5 with peft's two prompts."""
    torch.manual_seed(0)
    config = PromptTuningConfig(task_type=TASKS[FAMILY[name]], num_virtual_tokens=4)
    if FAMILY[name] == "causal":
        config.num_transformer_submodules = 1
    wrapped: Any = get_peft_model(plain(name, model), config)
    optimiser = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], lr=0.1)
    batch = padded([tokenizer(text)["input_ids"] for text in TEXTS], 1)
    labels = batch if FAMILY[name] == "causal" else padded([tokenizer("great")["input_ids"]] * len(TEXTS), 1)
    losses = []
    for _ in range(4):
        loss = wrapped(input_ids=batch, attention_mask=torch.ones_like(batch), labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    wrapped.save_pretrained(folder)
    return wrapped.eval()


@pytest.mark.parametrize("name", ["t5_v1_1", "gpt2"])
def test_a_prompt_that_peft_trained(
    name: str, backbone_of: Backbones, tiny_models: Models, task_file: Path, tmp_path: Path
) -> None:
    backbone, folder = backbone_of(name), tmp_path / "adapter"
    wrapped = trained_by_peft(name, tiny_models(name), backbone.tokenizer, folder)
    saved = read_prompt(folder)
    assert saved.vectors_PH.shape == (4, 32)
    assert bool(saved.notes) == (FAMILY[name] == "seq2seq")
    ours = of_softprune(backbone, saved.vectors_PH)
    if FAMILY[name] == "seq2seq":  # under two prompts peft's forward reads the first, and labels as they are
        wrapped.peft_config["default"].num_transformer_submodules = 1
    theirs = of_peft(wrapped, backbone.tokenizer, FAMILY[name], 4)
    assert difference(ours, theirs) <= TOLERANCE
    assert difference(of_softprune(backbone, saved.vectors_PH.flip(0)), theirs) > 100 * TOLERANCE

    recipe = tiny_recipe(tiny_models(name), task_file, folder)
    out = tmp_path / "run"
    execute(recipe, out, "test", recipe.dump())
    info = json.loads((out / "run.json").read_text())
    assert info["prompt"]["P"] == 4  # the file's number, asked for nowhere
    assert torch.equal(load_file(out / "prompts" / "initial.safetensors")["vectors_PH"], saved.vectors_PH)
    ticket = Ticket.load(out)
    assert (ticket.info.prompt_tokens, ticket.info.tokens) == (4, 2)
    ticket.check(backbone)


def tiny_recipe(model: Path, task: Path, prompt: Path, *more: str) -> Any:
    return resolve(
        [
            f"backbone.name={model}",
            "backbone.dtype=float32",
            f"task.id={task}",
            "prompt.init=file",
            f"prompt.file={prompt}",
            "prompt.pieces=4",
            "tuning.epochs=1",
            "tuning.batch_size=8",
            "search.strategy=grid",
            "search.token_ratios=0.5",
            "search.piece_ratios=0.5",
            "selection.seeds=0",
            "selection.resamples=50",
            *more,
        ]
    )


def test_an_array_as_t5x_writes_it_starts_a_prompt(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    """float32 [P, H]; the file is longer than the default of 20 tokens, and none is lost."""
    vectors = np.random.default_rng(0).normal(size=(25, 32)).astype(np.float32)
    np.save(tmp_path / "prompt.npy", vectors)
    recipe = tiny_recipe(tiny_models("t5_v1_1"), task_file, tmp_path / "prompt.npy", "kind=tune")
    out = tmp_path / "run"
    execute(recipe, out, "test", recipe.dump())
    initial = load_file(out / "prompts" / "initial.safetensors")["vectors_PH"]
    assert torch.equal(initial, torch.from_numpy(vectors))
    assert "tokens: 25" in (out / "resolved.yaml").read_text()
    execute(recipe, out, "test", recipe.dump())  # the same command finds its run
    assert Ticket.load(out).info.tokens == 25


def test_a_run_is_not_taken_up_from_another_prompt(
    tiny_models: Models, task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "prompt.npy", tmp_path / "run"
    np.save(path, np.ones((4, 32), dtype=np.float32))
    recipe = tiny_recipe(tiny_models("t5_v1_1"), task_file, path, "kind=tune")

    def die(*_: object, **__: object) -> None:
        raise SoftpruneError("a", "b", "c")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "train", die)
        with pytest.raises(SoftpruneError):
            execute(recipe, out, "test", recipe.dump())
    path.unlink()
    with pytest.raises(SoftpruneError, match=r"no file .*prompt\.npy"):
        execute(recipe, out, "test", recipe.dump())
    np.save(path, np.zeros((4, 32), dtype=np.float32))
    with pytest.raises(SoftpruneError, match=r"the prompt file as .* was begun with"):
        execute(recipe, out, "test", recipe.dump())
    np.save(path, np.ones((4, 32), dtype=np.float32))
    execute(recipe, out, "test", recipe.dump())


@pytest.mark.real
@pytest.mark.parametrize("task", ["mrpc", "rte", "sst2"])
def test_prompts_that_t5x_trained(task: str, task_file: Path, tmp_path: Path) -> None:
    """Prompts of Lester et al.'s code for T5 1.1 base start a model of its shape, less layers."""
    array = Path(os.environ["SOFTPRUNE_DATA"]) / "t5x_prompts" / f"{task}.npy"
    prompt, model = tmp_path / f"{task}.safetensors", tmp_path / "model"
    assert CliRunner().invoke(app, ["import", str(array), "--out", str(prompt)]).exit_code == 0
    size = t5_tokenizer(model)
    sizes = {"d_model": 768, "d_kv": 64, "d_ff": 64, "num_layers": 1, "num_heads": 12, "vocab_size": size}
    gates = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0}
    transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, **gates)).save_pretrained(model)
    recipe = tiny_recipe(model, task_file, prompt, "prompt.pieces=16", "tuning.batch_size=24")
    execute(recipe, tmp_path / "run", "test", recipe.dump())
    initial = load_file(tmp_path / "run" / "prompts" / "initial.safetensors")["vectors_PH"]
    assert torch.equal(initial, torch.from_numpy(np.load(array)))
    assert initial.shape == (100, 768)
    assert Ticket.load(tmp_path / "run").info.tokens == 50
