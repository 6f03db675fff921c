"""The three small models in training: a BERT sentence encoder, a T5 and a Llama, with what each learns from.

A student embeds a text as the teacher does (`embed`), answers a steering task (`steer`) and, unless it is a sentence
encoder, predicts words (`language`). Prefixes, projections and heads that only training needs stay out of the export.

Axes: B rows, T tokens, V vocabulary, H width, E teacher width, C virtual tasks, M soft tokens, K options.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from steering import Asked
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

PAD, IGNORED = 0, -100
ATTENTION = (
    "eager"  # on CPUs and texts this short, the backward pass of fused attention takes twice a whole step's time
)
TEMPERATURE = 0.05  # of cosines among a task's options, as softprune's sentence family has it
MASKED = 0.15  # share of a text's tokens that the cloze hides
CLOZE_MOST = 12  # hidden tokens of one text


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of `states` [B, T, H] over the tokens where `mask` [B, T] is 1: [B, H]."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def pad(rows: list[list[int]], padding: int = PAD) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both [B, T], of ragged rows."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def scaled_components(words_VE: Tensor, width: int, spread: float) -> tuple[Tensor, Tensor]:
    """Word vectors on their `width` leading principal components, [V, H], and the map there, [E, H].

    Args:
        words_VE: the teacher's word embeddings.
        width: H.
        spread: standard deviation of the result's elements; 0 keeps the teacher's.
    """
    centred = words_VE - words_VE.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    axes_EH = vectors.flip(1)[:, :width]
    axes_EH = axes_EH * ((spread or words_VE.std()) / (centred @ axes_EH).std())
    return centred @ axes_EH, axes_EH


class Student(nn.Module, ABC):
    """What the three have in common: soft prefixes and the way into the embedding matrix."""

    model: Any

    def begin(self, width: int, virtual: int, soft: int) -> None:
        """Projection to the teacher's `width`, and a soft prefix for each virtual task, started as common words."""
        words = self.model.get_input_embeddings().weight
        self.dense = nn.Linear(words.shape[1], width)
        self.prefixes = nn.Parameter(torch.empty(virtual, soft, words.shape[1]))
        self.restart(list(range(virtual)), torch.Generator().manual_seed(0))

    @torch.no_grad()
    def restart(self, tasks: list[int], generator: torch.Generator) -> None:
        """Let the prefixes of these virtual tasks start anew as common words."""
        words = self.model.get_input_embeddings().weight
        shape, first = (len(tasks), self.prefixes.shape[1]), min(1_000, len(words) // 2)
        common = torch.randint(first, min(6_000, len(words)), shape, generator=generator)
        self.prefixes[tasks] = words[common.to(words.device)].to(self.prefixes)

    def with_prefix(self, asked: Asked, ids: Tensor, mask: Tensor, opening: int = 0) -> tuple[Tensor, Tensor]:
        """Input embeddings [B, M + T, H] and mask, the task's prefix behind the text's first `opening` tokens."""
        embeds = self.model.get_input_embeddings()(ids)
        if asked.task is None:
            return embeds, mask
        prefix = self.prefixes[asked.task.to(ids.device)].to(embeds.dtype)
        ones = torch.ones(prefix.shape[:2], dtype=mask.dtype, device=mask.device)
        return (
            torch.cat([embeds[:, :opening], prefix, embeds[:, opening:]], dim=1),
            torch.cat([mask[:, :opening], ones, mask[:, opening:]], dim=1),
        )

    @abstractmethod
    def embed(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Unit-length embeddings [B, E] of the texts, and what stands for each token, [B, T, E]."""

    def pooled(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Both, from hidden states [B, T, H]. The projection is linear, so that token by token it is the mean's."""
        taught = self.dense(states)
        return functional.normalize(mean_pool(taught, mask).float(), dim=-1), taught

    @abstractmethod
    def steer(self, asked: Asked, ids: Tensor, mask: Tensor, words: Words) -> tuple[Tensor, Tensor]:
        """Loss over the batch, and whether each row's best option is the right one, [B]."""

    def language(self, ids: Tensor, mask: Tensor, rng: Any) -> Tensor:
        """Loss of predicting the texts' own words."""
        raise NotImplementedError(f"{type(self).__name__} predicts no words")


class Words:
    """The answer words: token ids of each, the same padded [W, T], and their teacher embeddings [W, E]."""

    def __init__(self, rows: list[list[int]], embeddings_WE: Tensor) -> None:
        self.rows = rows
        self.ids, _ = pad(rows)
        self.embeddings = embeddings_WE

    def targets(self, chosen: list[int], closing: int) -> Tensor:
        """Answer tokens and the closing token of each row, [B, T], `IGNORED` where there is none."""
        return pad([[*self.rows[i], closing] for i in chosen], IGNORED)[0]


def among(logits_BV: Tensor, asked: Asked, words: Words) -> tuple[Tensor, Tensor]:
    """Cross-entropy among the options, each by its first token, and whether the right one is the likeliest, [B].

    What a prompt is tuned for and judged by: the likelihood over all words mostly says which words may come at all.
    Options that share a first token can't be told apart here.
    """
    gold, options = asked.gold.to(logits_BV.device), asked.options.to(logits_BV.device)
    first = words.ids[:, 0].to(logits_BV.device)[options.clamp(min=0)]
    scores = logits_BV.float().gather(1, first).masked_fill(options < 0, float("-inf"))
    return functional.cross_entropy(scores, gold), scores.argmax(1) == gold


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the targets that count; logits [..., V] in any dtype."""
    counts = targets != IGNORED
    return functional.cross_entropy(logits[counts].float(), targets[counts])


class SentenceStudent(Student):
    """A BERT, mean pooling and a linear map to the teacher's width; all of it ships."""

    def __init__(self, settings: dict[str, Any], teacher: Any, kept: list[int]) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=len(kept),
            hidden_size=settings["hidden"],
            num_hidden_layers=settings["layers"],
            num_attention_heads=settings["heads"],
            intermediate_size=settings["ffn"],
            max_position_embeddings=settings["positions"],
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.04,
            attn_implementation=ATTENTION,
        )
        self.model = BertModel(config, add_pooling_layer=False)
        source, target = teacher.embeddings, self.model.embeddings
        words, axes = scaled_components(source.word_embeddings.weight[kept].detach().float(), config.hidden_size, 0)
        with torch.no_grad():
            target.word_embeddings.weight.copy_(words)
            for name in ("position_embeddings", "token_type_embeddings"):
                weight = getattr(target, name).weight
                weight.copy_(getattr(source, name).weight[: len(weight)].float() @ axes)

    def embed(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Unit-length embeddings [B, E], tokens [B, T, E]."""
        return self._pooled(self.model.get_input_embeddings()(ids), mask)

    def steer(self, asked: Asked, ids: Tensor, mask: Tensor, words: Words) -> tuple[Tensor, Tensor]:
        """Cross-entropy of cosine / temperature among the options, whose embeddings are the teacher's."""
        found, _ = self._pooled(*self.with_prefix(asked, ids, mask, opening=1))
        options = words.embeddings[asked.options.clamp(min=0)].to(found.device)
        logits = torch.einsum("be,bke->bk", found.float(), options) / TEMPERATURE
        logits = logits.masked_fill(asked.options.to(found.device) < 0, float("-inf"))
        gold = asked.gold.to(found.device)
        return functional.cross_entropy(logits, gold), logits.argmax(1) == gold

    def _pooled(self, embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.pooled(self.model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state, mask)


class Seq2SeqStudent(Student):
    """A T5 with tied embeddings. Its encoder learns from the teacher, its decoder to answer."""

    def __init__(self, settings: dict[str, Any], teacher: Any, kept: list[int], special: dict[str, int]) -> None:
        super().__init__()
        config = T5Config(
            vocab_size=len(kept),
            d_model=settings["hidden"],
            d_kv=settings["hidden"] // settings["heads"],
            d_ff=settings["ffn"],
            num_layers=settings["layers"],
            num_decoder_layers=settings["decoder_layers"],
            num_heads=settings["heads"],
            dropout_rate=0.0,
            feed_forward_proj="relu",
            tie_word_embeddings=True,
            pad_token_id=PAD,
            eos_token_id=special["sep"],
            decoder_start_token_id=PAD,
            attn_implementation=ATTENTION,
        )
        self.special = special
        self.model = T5ForConditionalGeneration(config)
        source = teacher.embeddings.word_embeddings.weight[kept].detach().float()
        with torch.no_grad():
            self.model.shared.weight.copy_(scaled_components(source, config.d_model, settings["spread"])[0])

    def embed(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """From the encoder's states, averaged."""
        return self.pooled(self.model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask)

    def steer(self, asked: Asked, ids: Tensor, mask: Tensor, words: Words) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the answer word's tokens and the closing one, plus that among the options."""
        targets = words.targets(asked.answers, self.special["sep"]).to(ids.device)
        embeds, mask = self.with_prefix(asked, ids, mask)
        logits = self._decoded(embeds, mask, targets)
        ranked, right = among(logits[:, 0], asked, words)
        return cross_entropy(logits, targets) + ranked, right

    def language(self, ids: Tensor, mask: Tensor, rng: Any) -> Tensor:
        """Half the batches continue a text (LM adaptation, Lester et al. 2021, section 3.1), half fill its gaps."""
        source, targets = self._continued(ids, mask, rng) if rng.random() < 0.5 else self._cloze(ids, mask, rng)
        embeds = self.model.shared(source)
        return cross_entropy(self._decoded(embeds, (source != PAD).long(), targets), targets)

    def _continued(self, ids: Tensor, mask: Tensor, rng: Any) -> tuple[Tensor, Tensor]:
        cut = max(1, int(ids.shape[1] * rng.uniform(0.3, 0.7)))
        targets = ids[:, cut:].masked_fill(mask[:, cut:] == 0, IGNORED)
        return ids[:, :cut], targets[:, : 2 * CLOZE_MOST]

    def _cloze(self, ids: Tensor, mask: Tensor, rng: Any) -> tuple[Tensor, Tensor]:
        hidden = torch.from_numpy(rng.random(tuple(ids.shape)) < MASKED).to(ids.device) & (mask == 1)
        hidden &= hidden.cumsum(1) <= CLOZE_MOST
        rows = [[*row[where].tolist(), self.special["sep"]] for row, where in zip(ids, hidden, strict=True)]
        return ids.masked_fill(hidden, self.special["mask"]), pad(rows, IGNORED)[0].to(ids.device)

    def _decoded(self, embeds: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
        memory = self.model.encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        shifted = torch.cat([torch.full_like(targets[:, :1], PAD), targets[:, :-1].clamp(min=0)], dim=1)
        states = self.model.decoder(
            input_ids=shifted, encoder_hidden_states=memory, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state
        # as T5ForConditionalGeneration does where embeddings are tied
        logits: Tensor = self.model.lm_head(states * self.model.config.d_model**-0.5)
        return logits


class CausalStudent(Student):
    """A Llama with tied embeddings; the teacher's embedding is read off a text's last token."""

    def __init__(self, settings: dict[str, Any], teacher: Any, kept: list[int], special: dict[str, int]) -> None:
        super().__init__()
        config = LlamaConfig(
            vocab_size=len(kept),
            hidden_size=settings["hidden"],
            intermediate_size=settings["ffn"],
            num_hidden_layers=settings["layers"],
            num_attention_heads=settings["heads"],
            max_position_embeddings=settings["positions"],
            tie_word_embeddings=True,
            pad_token_id=PAD,
            bos_token_id=special["cls"],
            eos_token_id=special["sep"],
            attn_implementation=ATTENTION,
        )
        self.special = special
        self.model = LlamaForCausalLM(config)
        source = teacher.embeddings.word_embeddings.weight[kept].detach().float()
        with torch.no_grad():
            self.model.model.embed_tokens.weight.copy_(
                scaled_components(source, config.hidden_size, settings["spread"])[0]
            )

    def embed(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """From the state of the last token, which alone has read the whole text."""
        taught = self.dense(self._states(self.model.get_input_embeddings()(ids), mask))
        last = taught[torch.arange(len(ids), device=ids.device), mask.sum(1) - 1]
        return functional.normalize(last.float(), dim=-1), taught

    def steer(self, asked: Asked, ids: Tensor, mask: Tensor, words: Words) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the answer's tokens and the closing one behind each text, plus that among the options."""
        answers = words.targets(asked.answers, self.special["sep"]).to(ids.device)
        lengths, steps = mask.sum(1), answers.shape[1]
        width = ids.shape[1] + steps
        at = lengths[:, None] + torch.arange(steps, device=ids.device)
        inputs = functional.pad(ids, (0, steps), value=PAD).scatter(1, at, answers.clamp(min=0))
        targets = torch.full_like(inputs, IGNORED).scatter(1, at, answers)
        seen = (torch.arange(width, device=ids.device) < (lengths + steps)[:, None]).long()
        embeds, seen = self.with_prefix(asked, inputs, seen)
        states = self._states(embeds, seen)[:, -width:]
        predicting = (targets != IGNORED).roll(-1, 1)  # the token at position p is predicted at p - 1
        logits = self.model.lm_head(states[predicting])
        loss = functional.cross_entropy(logits.float(), targets[targets != IGNORED])
        first = self.model.lm_head(states[torch.arange(len(ids), device=ids.device), lengths - 1])
        ranked, right = among(first, asked, words)
        return loss + ranked, right

    def language(self, ids: Tensor, mask: Tensor, rng: Any) -> Tensor:
        """Every next token."""
        states = self._states(self.model.get_input_embeddings()(ids), mask)
        counts = mask[:, 1:] == 1
        return functional.cross_entropy(self.model.lm_head(states[:, :-1][counts]).float(), ids[:, 1:][counts])

    def _states(self, embeds: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.model.model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
        return states


def new_student(settings: dict[str, Any], teacher: Any, kept: list[int], special: dict[str, int]) -> Student:
    """An untrained student whose word embeddings are the teacher's principal components."""
    if settings["family"] == "sentence":
        return SentenceStudent(settings, teacher, kept)
    kind = {"seq2seq": Seq2SeqStudent, "causal": CausalStudent}[settings["family"]]
    return kind(settings, teacher, kept, special)
