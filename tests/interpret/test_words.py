"""Vocabulary items for a reader: bytes, sentence pieces, word pieces; every script, hostile characters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from softprune.interpret.vocabulary import Vocabulary, key, shown, visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from softprune.models.base import Backbone


@pytest.mark.parametrize(
    ("token", "style", "text"),
    [
        ("Ġhouse", "bytes", "house"),
        ("ing", "bytes", "…ing"),
        (",", "bytes", ","),
        ("Ġ", "bytes", "␣"),
        ("ĠĠ", "bytes", "␣␣"),
        ("Ċ", "bytes", "<U+000A>"),
        ("Ã©t", "bytes", "…ét"),
        ("ĠÐ´Ð°", "bytes", "да"),
        ("ä¸Ń", "bytes", "中"),
        ("ä¸", "bytes", "<E4 B8>"),
        ("Ġä¸", "bytes", "<E4 B8>"),
        ("Ńa", "bytes", "<AD>a"),
        ("<mask 中>", "bytes", "<mask 中>"),
        ("▁house", "pieces", "house"),
        ("ing", "pieces", "…ing"),
        ("▁", "pieces", "␣"),
        ("ですか", "pieces", "ですか"),
        ("▁да", "pieces", "да"),
        ("да", "pieces", "…да"),
        ("##ing", "wordpiece", "…ing"),
        ("##,", "wordpiece", ","),
        ("house", "wordpiece", "house"),
        ("##", "wordpiece", "##"),
        ("Ġhouse", "plain", "Ġhouse"),
        ("\x1b[31mred", "wordpiece", "<U+001B>[31mred"),
        ("▁\u202eback", "pieces", "<U+202E>back"),
        ("<script>", "wordpiece", "<script>"),
    ],
)
def test_an_item_is_shown_as_a_person_reads_it(token: str, style: str, text: str) -> None:
    assert shown(token, style) == text


def test_only_what_obeys_is_replaced() -> None:
    assert visible("naïve 中文 \u200bx\x07") == "naïve 中文 <U+200B>x<U+0007>"
    assert key("Accurate") == key("ACCURATE") != key("…accurate")


@pytest.mark.parametrize(
    ("model", "style", "word"),
    [("gpt2", "bytes", " film"), ("t5", "pieces", "film"), ("bert", "wordpiece", "slow")],
)
def test_tiny_vocabularies_tell_their_style(
    backbone_of: Callable[[str], Backbone], model: str, style: str, word: str
) -> None:
    backbone = backbone_of(model)
    found = Vocabulary(backbone.tokenizer, backbone.vocabulary)
    assert found.style == style
    ids = backbone.tokenizer(word, add_special_tokens=False)["input_ids"]
    assert found.shown(ids[0]) == word.strip()
    pool = [str(found.tokens[i]) for i in found.pool]
    assert not {*backbone.tokenizer.all_special_tokens} & {*pool}
    assert not any("extra_id" in token for token in pool)
    assert len(pool) > 50
    assert list(found.pool) == sorted(set(found.pool))


def test_ids_and_texts_that_are_no_item(backbone_of: Callable[[str], Backbone]) -> None:
    found = Vocabulary(backbone_of("gpt2").tokenizer, 300)
    assert len(found.tokens) == 300
    assert (found.shown(-1), found.shown(300)) == ("", "")
    assert found.shown_token("a label\x07 of mine") == "a label<U+0007> of mine"
    assert found.shown_token("Ġ") == "␣"


@pytest.mark.parametrize("name", ["tiny", "tiny-causal"])
def test_bundled_vocabularies_show_every_item(name: str) -> None:
    import transformers

    import softprune.models

    folder = Path(softprune.models.__path__[0]) / "bundled" / name
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = Vocabulary(tokenizer, len(tokenizer))
    texts = list(map(found.shown, found.pool))
    assert all(texts)
    assert all(text.isprintable() for text in texts)
    assert any(text.startswith("…") for text in texts)
    assert {"house", "中", "…ing"} <= set(texts)


def real_tokenizer(name: str) -> Any:
    import transformers

    folder = Path(os.environ["SOFTPRUNE_DATA"]) / "tokenizers" / name
    kind = {"t5": transformers.AutoTokenizer, "gpt2": transformers.GPT2Tokenizer}[name]
    return kind.from_pretrained(folder)


@pytest.mark.real
@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_released_vocabularies_read_as_their_own_decoders_read_them(name: str) -> None:
    tokenizer = real_tokenizer(name)
    found = Vocabulary(tokenizer, len(tokenizer))
    assert found.style == {"t5": "pieces", "gpt2": "bytes"}[name]
    compared = 0
    for i in found.pool:
        text, token = found.shown(i), str(found.tokens[i])
        decoded = tokenizer.convert_tokens_to_string([token])
        if "\ufffd" in decoded or not decoded.isprintable() or not decoded.strip():
            continue
        compared += 1
        assert text in (decoded.strip(), f"…{decoded.strip()}"), token
        whole = token.startswith(("Ġ", "▁"))
        assert not (whole and text != decoded.strip())
    assert compared > 0.97 * len(found.pool)
    assert found.shown_token({"t5": "▁Haus", "gpt2": "Ġhouse"}[name]) == {"t5": "Haus", "gpt2": "house"}[name]
    shown_pool = {found.shown(i) for i in found.pool}
    assert not any("extra_id" in text or text == "<|endoftext|>" for text in shown_pool)


@pytest.mark.real
def test_pieces_put_together_are_the_text_again() -> None:
    tokenizer = real_tokenizer("gpt2")
    found = Vocabulary(tokenizer, len(tokenizer))
    ids = tokenizer(" naïve Привет 中文 house")["input_ids"]
    texts = list(map(found.shown, ids))
    assert texts[0] == "naïve"
    assert "house" in texts
    assert any(text.startswith("<E4") or "中" in text for text in texts)
