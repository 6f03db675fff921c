"""Frozen values that the stages hand on, and the axes that their shapes are written in.

Axes, in this order wherever they meet, and as name suffixes where the maths is dense (`importance_KPS`):

| axis | meaning |
|---|---|
| K | candidates trained or scored side by side |
| B | examples of a batch |
| P | prompt tokens |
| N | input tokens |
| H | dimensions of the backbone's embeddings |
| S | pieces of a prompt token (equal parts of its H dimensions) |
| A | candidate answers of an example |
| T | tokens of an answer |
| L | layers |
| V | vocabulary |
| R | rows of one backbone call: K x B when crossed, B when paired |

`[B, P + N, H]` reads as usual. Files hold fractions, seconds and bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of a filled template."""

    text: str  # the characters, exactly as they are to be read
    shortenable: bool = False  # whether truncation may cut its end
    answer_slot: bool = False  # the place of the answer; `text` is empty. A masked model puts its mask tokens here
    from_row: bool = False  # whether it is a field of the row, and not the template's own words


@dataclass(frozen=True, slots=True)
class Chat:
    """That an example is a user's turn of a conversation, which the tokenizer's own chat template renders."""

    system: str = ""  # what the system's turn says; a conversation without one where empty
    # Where the soft prompt goes: in front of everything, or at the beginning of the system's text.
    place: Literal["front", "system"] = "front"
    options: tuple[tuple[str, object], ...] = ()  # what the template takes beside messages, such as `enable_thinking`


@dataclass(frozen=True, slots=True)
class Example:
    """One item of a task, its template filled."""

    id: str  # unique within its split
    index: int  # the row in the source file or data set, from 0 (MultiRC: of the answer option)
    segments: tuple[Segment, ...]  # the filled template, in order; their texts joined are the whole input
    # The A candidate answers as text; they may depend on the example (COPA, WSC). A single one is no candidate but a
    # target text, to be written (targets of kind `text`).
    answers: tuple[str, ...]
    gold: int  # position of the right answer in `answers`; -1 where a row doesn't tell it
    group: str | None = None  # resampling unit of the intervals where examples share a passage (MultiRC), else None
    task: str = ""  # which task it is of, where a prompt serves several; else empty
    # How it becomes a conversation; None for a plain text. Runs hash examples by their `repr`, and their task apart.
    chat: Chat | None = field(default=None, repr=False)

    @property
    def is_generation(self) -> bool:
        """Whether its answer is a text to be written, and not one to choose."""
        return len(self.answers) == 1

    @property
    def text(self) -> str:
        """The whole input without the answer, as a person would read it."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def content(self) -> str:
        """The fields of the row alone, as a classifier reads them that needs no template."""
        return " ".join(segment.text.strip() for segment in self.segments if segment.from_row).strip()


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example, computed once."""

    input_ids: tuple[int, ...]  # the input with the model's special tokens; an answer slot holds one placeholder token
    slot: int  # position of that placeholder in `input_ids`, or -1 where the family has none
    # Per answer, its scored token ids (EOS included for seq2seq, and wherever a whole text is written).
    answer_ids: tuple[tuple[int, ...], ...]
    gold: int  # position of the right answer
    cut: int = 0  # input tokens that truncation took away
    target_cut: int = 0  # the same of a target text
    # How many of `input_ids` precede the prompt; None for as many as the family has it.
    place: int | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded examples as padded tensors. Padding is always on the right; masks say what is real."""

    input_ids: torch.Tensor  # `[B, N]` long
    input_mask: torch.Tensor  # `[B, N]` long, 1 where real
    answer_ids: torch.Tensor  # `[B, A, T]` long
    answer_mask: torch.Tensor  # `[B, A, T]` bool; an answer without any token does not exist for that example
    gold: torch.Tensor  # `[B]` long
    slot: torch.Tensor  # `[B]` long, position of the answer slot, -1 where there is none
    places: tuple[int | None, ...] = ()  # each example's `Encoded.place`; empty where all are None

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])


@dataclass(frozen=True, slots=True)
class Mask:
    """Which tokens and pieces of a prompt survive."""

    token_P: torch.Tensor  # gamma of equation 2, `[P]` bool
    piece_PS: torch.Tensor  # zeta of equation 4, `[P, S]` bool; all False where the token is pruned

    @property
    def tokens(self) -> int:
        """Number of surviving tokens."""
        return int(self.token_P.sum())

    @property
    def pieces(self) -> int:
        """Number of surviving pieces."""
        return int(self.piece_PS.sum())

    def parameters(self, hidden: int) -> int:
        """Surviving numbers for tokens of `hidden` dimensions."""
        return self.pieces * (hidden // self.piece_PS.shape[1])

    def elements_PH(self, hidden: int) -> torch.Tensor:
        """The mask of single dimensions, `[P, H]` bool."""
        return self.piece_PS.repeat_interleave(hidden // self.piece_PS.shape[1], dim=1)


@dataclass(frozen=True, slots=True)
class PromptState:
    """A prompt's values and what survives of them."""

    vectors_PH: torch.Tensor  # `[P, H]` float32; exactly zero where masked
    mask: Mask  # the survivors


@dataclass(frozen=True, slots=True)
class Scores:
    """What a set of examples said about one prompt.

    A metric reads what it needs; what wasn't measured is empty.
    """

    # Per example, the score of each of its answers (log-probability units).
    answer_scores: tuple[tuple[float, ...], ...] = ()
    losses: tuple[float, ...] = ()  # per example, the run's loss
    predicted: tuple[int, ...] = ()  # per example, the argmax; ties go to the lower index
    gold: tuple[int, ...] = ()  # per example, the right answer
    texts: tuple[str, ...] = ()  # per example, what was generated
    references: tuple[str, ...] = ()  # per example, the target text, where targets are texts

    @property
    def loss(self) -> float:
        """Mean loss over the examples."""
        return sum(self.losses) / len(self.losses)


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A piece of work that an executor may run: a name unique in the run and what it needs."""

    id: str
    payload: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What a piece of work gave back under its name."""

    id: str
    value: object


@dataclass(frozen=True, slots=True)
class Candidate:
    """One choice of ratios and what is known about it so far; a line of candidates.jsonl."""

    id: str  # unique in the run, such as `t0.3-p0.5`
    token_ratio: float  # fraction of the tokens that is pruned
    piece_ratio: float  # fraction of the kept tokens' pieces that is pruned
    # The size of the ticket.
    tokens_kept: int
    pieces_kept: int
    parameters: int
    rank_loss: float | None = None  # `select` loss of the masked, unretrained prompt; None where not measured
    status: str = "planned"  # planned, trained or winner
    # Metric and loss on `select` at its best checkpoint; None before it is trained.
    select: float | None = None
    select_loss: float | None = None
    # Metric on `report` and its 95% interval; only for tickets on the Pareto front.
    report: float | None = None
    interval: tuple[float, float] | None = None
    pareto: bool = False  # whether no other trained candidate is both smaller and better on `select`
