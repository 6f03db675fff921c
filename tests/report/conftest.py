"""A synthetic run folder: every number is made up, and every file is as softprune writes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from softprune.report import write_report
from softprune.types import Candidate

H, S, SEED = 64, 16, 3
HOSTILE = "<script>alert('x')</script>"
MakeRun = Callable[..., Path]


def edit_info(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change run.json in place."""
    path = folder / "run.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def row(value: float, low: float, high: float, **more: object) -> dict[str, Any]:
    right = {"yes": round(277 * value), "no": 277 - round(277 * value)}
    return {"metric": "accuracy", "value": value, "interval": [low, high], "n": 277, "predicted": right} | more


def results(P: int, winner: Candidate) -> dict[str, Any]:
    whole = {"tokens": P, "pieces": P * S, "parameters": P * H}
    small = {"tokens": winner.tokens_kept, "pieces": winner.pieces_kept, "parameters": winner.parameters}
    return {
        "constant": row(0.527, 0.469, 0.585, answer="yes", seconds=0.0),
        "zero_shot": row(0.531, 0.473, 0.589, seconds=0.0),
        "tuned": row(0.7112, 0.6571, 0.7653, **whole, seconds=41.25),
        "control": row(0.7148, 0.6606, 0.769, **whole, seconds=83.5, seeds=[0.711, 0.708, 0.718]),
        "winner": row(0.7329, 0.6787, 0.7834, **small, seconds=64.75, seeds=[0.729, 0.733, 0.722]),
        "random": row(0.5632, 0.509, 0.6209, **small, seconds=63.0, seeds=[0.556, 0.601, 0.534]),
    }


HEADLINE = {
    "comparison": "winner - control",
    "value": 0.0157,
    "low": -0.0083,
    "high": 0.0412,
    "p": 0.234,
    "mcnemar": {"only_winner": 14, "only_control": 9, "p": 0.405},
    "covers_seeds": True,
    "seeds": 3,
    "fresh_seeds": 3,
    "units": 277,
    "examples": 277,
    "se_seeds": 0.0071,
    "se_examples": 0.0083,
    "detectable": 0.0487,
    "interpretable": True,
    "significance_claimed": True,
    "random": {"covers_seeds": True, "value": 0.1573, "low": 0.1124, "high": 0.2031, "p": 0.0321},
    "random_sentence": "Winner minus a random mask of its size: +15.7 points (+11.2 to +20.3): the mask is better.",
    "sentence": "Winner minus control: +1.6 points (-0.8 to +4.1) over 3 fresh seeds: no difference shown.",
}


def make_candidates(P: int) -> list[Candidate]:
    """The 9 x 9 grid; the last row was never trained. Pareto front and winner are marked."""
    noise = np.random.default_rng(1)
    made = []
    for t in range(1, 10):
        for p in range(1, 10):
            tokens = max(1, int((1 - t / 10) * P + 0.5))
            pieces = max(tokens, int((1 - p / 10) * tokens * S + 0.5))
            size = pieces * H // S
            select = 0.73 - 0.2 * (1 - size / (P * H)) ** 6 + float(noise.normal(0, 0.012))
            trained = t < 9
            made.append(
                Candidate(
                    id=f"t{t / 10}-p{p / 10}",
                    token_ratio=t / 10,
                    piece_ratio=p / 10,
                    tokens_kept=tokens,
                    pieces_kept=pieces,
                    parameters=size,
                    rank_loss=0.6 + t / 40 + p / 60,
                    status="trained" if trained else "ranked",
                    select=round(select, 4) if trained else None,
                    select_loss=round(1.2 - select, 4) if trained else None,
                )
            )
    return _marked(made)


def _marked(made: list[Candidate]) -> list[Candidate]:
    trained = [c for c in made if c.select is not None]
    front = {c.id for c in trained if not any(o.parameters <= c.parameters and o.select > c.select for o in trained)}
    best = max(c.select for c in trained)
    winner = min((c for c in trained if c.select >= best - 0.02), key=lambda c: c.parameters)
    done = [replace(c, pareto=True, report=0.7213, interval=(0.667, 0.774)) if c.id in front else c for c in made]
    return [
        replace(c, status="winner", report=0.7329, interval=(0.6787, 0.7834)) if c.id == winner.id else c for c in done
    ]


def _points(names: list[tuple[str, str]], evaluations: int) -> list[dict[str, Any]]:
    noise = np.random.default_rng(2)
    lines = []
    for at, (phase, name) in enumerate(names):
        for epoch in range(1, evaluations + 1):
            loss = 0.45 + 0.35 / epoch + float(noise.normal(0, 0.008))
            score = 0.735 - 0.2 / epoch + float(noise.normal(0, 0.006)) - 0.0008 * at
            lines.append(
                {
                    "phase": phase,
                    "candidate": name,
                    "epoch": epoch,
                    "step": 16 * epoch,
                    "train_loss": None if epoch == 2 and name == "tuned" else loss - 0.03,
                    "select_loss": loss,
                    "select": score,
                    "seconds": 2.0 * epoch,
                }
            )
    return lines


