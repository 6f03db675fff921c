"""Run a recipe of learned token pruning from beginning to end, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from softprune.config import TokensRecipe, load_config
from softprune.runs.job import Finish, run_clock, run_job
from softprune.runs.processes import hold_alone
from softprune.runs.run_folder import TRACKERS, RunFolder
from softprune.token_pruning.experiment import BASELINE, experiment
from softprune.token_pruning.model import MODELS, TokenModel
from softprune.token_pruning.session import prepare
from softprune.training.cost import record_time
from softprune.training.progress import watching

AnyRecipe: TypeAlias = TokensRecipe | Mapping[str, Any] | str | Path
# A run may go on with other values of these: only memory and time depend on them, up to rounding.
MAY_CHANGE = ("tuning.eval_rows", "tuning.accumulate")


def prune_tokens(recipe: AnyRecipe, out: str | Path, *, console: Console | None = None) -> Path:
    """Learned token pruning from Python.

    Args:
        recipe: a `TokensRecipe`, the name or file of one, or its keys as a nested mapping.
        out: the run folder; a run that was cut off there is continued.
        console: where progress is shown; None for silence.

    Returns:
        The run folder.
    """
    settings = recipe if isinstance(recipe, TokensRecipe) else load_config(TokensRecipe, recipe)
    execute(settings, Path(out), "python", settings.dump(), console=console)
    return Path(out)


def execute(
    recipe: TokensRecipe,
    out: Path,
    command: str,
    recipe_text: str,
    *,
    finish: Finish | None = None,
    console: Console | None = None,
) -> bool:
    """Run a recipe of token pruning into a folder; arguments, result and errors as of `pipelines.xprompt.execute`."""
    hold_alone("to prune input tokens")
    work = partial(_run, recipe, console)
    return run_job(recipe, out, command, recipe_text, work, may_change=MAY_CHANGE, finish=finish)


def _run(recipe: TokensRecipe, console: Console | None, run: RunFolder) -> None:
    seconds = run_clock(run)
    with watching(console, recipe.tuning.trackers, run.path / TRACKERS, recipe.resolved()) as watch:
        workspace = prepare(recipe, run, watch)
        models, chosen = experiment(workspace)
        with run.phase("models"):
            encoder = workspace.encoder()
            for name, model in models.items():
                if name != BASELINE and not name.startswith("lambda-"):  # the others leave their results only
                    continue
                encoder.load_weights(model.weights)
                TokenModel(
                    name=name,
                    encoder=encoder,
                    tokenizer=workspace.tokenizer,
                    rule=model.rule,
                    convention=workspace.convention,
                    max_length=recipe.task.max_length,
                    base=recipe.backbone.name,
                ).save(run.path / MODELS / name)
            with run.editing() as record:
                record.model = f"{MODELS}/{chosen}"
    record_time(run, seconds())
