"""The result in two sentences: winner against control, and winner against a random mask of its size.

Both are paired over the examples of `report` and averaged over the fresh seeds, or on the run's own seed where there
are none. Nothing is concluded where the tuned prompt isn't shown to be above the best constant answer. Written texts
have no such answer: there it must be above the model without a prompt, by the same paired test. The first sentences of
the input, which stand in the constant answer's row, are no chance level; many a trained summariser is below them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from softprune.recipe import Recipe
from softprune.statistics.bootstrap import Difference, Groups, mcnemar, paired_bootstrap
from softprune.tasks import Metric
from softprune.types import Scores

PARTS = {"both": "tokens and pieces", "token": "tokens", "piece": "pieces"}
"""What was pruned at each `pruning.levels`."""

NOTHING_PRUNED = "Nothing was pruned: winner, control and random mask are the whole prompt."


def headline(
    metric: Metric,
    recipe: Recipe,
    groups: Groups,
    scored: Mapping[str, Scores],
    results: Mapping[str, Any],
    candidates: int | None,
) -> dict[str, Any]:
    """The `headline` of run.json.

    Args:
        metric: of the task.
        recipe: of the run.
        groups: one id per example of `report`, as in `paired_bootstrap`.
        scored: winner, control and random on `report`; on fresh seed i, `winner@i` and so on.
        results: the rows of run.json.
        candidates: how many the winner was chosen from.
    """
    against = _difference(metric, recipe, groups, scored, "control")
    bar = _above_zero_shot(metric, recipe, groups, scored) if scored["winner"].references else None
    claimed = recipe.selection.protocol == "held-out"
    found = {
        "comparison": "winner - control",
        **asdict(against),
        "random": asdict(_difference(metric, recipe, groups, scored, "random")),
        "mcnemar": None if metric.name != "accuracy" or groups else _mcnemar(scored),
        "seeds": recipe.selection.seeds,
        # The interval spans 2 x 1.96 standard errors; a test at 5% finds 2.80 of them with 80% power.
        "detectable": 2.80 * (against.high - against.low) / 3.92 or None,
        "interpretable": above_constant("tuned", results) if bar is None else bar.low > 0,
        **({} if bar is None else {"above_zero_shot": asdict(bar)}),
        "significance_claimed": claimed,
    }
    caveat = "" if claimed else f"; chosen from {candidates} candidates on this set; no significance claimed."
    chosen_by = "the gates" if recipe.search.strategy == "learned" else "importance"
    whole = results["winner"]["parameters"] == results["control"]["parameters"]
    against_random = random_sentence(found, PARTS[recipe.pruning.levels], caveat, chosen_by)
    return found | {
        "sentence": sentence(found, results, caveat),
        "random_sentence": NOTHING_PRUNED if whole else against_random,
    }


def above_constant(name: str, results: Mapping[str, Any]) -> bool:
    """Whether a row's whole interval lies above the best constant answer."""
    return bool(results[name]["interval"][0] > results["constant"]["value"])


def sentence(found: Mapping[str, Any], results: Mapping[str, Any], caveat: str = "") -> str:
    """Winner against control in words.

    Args:
        found: the headline's numbers.
        results: the rows of run.json.
        caveat: what stands in the verdict's place where no significance is claimed.
    """
    share = 1 - results["winner"]["parameters"] / results["control"]["parameters"]
    if not found["interpretable"]:
        why = _at_zero_shot(found, results) if "above_zero_shot" in found else _at_chance(results)
        return f"Not interpretable: {why}. {share:.0%} of the prompt's parameters are pruned."
    size = f"with {share:.0%} of the prompt's parameters pruned"
    points = f"Winner minus control: {_points(found)}"
    if caveat:
        return f"{points} {size}{caveat}"
    seen = found["detectable"]
    unclear = "no difference shown" + (f" (about {100 * seen:.1f} points could have been seen)" if seen else "")
    verdict = _verdict(found, "the ticket is {} than the unpruned control", unclear)
    seeds = found["seeds"]
    over = f"over {seeds} fresh seed{'s' * (seeds > 1)}" if seeds else "on the run's own seed"
    return f"{points} {over}, {size}: {verdict}."


