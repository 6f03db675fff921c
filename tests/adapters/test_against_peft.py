"""Adapters inside our readings of a model against peft's own model around transformers' forward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapted import ANSWERS, TEXTS, batch_of, example, fresh, near, shake
from transformers import GPT2Config, GPT2LMHeadModel

from softprune.adapters.base import AdapterPlan
from softprune.adapters.peft_layers import Injected
from softprune.adapters.registry import adapt
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone, BackboneInfo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers"),
]

Models = Callable[[str], Path]
TOLERANCE = 1e-5
CASES = [(method, model) for method in ("lora", "ia3") for model in ("t5", "bart", "gpt2", "llama", "bloom")]


def theirs(folder: Path, ours: Injected) -> Any:
    """peft's own model with our numbers."""
    base = fresh(folder)
    kind = "SEQ_2_SEQ_LM" if base.family == "seq2seq" else "CAUSAL_LM"
    ours.config.task_type = kind
    model = peft.get_peft_model(base.model, ours.config)
    own = {name.removeprefix("base_model.model."): value for name, value in model.named_parameters()}
    with torch.no_grad():
        for name, value in ours.named().items():
            own[name].copy_(value)
    return model.eval()


def log_probs_by_peft(model: Any, backbone: Backbone, text: str, answer: str) -> float:
    """Of one answer behind one text, alone, by transformers' loss."""
    (encoded,) = backbone.encode([example(text, 0)], 64)
    ids, target = torch.tensor([encoded.input_ids]), torch.tensor([encoded.answer_ids[ANSWERS.index(answer)]])
    if backbone.family == "seq2seq":
        lead = len(backbone._start) - 1  # type: ignore[attr-defined]
        before = torch.tensor([backbone._start])  # type: ignore[attr-defined]
        out = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            decoder_input_ids=torch.cat([before, target[:, :-1]], 1),
        )
        logits = out.logits[0, lead:]
    else:
        whole = torch.cat([ids, target], 1)
        out = model(input_ids=whole, attention_mask=torch.ones_like(whole))
        logits = out.logits[0, -target.shape[1] - 1 : -1]
    return float(torch.log_softmax(logits, -1).gather(1, target[0][:, None]).sum())


@pytest.mark.parametrize(("method", "model"), CASES)
def test_answers_are_those_of_peft(tiny_models: Models, method: str, model: str) -> None:
    backbone = fresh(tiny_models(model))
    batch = batch_of(backbone)
    adaptation = adapt(backbone, AdapterPlan(method, tokens=3), seed=0)
    shake(adaptation)
    with torch.no_grad():
        ours = backbone.answer_sums(adaptation.prompts().expand(len(TEXTS), -1, -1), batch)
        assert isinstance(adaptation, Injected)
        reference = theirs(tiny_models(model), adaptation)
        wanted = torch.tensor([[log_probs_by_peft(reference, backbone, t, a) for a in ANSWERS] for t in TEXTS])
        assert near(ours, wanted, TOLERANCE)
        with adaptation.off():
            plain = backbone.answer_sums(torch.zeros(len(TEXTS), 0, backbone.info.hidden), batch)
    assert not near(plain, wanted, 100 * TOLERANCE)


def gpt2_small() -> Backbone:
    """GPT-2's own sizes, but for its vocabulary."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    from softprune.models.causal import CausalBackbone

    words = {word: number for number, word in enumerate(["<end>", *"abcdefghij"])}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, "<end>")), eos_token="<end>")
    model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=32)).eval()
    info = BackboneInfo("gpt2", "causal", "none", "float32", "cpu", 768, 0, 32)
    return CausalBackbone(model, tokenizer, info)


def test_the_studys_counts() -> None:
    """`study-gpt2-prompt-lora-lastlayer.md`: 4 * (768 * 128 + 768 * 128) for LoRA, 768 * 5 for a prompt."""
    plan = AdapterPlan("lora", rank=128, alpha=32, dropout=0.2, targets=("attn.c_proj",), layers=(8, 9, 10, 11))
    adaptation = adapt(gpt2_small(), plan, seed=0)
    named = adaptation.named()
    assert sum(p.numel() for p in named.values()) == 4 * (768 * 128 + 768 * 128) == 786_432
    assert {name.split(".")[2] for name in named} == {"8", "9", "10", "11"}
    assert all(".attn.c_proj." in name for name in named)


def test_dropout_of_lora_is_on_in_training_alone(tiny_models: Models) -> None:
    backbone = fresh(tiny_models("gpt2"))
    batch = batch_of(backbone)
    adaptation = adapt(backbone, AdapterPlan("lora", dropout=0.5), seed=0)
    shake(adaptation)

    def losses(training: bool, seed: int) -> torch.Tensor:
        adaptation.train(training)
        torch.manual_seed(seed)
        with torch.no_grad():
            return backbone.losses(adaptation.prompts(), batch, "rank", "sum")

    assert torch.equal(losses(False, 0), losses(False, 1))
    assert torch.equal(losses(True, 0), losses(True, 0))
    assert not torch.equal(losses(True, 0), losses(True, 1))


def test_modules_that_arent_there_are_told(tiny_models: Models) -> None:
    with pytest.raises(SoftpruneError, match=r"(?s)expected: modules that the method can be put into.*adapter.targets"):
        adapt(fresh(tiny_models("gpt2")), AdapterPlan("lora", targets=("nowhere",)), seed=0)
