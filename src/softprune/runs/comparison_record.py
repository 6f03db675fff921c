"""What softprune knows about a comparison and a study, as compare.json and study.json hold it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

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
    """A method, its control or a floor, over seeds; means, null where any seed wasn't measured.

    Beside these fields, a row has what the measured columns of `studies.comparison.columns` read from its runs.
    """

    model_config = ConfigDict(extra="allow")

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
    latency: dict[str, dict[str, float]] | None = Field(description="seconds of a call by batch size")

    def measured(self, column: str) -> float | None:
        """The number of a measured column; None where it wasn't measured."""
        number: float | None = (self.model_extra or {}).get(column)
        return number


class ComparisonRecord(JobRecord):
    """compare.json; the fields behind `cells` are there when the comparison is finished."""

    FILE: ClassVar[str] = "compare.json"
    NOUN: ClassVar[str] = "comparison"

    cells: dict[str, CellRecord] = Field(default={}, description="by folder")
    task: str | None = maybe("its title")
    backbone: str | None = None
    family: str | None = None
    metric: str = ""
    n: int | None = maybe("examples of report")
    seeds: list[int] = Field(default=[], description="of each method's runs")
    reference: str = Field(default="", description="method that the others are compared with")
    rows: list[ComparisonRow] = Field(default=[], description="methods, then floors")
    not_defined: dict[str, str] = Field(default={}, description="by method, why it has no row")

    @property
    def has_results(self) -> bool:
        """Whether all runs are made; tables and the page may still be missing."""
        return bool(self.rows)


class StudyRun(Part):
    """A run that a study used, whoever made it."""

    folder: str
    task: str
    seed: int
    kind: str
    seconds: float | None


def _read_attempts(value: object) -> object:
    return [] if isinstance(value, int) else value  # earlier versions only counted them


class StudyRecord(JobRecord):
    """study.json; the fields behind `backbone` are there when the study is finished."""

    FILE: ClassVar[str] = "study.json"
    NOUN: ClassVar[str] = "study"

    attempts: Annotated[list[Attempt], BeforeValidator(_read_attempts)]
    tasks: list[str] = Field(default=[], description="their names")
    backbone: str | None = None
    findings: dict[str, Any] = Field(default={}, description="as `studies.findings.Findings`")
    runs: list[StudyRun] = Field(default=[], description="that it used, whoever made them")
    work: dict[str, float] = Field(default={}, description="seconds of its own pieces of work")

    @property
    def has_results(self) -> bool:
        """Whether all runs are made; tables and the page may still be missing."""
        return bool(self.findings)
