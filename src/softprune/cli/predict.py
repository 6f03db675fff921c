"""The command that uses tickets: `predict`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprune.cli.exchange import Which, WhichOption, refuse_which
from softprune.cli.options import (
    BatchRowsOption,
    DeviceOption,
    DtypeOption,
    ForceOption,
    input_option,
    option_like,
    out_option,
)
from softprune.cli.output import progress_console, say
from softprune.errors import SoftpruneError

if TYPE_CHECKING:
    from softprune.adapters.adapter_io import SavedAdapter
    from softprune.evaluation.predict import Prediction
    from softprune.models.base import Backbone
    from softprune.prompts.ticket import Ticket

_ADDED = ("prediction", "probability", "probabilities")
"""Columns that rows gain; the last one in JSON lines alone."""
ROWS_PER_WRITE = 512


def predict(
    *,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="A run, ticket or adapter folder, or a ticket's hub name; several with --ensemble.",
            show_default=False,
        ),
    ] = None,
    input_file: Annotated[Path, input_option()],
    out: Annotated[Path, out_option("The same rows with their answers, in any of these formats.", "FILE")],
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Several runs or tickets, each as FOLDER or NAME=FOLDER; a column of the rows says which one answers.",
        ),
    ] = None,
    which: WhichOption = Which.winner,
    prompt_column: Annotated[
        str, typer.Option("--prompt-column", metavar="NAME", help="The column that names a row's prompt.")
    ] = "prompt",
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="All tickets, which must be of one task, answer every row together.")
    ] = False,
    combine: Annotated[
        str,
        typer.Option(
            metavar="[mean|geometric|vote]",
            help="How an ensemble answers: by the mean of probabilities, their geometric mean, or votes.",
        ),
    ] = "mean",
    backbone: Annotated[str | None, option_like("--backbone", "the ticket's")] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    device_map: Annotated[
        str, typer.Option(metavar="MAP", help="Spread the layers over several devices: none, auto, balanced, ...")
    ] = "none",
    quantization: Annotated[
        str, typer.Option(metavar="BITS", help="none, 8bit or 4bit; the same as when the ticket was trained.")
    ] = "none",
    batch_rows: BatchRowsOption = 256,
    force: ForceOption = False,
) -> None:
    """Answer the rows of a file with a ticket or an adapter, or each row with its own of several tickets."""
    from softprune.data.input_rows import read_input
    from softprune.data.output_rows import RowWriter
    from softprune.data.row_files import file_format
    from softprune.evaluation.predict import predict as answer

    if not input_file.is_file():
        raise SoftpruneError(
            "an input file that ends in .jsonl, .csv or .parquet", f"no file {input_file}", "correct --input"
        )
    if out.exists() and not force:
        raise SoftpruneError("a new output file", f"{out} exists already", "choose another --out, or add --force")
    tickets = _read_adapter(runs or [], which) or _read_tickets(runs or [], prompts, which.value, ensemble=ensemble)
    definitions = [each.definition for each in (tickets.values() if isinstance(tickets, dict) else [tickets])]
    with RowWriter(out) as writer:
        wide = file_format(out) == "jsonl"
        rows = _check_columns(_ADDED if wide else _ADDED[:2], read_input(definitions, input_file))
        placed = {"device": device, "dtype": dtype, "device_map": device_map, "quantization": quantization}
        several = ensemble or prompts is not None
        answered = answer(
            next(iter(tickets.values())) if isinstance(tickets, dict) and not several else tickets,
            rows,
            backbone=_load_backbone(tickets, placed | ({"name": backbone} if backbone else {})),
            column=prompt_column,
            batch_rows=batch_rows,
            ensemble=ensemble,
            combine=combine,
        )
        summary = _write_answers(answered, writer, wide=wide)
    say(f"{summary}: {out}", err=True)


def _read_adapter(runs: Sequence[str], which: Which) -> SavedAdapter | None:
    """The adapter of a folder, where a single one is named and holds one."""
    from softprune.adapters.adapter_io import holds_adapter, read_adapter

    if len(runs) != 1 or not holds_adapter(Path(runs[0])):
        return None
    refuse_which(runs[0], which)
    return read_adapter(Path(runs[0]))


def _load_backbone(tickets: SavedAdapter | dict[str, Ticket], options: dict[str, Any]) -> Backbone:
    from softprune.evaluation.predict import backbone_of

    return backbone_of(tickets, **options) if isinstance(tickets, dict) else tickets.load(**options)


def _read_tickets(runs: Sequence[str], prompts: str | None, which: str, *, ensemble: bool) -> dict[str, Ticket]:
    """Tickets by name: NAME=FOLDER, or the folder's own name; of an ensemble, as they were typed."""
    from softprune.prompts.ticket import Ticket

    if bool(runs) == (prompts is not None):
        found = "both" if runs else "neither"
        raise SoftpruneError("a run, or several as --prompts", found, "softprune predict RUN --input FILE --out FILE")
    if len(runs) > 1 and not ensemble:
        do = "add --ensemble for one answer of all, or name them as --prompts for each row's own"
        raise SoftpruneError("one run", f"{len(runs)}: {', '.join(runs)}", do)
    twice = next((run for run in runs if runs.count(run) > 1), None)
    if twice is not None:
        raise SoftpruneError("each ticket once in an ensemble", f"{twice} twice", "name it once")
    if runs:
        return {run if ensemble else Path(run).name: Ticket.load(run, which) for run in runs}
    found_tickets: dict[str, Ticket] = {}
    for text in filter(None, map(str.strip, (prompts or "").split(","))):
        name, equals, folder = text.partition("=")
        name, folder = (name, folder) if equals else (Path(text).name, text)
        if name in found_tickets:
            raise SoftpruneError(
                "prompts of different names", f'"{name}" twice', "name them: --prompts a=FOLDER,b=FOLDER"
            )
        found_tickets[name] = Ticket.load(folder, which)
    return found_tickets


