"""What softprune knows about a run, as run.json holds it, and what the records of all jobs share.

Everything that writes or reads run.json, compare.json or study.json does so through these models. A field is in
the file once it has been set; null means "not known yet" or "not measured".
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self, TypeVar

import psutil
from pydantic import Field, ValidationError

from softprune.errors import SoftpruneError
from softprune.runs.record_parts import (
    AdapterRecord,
    Attempt,
    BackboneRecord,
    ConventionRecord,
    CostRecord,
    GatesRecord,
    Hardware,
    Headline,
    ImportanceRecord,
    MemoryRecord,
    Part,
    PromptRecord,
    ResultRow,
    SearchRecord,
    SelectionRecord,
    SettingsRecord,
    StageRecord,
    SweepRow,
    TaskRecord,
    TicketRecord,
    VerdictRecord,
    maybe,
    sweep_work,
)

SCHEMA: Final = 1  # raised when files of the version before can no longer be read

_PACKAGES = ("softprune", "torch", "transformers", "numpy")

Kind = Literal["tune", "xprompt", "adapt", "tokens"]
Status = Literal["running", "complete", "failed"]
# By kind of run, its result that counts as its own: the others are what that is compared with.
OWN_RESULTS: Final = {"tune": "tuned", "xprompt": "winner", "adapt": "adapted"}
# Phases that make what is used in the end; the rest compares, writes and reports.
TRAINING_PHASES: Final = ("sweep", "tune", "adapt", "importance", "gates", "rank", "retrain")
# Fields that are written once, before anything depends on them; see `RunFolder.pin`.
Pin = Literal[
    "K",
    "threads",
    "inputs",
    "backbone.device",
    "backbone.dtype",
    "search.strategy",
    "cost.latency",
    "manual_theta_final",
]


class JobRecord(Part):
    """What the records of runs, comparisons and studies share."""

    FILE: ClassVar[str]
    NOUN: ClassVar[str]  # what it is a record of, for messages

    schema_: Literal[1] = Field(alias="schema", description="layout of this file, `SCHEMA`")
    kind: str
    status: Status
    phase: str | None = maybe("what it does at the moment")
    error: str | None = maybe("why it failed")
    command: str = Field(description="that began it")
    seed: int | None = maybe("the recipe's")
    started: str = Field(description="ISO 8601, UTC, to the second")
    finished: str | None = maybe("when it was complete, or failed")
    attempts: list[Attempt] = Field(description="starts of the command, oldest first")
    versions: dict[str, str | None] = Field(description="of the first attempt")
    hardware: Hardware = Field(description="of the first attempt")

    @classmethod
    def begin(cls, kind: str, command: str, **known: Any) -> Self:
        """The record of a job that hasn't done anything; `known` are further fields."""
        started, packages = now(), versions()
        return cls(
            schema=SCHEMA,
            kind=kind,
            status="running",
            error=None,
            command=command,
            started=started,
            finished=None,
            attempts=[Attempt(started=started, command=command, versions=packages)],
            versions=packages,
            hardware=Hardware.model_validate(hardware()),
            **known,
        )


