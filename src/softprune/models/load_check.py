"""The check at load: a backbone reads soft vectors as transformers' own forward does, or it is refused.

Softprune calls trunk and head separately, pads, packs answers, and has layers of its own. Only numbers show whether all
of that fits an architecture, so they are compared once, on a few tokens, before anything is trained.
"""

from __future__ import annotations

from typing import Any

import torch

from softprune.errors import SoftpruneError, out_of_memory
from softprune.models.base import AdapterContext, Backbone
from softprune.models.batching import collate
from softprune.models.causal import CausalBackbone
from softprune.models.load_errors import quiet, reason
from softprune.models.shared_prompts import may_share
from softprune.types import Encoded

TOLERANCE = {torch.float16: 0.01, torch.bfloat16: 0.04}
"""Relative to the largest logit. A number of bfloat16 is off by up to 1/256, and some ten roundings add up between
other shapes of the same products; float16 has three more bits."""
WIDE_TOLERANCE = 1e-4
"""Of float32 and float64: some norms and softmaxes are computed in float32 whatever the dtype of the weights."""
QUANTIZED_TOLERANCE = 0.05
"""Of 8-bit weights, whose products depend on what else is in a batch."""
LEAST_LOGIT = 0.03
"""The least scale of a comparison: smaller logits say nothing about rounding, as a log-probability of ten is off by
1e-6 in float32."""


def ordinary_ids(model: Any) -> torch.Tensor:
    """Four token ids other than padding, `[1, 4]` on the device of the embeddings."""
    pad = getattr(model.config, "pad_token_id", None)  # some configurations lack it
    return torch.tensor([[i for i in range(3, 9) if i != pad][:4]], device=model.get_input_embeddings().weight.device)


@torch.no_grad()
def check_reading(backbone: Backbone) -> None:
    """Compare a backbone's own reading with the model's plain forward: of tokens, then of soft vectors.

    Raises:
        SoftpruneError: they differ by more than rounding, the forward fails, or its numbers aren't finite.
    """
    kind, tolerance = str(backbone.model.config.model_type), QUANTIZED_TOLERANCE
    if backbone.info.quantization is None:
        tolerance = TOLERANCE.get(backbone.dtype, WIDE_TOLERANCE)
    ids_1N = ordinary_ids(backbone.model)
    try:
        # Without fused layers: ids and embeddings then give the same products of the same numbers, usually equal bit
        # by bit, unless a model adds something to ids.
        with backbone.reading_as(AdapterContext(has_weights=True)):
            ours, plain = backbone.read_ids(ids_1N)
        _compare(ours, plain, tolerance / 4, kind, "tokens given as embeddings")
        # A long text and a short one, with answers of other lengths. Each forward of a large model costs seconds, so
        # padding is read behind the first prompt alone.
        a, b, c, d = ids_1N[0].tolist()
        answers = ((c,), (b, a))
        long, short = Encoded((a, b, c, d), 2, answers, gold=0), Encoded((d, b), 1, answers, gold=1)
        _check_soft(backbone, (long, short), 3, 1.0, tolerance, kind)
        _check_soft(backbone, (Encoded(short.input_ids, 1, answers[1:], gold=0),), 1, 2.5, tolerance, kind)
        if isinstance(backbone, CausalBackbone) and may_share(backbone):
            backbone.shares_prompts = _shares_alike(backbone, (long, short), tolerance)
    except SoftpruneError:
        raise
    except Exception as error:  # whatever an architecture's forward raises where it gets no ids
        if out_of_memory(error):
            raise
        raise SoftpruneError(
            "an architecture that reads vectors in place of tokens",
            f'"{kind}", which does not: {reason(error)}',
            "use another backbone",
        ) from error


