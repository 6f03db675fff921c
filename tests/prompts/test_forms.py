"""Forms of a prompt: their equations by hand, what they train, K at once and alone, and peft's own CPT."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from toys import distance, drawn, example, task_of

from softprune.config import resolve
from softprune.config.forms import FORMS, PLAIN
from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.prompts.forms import Setup, Started, start_form
from softprune.prompts.forms.base import Draws, Form
from softprune.prompts.forms.cpt import DECAY, ContextAware
from softprune.prompts.forms.demonstrations import demonstrate, demonstration_ids, take_turns
from softprune.prompts.forms.low_rank import LowRank
from softprune.prompts.forms.residual import Residual
from softprune.prompts.forms.superpos import Superposition
from softprune.prompts.forms.ulpt import UltraLow
from softprune.training.loop import Keeper, Schedule, Watch, train
from softprune.training.optimizers import form_adamw
from softprune.training.trainable import Feed, FormTrainable

Backbones = Callable[..., Backbone]
NAMES = [name for name in FORMS if name != PLAIN]
K, P, H, B, M = 2, 3, 8, 4, 5
SMALL = ("residual", 6), ("low-rank", 2), ("ulpt", 2), ("superpos", 12), ("cpt", 0.5)
OPTION = {name: next(iter(FORMS[name].options)) for name in NAMES}


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """`distance` of tensors that may have a gradient."""
    return distance(found.detach(), wanted.detach())


def scrambled(form: Form) -> Form:
    """With other numbers than those that it starts with, as training leaves them."""
    for place, values in enumerate(form.trained.values()):
        values.data += 0.3 * drawn(*values.shape, seed=place)
    return form


# --- equations ---


def test_residual_adds_what_its_network_gives() -> None:
    form = scrambled(Residual(drawn(K, P, H), B, 0.7, Draws((0, 1))))
    own = form.trained
    for k in range(K):
        down, up, norm = nn.Linear(H, B), nn.Linear(B, H), nn.LayerNorm(H)
        with torch.no_grad():
            down.weight.copy_(own["down_KHb"][k].T)
            down.bias.copy_(own["down_bias_Kb"][k])
            up.weight.copy_(own["up_KbH"][k].T)
            up.bias.copy_(own["up_bias_KH"][k])
            norm.weight.copy_(own["gain_KH"][k])
            norm.bias.copy_(own["shift_KH"][k])
            start_PH = own["tokens_KPH"][k]
            wanted_PH = start_PH + norm(up(torch.relu(down(start_PH))))
            wrong_PH = start_PH + norm(up(down(start_PH)))
        assert apart(form.produce()[k], wanted_PH) <= 1e-6
        assert apart(form.produce()[k], wrong_PH) > 1e-3


def test_low_rank_is_a_product() -> None:
    form = scrambled(LowRank(P, H, 2, 0.7, Draws((0, 1))))
    left, right = form.trained["left_KPb"], form.trained["right_KbH"]
    wanted_PH = torch.stack([sum(left[1, p, b] * right[1, b] for b in range(2)) for p in range(P)])  # type: ignore[misc]
    assert apart(form.produce()[1], wanted_PH) <= 1e-6
    assert apart(form.produce()[0], wanted_PH) > 1e-3
    assert torch.linalg.matrix_rank(form.produce()[0]) == 2


def test_ulpt_scales_and_shifts_a_projection() -> None:
    form = scrambled(UltraLow(P, H, 2, 0.7, Draws((0, 1))))
    own, random_rH = form.trained, form.fixed["projection_KrH"][1]
    projected_PH = own["codes_KPr"][1] @ random_rH
    wanted_PH = own["scale_KH"][1] * projected_PH + own["shift_KH"][1]
    assert apart(form.produce()[1], wanted_PH) <= 1e-6
    assert apart(form.produce()[1], projected_PH) > 1e-3
    assert "projection_KrH" not in form.save()


@pytest.mark.parametrize("kind", [LowRank, UltraLow])
def test_noise_has_the_size_of_embeddings(kind: type[LowRank] | type[UltraLow]) -> None:
    made_KPH = kind(200, 400, 10, 0.02, Draws((0,))).produce().detach()
    assert made_KPH.square().mean().sqrt() == pytest.approx(0.02, rel=0.1)


def test_superposition_weighs_words() -> None:
    vectors_KMH = drawn(K, M, H)
    words_KM = torch.arange(M).expand(K, M)
    start = Superposition(P, words_KM, vectors_KMH)
    assert torch.equal(start.produce(), vectors_KMH[:, :P])
    wrapped = Superposition(M + 1, words_KM, vectors_KMH)
    assert torch.equal(wrapped.produce()[:, M], vectors_KMH[:, 0])
    form = scrambled(start)
    weights_PM = form.trained["weights_KPM"][1]
    wanted_PH = torch.stack([sum(weights_PM[p, m] * vectors_KMH[1, m] for m in range(M)) for p in range(P)])  # type: ignore[misc]
    assert apart(form.produce()[1], wanted_PH) <= 1e-6
    assert apart(form.produce()[1], vectors_KMH[1, :P]) > 1e-3


def test_cpt_keeps_moves_in_a_ball_and_labels_in_place() -> None:
    start_KPH, turns_KP = drawn(K, P, H), torch.tensor([[0, 2, 0], [0, 0, 1]])
    form = ContextAware(start_KPH, torch.zeros(K, P, dtype=torch.long), turns_KP, 0.5, 1.0)
    moves_KPH = drawn(K, P, H, seed=1)
    moves_KPH[0, 0] *= 0.01  # within its ball already
    form.trained["moves_KPH"].data = moves_KPH.clone()
    made_KPH = form.produce() - start_KPH
    assert apart(made_KPH[0, 0], moves_KPH[0, 0]) <= 1e-5
    assert apart(made_KPH[1, 0], 0.5 * moves_KPH[1, 0] / moves_KPH[1, 0].norm()) <= 1e-5
    assert apart(made_KPH[1, 0], moves_KPH[1, 0]) > 0.1
    assert not made_KPH[0, 1].any()
    assert not made_KPH[1, 2].any()
    labels = form.labels()
    assert labels is not None
    assert labels.places_KM.tolist() == [[1], [2]]
    assert apart(labels.weights_KM, torch.tensor([[DECAY**2], [DECAY]])) <= 1e-6


# --- what is trained ---


@pytest.mark.parametrize(
    ("form", "numbers"),
    [
        (Residual(drawn(K, P, H), B, 1.0, Draws((0, 1))), P * H + 2 * H * B + B + 3 * H),
        (LowRank(P, H, 2, 1.0, Draws((0, 1))), 2 * (P + H)),
        (UltraLow(P, H, 2, 1.0, Draws((0, 1))), P * 2 + 2 * H),
        (Superposition(P, torch.zeros(K, M, dtype=torch.long), drawn(K, M, H)), P * M),
        (ContextAware(drawn(K, P, H), *[torch.zeros(K, P, dtype=torch.long)] * 2, 1.0, 1.0), P * H),
    ],
    ids=NAMES,
)
def test_what_is_trained_is_counted(form: Form, numbers: int) -> None:
    assert form.numbers == numbers
    assert form.candidates == K
    form.produce().sum().backward()
    assert all(values.grad is not None for values in form.trained.values())


# --- on a backbone ---


def started(backbone: Backbone, name: str, seeds: Sequence[int], *keys: str) -> Started:
    recipe = resolve(["task.id=demo", "prompt.tokens=12", f"prompt.form={name}", *keys])
    examples = [example(place) for place in range(10)]
    return start_form(Setup(recipe, backbone, load_task("demo"), examples, seeds, backbone.embeddings_rms()))


def trained(backbone: Backbone, name: str, option: float, seeds: Sequence[int]) -> torch.Tensor:
    """The prompts `[K, P, H]` of a short training, each with its own data order."""
    form = started(backbone, name, seeds, f"prompt.{OPTION[name]}={option}").form
    trainable = FormTrainable(backbone, form, loss=backbone.default_loss, score="sum")
    data, rms = task_of(backbone), backbone.embeddings_rms()

    def evaluate() -> list:  # type: ignore[type-arg]
        from softprune.training.loop import Evaluation

        return [Evaluation(0.0, float(values.sum())) for values in trainable.prompts().detach()]

    ended = train(
        trainable,
        form_adamw(form.trained, form.sizes, lr=0.1 * rms, rms=rms, weight_decay=0.01),
        Feed(data.lengths, lambda indices: data.batch(backbone, indices)),
        evaluate,
        Schedule(epochs=2, batch_size=4, patience=None, best_by="last"),
        names=[str(seed) for seed in seeds],
        title="",
        keeper=Keeper(),
        watch=Watch(),
        seeds=seeds,
    )
    return ended.tensors["vectors_KPH"]


@pytest.mark.parametrize(("name", "option"), SMALL)
def test_prompts_side_by_side_are_those_alone(name: str, option: float, backbone_of: Backbones) -> None:
    backbone = backbone_of("gpt2", "float64")
    together_KPH = trained(backbone, name, option, (3, 5))
    for place, seed in enumerate((3, 5)):
        assert apart(together_KPH[place], trained(backbone, name, option, (seed,))[0]) <= 1e-6
    assert apart(together_KPH[0], together_KPH[1]) > 1e-3
    start_PH = started(backbone, name, (3,), f"prompt.{OPTION[name]}={option}").form.produce()[0]
    assert apart(together_KPH[0], start_PH) > 1e-3, "training moved it"


@pytest.mark.parametrize(("name", "option"), SMALL)
def test_a_prompt_that_leaves_takes_nothing_along(name: str, option: float, backbone_of: Backbones) -> None:
    form = scrambled(started(backbone_of("gpt2"), name, (3, 5, 7), f"prompt.{OPTION[name]}={option}").form)
    made_KPH, saved = form.produce().detach(), form.save()
    form.keep([2, 0])
    assert torch.equal(form.produce(), made_KPH[[2, 0]])
    other = started(backbone_of("gpt2"), name, (3, 5, 7), f"prompt.{OPTION[name]}={option}").form
    other.load(saved)
    assert torch.equal(other.produce(), made_KPH)


def test_superpos_starts_as_a_plain_prompt_does(backbone_of: Backbones) -> None:
    from softprune.prompts.initialization import initial_prompt

    backbone = backbone_of("bert")
    plain = initial_prompt(resolve(["prompt.tokens=12", "seed=3"]), backbone, load_task("demo"))
    found = started(backbone, "superpos", (3,), "prompt.words=20")
    assert torch.equal(found.form.produce()[0], plain.vectors_PH)
    assert found.words == plain.words
    with pytest.raises(SoftpruneError, match=r"at least 5000 words[\s\S]*set prompt.words to \d+ at most"):
        started(backbone, "superpos", (3,), "prompt.words=5000")


# --- demonstrations ---


def test_demonstrations_end_with_a_label(backbone_of: Backbones) -> None:
    tokenizer, examples = backbone_of("gpt2").tokenizer, [example(place) for place in range(6)]
    found = demonstrate(tokenizer, examples, 40, seed=0)
    assert len(found.ids_P) == len(found.turns_P) == 40
    first, second = take_turns(examples, 0)[:2]
    own, is_label = demonstration_ids(tokenizer, first)
    assert list(found.ids_P[-len(own) :]) == own
    assert [turn == 1 for turn in found.turns_P[-len(own) :]] == is_label
    assert tokenizer.decode(own).strip() == f"{first.text} {first.answers[first.gold]}"
    assert {first.answers[first.gold], second.answers[second.gold]} == {"positive", "negative"}
    assert "the prompt starts as" in found.note
    again = demonstrate(tokenizer, examples[:1], 60, seed=0)
    assert ", of 1 training example" in again.note


def test_a_label_stands_where_a_masked_model_has_its_slot(backbone_of: Backbones) -> None:
    from dataclasses import replace

    from softprune.types import Segment

    one = example(2)
    asked = replace(one, segments=(*one.segments, Segment(" , she said")))
    ids, is_label = demonstration_ids(backbone_of("bert").tokenizer, asked)
    read = backbone_of("bert").tokenizer.decode(ids)
    assert "".join(read.split()) == "".join(f"{one.text}{one.answers[one.gold]}, she said".split())
    assert is_label[-1] is False
    assert any(is_label)


# --- peft ---


def test_cpt_is_peft_s_own(backbone_of: Backbones) -> None:
    """Prompts, gradients and the decayed loss of one example."""
    peft = pytest.importorskip("peft")
    from peft.tuners.cpt.model import CPTEmbedding

    backbone = backbone_of("gpt2")
    data, radius, tokens = task_of(backbone), 0.5, 40
    demonstrations = demonstrate(backbone.tokenizer, [example(place) for place in range(6)], tokens, seed=0)
    turns_KP = torch.tensor([demonstrations.turns_P])
    most = int(turns_KP.max())
    # peft numbers the parts of demonstrations from the first on, four to each; a label is the fourth.
    types = [2 if turn == 0 else 4 * (most + 1 - turn) for turn in demonstrations.turns_P]
    hidden = backbone.info.hidden
    config = peft.CPTConfig(
        task_type="CAUSAL_LM",
        cpt_token_ids=list(demonstrations.ids_P),
        cpt_tokens_type_mask=types,
        opt_weighted_loss_type="decay",
        opt_loss_decay_factor=DECAY,
        opt_projection_epsilon=radius * (2048 / hidden) ** 0.5,
        opt_projection_format_epsilon=radius * (2048 / hidden) ** 0.5,
    )
    config.token_dim = hidden
    theirs = CPTEmbedding(config, backbone.model.get_input_embeddings())
    start_KPH = backbone.embed_ids(demonstrations.ids_P)[None]
    ours = ContextAware(start_KPH, torch.tensor([demonstrations.ids_P]), turns_KP, radius, 1.0)
    moves_PH = 0.2 * drawn(tokens, hidden) * (turns_KP[0] == 0)[:, None]
    theirs.delta_embedding.weight.data = moves_PH.clone()
    ours.trained["moves_KPH"].data = moves_PH[None].clone()

    encoded = data.encoded[3]
    answer = list(encoded.answer_ids[encoded.gold])
    input_ids, behind = torch.tensor([[*encoded.input_ids, *answer]]), len(encoded.input_ids)
    prompt_PH = theirs(torch.arange(tokens))
    embeds = torch.cat([prompt_PH[None], backbone.lookup(input_ids)], dim=1)
    labels = torch.tensor([[*(-100 if t % 4 else i for t, i in zip(types, demonstrations.ids_P, strict=True))]])
    # The first place has nothing to be predicted from; peft shifts it away too.
    labels = torch.cat([labels, torch.tensor([[-100] * behind + answer])], dim=1)
    kinds = torch.tensor([[*types, *[2] * behind, *[4 * (most + 1)] * len(answer)]])
    output = theirs.calculate_loss(backbone.model(inputs_embeds=embeds), labels, kinds, config)
    output.loss.backward()

    trainable = FormTrainable(backbone, ours, loss="likelihood", score="sum")
    (loss,) = trainable.loss(data.batch(backbone, [3]))
    loss.sum().backward()
    assert apart(trainable.prompts()[0], prompt_PH) <= 1e-5
    assert apart(loss, output.loss[None]) <= 1e-5
    assert theirs.delta_embedding.weight.grad is not None
    assert ours.trained["moves_KPH"].grad is not None
    assert apart(ours.trained["moves_KPH"].grad[0], theirs.delta_embedding.weight.grad) <= 1e-5
    alone = backbone.losses(trainable.prompts(), data.batch(backbone, [3]), "likelihood", "sum")
    assert apart(alone, output.loss[None, None]) > 1e-3, "the demonstrations' labels count"
    assert apart(prompt_PH, start_KPH[0] + moves_PH) > 1e-3, "some moves are too long"
