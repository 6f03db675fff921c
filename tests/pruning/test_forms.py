"""Runs that train a form of the prompt: each folds into a plain prompt that is pruned, exported and asked like any."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import log
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from whole_runs import Models, Run, Witness, execute_one, recipe_of

from killing import finish_in_tries
from softprune.config import Recipe
from softprune.config.forms import FORMS, PLAIN
from softprune.errors import ManyErrors, SoftpruneError
from softprune.evaluation.predict import predict
from softprune.interpret.run_neighbours import neighbours_of
from softprune.models.base import Backbone
from softprune.models.tokenization import continuation_ids
from softprune.pipelines.adapt import adapt
from softprune.pipelines.xprompt import execute, tune
from softprune.prompts.exports import export
from softprune.prompts.ticket import Ticket

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils"),
]
Backbones = Callable[..., Backbone]
KEYS = ("search.strategy=grid", "search.token_ratios=0.5", "search.piece_ratios=0.25", "search.epochs=1")
SHORT = ("tuning.epochs=2", "selection.seeds=0", "prompt.tokens=12")
OPTIONS = {
    "residual": "prompt.bottleneck=6",
    "low-rank": "prompt.bottleneck=3",
    "ulpt": "prompt.bottleneck=2",
    "superpos": "prompt.words=14",
    "cpt": "prompt.radius=0.5",
}
ROWS = ({"text": "the film was a slow and quiet joy"}, {"text": "a red box"}, {"text": "he was a dull plot"})
P, H = 12, 32
NUMBERS = {
    "residual": P * H + 2 * H * 6 + 6 + 3 * H,
    "low-rank": 3 * (P + H),
    "ulpt": 2 * P + 2 * H,
    "superpos": P * 14,
    "cpt": P * H,
}


def keys_of(form: str) -> tuple[str, ...]:
    return (*KEYS, *SHORT, f"prompt.form={form}", OPTIONS[form])


def asked_of_peft(folder: Path, model: Path, backbone: Backbone, tokens: int, answers: tuple[str, ...]) -> list[float]:
    """Log-likelihoods of each row's answers by peft's own forward."""
    plain = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted, found = PeftModel.from_pretrained(plain, folder).eval(), []
    for row in ROWS:
        text = backbone.tokenizer(f"{row['text']} . it was")["input_ids"]
        for answer in answers:
            ids = list(continuation_ids(backbone.tokenizer, answer))
            with torch.no_grad():
                logits = adapted(input_ids=torch.tensor([[*text, *ids]])).logits[0]
            at = torch.arange(tokens + len(text) - 1, tokens + len(text) + len(ids) - 1)
            found.append(float(torch.log_softmax(logits[at], -1)[torch.arange(len(ids)), ids].sum()))
    return found


@pytest.mark.parametrize("form", [name for name in FORMS if name != PLAIN])
def test_a_form_folds_into_a_prompt_like_any(
    form: str, tiny_models: Models, task_file: Path, backbone_of: Backbones, tmp_path: Path
) -> None:
    model, backbone = tiny_models("gpt2"), backbone_of("gpt2")
    run = execute_one(model, task_file, tmp_path / "run", *keys_of(form))

    # A run that is killed goes on bit by bit.
    recipe = recipe_of(model, task_file, *keys_of(form))
    broken = tmp_path / "broken"
    words = ("softprune run mine.yaml", "# mine\n" + recipe.dump())
    assert finish_in_tries(lambda: execute(recipe, broken, *words), broken, most=20) > 3
    assert Run(tmp_path / "broken", recipe, Witness(tmp_path / "broken")).bits() == run.bits()

    # It says what was trained, beside what is stored.
    info = run.info
    assert info["prompt"]["form"] == form
    assert info["prompt"]["trained"] == info["cost"]["trainable_parameters"] == NUMBERS[form]
    assert info["cost"]["stored_parameters"] == info["ticket"]["parameters"] < P * H
    initial, tuned = (
        load_file(run.out / "prompts" / f"{name}.safetensors")["vectors_PH"] for name in ("initial", "tuned")
    )
    assert (tuned - initial).abs().max() > 1e-3 * initial.abs().max()

    # It is pruned, exported and asked like any other.
    ticket = Ticket.load(run.out)
    assert ticket.info.tokens == 6
    assert 0 < ticket.info.pieces < 24
    export(ticket, "peft", tmp_path / "peft")
    asked, control = (
        list(predict(each, ROWS, backbone=backbone)) for each in (ticket, Ticket.load(run.out / "control"))
    )
    theirs = torch.tensor(asked_of_peft(tmp_path / "peft", model, backbone, 6, asked[0].answers)).view(3, -1)
    wanted = theirs.log_softmax(1)
    found, other = (torch.tensor([[log(p) for p in each.probabilities] for each in ways]) for ways in (asked, control))
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    assert (other - wanted).abs().max() > 1e-3 * wanted.abs().max(), "another prompt says something else"

    # Rows of the ticket and of the whole prompt share a batch.
    both = {"ticket": ticket, "whole": Ticket.load(run.out / "control")}
    rows = [{**row, "prompt": name} for row in ROWS for name in both]
    mixed = torch.tensor([[log(p) for p in each.probabilities] for each in predict(both, rows, backbone=backbone)])
    for beside, alone, wrong in ((mixed[::2], found, other), (mixed[1::2], other, found)):
        assert (beside - alone).abs().max() <= 1e-5 * alone.abs().max()
        assert (beside - wrong).abs().max() > 1e-3 * wrong.abs().max()


def test_neighbours_show_the_words_of_a_superposition(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_models("bert"), task_file, "kind=tune", *SHORT, "prompt.form=superpos", "prompt.words=14")
    out = tune(recipe, tmp_path / "run")
    held = load_file(out / "prompts" / "form.safetensors")
    found = neighbours_of(out, k=3)
    for token, weights_M in zip(found["prompts"]["tuned"], held["weights_PM"], strict=True):
        at = int(weights_M.abs().argmax())
        assert token["made_of"][0]["id"] == int(held["words_M"][at])
        assert token["made_of"][0]["value"] == pytest.approx(float(weights_M[at]), rel=1e-5)
    more = neighbours_of(out, k=12)["prompts"]["tuned"][0]["made_of"]
    assert len(more) == 12
    assert [abs(each["value"]) for each in more] == sorted((abs(each["value"]) for each in more), reverse=True)
    other = tune(recipe_of(tiny_models("bert"), task_file, "kind=tune", *SHORT), tmp_path / "plain")
    assert "made_of" not in neighbours_of(other)["prompts"]["tuned"][0]
    info = json.loads((other / "run.json").read_text())
    assert "form" not in info["prompt"]
    assert not (other / "prompts" / "form.safetensors").exists()


def test_a_form_has_its_own_rate_and_a_sweep_of_it(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    keys = ("kind=tune", *SHORT, "prompt.form=ulpt", "tuning.epochs=1")
    with_rate = recipe_of(tiny_models("sentence"), task_file, *keys)  # TINY names tuning.lr=0.3
    values = with_rate.model_dump(mode="json", by_alias=True, exclude_unset=True)
    del values["tuning"]["lr"]
    rms = None
    for name, changes, multiple in (("own", {}, 1.0), ("swept", {"sweep": [0.5, 2.0]}, None)):
        out = tune(Recipe.model_validate({**values, "tuning": {**values["tuning"], **changes}}), tmp_path / name)
        info = json.loads((out / "run.json").read_text())
        if multiple is not None:
            rms = info["settings"]["lr"] / FORMS["ulpt"].lr
            assert info["prompt"]["lr"] == info["settings"]["lr"]
        else:
            rates = [row["lr"] for row in info["sweep"].values()]
            assert rates == pytest.approx([0.5 * FORMS["ulpt"].lr * rms, 2 * FORMS["ulpt"].lr * rms])
            assert any(info["settings"]["lr"] == pytest.approx(rate) for rate in rates)
            assert info["settings"]["lr"] == pytest.approx(info["prompt"]["lr"])
    named = json.loads((tune(with_rate, tmp_path / "named") / "run.json").read_text())
    assert named["prompt"]["lr"] == named["settings"]["lr"] == 0.3


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("prompt.form=resdual",), r'did you mean "residual"'),
        (("prompt.words=8",), r"prompt\.words: no value where form is plain[\s\S]*--form superpos"),
        (("prompt.form=ulpt", "prompt.radius=0.1"), r"prompt\.radius: no value where form is ulpt"),
        (("prompt.form=cpt", "prompt.init=labels"), r"no init where form is cpt: it starts from demonstrations"),
    ],
)
def test_mistakes_in_keys_are_told(keys: tuple[str, ...], expected: str, tiny_models: Models, task_file: Path) -> None:
    with pytest.raises(SoftpruneError, match=expected):
        recipe_of(tiny_models("bert"), task_file, *keys)


def test_other_mistakes_are_told_before_anything_is_made(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    def recipe(*keys: str) -> Recipe:
        return recipe_of(tiny_models("bert"), task_file, "prompt.form=superpos", *keys)

    with pytest.raises(ManyErrors, match=r"kind: tune or xprompt for prompt\.form=superpos"):
        adapt(recipe("tuning.lr=0.1", "tuning.optimiser=adafactor"), tmp_path / "run")
    with pytest.raises(SoftpruneError, match=r"tuning\.optimiser=adamw for prompt\.form=superpos"):
        tune(recipe("tuning.optimiser=adafactor"), tmp_path / "run")
    cpt = recipe_of(tiny_models("gpt2"), task_file, "kind=tune", "prompt.form=cpt", "tuning.loss=rank")
    with pytest.raises(SoftpruneError, match=r"tuning\.loss of likelihood or auto for prompt\.form=cpt"):
        tune(cpt, tmp_path / "run")
    with pytest.raises(SoftpruneError, match=r"at least 100000 words to sample from"):
        tune(recipe("prompt.words=100000"), tmp_path / "run")
