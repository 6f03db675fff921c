"""`plan`: what a run would take, before anything starts."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from softprune.cli.options import JsonOption, OverridesArgument, read_overrides, with_flags
from softprune.cli.output import duration, print_rich, say
from softprune.cli.train import read_recipe
from softprune.config import Recipe
from softprune.printable import printable_json

_Recipe = Annotated[
    str | None,
    typer.Argument(metavar="[RECIPE]", help="A shipped recipe's name, or a YAML file; else all defaults."),
]


@with_flags("xprompt", {"recipe": _Recipe, "overrides": OverridesArgument, "json": JsonOption})
def plan(**given: Any) -> None:
    """Say what a run would take, before it starts: steps, candidates, memory and time.

    One step is measured; nothing is written.
    """
    from softprune.pipelines.plan import plan as plan_run
    from softprune.terminal import Table

    name, overrides = given["recipe"], read_overrides(given, "xprompt")
    if name is not None and "=" in name:  # no recipe was named, and this is the first override
        name, overrides = None, [*overrides, str(name)]
    planned = plan_run(read_recipe(Recipe, name, overrides)[0]).document()
    if given["json"]:
        say(printable_json(planned, indent=2))
        return
    summary = Table(show_header=False, box=None)
    for name, text in _summarize(planned).items():
        summary.add_row(name, text)
    trainings = Table("training", "prompts", "groups of", "steps each", "steps in all", "evaluations")
    for stage in planned["stages"]:
        groups = ", ".join(f"{n} x {size}" if n > 1 else str(size) for size, n in Counter(stage["groups"]).items())
        numbers = (stage["trainings"], groups, stage["steps"], stage["steps_in_all"], stage["evaluations"])
        trainings.add_row(stage["name"], *(f"{n:,}" if isinstance(n, int) else n for n in numbers))
    print_rich(summary, trainings)
    say("Time is what a step and a scoring call took here, times their number.")
    if planned["early_stopping"]:
        say("Candidates that stop improving stop early (tuning.patience), so it may well be less.")
    if not planned["exact"]:
        say("How the candidates are grouped depends on which of them stay: steps may be a few more or fewer.")
    if comparison := planned["comparison"]:
        say(
            f"Detectable differences assume a standard deviation of {100 * comparison['seed_sd']:g} points between "
            f"seeds, and {comparison['discordance']:.0%} of the examples answered rightly by one side alone."
        )
    if planned["memory"]["peak"] is None and planned["candidates"]:
        say("Two candidates side by side don't fit into memory.")


def _summarize(planned: dict[str, Any]) -> dict[str, str]:
    """A plan in a few lines, by what each is about."""
    backbone, memory, comparison = planned["backbone"], planned["memory"], planned["comparison"]
    parameters, trained = backbone["parameters"], planned["trainable_parameters"]
    examples = ", ".join(f"{number:,} {name}" for name, number in planned["examples"].items())
    read_as = f"{backbone['family']}, {parameters:,} parameters, {backbone['dtype']} on {backbone['device']}"
    lines = {
        "backbone": f"{backbone['name']} ({read_as})",
        "trained": f"{trained:,} parameters, {100 * trained / parameters:.2g}% of the backbone's",
        "task": f"{planned['task']}: {examples} examples",
    }
    if planned["candidates"]:
        lines["search"] = f"{planned['strategy']}, {planned['candidates']} candidates, K = {planned['K']} side by side"
    about = "" if planned["exact"] else "about "
    lines["steps"] = f"{about}{planned['steps']:,}; {planned['candidate_steps']:,} counted for each candidate alone"
    phases = ", ".join(f"{name} {duration(seconds)}" for name, seconds in planned["seconds_by_phase"].items())
    lines["time"] = f"{duration(planned['seconds'])} ({phases})"
    lines["memory"] = f"{_bytes(memory['peak'])} of this process at most; {_bytes(memory['free'])} are free"
    if comparison:
        differences = []
        for seeds, difference in comparison["detectable"].items():
            differences.append(f"{100 * difference:.1f} points with {seeds} fresh seeds")
        units = "groups of examples that share text" if comparison["grouped"] else "examples"
        needed = comparison["seeds_for_margin"]
        takes = "can't be detected on so few" if needed is None else f"would take {needed} seeds"
        lines["detects"] = (
            f"{' or '.join(differences)} on {comparison['units']:,} {units}, at 80% power; "
            f"{100 * comparison['margin']:g} points {takes}"
        )
    return lines


def _bytes(number: int | None) -> str:
    if number is None:
        return "an unknown amount"
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
