"""A target's prompt that starts from another task's: XPrompt (Ma et al. 2022), section 7.5, appendix C and Table 7.

The paper's three ways and ours, for a source A and a target B with the same seed:

| row | starts from | then on B |
|---|---|---|
| TaskTransfer | A's tuned prompt | prompt tuning |
| TaskTransfer, source trained twice | A's control, trained as often as XPrompt's result | prompt tuning |
| XPromptTransfer_o | A's XPrompt result | prompt tuning, "without the rewinding phase" |
| XPromptTransfer | A's XPrompt result | XPrompt |

The paper doesn't say what becomes of A's mask. Here it is lifted: what it pruned is trained again. Pruned pieces of
kept tokens start at zero. Where a whole token was pruned, the vector with which B's own run of that seed began
stands in its place; a row beside it starts those at zero. In a last row the mask is kept, as a mask of B's prompt.
XPromptTransfer_o is the tuned prompt of XPromptTransfer's run: both begin alike, and the first part is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch

from softprune.errors import SoftpruneError
from softprune.prompts.prompt_io import prompt_bytes
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table, shown
from softprune.studies.run_cache import Spec
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Outcome, Runs, chances, collect_outcome, difference_cell, mean_note, score_cell
from softprune.studies.study_context import StudyContext
from softprune.studies.variant_tables import CHOSEN_HERE, chosen_here
from softprune.studies.verdicts import corrected_rows, mean_of, paired_note, said, tally
from softprune.types import PromptState

TUNED, CONTROL, XPROMPT = "prompt tuning", "control: prompt tuning, trained twice", "XPrompt"
TASK, ORDINARY, WHOLE = "TaskTransfer", "XPromptTransfer_o", "XPromptTransfer"
LONGER = f"{TASK}, source trained twice"
TWICE, ZEROED, KEPT = f"control of {WHOLE}: trained twice", f"{ORDINARY}, pruned tokens start at zero", "mask kept"
CLAIMS: Final = (
    (TASK, TUNED),
    (ORDINARY, TASK),
    (ORDINARY, LONGER),
    (WHOLE, ORDINARY),
    (WHOLE, XPROMPT),
    (WHOLE, TWICE),
    (ZEROED, ORDINARY),
    (KEPT, TASK),
    (KEPT, LONGER),
)
"""Which rows are compared: the paper's claims first, then what tells apart their causes."""

Pair: TypeAlias = "tuple[str, str]"
"""A source and a target."""
Rows: TypeAlias = "Mapping[str, Mapping[Pair, Outcome]]"
"""What each way reached, by its label and the pair."""


def lifted(ticket: PromptState, filler_PH: torch.Tensor) -> torch.Tensor:
    """A start `[P, H]` from a pruned prompt whose mask is lifted.

    Args:
        ticket: the pruned prompt; zero where pruned.
        filler_PH: what stands where whole tokens were pruned; pruned pieces of kept tokens stay zero.

    Raises:
        SoftpruneError: when the two are of different shapes.
    """
    if ticket.vectors_PH.shape != filler_PH.shape:
        found = f"{list(ticket.vectors_PH.shape)} and {list(filler_PH.shape)}"
        raise SoftpruneError("source and target prompts of one shape [P, H]", found, "give both the same prompt.tokens")
    return torch.where(ticket.mask.token_P[:, None], ticket.vectors_PH, filler_PH)


def conduct(study: StudyContext) -> Findings:
    """XPrompt on every task, then every pair of source and target in each way."""
    pairs = transfer_pairs(study)
    own = study.grid()
    specs = {
        (pair, seed): _specs(study, own[pair[0], seed], own[pair[1], seed]) for pair in pairs for seed in study.seeds
    }
    study.make([spec for ways in specs.values() for spec in ways.values()])  # all at once, whoever makes them
    made = {key: dict(zip(ways, study.make(list(ways.values())), strict=True)) for key, ways in specs.items()}
    rows = _rows(study, own, made, pairs)
    starred = chances(study, own)
    differences = corrected_rows(
        {
            claim: [difference_cell(study, p[1], rows[claim[0]][p], rows[claim[1]][p], starred[p[1]]) for p in pairs]
            for claim in CLAIMS
        }
    )
    tables = (_scores(study, rows, pairs, starred), _differences(study, differences, pairs))
    return Findings(tables, (_figure(tables[0]),), tuple(_sentences(differences, pairs, chosen_here(study))))


