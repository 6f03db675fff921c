"""The keys of a study (`kind: study`): a matrix of runs that answers one question of a paper, at one of two scales."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from softprune.config.comparison_schema import merge, nested
from softprune.config.field_types import Names, RecipeBase, Section, key
from softprune.config.schema import ClusterConfig


class Published(Section):
    """A table as its source prints it."""

    title: str = key("", "what it is, with its number in the source")
    columns: tuple[str, ...] = key((), "names of the columns, that of the rows first")
    rows: tuple[tuple[str, ...], ...] = key([], "the cells as texts, the row's name first")
    note: str = key("", "what a reader must know of it")

    @field_validator("columns", mode="before")
    @classmethod
    def _list(cls, value: Any) -> object:
        return tuple(map(str, value)) if isinstance(value, list) else value

    @field_validator("rows", mode="before")
    @classmethod
    def _lists(cls, value: Any, info: ValidationInfo) -> object:
        many = len(info.data.get("columns", ()))
        if not isinstance(value, list) or not all(isinstance(row, list) and len(row) == many for row in value):
            raise PydanticCustomError("rows", "a list of rows, each a list of {many} cells", {"many": many})
        return tuple(tuple(map(str, row)) for row in value)


class Variant(Section):
    """One setting that a study compares with others.

    Its runs have the study's recipe keys with these in their place; `row` says which of a run's results stands for it.
    """

    name: str = Field(min_length=1, description="short, for ids")
    label: str = Field(min_length=1, description="as tables have it")
    row: Literal["winner", "tuned", "control", "random", "adapted"] = key("winner", "which result of its runs counts")
    keys: dict[str, Any] = key({}, "recipe keys of its runs, nested or dotted; kind too")


class Scale(Section):
    """How large a study is made."""

    backbone: str = key("tiny", "the model", min_length=1)
    tasks: Names = key((), "ids of the tasks")
    seeds: int = key(1, "runs of each sort: seed, seed + 1, ...", ge=1)
    keys: dict[str, Any] = key({}, "recipe keys of all runs")
    options: dict[str, Any] = key({}, "of the experiment")
    hardware: str = key("", "what it was made for")
    hours: str = key("", "how long that takes, and whether it was measured")

    @property
    def takes(self) -> str:
        """`hours` with the unit behind the number that it begins with, where nothing else is."""
        return re.sub(r"^((?:about )?\d+(?:\.\d+)?)(?=$|[,;]| (?:of|and) )", r"\1 hours", self.hours)


class Study(RecipeBase):
    """All that a study depends on."""

    kind: Literal["study"] = key("study", "a matrix of runs that makes a table")
    title: str = Field(min_length=1, description="what it is about")
    source: str = key("", "where it was published")
    question: str = key("", "what it answers")
    experiment: str = key("variants", "what is done with the runs", min_length=1)
    keys: dict[str, Any] = key({}, "recipe keys of all runs, at every scale")
    by_task: dict[str, dict[str, Any]] = key({}, "the same by task")
    options: dict[str, Any] = key({}, "of the experiment, at every scale")
    variants: tuple[Variant, ...] = key((), "what is compared")
    published: tuple[Published, ...] = key((), "the source's tables")
    scales: dict[Literal["smoke", "full"], Scale] = key({}, "its sizes")
    scale: Literal["smoke", "full"] = key("smoke", "smoke: minutes on two cores; full: as published")
    backbone: str | None = key(None, "the model; none is the scale's", min_length=1)
    tasks: Names = key((), "ids of the tasks; empty for the scale's")
    seeds: int | None = key(None, "runs of each sort; none is the scale's", ge=1)
    seed: int = key(0, "the first seed", ge=0, lt=2**32 - 1000)
    data: str | None = key(None, "folder with the data of the tasks; none loads from the hub")
    change: dict[str, Any] = key({}, "recipe keys of all runs that win over the study's own")
    executor: Literal["in-process", "ray"] = key("in-process", "what makes the runs: this process or Ray")
    cluster: ClusterConfig = Field(ClusterConfig(), description="where Ray does it")

    @field_validator("variants", "published", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("scale")
    @classmethod
    def _there(cls, value: str, info: ValidationInfo) -> str:
        scales = info.data.get("scales")
        if scales and value not in scales:
            raise PydanticCustomError("scale", "a scale that the study has: {scales}", {"scales": ", ".join(scales)})
        return value

    @property
    def size(self) -> Scale:
        """The scale with what was asked for in its place; a study without any has the defaults."""
        found = self.scales.get(self.scale, Scale())
        asked = {"backbone": self.backbone, "tasks": self.tasks or None, "seeds": self.seeds}
        return found.model_copy(update={name: value for name, value in asked.items() if value is not None})

    @property
    def settings(self) -> dict[str, Any]:
        """The experiment's options at this scale."""
        return {**self.options, **self.size.options}

    @property
    def matters(self) -> dict[str, Any]:
        """What the findings depend on: at this scale, without texts for readers and without the place of the work."""
        size = self.size.model_dump(mode="json", exclude={"hardware", "hours", "options"})
        variants = {variant.name: variant.model_dump(mode="json") for variant in self.variants}
        own = self.model_dump(mode="json", include={"experiment", "keys", "by_task", "seed", "data", "change"})
        order = [variant.name for variant in self.variants]
        return {**own, "scale": {"name": self.scale, **size}, "options": self.settings, "variants": variants} | {
            "order of variants": order
        }

    def run(self, task: str, seed: int, keys: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe keys of one run; what nobody named has the recipe's defaults.

        Args:
            task: its id.
            seed: of the run.
            keys: of this run, which win over the study's (a backbone too), but not over what the user changed.
        """
        task_keys = {"id": task, "report_seed": self.seed, **({} if self.data is None else {"data": self.data})}
        made: dict[str, Any] = {"backbone": {"name": self.size.backbone}, "task": task_keys, "seed": seed}
        for more in (self.keys, self.by_task.get(task, {}), self.size.keys, keys, self.change):
            merge(made, nested(deepcopy(dict(more))))
        return made
