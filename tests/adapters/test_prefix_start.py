"""Prefixes that start as what a model keeps of a prompt: peft's own, every family, whole runs, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from adapted import recipe_of, run, run_dying
from peft import PrefixTuningConfig, get_peft_model, initialize_kv_prefix_from_text
from pefts import DEFINED, P, batch_of, difference, mistral, scored

from models import FAMILY
from softprune.adapters.base import AdapterPlan
from softprune.adapters.prefix import Prefix, new_prefix
from softprune.config import CompareRecipe, load_config
from softprune.errors import ManyErrors, SoftpruneError
from softprune.models.base import Backbone
from softprune.pipelines.adapt import adapt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils"),
]
Backbones = Callable[..., Backbone]
Models = Callable[[str], Path]
TEXT = "the film was a slow and quiet joy with bread and cheese"
DECODERS = ("gpt2", "llama", "bloom")


@pytest.mark.parametrize("name", DECODERS)
def test_the_keys_and_values_of_a_text_are_pefts(
    name: str, backbone_of: Backbones, tiny_models: Models, attached: Callable[..., Prefix]
) -> None:
    backbone, folder = backbone_of(name), tiny_models(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P)
    wrapped = get_peft_model(model, config).eval()
    theirs = initialize_kv_prefix_from_text(wrapped, backbone.tokenizer, text=TEXT, use_chat_template=False)
    ids = backbone.tokenizer(TEXT)["input_ids"]
    prefix = attached(backbone)
    prefix.start_from(backbone.embed_ids(ids[:P]))
    assert difference(prefix.keys_values().detach(), theirs) <= 1e-5
    prefix.start_from(backbone.embed_ids(ids[1 : P + 1]))
    assert difference(prefix.keys_values().detach(), theirs) > 1e-2


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("name", DEFINED)
def test_it_reads_as_the_prompt_that_it_started_from(
    name: str, project: bool, backbone_of: Backbones, attached: Callable[..., Prefix]
) -> None:
    backbone = backbone_of(name)
    batch, vectors_PH = batch_of(backbone), backbone.embed_ids([5, 9, 6, 8, 7])
    behind = backbone.scores(vectors_PH[None], batch, "sum")[0]
    prefix = attached(backbone, project)
    at_random = scored(backbone, batch).detach()
    prefix.start_from(vectors_PH)
    found = scored(backbone, batch)
    assert difference(found.detach(), at_random) > 1e-4
    if FAMILY[name] == "causal":  # elsewhere a prompt also reads the text behind it, as no prefix does
        assert difference(found.detach(), behind) <= 1e-5
    found.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in prefix.module.parameters())


def test_a_shorter_window_than_the_prompt_is_refused(tmp_path: Path, attached: Callable[..., Prefix]) -> None:
    backbone = mistral(tmp_path, 4)
    prefix = attached(backbone)
    with pytest.raises(SoftpruneError, match=r"at most 3 tokens to start from a text[\s\S]*adapter\.start=random"):
        prefix.start_from(backbone.embed_ids([5, 9, 6, 8, 7]))


@pytest.mark.parametrize("method", ["prefix", "p-tuning-v2"])
def test_a_run_starts_there_and_goes_on_bit_by_bit(
    method: str, tiny_models: Models, task_file: Path, tmp_path: Path
) -> None:
    keys = ("adapter.start=prompt", "prompt.init=text", f"prompt.text={TEXT}", "prompt.tokens=5", "tuning.lr=0.01")
    recipe = recipe_of(tiny_models("gpt2"), task_file, method, *keys)
    info = run(recipe, tmp_path / "run")
    assert [note for note in info["notes"] if "the prompt has 5 tokens: the last" in note]
    random = run(recipe_of(tiny_models("gpt2"), task_file, method, "prompt.tokens=5"), tmp_path / "random")
    said = [(tmp_path / name / "predictions" / "adapted.jsonl").read_bytes() for name in ("run", "random")]
    assert said[0] != said[1]
    assert random["adapter"]["stored_parameters"] == info["adapter"]["stored_parameters"]

    assert run_dying(recipe, tmp_path / "broken") > 2
    ended = [(tmp_path / name / "adapter" / "adapter.safetensors").read_bytes() for name in ("run", "broken")]
    assert ended[0] == ended[1]


@pytest.mark.parametrize(
    ("method", "keys", "expected"),
    [
        (
            "lora",
            ("adapter.start=prompt",),
            r"adapter\.start=prompt for prefix or p-tuning-v2 alone[\s\S]*found: +lora",
        ),
        ("prefix", ("prompt.init=text",), r"a start that prefix reads[\s\S]*--start prompt"),
        ("lora", ("prompt.init=labels",), r"a start that lora reads[\s\S]*leave prompt\.init out"),
    ],
)
def test_a_start_that_nothing_reads_is_refused(
    method: str, keys: tuple[str, ...], expected: str, tiny_models: Models, task_file: Path, tmp_path: Path
) -> None:
    with pytest.raises((SoftpruneError, ManyErrors), match=expected):
        adapt(recipe_of(tiny_models("gpt2"), task_file, method, *keys), tmp_path / "run")


def test_a_comparison_starts_those_that_can(tiny_models: Models, task_file: Path) -> None:
    keys = ("kind=compare", f"backbone.name={tiny_models('gpt2')}", f"task.id={task_file}", "prompt.init=text")
    recipe = load_config(CompareRecipe, None, [*keys, "adapter.start=prompt"])
    cells = {method: recipe.cell(method, 0) for method in ("lora", "prefix", "prompt")}
    assert "start" not in cells["lora"]["adapter"]
    assert "init" not in cells["lora"]["prompt"]
    assert cells["prefix"]["adapter"]["start"] == "prompt"
    assert cells["prefix"]["prompt"]["init"] == cells["prompt"]["prompt"]["init"] == "text"
    plain = load_config(CompareRecipe, None, keys)
    assert "init" not in plain.cell("prefix", 0)["prompt"]


def test_it_is_read_without_the_adapter_itself(backbone_of: Backbones, attached: Callable[..., Prefix]) -> None:
    backbone = backbone_of("gpt2")
    vectors_PH = backbone.embed_ids([5, 9, 6, 8, 7])
    prefix = attached(backbone)
    prefix.start_from(vectors_PH)
    first = prefix.keys_values().detach().clone()
    prefix.start_from(vectors_PH)
    assert torch.equal(prefix.keys_values().detach(), first)
    prefix.detach()
    again = new_prefix(backbone, AdapterPlan("p-tuning-v2", tokens=P), seed=1)
    again.start_from(vectors_PH)
    again.detach()
    assert torch.equal(again.keys_values().detach(), first)