def transfer_pairs(study: StudyContext) -> list[Pair]:
    """Source and target of each transfer: the option `pairs`, or every task to every other.

    Raises:
        SoftpruneError: for a pair of other tasks than the study's, or without any pair.
    """
    asked: Sequence[Any] = study.options.get("pairs") or list(permutations(study.tasks, 2))
    pairs = [(str(source), str(target)) for source, target in (pair for pair in asked if len(pair) == 2)]
    strange = sorted({task for pair in pairs for task in pair} - set(study.tasks))
    if strange or not pairs or len(pairs) < len(asked):
        found = f"pairs {[list(pair) for pair in asked]} of the tasks {', '.join(study.tasks)}"
        raise SoftpruneError(
            "pairs [source, target] of the study's tasks", found, "name two tasks at least: --tasks a,b"
        )
    return pairs


def _specs(study: StudyContext, source: FinishedRun, target: FinishedRun) -> dict[str, Spec]:
    """The runs of one pair and seed; their files are named by the runs that they were made of."""
    ticket = source.ticket.state
    names = f"{source.path.name}-to-{target.path.name}.safetensors"
    filled = study.keep(f"lifted-{names}", prompt_bytes(lifted(ticket, target.prompt("initial")), {}))
    zeroed = study.keep(f"ticket-{source.path.name}.safetensors", prompt_bytes(ticket.vectors_PH, {}))
    from_tuned = {"prompt.init": "file", "prompt.file": str(source.prompt_file("tuned"))}
    from_control = {"prompt.init": "file", "prompt.file": str(source.prompt_file("control"))}
    from_zeroed = {"prompt.init": "file", "prompt.file": str(zeroed)}
    keys: dict[str, dict[str, Any]] = {
        TASK: {"kind": "tune", **from_tuned},
        LONGER: {"kind": "tune", **from_control},
        WHOLE: {"prompt.init": "file", "prompt.file": str(filled)},
        ZEROED: {"kind": "tune", **from_zeroed},
        KEPT: {"kind": "tune", **from_zeroed, "prompt.mask": str(source.mask_file)},
    }
    return {way: study.spec(target.task, target.seed, each) for way, each in keys.items()}


def _rows(
    study: StudyContext, own: Runs, made: Mapping[tuple[Pair, int], Mapping[str, FinishedRun]], pairs: Sequence[Pair]
) -> Rows:
    def alone(row: str) -> dict[Pair, Outcome]:
        return {pair: collect_outcome([own[pair[1], seed] for seed in study.seeds], row) for pair in pairs}

    def moved(way: str, row: str = "tuned") -> dict[Pair, Outcome]:
        return {pair: collect_outcome([made[pair, seed][way] for seed in study.seeds], row) for pair in pairs}

    return {
        TUNED: alone("tuned"),
        CONTROL: alone("control"),
        XPROMPT: alone("winner"),
        TASK: moved(TASK),
        LONGER: moved(LONGER),
        ORDINARY: moved(WHOLE),
        WHOLE: moved(WHOLE, "winner"),
        TWICE: moved(WHOLE, "control"),
        ZEROED: moved(ZEROED),
        KEPT: moved(KEPT),
    }


def _scores(study: StudyContext, rows: Rows, pairs: Sequence[Pair], starred: Mapping[str, bool]) -> Table:
    cells: tuple[tuple[Entry, ...], ...] = tuple(
        (label, *(score_cell(study, pair[1], row[pair], starred[pair[1]]) for pair in pairs))
        for label, row in rows.items()
    )
    note = (
        f"{mean_note(len(study.seeds))} The first three rows have seen no other task. Lifted masks: pruned "
        "pieces start at zero, places of pruned tokens with the target's own sampled vocabulary. A transferred prompt "
        "has been trained for more steps than one from vocabulary, and on other data."
    )
    return Table("transfer", "Prompts that start from another task's", ("%", *map(_named, pairs)), cells, note)