def _check_soft(
    backbone: Backbone, texts: tuple[Encoded, ...], length: int, amount: float, tolerance: float, kind: str
) -> None:
    """Compare texts' gold answers behind one random prompt: in one padded batch, and each text by itself.

    The prompt's standard deviation is `amount` times that of ordinary embeddings.
    """
    usual = backbone.lookup(ordinary_ids(backbone.model))[0].to(backbone.prompt_dtype)
    noise = torch.randn(length, usual.shape[1], generator=torch.Generator().manual_seed(0)).to(usual)
    prompt_PH = noise * usual.std() * amount
    # Padded with an ordinary token, which would change the numbers if it were read.
    batch = collate(texts, texts[0].input_ids[0], backbone.device)
    ours = backbone.read_softly(prompt_PH.expand(len(texts), -1, -1), batch)
    what = f"a text behind a soft prompt of {length}"
    for row, text in enumerate(texts):
        plain = backbone.read_plainly(prompt_PH, text)
        if plain.dim() == 1:  # a sentence's embedding
            _compare(ours[row], plain, tolerance, kind, what)
            continue
        answer = text.answer_ids[text.gold]
        at = torch.arange(len(answer), device=plain.device)
        log_probs = plain.double().log_softmax(-1)[at, torch.tensor(answer, device=plain.device)]
        # A log-probability near 0 comes of logits as large as any, and is rounded as they are.
        scale = float(plain.double().abs().max()) * len(answer)
        _compare(ours[row, text.gold], log_probs.sum(), tolerance, kind, what, scale)


def _shares_alike(backbone: CausalBackbone, texts: tuple[Encoded, ...], tolerance: float) -> bool:
    """Whether two prompts that are read once for all texts give the scores of prompts in front of each."""
    usual = backbone.lookup(ordinary_ids(backbone.model))[0].to(backbone.prompt_dtype)
    noise = torch.randn(2, 3, usual.shape[1], generator=torch.Generator().manual_seed(0)).to(usual)
    prompts_KPH, batch = noise * usual.std(), collate(texts, texts[0].input_ids[0], backbone.device)
    apart = backbone.shared_sums(prompts_KPH, batch)
    backbone.shares_prompts = True
    try:
        shared = backbone.shared_sums(prompts_KPH, batch)
    except Exception as error:  # a model without a cache, or with one of its own kind
        if out_of_memory(error):
            raise
        return False
    return float((shared - apart).abs().max()) <= tolerance / 4 * float(apart.abs().max())


def _compare(
    ours: torch.Tensor, plain: torch.Tensor, tolerance: float, kind: str, what: str, scale: float | None = None
) -> None:
    ours, plain = ours.double(), plain.double().to(ours.device)
    if not bool(plain.isfinite().all()):
        raise SoftpruneError(
            "a model that gives finite numbers",
            f'NaN or infinity for ordinary tokens from "{kind}"',
            "take --dtype float32, or another copy of its weights",
        )
    scale = max(float(plain.abs().max()) if scale is None else scale, LEAST_LOGIT)
    difference = float((ours - plain).abs().max()) / scale
    if not difference <= tolerance:  # so that NaN is refused too
        raise SoftpruneError(
            f"an architecture that softprune reads as transformers does (within {tolerance:g})",
            f'"{kind}", which differs by {difference:.2g} in reading {what}',
            "use another backbone, or add what this one does to softprune/models/architectures.py",
        )


@torch.no_grad()
def prefer_eager(model: Any) -> None:
    """Use plain products for attention where they give what transformers' own choice gives."""
    ids_1N, chosen = ordinary_ids(model), model.config._attn_implementation
    if chosen == "eager":
        return
    given: dict[str, Any] = {"use_cache": False} if model.can_generate() else {}
    if getattr(model.config, "is_encoder_decoder", False):
        given["decoder_input_ids"] = ids_1N
    with quiet():  # a model whose attention can't be changed warns and keeps it
        plain = model(input_ids=ids_1N, **given)[0].float()
        model.set_attn_implementation("eager")
        difference = (model(input_ids=ids_1N, **given)[0].float() - plain).abs().max()
        if not difference <= TOLERANCE[torch.bfloat16] * plain.abs().max():  # Falcon's adds alibi twice
            model.set_attn_implementation(chosen)
