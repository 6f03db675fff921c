"""SMoP: which prompt an input has in every family, by what share, the router's gradients and noise, and whole runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from adapted import batch_of, check_rows_alone, fresh, near, recipe_of, run, run_dying
from by_hand import FAMILIES, encoded, off_by, ours, read

from softprune.adapters.adapter_io import read_adapter
from softprune.adapters.base import AdapterPlan
from softprune.adapters.smop import PROMPTS, ROUTER, PromptMixture, mixture_not_defined, new_mixture
from softprune.config import BackboneConfig, CompareRecipe, load_config
from softprune.errors import ManyErrors, SoftpruneError
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.studies.comparison.runner import refused_by_model
from softprune.types import Encoded

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
Models = Callable[[str], Path]
P, K, H = 3, 4, 32


def made(folder: Path, dtype: str = "float64") -> PromptMixture:
    """A mixture whose inputs have different prompts, each by a share that is neither 1 nor 1 / K."""
    backbone = load_backbone(str(folder), dtype=dtype, device="cpu")
    mixture = new_mixture(backbone, AdapterPlan("smop", tokens=P, prompts=K), seed=0)
    texts, draw = encoded(backbone), torch.Generator().manual_seed(0)
    means = torch.tensor([mean_by_hand(backbone, text) for text in texts], dtype=torch.float64)
    logits = 1.5 * torch.eye(K).roll(1, 0) + 0.4 * torch.rand(len(texts), K, generator=draw)
    with torch.no_grad():
        mixture.named()[ROUTER].copy_((torch.linalg.pinv(means) @ logits.double()).T)
        prompts = mixture.named()[PROMPTS]
        prompts.copy_(prompts.std() * 3 * torch.randn(K, P, H, generator=draw, dtype=torch.float64))
    return mixture


def mean_by_hand(backbone: Backbone, text: Encoded, padding: int = 0) -> list[float]:
    """The mean embedding of a text's own tokens, and of so many padding tokens."""
    ids = [*text.input_ids, *[backbone.pad_id] * padding]
    rows = backbone.lookup(torch.tensor(ids)).tolist()
    return [sum(column) / len(ids) for column in zip(*rows, strict=True)]


