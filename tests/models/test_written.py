"""Texts that are written: their tokens and end, their loss, and that a batch writes what each row writes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from models import names_of
from softprune.models.base import Backbone
from softprune.models.tokenization import cut_to
from softprune.types import Example, Segment

Backbones = Callable[..., Backbone]
WRITERS = [*names_of("seq2seq"), *names_of("causal")]
TEXTS = (
    ("the film was a slow and quiet joy from its first scene to the last", "a quiet film"),
    ("a dull plot", "the plot never wakes up and the cast seems to know it"),
    ("she opened the window and the cold wind entered", "a cold room"),
)


def example(place: int, article: str, summary: str) -> Example:
    segments = (Segment(article, shortenable=True, from_row=True), Segment(" TL;DR:"), Segment("", answer_slot=True))
    return Example(str(place), place, segments, (summary,), 0)


EXAMPLES = [example(place, *texts) for place, texts in enumerate(TEXTS)]


def prompt_of(backbone: Backbone, tokens: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randn((tokens, backbone.info.hidden), generator=generator, dtype=backbone.prompt_dtype)
    return drawn * backbone.embeddings_rms()


@pytest.mark.parametrize("name", WRITERS)
def test_a_target_ends_and_a_cut_one_does_not(name: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(name)
    end = backbone.tokenizer.eos_token_id
    (whole, _, _), (cut, longer, _) = backbone.encode(EXAMPLES, 64, 64), backbone.encode(EXAMPLES, 64, 5)
    assert whole.answer_ids[0][-1] == end
    assert whole.answer_ids[0].count(end) == 1
    assert whole.target_cut == 0
    assert len(longer.answer_ids[0]) == 5
    assert end not in longer.answer_ids[0]
    assert longer.target_cut > 0
    assert cut.target_cut == len(whole.answer_ids[0]) - len(cut.answer_ids[0])
    # The same words as answers to choose from: a causal model's have no end, an encoder-decoder's always had.
    (chosen,) = backbone.encode([replace(EXAMPLES[0], answers=("a quiet film", "no"))], 64)
    assert (chosen.answer_ids[0][-1] == end) == (backbone.family == "seq2seq")
    without_end = whole.answer_ids[0] if backbone.family == "seq2seq" else whole.answer_ids[0][:-1]
    assert chosen.answer_ids[0] == without_end


@pytest.mark.parametrize("name", WRITERS)
def test_a_row_without_a_text_of_its_own_is_read(name: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(name)
    (found,) = backbone.encode([replace(EXAMPLES[0], answers=("",), gold=-1)], 64, 8)
    assert (found.answer_ids, found.gold) == (((backbone.tokenizer.eos_token_id,),), 0)


@pytest.mark.parametrize("name", WRITERS)
def test_the_loss_is_per_token_end_included(name: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(name, "float64")
    encoded = backbone.encode(EXAMPLES, 64, 64)
    prompt = prompt_of(backbone)
    together = backbone.losses(prompt[None], backbone.batch(encoded), "likelihood", "mean")[0]
    for at, each in enumerate(encoded):
        batch = backbone.batch([each])
        alone = -backbone.answer_sums(prompt[None], batch)[0, 0] / len(each.answer_ids[0])
        near = 1e-7 if name == "bloom" else 1e-9  # BLOOM's softmax is float32's
        assert abs(float(together[at] - alone)) <= near * abs(float(alone))
    endless = [replace(each, answer_ids=(each.answer_ids[0][:-1],)) for each in encoded]
    other = backbone.losses(prompt[None], backbone.batch(endless), "likelihood", "mean")[0]
    assert float((other - together).abs().max()) > 1e-3 * float(together.abs().max())


@pytest.mark.parametrize("name", WRITERS)
def test_a_batch_writes_what_each_row_writes_alone(name: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(name)
    encoded = backbone.encode(EXAMPLES, 64, 12)
    assert len({len(each.input_ids) for each in encoded}) == 3  # padded in a batch
    prompt = prompt_of(backbone)
    together = backbone.generate(prompt, backbone.batch(encoded), 12)
    assert together == [backbone.generate(prompt, backbone.batch([each]), 12)[0] for each in encoded]
    assert together != backbone.generate(-prompt, backbone.batch(encoded), 12)
    short = backbone.generate(prompt, backbone.batch(encoded), 2)
    assert short != together
    assert all(whole.startswith(start) for whole, start in zip(together, short, strict=True) if start.isascii())


@pytest.mark.parametrize("name", WRITERS)
def test_writing_stops_at_the_end(name: str, backbone_of: Backbones, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the token that comes third for the end, the tokenizer knowing none: it and what follows are no text."""
    backbone = backbone_of(name)
    batch, prompt = backbone.batch(backbone.encode(EXAMPLES[:1], 64, 12)), prompt_of(backbone)
    ids: list[list[int]] = []
    decode = backbone.tokenizer.batch_decode

    def noted(tokens: list[list[int]], **options: object) -> list[str]:
        ids.append(tokens[0])
        texts: list[str] = decode(tokens, **options)
        return texts

    monkeypatch.setattr(backbone.tokenizer, "batch_decode", noted)
    backbone.generate(prompt, batch, 8)
    config = backbone.model.generation_config
    third = ids[0][2]
    monkeypatch.setattr(config, "eos_token_id", third)
    backbone.generate(prompt, batch, 8)
    assert ids[1] == ids[0][: ids[0].index(third)]
    assert len(ids[1]) <= 2 < len(ids[0])


def test_what_a_release_asks_of_generation_is_forgotten(backbone_of: Backbones) -> None:
    config = backbone_of("bart").model.generation_config
    assert (config.num_beams or 1, config.forced_eos_token_id, config.min_length or 0) == (1, None, 0)
    assert config.eos_token_id == 2


def test_a_text_is_cut_as_targets_are(backbone_of: Backbones) -> None:
    tokenizer = backbone_of("gpt2").tokenizer
    text = TEXTS[0][0]
    cut = cut_to(tokenizer, text, 5)
    assert text.startswith(cut)
    assert 1 <= len(tokenizer(cut)["input_ids"]) <= 5
    assert cut_to(tokenizer, text, 500) == text
