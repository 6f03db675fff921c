"""Conversations: ids and scores are those of `apply_chat_template` over the whole, wherever the prompt is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models import CHATML, MERGED
from softprune.errors import SoftpruneError
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.chat import chat_answer_ids, chat_ids, turn_end_id
from softprune.types import Chat, Encoded, Example, Segment

Models = Callable[[str], Path]

# A space in front of the answer and no generation prompt, as in Llama 2.
BRACKETS = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ bos_token }}<<SYS>>{{ m['content'] }}<</SYS>>"
    "{% elif m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }} {{ eos_token }}"
    "{% endif %}{% endfor %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "merged": MERGED, "brackets": BRACKETS}
TEXT, ANSWERS = "the film was a slow and quiet joy", ("it was positive", "negative")


@pytest.fixture
def backbone(tiny_models: Models) -> Backbone:
    return load_backbone(str(tiny_models("chat")), dtype="float32", device="cpu")


def said(chat: Chat, answer: str | None = None) -> list[dict[str, str]]:
    turns = [{"role": "system", "content": chat.system}] if chat.system else []
    turns.append({"role": "user", "content": TEXT})
    return turns if answer is None else [*turns, {"role": "assistant", "content": answer}]


def reference_ids(tokenizer: Any, chat: Chat, answer: str | None = None) -> list[int]:
    """transformers' own ids of a conversation, up to where the assistant speaks or with its answer."""
    found = tokenizer.apply_chat_template(said(chat, answer), add_generation_prompt=answer is None)
    return list(found["input_ids"])


CHATS = [Chat(), Chat("be brief"), Chat("be brief", "system")]


