"""What the teacher says of the texts: unit-length embeddings, cached in shards so that a cut-off run goes on."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from students import ATTENTION, mean_pool, pad
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from softprune.models.loading import resolve_dtype


def tokenize(tokenizer: Any, texts: list[str], max_tokens: int) -> list[list[int]]:
    """Unpadded token ids of each text, special tokens included."""
    ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=max_tokens, padding=False)["input_ids"]
    return ids


class Teacher:
    """A mean-pooled sentence encoder.

    Args:
        name: folder or hub name.
        settings: `max_tokens`, `batch` and `shard` of the recipe.
        device: where it computes.
    """

    def __init__(self, name: str, settings: dict[str, Any], device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.tokenizer = AutoTokenizer.from_pretrained(name)
        self.model: Any = AutoModel.from_pretrained(name).eval().to(device)

    @torch.inference_mode()
    def embed(self, texts: list[str]) -> tuple[Tensor, int]:
        """Unit-length embeddings [N, E], computed in length-sorted batches, and the number of tokens read."""
        rows = tokenize(self.tokenizer, texts, self.settings["max_tokens"])
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        fast = resolve_dtype("auto", self.device) is torch.bfloat16
        pieces = []
        for start in range(0, len(order), self.settings["batch"]):
            chosen = order[start : start + self.settings["batch"]]
            ids, mask = (part.to(self.device) for part in pad([rows[i] for i in chosen]))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
                states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            pieces.append(functional.normalize(mean_pool(states, mask), dim=-1).cpu())
        out = torch.empty(len(rows), pieces[0].shape[1])
        out[torch.tensor(order)] = torch.cat(pieces)
        return out, sum(map(len, rows))

    def tutor(self, kept: list[int], opening: int | None) -> Callable[[Tensor, Tensor], Tensor]:
        """What the teacher makes of each of a student's tokens in their text.

        Args:
            kept: the teacher's id of each of the student's tokens, [V].
            opening: the teacher's id of the token that its texts begin with; None where the student's do too.

        Returns:
            From ids and mask [B, T] to last hidden states [B, T, E], of which a text's embedding is the mean.
        """
        known = torch.tensor(kept, device=self.device)
        fast = resolve_dtype("auto", self.device) is torch.bfloat16
        model = copy.deepcopy(self.model)
        model.set_attn_implementation(ATTENTION)
        model = model.bfloat16() if fast else model

        @torch.no_grad()
        def read(ids: Tensor, mask: Tensor) -> Tensor:
            ids = known[ids]
            if opening is not None:
                ids, mask = functional.pad(ids, (1, 0), value=opening), functional.pad(mask, (1, 0), value=1)
            states: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            return states if opening is None else states[:, 1:]

        return read

    def embed_all(self, texts: list[str], work: Path, log: Any) -> Tensor:
        """Embeddings [N, E] of all texts, one cached shard at a time."""
        shards = []
        for start in range(0, len(texts), self.settings["shard"]):
            file = work / f"teacher_{start:07d}.safetensors"
            if not file.exists():
                began, part = time.time(), texts[start : start + self.settings["shard"]]
                found, tokens = self.embed(part)
                save_file({"embeddings": found.half()}, file.with_suffix(".part"))
                file.with_suffix(".part").rename(file)
                rate = round(tokens / (time.time() - began))
                log(stage="teacher", texts=start + len(part), tokens=tokens, tokens_per_second=rate)
            shards.append(load_file(file)["embeddings"].float())
        return functional.normalize(torch.cat(shards)[: len(texts)], dim=-1)
