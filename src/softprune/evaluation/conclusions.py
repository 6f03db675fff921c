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

from softprune.config import Recipe
from softprune.data import Metric
from softprune.data.metrics import Accuracy, ExactMatch
from softprune.runs.record_parts import DifferenceRecord, Headline, McNemarRecord, ResultRow, VerdictRecord
from softprune.statistics.bootstrap import Difference, Groups, mcnemar, paired_bootstrap
from softprune.statistics.decision import Verdict, decide, detectable_by
from softprune.statistics.seeds import compare_rows, uncertainty_of
from softprune.types import Scores

# What was pruned at each `pruning.levels`.
PARTS = {"both": "tokens and pieces", "token": "tokens", "piece": "pieces"}
_RIGHT_OR_WRONG = (Accuracy.name, ExactMatch.name)
NOTHING_PRUNED = "Nothing was pruned: winner, control and random mask are the whole prompt."


@dataclass(frozen=True, slots=True)
class Reported:
    """Scores of every prompt of a run on `report`."""

    metric: Metric
    groups: Groups  # one id per example; those that share text are sampled together
    scored: Mapping[str, Scores]  # winner, control, random and the others; on fresh seed i, `winner@i` and so on
    results: Mapping[str, ResultRow]  # the rows of run.json
    candidates: int | None = None  # that the winner was chosen from, where it is known

    def seeds(self, name: str = "winner") -> int:
        """Fresh seeds on which one of winner, control and random mask was retrained; the first two on equally many."""
        return sum(scored.startswith(f"{name}@") for scored in self.scored)


def conclude(recipe: Recipe, reported: Reported) -> tuple[VerdictRecord, Headline]:
    """The `verdict` and the `headline` of run.json."""
    against = compare_retrained(recipe, reported, "control")
    random = compare_retrained(recipe, reported, "random")
    results, scored, metric = reported.results, reported.scored, reported.metric
    bar = None
    if scored["winner"].references:  # of written texts: the tuned prompt minus none
        tuned, none = metric.counts(scored["tuned"]), metric.counts(scored["zero_shot"])
        seed, resamples = recipe.seed, recipe.selection.resamples
        bar = paired_bootstrap(tuned, none, metric.score, reported.groups, seed=seed, resamples=resamples)
    claimed = recipe.selection.protocol == "held-out"
    independent = metric.name in _RIGHT_OR_WRONG and not reported.groups
    headline = Headline(
        comparison="winner - control",
        **asdict(against),
        random=DifferenceRecord(**asdict(random)),
        mcnemar=_mcnemar(metric, scored) if independent else None,
        fresh_seeds=reported.seeds(),
        examples=results["winner"].n,
        detectable=detectable_by(uncertainty_of(against)) if against.covers_seeds else None,
        interpretable=above_constant("tuned", results) if bar is None else bar.low > 0,
        significance_claimed=claimed,
    )
    if bar is not None:
        headline.above_zero_shot = DifferenceRecord(**asdict(bar))
    verdict = _verdict(recipe, reported, against, headline)
    caveat = ""
    if not claimed:
        caveat = f"; chosen from {reported.candidates} candidates on this set; no significance claimed."
    chosen_by = "importance"
    if recipe.search.strategy == "learned":
        chosen_by = "the gates"
    elif recipe.pruning.importance == "random":  # beside the row of a random mask
        chosen_by = "the random criterion"
    pruned = _pruned_share(results)
    headline.sentence = sentence(headline, results, caveat)
    headline.random_sentence = NOTHING_PRUNED
    if pruned:
        headline.random_sentence = random_sentence(headline, PARTS[recipe.pruning.levels], caveat, chosen_by)
    return VerdictRecord(**asdict(verdict), sentence=verdict_sentence(verdict, against, pruned)), headline


def compare_retrained(recipe: Recipe, reported: Reported, rival: str) -> Difference:
    """Winner minus a rival over the fresh seeds of both, or on the run's own seed where there are none."""
    metric, scored = reported.metric, reported.scored
    tails = [f"@{i}" for i in range(reported.seeds(rival))] or [""]
    winner = [metric.counts(scored[f"winner{tail}"]) for tail in tails]
    other = [metric.counts(scored[f"{rival}{tail}"]) for tail in tails]
    resamples = recipe.selection.resamples
    return compare_rows(winner, other, metric.score, reported.groups, seed=recipe.seed, resamples=resamples)


def above_constant(name: str, results: Mapping[str, ResultRow | None]) -> bool:
    """Whether a row's whole interval lies above the best constant answer; False where either wasn't measured."""
    row, constant = results.get(name), results.get("constant")
    if row is None or row.interval is None or constant is None or constant.value is None:
        return False
    return row.interval[0] > constant.value


def verdict_sentence(verdict: Verdict, against: Difference, share: float) -> str:
    """The verdict in words; `against`: winner minus control, `share`: of the parameters that were pruned."""
    margin, measured = format_points(verdict.margin), f"winner minus control {_format_difference(against)}"
    pruned = f"with {share:.0%} of the parameters pruned"
    if verdict.decision == "no verdict":
        return f"No verdict: {verdict.reason}."
    if verdict.decision == "ship the ticket":
        than = "better" if verdict.better else f"at most {margin} worse"
        return f"Ship the ticket: {pruned} it is {than} than the whole prompt ({measured})."
    if verdict.decision == "ship the whole prompt":
        return f"Ship the whole prompt: the ticket, {pruned}, is more than {margin} worse ({measured})."
    ways = []
    if verdict.more_seeds is not None:
        ways.append(f"{_count(verdict.more_seeds, 'more fresh seed')} (--fresh-seeds)")
    if verdict.more_examples is not None:
        ways.append(f"{verdict.more_examples:,} more examples to report on")
    advice = (
        "The difference lies so close to the margin that neither more seeds nor more examples alone would decide it: "
        "take another selection.margin, or add both."
    )
    if ways:
        advice = f"If the difference stays as measured, {' or '.join(ways)} would decide it."
    worse = f"at most {margin} worse than the whole prompt ({measured})"
    return f"Undecided whether the ticket, {pruned}, is {worse}. {advice}"


