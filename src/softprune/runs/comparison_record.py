"""What softprune knows about a comparison and a study, as compare.json and study.json hold it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from softprune.runs.record import JobRecord
from softprune.runs.record_parts import Attempt, DifferenceRecord, Interval, Part, maybe


class CellRecord(Part):
    """One run of a comparison."""

    method: str
    seed: int
    status: str = Field(description="planned, running, complete, not defined, ...")
    reason: str | None = Field(description="why it isn't defined")


class ComparisonDifference(DifferenceRecord):
    """A method less the reference."""

    against: str = Field(description="the reference")
    p_holm: float | None = maybe("p corrected for the other rows; null where seeds aren't covered")


class ComparisonRow(Part):
    """A method, its control or a floor, over seeds; means, null where any seed wasn't measured."""

    name: str
    kind: Literal["method", "control", "floor"]
    answer: str | None = Field(description="of the floor `constant`: which answer")
    values: list[float] = Field(description="the metric on report by seed, fractions")
    mean: float
    sd: float | None = Field(description="over seeds")
    interval: Interval = Field(description="of the mean")
    covers_seeds: bool | None = maybe("whether the interval covers the sampling of seeds too")
    difference: ComparisonDifference | None
    others: dict[str, float | None] = Field(description="further metrics")
    lr: list[float | None] | None = Field(description="absolute step size by seed")
    multiples: list[str] | None = Field(description="of the method's learning rate, as sweeps chose them")
    trainable: float | None = Field(description="parameters")
    stored: float | None = Field(description="parameters to be kept beside the model's")
    seconds: float | None = Field(description="of training, everything that the method needs")
    seconds_per_epoch: float | None
    examples_per_second: float | None
    peak_memory: float | None = Field(description="bytes while training")
    latency: dict[str, dict[str, float]] | None = Field(description="seconds of a call by batch size")


class ComparisonRecord(JobRecord):
    """compare.json; the fields behind `cells` are there when the comparison is finished."""

    FILE: ClassVar[str] = "compare.json"
    NOUN: ClassVar[str] = "comparison"

    cells: dict[str, CellRecord] = Field(default={}, description="by folder")
    task: str | None = maybe("its title")
    backbone: str | None = None
    family: str | None = None
    metric: str | None = None
    n: int | None = maybe("examples of report")
    seeds: list[int] | None = None
    reference: str | None = maybe("method that the others are held against")
    rows: list[ComparisonRow] | None = None
    not_defined: dict[str, str] | None = maybe("by method, why it has no row")


class StudyRun(Part):
    """A run that a study used, whoever made it."""

    folder: str
    task: str
    seed: int
    kind: str
    seconds: float | None


def _attempts(value: object) -> object:
    """Earlier versions only counted them."""
    return [] if isinstance(value, int) else value


class StudyRecord(JobRecord):
    """study.json; the fields behind `backbone` are there when the study is finished."""

    FILE: ClassVar[str] = "study.json"
    NOUN: ClassVar[str] = "study"

    attempts: Annotated[list[Attempt], BeforeValidator(_attempts)]
    tasks: list[str] = Field(default=[], description="their names")
    backbone: str | None = None
    findings: dict[str, Any] | None = maybe("as `studies.findings.Findings`")
    runs: list[StudyRun] = Field(default=[], description="that it used, whoever made them")
    work: dict[str, float] = Field(default={}, description="seconds of its own pieces of work")
