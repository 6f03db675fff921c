"""Every flag that more than one command takes, declared once: its name, its recipe key and its help text.

The commands that run a recipe (`xprompt`, `tune`, `adapt`, `compare`, `tokens train`, `study run`) build their flags
from `RECIPE_FLAGS`; the others take single options from here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, cast, get_args

import typer
from pydantic import BaseModel
from typer.core import TyperCommand

from softprune.cli.output import say
from softprune.config import CompareRecipe, Recipe, RecipeField, Study, TokensRecipe, flat_fields
from softprune.errors import SoftpruneError

# By kind of run, the recipe that its flags are keys of.
SCHEMAS: Final[dict[str, type[BaseModel]]] = {
    "xprompt": Recipe,
    "tune": Recipe,
    "adapt": Recipe,
    "compare": CompareRecipe,
    "tokens": TokensRecipe,
    "study": Study,
}

_RECIPES: Final = ("xprompt", "tune", "adapt", "compare", "tokens")
_PROMPTS_AND_ADAPTERS: Final = ("xprompt", "tune", "adapt", "compare")
_SINGLE_RUNS: Final = ("xprompt", "tune", "adapt")
_PROMPTS: Final = ("xprompt", "tune")

RECIPE_FLAGS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("--backbone", "backbone.name", _RECIPES),
    ("--backbone", "backbone", ("study",)),
    ("--scale", "scale", ("study",)),
    ("--family", "backbone.family", _PROMPTS_AND_ADAPTERS),
    ("--dtype", "backbone.dtype", _RECIPES),
    ("--device", "backbone.device", _RECIPES),
    ("--threads", "backbone.threads", _RECIPES),
    ("--task", "task.id", _RECIPES),
    ("--tasks", "tasks", ("study",)),
    ("--data", "task.data", _RECIPES),
    ("--data", "data", ("study",)),
    ("--shots", "task.shots", _RECIPES),
    ("--limit-report", "task.limit_report", _RECIPES),
    ("--max-length", "task.max_length", ("tokens",)),
    ("--method", "adapter.method", ("adapt",)),
    ("--methods", "methods", ("compare",)),
    ("--rank", "adapter.rank", ("adapt",)),
    ("--alpha", "adapter.alpha", ("adapt",)),
    ("--dropout", "adapter.dropout", ("adapt",)),
    ("--start", "adapter.start", ("adapt",)),
    ("--document", "adapter.document", ("adapt",)),
    ("--tokens", "prompt.tokens", _PROMPTS_AND_ADAPTERS),
    ("--pieces", "prompt.pieces", ("xprompt",)),
    ("--form", "prompt.form", _PROMPTS),
    ("--init", "prompt.init", _SINGLE_RUNS),
    ("--init-text", "prompt.text", _SINGLE_RUNS),
    ("--prompt-file", "prompt.file", _SINGLE_RUNS),
    ("--epochs", "tuning.epochs", _RECIPES),
    ("--batch-size", "tuning.batch_size", _RECIPES),
    ("--optimiser", "tuning.optimiser", _PROMPTS),
    ("--lr", "tuning.lr", (*_SINGLE_RUNS, "tokens")),
    ("--sweep", "tuning.sweep", ("compare",)),
    ("--loss", "tuning.loss", _SINGLE_RUNS),
    ("--patience", "tuning.patience", _PROMPTS_AND_ADAPTERS),
    ("--removal", "pruning.removal", ("xprompt",)),
    ("--levels", "pruning.levels", ("xprompt",)),
    ("--scope", "pruning.scope", ("xprompt",)),
    ("--importance", "pruning.importance", ("xprompt",)),
    ("--lambdas", "pruning.lambdas", ("tokens",)),
    ("--soft-epochs", "pruning.soft_epochs", ("tokens",)),
    ("--hard-epochs", "pruning.hard_epochs", ("tokens",)),
    ("--baselines", "pruning.baselines", ("tokens",)),
    ("--teacher", "pruning.teacher", ("xprompt",)),
    ("--unlabelled", "task.unlabelled", ("xprompt", "adapt")),
    ("--strategy", "search.strategy", ("xprompt",)),
    ("--token-ratios", "search.token_ratios", ("xprompt",)),
    ("--piece-ratios", "search.piece_ratios", ("xprompt",)),
    ("--group", "search.group", ("xprompt",)),
    ("--protocol", "selection.protocol", _PROMPTS_AND_ADAPTERS),
    ("--objective", "selection.objective", ("xprompt",)),
    ("--fresh-seeds", "selection.seeds", ("xprompt",)),
    ("--seeds", "seeds", ("compare", "study")),
    ("--seed", "seed", _RECIPES),
    ("--executor", "executor", ("xprompt", "study")),
)
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

# What the help calls a flag's value, where its type alone would say too little.
_METAVARS: Final = {
    "--backbone": "NAME",
    "--task": "TASK",
    "--data": "FOLDER",
    "--device": "DEVICE",
    "--prompt-file": "FILE",
    "--document": "FILE",
}

# flat_fields walks a whole schema, and each flag asks for one of its keys.
_FIELDS: Final = {kind: {field.key: field for field in flat_fields(SCHEMAS[kind])} for kind in SCHEMAS}


def recipe_flags(kind: str) -> dict[str, str]:
    """The flags of a kind of run, with their recipe keys."""
    return {flag: key for flag, key, kinds in RECIPE_FLAGS if kind in kinds}


def with_flags(kind: str, others: dict[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the flags of a kind of run, and other parameters by name and annotation.

    Flags take text, since the recipe checks all values together.
    """
    annotations = {}
    for flag, key in recipe_flags(kind).items():
        field = _FIELDS[kind][key]
        help_text = f"{field.description} ({key})"
        flag_option = typer.Option(flag, metavar=_metavar(flag, field), help=help_text, show_default=False)
        annotations[_parameter_name(flag)] = Annotated[str | None, flag_option]
    parameters = []
    for name, annotation in (annotations | others).items():
        parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
        if get_args(annotation)[0] is not str:  # plain text is required
            parameter = parameter.replace(default=None)
        parameters.append(parameter)

    def add_signature(command: Callable[..., None]) -> Callable[..., None]:
        cast(Any, command).__signature__ = inspect.Signature(parameters)  # which Typer reads
        return command

    return add_signature


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
    if flag in _METAVARS:
        return _METAVARS[flag]
    values = field.type.removesuffix(" or none")
    return f"[{values.replace(' ', '')}]" if "|" in values else values.upper()