@pytest.mark.parametrize("chat", CHATS, ids=["plain", "system text", "prompt in the system turn"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_are_those_of_the_whole_conversation(backbone: Backbone, name: str, chat: Chat) -> None:
    tokenizer = backbone.tokenizer
    tokenizer.chat_template = TEMPLATES[name]
    ids, place = chat_ids(tokenizer, chat, TEXT)
    assert ids == reference_ids(tokenizer, chat)
    assert ids.count(tokenizer.bos_token_id) <= 1
    for answer in ANSWERS:
        behind = chat_answer_ids(tokenizer, chat, answer)
        whole = reference_ids(tokenizer, chat, answer)
        assert [*ids, *behind] == whole[: len(ids) + len(behind)]
        left = tokenizer.decode(whole[len(ids) + len(behind) :])
        assert left.strip() in ("<|im_end|>", "<end_of_turn>", tokenizer.eos_token)
    assert tokenizer.decode(ids[place:]).startswith("be brief" if chat.place == "system" else tokenizer.decode(ids[:1]))
    assert (place > 0) == (chat.place == "system")


@pytest.mark.parametrize("place", ["front", "system"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_scores_are_those_of_a_plain_forward(backbone: Backbone, name: str, place: Any) -> None:
    chat = Chat("be brief", place)
    backbone.tokenizer.chat_template = TEMPLATES[name]
    segments = (Segment(TEXT, shortenable=True, from_row=True),)
    plain = Example("0", 0, segments, ANSWERS, 1)
    example = Example("1", 1, segments, ANSWERS, 0, chat=chat)
    encoded = backbone.encode([example, plain], 128)
    prompt_PH = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():  # a conversation and a plain text in one batch
        found = backbone.scores(prompt_PH[None], backbone.batch(encoded), "sum")[0, 0]
        expected = torch.stack([plain_score(backbone, prompt_PH, encoded[0], answer, chat) for answer in ANSWERS])
        elsewhere = Chat("be brief", "front" if place == "system" else "system")
        moved = torch.stack([plain_score(backbone, prompt_PH, encoded[0], answer, elsewhere) for answer in ANSWERS])
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 1e-5 * scale
    assert float((found - moved).abs().max()) > 1e-3 * scale  # negative control: the prompt at the other place


def plain_score(backbone: Backbone, prompt_PH: torch.Tensor, read: Encoded, answer: str, chat: Chat) -> torch.Tensor:
    """Log-probability of an answer by transformers' forward of its own ids, the prompt in its place."""
    tokenizer = backbone.tokenizer
    ids, whole = reference_ids(tokenizer, chat), reference_ids(tokenizer, chat, answer)
    scored = whole[len(ids) : len(ids) + len(chat_answer_ids(tokenizer, chat, answer))]
    at = 0
    if chat.place == "system":
        at = next(i for i in range(len(ids)) if tokenizer.decode(ids[i:]).startswith("be brief"))
    vectors = backbone.model.get_input_embeddings()(torch.tensor([*ids, *scored]))
    embeds = torch.cat([vectors[:at], prompt_PH, vectors[at:]])[None]
    logits = backbone.model(inputs_embeds=embeds).logits[0, -len(scored) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(scored)), scored].sum()


def test_a_generation_prompt_that_says_more_than_a_turn(backbone: Backbone) -> None:
    """Qwen 3 closes an empty thought, which a rendered turn doesn't have; the answer follows it."""
    tokenizer, chat = backbone.tokenizer, Chat(options=(("enable_thinking", False),))
    tokenizer.chat_template = CHATML
    ids, _ = chat_ids(tokenizer, chat, TEXT)
    assert tokenizer.decode(ids).endswith("<think>\n\n</think>\n\n")
    assert tokenizer.decode(list(chat_answer_ids(tokenizer, chat, "negative"))) == "negative"


def test_a_written_text_ends_as_a_turn_does(backbone: Backbone) -> None:
    tokenizer = backbone.tokenizer
    tokenizer.chat_template = CHATML
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert turn_end_id(tokenizer, Chat()) == end
    segments = (Segment(TEXT, shortenable=True, from_row=True),)
    (target,) = backbone.encode([Example("0", 0, segments, ("a short one",), 0, chat=Chat())], 128)[0].answer_ids
    assert target[-1] == end
    (plain,) = backbone.encode([Example("0", 0, segments, ("a short one",), 0)], 128)[0].answer_ids
    assert plain[-1] == tokenizer.eos_token_id


def test_what_is_cut_is_the_text_of_the_user(backbone: Backbone) -> None:
    backbone.tokenizer.chat_template = CHATML
    long = Segment(" ".join([TEXT] * 9), shortenable=True, from_row=True)
    (encoded,) = backbone.encode([Example("0", 0, (long,), ANSWERS, 0, chat=Chat("be brief"))], 60)
    assert len(encoded.input_ids) <= 60
    assert encoded.cut > 0
    assert backbone.tokenizer.decode(list(encoded.input_ids)).endswith("<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("template", "chat", "message"),
    [
        (None, Chat(), "a tokenizer with a chat template"),
        (NO_SYSTEM, Chat("be brief"), "System role not supported"),
        (NO_SYSTEM, Chat(place="system"), "renders the turns system, user"),
        ("{{ messages[0]['content'] }", Chat(), "renders the turns user"),
        ("{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}",
         Chat(place="system"), "a chat template that shows its system text"),
    ],
    ids=["none", "no system", "no system to be in", "damaged", "system text left out"],
)  # fmt: skip
def test_conversations_that_cannot_be(backbone: Backbone, template: str | None, chat: Chat, message: str) -> None:
    backbone.tokenizer.chat_template = template
    with pytest.raises(SoftpruneError, match=message):
        chat_ids(backbone.tokenizer, chat, TEXT)


def test_other_families_have_no_conversations(tiny_models: Models) -> None:
    backbone = load_backbone(str(tiny_models("t5")), dtype="float32", device="cpu")
    example = Example("0", 0, (Segment(TEXT, from_row=True),), ANSWERS, 0, chat=Chat())
    with pytest.raises(SoftpruneError, match="a decoder-only backbone for a task with chat"):
        backbone.encode([example], 64)
