"""`plan`: what a run would take, before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprune.cli.options import JsonOption, OverridesArgument, read_overrides, with_flags
from softprune.cli.output import duration, print_rich, say
from softprune.cli.recipes import read_recipe
from softprune.config import Recipe
from softprune.printable import printable_json

if TYPE_CHECKING:
    from softprune.terminal import Table

HELP = (
    "Say what a run would take, before it starts: steps, candidates, memory and time. One step is measured; "
    "nothing is written."
)
_Recipe = Annotated[
    str | None,
    typer.Argument(
        metavar="[RECIPE]", help="A shipped recipe's name, or a YAML file; else all defaults.", show_default=False
    ),
]


def command() -> Callable[..., None]:
    """The command, with the flags of `xprompt`."""

    def plan(**given: Any) -> None:
        name, overrides = given["recipe"], read_overrides(given, "xprompt")
        if name is not None and "=" in name:  # no recipe was named
            name, overrides = None, [*overrides, str(name)]
        show(read_recipe(Recipe, name, overrides)[0], as_json=bool(given["json"]))

    return with_flags(plan, "xprompt", {"recipe": _Recipe, "overrides": OverridesArgument, "json": JsonOption})


def show(recipe: Any, *, as_json: bool) -> None:
    """Plans a recipe and prints the plan."""
    from softprune.pipelines.plan import plan

    found = plan(recipe).document()
    if as_json:
        say(printable_json(found, indent=2))
        return
    print_rich(_facts(found), _trainings(found))
    for line in _remarks(found):
        say(line)


def _facts(found: dict[str, Any]) -> Table:
    from softprune.terminal import Table

    backbone, sizes, memory = found["backbone"], found["examples"], found["memory"]
    parameters, trained = backbone["parameters"], found["trainable_parameters"]
    rows = {
        "backbone": f"{backbone['name']} ({backbone['family']}, {parameters:,} parameters, {backbone['dtype']} on "
        f"{backbone['device']})",
        "trained": f"{trained:,} parameters, {100 * trained / parameters:.2g}% of the backbone's",
        "task": f"{found['task']}: " + ", ".join(f"{number:,} {name}" for name, number in sizes.items()) + " examples",
    }
    if found["candidates"]:
        rows["search"] = f"{found['strategy']}, {found['candidates']} candidates, K = {found['K']} side by side"
    about = "" if found["exact"] else "about "
    rows["steps"] = f"{about}{found['steps']:,}; {found['candidate_steps']:,} counted for each candidate alone"
    rows["time"] = f"{duration(found['seconds'])} ({_phases(found)})"
    rows["memory"] = f"{_bytes(memory['peak'])} of this process at most; {_bytes(memory['free'])} are free"
    if found["comparison"]:
        rows["detects"] = _detects(found["comparison"])
    table = Table(show_header=False, box=None)
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def _detects(comparison: dict[str, Any]) -> str:
    """The difference that the run's comparison of winner and control could show."""
    found = " or ".join(
        f"{100 * difference:.1f} points with {seeds} fresh seeds"
        for seeds, difference in comparison["detectable"].items()
    )
    units = "groups of examples that share text" if comparison["grouped"] else "examples"
    needed, margin = comparison["seeds_for_margin"], 100 * comparison["margin"]
    takes = "can't be detected on so few" if needed is None else f"would take {needed} seeds"
    return f"{found} on {comparison['units']:,} {units}, at 80% power; {margin:g} points {takes}"


def _trainings(found: dict[str, Any]) -> Table:
    from softprune.terminal import Table

    table = Table("training", "prompts", "groups of", "steps each", "steps in all", "evaluations")
    for stage in found["stages"]:
        groups = ", ".join(f"{n} x {size}" if n > 1 else str(size) for size, n in Counter(stage["groups"]).items())
        numbers = (stage["trainings"], groups, stage["steps"], stage["steps_in_all"], stage["evaluations"])
        table.add_row(stage["name"], *(f"{n:,}" if isinstance(n, int) else n for n in numbers))
    return table


def _remarks(found: dict[str, Any]) -> list[str]:
    remarks = ["Time is what a step and a scoring call took here, times their number."]
    if found["early_stopping"]:
        remarks.append("Candidates that stop improving stop early (tuning.patience), so it may well be less.")
    if not found["exact"]:
        remarks.append(
            "How the candidates are grouped depends on which of them stay: steps may be a few more or fewer."
        )
    if comparison := found["comparison"]:
        remarks.append(
            f"Detectable differences assume a standard deviation of {100 * comparison['seed_sd']:g} points between "
            f"seeds, and {comparison['discordance']:.0%} of the examples answered rightly by one side alone."
        )
    if found["memory"]["peak"] is None and found["candidates"]:
        remarks.append("Two candidates side by side don't fit into memory.")
    return remarks


def _phases(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {duration(seconds)}" for name, seconds in found["seconds_by_phase"].items())


def _bytes(number: int | None) -> str:
    if number is None:
        return "an unknown amount"
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
