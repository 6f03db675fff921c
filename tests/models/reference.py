"""The plain transformers forward of real text, one example at a time, without padding and without softprune.

The prompt is the text's first tokens (behind CLS in BERT-like encoders): their ids go in as `input_ids`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from models import FAMILY
from softprune.types import Example, Segment

PROMPT = "the quiet river runs to the cold sea"
P = 4

CLASSES = {
    "t5": "T5ForConditionalGeneration",
    "t5_v1_1": "T5ForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
    "bart_scaled": "BartForConditionalGeneration",
    "pegasus": "PegasusForConditionalGeneration",
    "gpt2": "GPT2LMHeadModel",
    "bloom": "BloomForCausalLM",
    "llama": "LlamaForCausalLM",
    "bert": "BertForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "sentence": "BertModel",
    "sentence_bare": "BertModel",
}


def example(index: int, text: str, answers: tuple[str, ...], gold: int) -> Example:
    segments = (
        Segment(text, shortenable=True),
        Segment(" it was"),
        Segment(" "),
        Segment("", answer_slot=True),
    )
    return Example(f"e{index}", index, segments, answers, gold)


# Mixed lengths, answers of different token counts, different numbers of answers.
EXAMPLES = (
    example(0, "the film was a slow and quiet joy .", ("great", "terrible"), 0),
    example(1, "a dull plot that never wakes up and a cast that seems to know it .", ("great", "not at all great"), 1),
    example(2, "bread .", ("great", "terrible", "rather disappointing"), 2),
    example(3, "he said that she opened the window", ("definitely wrong", "very very good", "true"), 1),
)


class Plain:
    """A released class, loaded from the same folder, and its tokenizer."""

    def __init__(self, name: str, folder: Path, dtype: torch.dtype) -> None:
        self.name, self.family, self.folder = name, FAMILY[name], folder
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model: Any = getattr(transformers, CLASSES[name]).from_pretrained(folder, dtype=dtype).eval()
        self.dtype = dtype

    def prompt_ids(self) -> list[int]:
        """The first distinct tokens of a text: changing places then always changes the prompt."""
        ids: list[int] = self.tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
        return list(dict.fromkeys(ids))[:P]

    def input_ids(self, prompt: list[int], text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text)["input_ids"]
        lead = 1 if self.family in ("masked", "sentence") else 0
        return [*ids[:lead], *prompt, *ids[lead:]]

    def scores(self, prompt: list[int], item: Example) -> list[float]:
        """Log-probability of each of the example's answers."""
        with torch.no_grad():
            if self.family == "sentence":
                return self._cosines(prompt, item)
            one = {"seq2seq": self._seq2seq, "causal": self._causal, "masked": self._masked}[self.family]
            return [one(prompt, item, answer) for answer in item.answers]

    def generate(self, prompt: list[int], text: str, tokens: int) -> str:
        ids = torch.tensor([self.input_ids(prompt, text)])
        # Greedy alone: a forced end would take the last token's place.
        self.model.generation_config.forced_eos_token_id = None
        # BART's targets open with <s>, behind which answers begin.
        opened = {"decoder_input_ids": torch.tensor([[2, 0]])} if self.name.startswith("bart") else {}
        found = self.model.generate(
            **opened,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self.tokenizer.pad_token_id or 0,
        )[0]
        new = found if self.family == "seq2seq" else found[ids.shape[1] :]
        return str(self.tokenizer.decode(new, skip_special_tokens=True)).strip()

    def _seq2seq(self, prompt: list[int], item: Example, answer: str) -> float:
        ids = torch.tensor([self.input_ids(prompt, item.text)])
        labels = torch.tensor([self.tokenizer(text_target=answer)["input_ids"]])
        log_probs = self.model(input_ids=ids, labels=labels).logits[0].log_softmax(-1)
        of_labels = log_probs[torch.arange(labels.shape[1]), labels[0]]
        # BART's targets open with <s>, which every answer shares and no answer is about.
        return float(of_labels[1 if self.name.startswith("bart") else 0 :].sum())

    def _causal(self, prompt: list[int], item: Example, answer: str) -> float:
        start = len(self.input_ids(prompt, item.text))
        ids = torch.tensor(self.input_ids(prompt, f"{item.text} {answer}"))
        log_probs = self.model(input_ids=ids[None]).logits[0].log_softmax(-1)
        return float(sum(log_probs[at - 1, ids[at]] for at in range(start, len(ids))))

    def _masked(self, prompt: list[int], item: Example, answer: str) -> float:
        mask = self.tokenizer.mask_token
        space = " " if self.name == "roberta" else ""
        targets = self.tokenizer(space + answer, add_special_tokens=False)["input_ids"]
        text = "".join(mask * len(targets) if s.answer_slot else s.text for s in item.segments)
        ids = torch.tensor(self.input_ids(prompt, text))
        places = (ids == self.tokenizer.mask_token_id).nonzero()[:, 0].tolist()
        log_probs = self.model(input_ids=ids[None]).logits[0].log_softmax(-1)
        return float(sum(log_probs[at, target] for at, target in zip(places, targets, strict=True)))

    def embed(self, ids: list[int]) -> torch.Tensor:
        vector = self.model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
        if self.name == "sentence":
            assert json.loads((self.folder / "2_Dense" / "config.json").read_text())["bias"]
            dense = load_file(self.folder / "2_Dense" / "model.safetensors")
            vector = torch.tanh(dense["linear.weight"].to(vector) @ vector + dense["linear.bias"].to(vector))
            vector = vector / vector.norm()
        return vector

    def _cosines(self, prompt: list[int], item: Example) -> list[float]:
        text = self.embed(self.input_ids(prompt, item.text))
        answers = [self.embed(self.tokenizer(answer)["input_ids"]) for answer in item.answers]
        cosines = torch.stack([(text @ a) / (text.norm() * a.norm()) for a in answers])
        return [float(x) for x in (cosines / 0.05).log_softmax(0)]


def table(rows: list[list[float]]) -> torch.Tensor:
    """Scores of examples with different numbers of answers, -inf where there is none."""
    width = max(map(len, rows))
    return torch.tensor([row + [float("-inf")] * (width - len(row)) for row in rows], dtype=torch.float64)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """max|a - b| / max|b| over the finite entries, which must be the same ones."""
    a, b = a.double(), b.double()
    assert a.shape == b.shape
    assert torch.equal(a.isfinite(), b.isfinite())
    finite = b.isfinite()
    return float((a[finite] - b[finite]).abs().max() / b[finite].abs().max())
