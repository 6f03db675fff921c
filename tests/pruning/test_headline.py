"""The result in words: what is said, and what isn't, of numbers made by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from softprune.pruning.headline import NOTHING_PRUNED, headline, random_sentence, sentence
from softprune.recipe import resolve
from softprune.statistics.bootstrap import paired_bootstrap
from softprune.tasks.metrics import metric_named
from softprune.types import Scores

N = 40
CAVEAT = "; chosen from 9 candidates on this set; no significance claimed."


def row(value: float, low: float, high: float, parameters: int = 640) -> dict[str, Any]:
    return {"value": value, "interval": [low, high], "n": 24, "parameters": parameters}


def rows(**changed: dict[str, Any]) -> dict[str, Any]:
    good = {name: row(0.7, 0.6, 0.8) for name in ("tuned", "control")} | {"winner": row(0.7, 0.6, 0.8, 320)}
    return good | {"constant": row(1 / 3, 0.1, 0.5)} | changed


def numbers(low: float = -0.01, high: float = 0.02, **changed: object) -> dict[str, Any]:
    difference = {"value": (low + high) / 2, "low": low, "high": high}
    return {**difference, "random": difference, "seeds": 3, "detectable": 0.02, "interpretable": True} | changed


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
        (-0.01, 0.04, "no difference shown (about 2.0 points could have been seen)."),
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
    told = numbers(0.5, 0.6) | {"random": {"value": 0.0, "low": low, "high": high}}
    points = f"0.0 points ({100 * low:+.1f} to {100 * high:+.1f})"
    assert random_sentence(told, "tokens") == f"Winner minus a random mask of its size: {points}: {verdict}"


def test_the_papers_protocol_draws_no_conclusion() -> None:
    for said in (sentence(numbers(0.01, 0.04), rows(), CAVEAT), random_sentence(numbers(0.01, 0.04), "tokens", CAVEAT)):
        assert said.endswith(CAVEAT)
        assert "better" not in said


LOW = row(0.3, 0.2, 0.42)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "; the retrained prompts are, but the verdict goes by the tuned prompt. 50% of"),
        ({"winner": LOW | {"parameters": 320}}, "; the retrained control is, but the verdict goes by"),
        ({"control": LOW}, "; the retrained winner is, but the verdict goes by"),
        (
            {"control": LOW, "winner": LOW | {"parameters": 320}},
            "on 24 examples). 50% of the prompt's parameters are pruned.",
        ),
    ],
)
def test_what_is_not_interpretable_says_why(changed: dict[str, Any], told: str) -> None:
    """The value may lie above the constant answer where the interval doesn't."""
    found = numbers(interpretable=False)
    said = sentence(found, rows(tuned=row(13 / 24, 1 / 3, 17 / 24)) | changed)
    assert said.startswith(
        "Not interpretable: the tuned prompt isn't shown to be above the best constant answer "
        "(54.2%, 33.3 to 70.8, against 33.3% on 24 examples)"
    )
    assert told in said
    assert random_sentence(found, "tokens").endswith("; not interpretable either.")


@pytest.mark.parametrize("seeds", [0, 2])
def test_both_differences_are_paired_over_the_seeds_that_there_are(seeds: int) -> None:
    recipe = resolve([f"selection.seeds={seeds}", "selection.resamples=300", "pruning.levels=piece"])
    wrong = {"winner": (8, 4, 6), "control": (4, 6, 8), "random": (20, 24, 28)}
    scored = {
        f"{name}{tail}": answers(count)
        for name, counts in wrong.items()
        for tail, count in zip(("", "@0", "@1"), counts, strict=True)
    }
    found = headline(metric_named("accuracy"), recipe, None, scored, rows(), 9)
    whole = headline(metric_named("accuracy"), recipe, None, scored, rows(winner=row(0.7, 0.6, 0.8)), 9)
    assert whole["random_sentence"] == NOTHING_PRUNED != found["random_sentence"]
    read = slice(1, 3) if seeds else slice(0, 1)
    right = {name: [counts_of(count) for count in counts[read]] for name, counts in wrong.items()}
    for rival, told in (("control", found), ("random", found["random"])):
        score = metric_named("accuracy").score
        wanted = asdict(paired_bootstrap(right["winner"], right[rival], score, seed=recipe.seed, resamples=300))
        assert {name: told[name] for name in wanted} == wanted
    assert found["value"] == pytest.approx(-0.1 if not seeds else 0.05)
    assert found["random"]["value"] == pytest.approx(0.3 if not seeds else 0.525)
    assert found["seeds"] == seeds
    assert found["mcnemar"]["only_control"] == 4
    assert found["random_sentence"].endswith("the mask that importance chose is better.")
