"""XPrompt, as section 4 of the paper tells it: tune, prune tokens, prune pieces, rewind, retrain, choose.

    tuned    = tune(P)                                            4.1
    I_p      = E_x |dL/dgamma|  at the tuned prompt               4.2.1, equation 3
    gamma    = top (1 - r_t) of I_p                               4.2.1, equation 2
    I_q      = E_x |dL/dzeta|   at the token-pruned prompt        4.2.2, equation 5
    zeta     = top (1 - r_p) of I_q among the kept tokens         4.2.2, equation 4
    ticket   = retrain(tuned * gamma * zeta)                      4.3

for every (r_t, r_p) that the search asks for; the best ticket on `select` wins. Under `search.strategy: learned`
gamma and zeta are trained instead (learned_masks.py), and the rest is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch

from softprune.prompts.soft_prompts import full_mask, masked_state, read_one
from softprune.pruning.importance import Importance, measure
from softprune.pruning.learned_masks import learned
from softprune.pruning.masks import piece_mask, token_mask
from softprune.pruning.retraining import Trial, halve, retrain_all
from softprune.pruning.search import choose, foresight, pareto, search
from softprune.runs.record_parts import Foresight
from softprune.runs.run_folder import Saved
from softprune.statistics.bootstrap import paired_bootstrap
from softprune.training.jobs import Fitted, tune
from softprune.training.nan_checks import FROM_THE_MODEL, check_finite
from softprune.training.scoring import score_each
from softprune.training.session import Workspace
from softprune.types import Candidate, Mask, PromptState


@dataclass(frozen=True, slots=True)
class Pruned:
    """What the algorithm found; nothing here has seen `report`.

    Attributes:
        tuned: the unpruned prompt, which is also the rewind point.
        importance: of the tuned prompt's tokens and pieces.
        trials: every candidate, retrained, the Pareto front marked.
        winner: the chosen one.
        winner_importance_PS: pieces of the winner's token-pruned prompt, zero where a token is pruned.
    """

    tuned: Fitted
    importance: Importance
    trials: tuple[Trial, ...]
    winner: Trial
    winner_importance_PS: torch.Tensor


def xprompt(workspace: Workspace) -> Pruned:
    """Tune a prompt and find its winning ticket."""
    tuned = tune(workspace)
    importance = token_importance(workspace, tuned)
    # Where equation 3 vanishes, so does the gradient of an open token's gate.
    workspace = decided(workspace, importance.method != "leave_one_out" and not importance.vanishes)
    recipe = workspace.recipe
    trials: dict[str, Trial] = {}

    def retrain(made: Sequence[Trial]) -> list[Candidate]:
        retrained = halve if recipe.search.strategy == "halving" else retrain_all
        for trial in retrained(workspace, tuned, _rank(workspace, tuned, made)):
            trials[trial.candidate.id] = trial
        _write_candidates(workspace, list(trials.values()))
        return [trials[trial.candidate.id].candidate for trial in made]

    if recipe.search.strategy == "learned":
        retrain(learned(workspace, tuned))
    else:
        search(
            recipe.search.strategy,
            recipe.pruning.levels,
            recipe.search.token_ratios,
            recipe.search.piece_ratios,
            lambda ratios: retrain([_plan(workspace, tuned, importance, *pair) for pair in ratios]),
            lambda found: _pick(workspace, [trials[candidate.id] for candidate in found])[0],
        )
    marked = _mark(workspace, list(trials.values()))
    winner = next(trial for trial in marked if trial.candidate.status == "winner")
    _write_candidates(workspace, marked)
    pieces = _piece_importance(workspace, tuned, importance, winner.mask.token_P, winner.candidate.token_ratio)
    return Pruned(tuned, importance, tuple(marked), winner, pieces)


def decided(workspace: Workspace, gates_learn: bool = True) -> Workspace:
    """With the strategy that `auto` stands for. The run keeps it: which ratios were named, no resolved recipe tells."""
    settings = workspace.recipe.search
    strategy = workspace.run.pin("search.strategy", lambda: settings.chosen(gates_learn))
    search = settings.model_copy(update={"strategy": strategy})
    return replace(workspace, recipe=workspace.recipe.model_copy(update={"search": search}))


def token_importance(workspace: Workspace, tuned: Fitted) -> Importance:
    """Section 4.2.1: importance of the tuned prompt, tokens and (for the pictures) pieces; over all of `train`."""
    asked = workspace.recipe.pruning.importance
    with workspace.run.phase("importance"):
        found = _measured(workspace, tuned.state, "importance", asked)
    if asked in ("auto", "paper") and (found.method == "leave_one_out" or found.vanishes):
        note = f"token importance nearly vanishes ({found.token_over_piece:.1e} of the piece scores): "
        note += "the model normalises its input embeddings; " + (
            "leave-one-out importance was taken instead"
            if found.method == "leave_one_out"
            else "pruning.importance=leave_one_out measures what equation 3 can't"
        )
        with workspace.run.editing() as record:
            record.add_notes(note)
    return found


def _plan(workspace: Workspace, tuned: Fitted, importance: Importance, token_ratio: float, piece_ratio: float) -> Trial:
    """Sections 4.2.1 and 4.2.2: the mask of one pair of ratios."""
    settings = workspace.recipe.pruning
    token_P = token_mask(importance.token_P, token_ratio, settings.rounding)
    if piece_ratio:
        piece_PS = _piece_importance(workspace, tuned, importance, token_P, token_ratio)
        kept_PS = piece_mask(piece_PS, token_P, piece_ratio, settings.scope, settings.rounding)
    else:
        kept_PS = token_P[:, None].expand(importance.piece_PS.shape).clone()
    mask = Mask(token_P, kept_PS)
    candidate = Candidate(
        id=f"t{token_ratio:g}-p{piece_ratio:g}",
        token_ratio=token_ratio,
        piece_ratio=piece_ratio,
        tokens_kept=mask.tokens,
        pieces_kept=mask.pieces,
        parameters=mask.parameters(tuned.state.vectors_PH.shape[1]),
    )
    return Trial(candidate, mask)


def _piece_importance(
    workspace: Workspace, tuned: Fitted, importance: Importance, token_P: torch.Tensor, token_ratio: float
) -> torch.Tensor:
    """Piece importance `[P, S]` of the token-pruned prompt, zero in pruned rows; measured once a token ratio."""
    if bool(token_P.all()):
        return importance.piece_PS
    mask = Mask(token_P, token_P[:, None].expand(importance.piece_PS.shape).clone())
    with workspace.run.phase("importance"):
        state = masked_state(tuned.state.vectors_PH, mask)
        found = _measured(workspace, state, f"importance-t{token_ratio:g}", importance.method)
    if workspace.recipe.pruning.removal == "zero":
        return found.piece_PS.masked_fill(~token_P[:, None], 0.0)
    wide = torch.zeros_like(importance.piece_PS)
    wide[token_P] = found.piece_PS
    return wide


def _measured(workspace: Workspace, state: PromptState, work: str, method: str) -> Importance:
    """Importance of what the backbone reads of a prompt, kept under a name."""
    recipe, backbone = workspace.recipe, workspace.backbone

    def compute() -> Saved:
        prompt = read_one(state, recipe.pruning.removal).to(backbone.device, backbone.prompt_dtype)
        found = measure(backbone, prompt, workspace.train, workspace.scoring, recipe.prompt.pieces, method)
        check_finite([float(found.token_P.sum())], ["a token"], "importance", "of the tuned prompt", FROM_THE_MODEL)
        tensors = {"token_P": found.token_P, "piece_PS": found.piece_PS}
        names = ("method", "examples", "sensitivity_ratio")
        return Saved(tensors, {name: getattr(found, name) for name in names})

    saved = workspace.run.once(work, compute)
    return Importance(saved.tensors["token_P"], saved.tensors["piece_PS"], **saved.meta)


def _rank(workspace: Workspace, tuned: Fitted, trials: Sequence[Trial]) -> list[Trial]:
    """The `select` loss of every masked, unretrained prompt; forward passes only."""
    removal, backbone = workspace.recipe.pruning.removal, workspace.backbone

    def compute() -> Saved:
        prompts = [
            read_one(masked_state(tuned.state.vectors_PH, t.mask), removal).to(backbone.device, backbone.prompt_dtype)
            for t in trials
        ]
        losses = [scores.loss for scores in score_each(backbone, prompts, workspace.select, workspace.scoring)]
        check_finite(losses, [t.candidate.id for t in trials], "select loss", "before retraining", FROM_THE_MODEL)
        return Saved({}, {"losses": losses})

    with workspace.run.phase("rank"):
        losses = workspace.run.once(f"rank-{trials[0].candidate.id}-{len(trials)}", compute).meta["losses"]
    return [
        Trial(t.candidate.updated(rank_loss=loss, status="ranked"), t.mask)
        for t, loss in zip(trials, losses, strict=True)
    ]


def _mark(workspace: Workspace, trials: Sequence[Trial]) -> list[Trial]:
    """Choose the winner on `select` and mark the Pareto front."""
    candidates = [trial.candidate for trial in trials]
    winner, errors = _pick(workspace, trials)
    front = pareto(candidates)
    foreseen = foresight(candidates)
    with workspace.run.editing() as record:
        assert record.selection is not None  # written when the run was prepared
        record.selection.candidates_compared = len(candidates)
        record.selection.standard_errors = dict(errors)
        record.selection.winner = winner.id
        record.selection.foresight = None if foreseen is None else Foresight.model_validate(foreseen)
    return [
        Trial(
            t.candidate.updated(
                pareto=t.candidate.id in front,
                status="winner" if t.candidate.id == winner.id else t.candidate.status,
            ),
            t.mask,
            t.fitted,
        )
        for t in trials
    ]


def _pick(workspace: Workspace, trials: Sequence[Trial]) -> tuple[Candidate, dict[str, float]]:
    """The candidate that the run's objective chooses, and the standard errors that it used."""
    settings = workspace.recipe.selection
    errors = _standard_errors(workspace, trials) if settings.objective == "one_se" else {}
    return choose([trial.candidate for trial in trials], settings.objective, errors, settings.within), errors


