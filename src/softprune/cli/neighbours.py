"""`neighbours`: the words that the tokens of a run's prompt are nearest to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from softprune.cli.output import say, table


def neighbours(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    k: Annotated[int, typer.Option("--k", min=1, metavar="N", help="Nearest words to show of each token.")] = 5,
    measure: Annotated[
        str,
        typer.Option(
            metavar="[centred|cosine|euclidean]",
            help="Distance between vectors; centred is the cosine after subtracting the vocabulary's mean.",
        ),
    ] = "centred",
) -> None:
    """Show the words nearest to each token of a run's prompt: at the start, now, and how far it moved."""
    from softprune.interpret.neighbours import check_measure
    from softprune.interpret.run_neighbours import neighbours_of

    check_measure(measure)
    found = neighbours_of(run, k)
    for name, tokens in found["prompts"].items():
        say(f"{name}: {_count_persisting(tokens, measure)}")
        header = ("token", "started as", "moved", f"nearest at the end ({measure})", "still nearest?")
        say(table([header, *(_row(token, measure, k) for token in tokens)]) + "\n")
    spread = found["anisotropy"]
    say(f"moved: in lengths of a typical word's vector ({found['scale']:.4g})")
    say(
        f"cosine of two random words: {spread['raw']:.2f} ({spread['centred']:.2f} without the vocabulary's mean); "
        f"{found['vocabulary']:,} words and pieces of words count"
    )


def _count_persisting(tokens: Sequence[Mapping[str, Any]], measure: str) -> str:
    persists = [token["kept"][measure] for token in tokens]
    known = sum(value is not None for value in persists)
    return f"{persists.count(True)} of {known} tokens are still nearest to the word that they started nearest to"


def _row(token: Mapping[str, Any], measure: str, k: int) -> tuple[str, ...]:
    from softprune.interpret.vocabulary import visible

    near = [f"{visible(each['word'])} {each['value']:.2f}" for each in token["end"][measure][:k]]
    persists = {True: "yes", False: "no", None: "-"}[token["kept"][measure]]
    return (
        str(token["token"]),
        visible(token["word"]) or "-",
        f"{token['moved']:.2f}",
        ", ".join(near) or "-",
        persists,
    )
