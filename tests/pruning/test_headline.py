"""The result in words: what is said, and what isn't, of numbers made by hand."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pytest

from softprune.config import resolve
from softprune.data.metrics import metric_named
from softprune.evaluation.conclusions import NOTHING_PRUNED, Reported, conclude, random_sentence, sentence
from softprune.runs.record_parts import DifferenceRecord, Headline, ResultRow
from softprune.statistics.seeds import compare_rows
from softprune.types import Scores

N = 40
CAVEAT = "; chosen from 9 candidates on this set; no significance claimed."


def row(value: float, low: float, high: float, parameters: int = 640) -> ResultRow:
    return ResultRow(metric="accuracy", value=value, interval=(low, high), n=24, parameters=parameters)


def rows(**changed: ResultRow) -> dict[str, ResultRow]:
    good = {name: row(0.7, 0.6, 0.8) for name in ("tuned", "control")} | {"winner": row(0.7, 0.6, 0.8, 320)}
    return good | {"constant": row(1 / 3, 0.1, 0.5)} | changed


def difference(low: float, high: float, value: float | None = None) -> DifferenceRecord:
    middle = (low + high) / 2 if value is None else value
    return DifferenceRecord(value=middle, low=low, high=high, p=0.5, covers_seeds=True, seeds=3)


def numbers(
    low: float = -0.01, high: float = 0.02, random: DifferenceRecord | None = None, interpretable: bool = True
) -> Headline:
    against = difference(low, high)
    return Headline(
        comparison="winner - control",
        **against.document(),
        random=random or against,
        detectable=0.02,
        interpretable=interpretable,
        significance_claimed=True,
    )


def answers(wrong: int) -> Scores:
    """The first examples wrong, the others right."""
    gold = tuple(i % 2 for i in range(N))
    predicted = tuple(1 - g if i < wrong else g for i, g in enumerate(gold))
    return Scores((), (), predicted, gold)


def counts_of(wrong: int) -> npt.NDArray[np.float64]:
    """The same as accuracy counts it."""
    return np.array([[float(i >= wrong), 1.0] for i in range(N)])


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.04, "the ticket is better than the unpruned control."),
        (-0.04, -0.01, "the ticket is worse than the unpruned control."),
        (-0.01, 0.04, "no difference shown (smallest difference that 80% power would detect: 2 points)."),
    ],
)
def test_the_verdict_follows_the_interval(low: float, high: float, verdict: str) -> None:
    said = sentence(numbers(low, high), rows())
    points = f"{50 * (low + high):+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    assert said.startswith(f"Winner minus control: {points}")
    assert said.endswith(f"over 3 fresh seeds, with 50% of the prompt's parameters pruned: {verdict}")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.04, "the mask that importance chose is better."),
        (-0.04, -0.01, "the mask that importance chose is worse."),
        (-0.01, 0.04, "which tokens were kept isn't shown to matter."),
    ],
)
def test_a_random_mask_has_its_own_verdict(low: float, high: float, verdict: str) -> None:
    told = numbers(0.5, 0.6, random=difference(low, high, value=0.0))
    points = f"0.0 points ({100 * low:+.1f} to {100 * high:+.1f})"
    assert random_sentence(told, "tokens") == f"Winner minus a random mask of its size: {points}: {verdict}"


def test_the_papers_protocol_draws_no_conclusion() -> None:
    for said in (sentence(numbers(0.01, 0.04), rows(), CAVEAT), random_sentence(numbers(0.01, 0.04), "tokens", CAVEAT)):
        assert said.endswith(CAVEAT)
        assert "better" not in said


LOW, LOW_WINNER = (row(0.3, 0.2, 0.42, parameters) for parameters in (640, 320))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "; the retrained prompts are, but the verdict depends on the tuned prompt. 50% of"),
        ({"winner": LOW_WINNER}, "; the retrained control is, but the verdict depends on"),
        ({"control": LOW}, "; the retrained winner is, but the verdict depends on"),
        (
            {"control": LOW, "winner": LOW_WINNER},
            "on 24 examples). 50% of the prompt's parameters are pruned.",
        ),
    ],
)
def test_what_is_not_interpretable_says_why(changed: dict[str, ResultRow], told: str) -> None:
    """The value may lie above the constant answer where the interval doesn't."""
    found = numbers(interpretable=False)
    said = sentence(found, rows(tuned=row(13 / 24, 1 / 3, 17 / 24)) | changed)
    assert said.startswith(
        "Not interpretable: the tuned prompt isn't shown to be above the best constant answer "
        "(54.2%, 33.3 to 70.8, against 33.3% on 24 examples)"
    )
    assert told in said
    assert random_sentence(found, "tokens").endswith("; not interpretable either.")


