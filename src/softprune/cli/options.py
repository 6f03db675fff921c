"""Every flag that more than one command takes, declared once: its name, its recipe key and its help text.

The commands that run a recipe (`xprompt`, `tune`, `adapt`, `compare`, `tokens train`) build their flags from
`RECIPE_FLAGS`; the others take single options from here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer
from pydantic import BaseModel
from typer.core import TyperCommand

from softprune.cli.output import say
from softprune.config import CompareRecipe, Recipe, RecipeField, TokensRecipe, flat_fields

SCHEMAS: Final[dict[str, type[BaseModel]]] = {
    "xprompt": Recipe,
    "tune": Recipe,
    "adapt": Recipe,
    "compare": CompareRecipe,
    "tokens": TokensRecipe,
}
"""By kind of run, the recipe that its flags are keys of."""

_EVERY: Final = ("xprompt", "tune", "adapt", "compare", "tokens")
_PROMPTS_AND_ADAPTERS: Final = ("xprompt", "tune", "adapt", "compare")
_SINGLE_RUNS: Final = ("xprompt", "tune", "adapt")
_PROMPTS: Final = ("xprompt", "tune")
_PRUNING: Final = ("xprompt",)
_ADAPTERS: Final = ("adapt",)
_COMPARISONS: Final = ("compare",)
_TOKENS: Final = ("tokens",)

RECIPE_FLAGS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "--backbone": ("backbone.name", _EVERY),
    "--family": ("backbone.family", _PROMPTS_AND_ADAPTERS),
    "--dtype": ("backbone.dtype", _EVERY),
    "--device": ("backbone.device", _EVERY),
    "--threads": ("backbone.threads", _EVERY),
    "--task": ("task.id", _EVERY),
    "--data": ("task.data", _EVERY),
    "--shots": ("task.shots", _EVERY),
    "--limit-report": ("task.limit_report", _EVERY),
    "--max-length": ("task.max_length", _TOKENS),
    "--method": ("adapter.method", _ADAPTERS),
    "--methods": ("methods", _COMPARISONS),
    "--rank": ("adapter.rank", _ADAPTERS),
    "--alpha": ("adapter.alpha", _ADAPTERS),
    "--dropout": ("adapter.dropout", _ADAPTERS),
    "--tokens": ("prompt.tokens", _PROMPTS_AND_ADAPTERS),
    "--pieces": ("prompt.pieces", _PRUNING),
    "--init": ("prompt.init", _PROMPTS),
    "--init-text": ("prompt.text", _PROMPTS),
    "--prompt-file": ("prompt.file", _PROMPTS),
    "--epochs": ("tuning.epochs", _EVERY),
    "--batch-size": ("tuning.batch_size", _EVERY),
    "--optimiser": ("tuning.optimiser", _PROMPTS),
    "--lr": ("tuning.lr", (*_SINGLE_RUNS, *_TOKENS)),
    "--sweep": ("tuning.sweep", _COMPARISONS),
    "--loss": ("tuning.loss", _SINGLE_RUNS),
    "--patience": ("tuning.patience", _PROMPTS_AND_ADAPTERS),
    "--removal": ("pruning.removal", _PRUNING),
    "--levels": ("pruning.levels", _PRUNING),
    "--scope": ("pruning.scope", _PRUNING),
    "--importance": ("pruning.importance", _PRUNING),
    "--lambdas": ("pruning.lambdas", _TOKENS),
    "--soft-epochs": ("pruning.soft_epochs", _TOKENS),
    "--hard-epochs": ("pruning.hard_epochs", _TOKENS),
    "--baselines": ("pruning.baselines", _TOKENS),
    "--strategy": ("search.strategy", _PRUNING),
    "--token-ratios": ("search.token_ratios", _PRUNING),
    "--piece-ratios": ("search.piece_ratios", _PRUNING),
    "--group": ("search.group", _PRUNING),
    "--protocol": ("selection.protocol", _PROMPTS_AND_ADAPTERS),
    "--objective": ("selection.objective", _PRUNING),
    "--fresh-seeds": ("selection.seeds", _PRUNING),
    "--seeds": ("seeds", _COMPARISONS),
    "--seed": ("seed", _EVERY),
    "--executor": ("executor", _PRUNING),
}
"""Each flag with its recipe key and the kinds of run that take it. Any other key is given as `key=value`."""

OLD_FLAGS: Final[dict[str, dict[str, str]]] = {
    "xprompt": {"--seeds": "--fresh-seeds"},
    "plan": {"--seeds": "--fresh-seeds"},
    "predict": {"--output": "--out", "--column": "--prompt-column"},
    "export": {"--output": "--out"},
    "import": {"--output": "--out"},
    "tokens train": {"--model": "--backbone"},
    "tokens bench": {"--limit": "--limit-report", "--rows": "--batch-rows"},
    "tokens analyse": {"--limit": "--limit-report"},
    "tokens predict": {"--column": "--text"},
}
"""By command, the names that flags had in version 0.1, which still work in 0.2, with a notice."""

_METAVARS: Final = {
    "--backbone": "NAME",
    "--task": "TASK",
    "--data": "FOLDER",
    "--device": "DEVICE",
    "--prompt-file": "FILE",
}
"""What the help calls a flag's value, where its type alone would say too little."""

