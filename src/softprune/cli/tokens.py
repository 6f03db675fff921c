"""`softprune tokens`: commands on the models that `tokens train` leaves."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from softprune.cli.options import (
    INPUT_OPTION,
    BatchRowsOption,
    DeviceOption,
    ForceOption,
    SeedOption,
    ThreadsOption,
    check_new_file,
    note_old_form,
    option,
    option_like,
    out_option,
)
from softprune.cli.output import ROWS_PER_WRITE, WIDE, print_rich, say
from softprune.errors import SoftpruneError
from softprune.printable import printable_json

_Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="A run of tokens train (its chosen model), or a folder in its models/."),
]
_TaskOption = Annotated[str | None, option_like("--task", "the run's", kind="tokens")]
_DataOption = Annotated[Path | None, option_like("--data", "the run's", kind="tokens")]
_LimitOption = Annotated[
    int, option("--limit-report", "N", "Examples of the report set, at most; a sample of more.", minimum=1)
]
_DtypeOption = Annotated[str, option_like("--dtype", kind="tokens")]
_Tagger = Annotated[
    str | None, option("--tagger", "NAME", "A spaCy pipeline, by name or folder, for parts of speech. [default: none]")
]


def explain(
    model: _Model,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text to classify, in quotes.")],
    html_file: Annotated[Path | None, option("--html", "FILE", "Write an HTML page, too.")] = None,
    tagger: _Tagger = None,
    device: DeviceOption = "auto",
    dtype: _DtypeOption = "auto",
) -> None:
    """Show which words of a text a pruned model kept to the end, and after which layer the others were dropped."""
    from softprune.token_pruning.analysis.explain import Explanation, html
    from softprune.token_pruning.analysis.words import find_words, load_tagger
    from softprune.token_pruning.model import TokenModel

    loaded = TokenModel.load(model, device=device, dtype=dtype)
    marks = next(load_tagger(tagger).marks([text])) if tagger else None
    (trace,) = loaded.trace([text])
    explanation = Explanation(trace, find_words(trace, marks), loaded.labels)
    print_rich(explanation, width=WIDE)
    if html_file is not None:
        page = html(explanation)
        html_file.parent.mkdir(parents=True, exist_ok=True)
        html_file.write_text(page, encoding="utf-8", errors="replace")
        say(f"page: {html_file}")


def analyse(
    model: _Model,
    task: _TaskOption = None,
    data: _DataOption = None,
    limit_report: _LimitOption = 1000,
    tagger: _Tagger = None,
    keywords: Annotated[
        Path | None, option("--keywords", "FILE", "Words of your domain, one a line: are they kept, do they matter?")
    ] = None,
    out: Annotated[Path | None, out_option("The analysis.", default="MODEL/analysis")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    dtype: _DtypeOption = "auto",
) -> None:
    """Analyse which words a pruned model keeps: by part of speech, position, frequency, class, and your own words."""
    from softprune.token_pruning.analysis.page import analyse as analyse_traces
    from softprune.token_pruning.analysis.words import load_tagger
    from softprune.token_pruning.model import TokenModel
    from softprune.token_pruning.session import sample_report

    loaded_tagger = load_tagger(tagger) if tagger else None
    loaded = TokenModel.load(model, device=device, dtype=dtype)
    task_title, sample = sample_report(model, loaded.labels, task, data, limit_report, seed)
    traces = loaded.trace([e.content for e in sample], [e.gold for e in sample], states=True)
    folder = out or model / "analysis"
    contents = analyse_traces(
        traces,
        loaded_tagger,
        folder,
        labels=loaded.labels,
        keywords=keywords,
        model=loaded,
        seed=seed,
        title=f"{task_title}: what {loaded.name} keeps",
    )
    for sentence in contents["findings"].values():
        say(sentence)
    cut = [trace.cut for trace in traces if trace.cut]
    if cut:
        say(f"{len(cut)} of {len(traces)} texts were longer than {loaded.max_length} tokens: {sum(cut)} cut off")
    say(f"analysis: {folder / 'analysis.html'} (words and tags of every text: {folder / 'kept.csv'})")


def bench(
    model: _Model,
    task: _TaskOption = None,
    data: _DataOption = None,
    limit_report: _LimitOption = 2000,
    texts: Annotated[int, option("--texts", "N", "How many of these are timed.", minimum=2)] = 128,
    rounds: Annotated[int, option("--rounds", "N", "Rounds of timing; medians are shown.", minimum=1)] = 5,
    batch_rows: BatchRowsOption = 32,
    calls: Annotated[int, option("--calls", "N", "Largest number of batches timed for latency.", minimum=1)] = 40,
    threads: ThreadsOption = None,
    out: Annotated[Path | None, out_option("The measurements.", default="MODEL/bench")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    dtype: _DtypeOption = "auto",
) -> None:
    """Measure accuracy, operations, speed and latency of a run's models, beside the padded and the unpruned model."""
    import torch

    from softprune.report.mpl_style import LIGHT, render
    from softprune.report.speed import draw_speed
    from softprune.runs import atomic_io
    from softprune.token_pruning.bench import Settings, load_models
    from softprune.token_pruning.bench import bench as measure
    from softprune.token_pruning.session import sample_report
    from softprune.token_pruning.tables import bench_notes, break_even_table, latency_table, speed_table
    from softprune.training.memory import keep_freed

    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed()  # else the allocator returns memory to the system between calls, and that is timed too
    unpruned, models = load_models(model, device, dtype)
    _, sample = sample_report(model, unpruned.labels, task, data, limit_report, seed)
    ids = unpruned.encode([example.content for example in sample])
    settings = Settings(rounds=rounds, texts=texts, rows=batch_rows, calls=calls, seed=seed)
    golds = [example.gold for example in sample]
    results = measure(unpruned, models, ids, golds, settings, watch=lambda line: say(line, err=True))
    folder = out or model / "bench"
    atomic_io.write_bytes(folder / "bench.json", (atomic_io.json_text(results, indent=1) + "\n").encode())
    print_rich(speed_table(results), latency_table(results), break_even_table(results), width=WIDE)
    for note in bench_notes(results):
        say(note)
    draw = draw_speed(results)
    for form, picture in zip(("png", "svg"), render(draw, LIGHT, "png", "svg"), strict=True):
        atomic_io.write_bytes(folder / f"pareto.{form}", picture)
    say(f"bench: {folder / 'bench.json'}, {folder / 'pareto.png'}")


