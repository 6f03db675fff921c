"""Commands that look at what is there: `runs`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softprune.cli.output import duration, print_rich, say, table
from softprune.errors import SoftpruneError
from softprune.runs.listing import RunSummary, list_runs

_NOT_MEASURED = "-"


def runs(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A folder that holds runs.")] = Path("runs"),
) -> None:
    """List the runs under a folder: what they are, how they stand, and what came of them."""
    found = list_runs(root)
    if not found:
        say(f"no runs in {root}")
        return
    header = ("run", "kind", "status", "task", "backbone", "score", "tokens", "pieces", "parameters", "time", "changed")
    say(table([header, *map(_row, found)]))


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    others: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN ...]", help="Runs to show beside it, on its page.")
    ] = None,
) -> None:
    """Write a run's report again, or a comparison's page, and show its table; of token pruning, the table alone."""
    from softprune.cli.compare import is_comparison, report_comparison
    from softprune.cli.study import is_study, report_study
    from softprune.cli.tokens import show_results
    from softprune.report import explain_comparisons, write_report

    for other in others or []:
        if any(is_comparison(each) or is_study(each) or is_of_tokens(each) for each in (run, other)):
            raise SoftpruneError(
                "runs that tune, prune or adapt, to show beside each other",
                f"{run} and {other}",
                "report comparisons, studies and runs of token pruning one at a time",
            )
    if is_comparison(run):
        report_comparison(run)
        return
    if is_study(run):
        report_study(run)
        return
    if is_of_tokens(run):
        show_results(run)
        return
    write_report(run, others or [])
    show_comparison(run)
    for line in explain_comparisons(run, others or []):
        say(line)


def is_of_tokens(run: Path) -> bool:
    """Whether a folder holds a run of token pruning; False also where nothing can be told."""
    from softprune.runs.record import RunRecord, read_record

    try:
        return read_record(run, RunRecord).kind == "tokens"
    except SoftpruneError:
        return False


def show_comparison(run: Path) -> None:
    """Prints a run's comparison table, and where its report lies."""
    from softprune.report import comparison_table
    from softprune.runs.record import RunRecord, read_record

    record = read_record(run, RunRecord)
    if record.verdict is not None:
        say(f"{record.verdict.sentence}\n")
    print_rich(comparison_table(run))
    if record.headline is not None:
        for sentence in filter(None, (record.headline.sentence, record.headline.random_sentence)):
            say(sentence)
    if record.status != "complete" and not (run / "COMPLETE").exists():
        say(f"this run is not complete; continue it: {record.command}")
    page = run / "report" / "index.html"
    if page.exists():
        say(f"report: {page}")


def _row(run: RunSummary) -> tuple[str, ...]:
    score = _NOT_MEASURED if run.value is None else f"{run.result} {100 * run.value:.1f}% {run.metric or ''}".strip()
    sizes = (run.tokens, run.pieces, run.parameters)
    return (
        run.name,
        run.kind,
        run.status,
        run.task or _NOT_MEASURED,
        run.backbone or _NOT_MEASURED,
        score,
        *(_NOT_MEASURED if size is None else f"{size:,}" for size in sizes),
        duration(run.seconds),
        f"{run.modified.astimezone():%Y-%m-%d %H:%M}",
    )
