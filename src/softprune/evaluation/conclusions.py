"""What a run concludes: its verdict, winner against control, and winner against a random mask of its size.

Both differences are between prompts that were retrained on the same fresh seeds, and their intervals cover the sampling
of seeds and of examples (`statistics.seeds`). With fewer than three fresh seeds the interval is by example alone, says
something only about these very prompts, and there is no verdict. Nothing is concluded either where the tuned prompt
isn't shown to be above the best constant answer. Written texts have no such answer: there it must be above the model
without a prompt. The first sentences of the input, which have the constant answer's row then, are no chance level; many
a trained summariser is below them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from softprune.config import Recipe
from softprune.data import Metric
from softprune.statistics.bootstrap import Difference, Groups, mcnemar, paired_bootstrap
from softprune.statistics.decision import Verdict, decide, detectable_by
from softprune.statistics.seeds import compare_rows, uncertainty_of
from softprune.types import Scores

PARTS = {"both": "tokens and pieces", "token": "tokens", "piece": "pieces"}
"""What was pruned at each `pruning.levels`."""

NOTHING_PRUNED = "Nothing was pruned: winner, control and random mask are the whole prompt."


@dataclass(frozen=True, slots=True)
class Reported:
    """What `report` says of every prompt of a run.

    Attributes:
        metric: of the task.
        groups: one id per example; those that share text are sampled together.
        scored: winner, control, random and the others on `report`; on fresh seed i, `winner@i` and so on.
        results: the rows of run.json.
        candidates: how many the winner was chosen from; None where it isn't known.
    """

    metric: Metric
    groups: Groups
    scored: Mapping[str, Scores]
    results: Mapping[str, Any]
    candidates: int | None = None

    @property
    def seeds(self) -> int:
        """Fresh seeds on which winner and control were retrained."""
        return self.seeds_of("winner")

    def seeds_of(self, name: str) -> int:
        """Fresh seeds on which one of winner, control and random mask was retrained."""
        return sum(scored.startswith(f"{name}@") for scored in self.scored)


def conclude(recipe: Recipe, reported: Reported) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `verdict` and the `headline` of run.json.

    Args:
        recipe: of the run.
        reported: what was measured.
    """
    against = compare_retrained(recipe, reported, "control")
    random = compare_retrained(recipe, reported, "random")
    results, scored = reported.results, reported.scored
    bar = _above_zero_shot(recipe, reported) if scored["winner"].references else None
    claimed = recipe.selection.protocol == "held-out"
    found = {
        "comparison": "winner - control",
        **asdict(against),
        "random": asdict(random),
        "mcnemar": None if reported.metric.name != "accuracy" or reported.groups else _mcnemar(scored),
        "fresh_seeds": reported.seeds,
        "examples": results["winner"]["n"],
        "detectable": detectable_by(uncertainty_of(against)) if against.covers_seeds else None,
        "interpretable": above_constant("tuned", results) if bar is None else bar.low > 0,
        **({} if bar is None else {"above_zero_shot": asdict(bar)}),
        "significance_claimed": claimed,
    }
    verdict = _verdict(recipe, reported, against, found)
    caveat = "" if claimed else f"; chosen from {reported.candidates} candidates on this set; no significance claimed."
    chosen_by = "the gates" if recipe.search.strategy == "learned" else "importance"
    whole = not _pruned_share(results)
    against_random = random_sentence(found, PARTS[recipe.pruning.levels], caveat, chosen_by)
    found |= {
        "sentence": sentence(found, results, caveat),
        "random_sentence": NOTHING_PRUNED if whole else against_random,
    }
    return asdict(verdict) | {"sentence": verdict_sentence(verdict, against, _pruned_share(results))}, found


