"""What a run can prune by: `pruning.importance`. Each criterion's equation is in its module of `pruning/criteria`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Criterion:
    """A criterion of what to prune last."""

    summary: str  # of a part's number, for the help text of the recipe key
    gloss: str  # the same for the run's page, beside the criterion's name
    meaning: str  # of a token's number, for the figure of token importance
    # Labelled examples by their gradients, or by their losses without each part in turn; the vectors alone; or nothing.
    reads: Literal["gradients", "losses", "vectors", "nothing"]
    scales: bool = False  # whether it is what scaling a part changes: nothing, if the model normalises its embeddings
    squares: bool = False  # whether it is the square of that

    def passes(self, tokens: int, pieces: int) -> int:
        """About how many forward passes over `train` it takes on a prompt of so many tokens of so many pieces each."""
        if self.reads == "losses":
            return 1 + tokens * (1 + pieces)
        return 3 if self.reads == "gradients" else 0  # a pass with gradients is about three without


CRITERIA: Final = {
    "paper": Criterion(
        summary="expected sensitivity of the loss to the mask",
        gloss="equations 3 and 5 of XPrompt, arXiv 2210.04457",
        meaning="how strongly the loss reacts when the tuned prompt's token is scaled",
        reads="gradients",
        scales=True,
    ),
    "gradient": Criterion(
        summary="magnitude of the gradient",
        gloss="the magnitude of the loss's gradient",
        meaning="the size of the loss's gradient at the tuned prompt's token",
        reads="gradients",
    ),
    "leave_one_out": Criterion(
        summary="the loss without it",
        gloss="the loss without a part minus the loss with it",
        meaning="how much the loss grows when the tuned prompt's token is masked; below 0 it falls",
        reads="losses",
    ),
    "taylor": Criterion(
        summary="squared first-order change of the mean loss",
        gloss="the squared first-order change of the mean loss without a part, Molchanov et al. 2019",
        meaning="the squared slope of the mean loss when the tuned prompt's token is scaled",
        reads="gradients",
        scales=True,
        squares=True,
    ),
    "fisher": Criterion(
        summary="second-order change of the loss by a diagonal Fisher matrix",
        gloss="half the mean squared slope of an example's loss when a part is scaled, Kwon et al. 2022",
        meaning="half the mean squared slope of an example's loss when the tuned prompt's token is scaled",
        reads="gradients",
        scales=True,
        squares=True,
    ),
    "norm": Criterion(
        summary="the vector's length, without any example",
        gloss="the length of a part's vector",
        meaning="the length of the tuned prompt's token",
        reads="vectors",
    ),
    "random": Criterion(
        summary="numbers that the seed draws",
        gloss="numbers drawn by the run's seed; the row of a random mask has other draws",
        meaning="a number that the run's seed drew for the tuned prompt's token",
        reads="nothing",
    ),
}
