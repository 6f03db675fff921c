"""Whole runs on tiny models and a task of one's own: what they leave, in which order, and that it repeats."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys import distance
from whole_runs import BEFORE_REPORT, CASES, HIDDEN, Models, P, Run, S, execute_one, recipe_of

from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.evaluation import baselines
from softprune.models import load_backbone
from softprune.pipelines.xprompt import execute
from softprune.pipelines.xprompt import tune as tune_from_python
from softprune.prompts.soft_prompts import masked_state, read_one
from softprune.prompts.ticket import Ticket
from softprune.pruning import importance, xprompt
from softprune.pruning.criteria import paper
from softprune.pruning.masks import piece_mask, token_mask
from softprune.pruning.search import choose, pareto
from softprune.training.scoring import ScoredSet, Scoring, score_prompts
from softprune.types import Candidate, Mask, PromptState, Segment

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
PRUNING = {"importance.safetensors", "prompts/control.safetensors"}
# run.json and candidates.jsonl, as DESIGN.md's contract lists them.
KEYS = {"schema", "kind", "status", "command", "seed", "versions", "hardware", "threads", "backbone", "task"}
KEYS |= {"selection", "removal", "K", "results", "ticket", "cost", "error"}
CANDIDATE_KEYS = {"id", "token_ratio", "piece_ratio", "tokens_kept", "pieces_kept", "parameters", "rank_loss"}
CANDIDATE_KEYS |= {"status", "select", "report", "interval"}
FILES = ("recipe.yaml", "resolved.yaml", "run.json", "metrics.jsonl", "prompts/initial.safetensors", "COMPLETE")
FILES += ("neighbours.json",)
PRUNED = [case for case in CASES if case != "tune"]


@pytest.mark.parametrize("case", CASES)
def test_a_run_leaves_what_the_contract_says(case: str, run_of: Callable[[str], Run]) -> None:
    run = run_of(case)
    info, tuned_only = run.info, case == "tune"
    untrained = ["zero_shot", "instruction"]
    rows = [*untrained, "tuned"] if tuned_only else [*untrained, "tuned", "control", "winner", "random"]
    wanted = {*FILES, *(f"predictions/{name}.jsonl" for name in rows), *BEFORE_REPORT} - (
        PRUNING if tuned_only else set()
    )
    seeds = range(run.recipe.selection.first_seeds)
    if not tuned_only:
        wanted |= {f"control/{name}" for name in ("ticket.json", "ticket.safetensors", "results.json")}
        wanted |= {f"predictions/fresh/{name}-{i}.jsonl" for name in ("winner", "control", "random") for i in seeds}
    wanted |= {"ticket/results.json"} | (set() if tuned_only else {"candidates.jsonl", "masks.safetensors"})
    wanted |= {"gates.safetensors"} if "learned" in case else set()
    left = {str(path.relative_to(run.out)) for path in run.out.rglob("*") if path.is_file()} - {".lock"}
    assert left == wanted
    assert (run.out / "report").is_dir()
    assert set(info) >= KEYS
    assert (info["kind"], info["status"], info["error"]) == ("tune" if tuned_only else "xprompt", "complete", None)
    assert set(info["backbone"]) >= {"name", "family", "fingerprint", "dtype", "device"}
    assert set(info["task"]) >= {"id", "version", "indices", "truncated"}
    costs = ("seconds", "steps", "examples_per_second", "peak_memory_bytes", "trainable_parameters")
    assert all(info["cost"][name] > 0 for name in costs)
    assert (info["threads"], info["K"]) == (torch.get_num_threads(), 3)
    assert info["removal"] == (None if tuned_only else run.recipe.pruning.removal)
    for name in ("constant", *rows):
        row = info["results"][name]
        assert row["metric"] == "accuracy"
        assert row["n"] == 15
        assert row["interval"][0] <= row["value"] <= row["interval"][1]
        assert sum(row["predicted"].values()) == 15
    assert [name for name, row in info["results"].items() if row is None] == (
        ["control", "winner", "random"] if tuned_only else []
    )
    assert info["results"]["constant"]["value"] == pytest.approx(1 / 3)
    told = json.loads((run.out / "ticket" / "results.json").read_text())
    assert list(told) == (["tuned"] if tuned_only else ["winner", "control", "tuned"]) + ["zero_shot", "constant"]
    for name, row in told.items():
        assert row == {key: info["results"][name][key] for key in ("value", "interval", "n")}


@pytest.mark.parametrize("case", PRUNED)
def test_every_candidates_mask_is_kept(case: str, run_of: Callable[[str], Run]) -> None:
    run = run_of(case)
    candidates, masks = run.lines("candidates.jsonl"), load_file(run.out / "masks.safetensors")
    token_CP, piece_CPS = masks["token_CP"], masks["piece_CPS"]
    assert (token_CP.dtype, piece_CPS.dtype) == (torch.bool, torch.bool)
    assert token_CP.sum(1).tolist() == [c["tokens_kept"] for c in candidates]
    assert piece_CPS.sum((1, 2)).tolist() == [c["pieces_kept"] for c in candidates]
    assert not (piece_CPS & ~token_CP[:, :, None]).any()
    ticket = json.loads((run.out / "ticket" / "ticket.json").read_text())
    same = [c["id"] for c, mask in zip(candidates, piece_CPS.tolist(), strict=True) if mask == ticket["piece_mask"]]
    assert same == [c["id"] for c in candidates if c["status"] == "winner"]


@pytest.mark.parametrize("case", PRUNED)
def test_candidates_are_told_as_they_are(case: str, run_of: Callable[[str], Run]) -> None:
    run = run_of(case)
    candidates, info = run.lines("candidates.jsonl"), run.info
    pairs = [(c["token_ratio"], c["piece_ratio"]) for c in candidates]
    if "learned" in case:
        assert len(set(pairs)) == len(pairs) > 2
    elif "sequential" in case:
        assert pairs[:2] == [(0.25, 0.0), (0.5, 0.0)]
        assert pairs[2:] in ([(0.25, 0.25), (0.25, 0.5)], [(0.5, 0.25), (0.5, 0.5)])
    elif "random" in case:
        assert len(set(pairs)) == 3
        assert set(pairs) < {(0.25, 0.25), (0.25, 0.5), (0.5, 0.25), (0.5, 0.5)}
    else:
        assert pairs == [(0.25, 0.25), (0.25, 0.5), (0.5, 0.25), (0.5, 0.5)]
    for c in candidates:
        assert set(c) >= CANDIDATE_KEYS
        assert c["tokens_kept"] == P * (1 - c["token_ratio"])
        assert c["pieces_kept"] == int(c["tokens_kept"] * S * (1 - c["piece_ratio"]) + 0.5)
        assert c["parameters"] == c["pieces_kept"] * HIDDEN // S
        assert c["rank_loss"] is not None
        assert (c["select"] is not None) == (c["status"] in ("trained", "winner"))
        reported = c["pareto"] or c["status"] == "winner"
        assert (c["report"] is not None) == reported, "what isn't reported on is shown as not measured"
    winner = [c for c in candidates if c["status"] == "winner"]
    assert {c["status"] for c in candidates if c not in winner} == {"trained"}
    assert len(winner) == 1
    # `best` prefers the lower loss among equal scores, even where another is smaller.
    assert winner[0]["pareto"] or run.recipe.selection.objective == "best"
    assert info["selection"]["winner"] == winner[0]["id"]
    assert {k: info["ticket"][k] for k in ("tokens", "pieces", "parameters")} == {
        "tokens": winner[0]["tokens_kept"],
        "pieces": winner[0]["pieces_kept"],
        "parameters": winner[0]["parameters"],
    }
    assert info["results"]["winner"]["value"] == winner[0]["report"]
    for name in ("winner", "random"):
        assert info["results"][name]["pieces"] == winner[0]["pieces_kept"]
        assert info["results"][name]["tokens"] == winner[0]["tokens_kept"]
    assert info["results"]["control"]["pieces"] == P * S
    seeds = run.recipe.selection.seeds
    assert all(len(info["results"][name]["seeds"]) == seeds for name in ("winner", "control", "random"))


@pytest.mark.parametrize("case", CASES)
def test_report_is_opened_once_after_every_choice(case: str, run_of: Callable[[str], Run], task_file: Path) -> None:
    run = run_of(case)
    ((phase, held),) = run.witness.opened
    assert phase == "report"
    assert set(held) == {*BEFORE_REPORT} - (PRUNING if case == "tune" else set()), (
        "choices and what they rest on are on disk by then"
    )
    for name, content in held.items():
        assert (run.out / name).read_bytes() == content, f"{name} changed after report was opened"
    splits = load_task(task_file).load()
    assert splits.validation is not None
    reported = {example.text for example in splits.validation}
    earlier = set().union(*(texts for phase, texts in run.witness.encoded if phase != "report"))
    assert [texts for phase, texts in run.witness.encoded if phase == "report"] == [reported]
    # Under the paper's protocol, `select` is the reported set, and the sentence says so.
    assert bool(earlier & reported) == (case == "paper")
    assert len(earlier - reported) == 24


@pytest.mark.parametrize("case", [case for case in PRUNED if "learned" not in case])
def test_masks_come_from_the_importance_that_is_told(case: str, run_of: Callable[[str], Run]) -> None:
    run = run_of(case)
    importance = load_file(run.out / "importance.safetensors")
    ticket, settings = Ticket.load(run.out), run.recipe.pruning
    token_P = token_mask(importance["token_P"], ticket.info.token_ratio, settings.rounding)
    assert torch.equal(ticket.state.mask.token_P, token_P)
    assert (importance["winner_piece_PS"][~token_P] == 0).all()
    pieces = piece_mask(
        importance["winner_piece_PS"], token_P, ticket.info.piece_ratio, settings.scope, settings.rounding
    )
    assert torch.equal(ticket.state.mask.piece_PS, pieces)
    assert run.info["importance"]["method"] == "paper"


@pytest.mark.parametrize("case", ["grid, zero", "grid, drop", "sequential, zero"])
def test_importance_and_ranking_are_measured_where_they_should_be(
    case: str, run_of: Callable[[str], Run], task_file: Path, tiny_models: Models
) -> None:
    """Tokens at the tuned prompt, pieces at the token-pruned one, over all of train; rank losses on select."""
    run, info, ticket = run_of(case), run_of(case).info, Ticket.load(run_of(case).out)
    backbone = load_backbone(str(tiny_models("sentence")), dtype="float32", device="cpu")
    examples, scoring = load_task(task_file).load().train, Scoring("rank", "sum")
    assert examples is not None

    def held(name: str) -> ScoredSet:
        chosen = [examples[index] for index in info["task"]["indices"][name]]
        return ScoredSet(chosen, backbone.encode(chosen, 256, 8))

    tuned = load_file(run.out / "prompts/tuned.safetensors")["vectors_PH"]
    told = load_file(run.out / "importance.safetensors")
    whole = paper.measure(backbone, tuned, held("train"), scoring, S)
    assert distance(told["token_P"], whole.token_P) <= 1e-5
    assert distance(told["piece_PS"], whole.piece_PS) <= 1e-5
    assert distance(told["token_P"], paper.measure(backbone, tuned, held("select"), scoring, S).token_P) > 1e-3
    token_P = ticket.state.mask.token_P
    pruned = masked_state(tuned, Mask(token_P, token_P[:, None].expand(-1, S)))
    removal = run.recipe.pruning.removal
    after = paper.measure(backbone, read_one(pruned, removal), held("train"), scoring, S).piece_PS
    rows = after[token_P] if removal == "zero" else after
    assert distance(told["winner_piece_PS"][token_P], rows) <= 1e-5
    assert distance(told["winner_piece_PS"][token_P], told["piece_PS"][token_P]) > 1e-3, "pieces weren't measured again"
    unretrained = read_one(masked_state(tuned, ticket.state.mask), removal)
    losses = [score_prompts(backbone, p[None], held("select"), scoring)[0].loss for p in (unretrained, ticket.prompt())]
    winner = next(c for c in run.lines("candidates.jsonl") if c["status"] == "winner")
    assert winner["rank_loss"] == pytest.approx(losses[0], rel=1e-5)
    assert winner["select_loss"] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3), "negative control: training moved nothing"


def info_select(run: Run) -> list[int]:
    indices: list[int] = run.info["task"]["indices"]["select"]
    return indices


@pytest.mark.parametrize("case", PRUNED)
def test_the_winner_is_what_the_objective_chooses(case: str, run_of: Callable[[str], Run]) -> None:
    run = run_of(case)
    candidates = [Candidate(**line) for line in run.lines("candidates.jsonl")]
    said, objective = run.info["selection"], run.recipe.selection.objective
    assert choose(candidates, objective, said["standard_errors"]).id == said["winner"]
    trained = {c.id for c in candidates if c.select is not None}
    assert set(said["standard_errors"]) == (trained if objective == "one_se" else set())
    # Candidates that never differ aren't known any better than to one example's worth.
    least = 1 / len(info_select(run))
    assert all(error >= least - 1e-12 for error in said["standard_errors"].values())
    assert said["candidates_compared"] == len(candidates)
    assert len(candidates) == 4 or "learned" in case or "random" in case
    assert pareto(candidates) == {c.id for c in candidates if c.pareto}


@pytest.mark.parametrize("case", PRUNED)
def test_survivors_are_rewound_and_the_control_is_retrained_alike(case: str, run_of: Callable[[str], Run]) -> None:
    run = run_of(case)
    tuned = load_file(run.out / "prompts/tuned.safetensors")["vectors_PH"]
    initial = load_file(run.out / "prompts/initial.safetensors")["vectors_PH"]
    (_, first_epochs, _), *retrained = run.witness.fits
    assert first_epochs is None
    assert set(run.witness.fits[0][0]) == {"tuned"}
    assert torch.equal(run.witness.fits[0][0]["tuned"].vectors_PH, initial)
    starts: dict[str, tuple[PromptState, int | None]] = {}
    for states, epochs, seeds in retrained:
        assert epochs == run.recipe.search.epochs
        assert len({state.mask.tokens for state in states.values()}) == 1 or run.recipe.pruning.removal == "zero"
        own = seeds or [None] * len(states)
        starts |= {name: (states[name], seed) for name, seed in zip(states, own, strict=True)}
    for state, _ in starts.values():
        assert torch.equal(state.vectors_PH, masked_state(tuned, state.mask).vectors_PH), "not at the rewind point"
    for candidate in run.lines("candidates.jsonl"):
        assert starts[candidate["id"]][1] is None, "a ticket sees the batches that the prompt saw"
    assert starts["control-0"][1] == run.recipe.seed
    assert starts["control-0"][0].mask.pieces == P * S
    fresh = {name: int(name.rpartition("-")[2]) for name in starts if name.rpartition("-")[2] in ("1000", "1001")}
    assert len(fresh) == 3 * run.recipe.selection.seeds
    for name, seed in fresh.items():
        assert starts[name][1] == seed
    ticket = Ticket.load(run.out).state
    random = starts["random-0"][0].mask
    assert not torch.equal(random.piece_PS, ticket.mask.piece_PS)
    assert (random.tokens, random.pieces) == (ticket.mask.tokens, ticket.mask.pieces)
    if fresh:
        again = starts["random-1000"][0].mask
        assert torch.equal(starts["winner-1000"][0].mask.piece_PS, ticket.mask.piece_PS)
        assert (again.tokens, again.pieces) == (random.tokens, random.pieces)
        assert not torch.equal(again.piece_PS, random.piece_PS), "a random mask is drawn again for each seed"
    alive = ticket.mask.elements_PH(HIDDEN)
    assert (ticket.vectors_PH[~alive] == 0).all(), "a ticket is exactly zero where it is masked"
    assert (ticket.vectors_PH[alive] != tuned[alive]).any(), "a ticket was retrained"


@pytest.mark.parametrize("case", ["grid, zero", "sequential, drop"])
def test_a_loaded_ticket_gives_the_reported_predictions(
    case: str, run_of: Callable[[str], Run], task_file: Path, tiny_models: Models
) -> None:
    run, ticket = run_of(case), Ticket.load(run_of(case).out)
    backbone = load_backbone(str(tiny_models("sentence")), dtype="float32", device="cpu")
    examples = load_task(task_file).load().validation
    assert examples is not None
    data = ScoredSet(examples, backbone.encode(examples, 256, 8))
    by_hand = ticket.state.vectors_PH[ticket.state.mask.token_P] if "drop" in case else ticket.state.vectors_PH
    assert torch.equal(ticket.prompt(), by_hand)
    (scores,) = score_prompts(backbone, by_hand[None], data, Scoring("rank", "sum"))
    told = run.lines("predictions/winner.jsonl")
    assert [line["predicted"] for line in told] == list(scores.predicted)
    found, wanted = torch.tensor(scores.answer_scores), torch.tensor([line["scores"] for line in told])
    bound = 1e-5 * float(wanted.abs().max())
    assert float((found - wanted).abs().max()) <= bound
    tuned = torch.tensor([line["scores"] for line in run.lines("predictions/tuned.jsonl")])
    assert float((tuned - wanted).abs().max()) > 100 * bound


def test_the_instruction_is_read_as_words_before_the_text(
    run_of: Callable[[str], Run], task_file: Path, tiny_models: Models
) -> None:
    run = run_of("tune")
    backbone = load_backbone(str(tiny_models("sentence")), dtype="float32", device="cpu")
    task = load_task(task_file)
    examples = task.load().validation
    assert examples is not None
    opening = Segment(f"{task.definition.instruction} ")
    said = [replace(example, segments=(opening, *example.segments)) for example in examples]
    nothing = torch.zeros(1, 0, HIDDEN)
    (scores,) = score_prompts(backbone, nothing, ScoredSet(said, backbone.encode(said, 64)), Scoring("rank", "sum"))
    wanted = torch.tensor(scores.answer_scores)
    found, alone = (
        torch.tensor([line["scores"] for line in run.lines(f"predictions/{name}.jsonl")])
        for name in ("instruction", "zero_shot")
    )
    bound = 1e-5 * float(wanted.abs().max())
    assert float((found - wanted).abs().max()) <= bound
    assert float((found - alone).abs().max()) > 100 * bound
    assert run.info["results"]["instruction"]["tokens"] == len(backbone.tokenizer.tokenize(task.definition.instruction))


def test_the_papers_protocol_claims_nothing(run_of: Callable[[str], Run]) -> None:
    info = run_of("paper").info
    assert info["task"]["indices"]["select"] == info["task"]["indices"]["report"]
    assert not info["headline"]["significance_claimed"]
    if info["headline"]["interpretable"]:
        for said in ("sentence", "random_sentence"):
            assert "chosen from 4 candidates on this set; no significance claimed" in info["headline"][said]
    assert info["verdict"]["decision"] == "no verdict"
    assert {"value", "low", "high", "p", "covers_seeds"} <= set(info["headline"]["random"])
    held_out = run_of("grid, zero").info
    assert held_out["headline"]["significance_claimed"]
    train, select = (set(held_out["task"]["indices"][name]) for name in ("train", "select"))
    assert not train & select
    assert len(train | select) == 24


@pytest.mark.parametrize("case", ["tune", "grid, drop"])
def test_the_same_seed_gives_the_same_bits(
    case: str, run_of: Callable[[str], Run], tmp_path: Path, tiny_models: Models, task_file: Path
) -> None:
    first = run_of(case).bits()
    assert len(first) == (9 if case == "tune" else 23)
    again = execute_one(tiny_models("sentence"), task_file, tmp_path / "again", *CASES[case])
    assert again.bits() == first
    other = execute_one(tiny_models("sentence"), task_file, tmp_path / "other", *CASES[case], "seed=1").bits()
    same = [name for name in first if other[name] == first[name] and name not in ("headline", "verdict")]
    same = [name for name in same if "fresh" not in name]  # answers alone, which may well be alike
    assert set(same) <= {"predictions/zero_shot.jsonl", "predictions/instruction.jsonl"}


def test_an_instruction_that_the_model_has_no_positions_for_is_no_row(
    tmp_path: Path, tiny_models: Models, task_file: Path
) -> None:
    own = shutil.copytree(task_file.parent, tmp_path / "own") / "mood.yaml"
    own.write_text(own.read_text().replace("Tell the mood of a text.", "a red box " * 40))
    recipe = recipe_of(tiny_models("gpt2"), own, "tuning.epochs=1")
    results = json.loads((tune_from_python(recipe, tmp_path / "run") / "run.json").read_text())["results"]
    assert (results["instruction"], results["zero_shot"]["n"]) == (None, 15)


def test_a_sequence_to_sequence_run_and_leave_one_out(tmp_path: Path, tiny_models: Models, task_file: Path) -> None:
    changes = ("search.token_ratios=0.5", "search.piece_ratios=0.5", "tuning.epochs=1", "search.epochs=1")
    out = tmp_path / "run"
    run = execute_one(tiny_models("t5"), task_file, out, *changes, "task.shots=12", "pruning.importance=leave_one_out")
    assert run.info["backbone"]["family"] == "seq2seq"
    assert run.info["settings"]["loss"] == "likelihood"
    assert run.info["importance"]["method"] == "leave_one_out"
    assert run.info["results"]["winner"]["value"] is not None


def test_where_token_importance_vanishes_a_run_says_so(tmp_path: Path, tiny_models: Models, task_file: Path) -> None:
    changes = (
        "search.token_ratios=0.5",
        "search.piece_ratios=0.5",
        "tuning.epochs=1",
        "search.epochs=1",
        "task.shots=12",
        "selection.seeds=0",
    )
    auto = execute_one(tiny_models("bloom"), task_file, tmp_path / "auto", *changes).info
    assert auto["importance"]["method"] == "leave_one_out"
    assert auto["importance"]["token_over_piece"] < 1e-2, "the reason for leave-one-out is on record"
    paper = execute_one(tiny_models("bloom"), task_file, tmp_path / "paper", *changes, "pruning.importance=paper").info
    assert paper["importance"]["token_over_piece"] == auto["importance"]["token_over_piece"]
    assert [note for note in paper["notes"] if "token importance nearly vanishes" in note]
    assert [note for note in paper["notes"] if "leave_one_out measures what this criterion can't" in note]
    assert [note for note in auto["notes"] if "leave-one-out importance was taken instead" in note]
    plain = execute_one(tiny_models("sentence"), task_file, tmp_path / "plain", *changes).info
    assert not [note for note in plain["notes"] if "vanishes" in note]


NO_NUMBERS: dict[str, tuple[Any, str, str]] = {
    "a finite importance": (importance, "measure", "token_P"),
    "a finite select loss": (xprompt, "score_each", "losses"),
    "a finite report loss": (baselines, "score_each", "losses"),
}


@pytest.mark.parametrize("expected", NO_NUMBERS)
def test_what_is_no_number_ends_a_run_before_anything_is_chosen_by_it(
    expected: str, tmp_path: Path, tiny_models: Models, task_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, function, name = NO_NUMBERS[expected]
    real = getattr(module, function)

    def spoiled(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named)
        if name == "losses":
            return [replace(scores, losses=(float("nan"), *scores.losses[1:])) for scores in found]
        return replace(found, token_P=found.token_P.index_fill(0, torch.tensor([1]), float("nan")))

    monkeypatch.setattr(module, function, spoiled)
    recipe = recipe_of(tiny_models("sentence"), task_file, "kind=xprompt", "search.strategy=grid")
    with pytest.raises(SoftpruneError, match=expected):
        execute(recipe, tmp_path / "run", "test", "")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (info["status"], info["results"]["winner"]) == ("failed", None)


def test_a_prompt_that_is_only_tuned_needs_no_pieces(tmp_path: Path, tiny_models: Models, task_file: Path) -> None:
    recipe = recipe_of(tiny_models("sentence"), task_file, "kind=tune", "tuning.epochs=1", "prompt.pieces=5")
    info = json.loads((tune_from_python(recipe, tmp_path / "run") / "run.json").read_text())
    assert info["results"]["tuned"]["tokens"] == recipe.prompt.tokens
    assert info["results"]["tuned"]["pieces"] == recipe.prompt.tokens, "a token is one piece"
