"""Decoder-only backbones: GPT-2, BLOOM, Llama and similar models. The answer continues the text."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from softprune.errors import SoftpruneError
from softprune.models.architectures import answer_logits
from softprune.models.base import BackboneInfo, insert, repeat_rows, tile
from softprune.models.chat import turn_end_id
from softprune.models.fused.layers import additive_mask
from softprune.models.generation import REREAD, GenerativeBackbone
from softprune.models.log_probs import TokenPredictions, token_log_probs
from softprune.models.shared_prompts import SharedPrompts
from softprune.models.tokenization import Tokenization, continuation_ids
from softprune.types import Batch, Chat, Encoded

PACKED = (
    *("afmoe", "apertus", "arcee", "biogpt", "bitnet", "codegen", "cohere", "cohere2", "deepseek_v2"),
    *("deepseek_v3", "diffllama", "dots1", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe", "gemma", "gemma2"),
    *("gemma3_text", "glm", "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj", "granite"),
    *("granitemoe", "helium", "hunyuan_v1_dense", "llama", "ministral", "ministral3", "mistral", "mixtral"),
    *("nanochat", "nemotron", "olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "phimoe"),
    *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2", "vaultgemma"),
    "xglm",
)
"""Model types that take positions, and a mask of pairs of them; BLOOM makes both itself, of a mask of tokens."""


class Stems(NamedTuple):
    """The distinct stems of each example's answers, U at most. A stem is an answer without its last token, which is
    never read: answers of one token share the empty stem, so their text is read once for all of them."""

    ids_BUT: torch.Tensor  # `[B, U, T - 1]`
    mask_BUT: torch.Tensor
    which_BA: torch.Tensor  # each answer's stem


class Places(NamedTuple):
    """Of each of the M answer tokens: the row, the stem that it follows, and its place in the answer; all `[M]`."""

    row: torch.Tensor
    stem: torch.Tensor
    token: torch.Tensor


class CausalBackbone(GenerativeBackbone):
    """A decoder-only model. The prompt comes before everything, a beginning-of-sequence token included."""

    family = "causal"

    def __init__(self, model: Any, tokenizer: Any, info: BackboneInfo) -> None:
        super().__init__(model, tokenizer, info)
        if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
            tokenizer.pad_token = tokenizer.eos_token
        self.shares_prompts = False
        """Whether a prompt in front of several rows is read once; `load_check` finds out."""
        self._turn_end = None
        if tokenizer.chat_template:
            with suppress(SoftpruneError):  # a template that can't render a plain question serves no task with chat
                self._turn_end = turn_end_id(tokenizer, Chat())
        self.has_layer_embeddings = bool(getattr(model.config, "hidden_size_per_layer_input", None))
        if self.has_layer_embeddings:
            _pass_layer_inputs_once(model)

    def tokenization(self) -> Tokenization:
        """Nothing fills the answer slot; an answer follows after a space, and a written text ends."""
        tokenizer, end = self.tokenizer, next(iter(self.end_ids()), None)
        return Tokenization(tokenizer, "", lambda text: continuation_ids(tokenizer, text), end, goes_on=True)

    def end_ids(self) -> list[int]:
        """The tokens that end a text; the one that ends an assistant's turn is among them, always behind the first."""
        ends = super().end_ids()
        return ends if self._turn_end is None or self._turn_end in ends else [*ends, self._turn_end]

    def answer_sums(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Read prompt, text and the answers' stems; logits at the answers' positions only."""
        return self._predict(prompts_RPH, batch, None).answer_sums()

    def shared_sums(self, prompts_KPH: torch.Tensor, batch: Batch, counts: Sequence[int] | None = None) -> torch.Tensor:
        """The same of prompts that rows share."""
        return self.predict_tokens(prompts_KPH, batch, counts).answer_sums()

    def predict_tokens(
        self, prompts_KPH: torch.Tensor, batch: Batch, counts: Sequence[int] | None = None
    ) -> TokenPredictions:
        """Each prompt is read once where that gives the same numbers."""
        counts = counts or [len(batch)] * len(prompts_KPH)
        prompts_RPH = repeat_rows(prompts_KPH, counts)
        shared = None
        if self._can_share(prompts_KPH, len(prompts_RPH), batch):
            shared = SharedPrompts(self.trunk, prompts_KPH.to(self.dtype), counts)
        return self._predict(prompts_RPH, batch, shared)

    def _can_share(self, prompts_KPH: torch.Tensor, rows: int, batch: Batch) -> bool:
        if not self.shares_prompts or self.adapter.is_active or self.adapter.route is not None or self.model.training:
            return False
        # Half of the rows' prompts is the least that pays for a second pass over the weights.
        pays = prompts_KPH.shape[1] > 0 and rows >= 2 * len(prompts_KPH)
        return pays and bool(batch.input_mask.any(1).all()) and all(place is None for place in batch.places)

    def _predict(self, prompts_RPH: torch.Tensor, batch: Batch, shared: SharedPrompts | None) -> TokenPredictions:
        rows = prompts_RPH.shape[0]
        prompts_RPH = self.add_routed(prompts_RPH, batch)
        stems = find_stems(batch)
        ids_RAT, mask_RAT = tile(batch.answer_ids, rows), tile(batch.answer_mask, rows)
        row, answer, token = torch.nonzero(mask_RAT, as_tuple=True)
        stem_M = torch.where(token == 0, 0, tile(stems.which_BA, rows)[row, answer])  # a first token follows no stem
        packs = stems.ids_BUT.shape[1] > 1 and self._fits_packed(prompts_RPH.shape[1], batch)
        read = self._read_packed if packs else self._read_apart
        hidden_MH, at_M = read(prompts_RPH, batch, stems, Places(row, stem_M, token), shared)
        # Answers that begin alike are predicted at the same places: the head, the dearest product, reads each once.
        place_U, which_M = at_M.unique(return_inverse=True)
        logits_UV = answer_logits(self.model, hidden_MH.to(self.device)[place_U])
        return TokenPredictions(logits_UV, which_M, ids_RAT[mask_RAT], mask_RAT)

    def _fits_packed(self, length: int, batch: Batch) -> bool:
        """Whether answers may share a text: the model takes the mask, and its window, if any, would hide nothing."""
        if self.model.config.model_type not in PACKED:
            return False
        window = getattr(self.model.config, "sliding_window", None)
        if not window:
            return True
        # A prefix counts all places of a call against the window.
        longest = length + batch.input_ids.shape[1] + batch.answer_ids.shape[2] - 1
        return not self.adapter.has_prefix and longest <= window

    def prompt_log_probs(
        self, prompts_KPH: torch.Tensor, places_KM: torch.Tensor, ids_KM: torch.Tensor
    ) -> torch.Tensor:
        """Log-probabilities `[K, M]` of tokens at places (1 or more) of prompts, given what precedes them there."""
        nothing_K0 = ids_KM[:, :0]
        embeds, mask = self.combine(prompts_KPH, nothing_K0, nothing_K0)
        beside = self._look_up_layers(nothing_K0, *prompts_KPH.shape[:2])
        hidden_KPH = self._read_trunk(embeds, attention_mask=mask, **beside).to(self.device)
        before_KMH = hidden_KPH.gather(1, (places_KM - 1)[..., None].expand(-1, -1, hidden_KPH.shape[2]))
        logits_UV = answer_logits(self.model, before_KMH.flatten(0, 1))
        which_M = torch.arange(len(logits_UV), device=logits_UV.device)
        return token_log_probs(logits_UV, which_M, ids_KM.flatten()).view(ids_KM.shape)

    def _read_trunk(self, embeds_RLH: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Last hidden states `[R, L, H]`."""
        hidden: torch.Tensor = self.trunk(inputs_embeds=embeds_RLH, use_cache=False, **inputs).last_hidden_state
        return hidden

    def _read_at(
        self, at_M: torch.Tensor, embeds_RLH: torch.Tensor, shared: SharedPrompts | None, times: int, **inputs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Last hidden states of R * L places, and which of them predict `[M]`.

        Of prompts that were read already, each in front of `times` rows in place of one, there are none.
        """
        if shared is not None:
            at_M = at_M - (at_M // embeds_RLH.shape[1] + 1) * shared.length
            embeds_RLH = embeds_RLH[:, shared.length :]
            if self.adapter.offset is None:
                embeds_RLH = embeds_RLH.detach()  # vectors of tokens, which are frozen
            inputs["past_key_values"] = shared.cache(times)
        return self._read_trunk(embeds_RLH, **inputs).flatten(0, 1), at_M

    def _look_up_layers(
        self, ids_BN: torch.Tensor, rows: int, length: int, places: Sequence[int | None] = ()
    ) -> dict[str, torch.Tensor]:
        """What the trunk needs beside the vectors of soft prompts and of ids; nothing for most architectures.

        Gemma 3n and Gemma 4 look up a second embedding of every token, for each layer. A soft vector is no token: it
        gets that of padding, as these models' own forward gives it to the vectors of an image.
        """
        if not self.has_layer_embeddings:
            return {}
        pad = int(self.model.config.pad_token_id or 0)
        ids_RL = insert(ids_BN.new_full((rows, length), pad), tile(ids_BN, rows), self.find_starts(places))
        with torch.no_grad():
            return {"per_layer_inputs": self.trunk.get_per_layer_inputs(ids_RL)}

    def _read_apart(
        self, prompts_RPH: torch.Tensor, batch: Batch, stems: Stems, places: Places, shared: SharedPrompts | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All hidden states, and where in them each answer token is predicted; each stem has a sequence of its own."""
        rows, length = prompts_RPH.shape[:2]
        count, tokens = stems.ids_BUT.shape[1:]
        start_B = batch.input_mask.sum(1)
        # Each stem is written behind its text, over the padding; places beyond the longest of both are cut off.
        ids = F.pad(batch.input_ids, (0, tokens)).repeat_interleave(count, dim=0)
        mask = F.pad(batch.input_mask, (0, tokens)).repeat_interleave(count, dim=0)
        behind = start_B.repeat_interleave(count)[:, None] + torch.arange(tokens, device=ids.device)
        ids = ids.scatter(1, behind, stems.ids_BUT.flatten(0, 1))
        mask = mask.scatter(1, behind, stems.mask_BUT.flatten(0, 1).long())
        used = int(mask.sum(1).max())
        ids, mask = ids[:, :used], mask[:, :used]
        text = F.pad(batch.input_mask, (0, tokens)).repeat_interleave(count, dim=0)[:, :used]
        prompt_places = [place for place in batch.places for _ in range(count)]
        beside = self._look_up_layers(ids, rows * count, length, prompt_places)
        embeds, mask = self.combine(prompts_RPH.repeat_interleave(count, dim=0), ids, mask, prompt_places, text)
        # The token at position p is predicted at p - 1.
        at_M = (places.row * count + places.stem) * mask.shape[1]
        at_M = at_M + tile(start_B, rows)[places.row] + length - 1 + places.token
        return self._read_at(at_M, embeds, shared, count, attention_mask=mask, **beside)

    def _read_packed(
        self, prompts_RPH: torch.Tensor, batch: Batch, stems: Stems, places: Places, shared: SharedPrompts | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same with one sequence a row: prompt and text once, then every stem, which sees them and itself.

        A stem's positions go on where its text ends, whatever is between the two.
        """
        rows, length = prompts_RPH.shape[:2]
        count, width = stems.ids_BUT.shape[1:]
        text, device = length + batch.input_ids.shape[1], batch.input_ids.device
        ids = torch.cat([batch.input_ids, stems.ids_BUT.flatten(1)], dim=1)
        mask = torch.cat([batch.input_mask, stems.mask_BUT.flatten(1).long()], dim=1)
        embeds, mask = self.combine(prompts_RPH, ids, mask, batch.places, F.pad(batch.input_mask, (0, count * width)))
        sees = sees_packed(text, count, width, device) & mask[:, None, None, :].bool()
        # A padded place sees itself: a softmax over nothing would be no number.
        sees |= torch.eye(sees.shape[-1], dtype=torch.bool, device=device)
        end_R = tile(batch.input_mask.sum(1), rows) + length
        in_text = torch.arange(text, device=device).expand(rows, -1)
        in_stems = torch.arange(width, device=device).repeat(count)
        position_ids = torch.cat([in_text, end_R[:, None] + in_stems], dim=1)
        read = slice(shared.length if shared else 0, None)
        mask = additive_mask(~sees[:, :, read], embeds.dtype)
        in_stem = text + places.stem * width + places.token - 1
        at_M = places.row * embeds.shape[1] + torch.where(places.token == 0, end_R[places.row] - 1, in_stem)
        return self._read_at(at_M, embeds, shared, 1, attention_mask=mask, position_ids=position_ids[:, read])

    def generate(self, prompts_BPH: torch.Tensor, batch: Batch, max_new_tokens: int) -> list[str]:
        """Greedy continuation with transformers' own generation, rows padded on the left as it wants them."""
        with self.generating():
            prompts = self.add_routed(prompts_BPH.expand(len(batch), *prompts_BPH.shape[-2:]), batch)
            if self.model.config.model_type in REREAD:
                return self.decode_generated(self._reread(prompts, batch, max_new_tokens))
            embeds, mask = self.combine(prompts, batch.input_ids, batch.input_mask, batch.places)
            order = (torch.arange(mask.shape[1], device=self.device) + mask.sum(1, keepdim=True)) % mask.shape[1]
            embeds = embeds.gather(1, order[..., None].expand(-1, -1, embeds.shape[2]))
            mask = mask.gather(1, order)
            beside = self._look_up_layers(batch.input_ids, len(batch), prompts.shape[1], batch.places)
            row = torch.arange(len(batch), device=self.device)[:, None]
            beside = {name: values.to(self.device)[row, order] for name, values in beside.items()}
            tokens = self.continue_greedily(max_new_tokens, inputs_embeds=embeds, attention_mask=mask, **beside)
        return self.decode_generated(tokens)

    def _reread(self, prompts_BPH: torch.Tensor, batch: Batch, max_new_tokens: int) -> torch.Tensor:
        """Token ids `[B, n]` of a greedy continuation: what is written is an answer whose next token is asked for."""
        row_B = torch.arange(len(batch), device=self.device)
        first_B, written_Bn = torch.zeros_like(row_B), batch.input_ids[:, :0]
        while written_Bn.shape[1] < max_new_tokens and not self.has_ended(written_Bn):
            ids_B1T = F.pad(written_Bn, (0, 1))[:, None]  # an answer's last token is never read
            so_far = replace(batch, answer_ids=ids_B1T, answer_mask=torch.ones_like(ids_B1T, dtype=torch.bool))
            places = Places(row_B, first_B, torch.full_like(row_B, written_Bn.shape[1]))
            hidden_MH, at_B = self._read_apart(prompts_BPH, so_far, find_stems(so_far), places, None)
            logits_BV = answer_logits(self.model, hidden_MH.to(self.device)[at_B])
            written_Bn = torch.cat([written_Bn, logits_BV.argmax(-1)[:, None]], dim=1)
        return written_Bn

    def read_ids(self, ids_1N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of tokens, by trunk and head apart and by the model's own forward."""
        hidden = self._read_trunk(self.lookup(ids_1N), **self._look_up_layers(ids_1N, 1, 0))
        return answer_logits(self.model, hidden[0]), self.model(input_ids=ids_1N, use_cache=False).logits[0]

    def read_plainly(self, prompt_PH: torch.Tensor, example: Encoded) -> torch.Tensor:
        """Logits at the answer's places, by the model's own forward."""
        answer = example.answer_ids[example.gold]
        ids_1N = torch.tensor([[*example.input_ids, *answer]], device=self.device)
        text = self.lookup(ids_1N)[0]
        embeds = torch.cat([prompt_PH.to(text.dtype), text])
        beside = self._look_up_layers(ids_1N, 1, len(prompt_PH))
        logits: torch.Tensor = self.model(inputs_embeds=embeds[None], use_cache=False, **beside).logits[0]
        return logits[len(embeds) - len(answer) - 1 : -1]


def _pass_layer_inputs_once(model: Any) -> None:
    """Have a model's generation forget `per_layer_inputs` after its first step, as Gemma 4 with vision does.

    From then on it is given ids, and Gemma 3n and 4 refuse both at once (transformers 5.23). Gemma 3n's language model
    passes them on without stating them, and what a signature doesn't state is refused before the first step.
    """
    prepare = model.prepare_inputs_for_generation

    @wraps(prepare)
    def prepare_inputs(*args: Any, **kwargs: Any) -> Any:
        inputs = prepare(*args, **kwargs)
        if inputs.get("input_ids") is not None:
            inputs.pop("per_layer_inputs", None)
        return inputs

    # transformers reads the signature to learn whether a model continues vectors, and what else it takes.
    stated = dict(signature(prepare).parameters)
    stated["per_layer_inputs"] = Parameter("per_layer_inputs", Parameter.KEYWORD_ONLY, default=None)
    by_kind = sorted(stated.values(), key=lambda parameter: parameter.kind)
    prepare_inputs.__signature__ = Signature(by_kind)  # type: ignore[attr-defined]
    model.prepare_inputs_for_generation = prepare_inputs


def find_stems(batch: Batch) -> Stems:
    """Find the distinct stems of a batch's answers."""
    which, firsts = [], []
    lengths_BA = (batch.answer_mask.sum(-1) - 1).clamp(min=0).tolist()
    for ids_A, lengths_A in zip(batch.answer_ids.tolist(), lengths_BA, strict=True):
        stems = [tuple(ids[:length]) for ids, length in zip(ids_A, lengths_A, strict=True)]
        distinct = list(dict.fromkeys(stems))
        which.append([distinct.index(stem) for stem in stems])
        firsts.append([stems.index(stem) for stem in distinct])
    widest = max(map(len, firsts))
    device = batch.answer_ids.device
    # A stem is read from the first answer that has it; examples with fewer stems repeat one of theirs.
    chosen_BU = torch.tensor([row + row[:1] * (widest - len(row)) for row in firsts], device=device)
    at_B1 = torch.arange(len(batch), device=device)[:, None]
    return Stems(
        batch.answer_ids[at_B1, chosen_BU, :-1],
        batch.answer_mask[at_B1, chosen_BU, 1:],
        torch.tensor(which, device=device),
    )


def sees_packed(text: int, stems: int, width: int, device: torch.device) -> torch.Tensor:
    """What sees what `[L, L]`: a text of so many positions sees what is before it; a stem sees the text and itself."""
    before = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    own = torch.block_diag(*[before] * stems)
    sees = torch.ones(text + own.shape[0], text + own.shape[0], dtype=torch.bool, device=device).tril()
    sees[text:, text:] = own
    return sees
