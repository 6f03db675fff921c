"""What recipe keys are made of: sections, fields whose description names their default, and lenient value types."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Final, Literal, LiteralString, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from softprune.config.yaml_io import yaml_text

DEFAULT_RELATIVE_LR: Final = 0.3  # learning rate, in units of the RMS of the backbone's input embeddings


def key(default: Any, description: str, **limits: Any) -> Any:
    """A recipe key, whose description gets the default appended."""
    shown = str(default)
    if isinstance(default, LearningRate):
        shown = f"{{relative: {default.relative}}}"
    elif default is None or isinstance(default, bool):
        shown = shown.lower()
    elif isinstance(default, tuple):
        shown = ", ".join(map(str, default)) or "empty"
    text = f"{description} [default: {shown}]"
    return Field(default, description=text, validate_default=True, **limits)


class Section(BaseModel):
    """A group of keys: frozen, and nothing unknown in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RecipeBase(Section):
    """All keys of a recipe, whatever its kind."""

    schema_: Literal[1] = Field(1, alias="schema", description="version of this layout [default: 1]")

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as JSON and YAML hold it."""
        return self.model_dump(mode="json", by_alias=True)

    def dump(self) -> str:
        """Every key with its value, as YAML that loads to the same recipe."""
        return yaml_text(self.resolved())


class LearningRate(Section):
    """A learning rate in units of the RMS of the backbone's input embeddings."""

    relative: float = Field(gt=0, description="times the RMS of the input embeddings")


def absolute_rate(rate: float | LearningRate, embedding_rms: float) -> float:
    """A learning rate as a number, for input embeddings of this RMS."""
    return rate.relative * embedding_rms if isinstance(rate, LearningRate) else rate


def _parse_learning_rate(value: object) -> object:
    """A positive number (as text too) or {relative: number}."""
    if isinstance(value, LearningRate):
        return value
    number = value["relative"] if isinstance(value, dict) and set(value) == {"relative"} else value
    try:
        rate = math.nan if isinstance(number, bool) else float(number)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        rate = math.nan
    if not 0 < rate < math.inf:
        raise PydanticCustomError("rate", "a number above 0 (absolute), or {relative: a number above 0}")
    return LearningRate(relative=rate) if isinstance(value, dict) else rate


def _split(value: object) -> list[Any]:
    """Items of a list; one item, or a text with commas, is taken too."""
    if isinstance(value, str):
        return value.split(",")
    return list(value) if isinstance(value, list | tuple) else [value]


def _floats_below(limit: float, wanted: LiteralString) -> BeforeValidator:
    """Takes different numbers above 0 and below a limit, at least one; `wanted` says so to a user."""

    def parse(value: object) -> tuple[float, ...]:
        items = _split(value)
        try:
            numbers = tuple(float(item) for item in items if not isinstance(item, bool))
        except (TypeError, ValueError, OverflowError):
            numbers = ()
        # They are fewer where a number is given twice, or where true or false is among them.
        is_different = len(numbers) > 0 and len(set(numbers)) == len(items)
        if not is_different or not all(0 < number < limit for number in numbers):
            raise PydanticCustomError("numbers", wanted)
        return numbers

    return BeforeValidator(parse)


def parse_names(value: object) -> object:
    """Names as a tuple; a text with commas is taken too, and null is no names."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return tuple(value) if isinstance(value, list) else value


def _parse_numbers(value: object) -> object:
    """Whole numbers from 0 as a tuple; one number or a text with commas is taken too."""
    items = [str(item).strip() for item in _split(value)]
    if isinstance(value, str):
        items = [item for item in items if item]
    if len(set(map(int, filter(str.isdecimal, items)))) < len(items):
        raise PydanticCustomError("numbers", "different whole numbers from 0")
    return tuple(map(int, items))


def _parse_number_or_auto(value: object, least: int = 0) -> object:
    """A whole number (as text too), or auto."""
    if value == "auto":
        return value
    if isinstance(value, bool) or not str(value).isdecimal() or int(str(value)) < least:
        raise PydanticCustomError("number_or_auto", "a whole number from {least}, or auto", {"least": least})
    return int(str(value))


def _parse_threads(value: object) -> object:
    if value in (None, "none"):  # as earlier versions wrote it
        value = "auto"
    return _parse_number_or_auto(value, 1)


Rate: TypeAlias = Annotated[float | LearningRate, BeforeValidator(_parse_learning_rate)]
Ratios: TypeAlias = Annotated[
    tuple[float, ...], _floats_below(1, "different ratios between 0 and 1, both excluded, at least one")
]
Prices: TypeAlias = Annotated[tuple[float, ...], _floats_below(math.inf, "different numbers above 0, at least one")]
Numbers: TypeAlias = Annotated[tuple[int, ...], BeforeValidator(_parse_numbers)]
Seeds: TypeAlias = Annotated[int | Literal["auto"], BeforeValidator(_parse_number_or_auto)]
Threads: TypeAlias = Annotated[int | Literal["auto"], BeforeValidator(_parse_threads)]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(parse_names)]


def check_known(names: Iterable[str], known: Collection[str]) -> None:
    """Raises `unknown_name` for the first name that isn't known; a message about it suggests one that is."""
    for name in names:
        if name not in known:
            raise PydanticCustomError("unknown_name", "a known name", {"name": name, "available": known})


def check_companion(value: object, info: ValidationInfo, key: str, choice: str, needed: bool = True) -> None:
    """Raises `only_with` for a value (None: not given) where another key isn't one choice, or for none where it is.

    The other key comes before this one in the section; `needed` is whether its choice needs a value.
    """
    # A mistake in the other key, which then isn't in `data`, is reported by itself.
    if key not in info.data or (info.data[key] == choice) == (value is not None):
        return
    if value is None and not needed:
        return
    needs = "a value" if value is None else "no value"
    context = {"needs": needs, "key": key, "given": info.data[key], "choice": choice}
    raise PydanticCustomError("only_with", "{needs} where {key} is {given}", context)