def compare_retrained(recipe: Recipe, reported: Reported, rival: str) -> Difference:
    """Winner minus a rival over the fresh seeds of both, or on the run's own seed where there are none."""
    metric, scored = reported.metric, reported.scored
    tails = [f"@{i}" for i in range(reported.seeds_of(rival))] or [""]
    winner, other = ([metric.counts(scored[f"{name}{tail}"]) for tail in tails] for name in ("winner", rival))
    resamples = recipe.selection.resamples
    return compare_rows(winner, other, metric.score, reported.groups, seed=recipe.seed, resamples=resamples)


def above_constant(name: str, results: Mapping[str, Any]) -> bool:
    """Whether a row's whole interval lies above the best constant answer."""
    return bool(results[name]["interval"][0] > results["constant"]["value"])


def verdict_sentence(verdict: Verdict, against: Difference, share: float) -> str:
    """The verdict in words.

    Args:
        verdict: to be put in words.
        against: winner minus control.
        share: of the prompt's parameters that were pruned.
    """
    margin, measured = points_of(verdict.margin), f"winner minus control {_measured(asdict(against))}"
    if verdict.decision == "no verdict":
        return f"No verdict: {verdict.reason}."
    if verdict.decision == "ship the ticket":
        than = "better than the whole prompt" if verdict.better else f"at most {margin} worse than the whole prompt"
        return f"Ship the ticket: with {share:.0%} of the parameters pruned it is {than} ({measured})."
    if verdict.decision == "ship the whole prompt":
        return (
            f"Ship the whole prompt: the ticket, with {share:.0%} of the parameters pruned, "
            f"is more than {margin} worse ({measured})."
        )
    return (
        f"Undecided whether the ticket, with {share:.0%} of the parameters pruned, is at most {margin} worse than the "
        f"whole prompt ({measured}). {_what_would_decide(verdict)}"
    )


def _what_would_decide(verdict: Verdict) -> str:
    """How many more seeds or examples an undecided run needs."""
    seeds, examples = verdict.more_seeds, verdict.more_examples
    ways = []
    if seeds is not None:
        ways.append(f"{seeds} more fresh seed{'s' * (seeds != 1)} (--fresh-seeds)")
    if examples is not None:
        ways.append(f"{examples:,} more examples to report on")
    if ways:
        return f"If the difference stays as measured, {' or '.join(ways)} would decide it."
    return (
        "The difference lies so close to the margin that neither more seeds nor more examples alone would decide it: "
        "take another selection.margin, or add both."
    )


def sentence(found: Mapping[str, Any], results: Mapping[str, Any], caveat: str = "") -> str:
    """Winner against control in words.

    Args:
        found: the headline's numbers.
        results: the rows of run.json.
        caveat: takes the place of the conclusion where no significance is claimed.
    """
    share = _pruned_share(results)
    if not found["interpretable"]:
        return f"Not interpretable: {_why_not(found, results)}. {share:.0%} of the prompt's parameters are pruned."
    size = f"with {share:.0%} of the prompt's parameters pruned"
    if caveat:
        return f"Winner minus control: {_points(found)} {size}{caveat}"
    unclear = "no difference shown"
    if found["detectable"]:
        unclear += f" (smallest difference that 80% power would detect: {points_of(found['detectable'])})"
    conclusion = _conclusion(found, "the ticket is {} than the unpruned control", unclear)
    return f"Winner minus control: {_measured(found)}, {size}: {conclusion}."


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
    return f"{points}: {_conclusion(difference, f'the mask that {chosen_by} chose is {{}}', unclear)}."


def points_of(fraction: float) -> str:
    """A positive number of percentage points: 2 points, 0.5 points, 1 point."""
    number = f"{100 * fraction:.1f}".removesuffix(".0")
    return f"{number} point{'s' * (number != '1')}"


