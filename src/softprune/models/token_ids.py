"""Token ids of a text alone, and of a text behind another."""

from __future__ import annotations

from typing import Any

from softprune.errors import SoftpruneError


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids without special tokens, and without transformers' warning of texts that are yet to be shortened."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def ids_after(tokenizer: Any, before: str, text: str) -> tuple[int, ...]:
    """Token ids that `text` adds directly behind another text, white space between them included in `text`.

    Raises:
        SoftpruneError: the text before has other ids then.
    """
    first, both = plain_ids(tokenizer, before), plain_ids(tokenizer, before + text)
    if both[: len(first)] != first:
        raise SoftpruneError(
            "a tokenizer that keeps a word's ids when another word follows",
            f'different ids for "{before[-80:]}" before "{text[:80].strip()}"',
            "choose another answer word or backbone",
        )
    return tuple(both[len(first) :])
