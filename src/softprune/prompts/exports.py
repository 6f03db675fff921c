"""A ticket for programs other than softprune: a peft adapter, or its vectors in one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from softprune.config.registry import unknown
from softprune.prompts.model_card import model_card, peft_code, vectors_code
from softprune.prompts.prompt_io import adapter_files, check_reading, prompt_bytes
from softprune.prompts.ticket import Ticket
from softprune.runs.atomic_io import write_folder

FORMATS: Final = ("peft", "safetensors")


def export(ticket: Ticket, format: str, folder: str | Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write a ticket into a new or empty folder, whole or not at all; the files' names, and Python lines that use it.

    Under `drop` these are its Q survivors, under `zero` all P tokens with zeros in place: as `peft` a PROMPT_TUNING
    adapter, as `safetensors` the vectors alone, for any backbone.

    Raises:
        SoftpruneError: for an unknown format, a folder that holds something, or a backbone of a family whose prompts
            peft reads otherwise.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    prompt_QH, info = ticket.prompt(), ticket.info
    if format == "peft":
        check_reading(info.backbone, info.embedding_scale, info.has_layer_embeddings)
        files = adapter_files(prompt_QH, info.backbone, info.family, ticket.definition.conversation)
        code, library, title = peft_code(info, str(folder)), "peft", "a peft adapter"
    else:
        rows = list(range(len(prompt_QH)))
        if info.removal == "drop":
            rows = ticket.state.mask.token_P.nonzero()[:, 0].tolist()
        metadata = {
            "backbone": info.backbone,
            "family": info.family,
            "fingerprint": info.fingerprint,
            "task": info.task,
            "template": ticket.definition.template,
            "removal": info.removal,
            "index": ",".join(map(str, rows)),  # the place of each row in the unpruned prompt
        }
        files = {"prompt.safetensors": prompt_bytes(prompt_QH, metadata)}
        code, library, title = vectors_code(info, str(folder)), "softprune", "vectors"
    title = f"Soft prompt for {ticket.definition.title}, {title}"
    files["README.md"] = model_card(ticket, library=library, title=title, code=code).encode()
    write_folder(Path(folder), files)
    return tuple(files), code
