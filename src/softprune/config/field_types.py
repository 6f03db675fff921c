"""What recipe keys are made of: sections, defaults that tell themselves, and values that are read leniently."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

DEFAULT_RELATIVE_LR: Final = 0.3
"""Default learning rate, in units of the RMS of the backbone's input embeddings."""


def key(default: Any, description: str, **limits: Any) -> Any:
    """A recipe key; its description tells the default too."""
    text = f"{description} [default: {_shown(default)}]"
    return Field(default, description=text, validate_default=True, **limits)


def _shown(value: object) -> str:
    """A value as a person would type it."""
    if isinstance(value, LearningRate):
        return f"{{relative: {value.relative}}}"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) or "empty" if isinstance(value, tuple) else str(value)


class Section(BaseModel):
    """A group of keys: frozen, and nothing unknown in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class LearningRate(Section):
    """A learning rate in units of the RMS of the backbone's input embeddings."""

    relative: float = Field(gt=0, description="times the RMS of the input embeddings")


def _learning_rate(value: object) -> object:
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


def _ratios(value: object) -> object:
    """Numbers as a tuple; one number or a text with commas is taken too."""
    try:
        items = value.split(",") if isinstance(value, str) else value
        ratios = tuple(float(item) for item in (items if isinstance(items, list | tuple) else [items]))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        ratios = ()
    if not ratios or len(set(ratios)) < len(ratios) or not all(0 < ratio < 1 for ratio in ratios):
        raise PydanticCustomError("ratios", "different ratios between 0 and 1, both excluded, at least one")
    return ratios


def _prices(value: object) -> object:
    """Positive numbers as a tuple; one number or a text with commas is taken too."""
    try:
        items = value.split(",") if isinstance(value, str) else value
        items = items if isinstance(items, list | tuple) else [items]
        prices = () if any(isinstance(item, bool) for item in items) else tuple(float(item) for item in items)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        prices = ()
    if not prices or len(set(prices)) < len(prices) or not all(0 < price < math.inf for price in prices):
        raise PydanticCustomError("prices", "different numbers above 0, at least one")
    return prices


def names_of(value: object) -> object:
    """Names as a tuple; a text with commas is taken too, and nothing is none."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return tuple(value) if isinstance(value, list) else value


def _numbers(value: object) -> object:
    """Whole numbers from 0 as a tuple; one number or a text with commas is taken too."""
    items = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
    items = items if isinstance(items, list | tuple) else [items]
    numbers = tuple(int(str(item)) if str(item).isdecimal() else -1 for item in items)
    if len(set(numbers)) < len(numbers) or -1 in numbers:
        raise PydanticCustomError("numbers", "different whole numbers from 0")
    return numbers


def _seeds(value: object) -> object:
    """A whole number from 0 (as text too), or auto."""
    if value == "auto":
        return value
    if isinstance(value, bool) or not str(value).isdecimal():
        raise PydanticCustomError("seeds", "a whole number from 0, or auto")
    return int(str(value))


Rate: TypeAlias = Annotated[float | LearningRate, BeforeValidator(_learning_rate)]
Ratios: TypeAlias = Annotated[tuple[float, ...], BeforeValidator(_ratios)]
Prices: TypeAlias = Annotated[tuple[float, ...], BeforeValidator(_prices)]
Numbers: TypeAlias = Annotated[tuple[int, ...], BeforeValidator(_numbers)]
Seeds: TypeAlias = Annotated[int | Literal["auto"], BeforeValidator(_seeds)]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(names_of)]


def hold_together(value: object, info: ValidationInfo, key: str, choice: str, needed: bool = True) -> None:
    """Holds `value` to be given only when `key` is `choice`, and then always if it is needed.

    A mistake in `key` is told elsewhere.
    """
    if key not in info.data or (info.data[key] == choice) == (value is not None):
        return
    if value is None and not needed:
        return
    needs = "a value" if value is None else "no value"
    context = {"needs": needs, "key": key, "given": info.data[key], "choice": choice}
    raise PydanticCustomError("only_with", "{needs} where {key} is {given}", context)