def _differences(
    study: StudyContext, differences: Mapping[tuple[str, str], list[Cell]], pairs: Sequence[Pair]
) -> Table:
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (f"{ours} less {theirs}", *cells) for (ours, theirs), cells in differences.items()
    )
    note = (
        f"{paired_note(len(study.seeds))} The source's XPrompt result was trained twice there, "
        f"its tuned prompt once: what pruning it adds is the difference to {LONGER}."
    )
    if chosen_here(study):
        note = f"{note} {CHOSEN_HERE.capitalize()}."
    return Table("differences", "What each step adds", ("points", *map(_named, pairs)), rows, note)


def _named(pair: Pair) -> str:
    source, target = (Path(task).stem for task in pair)
    return f"{target} from {source}"


def _sentences(differences: Mapping[tuple[str, str], list[Cell]], pairs: Sequence[Pair], here: bool) -> list[str]:
    """The paper's claims, each with what was found, then what tells apart their causes; `here` as of `verdict_of`."""
    texts = {
        (
            TASK,
            TUNED,
        ): "Table 7's TaskTransfer is as good as prompt tuning from vocabulary on WSC, better on COPA. Here",
        (
            ORDINARY,
            TASK,
        ): "The paper: without rewinding, XPrompt's result is a better start than the tuned prompt. Here",
        (ORDINARY, LONGER): "Against the source's unpruned prompt, trained there as often",
        (WHOLE, ORDINARY): "The paper: pruning and rewinding on the target adds to it. Here",
        (WHOLE, XPROMPT): "The paper: XPrompt gains by starting from another task. Here",
        (WHOLE, TWICE): "Against the same start trained twice without pruning",
        (ZEROED, ORDINARY): "Places of pruned tokens that start at zero and not with vocabulary",
        (KEPT, TASK): "The source's mask kept, against the source's whole prompt",
        (KEPT, LONGER): "The same against the source's whole prompt, trained there as often",
    }
    lines = []
    for claim, cells in differences.items():
        told = [
            f"{_named(p)}: {shown(c)} points" if here else said(_named(p), c) for p, c in zip(pairs, cells, strict=True)
        ]
        mean = mean_of(cells)
        lines.append(
            f"{texts[claim]}: {claim[0]} less {claim[1]} is {'not measured' if mean is None else f'{100 * mean:+.1f}'} "
            f"points in the mean over pairs ({CHOSEN_HERE if here else tally(cells)}). {'; '.join(told)}."
        )
    return lines


def _figure(table: Table) -> Figure:
    traces = []
    for column, name in enumerate(table.columns[1:], start=1):
        cells = [cell for row in table.rows if isinstance(cell := row[column], Cell) and cell.value is not None]
        values = [100 * (cell.value or 0.0) for cell in cells]
        highs = [
            100 * cell.high - value if cell.high is not None else None
            for cell, value in zip(cells, values, strict=True)
        ]
        lows = [
            value - 100 * cell.low if cell.low is not None else None for cell, value in zip(cells, values, strict=True)
        ]
        errors = {"type": "data", "symmetric": False, "array": highs, "arrayminus": lows}
        labels = [str(row[0]) for row in table.rows if isinstance(cell := row[column], Cell) and cell.value is not None]
        traces.append({"type": "bar", "name": name, "x": labels, "y": values, "error_y": errors})
    caption = (
        "Bars: the score on report, in percent, of each way to start, a bar for each pair of source and target; lines "
        "are 95% intervals. The first three ways start from vocabulary. The numbers are those of the table."
    )
    layout = {"yaxis": {"title": {"text": "score on report (%)"}}, "barmode": "group"}
    return Figure("transfer", "Where a prompt starts", caption, tuple(traces), layout)
