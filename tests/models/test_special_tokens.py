"""What tokenizers put behind texts, answers that they don't tell apart, ends that only models know, rows that lack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from tokenizers import processors

from softprune.errors import SoftpruneError
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.tokenization import answer_notes
from softprune.prompts.prompt_io import adapter_files
from softprune.types import Example, Segment

Backbones = Callable[..., Backbone]
Models = Callable[[str], Path]
PARTS = (Segment("the film was a slow joy", shortenable=True), Segment(" it was"), Segment("", answer_slot=True))


def asked(*answers: str, text: str = "") -> Example:
    return Example("7", 7, (Segment(text), *PARTS), answers, 0)


@pytest.fixture
def fresh(tiny_models: Models) -> Callable[[str], Backbone]:
    """A backbone of one's own, whose tokenizer may be changed."""
    return lambda name: load_backbone(str(tiny_models(name)), dtype="float32", device="cpu")


@pytest.mark.parametrize("length", [64, 8])
def test_a_tokenizer_that_ends_texts_scores_as_one_that_does_not(length: int, fresh: Callable[[str], Backbone]) -> None:
    plain, ending = fresh("gpt2"), fresh("gpt2")
    end = ending.tokenizer.eos_token
    ending.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, ending.tokenizer.eos_token_id)]
    )
    assert ending.tokenizer("the film")["input_ids"][-1] == ending.tokenizer.eos_token_id
    example = asked("yes", "no")
    assert ending.encode([example], length) == plain.encode([example], length)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("bert", "Great", "great"),
        ("t5", "☃", "☂"),
        ("sentence", "A", "a"),
    ],
)
def test_answers_of_the_same_tokens_are_refused(name: str, first: str, second: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(name)
    with pytest.raises(SoftpruneError, match=f'"{first}" and "{second}" in example 7, which are both the tokens'):
        backbone.encode([asked("yes", first, second)], 64)
    assert backbone.encode([asked("yes", first)], 64)


def test_answers_of_invisible_characters_are_refused(backbone_of: Backbones) -> None:
    with pytest.raises(SoftpruneError, match="at least one token"):
        backbone_of("bert").encode([asked("yes", "\u0007")], 64)


def test_unknown_and_hopeless_answers_are_noted(backbone_of: Backbones) -> None:
    how = backbone_of("t5").tokenization()
    assert answer_notes(how, [asked("yes", "no")], "sum") == []
    assert "☃" in answer_notes(how, [asked("yes", "☃")], "sum")[0]
    causal = backbone_of("gpt2").tokenization()
    (note,) = answer_notes(causal, [asked("not", "not at all")], "sum")
    assert '"not at all" can never win' in note
    assert answer_notes(causal, [asked("not", "not at all")], "mean") == []


@pytest.mark.parametrize("stated", [5, [6, 5]])
@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_a_text_ends_as_the_model_says(name: str, stated: int | list[int], fresh: Callable[[str], Backbone]) -> None:
    backbone = fresh(name)
    backbone.tokenizer.eos_token = None
    backbone.model.generation_config.eos_token_id = None
    backbone.model.config.eos_token_id = stated
    first = stated[0] if isinstance(stated, list) else stated
    assert backbone.encode([asked("a quiet film")], 64)[0].answer_ids[0][-1] == first
    backbone.model.generation_config.eos_token_id = 9
    assert backbone.encode([asked("a quiet film")], 64)[0].answer_ids[0][-1] == 9
    backbone.model.generation_config.eos_token_id = 10**6  # a default of another vocabulary
    assert backbone.encode([asked("a quiet film")], 64)[0].answer_ids[0][-1] == first


@pytest.mark.parametrize("name", ["gpt2", "t5", "bert", "sentence"])
def test_tokens_beyond_the_table(name: str, fresh: Callable[[str], Backbone]) -> None:
    backbone = fresh(name)
    beyond = [f"<more{i}>" for i in range(backbone.vocabulary - len(backbone.tokenizer))]
    backbone.tokenizer.add_tokens([*beyond, "<user>"])
    backbone.tokenizer.add_special_tokens({"pad_token": "<pads>"})
    assert backbone.tokenizer.pad_token_id >= backbone.vocabulary
    short, long = backbone.encode([asked("yes", "no"), asked("yes", "no", text="the river runs ")], 64)
    none = torch.zeros(1, 0, backbone.info.hidden)
    together = backbone.scores(none, backbone.batch([short, long]), "sum")[0]
    alone = torch.cat([backbone.scores(none, backbone.batch([each]), "sum")[0] for each in (short, long)])
    assert float((together - alone).abs().max()) <= 1e-4 * float(alone.abs().max())
    assert float((together - alone.flip(0)).abs().max()) > 1e-3 * float(alone.abs().max())
    for example in (asked("yes", "no", text="<user> "), asked("yes", "<user>")):
        with pytest.raises(SoftpruneError, match=r'"<user>", token \d+, in example 7'):
            backbone.encode([example], 64)


OTHER_NAMES = {  # of heads and layers, or none
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "codegen": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "mamba": {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 2},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": 64},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48},
}


@pytest.mark.parametrize("kind", OTHER_NAMES)
@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils")  # peft's own call
def test_peft_takes_an_adapter_of_a_model_with_its_own_names(kind: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(kind, vocab_size=50, **OTHER_NAMES[kind])
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    prompt, ids = torch.randn(3, 32), torch.tensor([[4, 5, 6, 7]])
    with torch.no_grad():
        embeds = torch.cat([prompt[None], model.get_input_embeddings()(ids)], 1)
        ours, bare = model(inputs_embeds=embeds).logits, model(input_ids=ids).logits
        for name, data in adapter_files(prompt, kind, "causal").items():
            (tmp_path / name).write_bytes(data)
        theirs = PeftModel.from_pretrained(model, tmp_path).eval()(input_ids=ids).logits
    assert float((theirs - ours).abs().max()) <= 1e-5 * float(ours.abs().max())
    assert float((theirs[:, 3:] - bare).abs().max()) > 1e-3 * float(bare.abs().max())
