"""The frozen backbone: what all families share.

A family implements one thing, `answer_sums`: the log-probability of every candidate answer behind prompts and inputs.

Rows: a call takes prompts `[R, P, H]` and a batch of B examples. R = K x B is *crossed* (row k * B + b is prompt k on
example b), R = B is *paired* (a prompt per example). Inputs are padded on the right only, so positions are the running
count of real tokens in every architecture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from softprune.errors import SoftpruneError
from softprune.models.architectures import MIXES_NEIGHBOURS, embedding_scale, find_trunk
from softprune.models.batching import collate
from softprune.models.tokenization import Tokenization, check_rows, encode
from softprune.types import Batch, Encoded, Example

ROWS_AT_ONCE = 2**16
"""Rows of the input embeddings that are held in float32 at a time."""


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """Facts about a loaded backbone, as run.json holds them."""

    name: str  # what the user typed
    family: str  # seq2seq, causal, masked or sentence
    fingerprint: str  # short hash of the configuration and of a sample of the weights
    dtype: str  # of the weights
    device: str
    hidden: int  # H, the size of its input embeddings
    parameters: int  # of the frozen weights
    positions: int | None  # longest sequence that it reads, None where nothing limits it
    quantization: str | None = None  # how its matrices are packed (8bit, 4bit, a method's name); None where they aren't


@dataclass(frozen=True, slots=True)
class AdapterContext:
    """What is trained inside a backbone, beside prompts in front of its inputs. An adapter gives it to the backbone."""

    has_prefix: bool = False  # keys and values precede those of every self-attention (`softprune.adapters.prefix`)
    has_weights: bool = False  # weights or modules inside are trained
    # What is added to an input's embeddings by the place of a token in it, `[N, H]`; nothing beyond N.
    offset: Callable[[], torch.Tensor] | None = None
    route: Callable[[Batch], torch.Tensor] | None = None  # a prompt `[B, Q, H]` of each input's own, in front of others
    saved: object | None = None  # the saved adapter that the backbone was loaded with

    @property
    def is_active(self) -> bool:
        """Whether only transformers reads the model right: fused layers would leave out what is trained inside."""
        return self.has_prefix or self.has_weights


def tile(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """Repeat a batch's `[B, ...]` tensor to `[R, ...]`, prompt-major (row k * B + b)."""
    times = rows // tensor.shape[0]
    return tensor if times == 1 else tensor.repeat(times, *[1] * (tensor.dim() - 1))


def insert(prompts_RP: torch.Tensor, inputs_RN: torch.Tensor, starts: Sequence[int]) -> torch.Tensor:
    """Put prompts `[R, P, ...]` into inputs `[R, N, ...]`, each behind as many places as `starts` says of its input."""
    at = starts[0]
    if starts.count(at) == len(starts):
        return torch.cat([inputs_RN[:, :at], prompts_RP, inputs_RN[:, at:]], dim=1)
    # Conversations and plain texts in one batch: every place is taken from the prompt, or from the input around it.
    rows, length, device = len(inputs_RN), prompts_RP.shape[1], inputs_RN.device
    start_R1 = tile(torch.tensor(starts, device=device)[:, None], rows)
    place = torch.arange(length + inputs_RN.shape[1], device=device).expand(rows, -1)
    source = torch.where(place < start_R1, place + length, place)
    source = torch.where((place >= start_R1) & (place < start_R1 + length), place - start_R1, source)
    return torch.cat([prompts_RP, inputs_RN], dim=1)[torch.arange(rows, device=device)[:, None], source]