def _verdict(recipe: Recipe, reported: Reported, against: Difference, found: Mapping[str, Any]) -> Verdict:
    """Which prompt to ship; no verdict where nothing may be concluded."""
    margin, reason = recipe.selection.margin, None
    if not found["significance_claimed"]:
        reason = "the winner was chosen on the examples that it is reported on (selection.protocol=paper)"
    elif not found["interpretable"]:
        reason = _why_not(found, reported.results)
    elif not _pruned_share(reported.results):
        reason = "nothing was pruned, so the ticket is the whole prompt"
    return decide(against, margin) if reason is None else Verdict("no verdict", margin, reason=reason)


def _pruned_share(results: Mapping[str, Any]) -> float:
    """The share of the prompt's parameters that the winner lacks."""
    return float(1 - results["winner"]["parameters"] / results["control"]["parameters"])


def _conclusion(difference: Mapping[str, Any], clear: str, unclear: str) -> str:
    """`clear` with "better" or "worse" where the interval lies on one side of zero, else `unclear`."""
    if not difference["covers_seeds"]:
        return "an interval over examples alone, for these very prompts; conclusions need at least 3 fresh seeds"
    if difference["low"] > 0:
        return clear.format("better")
    return clear.format("worse") if difference["high"] < 0 else unclear


def _above_zero_shot(recipe: Recipe, reported: Reported) -> Difference:
    """The tuned prompt minus none."""
    metric = reported.metric
    tuned, none = (metric.counts(reported.scored[name]) for name in ("tuned", "zero_shot"))
    resamples = recipe.selection.resamples
    return paired_bootstrap(tuned, none, metric.score, reported.groups, seed=recipe.seed, resamples=resamples)


def _mcnemar(scored: Mapping[str, Scores]) -> dict[str, Any]:
    """The shipped ticket against the control of its own seed; for accuracies of independent examples only."""
    winner, control = (
        [p == g for p, g in zip(scored[name].predicted, scored[name].gold, strict=True)]
        for name in ("winner", "control")
    )
    test = mcnemar(winner, control)
    return {"only_winner": test.only_a, "only_control": test.only_b, "p": test.p}


def _why_not(found: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Why nothing is concluded from a tuned prompt that isn't shown to do anything."""
    return _at_zero_shot(found, results) if "above_zero_shot" in found else _at_chance(results)


def _at_chance(results: Mapping[str, Any]) -> str:
    """That the tuned prompt may be no better than a constant answer, and which retrained prompts are."""
    tuned, constant = results["tuned"], results["constant"]["value"]
    low, high = (100 * end for end in tuned["interval"])
    reason = (
        f"the tuned prompt isn't shown to be above the best constant answer "
        f"({tuned['value']:.1%}, {low:.1f} to {high:.1f}, against {constant:.1%} on {tuned['n']} examples)"
    )
    above = [name for name in ("control", "winner") if above_constant(name, results)]
    if not above:
        return reason
    who = "the retrained prompts are" if len(above) == 2 else f"the retrained {above[0]} is"
    return f"{reason}; {who}, but the verdict depends on the tuned prompt"


def _at_zero_shot(found: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """That the tuned prompt may do nothing."""
    tuned, none = results["tuned"], results["zero_shot"]
    return (
        f"the tuned prompt isn't shown to write better than the model without one ({tuned['metric']} "
        f"{tuned['value']:.1%} against {none['value']:.1%}, {_points(found['above_zero_shot'])}, "
        f"on {tuned['n']} examples)"
    )


def _measured(difference: Mapping[str, Any]) -> str:
    """A difference with its interval, and what that covers."""
    if not difference["covers_seeds"]:
        return f"{_points(difference)} on {_count(difference['seeds'], 'seed')}"
    return f"{_points(difference)} over {_count(difference['seeds'], 'fresh seed')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _points(difference: Mapping[str, Any]) -> str:
    value, low, high = (_signed(difference[name]) for name in ("value", "low", "high"))
    return f"{value} points ({low} to {high})"


def _signed(fraction: float) -> str:
    """Percentage points; zero has no sign."""
    rounded = round(100 * fraction, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"
