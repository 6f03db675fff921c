"""The check at load: a backbone reads soft vectors as transformers' own forward does, or it is refused.

Softprune calls trunk and head separately, pads, packs answers, and has layers of its own. Only numbers show whether all
of that fits an architecture, so they are compared once, on a few tokens, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

from softprune.errors import SoftpruneError, out_of_memory
from softprune.models.base import AdapterState, Backbone
from softprune.models.batching import collate
from softprune.models.load_errors import reason
from softprune.models.probe import LEAST_LOGIT, QUANTIZED_TOLERANCE, TOLERANCE, WIDE_TOLERANCE, Probe, ordinary_ids
from softprune.types import Encoded


def reading_tolerance(backbone: Backbone) -> float:
    """How much two ways of one computation may differ, relative to the largest number."""
    if backbone.info.quantization is not None:
        return QUANTIZED_TOLERANCE
    return TOLERANCE.get(backbone.dtype, WIDE_TOLERANCE)


@torch.no_grad()
def check_reading(backbone: Backbone) -> None:
    """Compare a backbone's own reading with the model's plain forward: of tokens, then of soft vectors.

    Raises:
        SoftpruneError: they differ by more than rounding, the forward fails, or its numbers aren't finite.
    """
    kind = str(backbone.model.config.model_type)
    try:
        with _by_transformers(backbone):
            # The same products of the same numbers: usually equal bit by bit, unless a model adds something to ids.
            ours, plain = backbone.read_ids(backbone.probe_ids())
            _compare(ours, plain, reading_tolerance(backbone) / 4, kind, "tokens given as embeddings")
        # Each forward of a large model costs seconds, so padding is read behind the first prompt alone.
        short, long = _probes(backbone)
        _check_soft(backbone, kind, (long, short), length=3, amount=1.0)
        _check_soft(backbone, kind, (short,), length=1, amount=2.5)
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


def _probes(backbone: Backbone) -> tuple[Probe, Probe]:
    a, b, c, d = backbone.probe_ids()[0].tolist()
    return Probe((d, b), 1, (b, a)), Probe((a, b, c, d), 2, (c,))


def _check_soft(backbone: Backbone, kind: str, probes: tuple[Probe, ...], length: int, amount: float) -> None:
    """Compare texts of different lengths behind one random prompt: in one padded batch, and each by itself.

    Args:
        backbone: what to check.
        kind: its architecture.
        probes: the texts.
        length: tokens of the prompt.
        amount: its standard deviation, as a multiple of that of ordinary embeddings.
    """
    rows = [Encoded(p.text, p.slot, tuple(p.answer for p in probes), 0) for p in probes]
    usual = backbone.lookup(backbone.probe_ids())[0].to(backbone.prompt_dtype)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(length, usual.shape[1], generator=generator).to(usual)
    prompt_PH = noise * usual.std() * amount
    ours = backbone.read_softly(prompt_PH.expand(len(rows), -1, -1), collate(rows, probes[0].text[0], backbone.device))
    for row, probe in enumerate(probes):
        plain = backbone.read_plainly(prompt_PH, probe)
        what = f"a text behind a soft prompt of {length}"
        if plain.dim() == 1:
            _compare(ours[row], plain, reading_tolerance(backbone), kind, what)
            continue
        at = torch.arange(len(probe.answer), device=plain.device)
        log_probs = plain.double().log_softmax(-1)[at, torch.tensor(probe.answer, device=plain.device)]
        scale = float(plain.double().abs().max()) * len(probe.answer)
        _compare(ours[row, row], log_probs.sum(), reading_tolerance(backbone), kind, what, scale)


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
    if not difference <= tolerance:
        raise SoftpruneError(
            f"an architecture that softprune reads as transformers does (within {tolerance:g})",
            f'"{kind}", which differs by {difference:.2g} in reading {what}',
            "use another backbone, or add what this one does to softprune/models/architectures.py",
        )


@contextmanager
def _by_transformers(backbone: Backbone) -> Iterator[None]:
    """Without softprune's layers: ids and embeddings then give the same, except for what the model adds to ids."""
    before, backbone.adapter = backbone.adapter, AdapterState(has_weights=True)
    try:
        yield
    finally:
        backbone.adapter = before


@torch.no_grad()
def prefer_eager(model: Any) -> None:
    """Use plain products for attention where they give what transformers' own choice gives.

    Args:
        model: as transformers loaded it, with the attention that it chose.
    """
    ids_1N, chosen = ordinary_ids(model), model.config._attn_implementation
    if chosen == "eager":
        return
    logging = import_module("transformers.utils.logging")
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # a model whose attention can't be changed warns and keeps it
    try:
        given: dict[str, Any] = {"use_cache": False} if model.can_generate() else {}
        if getattr(model.config, "is_encoder_decoder", False):
            given["decoder_input_ids"] = ids_1N
        plain = model(input_ids=ids_1N, **given)[0].float()
        model.set_attn_implementation("eager")
        difference = (model(input_ids=ids_1N, **given)[0].float() - plain).abs().max()
        if not difference <= TOLERANCE[torch.bfloat16] * plain.abs().max():
            model.set_attn_implementation(chosen)
    finally:
        logging.set_verbosity(level)
