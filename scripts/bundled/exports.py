"""What ships: weights in bfloat16, configuration and tokenizer, in the layout that each family has on the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from students import SentenceStudent, Student
from torch import Tensor
from vocabulary import write_json

TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")  # copies of the word embeddings


def export(student: Student, family: str, tokens: Path, folder: Path) -> int:
    """Save a finished student; return the folder's size in bytes.

    Args:
        student: whose `model` ships; a sentence encoder's projection does too.
        family: sentence, seq2seq or causal.
        tokens: folder of its tokenizer.
        folder: where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in tokens.iterdir():
        shutil.copy(file, folder / file.name)
    model = student.model
    weights = {name: w for name, w in model.state_dict().items() if name not in TIED}
    if isinstance(student, SentenceStudent):  # BertModel has a pooler, which nobody reads; absent, it would be random
        width = model.config.hidden_size
        weights |= {"pooler.dense.weight": torch.zeros(width, width), "pooler.dense.bias": torch.zeros(width)}
    save_half(weights, folder / "model.safetensors")
    # stored in half precision, meant to run in single: dtype says the latter
    stated = {"dtype": "float32", "architectures": [type(model).__name__]}
    write_json(folder / "config.json", model.config.to_diff_dict() | stated)
    if isinstance(student, SentenceStudent):
        export_sentence(student, folder)
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def export_sentence(student: SentenceStudent, folder: Path) -> None:
    """The sentence-transformers description: encoder, mean pooling, dense layer, normalisation."""
    width, dense = student.model.config.hidden_size, folder / "2_Dense"
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
