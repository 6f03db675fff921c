"""Self-study: a model writes questions about parts of a document, and answers them with all of it in front.

The rows have no labels: a cartridge is taught the model's distribution over the next tokens of its own answers
(Eyuboglu et al. 2025, arXiv 2506.06266, section 4). Each question comes of a part of the document, which the seed
draws, and of one of five requests, in turn. Both texts are greedy here, where the paper's are sampled: parts and
requests make questions differ, and a question that was asked already is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch

from softprune.adapters.cartridge import Cartridge
from softprune.errors import SoftpruneError
from softprune.models.batching import scoring_batches
from softprune.training.scoring import ROWS_THAT_WRITE, ScoredSet
from softprune.types import Batch, Chat, Example, Segment

PART_TOKENS = 256
"""Tokens of the document that a question is about, at most."""
QUESTION_TOKENS = 48
REQUESTS = (
    "Ask one question about a detail in the text above.",
    "Ask for a summary of one part of the text above.",
    "Ask how parts of the text above belong together.",
    "Ask for something that the text above is of use for.",
    "Ask an unusual question that the text above answers.",
)
"""The paper's kinds of seed prompts: questions, summaries, structure, uses, and creative ones."""
_CUE = "Question:"

Row = dict[str, str]
"""A `question`, and the model's `answer`."""
_Reading = Callable[[Batch], AbstractContextManager[Batch]]


def write_rows(
    cartridge: Cartridge, ids: Sequence[int], count: int, *, seed: int, answer_tokens: int, chat: Chat | None = None
) -> list[Row]:
    """Questions and answers of a document's token ids: as many as `count`, less what is empty or there already.

    Args:
        cartridge: one that has studied the document.
        answer_tokens: of an answer, at most.
        chat: how a text becomes a conversation; None where it stays one.

    Raises:
        SoftpruneError: questions and answers don't fit beside the document, or there are none.
    """
    requests, tokens = _requests(cartridge, ids, count, seed), _share(cartridge, QUESTION_TOKENS, 8)
    asked = [_one_line(text) for text in _generate(cartridge, requests, chat, tokens)]
    questions = list(dict.fromkeys(question for question in asked if question))
    answers: list[str] = []
    if questions:
        texts = [as_text(question, chat) for question in questions]
        written = _generate(cartridge, texts, chat, answer_tokens, cartridge.behind_document)
        answers = [text if chat is not None else _one_answer(text) for text in written]
    rows = [{"question": q, "answer": a} for q, a in zip(questions, answers, strict=True) if a]
    if not rows:
        found = f"none among {count} of {cartridge.backbone.info.name}"
        do = "choose a model that follows instructions, or leave adapter.self_study out"
        raise SoftpruneError("questions about the document that the model writes and answers", found, do)
    return rows


def as_text(question: str, chat: Chat | None) -> str:
    """A question as the model reads it: a turn of a conversation, or a text that an answer continues."""
    return question if chat is not None else f"{_CUE} {question}\nAnswer:"


def as_examples(rows: Sequence[Row], chat: Chat | None) -> list[Example]:
    """Rows as texts to be written."""
    return [_example(as_text(row["question"], chat), row["answer"], at, chat) for at, row in enumerate(rows)]


def _example(text: str, answer: str, index: int, chat: Chat | None) -> Example:
    return Example(f"self-study {index}", index, (Segment(text, shortenable=True),), (answer,), 0, chat=chat)


def _requests(cartridge: Cartridge, ids: Sequence[int], count: int, seed: int) -> list[str]:
    """Parts of the document, each with a request behind it."""
    size, tokenizer = min(_share(cartridge, PART_TOKENS, 4), len(ids)), cartridge.backbone.tokenizer
    draw = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(ids) - size + 1, (count,), generator=draw).tolist()
    parts = [tokenizer.decode(list(ids[at : at + size]), skip_special_tokens=True).strip() for at in starts]
    return [f"{part}\n\n{REQUESTS[at % len(REQUESTS)]}\n{_CUE}" for at, part in enumerate(parts)]


def _generate(
    cartridge: Cartridge, texts: Sequence[str], chat: Chat | None, tokens: int, behind: _Reading | None = None
) -> list[str]:
    """What the model writes after some texts, behind the document or by itself."""
    backbone = cartridge.backbone
    limit = backbone.info.positions or 2**31
    examples = [_example(text, " ", at, chat) for at, text in enumerate(texts)]
    data = ScoredSet(examples, backbone.encode(examples, limit))
    cartridge.check_room(0 if behind is None else cartridge.document_tokens, [data], tokens)
    nothing, written = cartridge.nothing()[0], dict[int, str]()
    for indices in scoring_batches(data.lengths, ROWS_THAT_WRITE):
        batch = data.batch(backbone, indices)
        if behind is None:
            with cartridge.off():
                texts_of = backbone.generate(nothing, batch, tokens)
        else:
            with behind(batch) as read:
                texts_of = backbone.generate(nothing, read, tokens)
        written.update(zip(indices, texts_of, strict=True))
    return [written[at] for at in range(len(data))]


def _share(cartridge: Cartridge, most: int, parts: int) -> int:
    """So many tokens, or less where the model reads few."""
    return most if cartridge.limit is None else min(most, cartridge.limit // parts)


def _one_answer(text: str) -> str:
    """What was written up to the next question, which a text that nothing ends often goes on with."""
    return text.partition(f"\n{_CUE}")[0].strip()


def _one_line(text: str) -> str:
    """The question at the beginning of what was written."""
    return text.strip().removeprefix(_CUE).strip().partition("\n")[0].strip()
