"""The frozen backbone: what all families share.

A family implements one thing, `answer_sums`: the log-probability of every candidate answer, given prompts in front of
the inputs. Losses, predictions, importance and search are computed from it.

Rows: a call takes prompts `[R, P, H]` and a batch of B examples. R = K x B is *crossed* (row k * B + b is prompt k on
example b), R = B is *paired* (a prompt per example). Inputs are padded on the right only, so positions are the running
count of real tokens in every architecture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from softprune.errors import SoftpruneError
from softprune.models.architectures import embedding_scale, find_trunk
from softprune.models.batching import collate
from softprune.models.checkpointing import enable_checkpointing
from softprune.models.load_errors import check_token_ids
from softprune.models.probe import QUANTIZED_TOLERANCE, Probe, ordinary_ids
from softprune.models.tokenization import Tokenization, check_rows, encode, ids_behind
from softprune.types import Batch, Encoded, Example

ROWS_AT_ONCE = 2**16
"""Rows of the input embeddings that are held in float32 at a time."""


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """Facts about a loaded backbone, as run.json holds them.

    Attributes:
        name: what the user typed.
        family: seq2seq, causal, masked or sentence.
        fingerprint: short hash of the configuration and of a sample of the weights.
        dtype, device: of the weights.
        hidden: H, the size of its input embeddings.
        parameters: number of frozen weights.
        positions: longest sequence that it reads, None where nothing limits it.
        quantization: how its matrices are packed (`8bit`, `4bit`, another method's name), None where they aren't.
    """

    name: str
    family: str
    fingerprint: str
    dtype: str
    device: str
    hidden: int
    parameters: int
    positions: int | None
    quantization: str | None = None


@dataclass(slots=True)
class AdapterState:
    """What is trained inside a backbone, beside prompts in front of its inputs; adapters set it.

    Attributes:
        has_prefix: whether keys and values precede those of every self-attention; see `softprune.adapters.prefix`.
        has_weights: whether weights or modules inside are trained, so that only transformers reads it right.
        saved: the saved adapter that it was loaded with, None where there is none.
    """

    has_prefix: bool = False
    has_weights: bool = False
    saved: object | None = None

    @property
    def is_active(self) -> bool:
        """Whether anything inside is trained, which layers of our own would leave out."""
        return self.has_prefix or self.has_weights


@dataclass(frozen=True, slots=True)
class Combined:
    """Prompt and input as one sequence.

    Attributes:
        embeds_RLH: `[R, P + N, H]` in the model's dtype.
        mask_RL: `[R, P + N]` long, 1 where real.
    """

    embeds_RLH: torch.Tensor
    mask_RL: torch.Tensor


def tile(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """Repeat a batch's `[B, ...]` tensor to `[R, ...]`, prompt-major (row k * B + b)."""
    times = rows // tensor.shape[0]
    return tensor if times == 1 else tensor.repeat(times, *[1] * (tensor.dim() - 1))


class Backbone(ABC):
    """A frozen model of one family with its tokenizer. Nothing in here is ever trained.

    Args:
        model: the Hugging Face model, on its device, in its dtype.
        tokenizer: its tokenizer.
        info: facts about it.
    """

    family: ClassVar[str]
    default_loss: ClassVar[str]
    leading: ClassVar[int] = 0
    """Tokens of the input that stay in front of the prompt (CLS in BERT-like encoders)."""

    def __init__(self, model: Any, tokenizer: Any, info: BackboneInfo) -> None:
        model.requires_grad_(False)
        model.eval()
        self.model, self.tokenizer, self.info = model, tokenizer, info
        self.embedding_scale = embedding_scale(model)
        self.adapter = AdapterState()

    @property
    def trunk(self) -> Any:
        """The module whose self-attention a prefix precedes; the decoder where there are two stacks."""
        return find_trunk(self.model)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights; prompts stay float32 (float64 under a float64 model)."""
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    @property
    def prompt_dtype(self) -> torch.dtype:
        """Of prompts, importance and optimiser states."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def vocabulary(self) -> int:
        """V, the rows of the input embeddings."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def embeddings_VH(self) -> torch.Tensor:
        """Input embeddings as the model reads them (BART scales its own), `[V, H]` in the prompts' dtype."""
        with torch.no_grad():
            return self.lookup(torch.arange(self.vocabulary, device=self.device)).to(self.prompt_dtype)

    def embed_ids(self, ids: Sequence[int]) -> torch.Tensor:
        """Some of these, `[len(ids), H]`, on the CPU."""
        with torch.no_grad():
            return self.lookup(torch.tensor(list(ids), device=self.device)).to(self.prompt_dtype).cpu()

    def embeddings_rms(self) -> float:
        """Root mean square of all of these, a part at a time: BLOOM's would take a gigabyte in float32."""
        total = 0.0
        for start in range(0, self.vocabulary, ROWS_AT_ONCE):
            ids = torch.arange(start, min(start + ROWS_AT_ONCE, self.vocabulary), device=self.device)
            with torch.no_grad():
                total += len(ids) * float(self.lookup(ids).to(self.prompt_dtype).square().mean())
        return float(torch.tensor(total / self.vocabulary, dtype=self.prompt_dtype).sqrt())

    def lookup(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings `[..., H]` of ids as the model's first layer takes them."""
        vectors: torch.Tensor = self.model.get_input_embeddings()(ids)
        return vectors if self.embedding_scale == 1 else vectors * self.embedding_scale

    @property
    def pad_id(self) -> int:
        """The token that pads short rows, hidden by masks: the tokenizer's, or 0 if the table has no row for it."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None and 0 <= pad < self.vocabulary else 0

    def stated_ids(self, name: str) -> list[int]:
        """The tokens that the model states under a name such as `eos_token_id`, in its generation's settings first.

        Those that its table has no row for are left out: configurations hold defaults of other vocabularies.
        """
        for config in (getattr(self.model, "generation_config", None), self.model.config):
            value = getattr(config, name, None)
            values = value if isinstance(value, list | tuple) else [value]
            ids = [int(each) for each in values if each is not None and 0 <= each < self.vocabulary]
            if ids:
                return ids
        return []

    def end_ids(self) -> list[int]:
        """The tokens that end a text: the tokenizer's, then the model's. Written texts are trained with the first.

        Where neither has one, the last special token that the tokenizer appends to a text.
        """
        own = self.tokenizer.eos_token_id
        ends = self.stated_ids("eos_token_id")
        if own is not None and own < self.vocabulary:
            ends = [int(own), *(end for end in ends if end != own)]
        return ends or [end for end in ids_behind(self.tokenizer) if end < self.vocabulary][-1:]

    def decode_generated(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of generated tokens, each up to its end."""
        ends = set(self.end_ids())
        whole = []
        for row in rows:
            length = next((at for at, token in enumerate(row) if token in ends), len(row))
            whole.append(row[:length])
        return [text.strip() for text in self.tokenizer.batch_decode(whole, skip_special_tokens=True)]

    def probe_ids(self) -> torch.Tensor:
        """A few ordinary token ids `[1, 4]`, for checks at load."""
        return ordinary_ids(self.model)

    def enable_checkpointing(self) -> None:
        """Compute layers again in the backward pass; see `softprune.models.checkpointing`."""
        self.drop_fused_layers()
        inputs = {"input_ids": self.probe_ids()}
        if self.family == "seq2seq":
            inputs["decoder_input_ids"] = inputs["input_ids"]
        tolerance = 1e-3 if self.info.quantization is None else QUANTIZED_TOLERANCE
        enable_checkpointing(self.model, inputs, self.info.name, tolerance)

    def drop_fused_layers(self) -> None:  # noqa: B027 - only some families have layers of their own
        """Leave out the layers that softprune wrote itself: they read frozen weights, and keep what they computed."""

    @contextmanager
    def unadapted(self) -> Iterator[None]:
        """Read without a prefix, and with layers of our own, whatever is trained in the model."""
        before, self.adapter = self.adapter, AdapterState()
        try:
            yield
        finally:
            self.adapter = before

    @contextmanager
    def generating(self) -> Iterator[None]:
        """No gradients, and eval mode: in train mode transformers would go without its cache of keys and values."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(training)

    def keep_answers(self, texts: Sequence[str] | None) -> None:  # noqa: B027 - only sentence models embed answers
        """Read answers as the model is now, where they are read by themselves, whatever is trained in it afterwards.

        Args:
            texts: all answers that there are; None where every example has its own.
        """

    def _generate_plainly(self) -> None:
        """Forget what a release asks of its generation (beams, least lengths, forbidden repeats): greedy is greedy.

        The loss and the text are then of one model, and a text is the same in a batch as alone.
        """
        from transformers import GenerationConfig

        released = self.model.generation_config
        check_token_ids(released)
        names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
        self.model.generation_config = GenerationConfig(**{name: getattr(released, name) for name in names})

    # --- from text to batches ---

    @abstractmethod
    def tokenization(self) -> Tokenization:
        """How texts and answers become ids."""

    def encode(
        self, examples: Sequence[Example], max_length: int, max_answer_length: int | None = None
    ) -> list[Encoded]:
        """Token ids of the examples; see `softprune.models.tokenization.encode`."""
        encoded = encode(self.tokenization(), examples, max_length, max_answer_length)
        for example, each in zip(examples, encoded, strict=True):
            self.check_rows(chain(each.input_ids, *each.answer_ids), f"example {example.id}")
        return encoded

    def check_rows(self, ids: Iterable[int], where: str) -> None:
        """Check that every token id has a row in the embedding table; see `tokenization.check_rows`."""
        check_rows(self.tokenizer, ids, self.vocabulary, where)

    def batch(self, examples: Sequence[Encoded]) -> Batch:
        """Padded tensors on the backbone's device."""
        return collate(examples, self.pad_id, self.device)

    # --- forward ---

    @abstractmethod
    def answer_sums(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Log-probability of each answer (summed over its tokens), `[R, A]`; -inf where an answer doesn't exist.

        Args:
            prompts_RPH: one prompt a row, R a multiple of B; P may be 0.
            batch: B examples.
        """

    @abstractmethod
    def read_ids(self, ids_1N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two readings of a few tokens, `[N, V]` each: embeddings by the modules that a family calls, ids by the model.

        A sentence model's are its last hidden states, `[1, N, H]`.
        """

    def read_softly(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What the check at load compares with `read_plainly`: answer sums, or a sentence model's embeddings."""
        return self.answer_sums(prompts_RPH, batch)

    @abstractmethod
    def read_plainly(self, prompt_PH: torch.Tensor, probe: Probe) -> torch.Tensor:
        """Logits `[T, V]` of a probe's answer by the model's own forward of vectors, a text alone, without padding."""

    def combine(self, prompts_RPH: torch.Tensor, ids_BN: torch.Tensor, mask_BN: torch.Tensor) -> Combined:
        """Put the prompts in front of the inputs' embeddings, behind the `leading` tokens."""
        rows, length = prompts_RPH.shape[:2]
        inputs_RNH = tile(self.lookup(ids_BN), rows)
        mask_RN = tile(mask_BN, rows)
        at = self.leading
        prompts = prompts_RPH.to(inputs_RNH.dtype)
        return Combined(
            torch.cat([inputs_RNH[:, :at], prompts, inputs_RNH[:, at:]], dim=1),
            torch.cat([mask_RN[:, :at], mask_RN.new_ones(rows, length), mask_RN[:, at:]], dim=1),
        )

    def answer_scores(self, sums_RA: torch.Tensor, batch: Batch, score: str) -> torch.Tensor:
        """Answer scores `[R, A]` of answer sums: themselves (`sum`), or their `mean` over the answer's tokens."""
        return sums_RA if score == "sum" else per_token(sums_RA, batch)

    def answer_losses(self, sums_RA: torch.Tensor, batch: Batch, loss: str, score: str) -> torch.Tensor:
        """Loss of each row, `[R]`, of answer sums.

        `likelihood`: minus the mean log-probability of the gold answer's tokens (equation 1). `rank`: cross-entropy
        of the gold answer over the A answer scores.
        """
        gold_R = tile(batch.gold, sums_RA.shape[0])
        if loss == "likelihood":
            return -per_token(sums_RA, batch).gather(1, gold_R[:, None])[:, 0]
        return F.cross_entropy(self.answer_scores(sums_RA, batch, score), gold_R, reduction="none")

    def row_scores(self, prompts_RPH: torch.Tensor, batch: Batch, score: str) -> torch.Tensor:
        """Answer scores of each row, `[R, A]`; see `answer_scores`."""
        return self.answer_scores(self.answer_sums(prompts_RPH, batch), batch, score)

    def row_losses(self, prompts_RPH: torch.Tensor, batch: Batch, loss: str, score: str) -> torch.Tensor:
        """Loss of each row, `[R]`; see `answer_losses`. A likelihood reads the gold answers alone."""
        read = gold_only(batch) if loss == "likelihood" else batch
        return self.answer_losses(self.answer_sums(prompts_RPH, read), read, loss, score)

    def losses(self, prompts_KPH: torch.Tensor, batch: Batch, loss: str, score: str) -> torch.Tensor:
        """Loss of every prompt on every example, `[K, B]`."""
        return self.row_losses(cross_with_batch(prompts_KPH, len(batch)), batch, loss, score).view(-1, len(batch))

    def scores(self, prompts_KPH: torch.Tensor, batch: Batch, score: str) -> torch.Tensor:
        """Answer scores of every prompt on every example, `[K, B, A]`."""
        rows_RA = self.row_scores(cross_with_batch(prompts_KPH, len(batch)), batch, score)
        return rows_RA.view(prompts_KPH.shape[0], len(batch), -1)

    def generate(self, prompts_BPH: torch.Tensor, batch: Batch, max_new_tokens: int) -> list[str]:
        """Greedy continuation of each example as text, behind its own prompt (`[P, H]`: behind the same one).

        Raises:
            SoftpruneError: for families that don't generate.
        """
        raise SoftpruneError(
            "a family that generates (seq2seq or causal) for task.match=generate",
            f"a {self.family} backbone",
            "use task.match=score",
        )

    def check_loss(self, loss: str) -> str:
        """The loss to use: the family's own for "auto".

        Raises:
            SoftpruneError: for a loss that this family doesn't define.
        """
        return self.default_loss if loss == "auto" else loss


def per_token(sums_RA: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Answer sums over their answers' tokens, `[R, A]`."""
    return sums_RA / tile(batch.answer_mask.sum(-1).clamp(min=1), sums_RA.shape[0])


def cross_with_batch(prompts_KPH: torch.Tensor, size: int) -> torch.Tensor:
    """Every prompt for every example: `[K, P, H]` to `[K * B, P, H]`, prompt-major."""
    return prompts_KPH.repeat_interleave(size, dim=0)


def gold_only(batch: Batch) -> Batch:
    """The batch with the right answer as its only one, its padding trimmed."""
    at = torch.arange(len(batch), device=batch.gold.device)
    mask_BT = batch.answer_mask[at, batch.gold]
    longest = int(mask_BT.sum(-1).max())
    return replace(
        batch,
        answer_ids=batch.answer_ids[at, batch.gold][:, None, :longest],
        answer_mask=mask_BT[:, None, :longest],
        gold=torch.zeros_like(batch.gold),
    )
