"""From a filled template to token ids. Truncation shortens shortenable segments only, and what it cut is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

from softprune.errors import SoftpruneError
from softprune.models.chat import chat_answer_ids, chat_ids, turn_end_id
from softprune.models.token_ids import ids_after, plain_ids
from softprune.types import Chat, Encoded, Example, Segment


@dataclass(frozen=True, slots=True)
class Tokenization:
    """How one backbone turns text into ids."""

    tokenizer: Any
    slot_token: str  # what fills the answer slot in the input (a masked model's mask token), "" for nothing
    answer_ids: Callable[[str], tuple[int, ...]]  # scored token ids of one answer
    end_id: int | None = None  # the token that ends a written text; None where `answer_ids` sets it
    lead: str = ""  # words in front of every input
    goes_on: bool = False  # an answer directly follows the text, as a causal model writes it

    def render(self, segments: Sequence[Segment]) -> str:
        """A filled template as one text."""
        return self.lead + "".join(self.slot_token if s.answer_slot else s.text for s in segments).strip()

    def input_ids(self, examples: Sequence[Example]) -> list[tuple[list[int], int | None]]:
        """Token ids of inputs, special tokens included, and where in a conversation the prompt goes.

        Raises:
            SoftpruneError: a conversation that this backbone or its chat template can't have.
        """
        plain = [example for example in examples if example.chat is None]
        rows = iter(self.text_ids([self.render(example.segments) for example in plain]))
        inputs: list[tuple[list[int], int | None]] = []
        for example in examples:
            if example.chat is None:
                inputs.append((next(rows), None))
            elif self.goes_on:
                inputs.append(chat_ids(self.tokenizer, example.chat, self.render(example.segments)))
            else:
                expected = "a decoder-only backbone for a task with chat"
                found = f"{Path(self.tokenizer.name_or_path).name}, of another family"
                raise SoftpruneError(expected, found, "choose a causal model with a chat template, or leave chat out")
        return inputs

    def scored_ids(self, text: str, chat: Chat | None) -> tuple[int, ...]:
        """Token ids of one answer, behind a conversation's generation prompt where there is one."""
        return self.answer_ids(text) if chat is None else chat_answer_ids(self.tokenizer, chat, text)

    def find_end(self, chat: Chat | None) -> int | None:
        """The token that ends a written text; None where `answer_ids` sets it, or the tokenizer knows none."""
        return self.end_id if chat is None else turn_end_id(self.tokenizer, chat)

    def written_ids(self, text: str, chat: Chat | None, end: int | None) -> tuple[int, ...]:
        """Token ids of a text to be written, with its end: a model that isn't taught to end a text doesn't."""
        if chat is None and end is None:  # `answer_ids` sets it
            return self.answer_ids(text)
        ids = self.scored_ids(text, chat) if text else ()
        return ids if end is None else (*ids, end)

    def text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of whole texts with the special tokens in front; of what goes on, without those behind."""
        if not texts:
            return []
        rows: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"]
        # Special tokens that the tokenizer appends would come between a text and the answer that continues it.
        behind = ids_behind(self.tokenizer) if self.goes_on else []
        for ids in rows:
            if behind and ids[-len(behind) :] == behind:
                del ids[-len(behind) :]
        return rows

    def slot(self, ids: Sequence[int], example: Example) -> int:
        """Position of the one answer slot in an example's ids, -1 where the family has none."""
        if not self.slot_token:
            return -1
        places = [i for i, token in enumerate(ids) if token == self.tokenizer.mask_token_id]
        if len(places) != 1:
            raise SoftpruneError(
                "exactly one answer slot in the filled template",
                f"{len(places)} mask tokens in example {example.id}",
                "put {mask} once into the template, and no mask token into the text",
            )
        return places[0]


