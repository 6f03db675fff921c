"""XPrompt, section 4 of the paper: tune, prune tokens, prune pieces, rewind, retrain, choose.

    tuned    = tune(P)                                            4.1
    I_p      = E_x |dL/dgamma|  at the tuned prompt               4.2.1, equation 3
    gamma    = top (1 - r_t) of I_p                               4.2.1, equation 2
    I_q      = E_x |dL/dzeta|   at the token-pruned prompt        4.2.2, equation 5
    zeta     = top (1 - r_p) of I_q among the kept tokens         4.2.2, equation 4
    ticket   = retrain(tuned * gamma * zeta)                      4.3

for every (r_t, r_p) that the search asks for; the best ticket on `select` wins. Under `search.strategy: learned`
gamma and zeta are trained instead (learned_masks.py), and the rest is the same; under `gradual` parts leave the prompt
while it is retrained (gradual.py). `pruning.rewind: control` begins at a prompt that was tuned twice in place of
`tuned`, and a `pruning.teacher` is learned from in every retraining (training/teaching.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch

from softprune.config.criteria import CRITERIA
from softprune.prompts.soft_prompts import masked_state
from softprune.pruning.criteria.base import Importance
from softprune.pruning.gradual import prune_gradually
from softprune.pruning.importance import measure_once, name_criterion
from softprune.pruning.learned_masks import learn_masks
from softprune.pruning.masks import piece_mask, token_mask, whole_tokens
from softprune.pruning.search import MaskedCandidate, Ratios, Trial, choose, first_ratios, foresight, in_groups, pareto
from softprune.runs.run_folder import Saved
from softprune.statistics.bootstrap import paired_bootstrap
from softprune.training.jobs import Fitted, Group, fit, fit_groups, tune
from softprune.training.loop import FROM_THE_MODEL, check_finite
from softprune.training.scoring import score_each
from softprune.training.session import Workspace
from softprune.types import Candidate, Mask, PromptState


@dataclass(frozen=True, slots=True)
class Pruned:
    """The outcome of a search; nothing here has seen `report`."""

    tuned: Fitted  # the unpruned prompt
    whole: Fitted  # where tickets and control begin: this prompt, or what a second training made of it
    teacher: PromptState | None  # whose answers all that is retrained learns
    importance: Importance  # of `whole`
    trials: tuple[Trial, ...]  # every candidate, retrained, the Pareto front marked
    winner: Trial
    winner_importance_PS: torch.Tensor  # pieces of its token-pruned prompt, zero where a token is pruned
    keep: float | None = None  # the winner's share of the numbers, where it was pruned while it trained


def xprompt(workspace: Workspace) -> Pruned:
    """Tune a prompt and find its winning ticket."""
    tuned = tune(workspace)
    whole, teacher = choose_whole(workspace, tuned)
    importance = token_importance(workspace, whole)
    workspace = settle_strategy(workspace, gates_learn=not importance.vanishes)
    search, levels = workspace.recipe.search, workspace.recipe.pruning.levels

    def retrain_all(ratios: Sequence[Ratios]) -> list[Trial]:
        return retrain(workspace, whole, teacher, [plan(workspace, whole, importance, *pair) for pair in ratios])

    if search.strategy == "learned":
        trials = retrain(workspace, whole, teacher, learn_masks(workspace, whole))
    elif search.strategy == "gradual":
        trials = prune_gradually(workspace, whole, teacher)
    else:
        tokens, pieces, seed = search.token_ratios, search.piece_ratios, workspace.recipe.seed
        trials = retrain_all(first_ratios(search.strategy, levels, tokens, pieces, search.samples, seed))
    if search.strategy == "sequential" and levels == "both":
        _write_candidates(workspace, trials)
        token_ratio = pick_winner(workspace, trials)[0].token_ratio
        trials += retrain_all([(token_ratio, piece_ratio) for piece_ratio in search.piece_ratios])
    _write_candidates(workspace, trials)  # before the choice too, which takes a while
    trials = mark_winner(workspace, trials)
    _write_candidates(workspace, trials)
    winner = next(trial for trial in trials if trial.candidate.status == "winner")
    pieces_PS = _piece_importance(workspace, whole, importance, winner.mask.token_P, winner.candidate.token_ratio)
    keep = None
    if search.strategy == "gradual":
        keep = next(share for share, trial in zip(search.keep, trials, strict=True) if trial is winner)
    return Pruned(tuned, whole, teacher, importance, tuple(trials), winner, pieces_PS, keep)


def choose_whole(workspace: Workspace, tuned: Fitted) -> tuple[Fitted, PromptState | None]:
    """Where survivors begin, and the teacher; either may be the whole prompt after a second training by labels.

    The seconds of the first include the teacher's: all that is retrained needs both.
    """
    settings = workspace.recipe.pruning
    prompts = {"tuned": tuned}
    if "control" in (settings.rewind, settings.teacher):
        title, epochs = "training the whole prompt again", workspace.recipe.search.epochs
        group = Group("again", ("again",), (tuned.state,), "again", title, epochs)
        with workspace.run.phase("tune"):
            again = fit(workspace, group)[0]
        prompts["control"] = replace(again, seconds=tuned.seconds + again.seconds)
    teacher = None
    if settings.teacher != "none":
        teacher = prompts[settings.teacher].state
    return replace(prompts[settings.rewind], seconds=max(each.seconds for each in prompts.values())), teacher


def settle_strategy(workspace: Workspace, gates_learn: bool = True) -> Workspace:
    """With the strategy that `auto` means."""
    recipe = workspace.recipe
    # The run keeps it: a resolved recipe no longer says which ratios its author named.
    strategy = workspace.run.pin("search.strategy", lambda: recipe.strategy(gates_learn))
    search = recipe.search.model_copy(update={"strategy": strategy})
    return replace(workspace, recipe=recipe.model_copy(update={"search": search}))


# --- section 4.2: importance and masks ---


def token_importance(workspace: Workspace, tuned: Fitted) -> Importance:
    """Section 4.2.1: importance of the tuned prompt, tokens and (for the pictures) pieces; over all of `train`."""
    recipe, asked = workspace.recipe, name_criterion(workspace.recipe)
    with workspace.run.phase("importance"):
        importance = measure_once(workspace, tuned.state, "importance", asked)
    notes = []
    if importance.vanishes and (asked == "auto" or CRITERIA[asked].scales):
        instead = "pruning.importance=leave_one_out measures what this criterion can't"
        if asked == "auto":
            instead = "leave-one-out importance was taken instead"
        size = f"{importance.token_over_piece:.1e} of the piece scores"
        cause = "the model normalises its input embeddings"
        notes.append(f"token importance nearly vanishes ({size}): {cause}; {instead}")
    if asked != "auto" and recipe.search.strategy == "learned":
        notes.append(f"pruning.importance={asked} chose nothing, since gates did (search.strategy=learned)")
    with workspace.run.editing() as record:
        record.add_notes(*notes)
    return importance


def plan(
    workspace: Workspace, tuned: Fitted, importance: Importance, token_ratio: float, piece_ratio: float
) -> MaskedCandidate:
    """Sections 4.2.1 and 4.2.2: the mask of one pair of ratios."""
    settings = workspace.recipe.pruning
    token_P = token_mask(importance.token_P, token_ratio, settings.rounding)
    mask = whole_tokens(token_P, workspace.recipe.prompt.pieces)
    if piece_ratio:
        piece_PS = _piece_importance(workspace, tuned, importance, token_P, token_ratio)
        mask = Mask(token_P, piece_mask(piece_PS, token_P, piece_ratio, settings.scope, settings.rounding))
    name, hidden = f"t{token_ratio:.12g}-p{piece_ratio:.12g}", tuned.state.vectors_PH.shape[1]
    return MaskedCandidate.make(name, mask, hidden, token_ratio, piece_ratio)


def _piece_importance(
    workspace: Workspace, tuned: Fitted, importance: Importance, token_P: torch.Tensor, token_ratio: float
) -> torch.Tensor:
    """Piece importance `[P, S]` of the token-pruned prompt, zero in pruned rows; measured once a token ratio."""
    if bool(token_P.all()):
        return importance.piece_PS
    with workspace.run.phase("importance"):
        state = masked_state(tuned.state.vectors_PH, whole_tokens(token_P, workspace.recipe.prompt.pieces))
        piece_QS = measure_once(workspace, state, f"importance-t{token_ratio:.12g}", importance.method).piece_PS
    if workspace.recipe.pruning.removal == "zero":
        return piece_QS.masked_fill(~token_P[:, None], 0.0)
    piece_PS = torch.zeros_like(importance.piece_PS)
    piece_PS[token_P] = piece_QS
    return piece_PS


# --- section 4.3: rewinding, retraining, choosing ---


def retrain(
    workspace: Workspace, whole: Fitted, teacher: PromptState | None, candidates: Sequence[MaskedCandidate]
) -> list[Trial]:
    """Section 4.3: rewind the survivors of every candidate to the whole prompt's values and train them to the end.

    K of them train at once.
    """
    recipe = workspace.recipe
    starts = {each.candidate.id: masked_state(whole.state.vectors_PH, each.mask) for each in candidates}

    def losses_before() -> Saved:  # of the masked, unretrained prompts, for `foresight`
        prompts = [workspace.prompt(state) for state in starts.values()]
        losses = [s.loss for s in score_each(workspace.backbone, prompts, workspace.select, workspace.scoring)]
        check_finite(losses, list(starts), "select loss", "before retraining", FROM_THE_MODEL)
        return Saved({}, {"losses": losses})

    # A sequential search retrains twice: the names of its two lists of candidates must differ.
    with workspace.run.phase("rank"):
        losses = workspace.run.once(f"rank-{next(iter(starts))}-{len(starts)}", losses_before).meta["losses"]
    groups = []
    lengths = [each.mask.tokens for each in candidates]
    for places in in_groups(lengths, workspace.group, recipe.pruning.removal):
        names = tuple(candidates[place].candidate.id for place in places)
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        groups.append(
            Group(
                work=f"retrain-{names[0]}-{len(names)}",
                names=names,
                starts=tuple(starts[name] for name in names),
                phase="retrain",
                title=f"retraining {', '.join(names[:2])}{more}",
                epochs=recipe.search.epochs,
                teacher=teacher,
            )
        )
    fitted = fit_groups(workspace, groups, "retrain")
    trials = []
    for each, loss in zip(candidates, losses, strict=True):
        retrained = fitted[each.candidate.id]
        score, select_loss = retrained.evaluation.score, retrained.evaluation.loss
        candidate = replace(each.candidate, rank_loss=loss, status="trained", select=score, select_loss=select_loss)
        trials.append(Trial(candidate, each.mask, retrained))
    return trials


def mark_winner(workspace: Workspace, trials: Sequence[Trial]) -> list[Trial]:
    """Choose the winner on `select` and mark the Pareto front."""
    candidates = [trial.candidate for trial in trials]
    winner, errors = pick_winner(workspace, trials)
    front = pareto(candidates)
    with workspace.run.editing() as record:
        assert record.selection is not None  # written when the run was prepared
        record.selection.candidates_compared = len(candidates)
        record.selection.standard_errors = dict(errors)
        record.selection.winner = winner.id
        record.selection.foresight = foresight(candidates)
    marked = []
    for trial in trials:
        candidate = replace(trial.candidate, pareto=trial.candidate.id in front)
        if candidate.id == winner.id:
            candidate = replace(candidate, status="winner")
        marked.append(replace(trial, candidate=candidate))
    return marked


def pick_winner(workspace: Workspace, trials: Sequence[Trial]) -> tuple[Candidate, dict[str, float]]:
    """The candidate that the run's objective chooses, and the standard errors that it used."""
    settings = workspace.recipe.selection
    errors = standard_errors(workspace, trials) if settings.objective == "one_se" else {}
    return choose([trial.candidate for trial in trials], settings.objective, errors, settings.within), errors