def _predictions(wrong: set[int]) -> list[dict[str, Any]]:
    lines = []
    for index in range(30):
        gold = index % 2
        predicted = 1 - gold if index in wrong else gold
        text = f"Passage {index}. {HOSTILE if index == 4 else 'The barrister paid nothing.'}"
        lines.append(
            {
                "id": f"val-{index}",
                "index": index,
                "text": text,
                "answers": ["yes", "no"],
                "gold": gold,
                "predicted": predicted,
                "scores": [-0.5, -1.0],
            }
        )
    return lines


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))


def _info(kind: str, P: int) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": kind,
        "status": "running",
        "error": None,
        "command": f"softprune {kind} rte.yaml prompt.tokens={P}",
        "seed": SEED,
        "started": "2026-01-01T00:00:00+00:00",
        "attempts": [{"started": "2026-01-01T00:00:00+00:00", "command": f"softprune {kind}", "versions": {}}],
        "versions": {"python": "3.11.7", "softprune": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0"},
        "hardware": {"cpu": "A processor", "cores": 2, "gpu": None, "memory_bytes": 25_276_514_304},
        "threads": 2,
        "K": 8,
        "backbone": {
            "name": "tiny-t5",
            "family": "seq2seq",
            "fingerprint": "c331b96fdf318bde",
            "dtype": "float32",
            "device": "cpu",
            "hidden": H,
            "parameters": 22_713_216,
        },
        "task": {
            "id": "rte",
            "version": 1,
            "title": "Recognising textual entailment",
            "instruction": "Say whether the first text means the second.",
            "template": "premise: {premise} question: {hypothesis} {mask}",
            "sample": "premise: It rained. question: It was wet.",
            "metric": "accuracy",
            "answers": ["yes", "no"],
            "indices": {"train": [0, 1], "select": [2], "report": [0]},
            "sizes": {"train": 1993, "select": 497, "report": 277},
            "truncated": {"examples": 13, "tokens": 402},
            "source": "/data/rte",
            "notes": ["labels of the test split are hidden"],
        },
        "selection": {
            "protocol": "held-out",
            "description": "held-out: train 1993, select 497 of train",
            "objective": "one_se",
            "candidates_compared": 72,
        },
        "settings": {"loss": "rank", "score": "mean", "match": "score", "lr": 0.3, "max_length": 256},
        "removal": "drop",
        "prompt": {"P": P, "H": H, "S": S, "init": "vocabulary"},
        "importance": {"method": "paper", "examples": 1993, "token_over_piece": 0.8},
        "results": {},
        "headline": None,
        "ticket": {"tokens": None, "pieces": None, "parameters": None},
        "cost": {
            "seconds": 5417.0,
            "steps": 11_250,
            "examples_per_second": 321.5,
            "peak_memory_bytes": 1_610_612_736,
            "trainable_parameters": P * H,
            "phases": {"tune": 41.25, "grid": 5210.0},
        },
        "notes": ["a note of the run"],
    }


def _ticket(folder: Path, P: int, winner: Candidate, scores: dict[str, np.ndarray]) -> dict[str, Any]:
    token_mask = np.zeros(P, dtype=bool)
    token_mask[np.argsort(-scores["token_P"])[: winner.tokens_kept]] = True
    scores["winner_piece_PS"] = (scores["piece_PS"][:, ::-1] * token_mask[:, None]).astype(np.float32).copy()
    ranked = np.argsort(-scores["winner_piece_PS"].ravel())[: winner.pieces_kept]
    piece_mask = np.zeros(P * S, dtype=bool)
    piece_mask[ranked] = True
    document = {
        "schema": 1,
        "token_mask": token_mask.tolist(),
        "piece_mask": piece_mask.reshape(P, S).tolist(),
        "tokens": winner.tokens_kept,
        "pieces": winner.pieces_kept,
        "parameters": winner.parameters,
        "removal": "drop",
    }
    (folder / "ticket").mkdir()
    (folder / "ticket" / "ticket.json").write_text(json.dumps(document))
    share = winner.parameters / (P * H)
    return {key: document[key] for key in ("tokens", "pieces", "parameters")} | {"share_of_parameters": share}


