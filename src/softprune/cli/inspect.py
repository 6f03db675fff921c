"""Commands that show what there is: `methods`, `runs`, `report`, `neighbours`; and the results that end a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprune.cli.options import option, option_like
from softprune.cli.output import WIDE, duration, print_rich, say, table
from softprune.config import BackboneConfig
from softprune.errors import SoftpruneError

if TYPE_CHECKING:
    from rich.console import RenderableType

_NOT_MEASURED = "-"
_MEASURE = "Distance between vectors; centred is the cosine after subtracting the vocabulary's mean."


def runs(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A folder that holds runs.")] = Path("runs"),
) -> None:
    """List the runs under a folder: what they are, their status and their results."""
    from softprune.runs.listing import list_runs

    heads = ("run", "kind", "status", "task", "backbone", "score", "tokens", "pieces", "parameters", "time", "changed")
    rows: list[Sequence[str]] = [heads]
    for run in list_runs(root):
        names = (run.name, run.kind, run.status, run.task or _NOT_MEASURED, run.backbone or _NOT_MEASURED)
        score = _NOT_MEASURED
        if run.value is not None:
            score = f"{run.result} {100 * run.value:.1f}% {run.metric or ''}".strip()
        sizes = [_NOT_MEASURED if n is None else f"{n:,}" for n in (run.tokens, run.pieces, run.parameters)]
        changed = f"{run.modified.astimezone():%Y-%m-%d %H:%M}"
        rows.append((*names, score, *sizes, duration(run.seconds), changed))
    say(table(rows) if len(rows) > 1 else f"no runs in {root}")


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    others: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN ...]", help="Runs to show beside it, on its page.")
    ] = None,
) -> None:
    """Write a run's report again, or a comparison's page, and show its table; of token pruning, the table alone."""
    from softprune.report import explain_comparisons, write_report

    kind = _kind_of_folder(run)
    for other in others or []:
        if {kind, _kind_of_folder(other)} != {"run"}:
            expected = "runs that tune, prune or adapt, to show beside each other"
            do = "report comparisons, studies and runs of token pruning one at a time"
            raise SoftpruneError(expected, f"{run} and {other}", do)
    if kind == "compare":
        from softprune.studies.comparison.runner import rewrite as rewrite_comparison

        rewrite_comparison(run)
        show_comparison(run)
    elif kind == "study":
        from softprune.studies.runner import rewrite as rewrite_study

        rewrite_study(run)
        show_study(run)
    elif kind == "tokens":
        show_token_pruning(run)
    else:
        write_report(run, others or [])
        show_run(run)
        for line in explain_comparisons(run, others or []):
            say(line)


def _kind_of_folder(folder: Path) -> str:
    from softprune.runs.record import RunRecord, read_record

    for kind in ("compare", "study"):
        if (folder / f"{kind}.json").is_file():
            return kind
    try:
        return "tokens" if read_record(folder, RunRecord).kind == "tokens" else "run"
    except SoftpruneError:
        return "run"  # whoever writes its report says what is wrong with it


def show_run(run: Path) -> None:
    """Prints the table of a run that tunes, prunes or adapts, and where its report is."""
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


def show_token_pruning(run: Path) -> None:
    """Prints the table of a run of learned token pruning."""
    from softprune.token_pruning.tables import read_results, results_notes, results_table

    record = read_results(run)
    if not any(record.results.values()):
        say(f"{run} has no results yet: it is {record.status}; continue it: {record.command}")
        return
    print_rich(results_table(record), width=WIDE)
    for note in results_notes(record):
        say(note)
    if record.model:
        say(f"the chosen model: {run / record.model}")


def show_comparison(folder: Path) -> None:
    """Prints a comparison's tables, and where its page is."""
    from softprune.studies.comparison.runner import terminal

    _show_tables(folder, terminal(folder), "table.md, .csv, .tex")


def show_study(folder: Path) -> None:
    """Prints a study's tables, and where its page is."""
    from softprune.studies.runner import terminal

    _show_tables(folder, terminal(folder), "table-*.md, .csv")


def _show_tables(folder: Path, tables: RenderableType, files: str) -> None:
    print_rich(tables)
    page = folder / "index.html"
    if page.exists():
        say(f"page: {page}; tables: {folder}/{files}")


def neighbours(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    k: Annotated[int, option("--k", "N", "Nearest words to show of each token.", minimum=1)] = 5,
    measure: Annotated[str, option("--measure", "[centred|cosine|euclidean]", _MEASURE)] = "centred",
) -> None:
    """Show the words nearest to each token of a run's prompt: at the start, now, and how far it moved."""
    from softprune.interpret.neighbours import check_measure
    from softprune.interpret.run_neighbours import neighbours_of
    from softprune.interpret.vocabulary import visible

    check_measure(measure)
    found = neighbours_of(run, k)
    for name, tokens in found["prompts"].items():
        persists = [token["kept"][measure] for token in tokens]  # None where a token didn't start as a word
        known = len(persists) - persists.count(None)
        does = "tokens are still nearest to the word that they started nearest to"
        say(f"{name}: {persists.count(True)} of {known} {does}")
        rows = [("token", "started as", "moved", f"nearest at the end ({measure})", "still nearest?")]
        for token in tokens:
            near = [f"{visible(each['word'])} {each['value']:.2f}" for each in token["end"][measure][:k]]
            still = {True: "yes", False: "no", None: "-"}[token["kept"][measure]]
            start, moved = visible(token["word"]) or "-", f"{token['moved']:.2f}"
            rows.append((str(token["token"]), start, moved, ", ".join(near) or "-", still))
        say(table(rows) + "\n")
        weighed = [(str(token["token"]), _sum_of_words(token["made_of"][:k])) for token in tokens if "made_of" in token]
        if weighed:
            say(table([("token", "is a sum of words, of the largest weights"), *weighed]) + "\n")
    spread = found["anisotropy"]
    say(f"moved: in lengths of a typical word's vector ({found['scale']:.4g})")
    say(
        f"cosine of two random words: {spread['raw']:.2f} ({spread['centred']:.2f} without the vocabulary's mean); "
        f"{found['vocabulary']:,} words and pieces of words count"
    )


def _sum_of_words(words: Sequence[dict[str, Any]]) -> str:
    from softprune.interpret.vocabulary import visible

    return ", ".join(f"{each['value']:+.2f} {visible(each['word'])}" for each in words)


def methods(
    backbone: Annotated[str | None, option_like("--backbone", "none: without asking a model")] = None,
) -> None:
    """List the methods: what each trains, its source, its learning rate, and whether a model has room for it."""
    from softprune.adapters.registry import METHODS
    from softprune.studies.comparison.runner import refused_by_model
    from softprune.terminal import Table

    heads, refused = ["method", "trains", "from", "learning rate", "kind"], {}
    if backbone is not None:
        heads.append("here")
        refused = refused_by_model(BackboneConfig(name=backbone), METHODS)
    table = Table(*heads, box=None, pad_edge=False, header_style="bold underline")
    for method in METHODS.values():
        rate = f"{method.relative_lr} × RMS of embeddings" if method.lr is None else f"{method.lr:g}"
        cells = [method.name, method.trains, method.source, rate, method.kind]
        if backbone is not None:
            cells.append("not defined" if method.name in refused else "yes")
        table.add_row(*cells)
    print_rich(table)
    for name, reason in refused.items():
        say(f"{name}: not defined: {reason}")
