"""The neighbours of a run's prompts, from its folder: as the run wrote them, or found now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from softprune.config import load_recipe
from softprune.errors import SoftpruneError
from softprune.interpret.run_neighbours import INITIAL, K, Surroundings, read_neighbours, run_document
from softprune.models import load_backbone
from softprune.prompts.prompt_io import load_vectors
from softprune.prompts.ticket import Ticket
from softprune.runs.record import RunRecord, read_record


def neighbours_of(run: Path, k: int = K) -> dict[str, Any]:
    """What `neighbours.json` holds of a run; found with its backbone where there is none, or fewer neighbours.

    Code that comes with a model is not run for that.

    Args:
        run: a folder that `tune` or `xprompt` made.
        k: neighbours of each token at least.

    Raises:
        SoftpruneError: for a folder without a finished prompt, or a backbone that isn't there or is another one now.
    """
    record = read_record(run, RunRecord)
    if record.kind not in ("tune", "xprompt"):
        raise SoftpruneError("a run that tuned a prompt", f"one of kind {record.kind} in {run}", "choose another")
    found = read_neighbours(run)
    if found is not None and found["k"] >= k:
        return found
    ticket = Ticket.load(run)
    start_PH, tuned_PH = load_vectors(run / INITIAL), load_vectors(run / "prompts/tuned.safetensors")
    settings = load_recipe(run / "resolved.yaml").backbone
    backbone = load_backbone(settings.name, family=settings.family, dtype=settings.dtype, revision=settings.revision)
    ticket.check(backbone)
    winner = ticket.state if record.kind == "xprompt" else None
    return run_document(Surroundings(backbone), record.initial_words, start_PH, tuned_PH, winner, max(k, K))
