"""What `distil_sentence.py` ships: the trimmed tokenizer, the student and its sentence-transformers layout.

Axes: B texts in a batch, T tokens, V kept vocabulary, H student width, E teacher embedding width.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer, BertConfig, BertModel

SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of `states` [B, T, H] over the tokens where `mask` [B, T] is 1: [B, H]."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


# ---------------------------------------------------------------- student tokenizer


def kept_tokens(vocab: dict[str, int], frequency: Counter[str], size: int) -> list[str]:
    """The `size` tokens to keep, in the teacher's order: special, single-character, then frequent ones."""
    always = {token for token in vocab if token in SPECIAL.values() or len(token.removeprefix("##")) == 1}
    ranked = sorted(vocab.keys() - always, key=lambda token: (-frequency[token], vocab[token]))
    return sorted(always | set(ranked[: max(0, size - len(always))]), key=vocab.__getitem__)


def trim_tokenizer(teacher: str, counts: Counter[str], size: int, folder: Path, positions: int) -> list[int]:
    """Write the trimmed tokenizer to `folder`; return the teacher's id of each kept token, [V]."""
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
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": positions}
    special = {f"{name}_token": token for name, token in SPECIAL.items()}
    write_json(folder / "tokenizer.json", spec, indent=None)
    write_json(folder / "tokenizer_config.json", config | special)
    write_json(folder / "special_tokens_map.json", special)
    return [vocab[token] for token in kept]


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write `content` as UTF-8 JSON, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- student


class Student(nn.Module):
    """A small BERT, mean pooling and a linear map to the teacher's width; all of it ships."""

    def __init__(self, config: BertConfig, width: int) -> None:
        super().__init__()
        self.bert = BertModel(config)
        self.dense = nn.Linear(config.hidden_size, width)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit-length embeddings [B, E] of token ids [B, T] with attention mask [B, T]."""
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        return functional.normalize(self.dense(mean_pool(states, mask)), dim=-1)


def new_student(settings: dict[str, Any], teacher: BertModel, kept: list[int], width: int) -> Student:
    """A student whose embeddings are the teacher's, projected on their H leading principal components."""
    config = BertConfig(
        vocab_size=len(kept),
        hidden_size=settings["hidden"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"],
        intermediate_size=settings["ffn"],
        max_position_embeddings=teacher.config.max_position_embeddings,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.04,
        attn_implementation="eager",  # at these lengths as fast as fused attention
        architectures=["BertModel"],
    )
    student = Student(config, width)
    source, target = teacher.embeddings, student.bert.embeddings
    words_VE = source.word_embeddings.weight[kept].detach().float()
    centred = words_VE - words_VE.mean(0)
    _, vectors_EE = torch.linalg.eigh(centred.T @ centred)
    axes_EH = vectors_EE.flip(1)[:, : settings["hidden"]]
    scale = words_VE.std() / (centred @ axes_EH).std()  # keep the teacher's spread per element
    with torch.no_grad():
        target.word_embeddings.weight.copy_(centred @ axes_EH * scale)
        for name in ("position_embeddings", "token_type_embeddings"):
            getattr(target, name).weight.copy_(getattr(source, name).weight.float() @ axes_EH * scale)
    return student


# ---------------------------------------------------------------- export


def export(student: Student, tokens: Path, folder: Path) -> None:
    """Save weights in bfloat16 and the tokenizer in sentence-transformers layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in tokens.iterdir():
        shutil.copy(file, folder / file.name)
    config = student.bert.config
    save_half(student.bert.state_dict(), folder / "model.safetensors")
    # stored in half precision, meant to run in single: dtype says the latter
    described = config.to_diff_dict() | {"dtype": "float32", "architectures": ["BertModel"]}
    write_json(folder / "config.json", described)
    width, dense = config.hidden_size, folder / "2_Dense"
    write_json(folder / "1_Pooling" / "config.json", pooling_config(width))
    write_json(
        dense / "config.json",
        {
            "in_features": width,
            "out_features": student.dense.out_features,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    linear = {f"linear.{name}": value for name, value in student.dense.state_dict().items()}
    save_half(linear, dense / "model.safetensors")
    write_json(folder / "3_Normalize" / "config.json", {})
    names = ["Transformer", "Pooling", "Dense", "Normalize"]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{name}" if i else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(names)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})


def save_half(tensors: dict[str, Tensor], file: Path) -> None:
    """Write bfloat16 copies of `tensors`, readable by everyone."""
    save_file({name: value.detach().cpu().bfloat16() for name, value in tensors.items()}, file, {"format": "pt"})
    file.chmod(0o644)


def pooling_config(width: int) -> dict[str, Any]:
    """The sentence-transformers description of mean pooling."""
    modes = ("cls_token", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return {
        "word_embedding_dimension": width,
        "pooling_mode_mean_tokens": True,
        **{f"pooling_mode_{mode}": False for mode in modes},
    }