class Backbone(ABC):
    """A frozen Hugging Face model of one family, on its device and in its dtype, with its tokenizer."""

    family: ClassVar[str]
    default_loss: ClassVar[str]
    leading: ClassVar[int] = 0
    """Tokens of the input that stay in front of the prompt (CLS in BERT-like encoders)."""
    has_layer_embeddings = False
    """Whether the model looks up a second embedding of every token, for each layer."""

    def __init__(self, model: Any, tokenizer: Any, info: BackboneInfo) -> None:
        model.requires_grad_(False)
        model.eval()
        self.model, self.tokenizer, self.info = model, tokenizer, info
        self.embedding_scale = embedding_scale(model)
        self.adapter = AdapterContext()
        self.fused: Any = None
        """Layers of `softprune.models.fused` over the same weights; None where transformers reads the model."""

    @property
    def trunk(self) -> Any:
        """The module whose self-attention a prefix precedes; the decoder where there are two stacks."""
        return find_trunk(self.model)

    @property
    def device(self) -> torch.device:
        """Where inputs go: the embeddings' device, of a model on several."""
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
        """V, the rows of the input embeddings: often more than the tokenizer has tokens, sometimes fewer."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def pad_id(self) -> int:
        """The token that pads short rows, hidden by masks: the tokenizer's, or 0 if the table has no row for it."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None and 0 <= pad < self.vocabulary else 0

    # --- input embeddings ---

    def lookup(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings `[..., H]` of ids as the model's first layer takes them."""
        vectors: torch.Tensor = self.model.get_input_embeddings()(ids)
        return vectors if self.embedding_scale == 1 else vectors * self.embedding_scale

    @torch.no_grad()
    def embeddings_VH(self) -> torch.Tensor:
        """Input embeddings as the model reads them (BART scales its own), `[V, H]` in the prompts' dtype."""
        return self.lookup(torch.arange(self.vocabulary, device=self.device)).to(self.prompt_dtype)

    @torch.no_grad()
    def embed_ids(self, ids: Sequence[int]) -> torch.Tensor:
        """Some of these, `[len(ids), H]`, on the CPU."""
        return self.lookup(torch.tensor(list(ids), device=self.device)).to(self.prompt_dtype).cpu()

    @torch.no_grad()
    def embeddings_rms(self) -> float:
        """Root mean square of all of these."""
        total = 0.0
        for start in range(0, self.vocabulary, ROWS_AT_ONCE):  # BLOOM's whole table would take a gigabyte in float32
            ids = torch.arange(start, min(start + ROWS_AT_ONCE, self.vocabulary), device=self.device)
            total += len(ids) * float(self.lookup(ids).to(self.prompt_dtype).square().mean())
        return float(torch.tensor(total / self.vocabulary, dtype=self.prompt_dtype).sqrt())

    # --- how the model is read ---

    @contextmanager
    def reading_as(self, context: AdapterContext) -> Iterator[None]:
        """Read under another context, within the block. Under the default one the model reads without an adapter."""
        before, self.adapter = self.adapter, context
        try:
            yield
        finally:
            self.adapter = before

    def keep_answers(self, texts: Sequence[str] | None) -> None:  # noqa: B027 - only sentence models embed answers
        """Read answers as the model is now, where they are read by themselves, whatever is trained in it afterwards.

        `texts` are all answers that there are; None where every example has its own.
        """

    @abstractmethod
    def read_ids(self, ids_1N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For the check at load, two readings of a few tokens: embeddings by the modules that a family calls, and ids
        by the model's own forward. Both are logits `[N, V]`, or a sentence model's last hidden states `[1, N, H]`.
        """

    @abstractmethod
    def read_plainly(self, prompt_PH: torch.Tensor, example: Encoded) -> torch.Tensor:
        """For the check at load: logits `[T, V]` of the gold answer by the model's own forward of vectors, a text by
        itself and without padding; of a sentence model, the text's embedding `[D]`.
        """

    def read_softly(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What the check at load compares with `read_plainly`: answer sums, or a sentence model's embeddings."""
        return self.answer_sums(prompts_RPH, batch)

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

        R is a multiple of the batch's B, and P may be 0.
        """

    def shared_sums(self, prompts_KPH: torch.Tensor, batch: Batch, counts: Sequence[int] | None = None) -> torch.Tensor:
        """`answer_sums` `[R, A]` of prompts that rows share: K times B rows, every prompt in front of every example.

        With `counts`, prompt 0 is in front of the first `counts[0]` rows, prompt 1 of those after, and on. A family
        that can reads a prompt once for all of its rows.
        """
        return self.answer_sums(repeat_rows(prompts_KPH, counts or [len(batch)] * len(prompts_KPH)), batch)

    def combine(
        self,
        prompts_RPH: torch.Tensor,
        ids_BN: torch.Tensor,
        mask_BN: torch.Tensor,
        places: Sequence[int | None] = (),
        text_BN: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the prompts in front of the inputs' embeddings, behind the `leading` tokens.

        `places` says of each input how many tokens precede the prompt instead. `text_BN` is 1 where the ids are those
        of the input, and not of an answer behind it; None where all real ones are. Returns embeddings `[R, P + N, H]`
        in the model's dtype, and their mask `[R, P + N]`, 1 where real.
        """
        rows, length = prompts_RPH.shape[:2]
        inputs_BNH = self._add_offset(self.lookup(ids_BN), mask_BN if text_BN is None else text_BN)
        inputs_RNH, mask_RN = tile(inputs_BNH, rows), tile(mask_BN, rows)
        starts = self.find_starts(places)
        embeds = insert(prompts_RPH.to(inputs_RNH.dtype), inputs_RNH, starts)
        return embeds, insert(mask_RN.new_ones(rows, length), mask_RN, starts)

    def add_routed(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The prompts `[R, Q + P, H]` with the adapter's own for each input in front, if it has such."""
        if self.adapter.route is None:
            return prompts_RPH
        routed_BQH = self.adapter.route(batch).to(prompts_RPH.dtype)
        return torch.cat([tile(routed_BQH, len(prompts_RPH)), prompts_RPH], dim=1)

    def _add_offset(self, inputs_BNH: torch.Tensor, text_BN: torch.Tensor) -> torch.Tensor:
        """Add what the adapter adds to each place of an input's own tokens, if it does."""
        if self.adapter.offset is None:
            return inputs_BNH
        # A slice and a product, not an index: its gradient is a sum in a fixed order on GPUs too.
        offset_NH = self.adapter.offset()[: inputs_BNH.shape[1]]
        offset_NH = F.pad(offset_NH, (0, 0, 0, inputs_BNH.shape[1] - len(offset_NH)))
        return inputs_BNH + (offset_NH * text_BN[..., None]).to(inputs_BNH.dtype)

    def find_starts(self, places: Sequence[int | None]) -> list[int]:
        """How many tokens precede the prompt, of each input of a batch; one number where no input says it."""
        return [self.leading if place is None else place for place in places] or [self.leading]

    def read_encoder(self, embeds_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        """Last hidden states `[R, L, H]` of an encoder (masked and sentence families), on the backbone's device."""
        if self.model.config.model_type in MIXES_NEIGHBOURS:  # a text by itself has zeros beside it, not padding
            embeds_RLH = embeds_RLH * mask_RL[..., None].to(embeds_RLH.dtype)
        if self.fused is not None and not self.adapter.is_active:
            hidden: torch.Tensor = self.fused(embeds_RLH, mask_RL)
        else:
            hidden = self.trunk(inputs_embeds=embeds_RLH, attention_mask=mask_RL).last_hidden_state
        return hidden.to(self.device)

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

    def row_losses(
        self, prompts: torch.Tensor, batch: Batch, loss: str, score: str, counts: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Loss of each row, `[R]`; see `answer_losses`. A likelihood reads the gold answers alone.

        `prompts` are `[R, P, H]`, or with `counts` those of `shared_sums`.
        """
        read = gold_only(batch) if loss == "likelihood" else batch
        sums_RA = self.answer_sums(prompts, read) if counts is None else self.shared_sums(prompts, read, counts)
        return self.answer_losses(sums_RA, read, loss, score)

    def losses(self, prompts_KPH: torch.Tensor, batch: Batch, loss: str, score: str) -> torch.Tensor:
        """Loss of every prompt on every example, `[K, B]`."""
        counts = [len(batch)] * len(prompts_KPH)
        return self.row_losses(prompts_KPH, batch, loss, score, counts).view(-1, len(batch))

    def scores(self, prompts_KPH: torch.Tensor, batch: Batch, score: str) -> torch.Tensor:
        """Answer scores of every prompt on every example, `[K, B, A]`."""
        sums_RA = self.shared_sums(prompts_KPH, batch)
        return self.answer_scores(sums_RA, batch, score).view(len(prompts_KPH), len(batch), -1)

    def generate(self, prompts_BPH: torch.Tensor, batch: Batch, max_new_tokens: int) -> list[str]:
        """Greedy continuation of each example as text, behind its own prompt (`[P, H]`: behind the same one)."""
        raise SoftpruneError(
            "a family that generates (seq2seq or causal) for task.match=generate",
            f"a {self.family} backbone",
            "use task.match=score",
        )

    def check_loss(self, loss: str) -> str:
        """The loss to use: the family's own for "auto"; one that this family doesn't define is refused."""
        return self.default_loss if loss == "auto" else loss


def per_token(sums_RA: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Answer sums over their answers' tokens, `[R, A]`."""
    return sums_RA / tile(batch.answer_mask.sum(-1).clamp(min=1), sums_RA.shape[0])


def repeat_rows(values_K: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Each of K values `[K, ...]` as often as `counts` says, one behind another: `[R, ...]`."""
    # By expand, whose gradient is a sum in a fixed order: that of an index may differ from run to run on a GPU.
    shares = [value.expand(count, *value.shape) for value, count in zip(values_K.unbind(), counts, strict=True)]
    return shares[0] if len(shares) == 1 else torch.cat(shares)


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