def _check_columns(columns: Sequence[str], rows: Iterable[Any]) -> Iterator[Any]:
    """The rows, each of which must lack the columns that are going to be added."""
    for located in rows:
        taken = [name for name in columns if name in located.row]
        if taken:
            raise SoftpruneError(
                f"rows without a column {', '.join(taken)}, which is added",
                f"{', '.join(taken)} in {located.where}",
                "rename it in the input",
            )
        yield located


@dataclass
class _Tally:
    """Counts for the summary."""

    rows: int = 0
    labelled: int = 0
    right: int = 0
    written: int = 0
    shared: float = 0.0
    cut: int = 0
    empty: int = 0

    def add(self, piece: Sequence[Prediction]) -> None:
        """Count some more."""
        self.rows += len(piece)
        self.labelled += sum(1 for p in piece if p.answers and p.gold is not None)
        self.right += sum(1 for p in piece if p.answers and p.gold is not None and p.gold == p.answer)
        self._compare([(p.answer, p.gold) for p in piece if not p.answers and p.gold is not None])
        self.cut += sum(1 for p in piece if p.cut)
        self.empty += sum(1 for p in piece if p.empty)

    def _compare(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Add up the ROUGE-L of generated texts and the rows' own, where rouge-score is installed."""
        from softprune.data.rouge import is_installed, rouge

        if pairs and is_installed():
            self.written += len(pairs)
            self.shared += sum(rouge(text, own)[-1] for text, own in pairs)

    def summarize(self, seconds: float) -> str:
        """One line, without counts that are zero."""
        parts = [f"{self.rows:,} row{'s' * (self.rows != 1)} in {seconds:.1f} s ({self.rows / seconds:,.0f} a second)"]
        if self.cut:
            parts.append(f"{self.cut:,} of them too long and cut")
        if self.empty:
            parts.append(f"{self.empty:,} of them without any text")
        if self.labelled:
            parts.append(f"{100 * self.right / self.labelled:.1f}% of {self.labelled:,} labelled ones right")
        if self.written:
            parts.append(f"ROUGE-L {100 * self.shared / self.written:.1f} on {self.written:,} with a text of their own")
        return ", ".join(parts)


def _write_answers(answered: Iterator[Prediction], writer: Any, *, wide: bool) -> str:
    """Write predictions as they come, with a progress line; returns a summary of them."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console, begun, tally = progress_console(), time.perf_counter(), _Tally()
    columns = SpinnerColumn(), TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("", total=None)
        while piece := list(islice(answered, ROWS_PER_WRITE)):
            writer.write([_row(prediction, wide) for prediction in piece])
            tally.add(piece)
            progress.update(bar, completed=tally.rows)
    return tally.summarize(time.perf_counter() - begun)


def _row(prediction: Prediction, wide: bool) -> dict[str, Any]:
    """The row with its answer; `wide` adds every candidate's probability."""
    added: Mapping[str, Any] = {"prediction": prediction.answer, "probability": prediction.probability}
    if wide and prediction.probabilities:
        shares = dict(zip(prediction.answers, prediction.probabilities, strict=True))
        return {**prediction.row, **added, "probabilities": shares}
    return {**prediction.row, **added}