_FIELDS: Final = {kind: {field.key: field for field in flat_fields(SCHEMAS[kind])} for kind in SCHEMAS}


def recipe_flags(kind: str) -> dict[str, str]:
    """The flags of a kind of run, with their recipe keys."""
    return {flag: key for flag, (key, kinds) in RECIPE_FLAGS.items() if kind in kinds}


def recipe_option(flag: str, kind: str) -> Any:
    """The annotation of a recipe's flag. It takes text, since the recipe checks all values together."""
    field = _FIELDS[kind][RECIPE_FLAGS[flag][0]]
    help_text = f"{field.description} ({field.key})"
    return Annotated[str | None, typer.Option(flag, metavar=_metavar(flag, field), help=help_text, show_default=False)]


def with_flags(command: Callable[..., None], kind: str, others: dict[str, Any]) -> Callable[..., None]:
    """A command that takes the flags of a kind of run, and others by name and annotation."""
    annotations = {_parameter_name(flag): recipe_option(flag, kind) for flag in recipe_flags(kind)}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in (annotations | others).items()
    ]
    cast(Any, command).__signature__ = inspect.Signature(parameters)
    return command


def read_overrides(given: dict[str, Any], kind: str) -> list[str]:
    """What was given to a command with flags, as overrides: first the flags, then `key=value` after them."""
    overrides = []
    for flag, key in recipe_flags(kind).items():
        if (value := given.get(_parameter_name(flag))) is not None:
            overrides.append(f"{key}={value}")
    return overrides + (given["overrides"] or [])


def _parameter_name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _metavar(flag: str, field: RecipeField) -> str:
    kind = field.type.removesuffix(" or none")
    return _METAVARS.get(flag) or (f"[{kind.replace(' ', '')}]" if "|" in kind else kind.upper())


def option_like(flag: str, default: str | None = None, *, kind: str = "xprompt", minimum: int | None = None) -> Any:
    """A flag that means what the recipe key of the same name means, for a command without a recipe.

    Args:
        flag: its name in `RECIPE_FLAGS`.
        default: what the help says stands where it isn't given; None shows the parameter's own default.
        kind: the recipe whose key it is.
        minimum: of a number.
    """
    field = _FIELDS[kind][RECIPE_FLAGS[flag][0]]
    text = re.sub(r" \[default: .*\]$", "", field.description)
    end = "" if text.endswith("...") else "."
    text = f"{text[0].upper()}{text[1:]}{end}" + ("" if default is None else f" [default: {default}]")
    return typer.Option(flag, min=minimum, metavar=_metavar(flag, field), help=text, show_default=default is None)


def out_option(what: str, metavar: str = "FOLDER", default: str | None = None) -> Any:
    """`--out`: where a command writes."""
    text = what if default is None else f"{what} [default: {default}]"
    return typer.Option("--out", metavar=metavar, help=text, show_default=False)


def input_option() -> Any:
    """`--input`: the file of rows that a command answers."""
    return typer.Option("--input", metavar="FILE", help="Rows: .jsonl, .csv (both also .gz, .xz) or .parquet.")


DeviceOption = Annotated[str, option_like("--device")]
DtypeOption = Annotated[str, option_like("--dtype")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="N", help="CPU threads. [default: torch's choice]", show_default=False),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an output file that exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
BatchRowsOption = Annotated[
    int, typer.Option("--batch-rows", min=1, metavar="N", help="Rows that the model reads in one call.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of everything that is drawn.")]
RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", metavar="RECIPE", help="A recipe's name or file to begin with. [default: all defaults]"),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Any recipe key, such as tuning.accumulate=2.", show_default=False),
]
RunOutOption = Annotated[Path | None, out_option("The run folder.", default="runs/TASK-BACKBONE-KIND")]


class Command(TyperCommand):
    """A command that also takes the old names of its flags, and says on stderr what they are called now."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        names: list[str] = []
        context = ctx
        while context.parent is not None:
            names.insert(0, context.info_name)
            context = context.parent
        return super().parse_args(ctx, _rename_old_flags(" ".join(names), args))


def _rename_old_flags(command: str, args: Sequence[str]) -> list[str]:
    renamed = []
    for word in args:
        flag, equals, value = word.partition("=")
        new = OLD_FLAGS.get(command, {}).get(flag)
        if new is not None:
            say(f"note: {flag} is called {new} now; the old name stops working in version 0.3", err=True)
        renamed.append(word if new is None else f"{new}{equals}{value}")
    return renamed
