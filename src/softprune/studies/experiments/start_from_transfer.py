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

from collections.abc import Sequence
from itertools import permutations, product
from statistics import fmean
from typing import Any, Final, TypeAlias

import torch

from softprune.errors import SoftpruneError
from softprune.prompts.prompt_io import prompt_bytes
from softprune.studies.findings import Findings, Table, bars, format_entry
from softprune.studies.run_cache import Spec
from softprune.studies.run_result import FinishedRun, collect_outcome
from softprune.studies.score_rows import Row, chances, pair_table, score_table
from softprune.studies.study_context import StudyContext, task_label
from softprune.studies.verdicts import CHOSEN_HERE, describe_difference, only_cells, tally
from softprune.types import PromptState

TUNED, CONTROL, XPROMPT = "prompt tuning", "control: prompt tuning, trained twice", "XPrompt"
TASK, ORDINARY, WHOLE = "TaskTransfer", "XPromptTransfer_o", "XPromptTransfer"
LONGER = f"{TASK}, source trained twice"
TWICE, ZEROED, KEPT = f"control of {WHOLE}: trained twice", f"{ORDINARY}, pruned tokens start at zero", "mask kept"
# Which rows are compared, and why: the paper's claims first, then what separates their causes.
CLAIMS: Final = {
    (TASK, TUNED): "Table 7's TaskTransfer is as good as prompt tuning from vocabulary on WSC, better on COPA. Here",
    (ORDINARY, TASK): "The paper: without rewinding, XPrompt's result is a better start than the tuned prompt. Here",
    (ORDINARY, LONGER): "Against the source's unpruned prompt, trained there as often",
    (WHOLE, ORDINARY): "The paper: pruning and rewinding on the target adds to it. Here",
    (WHOLE, XPROMPT): "The paper: XPrompt gains by starting from another task. Here",
    (WHOLE, TWICE): "Against the same start trained twice without pruning",
    (ZEROED, ORDINARY): "Places of pruned tokens that start at zero and not with vocabulary",
    (KEPT, TASK): "The source's mask kept, against the source's whole prompt",
    (KEPT, LONGER): "The same against the source's whole prompt, trained there as often",
}

_OWN: Final = "the target's own run"
# The run that each row is of, and which of its results.
_ROWS: Final = {
    TUNED: (_OWN, "tuned"),
    CONTROL: (_OWN, "control"),
    XPROMPT: (_OWN, "winner"),
    TASK: (TASK, "tuned"),
    LONGER: (LONGER, "tuned"),
    ORDINARY: (WHOLE, "tuned"),
    WHOLE: (WHOLE, "winner"),
    TWICE: (WHOLE, "control"),
    ZEROED: (ZEROED, "tuned"),
    KEPT: (KEPT, "tuned"),
}

Pair: TypeAlias = "tuple[str, str]"  # a source and a target


def lifted(ticket: PromptState, filler_PH: torch.Tensor) -> torch.Tensor:
    """A start `[P, H]` from a pruned prompt whose mask is lifted.

    `filler_PH` replaces whole tokens that were pruned; pruned pieces of kept tokens stay zero.
    """
    if ticket.vectors_PH.shape != filler_PH.shape:
        found = f"{list(ticket.vectors_PH.shape)} and {list(filler_PH.shape)}"
        raise SoftpruneError("source and target prompts of one shape [P, H]", found, "give both the same prompt.tokens")
    return torch.where(ticket.mask.token_P[:, None], ticket.vectors_PH, filler_PH)


