"""Deep prompts are peft's prefix tuning: answers, texts and gradients, in every family that peft knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PrefixTuningConfig
from pefts import (
    DEFINED,
    OF_PEFT,
    TASKS,
    TEXTS,
    P,
    adapted,
    batch_of,
    difference,
    generated,
    log_likelihoods,
    mistral,
    no_prompt,
    scored,
)

from models import FAMILY, LAYERS, t5_tokenizer, widen
from softprune.adapters.base import AdapterPlan
from softprune.adapters.prefix import STORED, Prefix, empty_cache, new_prefix, stored_prefix
from softprune.errors import SoftpruneError
from softprune.models import load_backbone
from softprune.models.base import Backbone

pytestmark = [
    pytest.mark.slow,
    # peft asks transformers for something that transformers is about to drop; neither is ours.
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils"),
]
Backbones = Callable[..., Backbone]
PLAN = AdapterPlan("p-tuning-v2", tokens=P)
Models = Callable[[str], Path]
# Elsewhere transformers computes norms, rotations or a softmax in float32 whatever the weights are.
WIDE = ("gpt2", "bart")
CASES = [(name, "float32", 1e-5) for name in OF_PEFT] + [(name, "float64", 1e-10) for name in WIDE]


# --- peft's layout ---


def places(name: str) -> list[int]:
    """Where in peft's numbers those of each layer stand, keys and values in turn.

    Of an encoder-decoder peft doubles the layers' `2 L` entries and reads them in steps of four, keys and values of
    the decoder's own attention in front: with an even number of layers half of them twice and the others never.
    """
    step = 4 if FAMILY[name] == "seq2seq" else 2
    return [(step * layer + part) % (2 * LAYERS) for layer in range(LAYERS) for part in (0, 1)]


def last(module: Any) -> str:
    """The parameters that make keys and values."""
    return "transform.2" if module.prefix_projection else "embedding"


def rearranged(name: str, tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """A tensor that has peft's `2 L * width` numbers on an axis, with ours there."""
    parts = tensor.unflatten(axis, (2 * LAYERS, -1))
    return parts.index_select(axis, torch.tensor(places(name))).flatten(axis, axis + 1)


def scale(prefix: Prefix) -> None:
    """Values of the size of a layer's own: a projection starts far smaller."""
    with torch.no_grad():
        for key, parameter in prefix.module.named_parameters():
            if prefix.module.prefix_projection and key.startswith("transform.2"):
                parameter.mul_(8)


def pair(name: str, prefix: Prefix, folder: Path, dtype: torch.dtype) -> Any:
    """peft's model with the weights of a prefix, and ours then those that peft reads of them."""
    scale(prefix)
    module = prefix.module
    config = PrefixTuningConfig(
        task_type=TASKS[FAMILY[name]],
        num_virtual_tokens=P,
        prefix_projection=module.prefix_projection,
        encoder_hidden_size=24,
    )
    model = adapted(name, folder, config, dtype)
    theirs = model.prompt_encoder["default"]
    theirs.load_state_dict(module.state_dict())
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if key.startswith(last(module)):
                parameter.copy_(rearranged(name, parameter, parameter.dim() - 1 if last(module) == "embedding" else 0))
    return model


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize(("name", "dtype", "tolerance"), CASES)
def test_answers_and_gradients_are_pefts(
    name: str,
    dtype: str,
    tolerance: float,
    project: bool,
    backbone_of: Backbones,
    tiny_models: Models,
    attached: Callable[..., Prefix],
) -> None:
    backbone = backbone_of(name, dtype)
    batch = batch_of(backbone)
    without = scored(backbone, batch)
    prefix = attached(backbone, project)
    model = pair(name, prefix, tiny_models(name), getattr(torch, dtype))
    ours, theirs = scored(backbone, batch), log_likelihoods(model, backbone.tokenizer, FAMILY[name])
    assert difference(ours, theirs) <= tolerance

    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).to(ours.dtype)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for key, parameter in model.prompt_encoder["default"].named_parameters():
        expected, found = parameter.grad, prefix.module.get_parameter(key).grad
        if key.startswith(last(prefix.module)):
            axis = 0 if project else 1
            found = collected(name, found, axis)
        assert difference(found, expected) <= 20 * tolerance
        assert difference(1.01 * found, expected) > 20 * tolerance

    # Negative controls: no prefix, one of zeros, one of another seed.
    with torch.no_grad():
        for parameter in prefix.module.parameters():
            parameter.zero_()
    zeros = scored(backbone, batch)
    prefix.detach()
    other = attached(backbone, project, seed=1)
    scale(other)
    for wrong in (without, zeros, scored(backbone, batch)):
        assert difference(wrong, theirs) > 100 * tolerance


def collected(name: str, gradient: torch.Tensor | None, axis: int) -> torch.Tensor:
    """Our gradient added up where peft reads the same numbers twice."""
    assert gradient is not None
    parts = gradient.unflatten(axis, (2 * LAYERS, -1))
    found = torch.zeros_like(parts).index_add_(axis, torch.tensor(places(name)), parts)
    return found.flatten(axis, axis + 1)


