"""The check at load: what softprune reads otherwise than transformers does is refused, and for the true reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_architectures as tiny
import torch
import transformers
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from softprune.errors import SoftpruneError
from softprune.models import describe, load_backbone
from softprune.models.base import Backbone
from softprune.models.load_check import ordinary_ids

Models = Callable[[str], Path]
Combined = tuple[torch.Tensor, torch.Tensor]  # embeddings and their mask


def load(folder: Path, dtype: str = "float32", family: str = "auto") -> Backbone:
    return load_backbone(str(folder), family=family, dtype=dtype, device="cpu")


@pytest.fixture
def spoil_combined(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Combined, int], Combined]], None]:
    """Let every family put prompt and text together otherwise."""
    real = Backbone.combine

    def spoil(change: Callable[[Combined, int], Combined]) -> None:
        def combine(self: Backbone, prompts: torch.Tensor, *inputs: Any) -> Combined:
            return change(real(self, prompts, *inputs), prompts.shape[1])

        monkeypatch.setattr(Backbone, "combine", combine)

    return spoil


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "bert", "distilbert", "sentence"])
def test_prompts_that_are_read_a_little_otherwise_are_refused(
    tiny_models: Models, name: str, spoil_combined: Callable[..., None]
) -> None:
    """By 1%, which only vectors in front of a text can show: without a prompt nothing is changed."""
    spoil_combined(lambda found, length: (found[0] * (1.01 if length else 1), found[1]))
    with pytest.raises(SoftpruneError, match=r"differs by .* in reading a text behind a soft prompt of 3"):
        load(tiny_models(name))


@pytest.mark.parametrize("name", ["t5", "bart", "bert", "distilbert", "sentence"])
def test_padding_that_is_read_is_refused(tiny_models: Models, name: str, spoil_combined: Callable[..., None]) -> None:
    spoil_combined(lambda found, _: (found[0], torch.ones_like(found[1])))
    with pytest.raises(SoftpruneError, match="a text behind a soft prompt of 3"):
        load(tiny_models(name))


def test_an_amount_of_its_own_is_refused(tiny_models: Models, spoil_combined: Callable[..., None]) -> None:
    """A model that reads small vectors right and cuts large ones."""

    def cut(found: Combined, _: int) -> Combined:
        return found[0].clamp(-4, 4), found[1]

    spoil_combined(cut)
    with pytest.raises(SoftpruneError, match="a text behind a soft prompt of 1"):
        load(tiny_models("gpt2"))


def test_half_precision_is_checked_too(tiny_models: Models, spoil_combined: Callable[..., None]) -> None:
    spoil_combined(lambda found, length: (found[0] * (1.5 if length else 1), found[1]))
    for dtype in ("bfloat16", "float16"):
        with pytest.raises(SoftpruneError, match="a text behind a soft prompt of 3"):
            load(tiny_models("gpt2"), dtype)


def test_a_forward_that_fails_on_vectors_is_refused(tiny_models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("vectors that are no rows of the table")

    monkeypatch.setattr("softprune.models.causal.CausalBackbone.answer_sums", fail)
    with pytest.raises(SoftpruneError) as caught:
        load(tiny_models("llama"))
    assert caught.value.found == '"llama", which does not: RuntimeError: vectors that are no rows of the table'


# --- the attention kernel ---


def test_plain_products_in_bfloat16_on_a_cpu(tiny_models: Models) -> None:
    assert load(tiny_models("llama"), "bfloat16").model.config._attn_implementation == "eager"
    assert load(tiny_models("llama"), "float32").model.config._attn_implementation == "sdpa"


def test_a_kernel_that_disagrees_with_the_usual_one_is_not_taken(
    tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama import modeling_llama

    real = modeling_llama.eager_attention_forward
    monkeypatch.setattr(
        modeling_llama,
        "eager_attention_forward",
        lambda *given, **more: tuple(1.3 * part for part in real(*given, **more)),
    )
    assert "eager" not in ALL_ATTENTION_FUNCTIONS  # each architecture has its own
    assert load(tiny_models("llama"), "bfloat16").model.config._attn_implementation == "sdpa"


def test_falcon_with_alibi_keeps_the_usual_kernel(tmp_path: Path) -> None:
    """transformers' plain attention of Falcon adds alibi twice: scores are 10% off."""
    folder = tiny.build(tmp_path, "causal", "falcon alibi")
    assert load(folder, "bfloat16").model.config._attn_implementation == "sdpa"


# --- dtypes ---


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["mamba", "rwkv"])
def test_a_trunk_that_ends_in_float32(tmp_path: Path, name: str, dtype: str) -> None:
    backbone = load(tiny.build(tmp_path, "causal", name), dtype)
    assert backbone.dtype == getattr(torch, dtype)


@pytest.mark.parametrize(
    ("family", "name"), [("causal", "rwkv"), ("causal", "codegen"), ("causal", "mpt"), ("masked", "roberta")]
)
def test_configurations_without_a_padding_token(tmp_path: Path, family: str, name: str) -> None:
    folder = tiny.build(tmp_path, family, name)
    config = json.loads((folder / "config.json").read_text())
    config.pop("pad_token_id", None)
    (folder / "config.json").write_text(json.dumps(config))
    assert ordinary_ids(load(folder, family=family).model).shape == (1, 4)


# --- modules that aren't where others have them ---


def test_deberta_s_other_head(tmp_path: Path) -> None:
    backbone = load(tiny.build(tmp_path, "masked", "deberta-v2", legacy=False))
    assert not hasattr(backbone.model, "cls")


def test_llama_4_s_text_model(tmp_path: Path) -> None:
    backbone = load(tiny.build(tmp_path, "causal", "llama4_text"))
    assert backbone.trunk is backbone.model.model


# --- what its configuration alone refuses ---


def described(folder: Path, kind: str, family: str, **settings: Any) -> str:
    config = transformers.AutoConfig.for_model(kind, **settings)
    config.architectures = ["SomethingForConditionalGeneration"]
    config.save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(SoftpruneError) as caught:
        describe(str(folder), family)
    return caught.value.found


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("qwen3_vl", '"qwen3_vl", which holds "qwen3_vl_text"'),  # transformers has no class for it alone
        ("clip", '"clip", which holds "clip_text_model"'),
        ("musicgen", '"musicgen", whose audio_encoder and decoder and text_encoder have configurations of their own'),
    ],
)
def test_wrappers_without_a_text_model_are_named(tmp_path: Path, kind: str, message: str) -> None:
    assert described(tmp_path, kind, "auto") == message


def test_positions_that_nothing_limits(tmp_path: Path) -> None:
    """XLNet says -1. It also reads ahead, so it is no causal model."""
    folder = tiny.build(tmp_path, "causal", "xlnet")
    assert describe(str(folder)).positions is None
    with pytest.raises(SoftpruneError, match='"xlnet", which differs by'):
        load(folder)


def test_a_masked_model_needs_a_mask_token(tiny_models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(tiny_models("bert")).tokenization().slot_token == "[MASK]"
    monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "mask_token", None, raising=False)
    monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "mask_token_id", None, raising=False)
    with pytest.raises(SoftpruneError, match="a tokenizer with a mask token"):
        load(tiny_models("bert"))
