"""What ended a run, in a user's words."""

from __future__ import annotations

from softprune.config import Recipe
from softprune.errors import SoftpruneError, explain_system_error, out_of_memory
from softprune.runs.run_folder import RunFolder


def explain(error: Exception, recipe: Recipe, run: RunFolder) -> Exception:
    """The error in a user's words where it has any: memory and disk are a user's business, bugs are ours."""
    if isinstance(error, SoftpruneError):
        return error
    if not out_of_memory(error):
        return explain_system_error(error) or error
    advice = _smaller_settings(recipe, run.record.K or 1)
    do = f"give the same command with {advice} behind it: the run goes on, results stay the same up to rounding"
    lines = str(error).strip().splitlines() or ["no more is known"]
    return SoftpruneError(
        "room in memory for the model and a batch",
        f"out of memory ({lines[0][:160]})",
        do if advice else "choose a smaller model or batch, or --dtype bfloat16, with another --out",
    )


def _smaller_settings(recipe: Recipe, group: int) -> str:
    """Smaller values of the keys on which only memory and time depend, as a command line has them."""
    tuning = recipe.tuning
    smaller = {
        "tuning.eval_rows": (tuning.eval_rows, max(1, tuning.eval_rows // 2)),
        "tuning.accumulate": (tuning.accumulate, min(2 * tuning.accumulate, max(tuning.batch_size, tuning.accumulate))),
    }
    if recipe.kind == "xprompt":
        smaller = {"search.group": (group, max(1, group // 2)), **smaller}
    return " ".join(f"{key}={value}" for key, (now, value) in smaller.items() if value != now)
