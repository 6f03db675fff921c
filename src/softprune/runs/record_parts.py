"""The sections of run.json, field by field: what each holds, and in which unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)


def _interval(value: object) -> object:
    """Both ends as a tuple; null where one isn't known, since NaN is written as null."""
    if not isinstance(value, list | tuple):
        return value
    return None if None in value else tuple(value)


Interval = Annotated[tuple[float, float] | None, BeforeValidator(_interval)]


def maybe(description: str) -> Any:
    """A field that is null until it is known, or where it was not measured."""
    return Field(default=None, description=description)


class Part(BaseModel):
    """A part of a record. Assigning to a field that doesn't exist, or a value of another type, is an error.

    Unknown keys are forbidden on write, where they are our own typing mistakes; on read they are left out, since they
    are of a softprune that knows more (or knew something that isn't needed any more) and whose layout is still ours.
    """

    model_config = ConfigDict(extra="forbid", strict=True, validate_assignment=True)

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return self.model_dump(mode="json", by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unknown(cls, values: Any, info: ValidationInfo) -> Any:
        is_reading = isinstance(info.context, Mapping) and info.context.get("reading") and isinstance(values, dict)
        if not is_reading or cls.model_config.get("extra") == "allow":
            return values
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in values.items() if key in known}

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        for name, field in type(self).model_fields.items():
            # A dict or list may have been filled without having been set.
            if name not in self.model_fields_set and written[field.alias or name] in (None, [], {}, field.default):
                del written[field.alias or name]
        return written


class Hardware(Part):
    """The machine."""

    cpu: str | None = Field(description="model name of the processor")
    cores: int | None = Field(description="that this process may use")
    memory_bytes: int | None = Field(description="of the machine")
    gpu: str | None = Field(description="name of the first one")


class Attempt(Part):
    """One start of the command; a resumed job has several."""

    started: str = Field(description="ISO 8601, UTC, to the second")
    command: str = Field(description="as the user typed it")
    versions: dict[str, str | None] = Field(description="of Python and of the packages that numbers depend on")
    changed: dict[str, list[Any]] | None = maybe("dotted recipe keys, each with old and new value")


class BackboneRecord(Part):
    """The model that was tuned."""

    name: str | None = maybe("as the user typed it")
    family: str | None = maybe("seq2seq, causal, masked or sentence; of token pruning, model_type")
    fingerprint: str | None = maybe("hash of configuration and a sample of weights")
    dtype: str | None = maybe("of the matrix products, such as float32; pinned")
    device: str | None = maybe("such as cpu or cuda:0; pinned")
    hidden: int | None = maybe("H, the size of its input embeddings")
    parameters: int | None = maybe("number of frozen weights")
    positions: int | None = maybe("longest sequence that it reads; null for no limit")
    quantization: str | None = maybe("how its matrices are packed, such as 8bit")
    layers: int | None = maybe("of token pruning: encoder layers")


class Truncation(Part):
    """What was cut off inputs that were too long."""

    examples: int = Field(description="examples that were cut")
    tokens: int = Field(description="tokens that were cut off, of all together")
    targets: int | None = maybe("texts to be written that were cut")
    target_tokens: int | None = maybe("tokens that were cut off these")


class SetSizes(Part):
    """Examples of the three sets."""

    train: int
    select: int
    report: int
    unlabelled: int | None = maybe("rows without labels that a teacher answers")


class TaskRecord(Part):
    """The task and its data."""

    id: str | None = None
    version: int | None = maybe("of the task's definition")
    indices: dict[str, list[int]] | None = maybe("rows of train, select and report in their files")
    truncated: Truncation | None = None
    title: str | None = None
    instruction: str | None = maybe("the task in words, a hard prompt")
    template: str | None = None
    sample: str | None = maybe("the first training example as the model reads it")
    metric: str | None = maybe("name of what is reported")
    extract: str | None = maybe("of written texts: the regular expression that finds what counts of them")
    targets: Literal["answers", "text"] | None = maybe("what the model gives")
    answers: list[str] | None = maybe("null where they depend on the example or texts are written")
    sizes: SetSizes | None = None
    tokens: dict[str, int] | None = maybe("of token pruning: input tokens of train and select")
    source: str | None = maybe("where the data came from")
    cut_report: Truncation | None = maybe("of token pruning: what was cut off report")
    notes: list[str] = Field(default=[], description="of runs of earlier versions")


class Foresight(Part):
    """How well the loss of the masked, unretrained prompt foretold the score after retraining."""

    spearman: float | None = Field(description="rank correlation of lower loss with higher score; null: all alike")
    regret: float = Field(description="best score less that of the candidate with the lowest loss, a fraction")
    candidates: int = Field(description="how many were trained")


