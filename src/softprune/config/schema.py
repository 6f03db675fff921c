"""All recipe keys as frozen models: type, limits, default and meaning of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from softprune.config.adapter_schema import CARTRIDGE, VIRTUAL, AdapterConfig
from softprune.config.criteria import CRITERIA
from softprune.config.field_types import (
    DEFAULT_RELATIVE_LR,
    LearningRate,
    Names,
    Prices,
    Rate,
    Ratios,
    RecipeBase,
    Section,
    Seeds,
    Threads,
    absolute_rate,
    check_companion,
    key,
)
from softprune.config.forms import FORMS, PLAIN, forms_with

# Fresh seeds of `selection.seeds: auto`.
FIRST_SEEDS: Final = 5  # with 5 or more, the t distribution costs little
RANDOM_SEEDS: Final = 3  # of the random mask, which no choice depends on: the fewest that a test needs
MOST_SEEDS: Final = 10  # beyond them the sampling of examples outweighs that of seeds in most runs
if TYPE_CHECKING:  # mypy takes no Literal of computed values
    CriterionName: TypeAlias = str
    FormName: TypeAlias = str
else:
    CriterionName = Literal["auto", *CRITERIA]
    FormName = Literal[*FORMS]
_TENTHS: Final = tuple(tenth / 10 for tenth in range(1, 10))


class ModelConfig(Section):
    """Which model, and where it runs."""

    name: str = key("tiny", "a hub name, a local path, or the name of a bundled model", min_length=1)
    revision: str | None = key(None, "git revision of a hub model")
    device: str = key("auto", "where the model runs: auto, cpu, cuda, cuda:1, ...", min_length=1)


class BackboneConfig(ModelConfig):
    """The frozen model."""

    family: Literal["auto", "seq2seq", "causal", "masked", "sentence"] = key(
        "auto", "how the model is read; auto finds out from the model's files"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = key(
        "auto", "number format of the frozen weights; auto takes bfloat16 where the hardware has it"
    )
    trust_remote_code: bool = key(False, "run Python code that comes with a hub model")
    device_map: Literal["none", "auto", "balanced", "balanced_low_0", "sequential"] = key(
        "none", "how accelerate spreads the layers of a large model over all devices; none uses one device"
    )
    quantization: Literal["none", "8bit", "4bit"] = key(
        "none", "pack the frozen matrices with bitsandbytes while loading; what isn't packed has the dtype"
    )
    checkpointing: bool = key(
        False, "compute layers again in the backward pass instead of keeping them: less memory, slower steps"
    )
    threads: Threads = key("auto", "CPU threads; auto times a step on one and on all, and the run keeps the faster")


class DataConfig(Section):
    """Which task, and how much of its data."""

    id: str = key("demo", "a task's id, or the path of a task's YAML file; several joined by +", min_length=1)
    data: str | None = key(None, "folder with the task's files; none loads from the hub or the bundled data")
    shots: int | None = key(None, "training examples taken, seeded and stratified; none takes all", ge=1)
    limit_report: int | None = key(None, "examples of the report set; none takes all", ge=1)


class TaskConfig(DataConfig):
    """What the prompt is for."""

    report_seed: int | None = key(None, "seed that draws those; none is the recipe's seed", ge=0, lt=2**32)
    unlabelled: str | None = key(
        None,
        "rows without labels, for a teacher (pruning.teacher, or a cartridge's document) to answer: a file of them, or "
        "`rest`, what task.shots leaves of the training set",
        min_length=1,
    )
    limit_unlabelled: int | None = key(None, "of these rows, the first so many; none takes all", ge=1)
    max_length: int = key(256, "longest input in tokens, the prompt excluded", ge=1)
    max_answer_length: int | None = key(
        None,
        "longest generated answer in tokens; scored answers may be longer, target texts are cut there; none is 8, and "
        "128 where targets are texts",
        ge=1,
    )
    score: Literal["auto", "sum", "mean"] = key(
        "auto", "an answer's score: sum of its tokens' log-probabilities, or their mean; auto asks the task"
    )
    match: Literal["score", "generate"] = key(
        "score", "prediction: the answer of the best score, or the generated text"
    )


class PromptConfig(Section):
    """The prompt and its first values."""

    tokens: int = key(20, "prompt tokens, P; where it isn't given, init: file takes as many as the file holds", ge=1)
    pieces: int = key(16, "pieces of a token, S; must divide the backbone's embedding size", ge=1)
    form: FormName = key(
        PLAIN, f"what is trained: {'; '.join(f'{form.trains} ({name})' for name, form in FORMS.items())}"
    )
    init: Literal["vocabulary", "uniform", "text", "labels", "file"] = key(
        "vocabulary",
        "first values: embeddings of sampled vocabulary entries, uniform numbers, embeddings of a text or "
        "of the answers, or a saved prompt",
    )
    text: str | None = key(None, "the text of init: text; none is the task's instruction")
    file: str | None = key(
        None, "the saved prompt of init: file: a .safetensors or .npy file, or the folder of a peft adapter"
    )
    mask: str | None = key(
        None, "kind tune: a .safetensors file with token_P and piece_PS, such as a ticket's: what it prunes stays zero"
    )
    uniform_range: float = key(0.5, "init: uniform draws from minus to plus this number", gt=0)
    bottleneck: int | None = key(
        None, "form: residual: width of its network; low-rank, ulpt: rank of the prompt; none is 400, 10 and 2", ge=1
    )
    words: int | None = key(None, "form: superpos: vocabulary entries that each token is a sum of; none is 128", ge=1)
    radius: float | None = key(
        None, "form: cpt: how far a token may move, as a fraction of a typical word's length; none is 0.1", gt=0
    )

    @field_validator("text", "file")
    @classmethod
    def _goes_with_init(cls, value: str | None, info: ValidationInfo) -> str | None:
        check_companion(value, info, "init", str(info.field_name), needed=info.field_name == "file")
        return value

    @field_validator("init")
    @classmethod
    def _goes_with_start(cls, value: str, info: ValidationInfo) -> str:
        form = info.data.get("form", PLAIN)
        if FORMS[form].start and value != "vocabulary":
            context = {"form": form, "start": FORMS[form].start}
            raise PydanticCustomError("own_start", "no init where form is {form}: it starts from {start}", context)
        return value

    @field_validator("bottleneck", "words", "radius")
    @classmethod
    def _goes_with_form(cls, value: float | None, info: ValidationInfo) -> float | None:
        forms = forms_with(str(info.field_name))
        if value is not None and info.data.get("form", forms[0]) not in forms:
            check_companion(value, info, "form", forms[0])
        return value

    def option(self, name: str) -> float:
        """A key of the form's own (`bottleneck`, `words`, `radius`), or the form's default."""
        value = getattr(self, name)
        return float(FORMS[self.form].options[name] if value is None else value)

    @property
    def tokens_of_file(self) -> bool:
        """Whether P follows the prompt file, since no other was asked for."""
        return self.init == "file" and "tokens" not in self.model_fields_set


class TuningConfig(Section):
    """How prompts are trained, at first and again after pruning."""

    epochs: int | None = key(
        None, "passes over the training set; none takes as many as make 100 steps, but at least 5", ge=1
    )
    batch_size: int = key(16, "examples of a batch", ge=1)
    accumulate: int = key(1, "parts that a batch is divided into, one after the other, to save memory", ge=1)
    optimiser: Literal["adafactor", "adamw"] = key("adafactor", "the optimiser")
    lr: Rate = key(
        LearningRate(relative=DEFAULT_RELATIVE_LR),
        "learning rate: a number, or {relative: c} for c times the RMS of the input embeddings; kind: adapt takes its "
        "method's own where none is named",
    )
    sweep: Prices | None = key(
        None, "multiples of lr that are tried on the select set first, the best of which counts; none tries lr alone"
    )
    weight_decay: float = key(1e-5, "fraction of a value that a step takes away, over the learning rate", ge=0)
    clip_threshold: float = key(1.0, "largest RMS of an update, in learning rates", gt=0)
    clip_scope: Literal["survivors", "all"] = key("survivors", "the values that this RMS is taken over")
    loss: Literal["auto", "likelihood", "rank"] = key(
        "auto",
        "negative log-likelihood of the gold answer, or cross-entropy over answers; auto asks the family",
    )
    patience: int | None = key(
        3, "evaluations without improvement before a candidate stops; none never stops early", ge=1
    )
    evaluate_every: int | None = key(
        None, "steps between evaluations; none evaluates once an epoch, at most 10 times", ge=1
    )
    eval_rows: int = key(256, "rows (prompts times examples) of one scoring call", ge=1)
    trackers: Names = key((), "names of experiment trackers that metrics also go to")
    best_by: Literal["score", "loss"] = key("score", "what chooses the checkpoint on the select set")
    latency: bool = key(False, "measure at the end how long answers take, with and without what was trained")

    def learning_rate(self, embedding_rms: float) -> float:
        """The learning rate as a number, for input embeddings of this RMS."""
        return absolute_rate(self.lr, embedding_rms)


class PruningConfig(Section):
    """What is cut and how it is chosen."""

    removal: Literal["drop", "zero"] = key(
        "drop", "tokens that are pruned whole leave the sequence (drop), or stay as zero vectors (zero, the paper's)"
    )
    levels: Literal["both", "token", "piece"] = key("both", "what is pruned: tokens and then pieces, or one of them")
    scope: Literal["global", "per_token"] = key("global", "pieces are ranked over all tokens or within each")
    rounding: Literal["nearest", "floor"] = key("nearest", "how the number of survivors is rounded")
    importance: CriterionName = key(
        "auto",
        f"what is pruned last, by {'; '.join(f'{each.summary} ({name})' for name, each in CRITERIA.items())}; auto "
        "takes the paper's where it can be measured, and leave_one_out elsewhere",
    )

    rewind: Literal["tuned", "control"] = key(
        "tuned",
        "where survivors and control start: at the tuned prompt, or at the whole prompt after a second training",
    )
    teacher: Literal["none", "tuned", "control"] = key(
        "none",
        "whose answer distribution they learn: the tuned prompt's, or the whole prompt's after a second training",
    )
    teach_weight: float = key(
        0.5, "the teacher's share of the loss; labels have the rest, and 1 leaves them out", gt=0, le=1
    )


class SearchConfig(Section):
    """Which candidates are tried."""

    strategy: Literal["auto", "grid", "sequential", "random", "learned", "gradual"] = key(
        "auto",
        "all pairs of ratios (grid), some of them (random), the token ratio first and then the piece ratio "
        "(sequential), or no ratios: gates learn what to prune (learned), or parts leave one prompt while it trains "
        "(gradual); auto is learned where neither ratios nor an importance are named and gates can learn, else "
        "sequential",
    )
    keep: Ratios = key((0.5, 0.25, 0.1), "gradual: shares of the numbers that remain, a ticket for each")
    token_ratios: Ratios = key(_TENTHS, "fractions of the tokens to prune")
    piece_ratios: Ratios = key(_TENTHS, "fractions of the kept tokens' pieces to prune")
    group: int | None = key(None, "candidates trained side by side, K; none measures how many fit", ge=1)
    epochs: int | None = key(None, "passes over the training set in retraining; none is tuning.epochs", ge=1)
    samples: int = key(12, "random: pairs of ratios that are tried, drawn by the run's seed", ge=1)
    gates: Literal["hard-concrete", "straight-through"] = key(
        "hard-concrete", "learned: how a gradient gets through a gate on a token or piece"
    )
    prices: Prices = key(
        (0.1, 0.3, 1.0, 3.0), "learned: what the whole prompt costs, in units of the loss; a ticket for each"
    )
    gate_lr: float | None = key(
        None,
        "learned: step size of the gates' logits, by Adam; none is 0.3 for hard-concrete and 0.5 for straight-through",
        gt=0,
    )
    gate_epochs: int | None = key(
        None, "learned: passes over the training set that train the gates; none is search.epochs", ge=1
    )

    @field_validator("strategy", mode="before")
    @classmethod
    def _not_removed(cls, value: object) -> object:
        if value == "halving":
            raise PydanticCustomError("removed", "search.strategy=halving was removed; use random with search.samples")
        return value


class SelectionConfig(Section):
    """How the winner is chosen and how it is compared."""

    protocol: Literal["held-out", "paper"] = key(
        "held-out", "choose on examples held out of training, or on the report set itself (paper)"
    )
    fraction: float = key(0.2, "fraction of train that is held out where there is no select set", gt=0, lt=1)
    objective: Literal["one_se", "best", "smallest_within"] = key(
        "one_se",
        "the winner: the smallest ticket within one standard error of the best (of their paired difference on "
        "select), the best, or the smallest within a margin",
    )
    within: float | None = key(None, "the margin of smallest_within, as a fraction of the metric's range", ge=0, lt=1)
    margin: float = key(
        0.02, "loss of score that is accepted for a pruned prompt, as a fraction of the metric's range", ge=0, lt=1
    )
    seeds: Seeds = key(
        "auto",
        "fresh seeds that winner, control and random mask are retrained on; auto begins with 5 (3 of the random mask) "
        "and goes on to 10 where these don't decide what to ship and more seeds may",
    )
    resamples: int = key(10_000, "bootstrap resamples of an interval", ge=1)

    @property
    def first_seeds(self) -> int:
        """Fresh seeds before anything is known."""
        return FIRST_SEEDS if self.seeds == "auto" else self.seeds

    @property
    def random_seeds(self) -> int:
        """Fresh seeds of the random mask."""
        return RANDOM_SEEDS if self.seeds == "auto" else self.seeds

    @property
    def most_seeds(self) -> int:
        """Fresh seeds where the first ones don't decide."""
        return MOST_SEEDS if self.seeds == "auto" else self.seeds

    @field_validator("within")
    @classmethod
    def _goes_with_objective(cls, value: float | None, info: ValidationInfo) -> float | None:
        check_companion(value, info, "objective", "smallest_within")
        return value