def shares_by_hand(router: Sequence[Sequence[float]], mean: Sequence[float]) -> list[float]:
    logits = [sum(weight * value for weight, value in zip(row, mean, strict=True)) for row in router]
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("model", [model for model in FAMILIES if model != "bloom"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_input_has_the_prompt_of_its_largest_share(tiny_models: Models, model: str, dtype: str) -> None:
    """In float32 by layers of our own, where there are some."""
    mixture = made(tiny_models(model), dtype)
    backbone, texts = mixture.backbone, encoded(mixture.backbone)
    prompts, router = (mixture.named()[name].detach() for name in (PROMPTS, ROUTER))
    found = ours(backbone, mixture.prompts(), texts)
    shares = [shares_by_hand(router.tolist(), mean_by_hand(backbone, text)) for text in texts]
    chosen = [each.index(max(each)) for each in shares]
    assert len(set(chosen)) > 1
    assert all(1.2 / K < max(each) < 0.95 for each in shares)
    nothing = torch.zeros(0, H, dtype=prompts.dtype)

    def behind(power: int, shift: int) -> list[torch.Tensor]:
        """Each text behind a prompt that is so many places from its own, times a power of its share."""
        rows = []
        for text, each, at in zip(texts, shares, chosen, strict=True):
            rows.append(read(backbone, max(each) ** power * prompts[(at + shift) % K], text, nothing))
        return rows

    with mixture.off():
        assert off_by(found, behind(1, 0)) <= 1e-5  # transformers' norms are float32's in some models
        assert off_by(found, behind(0, 0)) > 1e-3  # unscaled
        assert off_by(found, behind(1, 1)) > 1e-3  # another's
    padded = shares_by_hand(router.tolist(), mean_by_hand(backbone, texts[1], padding=9))
    assert abs(max(padded) - max(shares[1])) > 1e-3  # padding would count
    batch = backbone.batch(texts)
    with torch.no_grad():
        assert mixture.probabilities(batch).tolist() == [pytest.approx(each, rel=1e-4) for each in shares]


@pytest.mark.parametrize("model", ["t5", "gpt2", "bloom", "bert", "sentence"])
def test_a_batch_changes_no_answer(tiny_models: Models, model: str) -> None:
    mixture = made(tiny_models(model), "float32")
    backbone, texts = mixture.backbone, encoded(mixture.backbone)
    with torch.no_grad():
        together = backbone.scores(mixture.prompts(), backbone.batch(texts), "sum")[0]
        for place, text in enumerate(texts):
            alone = backbone.scores(mixture.prompts(), backbone.batch([text]), "sum")[0, 0]
            assert near(together[place], alone, 1e-5)
            assert not near(together[place - 1], alone, 1e-4)


@pytest.mark.parametrize("model", ["gpt2", "t5"])
def test_a_text_is_written_behind_its_own_prompt(tiny_models: Models, model: str) -> None:
    mixture = made(tiny_models(model))
    backbone, texts = mixture.backbone, encoded(mixture.backbone)
    batch = backbone.batch(texts)
    nothing = mixture.prompts()[0]
    together = backbone.generate(nothing, batch, 5)
    with torch.no_grad():
        routed = mixture.route(batch)
    with mixture.off():
        assert together == [
            backbone.generate(prompt, backbone.batch([text]), 5)[0] for prompt, text in zip(routed, texts, strict=True)
        ]
        assert together != backbone.generate(routed.roll(1, 0), batch, 5)


def test_prompts_of_a_call_are_read_behind_its_own(tiny_models: Models) -> None:
    """Also several, in front of each input: rows are prompt by prompt."""
    for model in ("gpt2", "bert", "t5", "sentence"):
        mixture = made(tiny_models(model))
        backbone, batch = mixture.backbone, batch_of(mixture.backbone)
        more = mixture.named()[PROMPTS].detach()[:2, :2]
        with torch.no_grad():
            found, routed = backbone.scores(more, batch, "sum"), mixture.route(batch)
            with mixture.off():
                pairs = [torch.cat([routed, each.expand(len(batch), -1, -1)], dim=1) for each in more]
                wanted = torch.stack([backbone.row_scores(each, batch, "sum") for each in pairs])
        assert near(found, wanted, 1e-6)
        assert not near(found.flip(0), wanted, 1e-3)


@pytest.mark.parametrize("model", ["gpt2", "t5", "bert", "sentence"])
def test_gradients_reach_the_router_through_the_chosen_prompts(tiny_models: Models, model: str) -> None:
    mixture = made(tiny_models(model))
    backbone, texts = mixture.backbone, encoded(mixture.backbone)
    batch = backbone.batch(texts[:1])
    (chosen,) = mixture.probabilities(batch).argmax(-1).tolist()

    def loss() -> torch.Tensor:
        return backbone.losses(mixture.prompts(), batch, "rank", "sum").mean()

    loss().backward()
    prompts, router = (mixture.named()[name] for name in (PROMPTS, ROUTER))
    assert prompts.grad is not None
    assert router.grad is not None
    assert [bool(each.any()) for each in prompts.grad] == [at == chosen for at in range(K)]
    assert all(row.any() for row in router.grad)  # all logits are in the softmax
    for parameter, place in ((router, (chosen, 3)), (prompts, (chosen, 1, 5))):
        assert parameter.grad is not None
        with torch.no_grad():
            parameter[place] += 1e-3
            more = float(loss())
            parameter[place] -= 2e-3
            less = float(loss())
            parameter[place] += 1e-3
        slope = (more - less) / 2e-3
        assert float(parameter.grad[place]) == pytest.approx(slope, rel=1e-2)  # T5's norms are float32's
        assert float(parameter.grad[place]) != pytest.approx(1.05 * slope, rel=1e-2)


def test_logits_are_perturbed_in_training_alone(tiny_models: Models) -> None:
    mixture = made(tiny_models("bert"))
    batch = batch_of(mixture.backbone)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    still = mixture.probabilities(batch)
    assert torch.equal(torch.rand(2), expected)  # nothing was drawn
    mixture.train(True)
    torch.manual_seed(3)
    found = mixture.probabilities(batch)
    torch.manual_seed(3)
    noise = torch.randn(len(batch), K, dtype=torch.float64)
    texts, router = encoded(mixture.backbone), mixture.named()[ROUTER].detach()
    means = torch.tensor([mean_by_hand(mixture.backbone, text) for text in texts], dtype=torch.float64)
    logits = means @ router.T
    wanted = (logits * (1 + noise)).softmax(-1)
    assert near(found.detach(), wanted, 1e-9)
    assert not near(found.detach(), (logits + noise).softmax(-1), 1e-2)
    assert not near(found.detach(), still.detach(), 1e-2)
    # In gradients the noise is a constant: that of a logit is as if nothing had scaled it.
    found[:, 0].sum().backward()
    back = wanted[:, :1] * (torch.eye(K, dtype=torch.float64)[0] - wanted)
    gradient = mixture.named()[ROUTER].grad
    assert gradient is not None
    assert near(gradient, back.T @ means, 1e-9)
    assert not near(gradient, (back * (1 + noise)).T @ means, 1e-2)
    mixture.train(False)
    assert torch.equal(mixture.probabilities(batch), still)


def test_it_is_made_of_its_seed(tiny_models: Models) -> None:
    backbone = fresh(tiny_models("gpt2"))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    plan = AdapterPlan("smop", tokens=P, prompts=K)
    first, same, other = (new_mixture(backbone, plan, seed).stored() for seed in (4, 4, 5))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first[ROUTER] @ first[ROUTER].T, first[ROUTER] @ same[ROUTER].T)
    assert near(first[ROUTER] @ first[ROUTER].T, torch.eye(K), 1e-5)
    assert torch.equal(first[PROMPTS], same[PROMPTS])
    assert not torch.equal(first[PROMPTS], other[PROMPTS])
    assert not near(first[ROUTER], other[ROUTER], 0.1)


@pytest.mark.parametrize("count", [2, 5])
def test_its_numbers_are_those_of_the_definition(
    tiny_models: Models, task_file: Path, tmp_path: Path, count: int
) -> None:
    keys = (f"adapter.prompts={count}", "tuning.epochs=1")
    info = run(recipe_of(tiny_models("bert"), task_file, "smop", *keys), tmp_path / "run")
    adapter = info["adapter"]
    assert adapter["trainable_parameters"] == adapter["stored_parameters"] == count * P * H + count * H
    assert adapter["stored_parameters"] != count * P * H + count * (H + 1)  # the router has no bias
    assert info["results"]["adapted"]["tokens"] == P


def test_a_kill_changes_nothing(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    keys = ("tuning.sweep=0.3,3", "tuning.epochs=3")
    recipe = recipe_of(tiny_models("gpt2"), task_file, "smop", *keys)
    run(recipe, tmp_path / "whole")
    assert run_dying(recipe, tmp_path / "broken") > 4
    run(recipe.model_copy(update={"seed": 1}), tmp_path / "other")
    files = [tmp_path / name / "adapter" / "adapter.safetensors" for name in ("whole", "broken", "other")]
    whole, broken, other = (file.read_bytes() for file in files)
    assert whole == broken
    assert whole != other


def test_a_text_begins_the_first_of_its_prompts(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    text = ("prompt.init=text", "prompt.text=the film was a slow and quiet joy", "tuning.lr=1e-9")
    info = run(recipe_of(tiny_models("gpt2"), task_file, "smop", *text), tmp_path / "run")
    assert [note for note in info["notes"] if f"the prompt has {K * P} tokens" in note]
    prompts = read_adapter(tmp_path / "run").tensors[PROMPTS].view(K * P, H)
    backbone = fresh(tiny_models("gpt2"))
    words = backbone.embed_ids(backbone.tokenizer(" the film was")["input_ids"])
    assert near(prompts[: len(words)], words, 1e-5)
    assert not near(prompts[1 : len(words) + 1], words, 1e-2)


def test_latency_is_measured_with_and_without(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    info = run(recipe_of(tiny_models("gpt2"), task_file, "smop", "tuning.latency=true"), tmp_path / "run")
    assert set(info["cost"]["latency"]["1"]) == {"calls", "with", "without"}


def test_rows_are_answered_alone_as_together(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    run(recipe_of(tiny_models("bert"), task_file, "smop", "tuning.epochs=4"), tmp_path / "run")
    adapter = read_adapter(tmp_path / "run")
    check_rows_alone(adapter)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("adapter.start=prompt",), r"adapter\.start=prompt for prefix or p-tuning-v2 alone[\s\S]*found: +smop"),
        (("prompt.tokens=200",), r"words to start the prompt from"),
    ],
)
def test_what_it_has_no_use_for_is_refused(
    tiny_models: Models, task_file: Path, tmp_path: Path, keys: tuple[str, ...], expected: str
) -> None:
    with pytest.raises((SoftpruneError, ManyErrors), match=expected):
        run(recipe_of(tiny_models("t5"), task_file, "smop", *keys), tmp_path / "run")


def test_a_model_that_loses_a_prompts_scale_is_refused(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    differences = {}
    for model in ("bloom", "gpt2"):
        mixture = made(tiny_models(model))
        backbone, batch = mixture.backbone, batch_of(mixture.backbone)
        prompt = mixture.named()[PROMPTS].detach()[:1]
        with torch.no_grad(), mixture.off():
            whole, share = (backbone.scores(each, batch, "sum") for each in (prompt, prompt / K))
        differences[model] = float((whole - share).abs().max() / whole.abs().max())
        assert (mixture_not_defined(backbone.model.config, backbone.family) is None) == (model == "gpt2")
    assert differences["bloom"] < 1e-5 < 1e-3 < differences["gpt2"]
    with pytest.raises(SoftpruneError, match=r'smop: "bloom" normalises every vector first'):
        run(recipe_of(tiny_models("bloom"), task_file, "smop"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    refused = refused_by_model(BackboneConfig(name=str(tiny_models("bloom"))), ["lora", "smop", "p-tuning-v2"])
    assert list(refused) == ["smop"]
    assert refused_by_model(BackboneConfig(name=str(tiny_models("gpt2"))), ["smop"]) == {}


def test_in_a_comparison_it_starts_where_the_prompt_does(tiny_models: Models, task_file: Path) -> None:
    keys = ("kind=compare", f"backbone.name={tiny_models('gpt2')}", f"task.id={task_file}", "prompt.init=labels")
    recipe = load_config(CompareRecipe, None, keys)
    assert recipe.cell("smop", 0)["prompt"]["init"] == recipe.cell("prompt", 0)["prompt"]["init"] == "labels"