def _masks(scores: dict[str, np.ndarray], candidates: list[Candidate], ticket: Path) -> dict[str, np.ndarray]:
    """Each candidate's most important tokens, and of these the most important pieces; the winner's are the ticket's."""
    P = len(scores["token_P"])
    token_CP, piece_CPS = np.zeros((len(candidates), P), bool), np.zeros((len(candidates), P, S), bool)
    for at, candidate in enumerate(candidates):
        token_CP[at, np.argsort(-scores["token_P"])[: candidate.tokens_kept]] = True
        ranked = np.argsort(-(scores["piece_PS"] * token_CP[at][:, None]).ravel())[: candidate.pieces_kept]
        piece_CPS[at].reshape(-1)[ranked] = True
        if candidate.status == "winner":
            document = json.loads(ticket.read_text())
            token_CP[at], piece_CPS[at] = document["token_mask"], document["piece_mask"]
    return {"token_CP": token_CP, "piece_CPS": piece_CPS}


def add_neighbours(folder: Path, word: str = "word") -> None:
    """neighbours.json, of made-up words; the winner has the tokens that its ticket keeps."""
    tokens = [
        {
            "token": p,
            "word": f"{word}{p}",
            "distance": 0.25 + p,
            "moved": 0.5 + p / 10,
            "cosine": 0.9,
            "kept": {"centred": p % 2 == 0, "cosine": None},
            "start": {"centred": [_near(f"{word}{p}", 1.0), _near(f"a{p}", 0.5)], "cosine": [_near(f"b{p}", 0.99)]},
            "end": {"centred": [_near(f"c{p}", 0.75), _near("日本", 0.25)], "cosine": [_near(f"d{p}", 0.98)]},
        }
        for p in range(20)
    ]
    kept = json.loads((folder / "ticket" / "ticket.json").read_text())["token_mask"]
    prompts = {"tuned": tokens, "winner": [token for token, left in zip(tokens, kept, strict=True) if left]}
    found = {"schema": 1, "k": 2, "anisotropy": {"raw": 0.4, "centred": 0.01, "pairs": 10}, "prompts": prompts}
    (folder / "neighbours.json").write_text(json.dumps(found))


def _near(word: str, value: float) -> dict[str, Any]:
    return {"id": 1, "word": word, "value": value}


def build_xprompt(folder: Path, P: int = 20, evaluations: int = 12) -> Path:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    scores = {
        "token_P": noise.gamma(0.7, 0.02, P).astype(np.float32),
        "piece_PS": noise.gamma(1.2, 0.01, (P, S)).astype(np.float32),
    }
    candidates = make_candidates(P)
    winner = next(c for c in candidates if c.status == "winner")
    ticket = _ticket(folder, P, winner, scores)
    save_file(scores, folder / "importance.safetensors")
    save_file(_masks(scores, candidates, folder / "ticket" / "ticket.json"), folder / "masks.safetensors")
    info = _info("xprompt", P) | {"results": results(P, winner), "headline": HEADLINE, "ticket": ticket}
    (folder / "run.json").write_text(json.dumps(info))
    _lines(folder / "candidates.jsonl", [asdict(c) for c in candidates])
    trained = [("grid", c.id) for c in candidates if c.select is not None]
    names = [("tune", "tuned"), *trained, ("control", f"control-{SEED}"), ("control", f"random-{SEED}")]
    _lines(folder / "metrics.jsonl", _points([*names, ("fresh", "winner-1003")], evaluations))
    _lines(folder / "predictions" / "control.jsonl", _predictions({1, 4, 8, 11}))
    _lines(folder / "predictions" / "winner.jsonl", _predictions({1, 3}))
    (folder / "resolved.yaml").write_text("schema: 1\ntuning:\n  lr: 0.3\n  best_by: score\n")
    return folder


def build_tune(folder: Path) -> Path:
    folder.mkdir(parents=True)
    info = _info("tune", 20) | {"removal": None, "importance": None}
    whole = results(20, make_candidates(20)[0])
    info["results"] = {name: whole[name] if name in ("constant", "zero_shot", "tuned") else None for name in whole}
    (folder / "run.json").write_text(json.dumps(info))
    _lines(folder / "metrics.jsonl", _points([("tune", "tuned")], 8))
    _lines(folder / "predictions" / "tuned.jsonl", _predictions({1, 2}))
    return folder


@pytest.fixture
def xprompt_run(tmp_path: Path) -> Path:
    return build_xprompt(tmp_path / "run")


@pytest.fixture
def tune_run(tmp_path: Path) -> Path:
    return build_tune(tmp_path / "tune")


@pytest.fixture(scope="session")
def build() -> MakeRun:
    """The builder, for runs of other sizes."""
    return build_xprompt


@pytest.fixture(scope="session")
def add_near() -> Callable[..., None]:
    return add_neighbours


@pytest.fixture(scope="session")
def edit() -> Callable[..., None]:
    return edit_info


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose report is written; tests only read it."""
    folder = build_xprompt(tmp_path_factory.mktemp("report") / "run")
    write_report(folder)
    return folder