class ClusterConfig(Section):
    """The Ray cluster that `executor: ray` sends work to."""

    address: str | None = key(
        None, "a Ray cluster to join, host:port or auto; none starts Ray on this machine", min_length=1
    )
    cpus: float | None = key(None, "CPUs of one Ray task; none is the run's CPU threads", gt=0)
    gpus: float | None = key(None, "GPUs of one Ray task; none is 1 where the run's device is a GPU", ge=0)
    retries: int = key(3, "times that a task starts again when its worker or node died", ge=0)


# On these nothing but memory and time depend: a run may go on with other values of them.
MEMORY_KEYS: Final = frozenset({"search.group", "tuning.eval_rows", "tuning.accumulate", "backbone.checkpointing"})


class Recipe(RecipeBase):
    """All that a run depends on."""

    kind: Literal["xprompt", "tune", "adapt"] = key(
        "xprompt", "tune and prune a prompt, only tune it, or adapt the model another way"
    )
    backbone: BackboneConfig = Field(BackboneConfig(), description="the frozen model")
    task: TaskConfig = Field(TaskConfig(), description="what the prompt is for")
    prompt: PromptConfig = Field(PromptConfig(), description="the prompt and its first values")
    tuning: TuningConfig = Field(TuningConfig(), description="how prompts are trained")
    adapter: AdapterConfig = Field(AdapterConfig(), description="what is trained instead of a prompt")
    pruning: PruningConfig = Field(PruningConfig(), description="what is cut and how it is chosen")
    search: SearchConfig = Field(SearchConfig(), description="which candidates are tried")
    selection: SelectionConfig = Field(SelectionConfig(), description="how the winner is chosen and compared")
    seed: int = key(0, "seed of everything that is drawn", ge=0, lt=2**32)
    executor: Literal["in-process", "ray"] = key(
        "in-process", "what retrains candidates: this process, one group after the other, or Ray, many at once"
    )
    cluster: ClusterConfig = Field(ClusterConfig(), description="the Ray cluster")

    @property
    def virtual_tokens(self) -> int:
        """Positions of the model that are used before the input: P, but for methods without a prompt."""
        return 0 if self.kind == "adapt" and self.adapter.method not in VIRTUAL else self.prompt.tokens

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher answers the training rows, and those without labels."""
        if self.kind == "adapt":
            return self.adapter.method == CARTRIDGE
        return self.kind == "xprompt" and self.pruning.teacher != "none"

    def strategy(self, gates_learn: bool = True) -> str:
        """The search that `search.strategy` names, or that `auto` means.

        Args:
            gates_learn: whether a token's gate has a gradient in this model.
        """
        if self.search.strategy != "auto":
            return self.search.strategy
        # Whoever names ratios, or a criterion to prune by, wants these used; gates use neither.
        ratios_named = not self.search.model_fields_set.isdisjoint({"token_ratios", "piece_ratios"})
        by_gates = gates_learn and not ratios_named and self.pruning.importance == "auto"
        return "learned" if by_gates else "sequential"

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as JSON and YAML hold it; without a P that is yet to be read from a file."""
        unread = {"prompt": {"tokens"}} if self.prompt.tokens_of_file else None
        return self.model_dump(mode="json", by_alias=True, exclude=unread)