def reported(seeds: int, wrong: dict[str, tuple[int, ...]], results: dict[str, ResultRow] | None = None) -> Reported:
    """Prompts with so many wrong answers on the run's own seed, and then on each fresh one."""
    scored = {
        f"{name}{tail}": answers(count)
        for name, counts in wrong.items()
        for tail, count in zip(["", *(f"@{i}" for i in range(seeds))], counts, strict=False)
    }
    return Reported(metric_named("accuracy"), None, scored, results or rows(), 9)


WRONG = {"winner": (8, 4, 6, 7), "control": (4, 6, 8, 8), "random": (20, 24, 28, 25)}


@pytest.mark.parametrize("seeds", [0, 2, 3])
def test_both_differences_are_paired_over_the_seeds_that_there_are(seeds: int) -> None:
    recipe = resolve([f"selection.seeds={seeds}", "selection.resamples=300", "pruning.levels=piece"])
    verdict, found = conclude(recipe, reported(seeds, WRONG))
    read = slice(1, 1 + seeds) if seeds else slice(0, 1)
    right = {name: [counts_of(count) for count in counts[read]] for name, counts in WRONG.items()}
    assert found.random is not None
    for rival, numbers_found in (("control", found), ("random", found.random)):
        score = metric_named("accuracy").score
        wanted = asdict(compare_rows(right["winner"], right[rival], score, seed=recipe.seed, resamples=300))
        assert {name: getattr(numbers_found, name) for name in wanted} == wanted
    assert found.fresh_seeds == seeds
    assert found.covers_seeds == (seeds >= 3)
    assert found.mcnemar is not None
    assert found.mcnemar.only_control == 4
    assert verdict.decision == ("ship the ticket" if seeds >= 3 else "no verdict")
    better = "the mask that importance chose is better."
    alone = "for these very prompts; conclusions need at least 3 fresh seeds."
    assert found.random_sentence.endswith(better if seeds >= 3 else alone)


@pytest.mark.parametrize(
    ("key", "chosen_by"),
    [
        ("pruning.importance=random", "the random criterion"),
        ("pruning.importance=norm", "importance"),
        ("search.strategy=learned", "the gates"),
    ],
)
def test_a_random_mask_is_compared_with_what_chose_the_winners(key: str, chosen_by: str) -> None:
    _, found = conclude(resolve(["selection.seeds=3", "selection.resamples=300", key]), reported(3, WRONG))
    assert found.random_sentence.endswith(f": the mask that {chosen_by} chose is better.")


def test_a_prompt_that_nothing_was_pruned_from_has_no_verdict() -> None:
    recipe = resolve(["selection.resamples=300"])
    verdict, found = conclude(recipe, reported(3, WRONG, rows(winner=row(0.7, 0.6, 0.8))))
    assert found.random_sentence == NOTHING_PRUNED
    assert verdict.sentence == "No verdict: nothing was pruned, so the ticket is the whole prompt."


@pytest.mark.parametrize(
    ("winner", "margin", "decision", "begins"),
    [
        (
            (4, 4, 4, 4, 4, 4),
            0.02,
            "ship the ticket",
            "Ship the ticket: with 50% of the parameters pruned it is better",
        ),
        (
            (8, 8, 8, 8, 8, 8),
            0.15,
            "ship the ticket",
            "Ship the ticket: with 50% of the parameters pruned it is at most",
        ),
        ((20, 19, 20, 21, 20, 20), 0.02, "ship the whole prompt", "Ship the whole prompt: the ticket, with 50% of the"),
        (
            (8, 4, 12, 8, 5, 11),
            0.02,
            "undecided",
            "Undecided whether the ticket, with 50% of the parameters pruned, is",
        ),
    ],
)
def test_the_verdict_says_what_to_ship(winner: tuple[int, ...], margin: float, decision: str, begins: str) -> None:
    recipe = resolve([f"selection.margin={margin}", "selection.resamples=300"])
    control = (12, 12, 13, 12, 11, 12) if winner[0] == 4 else (8, 8, 9, 8, 7, 8)
    verdict, found = conclude(recipe, reported(5, {"winner": winner, "control": control, "random": control}))
    assert verdict.decision == decision
    assert verdict.sentence.startswith(begins)
    assert "over 5 fresh seeds" in verdict.sentence
    assert (found.low > -margin) == (decision == "ship the ticket")
    assert (verdict.more_seeds or verdict.more_examples or 0) >= 0


def test_the_papers_protocol_and_chance_have_no_verdict() -> None:
    wrong = {"winner": (20,) * 4, "control": (8,) * 4, "random": (8,) * 4}
    paper, _ = conclude(resolve(["selection.protocol=paper", "selection.resamples=300"]), reported(3, wrong))
    assert paper.decision == "no verdict"
    assert "chosen on the examples that it is reported on" in paper.sentence
    chance, _ = conclude(resolve(["selection.resamples=300"]), reported(3, wrong, rows(tuned=LOW)))
    assert chance.decision == "no verdict"
    assert "isn't shown to be above the best constant answer" in chance.sentence