def _standard_errors(workspace: Workspace, trials: Sequence[Trial]) -> dict[str, float]:
    """Bootstrap standard error of each trained candidate's difference to the best on `select`, by its id.

    Both answer the same examples, so most of what makes a single score uncertain cancels out. It is at least one
    example's worth (or group's, where examples share text): candidates that agree on all of a small set show no spread
    there, which doesn't make them certain.
    """
    trained = [trial for trial in trials if trial.fitted is not None and trial.candidate.select is not None]
    ids = [trial.candidate.id for trial in trained]
    best = ids.index(choose([trial.candidate for trial in trained], "best").id)
    backbone, removal = workspace.backbone, workspace.recipe.pruning.removal
    prompts = [
        read_one(trial.fitted.state, removal).to(backbone.device, backbone.prompt_dtype)
        for trial in trained
        if trial.fitted is not None
    ]
    metric, examples = workspace.choice, workspace.select.examples
    counts = [metric.counts(scores) for scores in score_each(backbone, prompts, workspace.select, workspace.scoring)]
    seed, resamples = workspace.recipe.seed, workspace.recipe.selection.resamples
    groups = [example.group for example in examples]
    errors = {}
    for at, name in enumerate(ids):
        found = paired_bootstrap(counts[at], counts[best], metric.score, groups, seed=seed, resamples=resamples)
        errors[name] = max(found.se_examples, metric.grain / found.units)
    return errors


def _write_candidates(workspace: Workspace, trials: Sequence[Trial]) -> None:
    """candidates.jsonl, and their masks in the same order: `token_CP`, `piece_CPS`, bool."""
    masks = {
        "token_CP": torch.stack([trial.mask.token_P for trial in trials]),
        "piece_CPS": torch.stack([trial.mask.piece_PS for trial in trials]),
    }
    workspace.run.write_tensors("masks.safetensors", masks, {"schema": "1"})
    workspace.run.write_jsonl("candidates.jsonl", [asdict(trial.candidate) for trial in trials])


def control_start(workspace: Workspace, tuned: Fitted) -> PromptState:
    """The unpruned prompt at the rewind point."""
    settings = workspace.recipe.prompt
    return PromptState(tuned.state.vectors_PH, full_mask(settings.tokens, settings.pieces))