def encode(
    how: Tokenization, examples: Sequence[Example], max_length: int, max_answer_length: int | None = None
) -> list[Encoded]:
    """Token ids of many examples, tokenised together.

    Args:
        max_length: input tokens at most, special tokens included, prompt excluded.
        max_answer_length: tokens of an answer at most. A text to be written is cut there, and a cut one has no end.

    Raises:
        SoftpruneError: an answer to choose is longer than that, or a text doesn't fit with everything shortenable cut.
    """
    if not examples:
        return []
    rows = how.input_ids(examples)
    answers: dict[tuple[str, Chat | None], tuple[int, ...]] = {}
    targets: dict[tuple[str, Chat | None], tuple[int, ...]] = {}
    # Found once for all texts: a vocabulary with thousands of special tokens takes milliseconds to ask.
    ends = {chat: how.find_end(chat) for chat in {e.chat for e in examples if e.is_generation}}
    for example in examples:
        for key in [(text, example.chat) for text in example.answers]:
            if example.is_generation:
                targets[key] = how.written_ids(*key, ends[example.chat])
            elif key not in answers:
                answers[key] = how.scored_ids(*key)
    _check_answers(how.tokenizer, {text: ids for (text, _), ids in answers.items()}, max_answer_length)
    check_distinct(how, examples)
    encoded = []
    for example, (ids, place) in zip(examples, rows, strict=True):
        length = len(ids)
        if not ids:
            raise SoftpruneError(
                "a text of at least one token", f"none in example {example.id}", "fix the example or the template"
            )
        if length > max_length:
            ids = _shorten(how, example, max_length)
        slot = how.slot(ids, example)
        if example.is_generation:
            whole = targets[example.answers[0], example.chat]
            target = whole[:max_answer_length]
            cut = len(whole) - len(target)
            encoded.append(Encoded(tuple(ids), slot, (target,), max(0, example.gold), length - len(ids), cut, place))
        else:
            answer_ids = tuple(answers[text, example.chat] for text in example.answers)
            encoded.append(Encoded(tuple(ids), slot, answer_ids, example.gold, length - len(ids), place=place))
    return encoded