def predict(
    model: _Model,
    old_input: Annotated[Path | None, typer.Argument(metavar="FILE", hidden=True)] = None,
    input_file: Annotated[Path | None, INPUT_OPTION] = None,
    text: Annotated[
        str | None, option("--text", "COLUMN", "The column to read. [default: text, or the only one]")
    ] = None,
    out: Annotated[
        Path | None, out_option("The same rows with their answers.", "FILE", "JSON lines to the terminal")
    ] = None,
    device: DeviceOption = "auto",
    dtype: _DtypeOption = "auto",
    force: ForceOption = False,
) -> None:
    """Classify the rows of a file, and say how many of their input tokens were kept to the end, and which."""
    from softprune.data.row_files import RowWriter, file_format, read_rows, refuse_columns
    from softprune.token_pruning.model import ADDED, ADDED_WIDE, TokenModel, predict_rows

    if old_input is not None:
        note_old_form("FILE", "--input")
    file = input_file or old_input
    kind = None if file is None else file_format(file)
    if file is None or kind is None or not file.is_file():
        found = str(file or "no --input") if kind is None else f"no file {file}"
        raise SoftpruneError("an input file that ends in .jsonl, .csv or .parquet", found, "correct --input")
    wide = out is None or file_format(out) == "jsonl"
    with ExitStack() as stack:
        writer = None
        if out is not None:
            check_new_file(out, force=force)
            writer = stack.enter_context(RowWriter(out))  # before the model is loaded, which takes a while
        loaded = TokenModel.load(model, device=device, dtype=dtype)
        checked = refuse_columns(read_rows(file, kind), ADDED_WIDE if wide else ADDED)
        predictions = predict_rows(loaded, checked, text, wide=wide)
        begun, count, tokens, kept = time.perf_counter(), 0, 0, 0
        while rows := list(islice(predictions, ROWS_PER_WRITE)):
            if writer is None:
                say("\n".join(map(printable_json, rows)))
            else:
                writer.write(rows)
            count += len(rows)
            tokens += sum(row["tokens"] for row in rows)
            kept += sum(row["kept"] for row in rows)
    if out is not None:
        seconds, share = time.perf_counter() - begun, 100 * kept / max(1, tokens)
        say(f"{count:,} rows in {seconds:.1f} s, {share:.0f}% of their input tokens kept to the end: {out}", err=True)