@pytest.mark.parametrize("name", OF_PEFT)
def test_texts_are_pefts(
    name: str, backbone_of: Backbones, tiny_models: Models, attached: Callable[..., Prefix]
) -> None:
    backbone = backbone_of(name)
    batch, nothing = batch_of(backbone), no_prompt(backbone)[0]
    without = backbone.generate(nothing, batch, 8)
    prefix = attached(backbone)
    model = pair(name, prefix, tiny_models(name), torch.float32)
    model.base_model.generation_config = (
        backbone.model.generation_config
    )  # greedy alone, without BART's forced last token
    ours = backbone.generate(nothing, batch, 8)
    assert ours == generated(model, backbone.tokenizer, FAMILY[name], 8)
    assert ours == [backbone.generate(nothing, batch_of(backbone, [text]), 8)[0] for text in TEXTS]
    assert ours != without
    prefix.detach()
    assert backbone.generate(nothing, batch, 8) == without


# --- what a prefix is ---


@torch.no_grad()
def read_before(backbone: Backbone, vectors_PH: torch.Tensor) -> dict[str, torch.Tensor]:
    """The keys and values that a model's own layers make of tokens that stand in front."""
    cache = empty_cache(backbone)
    mask = torch.ones(1, len(vectors_PH), dtype=torch.long)
    backbone.trunk(inputs_embeds=vectors_PH[None], attention_mask=mask, past_key_values=cache, use_cache=True)
    kept_L2hPD = torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers])
    return {STORED: kept_L2hPD.permute(3, 0, 1, 2, 4).flatten(1)}


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom", "mistral"])
def test_a_prefix_is_to_a_decoder_what_tokens_in_front_are(name: str, backbone_of: Backbones, tmp_path: Path) -> None:
    """With the keys and values of P vectors, a text reads as it does behind these vectors, where positions go on."""
    backbone = mistral(tmp_path, 64) if name == "mistral" else backbone_of(name)
    batch = batch_of(backbone)
    vectors = backbone.embed_ids([5, 9, 6, 8, 7])
    behind = backbone.scores(vectors[None], batch, "sum")[0]
    texts = backbone.generate(vectors, batch, 8)
    prefix = stored_prefix(backbone, PLAN, read_before(backbone, vectors))
    assert difference(scored(backbone, batch), behind) <= 1e-6
    assert backbone.generate(no_prompt(backbone)[0], batch, 8) == texts
    if name != "bloom":  # which takes none
        hook = backbone.trunk.register_forward_pre_hook(a_place_earlier, with_kwargs=True)
        wrong = scored(backbone, batch)
        hook.remove()
        assert difference(wrong, behind) > 1e-4
    prefix.detach()
    assert difference(scored(backbone, batch), behind) > 1e-4


def test_a_window_holds_prefix_and_text(tmp_path: Path, attached: Callable[..., Prefix]) -> None:
    backbone = mistral(tmp_path, P + 8)
    attached(backbone)
    short = backbone.generate(no_prompt(backbone)[0], batch_of(backbone, TEXTS[:1]), 2)
    assert len(short) == 1
    with pytest.raises(SoftpruneError, match="of at most 13 tokens, since some layers look no further back"):
        scored(backbone, batch_of(backbone))
    with pytest.raises(SoftpruneError, match="of at most 13 tokens"):
        backbone.generate(no_prompt(backbone)[0], batch_of(backbone, TEXTS[:1]), 30)


