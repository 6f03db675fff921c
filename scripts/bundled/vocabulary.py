"""The trimmed WordPiece tokenizer that the bundled models share, and the words that serve as answers in training."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def kept_tokens(vocab: dict[str, int], frequency: Counter[str], size: int) -> list[str]:
    """The `size` tokens to keep, in the teacher's order: special, single-character, then frequent ones."""
    always = {token for token in vocab if token in SPECIAL.values() or len(token.removeprefix("##")) == 1}
    ranked = sorted(vocab.keys() - always, key=lambda token: (-frequency[token], vocab[token]))
    return sorted(always | set(ranked[: max(0, size - len(always))]), key=vocab.__getitem__)


def trim_tokenizer(teacher: str, counts: Counter[str], size: int, folder: Path, family: str, length: int) -> list[int]:
    """Write the trimmed tokenizer to `folder`; return the teacher's id of each kept token, [V].

    Args:
        teacher: folder or hub name of the model whose vocabulary is trimmed.
        counts: how often each word of the corpus occurs.
        size: V, tokens to keep.
        folder: where the tokenizer's files go.
        family: sentence wraps a text as the teacher does, seq2seq ends it with `[SEP]`, causal leaves it bare.
        length: longest text that the model reads, in tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    vocab: dict[str, int] = tokenizer.get_vocab()
    frequency: Counter[str] = Counter()
    words = list(counts)
    for word, ids in zip(words, tokenizer(words, add_special_tokens=False)["input_ids"], strict=True):
        for token in tokenizer.convert_ids_to_tokens(ids):
            frequency[token] += counts[word]
    kept = kept_tokens(vocab, frequency, size)
    new = {token: index for index, token in enumerate(kept)}
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec |= {"truncation": None, "padding": None}
    spec["model"]["vocab"] = new
    spec["added_tokens"] = [entry | {"id": new[entry["content"]]} for entry in spec["added_tokens"]]
    for token, entry in spec["post_processor"]["special_tokens"].items():
        entry["ids"] = [new[token]]
    spec["post_processor"] = framed(spec["post_processor"], family)
    special = {f"{name}_token": token for name, token in SPECIAL.items()}
    if family == "sentence":
        config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": length}
    else:
        special |= {"eos_token": SPECIAL["sep"]}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length}
    write_json(folder / "tokenizer.json", spec, indent=None)
    write_json(folder / "tokenizer_config.json", config | special)
    write_json(folder / "special_tokens_map.json", special)
    return [vocab[token] for token in kept]


def framed(processor: dict[str, Any], family: str) -> dict[str, Any] | None:
    """The teacher's template of special tokens, fitted to the family."""
    if family == "causal":
        return None
    if family == "seq2seq":
        unopened = [part for part in processor["single"] if part.get("SpecialToken", {}).get("id") != SPECIAL["cls"]]
        return processor | {"single": unopened, "pair": unopened}
    return processor


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write `content` as UTF-8 JSON, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def answer_words(counts: Counter[str], number: int) -> list[str]:
    """The corpus's most frequent words of three letters or more: what steering tasks answer with."""
    return [word for word, _ in counts.most_common() if word.isalpha() and len(word) > 2][:number]