def random_sentence(found: Mapping[str, Any], parts: str, caveat: str = "", chosen_by: str = "importance") -> str:
    """Winner against a random mask of its size in words.

    Args:
        found: the headline's numbers.
        parts: what was pruned, in the plural.
        caveat: as in `sentence`.
        chosen_by: what made the winner's mask.
    """
    difference = found["random"]
    points = f"Winner minus a random mask of its size: {_points(difference)}"
    if not found["interpretable"]:
        return f"{points}; not interpretable either."
    if caveat:
        return f"{points}{caveat}"
    unclear = f"which {parts} were kept isn't shown to matter"
    return f"{points}: {_verdict(difference, f'the mask that {chosen_by} chose is {{}}', unclear)}."


def _verdict(difference: Mapping[str, Any], clear: str, unclear: str) -> str:
    """`clear` with "better" or "worse" where the interval lies on one side of zero, else `unclear`."""
    if difference["low"] > 0:
        return clear.format("better")
    return clear.format("worse") if difference["high"] < 0 else unclear


def _difference(metric: Metric, recipe: Recipe, groups: Groups, scored: Mapping[str, Scores], rival: str) -> Difference:
    """Winner minus a rival."""
    tails = [f"@{i}" for i in range(recipe.selection.seeds)] or [""]
    winner, other = (
        [metric.counts(s) for s in (scored[f"{name}{tail}"] for tail in tails)] for name in ("winner", rival)
    )
    resamples = recipe.selection.resamples
    return paired_bootstrap(winner, other, metric.score, groups, seed=recipe.seed, resamples=resamples)


def _above_zero_shot(metric: Metric, recipe: Recipe, groups: Groups, scored: Mapping[str, Scores]) -> Difference:
    """The tuned prompt minus none."""
    tuned, none = (metric.counts(scored[name]) for name in ("tuned", "zero_shot"))
    return paired_bootstrap(tuned, none, metric.score, groups, seed=recipe.seed, resamples=recipe.selection.resamples)


def _mcnemar(scored: Mapping[str, Scores]) -> dict[str, Any]:
    """The shipped ticket against the control of its own seed; for accuracies of independent examples only."""
    winner, control = (
        [p == g for p, g in zip(scored[name].predicted, scored[name].gold, strict=True)]
        for name in ("winner", "control")
    )
    test = mcnemar(winner, control)
    return {"only_winner": test.only_a, "only_control": test.only_b, "p": test.p}


def _at_chance(results: Mapping[str, Any]) -> str:
    """That the tuned prompt may be no better than a constant answer, and which retrained prompts are."""
    tuned, constant = results["tuned"], results["constant"]["value"]
    low, high = (100 * end for end in tuned["interval"])
    told = (
        f"the tuned prompt isn't shown to be above the best constant answer "
        f"({tuned['value']:.1%}, {low:.1f} to {high:.1f}, against {constant:.1%} on {tuned['n']} examples)"
    )
    above = [name for name in ("control", "winner") if above_constant(name, results)]
    if not above:
        return told
    who = "the retrained prompts are" if len(above) == 2 else f"the retrained {above[0]} is"
    return f"{told}; {who}, but the verdict goes by the tuned prompt"


def _at_zero_shot(found: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """That the tuned prompt may do nothing."""
    tuned, none = results["tuned"], results["zero_shot"]
    return (
        f"the tuned prompt isn't shown to write better than the model without one ({tuned['metric']} "
        f"{tuned['value']:.1%} against {none['value']:.1%}, {_points(found['above_zero_shot'])}, "
        f"on {tuned['n']} examples)"
    )


def _points(difference: Mapping[str, Any]) -> str:
    value, low, high = (_signed(difference[name]) for name in ("value", "low", "high"))
    return f"{value} points ({low} to {high})"


def _signed(fraction: float) -> str:
    """Percentage points; zero has no sign."""
    rounded = round(100 * fraction, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"
