"""Commands that take a prompt away and bring one in: `export`, `import`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softprune.cli.output import say
from softprune.errors import SoftpruneError

if TYPE_CHECKING:
    import torch


class Which(StrEnum):
    """A prompt of a run; `softprune.prompts.ticket.WHICH`, which is not imported for the help text."""

    winner = "winner"
    control = "control"
    recommended = "recommended"


WhichOption = Annotated[
    Which, typer.Option("--which", help="Of a run's prompts: its ticket, its whole prompt, or what it recommends.")
]


class Format(StrEnum):
    """What `export` writes."""

    peft = "peft"
    safetensors = "safetensors"


def export(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_TICKET", help="A run, ticket or adapter folder, or a hub name.", show_default=False
        ),
    ],
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="An adapter of peft's (PROMPT_TUNING, LORA, IA3), or a ticket's vectors alone (any family).",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="A new or an empty folder.")],
    which: WhichOption = Which.winner,
) -> None:
    """Write a ticket or an adapter for other programs, and show the code that uses it."""
    from softprune.adapters.adapter_io import holds_adapter, read_adapter
    from softprune.adapters.exports import export_adapter
    from softprune.prompts.exports import export as write
    from softprune.prompts.ticket import Ticket

    if holds_adapter(Path(source)):
        refuse_which(source, which)
        if format_ is not Format.peft:
            raise SoftpruneError(
                "--format peft for an adapter", f"--format {format_.value}", "set --format peft, or export a ticket"
            )
        adapter = read_adapter(Path(source))
        names = export_adapter(adapter, output)
        say(f"{output}: {', '.join(names)}\n")
        say(f'from peft import PeftModel\nmodel = PeftModel.from_pretrained(model, "{output}")')
        return
    done = write(Ticket.load(source, which.value), format_.value, output)
    tokens, hidden = done.shape
    say(f"{done.folder}: {', '.join(done.files)}; {tokens} tokens of {hidden} dimensions\n")
    say("\n".join(done.code))


def refuse_which(source: str, which: Which) -> None:
    """An adapter's run has one model alone.

    Raises:
        SoftpruneError: for another prompt than the one that is always there.
    """
    if which is not Which.winner:
        raise SoftpruneError(
            f"a run that pruned a prompt, for --which {which.value}", f"an adapter in {source}", "leave out --which"
        )


def import_(
    *,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A peft adapter's folder, a T5X .npy, or a .safetensors prompt.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="A new .safetensors file.")],
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The backbone that the prompt is for: its size is checked, its norms shown."),
    ] = None,
) -> None:
    """Bring in a prompt that was trained elsewhere, as a file to start from (init: file)."""
    from softprune.models import describe, load_backbone
    from softprune.prompts.initialization import check_fits
    from softprune.prompts.prompt_io import prompt_bytes, read_prompt
    from softprune.runs.atomic_io import write_bytes

    if output.suffix != ".safetensors" or output.exists():
        found = f"{output}, which is there already" if output.exists() else str(output)
        raise SoftpruneError("a new file that ends in .safetensors", found, "choose another --output")
    saved = read_prompt(source)
    hidden = saved.vectors_PH.shape[1] if backbone is None else describe(backbone).hidden
    check_fits(saved.vectors_PH, hidden, str(source))
    named = {} if backbone is None else {"backbone": backbone}
    metadata = {**saved.metadata, "source": source.name, "kind": saved.kind, **named}
    table = None if backbone is None else load_backbone(backbone).embeddings_VH()
    write_bytes(output, prompt_bytes(saved.vectors_PH, metadata))
    for note in saved.notes:
        say(f"note: {note}")
    say(f"{output}: {saved.vectors_PH.shape[0]} tokens of {hidden} dimensions, from a {saved.kind}")
    say(f"norms of its tokens: {norms(saved.vectors_PH)}")
    if table is not None:
        say(f"norms of the embeddings of {backbone}: {norms(table)}")
    say(f"\n{next_command(output, metadata)}")


def norms(vectors_PH: torch.Tensor) -> str:
    """The vectors' lengths in words; a prompt far longer than the embeddings needs a learning rate of its own."""
    lengths = vectors_PH.float().norm(dim=1)
    return f"mean {lengths.mean():.4g}, from {lengths.min():.4g} to {lengths.max():.4g}"


def next_command(file: Path, metadata: Mapping[str, str]) -> str:
    """What to type to prune the prompt; P follows the file."""
    backbone = metadata.get("backbone") or "NAME"
    words = ["softprune", "xprompt", "--backbone", backbone, "--task", "TASK", "--init", "file"]
    return shlex.join([*words, "--prompt-file", str(file)])
