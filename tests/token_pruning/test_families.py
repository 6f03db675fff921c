"""Every family, read layer by layer, gives transformers' own logits."""

from __future__ import annotations

import pytest
import torch
import transformers
from encoders import (
    CLASSES,
    FAMILIES,
    INNER,
    LAYERS,
    LONGEST,
    OURS,
    TOLERANCES,
    batch_of,
    classifier,
    encoder_of,
    gap,
    mixed,
    padded,
    texts_of,
)

from softprune.errors import SoftpruneError
from softprune.token_pruning.families import Encoder, check_type, most_positions
from softprune.token_pruning.forward import forward
from softprune.token_pruning.packing import Packed, pack
from softprune.token_pruning.rules import KeepAll


@torch.no_grad()
def own_logits(family: str, dtype: torch.dtype, batch: Packed) -> torch.Tensor:
    model = classifier(family, dtype)
    ids_BN, mask_BN = padded(batch, pad=model.config.pad_token_id)
    logits: torch.Tensor = model(input_ids=ids_BN, attention_mask=mask_BN).logits
    return logits


@torch.no_grad()
def our_logits(family: str, dtype: torch.dtype, batch: Packed) -> torch.Tensor:
    return forward(encoder_of(family, dtype), batch, KeepAll(), OURS).logits_BC


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("count", [1, 7])
def test_unpruned_logits_are_those_of_transformers(family: str, dtype: torch.dtype, count: int) -> None:
    batch = batch_of(mixed(count))
    found, wanted = our_logits(family, dtype, batch), own_logits(family, dtype, batch)
    assert found.shape == (count, CLASSES)
    assert gap(found, wanted) <= TOLERANCES[dtype]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_and_its_place_are_seen(family: str) -> None:
    """The control: another token, and two tokens that change places, each move what the test above compares."""
    dtype = torch.float64
    (text,) = texts_of([20])
    wanted = own_logits(family, dtype, pack([text]))
    other = [*text[:10], text[10] % 100 + 6, *text[11:]]
    swapped = [*text[:10], text[11], text[10], *text[12:]]
    for changed in (other, swapped):
        assert changed != text
        assert gap(our_logits(family, dtype, pack([changed])), wanted) > 1e-3


@pytest.mark.parametrize("name", ["XLMRoberta", "Camembert"])
def test_roberta_s_other_names(name: str) -> None:
    config = getattr(transformers, f"{name}Config")(
        vocab_size=120,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=LONGEST + 2,
        type_vocab_size=1,
    )
    model = getattr(transformers, f"{name}ForSequenceClassification")(config).double().eval()
    batch = batch_of([9, 14])
    ids_BN, mask_BN = padded(batch, pad=config.pad_token_id)
    with torch.no_grad():
        wanted = model(input_ids=ids_BN, attention_mask=mask_BN).logits
        assert gap(forward(Encoder(model), batch, KeepAll(), OURS).logits_BC, wanted) <= 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_facts(family: str) -> None:
    encoder = encoder_of(family)
    assert (encoder.heads, encoder.hidden, encoder.inner) == (4, 32, INNER)
    assert len(encoder.layers) == LAYERS
    assert (encoder.hidden_dropout, encoder.attention_dropout) == (0.1, 0.1)
    assert most_positions(encoder.config) == LONGEST


def test_other_models_are_refused() -> None:
    with pytest.raises(SoftpruneError, match=r"an encoder whose tokens can be pruned(.|\n)*gpt2") as refusal:
        check_type(transformers.GPT2Config())
    assert "camembert" in str(refusal.value)
    with pytest.raises(SoftpruneError, match="bert as a decoder"):
        check_type(transformers.BertConfig(is_decoder=True))
    config = transformers.BertConfig()
    config.position_embedding_type = "relative_key"
    with pytest.raises(SoftpruneError, match="position_embedding_type: relative_key"):
        check_type(config)