def a_place_earlier(trunk: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Positions one short of what they should be."""
    length = kwargs["inputs_embeds"].shape[1]
    given = kwargs.get("position_ids")
    earlier = torch.arange(P, P + length)[None] - 1 if given is None else given - 1
    return args, kwargs | {"position_ids": earlier}


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_packed_answers_behind_a_prefix(
    name: str, backbone_of: Backbones, attached: Callable[..., Prefix], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of(name, "float64")
    batch, prefix = batch_of(backbone), attached(backbone)

    def read() -> tuple[torch.Tensor, torch.Tensor]:
        sums = scored(backbone, batch)
        return sums, torch.autograd.grad(sums.sum(), prefix.module.embedding.weight)[0]

    packed, packed_gradient = read()
    monkeypatch.setattr("softprune.models.causal.PACKED", ())
    apart, apart_gradient = read()
    tolerance = 1e-12 if name == "gpt2" else 1e-6  # rotations are float32's
    assert difference(packed, apart) <= tolerance
    assert difference(packed_gradient, apart_gradient) <= tolerance
    assert difference(packed[:, [1, 0, 2]], apart) > 100 * tolerance


@pytest.mark.parametrize("name", DEFINED)
def test_padding_and_batch_mates_do_not_matter(
    name: str, backbone_of: Backbones, attached: Callable[..., Prefix]
) -> None:
    backbone = backbone_of(name)
    attached(backbone)
    with torch.no_grad():
        together = scored(backbone, batch_of(backbone))
        alone = torch.cat([scored(backbone, batch_of(backbone, [text])) for text in TEXTS])
    assert difference(together, alone) <= 1e-5
    assert difference(together.flip(0), alone) > 1e-3


@pytest.mark.parametrize("name", DEFINED)
def test_detaching_restores_every_bit(name: str, backbone_of: Backbones, attached: Callable[..., Prefix]) -> None:
    backbone = backbone_of(name)
    batch = batch_of(backbone)
    before = scored(backbone, batch)
    prefix = attached(backbone)
    assert difference(scored(backbone, batch), before) > 1e-3
    prefix.detach()
    assert torch.equal(scored(backbone, batch), before)
    assert not backbone.trunk._forward_pre_hooks
    attached(backbone)
    prefix.detach()  # a second time: what was attached since stays
    assert difference(scored(backbone, batch), before) > 1e-3


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("name", DEFINED)
def test_nothing_but_the_prefix_gets_a_gradient(
    name: str, project: bool, backbone_of: Backbones, attached: Callable[..., Prefix]
) -> None:
    backbone = backbone_of(name)
    prefix = attached(backbone, project)
    backbone.losses(no_prompt(backbone), batch_of(backbone), backbone.default_loss, "sum").sum().backward()
    for parameter in prefix.module.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in backbone.model.parameters())
    if not project:  # every layer's keys and values, and those of every token
        gradient_PL2I = prefix.module.embedding.weight.grad.view(P, -1, 2, 32)
        assert bool((gradient_PL2I.abs().sum(-1) > 0).all())


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5_v1_1", "bart", "bert", "sentence"])
def test_under_a_bfloat16_backbone_it_is_float32(
    name: str, backbone_of: Backbones, attached: Callable[..., Prefix]
) -> None:
    narrow, wide = backbone_of(name, "bfloat16"), backbone_of(name)
    found = []
    for backbone in (narrow, wide):
        prefix = attached(backbone)
        loss = backbone.losses(no_prompt(backbone), batch_of(backbone), "rank", "sum").mean()
        found.append(torch.autograd.grad(loss, prefix.module.embedding.weight)[0])
    assert found[0].dtype == torch.float32
    assert difference(found[0], found[1]) <= 0.1
    assert difference(found[0].flip(0), found[1]) > 0.5


def test_a_decoder_of_other_depth_than_its_encoder(tmp_path: Path, attached: Callable[..., Prefix]) -> None:
    config = transformers.T5Config(
        vocab_size=t5_tokenizer(tmp_path),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=1,
        num_decoder_layers=3,
        num_heads=4,
        decoder_start_token_id=0,
    )
    widen(transformers.T5ForConditionalGeneration(config)).save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path), dtype="float32", device="cpu")
    prefix = attached(backbone)
    assert prefix.keys_values().shape == (P, 3 * 2 * 32)
    scored(backbone, batch_of(backbone)).sum().backward()
    assert bool((prefix.module.embedding.weight.grad.view(P, 3, -1).abs().amax((0, 2)) > 0).all())


# --- making and storing it ---


def test_a_seed_makes_the_same_values(backbone_of: Backbones, attached: Callable[..., Prefix]) -> None:
    backbone = backbone_of("gpt2")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    made = []
    for seed in (4, 4, 5):
        prefix = attached(backbone, True, seed)
        made.append(prefix.keys_values())
        prefix.detach()
    assert torch.equal(made[0], made[1])
    assert difference(made[0], made[2]) > 0.1
    assert torch.equal(torch.rand(3), expected)  # the process's own draws go on as if nothing had been drawn


@pytest.mark.parametrize("name", ["llama", "t5_v1_1", "bert"])
def test_what_is_stored_reads_alike(name: str, backbone_of: Backbones, attached: Callable[..., Prefix]) -> None:
    backbone = backbone_of(name)
    batch, prefix = batch_of(backbone), attached(backbone, True, hidden=None)
    scale(prefix)
    before, stored = scored(backbone, batch), prefix.stored()
    heads = 2 if name == "llama" else 4  # llama's keys and values are shared by pairs of its heads
    assert prefix.module.transform[0].weight.shape == (heads * 8, heads * 8)
    assert {key: tuple(value.shape) for key, value in stored.items()} == {STORED: (P, LAYERS * 2 * heads * 8)}
    assert not stored[STORED].requires_grad
    prefix.detach()
    again = stored_prefix(backbone, PLAN, stored)
    assert torch.equal(scored(backbone, batch), before)
    again.detach()


def test_what_is_not_a_prefix_of_this_model(backbone_of: Backbones, attached: Callable[..., Prefix]) -> None:
    backbone = backbone_of("gpt2")
    with pytest.raises(SoftpruneError, match=r"keys_values: \(5, 64\) for \(5, 128\)"):
        stored_prefix(backbone, PLAN, {STORED: torch.zeros(P, 64)})
    with pytest.raises(SoftpruneError, match=r"keys_values: none for \(5, 128\)"):
        stored_prefix(backbone, PLAN, {"vectors_PH": torch.zeros(P, 128)})
    assert not backbone.adapter.has_prefix
    attached(backbone)
    with pytest.raises(SoftpruneError, match="a backbone without a prefix"):
        new_prefix(backbone, PLAN, seed=0)
