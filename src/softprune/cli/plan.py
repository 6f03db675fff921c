"""`plan`: what a run would take, before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import typer

from softprune.cli.options import JsonOption, OverridesArgument, read_overrides, with_flags
from softprune.cli.output import duration, print_rich, say
from softprune.cli.recipes import read_recipe
from softprune.config import Recipe
from softprune.printable import printable_json

_HELP = (
    "Say what a run would take, before it starts: steps, candidates, memory and time. One step is measured; "
    "nothing is written."
)
_Recipe = Annotated[
    str | None,
    typer.Argument(metavar="[RECIPE]", help="A shipped recipe's name, or a YAML file; else all defaults."),
]


def command() -> Callable[..., None]:
    """The command, with the flags of `xprompt`."""

    def plan(**given: Any) -> None:
        name, overrides = given["recipe"], read_overrides(given, "xprompt")
        if name is not None and "=" in name:  # no recipe was named
            name, overrides = None, [*overrides, str(name)]
        _show_plan(read_recipe(Recipe, name, overrides)[0], as_json=bool(given["json"]))

    return with_flags(plan, "xprompt", {"recipe": _Recipe, "overrides": OverridesArgument, "json": JsonOption}, _HELP)


def _show_plan(recipe: Recipe, *, as_json: bool) -> None:
    from softprune.pipelines.plan import plan
    from softprune.terminal import Table

    found = plan(recipe).document()
    if as_json:
        say(printable_json(found, indent=2))
        return
    summary = Table(show_header=False, box=None)
    for name, text in _summarize(found).items():
        summary.add_row(name, text)
    trainings = Table("training", "prompts", "groups of", "steps each", "steps in all", "evaluations")
    for stage in found["stages"]:
        groups = ", ".join(f"{n} x {size}" if n > 1 else str(size) for size, n in Counter(stage["groups"]).items())
        numbers = (stage["trainings"], groups, stage["steps"], stage["steps_in_all"], stage["evaluations"])
        trainings.add_row(stage["name"], *(f"{n:,}" if isinstance(n, int) else n for n in numbers))
    print_rich(summary, trainings)
    say("Time is what a step and a scoring call took here, times their number.")
    if found["early_stopping"]:
        say("Candidates that stop improving stop early (tuning.patience), so it may well be less.")
    if not found["exact"]:
        say("How the candidates are grouped depends on which of them stay: steps may be a few more or fewer.")
    if comparison := found["comparison"]:
        say(
            f"Detectable differences assume a standard deviation of {100 * comparison['seed_sd']:g} points between "
            f"seeds, and {comparison['discordance']:.0%} of the examples answered rightly by one side alone."
        )
    if found["memory"]["peak"] is None and found["candidates"]:
        say("Two candidates side by side don't fit into memory.")


def _summarize(found: dict[str, Any]) -> dict[str, str]:
    """A plan in a few lines, by what each is about."""
    backbone, memory, comparison = found["backbone"], found["memory"], found["comparison"]
    parameters, trained = backbone["parameters"], found["trainable_parameters"]
    examples = ", ".join(f"{number:,} {name}" for name, number in found["examples"].items())
    read_as = f"{backbone['family']}, {parameters:,} parameters, {backbone['dtype']} on {backbone['device']}"
    lines = {
        "backbone": f"{backbone['name']} ({read_as})",
        "trained": f"{trained:,} parameters, {100 * trained / parameters:.2g}% of the backbone's",
        "task": f"{found['task']}: {examples} examples",
    }
    if found["candidates"]:
        lines["search"] = f"{found['strategy']}, {found['candidates']} candidates, K = {found['K']} side by side"
    about = "" if found["exact"] else "about "
    lines["steps"] = f"{about}{found['steps']:,}; {found['candidate_steps']:,} counted for each candidate alone"
    phases = ", ".join(f"{name} {duration(seconds)}" for name, seconds in found["seconds_by_phase"].items())
    lines["time"] = f"{duration(found['seconds'])} ({phases})"
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
