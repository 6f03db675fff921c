"""Whole runs of a cartridge: what they leave, a kill changes nothing, what is refused; and what peft reads of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from adapted import fresh, near, recipe_of, run, run_dying
from peft import PeftModel
from pefts import batch_of, difference, log_likelihoods, scored
from safetensors.torch import load_file, save_file

from killing import DiedError, dying_after_saves
from models import CORPUS
from softprune.adapters.adapter_io import export_adapter, read_adapter
from softprune.adapters.base import AdapterPlan
from softprune.adapters.cartridge import document_ids, new_cartridge
from softprune.config import CompareRecipe, Recipe, load_config
from softprune.errors import SoftpruneError
from softprune.evaluation.predict import predict
from softprune.pipelines.adapt import adapt
from softprune.studies.comparison.runner import refused_by_model

Models = Callable[[str], Path]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils"),
]
P = 5


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "document.txt"
    path.write_text("\n".join(CORPUS[:3]) + "\n")
    return path


@pytest.fixture
def recipe(tiny_models: Models, task_file: Path, document: Path) -> Callable[..., Recipe]:
    def build(*changes: str, model: str = "gpt2", method: str = "cartridge") -> Recipe:
        keys = (f"prompt.tokens={P}", "tuning.lr=0.02")
        own = (f"adapter.document={document}",) if method == "cartridge" else ()
        return recipe_of(tiny_models(model), task_file, method, *keys, *own, *changes)

    return build


def answers(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_a_run_leaves_the_cartridge_and_a_row_of_the_document(
    model: str, recipe: Callable[..., Recipe], document: Path, tmp_path: Path, tiny_models: Models
) -> None:
    rows = tmp_path / "more.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in CORPUS[3:11]))
    info = run(recipe(f"task.unlabelled={rows}", model=model), tmp_path / "run")
    backbone = fresh(tiny_models(model))
    cartridge = new_cartridge(backbone, AdapterPlan("cartridge", tokens=P), 0)
    ids = document_ids(backbone, document.read_text())
    cartridge.study(ids)
    stored = load_file(tmp_path / "run" / "adapter" / "adapter.safetensors")["keys_values"]
    assert torch.equal(stored[0], cartridge.keys_values()[0])
    assert not near(stored[1:], cartridge.keys_values().detach()[1:], 1e-3)
    assert f"the document has {len(ids)} tokens, the cartridge {P}" in info["notes"]
    numbers = cartridge.shape.numbers
    assert info["adapter"]["trainable_parameters"] == info["results"]["adapted"]["parameters"] == (P - 1) * numbers
    assert info["adapter"]["stored_parameters"] == P * numbers
    assert (info["results"]["adapted"]["tokens"], info["results"]["document"]["tokens"]) == (P, len(ids))
    assert info["task"]["sizes"] == {"train": 19, "select": 5, "report": 12, "unlabelled": 8}
    assert info["cost"]["steps"] == 2 * 4  # batches of 8, of 19 rows with labels and 8 without
    behind = answers(tmp_path / "run" / "predictions" / "document.jsonl")
    for name in ("zero_shot", "adapted"):
        others = answers(tmp_path / "run" / "predictions" / f"{name}.jsonl")
        assert [line["scores"] for line in others] != [line["scores"] for line in behind]


def test_labels_arent_read(recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(recipe("tuning.best_by=loss", "tuning.epochs=1"), tmp_path / "run")
    monkeypatch.setattr(
        "softprune.models.base.Backbone.answer_losses", lambda *given: given[1].new_zeros(len(given[1]))
    )
    run(recipe("tuning.best_by=loss", "tuning.epochs=1"), tmp_path / "blind")
    first, second = (tmp_path / name / "adapter" / "adapter.safetensors" for name in ("run", "blind"))
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(RuntimeError, match="does not require grad"):  # others learn nothing without them
        run(recipe("tuning.epochs=1", method="p-tuning-v2"), tmp_path / "labelled")


def test_it_is_loaded_and_answers_as_it_did(
    recipe: Callable[..., Recipe], task_file: Path, tmp_path: Path, document: Path
) -> None:
    run(recipe(), tmp_path / "run")
    adapter = read_adapter(tmp_path / "run")
    backbone = adapter.load(dtype="float32", device="cpu")
    wanted = answers(tmp_path / "run" / "predictions" / "adapted.jsonl")
    rows = [{"text": line["text"].removesuffix(" . it was")} for line in wanted]
    found = list(predict(adapter, rows, backbone=backbone))
    shares = torch.tensor([line["scores"] for line in wanted], dtype=torch.float64).log_softmax(-1)
    assert near(torch.tensor([each.probabilities for each in found], dtype=torch.float64).log(), shares, 1e-5)


def test_killed_after_each_evaluation_it_goes_on_bit_by_bit(
    recipe: Callable[..., Recipe], document: Path, tmp_path: Path
) -> None:
    run(recipe(), tmp_path / "whole")
    with pytest.raises(DiedError), dying_after_saves():
        run(recipe(), tmp_path / "broken")
    text = document.read_text()
    document.write_text(text + "and more\n")
    with pytest.raises(SoftpruneError, match="the document changed since"):
        run(recipe(), tmp_path / "broken")
    document.write_text(text)
    assert run_dying(recipe(), tmp_path / "broken") == 2
    for file in ("adapter/adapter.safetensors", "predictions/adapted.jsonl", "predictions/document.jsonl"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "broken" / file).read_bytes()
    run(recipe("seed=1"), tmp_path / "other")
    file = "adapter/adapter.safetensors"
    assert (tmp_path / "whole" / file).read_bytes() != (tmp_path / "other" / file).read_bytes()


@pytest.mark.parametrize(
    ("method", "model", "changes", "expected"),
    [
        ("cartridge", "gpt2", ("adapter.document=null",), r"a document for the cartridge[\s\S]*--document"),
        ("cartridge", "gpt2", ("adapter.document=nowhere.txt",), r"a readable document[\s\S]*nowhere\.txt"),
        ("cartridge", "gpt2", ("prompt.tokens=1",), r"prompt\.tokens above 1 for cartridge"),
        ("cartridge", "gpt2", ("prompt.tokens=100",), r"a document of at least 100 tokens[\s\S]*--tokens"),
        ("cartridge", "gpt2", ("adapter.start=prompt",), r"adapter\.start=prompt for prefix or p-tuning-v2 alone"),
        (
            "cartridge",
            "t5",
            (),
            r"cartridge: a document and the text behind it are one sequence in causal models alone",
        ),
        ("cartridge", "bert", (), "in causal models alone"),
        ("lora", "gpt2", ("adapter.document=x.txt",), r"adapter\.document for cartridge alone[\s\S]*found: +lora"),
        ("lora", "gpt2", ("task.unlabelled=x.jsonl",), "a teacher that answers rows without labels"),
    ],
)
def test_what_it_cant_be_is_refused(
    method: str,
    model: str,
    changes: tuple[str, ...],
    expected: str,
    recipe: Callable[..., Recipe],
    tmp_path: Path,
) -> None:
    with pytest.raises(SoftpruneError, match=expected):
        adapt(recipe(*changes, model=model, method=method), tmp_path / "run")


def test_a_document_that_is_too_long_is_refused(recipe: Callable[..., Recipe], document: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text(document.read_text() * 3)
    with pytest.raises(SoftpruneError, match=r"fits into 128 tokens[\s\S]*in adapter\.document[\s\S]*shorten it to"):
        adapt(recipe(f"adapter.document={long}"), tmp_path / "run")


def test_a_comparison_has_it_where_it_is_named(tiny_models: Models, task_file: Path, document: Path) -> None:
    keys = ("kind=compare", f"backbone.name={tiny_models('gpt2')}", f"task.id={task_file}")
    assert "cartridge" not in load_config(CompareRecipe, None, keys).methods
    more = (f"adapter.document={document}", "methods=lora,cartridge", "prompt.init=text")
    named = load_config(CompareRecipe, None, [*keys, *more])
    assert named.cell("cartridge", 0)["adapter"] == {"method": "cartridge", "document": str(document)}
    assert "init" not in named.cell("cartridge", 0)["prompt"]
    assert "document" not in named.cell("lora", 0)["adapter"]
    backbones = {
        name: load_config(CompareRecipe, None, [*keys, f"backbone.name={tiny_models(name)}"])
        for name in ("t5", "llama")
    }
    refused = {
        name: refused_by_model(each.backbone, ("cartridge", "prefix", "lora")) for name, each in backbones.items()
    }
    assert list(refused["t5"]) == ["cartridge"]
    assert refused["llama"] == {}


@pytest.mark.parametrize("model", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["cartridge", "prefix", "p-tuning-v2"])
def test_peft_reads_it_as_it_was(
    method: str, model: str, recipe: Callable[..., Recipe], tiny_models: Models, tmp_path: Path
) -> None:
    run(recipe("tuning.lr=0.05", model=model, method=method), tmp_path / "run")
    adapter = read_adapter(tmp_path / "run")
    assert export_adapter(adapter, tmp_path / "peft") == ("adapter_config.json", "adapter_model.safetensors")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["num_virtual_tokens"]) == (
        "CARTRIDGE" if method == "cartridge" else "PREFIX_TUNING",
        P,
    )

    def read_by_peft() -> torch.Tensor:
        base = transformers.AutoModelForCausalLM.from_pretrained(tiny_models(model), dtype=torch.float32)
        loaded = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
        with torch.no_grad():
            return log_likelihoods(loaded, backbone.tokenizer, "causal")

    backbone = adapter.load(dtype="float32", device="cpu")
    wanted = scored(backbone, batch_of(backbone))
    assert difference(read_by_peft(), wanted) <= 1e-5
    bare = fresh(tiny_models(model))
    assert difference(scored(bare, batch_of(bare)), wanted) > 1e-3
    # The order of layers, keys and values, and heads counts.
    file = tmp_path / "peft" / "adapter_model.safetensors"
    numbers = load_file(file)["prompt_embeddings"]
    pairs = numbers.view(P, config["num_layers"], 2, -1)
    for other in (pairs.flip(2), pairs.flip(1)):
        save_file({"prompt_embeddings": other.reshape(numbers.shape).contiguous()}, file, {"format": "pt"})
        assert difference(read_by_peft(), wanted) > 1e-3


@pytest.mark.parametrize("method", ["prefix", "p-tuning-v2"])
def test_peft_lays_it_out_otherwise_elsewhere(method: str, recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run(recipe("tuning.epochs=1", model="t5", method=method), tmp_path / "run")
    with pytest.raises(SoftpruneError, match=f"one of {method}: peft lays out a prefix otherwise for encoder-decoders"):
        export_adapter(read_adapter(tmp_path / "run"), tmp_path / "peft")


def test_an_older_adapter_has_no_shape_to_give_peft(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run(recipe("tuning.epochs=1", method="p-tuning-v2"), tmp_path / "run")
    older = replace(read_adapter(tmp_path / "run"), peft=None)
    with pytest.raises(SoftpruneError, match=r"one of p-tuning-v2: a version before 0\.2 left out the shape"):
        export_adapter(older, tmp_path / "peft")
