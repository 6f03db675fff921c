"""What differs between architectures, as data: where the output head is and what it does to its input.

A family file asks for logits at a handful of positions, not at all of them, so it calls the frozen model's trunk
and its head apart. `answer_logits` is the head; `load_check.py` compares both with the model's own forward.
"""

from __future__ import annotations

from typing import Any

import torch

from softprune.errors import SoftpruneError

# Modules, in order, that turn a masked model's last hidden states into logits, by `config.model_type`.
MASKED_HEADS: dict[str, tuple[str, ...]] = {
    "albert": ("predictions",),
    "bert": ("cls",),
    "big_bird": ("cls",),
    "camembert": ("lm_head",),
    "deberta": ("cls",),
    "deberta-v2": ("cls",),
    "distilbert": ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
    "electra": ("generator_predictions", "generator_lm_head"),
    "ernie": ("cls",),
    "eurobert": ("lm_head",),
    "longformer": ("lm_head",),
    "megatron-bert": ("cls",),
    "mobilebert": ("cls",),
    "modernbert": ("head", "decoder"),
    "mpnet": ("lm_head",),
    "nomic_bert": ("cls",),
    "roberta": ("lm_head",),
    "roformer": ("cls",),
    "xlm-roberta": ("lm_head",),
}

# Seq2seq models that scale their decoder's outputs by d_model**-0.5 where the output embeddings are the input's.
SCALED_WHEN_TIED = ("longt5", "switch_transformers", "t5", "umt5")

# Encoders whose embedding of a token is made of its neighbours' too, before any mask is read.
MIXES_NEIGHBOURS = ("mobilebert",)

# Encoders that have a class of their own (AutoModel would load the decoder with them).
ENCODER_CLASSES: dict[str, str] = {"mt5": "MT5EncoderModel", "t5": "T5EncoderModel"}


def find_trunk(model: Any) -> Any:
    """A model without its head. The `base_model` of Llama 4's text model is that model itself, head included."""
    base = model.base_model
    if base is model and model.get_output_embeddings() is not None:
        return getattr(model, "model", model)
    return base


def masked_head(model: Any, hidden_MH: torch.Tensor) -> torch.Tensor:
    """Logits `[M, V]` of a masked model at M positions; an architecture without a known head is refused."""
    kind = model.config.model_type
    if kind not in MASKED_HEADS:
        raise SoftpruneError(
            f"a masked model with a known head ({', '.join(sorted(MASKED_HEADS))})",
            f'architecture "{kind}"',
            "use one of these, or add its head to softprune/models/architectures.py",
        )
    # DeBERTa's other head, as `legacy` in config.json chooses.
    if kind in ("deberta", "deberta-v2") and not getattr(model.config, "legacy", True):
        return model.lm_predictions(hidden_MH, model.get_input_embeddings()).to(hidden_MH.device)  # type: ignore[no-any-return]
    logits = hidden_MH
    for name in MASKED_HEADS[kind]:
        module = getattr(model, name)
        logits = module(as_weights(module, logits))
    return logits.to(hidden_MH.device)  # of a model on several devices, the head may be on another one


def answer_logits(model: Any, hidden_MH: torch.Tensor) -> torch.Tensor:
    """Logits `[M, V]` of a causal or seq2seq model at M positions of its (decoder) trunk's last hidden states."""
    config = model.config
    if hasattr(getattr(config, "decoder", None), "model_type"):  # T5Gemma's decoder has a configuration of its own
        config = config.decoder
    if _scales_decoder_outputs(config):
        hidden_MH = hidden_MH * config.d_model**-0.5
    if config.model_type == "modernbert-decoder":  # a dense layer and a norm before the output embeddings
        hidden_MH = model.lm_head(as_weights(model.lm_head, hidden_MH))
    head = model.get_output_embeddings()
    logits: torch.Tensor = head(as_weights(head, hidden_MH)).to(hidden_MH.device)
    bias = getattr(model, "final_logits_bias", None)  # BART
    if bias is not None:
        logits = logits + bias.to(logits.device)
    if getattr(config, "logit_scale", None):  # Cohere
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None):  # Granite
        logits = logits / config.logits_scaling
    # Gemma 2, and RecurrentGemma
    cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
    if cap:
        logits = torch.tanh(logits / cap) * cap
    return logits


def as_weights(module: Any, x: torch.Tensor) -> torch.Tensor:
    """An input in the dtype of a module's weights: some trunks (Mamba, RWKV) end in float32 whatever theirs is."""
    dtype = next((weight.dtype for weight in module.parameters()), x.dtype)
    return x.to(dtype) if dtype.is_floating_point else x  # packed weights aren't


def _scales_decoder_outputs(config: Any) -> bool:
    """T5 1.0 and similar ones scale before tied embeddings. transformers 5 says so for T5 in a key of its own."""
    stated = getattr(config, "scale_decoder_outputs", None)
    if stated is not None:
        return bool(stated)
    return config.model_type in SCALED_WHEN_TIED and bool(config.tie_word_embeddings)


def embedding_scale(model: Any) -> float:
    """What a model's encoder multiplies the embeddings of ids by, and embeddings that it is given by nothing.

    Pegasus and Marian do; BART's table multiplies by itself, and Gemma's trunk multiplies both alike.
    """
    if not model.config.is_encoder_decoder or not hasattr(model, "get_encoder"):
        return 1.0
    if hasattr(model.get_input_embeddings(), "embed_scale"):
        return 1.0
    return float(getattr(model.get_encoder(), "embed_scale", 1.0))


NORMALISING = ("bloom", "funnel", "minimax", "modernbert", "modernbert-decoder", "nanochat", "rwkv")
"""Model types that normalise each input vector before anything is added to it."""


def normalises_inputs(config: Any) -> bool:
    """Whether the length of an input vector is lost at once, since it is normalised before anything is added to it."""
    kind = config.model_type
    if kind in ("deberta", "deberta-v2"):
        return not getattr(config, "position_biased_input", True)
    return kind in NORMALISING
