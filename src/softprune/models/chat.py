"""Conversations: a tokenizer's own chat template around an input, and how an answer continues it.

The template renders the whole conversation as one text, which is tokenised without further special tokens, as
`apply_chat_template` does: a template that writes a beginning-of-sequence token writes it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprune.errors import SoftpruneError, shorten
from softprune.models.token_ids import ids_after, plain_ids
from softprune.types import Chat

_PLACE, _USER, _ANSWER = "SOFTPROMPT", "question", "answer"  # words that a template leaves as they are


@dataclass(frozen=True, slots=True)
class AnswerSeam:
    """What a template puts around an assistant's answer."""

    opening: str  # a whole conversation up to where the assistant speaks
    before: str  # white space in front of the answer, as in Llama 2's and Mistral's templates
    behind: str  # what ends the assistant's turn


def render_chat(tokenizer: Any, chat: Chat, text: str) -> tuple[str, str]:
    """The conversation up to where the assistant speaks: what precedes the soft prompt, and what follows it.

    Raises:
        SoftpruneError: without a chat template, or where it can't render this conversation.
    """
    if chat.place == "front":
        return "", _render(tokenizer, chat, chat.system, text)
    rendered = _render(tokenizer, chat, _PLACE + chat.system, text)
    head, found, tail = rendered.partition(_PLACE)
    if not found:
        raise SoftpruneError(
            "a chat template that shows its system text, for chat.place: system",
            f"none of it in the conversation that the template of {Path(tokenizer.name_or_path).name} renders",
            "set chat.place: front in the task",
        )
    return head, tail


def chat_ids(tokenizer: Any, chat: Chat, text: str) -> tuple[list[int], int]:
    """Token ids of a conversation up to where the assistant speaks, and the position in them of the soft prompt."""
    head, tail = render_chat(tokenizer, chat, text)
    before = plain_ids(tokenizer, head) if head else []
    return before + plain_ids(tokenizer, tail), len(before)


def chat_answer_ids(tokenizer: Any, chat: Chat, text: str) -> tuple[int, ...]:
    """Token ids of an answer behind the generation prompt, without what ends the assistant's turn."""
    seam = find_seam(tokenizer, chat)
    return ids_after(tokenizer, seam.opening, seam.before + text)


def turn_end_id(tokenizer: Any, chat: Chat) -> int | None:
    """The special token that ends an assistant's turn; the end of any text where the template has none of its own."""
    seam = find_seam(tokenizer, chat)
    spoken = seam.opening + seam.before + _ANSWER
    ids = plain_ids(tokenizer, spoken + seam.behind)[len(plain_ids(tokenizer, spoken)) :]
    end: int | None = ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else tokenizer.eos_token_id
    return end


def find_seam(tokenizer: Any, chat: Chat) -> AnswerSeam:
    """Find what a template puts around an answer, by rendering one conversation without and with it."""
    opening = _render(tokenizer, chat, chat.system, _USER)
    whole = _apply(tokenizer, chat, [*_messages(chat.system, _USER), {"role": "assistant", "content": _ANSWER}], False)
    # Some generation prompts say more than a rendered turn does (Qwen 3 closes an empty thought): an answer then
    # follows them directly.
    said = whole[len(opening) :] if whole.startswith(opening) else whole[whole.rindex(_USER) :]
    before, _, behind = said.rpartition(_ANSWER)
    if before.strip():
        before = ""
    return AnswerSeam(opening, before, behind)


def _render(tokenizer: Any, chat: Chat, system: str, text: str) -> str:
    return _apply(tokenizer, chat, _messages(system, text), True)


def _messages(system: str, text: str) -> list[dict[str, str]]:
    said = [{"role": "system", "content": system}] if system else []
    return [*said, {"role": "user", "content": text}]


def _apply(tokenizer: Any, chat: Chat, messages: list[dict[str, str]], ask: bool) -> str:
    if not tokenizer.chat_template:
        raise SoftpruneError(
            "a tokenizer with a chat template, for a task with chat",
            f"none in {Path(tokenizer.name_or_path).name}",
            "choose an instruction-tuned model, or leave chat out of the task",
        )
    try:
        rendered: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=ask, **dict(chat.options)
        )
    except Exception as error:  # a template is a program of its own, and raises what it likes
        do = (
            "leave `system` out of the task's chat" if chat.system or chat.place == "system" else "choose another model"
        )
        roles = ", ".join(message["role"] for message in messages)
        raise SoftpruneError(f"a chat template that renders the turns {roles}", shorten(error), do) from error
    return rendered
