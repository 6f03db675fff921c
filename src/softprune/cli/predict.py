"""The command that uses tickets: `predict`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softprune.cli.exchange import Which, WhichOption, refuse_which
from softprune.cli.options import (
    INPUT_OPTION,
    BatchRowsOption,
    DeviceOption,
    DtypeOption,
    ForceOption,
    check_new_file,
    option,
    option_like,
    out_option,
)
from softprune.cli.output import ROWS_PER_WRITE, progress_console, say
from softprune.errors import SoftpruneError

if TYPE_CHECKING:
    from softprune.data.row_files import RowWriter
    from softprune.evaluation.predict import Answering, Prediction
    from softprune.prompts.ticket import Ticket


_RUNS = "A run, ticket or adapter folder, or a ticket's hub name; several with --ensemble."
_PROMPTS = "Several runs or tickets, each as FOLDER or NAME=FOLDER; a column of the rows says which one answers."
_COMBINE = "How an ensemble answers: by the mean of probabilities, their geometric mean, or votes."


def predict(
    *,
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN", help=_RUNS)] = None,
    input_file: Annotated[Path, INPUT_OPTION],
    out: Annotated[Path, out_option("The same rows with their answers, in any of these formats.", "FILE")],
    prompts: Annotated[str | None, option("--prompts", "A,B,...", _PROMPTS)] = None,
    which: WhichOption = Which.winner,
    prompt_column: Annotated[
        str, option("--prompt-column", "NAME", "The column that names a row's prompt.")
    ] = "prompt",
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="All tickets, which must be of one task, answer every row together.")
    ] = False,
    combine: Annotated[str, option("--combine", "[mean|geometric|vote]", _COMBINE)] = "mean",
    backbone: Annotated[str | None, option_like("--backbone", "the ticket's")] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    device_map: Annotated[
        str, option("--device-map", "MAP", "Spread the layers over several devices: none, auto, balanced, ...")
    ] = "none",
    quantization: Annotated[
        str, option("--quantization", "BITS", "none, 8bit or 4bit; the same as when the ticket was trained.")
    ] = "none",
    batch_rows: BatchRowsOption = 256,
    force: ForceOption = False,
) -> None:
    """Answer the rows of a file with a ticket or an adapter, or each row with its own of several tickets."""
    from softprune.adapters.adapter_io import holds_adapter, read_adapter
    from softprune.data.metrics import ExactMatch
    from softprune.data.row_files import RowWriter, file_format, refuse_columns
    from softprune.data.sources import read_input
    from softprune.evaluation.predict import backbone_of
    from softprune.evaluation.predict import predict as answer

    if not input_file.is_file():
        expected = "an input file that ends in .jsonl, .csv or .parquet"
        raise SoftpruneError(expected, f"no file {input_file}", "correct --input")
    check_new_file(out, force=force)
    loading = {"device": device, "dtype": dtype, "device_map": device_map, "quantization": quantization}
    if backbone:
        loading["name"] = backbone
    adapter, tickets = None, {}
    if runs and len(runs) == 1 and holds_adapter(Path(runs[0])):
        refuse_which(runs[0], which)
        adapter = read_adapter(Path(runs[0]))
        definitions = [adapter.definition]
    else:
        tickets = _read_tickets(runs or [], prompts, which.value, ensemble=ensemble)
        definitions = [ticket.definition for ticket in tickets.values()]
    with RowWriter(out) as writer:  # first, since a backbone takes a while to load
        wide = file_format(out) == "jsonl"
        exact = any(definition.metric == ExactMatch.name for definition in definitions)
        added = ["prediction", "probability"]
        added += ["probabilities"] if wide else []
        added += ["extracted", "right"] if exact else []
        rows = refuse_columns(read_input(definitions, input_file), added)
        answering: Answering | dict[str, Ticket] = tickets
        if adapter is not None:
            answering, loaded = adapter, adapter.load(**loading)
        else:
            loaded = backbone_of(tickets, **loading)
            if not ensemble and prompts is None:
                (answering,) = tickets.values()
        predictions = answer(
            answering,
            rows,
            backbone=loaded,
            column=prompt_column,
            batch_rows=batch_rows,
            ensemble=ensemble,
            combine=combine,
        )
        summary = _write_answers(predictions, writer, wide=wide, exact=exact)
    say(f"{summary}: {out}", err=True)


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
    tickets: dict[str, Ticket] = {}
    for text in filter(None, map(str.strip, (prompts or "").split(","))):
        name, equals, folder = text.partition("=")
        if not equals:
            name, folder = Path(text).name, text
        if name in tickets:
            do = "name them: --prompts a=FOLDER,b=FOLDER"
            raise SoftpruneError("prompts of different names", f'"{name}" twice', do)
        tickets[name] = Ticket.load(folder, which)
    return tickets


def _write_answers(predictions: Iterator[Prediction], writer: RowWriter, *, wide: bool, exact: bool) -> str:
    """Write predictions as they come, with a progress line; returns a summary of them.

    `wide` adds every candidate's probability to a row, which only JSON lines hold well; `exact` the answer that was
    found in a text, and whether it is right.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from softprune.data.rouge import is_installed, rouge

    begun, counts, shared, has_rouge = time.perf_counter(), Counter[str](), 0.0, is_installed()
    columns = SpinnerColumn(), TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn()
    with Progress(*columns, console=progress_console(), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("", total=None)
        while piece := list(islice(predictions, ROWS_PER_WRITE)):
            rows = []
            for each in piece:
                row = {**each.row, "prediction": each.answer, "probability": each.probability}
                if wide and each.probabilities:
                    row["probabilities"] = dict(zip(each.answers, each.probabilities, strict=True))
                if exact:
                    row |= {"extracted": each.extracted, "right": each.right}
                rows.append(row)
                counts.update(rows=1, cut=each.cut > 0, empty=each.empty)
                if each.right is not None:
                    counts.update(labelled=1, right=each.right)
                elif each.gold is not None and has_rouge:
                    counts.update(written=1)
                    shared += rouge(each.answer, each.gold)[-1]
            writer.write(rows)
            progress.update(bar, completed=counts["rows"])
    seconds, rows_read = time.perf_counter() - begun, counts["rows"]
    parts = [f"{rows_read:,} row{'s' * (rows_read != 1)} in {seconds:.1f} s ({rows_read / seconds:,.0f} a second)"]
    if counts["cut"]:
        parts.append(f"{counts['cut']:,} of them too long and cut")
    if counts["empty"]:
        parts.append(f"{counts['empty']:,} of them without any text")
    if counts["labelled"]:
        share = 100 * counts["right"] / counts["labelled"]
        parts.append(f"{share:.1f}% of {counts['labelled']:,} labelled ones right")
    if counts["written"]:
        mean = 100 * shared / counts["written"]
        parts.append(f"ROUGE-L {mean:.1f} on {counts['written']:,} with a text of their own")
    return ", ".join(parts)
