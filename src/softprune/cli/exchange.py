"""`export` and `import`: prompts for other programs, and from them."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softprune.cli.options import option_like, out_option
from softprune.cli.output import say
from softprune.errors import SoftpruneError

if TYPE_CHECKING:
    import torch


class Which(StrEnum):
    """A prompt of a run, as `softprune.prompts.ticket.WHICH`, whose import would slow the help text."""

    winner = "winner"
    control = "control"
    recommended = "recommended"


WhichOption = Annotated[
    Which, typer.Option("--which", help="The run's pruned prompt, its whole prompt, or the one that it recommends.")
]


class Format(StrEnum):
    """What `export` writes."""

    peft = "peft"
    safetensors = "safetensors"


_FORMATS = "peft: an adapter (PROMPT_TUNING, LORA, IA3); safetensors: a ticket's vectors alone, for any model."


def export(
    *,
    source: Annotated[
        str, typer.Argument(metavar="RUN_OR_TICKET", help="A run, ticket or adapter folder, or a hub name.")
    ],
    format_: Annotated[Format, typer.Option("--format", help=_FORMATS)],
    out: Annotated[Path, out_option("A new or an empty folder.")],
    which: WhichOption = Which.winner,
) -> None:
    """Write a ticket or an adapter for other programs, and show the code that uses it."""
    from softprune.adapters.adapter_io import export_adapter, holds_adapter, read_adapter
    from softprune.prompts.exports import export as export_ticket
    from softprune.prompts.ticket import Ticket

    if holds_adapter(Path(source)):
        refuse_which(source, which)
        if format_ is not Format.peft:
            found, do = f"--format {format_.value}", "set --format peft, or export a ticket"
            raise SoftpruneError("--format peft for an adapter", found, do)
        names = export_adapter(read_adapter(Path(source)), out)
        say(f"{out}: {', '.join(names)}\n")
        say(f'from peft import PeftModel\nmodel = PeftModel.from_pretrained(model, "{out}")')
        return
    ticket = Ticket.load(source, which.value)
    files, code = export_ticket(ticket, format_.value, out)
    tokens, hidden = ticket.prompt().shape
    say(f"{out}: {', '.join(files)}; {tokens} tokens of {hidden} dimensions\n")
    say("\n".join(code))


def refuse_which(source: str, which: Which) -> None:
    """Refuse `--which` for an adapter, which is a run's only result."""
    if which is not Which.winner:
        expected = f"a run that pruned a prompt, for --which {which.value}"
        raise SoftpruneError(expected, f"an adapter in {source}", "leave out --which")


def import_(
    *,
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A peft adapter's folder, a T5X .npy, or a .safetensors prompt.")
    ],
    out: Annotated[Path, out_option("A new .safetensors file.", "FILE")],
    backbone: Annotated[str | None, option_like("--backbone", "none: its size isn't checked")] = None,
) -> None:
    """Bring in a prompt that was trained elsewhere, as a file to start from (init: file)."""
    from softprune.models import describe, load_backbone
    from softprune.prompts.initialization import check_fits
    from softprune.prompts.prompt_io import prompt_bytes, read_prompt
    from softprune.runs.atomic_io import write_bytes

    # No --force: what is replaced may be the only copy of a trained prompt.
    if out.suffix != ".safetensors" or out.exists():
        found = f"{out}, which exists already" if out.exists() else str(out)
        raise SoftpruneError("a new file that ends in .safetensors", found, "choose another --out")
    saved = read_prompt(source)
    described = None if backbone is None else describe(backbone)
    hidden = saved.vectors_PH.shape[1] if described is None else described.hidden
    check_fits(saved.vectors_PH, hidden, str(source))
    metadata = {**saved.metadata, "source": source.name, "kind": saved.kind}
    table_VH = None
    if described is not None:
        metadata["backbone"] = str(backbone)
        table_VH = load_backbone(described).embeddings_VH()
    write_bytes(out, prompt_bytes(saved.vectors_PH, metadata))
    for note in saved.notes:
        say(f"note: {note}")
    say(f"{out}: {saved.vectors_PH.shape[0]} tokens of {hidden} dimensions, from a {saved.kind}")
    say(f"norms of its tokens: {_describe_norms(saved.vectors_PH)}")
    if table_VH is not None:
        say(f"norms of the embeddings of {backbone}: {_describe_norms(table_VH)}")
    # The next command needs no --tokens: P follows the file.
    words = ["softprune", "xprompt", "--backbone", metadata.get("backbone") or "NAME", "--task", "TASK"]
    say(f"\n{shlex.join([*words, '--init', 'file', '--prompt-file', str(out)])}")


def _describe_norms(vectors_PH: torch.Tensor) -> str:
    # Shown because a prompt far longer than the embeddings needs a learning rate of its own.
    lengths = vectors_PH.float().norm(dim=1)
    return f"mean {lengths.mean():.4g}, from {lengths.min():.4g} to {lengths.max():.4g}"