def conduct(study: StudyContext) -> Findings:
    """XPrompt on every task, then every pair of source and target in each way."""
    pairs, own = transfer_pairs(study), study.grid()
    specs: dict[tuple[Pair, int, str], Spec] = {}
    for pair, seed in product(pairs, study.seeds):
        for way, spec in _specs(study, own[pair[0], seed], own[pair[1], seed]).items():
            specs[pair, seed, way] = spec
    runs = study.make(specs)  # all at once
    for pair, seed in product(pairs, study.seeds):
        runs[pair, seed, _OWN] = own[pair[1], seed]
    at_chance = {pair: chances(study, own)[pair[1]] for pair in pairs}
    rows = {}
    for label, (way, result) in _ROWS.items():
        outcomes = {}
        for pair in pairs:
            outcomes[pair] = collect_outcome([runs[pair, seed, way] for seed in study.seeds], result)
        rows[label] = Row(outcomes, at_chance)
    heads = {(source, target): f"{task_label(target)} from {task_label(source)}" for source, target in pairs}
    note = (
        "The first three rows have seen no other task. Lifted masks: pruned "
        "pieces start at zero, places of pruned tokens with the target's own sampled vocabulary. A transferred prompt "
        "has been trained for more steps than one from vocabulary, and on other data."
    )
    title = "Prompts that start from another task's"
    scores = score_table(study, "transfer", title, rows, heads=heads, more=note)
    note = (
        "The source's XPrompt result was trained twice there, "
        f"its tuned prompt once: what pruning it adds is the difference to {LONGER}."
    )
    compared = {f"{ours} less {theirs}": (ours, theirs) for ours, theirs in CLAIMS}
    differences = pair_table(study, "differences", "What each step adds", rows, compared, heads=heads, more=note)
    figure = bars(scores, "transfer", "Where a prompt starts", list(heads.values()))
    return Findings([scores, differences], [figure], _sentences(differences, study.chosen_on_report))


def transfer_pairs(study: StudyContext) -> list[Pair]:
    """Source and target of each transfer: the option `pairs`, or every task to every other."""
    asked: Sequence[Any] = study.options.get("pairs") or list(permutations(study.tasks, 2))
    pairs: list[Pair] = []
    for pair in asked:
        if len(pair) == 2 and set(map(str, pair)) <= set(study.tasks):
            pairs.append((str(pair[0]), str(pair[1])))
    if not pairs or len(pairs) < len(asked):
        found = f"pairs {[list(pair) for pair in asked]} of the tasks {', '.join(study.tasks)}"
        do = "name two tasks at least: --tasks a,b"
        raise SoftpruneError("pairs [source, target] of the study's tasks", found, do)
    return pairs


def _specs(study: StudyContext, source: FinishedRun, target: FinishedRun) -> dict[str, Spec]:
    """The runs of one pair and seed; their files are named by the runs that they were made of."""
    ticket = source.ticket.state
    names = f"{source.path.name}-to-{target.path.name}.safetensors"
    filled = study.keep(f"lifted-{names}", prompt_bytes(lifted(ticket, target.prompt("initial")), {}))
    zeroed = study.keep(f"ticket-{source.path.name}.safetensors", prompt_bytes(ticket.vectors_PH, {}))
    keys: dict[str, dict[str, Any]] = {
        TASK: {"kind": "tune", "prompt.file": str(source.prompt_file("tuned"))},
        LONGER: {"kind": "tune", "prompt.file": str(source.prompt_file("control"))},
        WHOLE: {"prompt.file": str(filled)},
        ZEROED: {"kind": "tune", "prompt.file": str(zeroed)},
        KEPT: {"kind": "tune", "prompt.file": str(zeroed), "prompt.mask": str(source.mask_file)},
    }
    return {way: study.spec(target.task, target.seed, {"prompt.init": "file", **each}) for way, each in keys.items()}


def _sentences(differences: Table, here: bool) -> list[str]:
    """Each comparison with its result; `here` as of `entry_verdict`."""
    sentences = []
    for (ours, theirs), row in zip(CLAIMS, differences.rows, strict=True):
        cells, each = only_cells(row), []
        for head, cell in zip(differences.columns[1:], cells, strict=True):
            each.append(f"{head}: {format_entry(cell)} points" if here else describe_difference(head, cell))
        values = [cell.value for cell in cells if cell.value is not None]
        mean = f"{100 * fmean(values):+.1f}" if values else "not measured"
        sentences.append(
            f"{CLAIMS[ours, theirs]}: {ours} less {theirs} is {mean} points in the mean over pairs "
            f"({CHOSEN_HERE if here else tally(cells)}). {'; '.join(each)}."
        )
    return sentences