def continuation_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of `text` as it continues a sentence: after a space, without special tokens."""
    # Byte-level vocabularies mark the space in the token, sentence pieces add a mark of their own, word pieces do
    # neither; the ids behind a fixed first word serve all three.
    return ids_after(tokenizer, "a", f" {text}")


def ids_behind(tokenizer: Any, **options: Any) -> list[int]:
    """The special tokens that a tokenizer appends to a text (`text_target=...`: to a target)."""
    whole: list[int] = tokenizer(**options)["input_ids"] if options else tokenizer("a")["input_ids"]
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    special |= {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
    length = len(whole)
    while length and whole[length - 1] in special:
        length -= 1
    return whole[length:] if length else []  # a text of special tokens alone says nothing


def check_rows(tokenizer: Any, ids: Iterable[int], rows: int, where: str) -> None:
    """Check that an embedding table of so many rows has one for every token id; `where` is for the message."""
    beyond = next((i for i in ids if i >= rows), None)
    if beyond is not None:
        raise SoftpruneError(
            f"tokens that the model has embeddings for, which are {rows:,}",
            f'"{tokenizer.convert_ids_to_tokens(int(beyond))}", token {beyond}, in {where}',
            "use the tokenizer that belongs to the model, resize the model's embeddings, or reword the text",
        )


def check_distinct(how: Tokenization, examples: Iterable[Example]) -> None:
    """Check that the answers of each example have different token ids: equal ones always tie, and the first wins."""
    # Most examples share their answers: each set of them is looked at once.
    for (answers, chat), name in {(e.answers, e.chat): e.id for e in examples if not e.is_generation}.items():
        first: dict[tuple[int, ...], str] = {}
        for text in dict.fromkeys(answers):
            ids = how.scored_ids(text, chat)
            other = first.setdefault(ids, text)
            if other != text:
                tokens = " ".join(map(str, how.tokenizer.convert_ids_to_tokens(list(ids))))
                raise SoftpruneError(
                    "answers that the tokenizer tells apart",
                    f'"{other}" and "{text}" in example {name}, which are both the tokens {tokens}',
                    "reword one of them, or choose a backbone whose vocabulary knows them",
                )


def answer_notes(how: Tokenization, examples: Sequence[Example], score: str) -> list[str]:
    """What a reader should know of answers under a `score` (`sum` or `mean`): unknown tokens, and which never win."""
    texts = list(dict.fromkeys(text for e in examples for text in e.answers))
    unknown = [text for text in texts if how.tokenizer.unk_token_id in plain_ids(how.tokenizer, text)]
    notes = []
    if unknown:
        what = f'the answer "{unknown[0][:80]}" holds'
        if len(unknown) > 1:
            what = f'{len(unknown)} answers, such as "{unknown[0][:80]}", hold'
        notes.append(f"{what} a token that the backbone's vocabulary doesn't know")
    if not how.goes_on or score != "sum":
        return notes
    # The sum of a causal model's answer is never above that of the answer's beginning.
    for answers, chat in {(e.answers, e.chat) for e in examples if not e.is_generation}:
        ids = {text: how.scored_ids(text, chat) for text in answers}
        for text, longer in permutations(answers, 2):
            if len(ids[longer]) > len(ids[text]) and ids[longer][: len(ids[text])] == ids[text]:
                note = f'the answer "{longer[:80]}" can never win: it begins with the tokens of "{text[:80]}"; '
                return [*notes, note + "set task.score=mean, or reword it"]
    return notes


def _check_answers(tokenizer: Any, answers: dict[str, tuple[int, ...]], limit: int | None) -> None:
    if not plain_ids(tokenizer, "a word"):
        raise SoftpruneError(
            "a tokenizer that knows words",
            "token ids for none of them: the backbone's tokenizer is empty or broken",
            "copy or download the model again, with all files of its tokenizer",
        )
    for text, ids in answers.items():
        if not ids or not plain_ids(tokenizer, text.strip()):
            raise SoftpruneError("answers of at least one token", f'"{text}", which has none', "reword it")
        if limit is not None and len(ids) > limit:
            raise SoftpruneError(
                f"answers of at most {limit} tokens",
                f'{len(ids)} tokens in "{text[:80]}"',
                "allow longer answers, or shorten this one",
            )


def _shorten(how: Tokenization, example: Example, max_length: int) -> list[int]:
    """Ids of the example with its longest shortenable segments cut to one length at their ends, until it fits."""
    segments = list(example.segments)
    while True:  # words at a cut may become more tokens than they were, so once may not be enough
        ((ids, _),) = how.input_ids([replace(example, segments=tuple(segments))])
        over = len(ids) - max_length
        if over <= 0:
            return ids
        lengths = {i: len(plain_ids(how.tokenizer, s.text)) for i, s in enumerate(segments) if s.shortenable}
        lengths = {i: length for i, length in lengths.items() if length}
        if not lengths:
            raise SoftpruneError(
                f"texts that fit into {max_length} tokens once their shortenable fields are cut",
                f"{len(ids)} tokens left in example {example.id}",
                "raise task.max_length, or mark more fields as shortenable in the task",
            )
        # The length to cut the longest to, so that all fit what is left and the short ones stay whole.
        waiting, budget = sorted(lengths.values()), max(0, sum(lengths.values()) - over)
        while waiting[0] <= budget // len(waiting):
            budget -= waiting.pop(0)
        level = budget // len(waiting)
        for i, length in lengths.items():
            if length > level:
                text = _cut_end(how.tokenizer, segments[i].text, length - level)
                segments[i] = replace(segments[i], text=text)


def cut_to(tokenizer: Any, text: str, tokens: int) -> str:
    """The beginning of a text that has so many tokens at most."""
    over = len(plain_ids(tokenizer, text)) - tokens
    return text if over <= 0 else _cut_end(tokenizer, text, over)


def _cut_end(tokenizer: Any, text: str, tokens: int) -> str:
    """`text` without its last `tokens` tokens (always at least one character shorter)."""
    if tokenizer.is_fast:
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return text[: min(found["offset_mapping"][-tokens][0], len(text) - 1)].rstrip()
    # A slow tokenizer has no offsets, and what it decodes may be longer than what it read.
    shorter: str = tokenizer.decode(plain_ids(tokenizer, text)[:-tokens])
    return shorter if len(shorter) < len(text) else text[: max(0, len(text) - tokens)]