def sentence(found: Headline, results: Mapping[str, ResultRow], caveat: str = "") -> str:
    """Winner against control in words; `caveat` replaces the conclusion where no significance is claimed."""
    share = _pruned_share(results)
    if not found.interpretable:
        return f"Not interpretable: {_why_not(found, results)}. {share:.0%} of the prompt's parameters are pruned."
    size = f"with {share:.0%} of the prompt's parameters pruned"
    if caveat:
        return f"Winner minus control: {_format_interval(found)} {size}{caveat}"
    unclear = "no difference shown"
    if found.detectable:
        unclear += f" (smallest difference that 80% power would detect: {format_points(found.detectable)})"
    conclusion = _conclusion(found, "the ticket is {} than the unpruned control", unclear)
    return f"Winner minus control: {_format_difference(found)}, {size}: {conclusion}."


def random_sentence(found: Headline, parts: str, caveat: str = "", chosen_by: str = "importance") -> str:
    """Winner against a random mask of its size in words; `parts` were pruned, by what the mask was `chosen_by`."""
    assert found.random is not None
    points = f"Winner minus a random mask of its size: {_format_interval(found.random)}"
    if not found.interpretable:
        return f"{points}; not interpretable either."
    if caveat:
        return f"{points}{caveat}"
    unclear = f"which {parts} were kept isn't shown to matter"
    return f"{points}: {_conclusion(found.random, f'the mask that {chosen_by} chose is {{}}', unclear)}."


def format_points(fraction: float) -> str:
    """A positive number of percentage points: 2 points, 0.5 points, 1 point."""
    number = f"{100 * fraction:.1f}".removesuffix(".0")
    return f"{number} point{'s' * (number != '1')}"


def _verdict(recipe: Recipe, reported: Reported, against: Difference, found: Headline) -> Verdict:
    """Which prompt to ship; no verdict where nothing may be concluded."""
    margin, reason = recipe.selection.margin, None
    if not found.significance_claimed:
        reason = "the winner was chosen on the examples that it is reported on (selection.protocol=paper)"
    elif not found.interpretable:
        reason = _why_not(found, reported.results)
    elif not _pruned_share(reported.results):
        reason = "nothing was pruned, so the ticket is the whole prompt"
    if reason is not None:
        return Verdict("no verdict", margin, reason=reason)
    return decide(against, margin)


def _pruned_share(results: Mapping[str, ResultRow]) -> float:
    """The share of the prompt's parameters that the winner lacks."""
    winner, control = results["winner"].parameters, results["control"].parameters
    assert winner is not None
    assert control is not None
    return 1 - winner / control


def _conclusion(difference: Difference | DifferenceRecord, clear: str, unclear: str) -> str:
    """`clear` with "better" or "worse" where the interval lies on one side of zero, else `unclear`."""
    if not difference.covers_seeds:
        return "an interval over examples alone, for these very prompts; conclusions need at least 3 fresh seeds"
    if difference.low > 0:
        return clear.format("better")
    if difference.high < 0:
        return clear.format("worse")
    return unclear


def _mcnemar(metric: Metric, scored: Mapping[str, Scores]) -> McNemarRecord:
    """The shipped ticket against the control of its own seed; for independent examples, right or wrong, only."""
    winner, control = (metric.counts(scored[name])[:, 0] > 0 for name in ("winner", "control"))
    only_winner, only_control, p = mcnemar(winner, control)
    return McNemarRecord(only_winner=only_winner, only_control=only_control, p=p)


def _why_not(found: Headline, results: Mapping[str, ResultRow]) -> str:
    """Why nothing is concluded from a tuned prompt that isn't shown to do anything, and which retrained prompts are."""
    tuned, constant = results["tuned"], results["constant"]
    if found.above_zero_shot is not None:
        none = results["zero_shot"]
        difference = _format_interval(found.above_zero_shot)
        return (
            f"the tuned prompt isn't shown to write better than the model without one ({tuned.metric} "
            f"{tuned.value:.1%} against {none.value:.1%}, {difference}, on {tuned.n} examples)"
        )
    assert tuned.interval is not None
    low, high = (100 * end for end in tuned.interval)
    reason = (
        f"the tuned prompt isn't shown to be above the best constant answer "
        f"({tuned.value:.1%}, {low:.1f} to {high:.1f}, against {constant.value:.1%} on {tuned.n} examples)"
    )
    above = [name for name in ("control", "winner") if above_constant(name, results)]
    if not above:
        return reason
    who = "the retrained prompts are" if len(above) == 2 else f"the retrained {above[0]} is"
    return f"{reason}; {who}, but the verdict depends on the tuned prompt"


def _format_difference(difference: Difference | DifferenceRecord) -> str:
    """A difference with its interval, and what that covers."""
    if not difference.covers_seeds:
        return f"{_format_interval(difference)} on {_count(difference.seeds, 'seed')}"
    return f"{_format_interval(difference)} over {_count(difference.seeds, 'fresh seed')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _format_interval(difference: Difference | DifferenceRecord) -> str:
    texts = []
    for fraction in (difference.value, difference.low, difference.high):
        rounded = round(100 * fraction, 1)
        texts.append(f"{rounded:+.1f}" if rounded else "0.0")  # zero has no sign
    value, low, high = texts
    return f"{value} points ({low} to {high})"
