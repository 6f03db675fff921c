"""Each method changes exactly the parameters that it says, and can be taken away again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapted import (
    FAMILIES_OF_MODELS,
    METHODS,
    VIRTUAL,
    adapted_scores,
    batch_of,
    fresh,
    near,
    plain_scores,
    shake,
    steps,
)

from samples import each_with_one_of_every_group, every_second
from softprune.adapters.base import AdapterPlan
from softprune.adapters.registry import adapt
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone

pytestmark = pytest.mark.slow

Models = Callable[[str], Path]

# By hand: what stands behind `last-layer` in each tiny model of two layers.
LAST = {
    "t5": ("decoder.block.1.", "decoder.final_layer_norm."),
    "t5_v1_1": ("decoder.block.1.", "decoder.final_layer_norm.", "lm_head."),
    "bart": ("model.decoder.layers.1.",),
    "gpt2": ("transformer.h.1.", "transformer.ln_f."),
    "llama": ("model.layers.1.", "model.norm.", "lm_head."),
    "bloom": ("transformer.h.1.", "transformer.ln_f."),
    "bert": ("bert.encoder.layer.1.",),
    "roberta": ("roberta.encoder.layer.1.",),
    "sentence": ("encoder.layer.1.",),
}


def hashes(backbone: Backbone) -> dict[str, str]:
    """Of every number of the model, buffers included; what is tied counts once."""
    model = backbone.model
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        name: hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in tensors.items()
    }


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Names of tensors that aren't what they were; peft puts `base_layer` into the names of those that it wraps."""
    plain = {name.replace(".base_layer", ""): value for name, value in after.items()}
    return {name for name, value in plain.items() if before.get(name) != value}


@pytest.mark.parametrize(("method", "model"), each_with_one_of_every_group(METHODS, FAMILIES_OF_MODELS))
def test_nothing_else_changes(tiny_models: Models, method: str, model: str) -> None:
    backbone = fresh(tiny_models(model))
    batch, before = batch_of(backbone), hashes(backbone)
    backbone.keep_answers(("positive", "negative", "neutral"))
    adaptation = adapt(backbone, AdapterPlan(method, tokens=3, longest=64), seed=0)
    steps(adaptation, batch)
    moved, named = changed(before, hashes(backbone)), set(adaptation.named())
    if method == "full":
        unread = {name for name in before if "pooler" in name}
        assert named >= moved
        assert len(moved) > 0.8 * len(set(before) - unread)
    elif method == "last-layer":
        assert named == {name for name, _ in backbone.model.named_parameters() if name.startswith(LAST[model])}
        assert moved <= named
        assert len(moved) > 0.8 * len(named)
    elif method in VIRTUAL:
        assert moved == set()
        assert all(parameter.grad is not None for parameter in adaptation.named().values())
    else:
        assert moved == named
        assert all(("lora_" if method == "lora" else "ia3_") in name for name in named)


def test_the_check_can_fail(tiny_models: Models) -> None:
    backbone = fresh(tiny_models("gpt2"))
    before = hashes(backbone)
    with torch.no_grad():
        backbone.model.transformer.h[0].ln_1.bias[3] += 1e-3
    assert changed(before, hashes(backbone)) == {"transformer.h.0.ln_1.bias"}


@pytest.mark.parametrize(("method", "model"), every_second(METHODS, ["t5", "gpt2", "bart", "bert", "sentence"]))
def test_off_is_the_backbone_as_it_was(tiny_models: Models, method: str, model: str) -> None:
    backbone = fresh(tiny_models(model))
    batch = batch_of(backbone)
    backbone.keep_answers(("positive", "negative", "neutral"))
    plain = plain_scores(backbone, batch)
    adaptation = adapt(backbone, AdapterPlan(method, tokens=3, longest=64), seed=0)
    shake(adaptation)
    on = adapted_scores(adaptation, batch)
    assert not near(on, plain, 1e-3)
    with adaptation.off():
        assert torch.equal(plain_scores(backbone, batch), plain)
    assert torch.equal(adapted_scores(adaptation, batch), on)


@pytest.mark.parametrize("model", ["gpt2", "bart", "t5"])
def test_an_untied_head_is_a_copy_that_is_counted(tiny_models: Models, model: str) -> None:
    backbone = fresh(tiny_models(model))
    tied = adapt(fresh(tiny_models(model)), AdapterPlan("last-layer"), seed=0)
    untied = adapt(backbone, AdapterPlan("last-layer", untie_head=True), seed=0)
    table = backbone.model.get_input_embeddings().weight
    head = backbone.model.get_output_embeddings().weight
    assert torch.equal(head, table)
    assert head.data_ptr() != table.data_ptr()
    more = sum(p.numel() for p in untied.named().values()) - sum(p.numel() for p in tied.named().values())
    assert more == table.numel()


def test_a_sentence_model_has_no_head_to_untie(tiny_models: Models) -> None:
    with pytest.raises(SoftpruneError, match="expected: a model with an output head"):
        adapt(fresh(tiny_models("sentence")), AdapterPlan("last-layer", untie_head=True), seed=0)


def test_an_architecture_that_isnt_in_the_table_is_told(tiny_models: Models) -> None:
    backbone = fresh(tiny_models("gpt2"))
    backbone.model.config.model_type = "new"
    with pytest.raises(SoftpruneError, match='found:    "new"'):
        adapt(backbone, AdapterPlan("last-layer"), seed=0)


@pytest.mark.parametrize("how", ["kept", "not kept"])
@pytest.mark.parametrize("fixed", [True, False])
def test_answers_of_a_sentence_model_are_those_of_before(tiny_models: Models, how: str, fixed: bool) -> None:
    backbone = fresh(tiny_models("sentence"))
    batch = batch_of(backbone)
    wanted = backbone._answer_embeddings(batch).clone()  # type: ignore[attr-defined]
    backbone._answers.clear()  # type: ignore[attr-defined]
    if how == "kept":
        backbone.keep_answers(("positive", "negative", "neutral") if fixed else None)
    shake(adapt(backbone, AdapterPlan("full"), seed=0), 0.05)
    assert torch.equal(backbone._answer_embeddings(batch), wanted) == (how == "kept")  # type: ignore[attr-defined]


@pytest.mark.parametrize("kept", [True, False])
def test_answers_that_are_met_while_scoring_can_be_trained_on(tiny_models: Models, kept: bool) -> None:
    """Autograd refuses tensors that inference made: an answer of `select` may stand in a later step."""
    backbone = fresh(tiny_models("sentence"))
    if kept:
        backbone.keep_answers(None)
    adaptation, batch = adapt(backbone, AdapterPlan("full"), seed=0), batch_of(backbone)
    with torch.inference_mode():
        backbone.answer_sums(adaptation.prompts().expand(len(batch), -1, -1), batch)
    steps(adaptation, batch, count=1)
    assert all(not embedding.is_inference() for embedding in backbone._answers.values())  # type: ignore[attr-defined]