class SelectionRecord(Part):
    """How choices are made, and what was chosen."""

    protocol: str = Field(description="held-out or paper")
    description: str = Field(description="of the three sets, in words")
    objective: str | None = maybe("which candidate wins: best, one_se, ...")
    candidates_compared: int | None = maybe("from which the winner was chosen")
    standard_errors: dict[str, float | None] | None = maybe("by candidate, of its difference to the best")
    winner: str | None = maybe("id of the candidate")
    foresight: Foresight | None = None
    chosen: str | None = maybe("of token pruning: the model that was chosen")
    within: bool | None = maybe("of token pruning: whether it lost no more than was allowed")


class DifferenceRecord(Part):
    """Score of a minus score of b with its 95% interval, fractions; as `statistics.bootstrap.Difference`."""

    value: float
    low: float
    high: float
    p: float = Field(description="two-sided, of no difference")
    covers_seeds: bool = Field(default=False, description="whether the interval covers the sampling of seeds too")
    seeds: int = Field(default=1, description="training seeds of the side that has fewer")
    units: int | None = maybe("examples or groups that were sampled")
    se_seeds: float | None = maybe("standard error from seeds")
    se_examples: float | None = maybe("standard error from examples")
    seeds_df: float | None = maybe("degrees of freedom of se_seeds")


class ResultRow(Part):
    """One row of the comparison on `report`; null where it wasn't measured."""

    metric: str
    value: float | None = Field(description="of the metric, a fraction")
    interval: Interval = maybe("its 95% interval, by example")
    n: int | None = maybe("examples")
    predicted: dict[str, int] | None = maybe("how often each answer was given")
    macro_f1: float | None = maybe("of token pruning: mean F1 over classes, a fraction")
    loss: float | None = maybe("mean negative log-likelihood")
    rouge1: float | None = maybe("of written texts: mean F1, a fraction; also the next two")
    rouge2: float | None = None
    rougeL: float | None = None
    extracted: float | None = maybe("of written texts with an answer in them: share in which one was found")
    words: float | None = maybe("of written texts: their mean length")
    answer: str | None = maybe("of the row `constant`: which answer, or what replaces it")
    seconds: float | None = maybe("spent on training it")
    tokens: int | None = maybe("size of the prompt; also the next two")
    pieces: int | None = None
    parameters: int | None = None
    losses: dict[str, float | None] | None = maybe("of written texts: by set, of a trained prompt")
    seeds: list[float | None] | None = maybe("the metric of each retraining on a fresh seed")
    kept: list[float] | None = maybe("of token pruning: by layer, share of tokens it reads")
    paper_macs: float | None = maybe("share of the unpruned model's operations, the paper's count")
    executed_macs: float | None = maybe("the same of the operations that were computed")
    difference: DifferenceRecord | None = maybe("of token pruning: to the unpruned model")


class TicketRecord(Part):
    """The size of the winner, or of a prompt that was tuned behind a mask."""

    tokens: int | None = None
    pieces: int | None = None
    parameters: int | None = None
    share_of_parameters: float | None = maybe("of the whole prompt's")


class TrainingCost(Part):
    """What one piece of training took."""

    steps: int = Field(description="optimiser steps")
    examples: int = Field(description="that were read, of all candidates")
    seconds: float


class Percentiles(Part):
    """Seconds of single calls."""

    p50: float
    p95: float


class CostRecord(Part):
    """What the run cost so far; totals when it is finished."""

    seconds: float | None = maybe("wall time of all attempts")
    steps: int | None = maybe("optimiser steps of all pieces of work")
    examples_per_second: float | None = maybe("while training")
    peak_memory_bytes: int | None = maybe("most of all phases")
    trainable_parameters: int | None = None
    phases: dict[str, float] = Field(description="wall seconds by phase, over all attempts")
    peak_memory: dict[str, int | None] = Field(default={}, description="bytes at most, by phase")
    training: dict[str, TrainingCost] = Field(default={}, description="by piece of work")
    latency: dict[str, dict[str, int | Percentiles]] | None = maybe(
        "by batch size: `calls`, and the seconds of a call `with` and `without` what was trained"
    )
    seconds_per_epoch: float | None = maybe("of the method's own training")
    stored_parameters: int | None = maybe("to be kept beside the model's own")


class MemoryRecord(Part):
    """What K was chosen by; bytes, beside the model."""

    K: int = Field(description="that it allows")
    free: int | None = Field(description="at the start")
    base: int = Field(description="of a training step, whatever K is")
    each: int = Field(description="of a training step, for each candidate")


class SettingsRecord(Part):
    """What recipe values of `auto` and relative ones came to."""

    loss: str | None = None
    score: str | None = maybe("how the answers' scores are read: sum or mean")
    match: str | None = maybe("score or generate")
    lr: float | None = maybe("absolute step size; after a sweep, the best one")
    max_length: int | None = maybe("input tokens at most")
    max_answer_length: int | None = maybe("tokens of a written text at most")