def option_like(flag: str, default: str | None = None, *, kind: str = "xprompt", minimum: int | None = None) -> Any:
    """A flag that means what the recipe key of the same name means, for a command without a recipe.

    `default` is as the help words it, None for the parameter's own; `kind` is of the recipe whose key it is.
    """
    field = _FIELDS[kind][next(key for name, key, _ in RECIPE_FLAGS if name == flag)]
    text = re.sub(r" \[default: .*\]$", "", field.description)
    text = text[0].upper() + text[1:]
    if not text.endswith("..."):
        text += "."
    if default is not None:
        text += f" [default: {default}]"
    return typer.Option(flag, min=minimum, metavar=_metavar(flag, field), help=text, show_default=default is None)


def option(flag: str, metavar: str, text: str, *, minimum: int | None = None) -> Any:
    """A flag of one command; a default that isn't the parameter's own is worded in its text."""
    return typer.Option(flag, metavar=metavar, min=minimum, help=text, show_default="[default" not in text)


def out_option(what: str, metavar: str = "FOLDER", default: str | None = None) -> Any:
    """`--out`: where a command writes."""
    text = what if default is None else f"{what} [default: {default}]"
    return typer.Option("--out", metavar=metavar, help=text, show_default=False)


DeviceOption = Annotated[str, option_like("--device")]
DtypeOption = Annotated[str, option_like("--dtype")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="N", help="CPU threads. [default: torch's choice]", show_default=False),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an output file that exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
BatchRowsOption = Annotated[int, option("--batch-rows", "N", "Rows that the model reads in one call.", minimum=1)]
SeedOption = Annotated[int, option("--seed", "N", "Seed of everything that is drawn.", minimum=0)]
RecipeOption = Annotated[
    str | None, option("--recipe", "RECIPE", "A recipe's name or file to begin with. [default: all defaults]")
]
INPUT_OPTION = option("--input", "FILE", "Rows: .jsonl, .csv (both also .gz, .xz) or .parquet.")
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Any recipe key, such as tuning.accumulate=2.", show_default=False),
]
RunOutOption = Annotated[Path | None, out_option("The run folder.", default="runs/TASK-BACKBONE-KIND")]


class Command(TyperCommand):
    """A command that also takes the old names of its flags, and says on stderr what they are called now."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        _, _, name = ctx.command_path.partition(" ")  # behind `softprune`
        new_names = OLD_FLAGS.get(name, {})
        words = []
        for word in args:
            flag, equals, value = word.partition("=")
            if flag in new_names:
                note_old_form(flag, new_names[flag])
                word = f"{new_names[flag]}{equals}{value}"
            words.append(word)
        return super().parse_args(ctx, words)


def note_old_form(old: str, new: str) -> None:
    """Say how a flag is called or given since version 0.2."""
    say(f"note: {old} is called {new} now; the old name stops working in version 0.3", err=True)


def check_new_file(out: Path, *, force: bool) -> None:
    """Refuse to replace a file without `force`."""
    if out.exists() and not force:
        raise SoftpruneError("a new output file", f"{out} exists already", "choose another --out, or add --force")
