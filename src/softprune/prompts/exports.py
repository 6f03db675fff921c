"""A ticket for programs other than softprune: a peft adapter, or its vectors in one safetensors file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softprune.config.registry import unknown
from softprune.errors import SoftpruneError
from softprune.prompts.model_card import peft_card, peft_code, vectors_card, vectors_code
from softprune.prompts.peft_format import adapter_files
from softprune.prompts.prompt_io import prompt_bytes
from softprune.prompts.ticket import Ticket, TicketInfo
from softprune.runs.atomic_io import write_folder


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export left.

    Attributes:
        folder: where.
        files: their names.
        shape: of the prompt, `[Q, H]`.
        code: Python lines that use it.
    """

    folder: Path
    files: tuple[str, ...]
    shape: tuple[int, int]
    code: tuple[str, ...]


def export(ticket: Ticket, format: str, folder: str | Path) -> Exported:
    """Write a ticket into a new or empty folder, whole or not at all.

    Args:
        ticket: what to export; under `drop` its Q survivors, under `zero` all P tokens with zeros in place.
        format: `peft` (a PROMPT_TUNING adapter) or `safetensors` (the vectors alone, for any backbone).
        folder: where.

    Raises:
        SoftpruneError: for an unknown format, a folder that holds something, or a backbone of a family whose prompts
            peft reads otherwise.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    place = Path(folder)
    files, code = FORMATS[format](ticket, str(place))
    write_folder(place, files)
    queries, hidden = ticket.prompt().shape
    return Exported(place, tuple(files), (queries, hidden), tuple(code))


def _peft(ticket: Ticket, folder: str) -> tuple[dict[str, bytes], Sequence[str]]:
    _check_scale(ticket.info)
    files = adapter_files(ticket.prompt(), ticket.info.backbone, ticket.info.family)
    return files | {"README.md": peft_card(ticket, folder).encode()}, peft_code(ticket, folder)


def _check_scale(info: TicketInfo) -> None:
    """Hold a backbone to those that peft feeds as they feed themselves; Pegasus, Marian and similar models are not."""
    if info.embedding_scale != 1:
        raise SoftpruneError(
            "a backbone whose input embeddings peft gives it as it reads them itself",
            f"{info.backbone}, which multiplies them by {info.embedding_scale:g}, and peft doesn't",
            "export with --format safetensors",
        )


def _safetensors(ticket: Ticket, folder: str) -> tuple[dict[str, bytes], Sequence[str]]:
    files = {
        "prompt.safetensors": prompt_bytes(ticket.prompt(), metadata(ticket)),
        "README.md": vectors_card(ticket, folder).encode(),
    }
    return files, vectors_code(ticket, folder)


def metadata(ticket: Ticket) -> dict[str, str]:
    """What a file of vectors says of itself; `index` holds the original place of each row."""
    info, kept = ticket.info, ticket.state.mask.token_P.nonzero()[:, 0].tolist()
    index = kept if info.removal == "drop" else range(info.prompt_tokens)
    return {
        "backbone": info.backbone,
        "family": info.family,
        "fingerprint": info.fingerprint,
        "task": info.task,
        "template": ticket.definition.template,
        "removal": info.removal,
        "index": ",".join(map(str, index)),
    }


FORMATS: Final[dict[str, Callable[[Ticket, str], tuple[dict[str, bytes], Sequence[str]]]]] = {
    "peft": _peft,
    "safetensors": _safetensors,
}