class PromptRecord(Part):
    """The prompt before tuning."""

    P: int = Field(description="prompt tokens")
    H: int = Field(description="size of a token")
    S: int = Field(description="pieces of a token")
    init: str = Field(description="what it starts as")
    words: list[str] | None = maybe("what each token starts as; null in earlier versions")
    form: str | None = maybe("what was trained in place of its vectors; also the next two")
    trained: int | None = maybe("how many numbers that is")
    lr: float | None = maybe("absolute step size: how far a step moves the vectors")


class SweepRow(Part):
    """One learning rate that was tried."""

    lr: float = Field(description="absolute step size")
    score: float | None = Field(description="best on `select`; null where losses weren't numbers")
    loss: float | None = Field(description="there")
    chosen: bool


def sweep_work(multiple: float) -> str:
    """The name of the piece of work that trains with a multiple of the learning rate."""
    return f"sweep-{multiple:g}"


class SearchRecord(Part):
    """How candidates are searched."""

    strategy: str | None = maybe("what `auto` means; pinned")


class ImportanceRecord(Part):
    """How the importance of tokens and pieces was measured."""

    method: str = Field(description="a criterion of `pruning.importance`")
    examples: int
    token_over_piece: float | None = Field(description="largest token importance over largest piece importance")


class GatesRecord(Part):
    """Masks that were learned."""

    kind: str
    lr: float = Field(description="of the gates")
    prices: list[float] = Field(description="what a piece costs, by candidate")
    expected_sizes: list[float] = Field(description="share of the pieces that the gates keep, by candidate")
    tickets: list[str] = Field(description="ids of the candidates that they were hardened to")


class AdapterRecord(Part):
    """An adapter and its size."""

    method: str
    trains: str = Field(description="in words")
    lr: float = Field(description="absolute step size")
    trainable_parameters: int
    stored_parameters: int
    trained: list[str] = Field(description="names of the trained parameters")


class ConventionRecord(Part):
    """How token pruning counts importance."""

    divisor: float = Field(description="of importance, in tokens; 1 for relative importance")
    protect: bool = Field(description="whether special tokens are always kept")


class Gap(Part):
    """Soft masks less hard ones on `select`."""

    score: float | None
    loss: float | None


class StageRecord(Part):
    """A stage of token pruning, measured on `select`."""

    select: float | None = maybe("the metric, a fraction")
    select_loss: float | None = None
    kept: list[float] | None = maybe("by layer, share of tokens it reads")
    relative_macs: float | None = maybe("share of the unpruned model's operations, the paper's count")
    theta: list[float] | None = maybe("thresholds by layer")
    gap: Gap | None = None
    rate: float | None = maybe("of a ranked rule: share of tokens that each layer drops")
    whole_layers: int | None = maybe("of a ranked rule: first layers that drop nothing")
    macs_target: float | None = maybe("the chosen model's relative_macs")
    macs_reached: bool | None = maybe("whether relative_macs comes near that")


class McNemarRecord(Part):
    """The examples on which winner and control differ."""

    only_winner: int = Field(description="examples that it alone answers rightly")
    only_control: int
    p: float


class _Compared(Part):
    comparison: str = Field(description="which row minus which")


class Headline(DifferenceRecord, _Compared):  # a base of its own, so that it comes first in the file
    """Winner minus control, and what must be known to read it."""

    random: DifferenceRecord | None = maybe("winner minus a random mask of its size")
    mcnemar: McNemarRecord | None = maybe("for accuracies of independent examples only")
    fresh_seeds: int | None = maybe("on which both were retrained")
    examples: int | None = maybe("of report")
    detectable: float | None = maybe("smallest difference that 80% power would detect, a fraction")
    interpretable: bool = Field(description="whether the tuned prompt is shown to do anything")
    above_zero_shot: DifferenceRecord | None = maybe("of written texts: tuned minus no prompt")
    significance_claimed: bool = Field(description="false where the winner was chosen on the examples of report")
    sentence: str = Field(default="", description="winner against control in words")
    random_sentence: str = Field(default="", description="winner against the random mask in words")


class VerdictRecord(Part):
    """Which prompt to ship; as `statistics.decision.Verdict`."""

    decision: Literal["ship the ticket", "ship the whole prompt", "undecided", "no verdict"]
    margin: float = Field(description="loss of score that is accepted, a fraction")
    better: bool = Field(description="whether the ticket is shown to be better")
    more_seeds: int | None = Field(description="fresh seeds that would decide it")
    more_examples: int | None = Field(description="examples that would decide it")
    reason: str | None = Field(description="why there is no verdict")
    sentence: str = Field(description="all of it in words")