def standard_errors(workspace: Workspace, trials: Sequence[Trial]) -> dict[str, float]:
    """Bootstrap standard error of each candidate's difference to the best on `select`, by its id.

    Both answer the same examples, so most of what makes a single score uncertain cancels out. It is at least one
    example's worth (or group's, where examples share text): candidates that agree on all of a small set show no spread
    there, which doesn't make them certain.
    """
    ids = [trial.candidate.id for trial in trials]
    best = ids.index(choose([trial.candidate for trial in trials], "best").id)
    prompts = [workspace.prompt(trial.fitted.state) for trial in trials]
    scores = score_each(workspace.backbone, prompts, workspace.select, workspace.scoring)
    metric, groups = workspace.task.choice, [example.group for example in workspace.select.examples]
    counts = [metric.counts(each) for each in scores]
    seed, resamples = workspace.recipe.seed, workspace.recipe.selection.resamples
    errors = {}
    for name, own in zip(ids, counts, strict=True):
        difference = paired_bootstrap(own, counts[best], metric.score, groups, seed=seed, resamples=resamples)
        errors[name] = max(difference.se_examples, metric.grain / difference.units)
    return errors


def _write_candidates(workspace: Workspace, trials: Sequence[Trial]) -> None:
    """candidates.jsonl, and their masks in the same order: `token_CP`, `piece_CPS`, bool."""
    masks = {
        "token_CP": torch.stack([trial.mask.token_P for trial in trials]),
        "piece_CPS": torch.stack([trial.mask.piece_PS for trial in trials]),
    }
    workspace.run.write_tensors("masks.safetensors", masks, {"schema": "1"})
    workspace.run.write_jsonl("candidates.jsonl", [asdict(trial.candidate) for trial in trials])
