"""The other side of the comparison: released classes under peft's own adapters, and log-likelihoods of their logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import get_peft_model

from models import FAMILY, LAYERS, llama_tokenizer, widen
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.tokenization import continuation_ids
from softprune.types import Batch, Example, Segment

P = 5
OF_PEFT = ("gpt2", "llama", "bloom", "t5", "t5_v1_1", "bart", "bart_scaled")
DEFINED = (*OF_PEFT, "mt5", "pegasus", "bert", "roberta", "sentence", "sentence_bare")
TEXTS = ("bread .", "the film was a slow and quiet joy .", "he said that she opened the window in the small room")
ANSWERS = ("great", "not at all great", "rather disappointing")
CLASSES = {"seq2seq": transformers.AutoModelForSeq2SeqLM, "causal": transformers.AutoModelForCausalLM}
TASKS = {"seq2seq": "SEQ_2_SEQ_LM", "causal": "CAUSAL_LM"}


def batch_of(backbone: Backbone, texts: Sequence[str] = TEXTS, answers: tuple[str, ...] = ANSWERS) -> Batch:
    slot = Segment("", answer_slot=True)
    examples = [
        Example(str(i), i, (Segment(text, shortenable=True), Segment(" "), slot), answers, i % len(answers))
        for i, text in enumerate(texts)
    ]
    return backbone.batch(backbone.encode(examples, 64))


def no_prompt(backbone: Backbone) -> torch.Tensor:
    return torch.zeros(1, 0, backbone.info.hidden, dtype=backbone.prompt_dtype)


def scored(backbone: Backbone, batch: Batch) -> torch.Tensor:
    """Log-likelihoods `[B, A]` with whatever is attached, and no prompt."""
    return backbone.scores(no_prompt(backbone), batch, "sum")[0]


def adapted(name: str, folder: Path, config: Any, dtype: torch.dtype) -> Any:
    """The released class with peft's adapter, both in one dtype."""
    model = CLASSES[FAMILY[name]].from_pretrained(folder, dtype=dtype).eval()
    wrapped = get_peft_model(model, config).eval()
    wrapped.prompt_encoder.to(dtype)
    return wrapped


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def log_likelihoods(model: Any, tokenizer: Any, family: str, tokens: int = 0) -> torch.Tensor:
    """Of every answer after every text, `[B, A]`: one right-padded batch of all pairs through the model's own forward.

    Args:
        model, tokenizer: of the pair's model.
        family: causal or seq2seq.
        tokens: logits in front of the text's.
    """
    pairs = [(text, answer) for text in TEXTS for answer in ANSWERS]
    texts: list[list[int]] = [tokenizer(text)["input_ids"] for text, _ in pairs]
    if family == "seq2seq":
        rows, labels = texts, _padded([tokenizer(text_target=answer)["input_ids"] for _, answer in pairs], -100)
    else:
        targets = [list(continuation_ids(tokenizer, answer)) for _, answer in pairs]
        rows = [text + target for text, target in zip(texts, targets, strict=True)]
        labels = _padded([[-100] * len(text) + target for text, target in zip(texts, targets, strict=True)], -100)
    ids = _padded(rows, tokenizer.pad_token_id or 0)
    mask = (torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]).long()
    logits = model(input_ids=ids, attention_mask=mask, **({"labels": labels} if family == "seq2seq" else {})).logits
    if family == "causal":
        logits, labels = logits[:, tokens:][:, :-1], labels[:, 1:]
    elif tokenizer.bos_token_id is not None:  # BART's targets open with <s>: no answer is about it
        logits, labels = logits[:, 1:], labels[:, 1:]
    found = -torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return found.sum(1).view(len(TEXTS), len(ANSWERS))


def generated(model: Any, tokenizer: Any, family: str, tokens: int) -> list[str]:
    """Greedy texts, a text at a time."""
    found = []
    # BART's targets open with <s>, behind which texts begin.
    opens = family == "seq2seq" and tokenizer.bos_token_id is not None
    opened = {"decoder_input_ids": torch.tensor([[tokenizer.eos_token_id, tokenizer.bos_token_id]])} if opens else {}
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        said = model.generate(
            **opened,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=tokenizer.pad_token_id,
        )[0]
        new = said if family == "seq2seq" else said[ids.shape[1] :]
        found.append(str(tokenizer.decode(new, skip_special_tokens=True)).strip())
    return found


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """max|a - b| / max|b|."""
    a, b = a.detach(), b.detach()
    assert a.shape == b.shape
    assert bool(b.isfinite().all())
    return float((a - b).abs().max() / b.abs().max())


def mistral(folder: Path, window: int) -> Backbone:
    """A model whose layers look no further back than a window."""
    config = transformers.MistralConfig(
        vocab_size=llama_tokenizer(folder),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        sliding_window=window,
        bos_token_id=1,
        eos_token_id=2,
    )
    widen(transformers.MistralForCausalLM(config)).save_pretrained(folder)
    return load_backbone(str(folder), dtype="float32", device="cpu")