class RunRecord(JobRecord):
    """run.json."""

    FILE: ClassVar[str] = "run.json"
    NOUN: ClassVar[str] = "run"

    kind: Kind
    threads: int | None = maybe("of the CPU; pinned")
    backbone: BackboneRecord = BackboneRecord()
    task: TaskRecord = TaskRecord()
    selection: SelectionRecord | None = None
    removal: str | None = maybe("what becomes of pruned tokens: drop or zero")
    K: int | None = maybe("candidates that are trained side by side; pinned")
    processes: int | None = maybe("that work together")
    results: dict[str, ResultRow | None] = Field(
        default={}, description="by row (tuned, control, winner, random, ...); of token pruning, by model"
    )
    ticket: TicketRecord = TicketRecord()
    cost: CostRecord
    memory: MemoryRecord | None = None
    inputs: dict[str, str] | None = maybe("digests of what results depend on; pinned")
    settings: SettingsRecord | None = None
    notes: list[str] = Field(default=[], description="what a user should know, in words")
    prompt: PromptRecord | None = None
    sweep: dict[str, SweepRow] = Field(default={}, description="by multiple of the learning rate")
    search: SearchRecord = SearchRecord()
    importance: ImportanceRecord | None = None
    gates: GatesRecord | None = None
    adapter: AdapterRecord | None = None
    convention: ConventionRecord | None = None
    stages: dict[str, StageRecord] = Field(default={}, description="of token pruning, by stage or model")
    manual_theta_final: float | None = maybe("of the rule `manual`; pinned")
    model: str | None = maybe("of token pruning: folder of the chosen model, within the run's")
    headline: Headline | None = None
    verdict: VerdictRecord | None = None

    @property
    def initial_words(self) -> list[str]:
        """What each prompt token started as; empty where no words were noted."""
        return [] if self.prompt is None else self.prompt.words or []

    def training_seconds(self, result: str) -> float | None:
        """Wall seconds of everything that makes a result; None where they weren't measured.

        The run's own result takes the whole search. Another one, such as the control, takes the tuned prompt's training
        and its own.
        """
        row = self.results.get(result)
        if result == OWN_RESULTS.get(self.kind):
            return sum(self.cost.phases[phase] for phase in TRAINING_PHASES if phase in self.cost.phases) or None
        if row is None or row.seconds is None:
            return None
        # The rate that the sweep chose is in the tuned prompt's seconds already; the others have pieces of their own.
        others = [sweep_work(float(name)) for name, tried in self.sweep.items() if not tried.chosen]
        return row.seconds + sum(self.cost.training[work].seconds for work in others if work in self.cost.training)

    def tokens_read(self, result: str) -> int | None:
        """Prompt tokens that the model reads before every input; None where they weren't measured.

        Under `removal: zero` pruned tokens are vectors of zeros, which are read like any others. An adapter without
        virtual tokens has none to be read.
        """
        row = self.results.get(result)
        if row is None:
            return None
        if self.removal == "zero" and row.pieces is not None and self.prompt is not None:
            return self.prompt.P
        return row.tokens or 0 if self.kind == "adapt" else row.tokens

    def add_notes(self, *notes: str) -> None:
        """Adds those that are new: a resumed run adds its earlier ones again."""
        self.notes = list(dict.fromkeys([*self.notes, *notes]))

    def document(self) -> dict[str, Any]:
        """run.json, with the verdict first, which a reader of the file looks for."""
        written = super().document()
        return {"verdict": written.pop("verdict"), **written} if "verdict" in written else written


AnyRecord = TypeVar("AnyRecord", bound=JobRecord)


def begin_run(kind: Kind, command: str, seed: int | None) -> RunRecord:
    """The record of a run that hasn't done anything; null is what isn't known yet."""
    verdict: dict[str, Any] = {"verdict": None} if kind == "xprompt" else {}
    rows = ("constant", "zero_shot", "instruction", "tuned", "control", "winner", "random")
    unknown_cost: dict[str, Any] = dict.fromkeys(
        ("seconds", "steps", "examples_per_second", "peak_memory_bytes", "trainable_parameters")
    )
    return RunRecord.begin(
        kind,
        command,
        seed=seed,
        phase=None,
        threads=None,
        backbone=BackboneRecord(name=None, family=None, fingerprint=None, dtype=None, device=None),
        task=TaskRecord(id=None, version=None, indices=None, truncated=None),
        selection=None,
        removal=None,
        K=None,
        processes=None,
        results=dict.fromkeys(rows),
        ticket=TicketRecord(tokens=None, pieces=None, parameters=None),
        cost=CostRecord(**unknown_cost, phases={}),
        **verdict,
    )


@cache  # reading packages' metadata takes 25 ms, and a study asks for it in every run
def versions() -> dict[str, str | None]:
    """Python's version and those of the packages that numbers depend on; None where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def hardware() -> dict[str, str | int | None]:
    """The processor, its cores that this process may use, memory in bytes, and the first GPU's name."""
    import torch

    cpu: str | None = platform.processor() or platform.machine() or None
    with suppress(OSError):  # Linux alone has this file, and says no more than "x86_64" elsewhere
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):  # Linux alone has it
        cores = len(os.sched_getaffinity(0))
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": cores, "memory_bytes": psutil.virtual_memory().total, "gpu": gpu}


def now() -> str:
    """The time as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_record(folder: Path, kind: type[AnyRecord]) -> AnyRecord:
    """The record in a folder, of this version or of another with the same layout.

    Raises:
        SoftpruneError: there is none, or it can't be read.
    """
    path = folder / kind.FILE
    if not path.is_file():
        do = "give the folder that --out named"
        raise SoftpruneError(f"the folder of a {kind.NOUN}", f"no {kind.FILE} in {folder}", do)
    do = "restore it from a copy, or start again with another --out"
    try:
        return kind.model_validate_json(path.read_bytes(), context={"reading": True})
    except OSError as error:
        raise SoftpruneError(f"a {kind.FILE} as softprune writes it", f"{path}: {error.strerror}", do) from error
    except ValidationError as error:
        # Of another schema, everything else that is wrong follows from that.
        first = min(error.errors(include_url=False), key=lambda each: each["loc"] != ("schema",))
        where = ".".join(map(str, first["loc"])) or "the file"
        found = f"{path}: {where}: {first['msg']}"
        raise SoftpruneError(f"a {kind.FILE} as softprune writes it", found, do) from error
