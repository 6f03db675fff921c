"""What `export --format peft` writes, loaded by peft, answers as it did here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapted import adapted_scores, batch_of, fresh, near, plain_scores, recipe_of, run

from softprune.adapters.adapter_io import DOCUMENT, FOLDER, export_adapter, read_adapter
from softprune.adapters.base import AdapterPlan
from softprune.adapters.registry import adapt
from softprune.errors import SoftpruneError
from softprune.models.base import AdapterContext

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers"),
]
Models = Callable[[str], Path]


def of_peft(folder: Path, model: Path) -> Any:
    """Our backbone around the model that peft loaded into."""
    backbone = fresh(model)
    backbone.adapter = AdapterContext(has_weights=True)
    loaded = peft.PeftModel.from_pretrained(backbone.model, folder).eval()
    assert loaded.base_model is not None
    return backbone


@pytest.mark.parametrize("model", ["gpt2", "t5", "bert", "sentence"])
@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_peft_reads_it(tiny_models: Models, task_file: Path, tmp_path: Path, method: str, model: str) -> None:
    run(recipe_of(tiny_models(model), task_file, method, "tuning.lr=0.05"), tmp_path / "run")
    adapter = read_adapter(tmp_path / "run")
    export_adapter(adapter, tmp_path / "peft")
    ours = adapter.load(dtype="float32", device="cpu")
    nothing = torch.zeros(1, 0, ours.info.hidden)
    theirs = of_peft(tmp_path / "peft", tiny_models(model))
    if model == "sentence":
        theirs._answers = ours._answers  # type: ignore[attr-defined]
    batch = batch_of(ours)
    with torch.no_grad():
        wanted, found = ours.scores(nothing, batch, "sum"), theirs.scores(nothing, batch, "sum")
    assert near(found, wanted, 1e-5)
    assert not near(plain_scores(fresh(tiny_models(model)), batch)[None], wanted, 1e-3)


def test_a_made_prompt_is_a_prompt_tuning_adapter(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    run(recipe_of(tiny_models("t5"), task_file, "p-tuning", "tuning.lr=0.05"), tmp_path / "run")
    adapter = read_adapter(tmp_path / "run")
    export_adapter(adapter, tmp_path / "peft")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["num_virtual_tokens"]) == ("PROMPT_TUNING", 3)
    base = fresh(tiny_models("t5"))
    loaded = peft.PeftModel.from_pretrained(base.model, tmp_path / "peft")
    assert torch.equal(loaded.get_prompt(1)[0], adapter.prompt())


@pytest.mark.parametrize("method", ["full", "last-layer", "dept", "smop"])  # prefixes: test_cartridge_runs.py
def test_others_say_why_not(tiny_models: Models, task_file: Path, tmp_path: Path, method: str) -> None:
    run(recipe_of(tiny_models("gpt2"), task_file, method), tmp_path / "run")
    with pytest.raises(SoftpruneError, match=f"one of {method}: "):
        export_adapter(read_adapter(tmp_path / "run"), tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_a_made_prompt_that_peft_would_feed_otherwise(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    run(recipe_of(tiny_models("pegasus"), task_file, "p-tuning"), tmp_path / "run")
    adapter = read_adapter(tmp_path / "run")
    with pytest.raises(SoftpruneError, match=r"which multiplies them by [\d.]+, and peft doesn't") as error:
        export_adapter(adapter, tmp_path / "peft")
    assert error.value.do.startswith("use it with softprune predict")
    assert not (tmp_path / "peft").exists()
    layered = replace(adapter, info=replace(adapter.info, embedding_scale=1.0, has_layer_embeddings=True))
    with pytest.raises(SoftpruneError, match="looks up an embedding of every token id for each layer"):
        export_adapter(layered, tmp_path / "peft")


def test_an_adapter_of_an_earlier_version_is_read(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    run(recipe_of(tiny_models("gpt2"), task_file, "p-tuning"), tmp_path / "run")
    path = tmp_path / "run" / FOLDER / DOCUMENT
    document = json.loads(path.read_text())
    del (
        document["embedding_scale"],
        document["has_layer_embeddings"],
        document["plan"]["longest"],
        document["plan"]["prompts"],
    )
    path.write_text(json.dumps(document))
    assert read_adapter(tmp_path / "run").info.embedding_scale == 1
    del document["family"]
    path.write_text(json.dumps(document))
    with pytest.raises(SoftpruneError, match="no family"):
        read_adapter(tmp_path / "run")


def test_a_made_prompt_of_an_encoder_says_why_not(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    run(recipe_of(tiny_models("sentence"), task_file, "p-tuning"), tmp_path / "run")
    with pytest.raises(SoftpruneError, match="one of p-tuning: peft puts a prompt before CLS"):
        export_adapter(read_adapter(tmp_path / "run"), tmp_path / "peft")


def test_the_check_can_fail(tiny_models: Models) -> None:
    backbone = fresh(tiny_models("gpt2"))
    adaptation = adapt(backbone, AdapterPlan("lora"), seed=0)
    batch = batch_of(backbone)
    before = adapted_scores(adaptation, batch)
    with torch.no_grad():
        next(iter(p for name, p in adaptation.named().items() if "lora_B" in name)).add_(0.1)
    assert not near(adapted_scores(adaptation, batch), before, 1e-4)
