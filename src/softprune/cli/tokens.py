"""Learned token pruning: `tokens train`, and what the models that it leaves are asked."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from softprune.errors import SoftpruneError

_PIPE_WIDTH = 200
_PIECE = 512


def show_results(run: Path) -> None:
    """Prints the table of a run."""
    from rich.console import Console

    from softprune.tokens.table import notes, read_results, results_table

    info = read_results(run)
    # A pipe or a file has no width of its own; nothing is to be cut off there.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    if not any(info["results"].values()):
        typer.echo(f"{run} has no results yet: it is {info['status']}; continue it: {info['command']}")
        return
    console.print(results_table(info))
    for note in notes(info):
        typer.echo(note)
    if info.get("model"):
        typer.echo(f"the chosen model: {run / info['model']}")


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's folder, a run's, or a hub name.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows: .jsonl, .csv (both also .gz) or .parquet.")],
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column of the text.", show_default="text, or the only one")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="The same rows with their answers.", show_default="JSON lines to the terminal"
        ),
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    dtype: Annotated[str, typer.Option(metavar="DTYPE", help="auto, float32, bfloat16, float16 or float64.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace an output file that is there.")] = False,
) -> None:
    """Classify the rows of a file, and say how many of their tokens were read to the end, and which."""
    from softprune.tasks.files import format_of, read_rows
    from softprune.tokens.model import TokenModel
    from softprune.tokens.predict import ADDED, ADDED_WIDE, predict_rows

    kind = format_of(file)
    if kind is None or not file.is_file():
        found = f"{file}" if kind is None else f"no file {file}"
        raise SoftpruneError("an input file that ends in .jsonl, .csv or .parquet", found, "correct its path")
    if out is not None and out.exists() and not force:
        raise SoftpruneError("a new output file", f"{out} is there", "choose another --out, or add --force")
    wide = out is None or format_of(out) == "jsonl"
    with _sink(out) as write:
        loaded = TokenModel.load(model, device=device, dtype=dtype)
        answered = predict_rows(loaded, read_rows(file, kind), column, added=ADDED_WIDE if wide else ADDED)
        begun, count, tokens, kept = time.perf_counter(), 0, 0, 0
        while piece := list(islice(answered, _PIECE)):
            write([prediction.filled(wide=wide) for prediction in piece])
            count += len(piece)
            tokens += sum(len(prediction.reading.left) for prediction in piece)
            kept += sum(prediction.kept for prediction in piece)
    if out is not None:
        seconds, share = time.perf_counter() - begun, 100 * kept / max(1, tokens)
        typer.echo(f"{count:,} rows in {seconds:.1f} s, {share:.0f}% of their tokens read to the end: {out}", err=True)


@contextmanager
def _sink(out: Path | None) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Where rows go: a file that appears when it is whole, or the terminal."""
    from softprune.tasks.outputs import RowWriter

    if out is None:
        yield lambda rows: typer.echo("\n".join(json.dumps(row, ensure_ascii=False, default=str) for row in rows))
        return
    with RowWriter(out) as writer:
        yield writer.write
