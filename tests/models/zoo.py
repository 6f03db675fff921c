"""Random tiny models of many architectures: every switch of the released configurations, sizes shrunk.

What isn't named here is the default of the configuration's class, which is that of a release. Sliding windows are
shorter than the texts, so that they matter.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from models import bert_tokenizer, gpt2_tokenizer, roberta_tokenizer, t5_tokenizer

Settings = dict[str, Any]

_ENDS: Settings = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
_SIZES: Settings = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_GROUPED: Settings = {**_SIZES, **_ENDS, "num_key_value_heads": 2}
_HEADS: Settings = {**_GROUPED, "head_dim": 8}
_OLD: Settings = {**_ENDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_WINDOWS: Settings = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
_EXPERTS: Settings = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

CAUSAL: dict[str, Settings] = {
    "apertus": _GROUPED,
    "bloom": {**_ENDS, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "codegen": {**_OLD, "rotary_dim": 4},
    "cohere": _GROUPED,
    "cohere2": {**_GROUPED, **_WINDOWS},
    "ernie4_5": _HEADS,
    "exaone4": {**_GROUPED, **_WINDOWS},
    "falcon": {**_ENDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "falcon alibi": {
        **_ENDS,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "alibi": True,
        "multi_query": False,
        "parallel_attn": False,
        "bias": True,
    },
    "gemma": _HEADS,
    "gemma2": {**_HEADS, **_WINDOWS, "query_pre_attn_scalar": 8},
    "gemma3_text": {**_HEADS, **_WINDOWS, "query_pre_attn_scalar": 8},
    "glm4": {**_HEADS, "attention_bias": True},
    "gpt2": _OLD,
    "gpt_neo": {
        **_ENDS,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": 128,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
    },
    "gpt_neox": {**_SIZES, **_ENDS},
    "gpt_oss": {**_HEADS, **_WINDOWS, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gptj": {**_OLD, "rotary_dim": 4},
    "granite": {
        **_GROUPED,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
        "attention_multiplier": 0.1,
    },
    "helium": _HEADS,
    "llama": _GROUPED,
    "mamba": {**_ENDS, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2},
    "mistral": {**_GROUPED, "sliding_window": 4},
    "mixtral": {**_GROUPED, "num_local_experts": 4},
    "mpt": {**_ENDS, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
    "nemotron": _GROUPED,
    "olmo2": _GROUPED,
    "olmo3": {**_GROUPED, **_WINDOWS},
    "opt": {
        **_ENDS,
        "pad_token_id": 1,
        "hidden_size": 32,
        "word_embed_proj_dim": 16,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "do_layer_norm_before": False,
        "max_position_embeddings": 128,
    },
    "phi": {**_SIZES, **_ENDS, "partial_rotary_factor": 0.5},
    "phi3": {**_GROUPED, "sliding_window": 4},
    "qwen2": _GROUPED,
    "qwen3": _HEADS,
    "qwen3_moe": {**_HEADS, **_EXPERTS},
    "rwkv": {**_ENDS, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": 128},
    "seed_oss": _HEADS,
    "smollm3": {**_GROUPED, "no_rope_layers": [1, 0]},
    "stablelm": _GROUPED,
    "starcoder2": {**_GROUPED, "sliding_window": 4},
    "xglm": {
        **_ENDS,
        "pad_token_id": 1,
        "d_model": 32,
        "ffn_dim": 48,
        "num_layers": 2,
        "attention_heads": 4,
        "max_position_embeddings": 128,
    },
}

_T5: Settings = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
_BART: Settings = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
    "bos_token_id": 1,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
SEQ2SEQ: dict[str, Settings] = {
    "t5": _T5,
    "mt5": {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "umt5": {**_T5, "feed_forward_proj": "gated-gelu"},
    "bart": _BART,
    "mbart": {**_BART, "scale_embedding": True},
    "pegasus": {**_BART, "scale_embedding": True},
    "m2m_100": {**_BART, "scale_embedding": True},
    "blenderbot": {**_BART, "scale_embedding": True},
    "blenderbot-small": {**_BART, "scale_embedding": True},
}

_ROBERTA: Settings = {
    **_SIZES,
    "max_position_embeddings": 130,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
MASKED: dict[str, Settings] = {
    "albert": {**_SIZES, "embedding_size": 16},
    "bert": _SIZES,
    "camembert": _ROBERTA,
    "deberta-v2": {
        **_SIZES,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 128},
    "electra": {**_SIZES, "embedding_size": 16},
    "modernbert": {**_SIZES, "num_hidden_layers": 3, "local_attention": 4, "pad_token_id": 0, "cls_token_id": 2},
    "mpnet": {**_SIZES, "max_position_embeddings": 130, "pad_token_id": 1},
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
SENTENCE: dict[str, Settings] = {
    name: MASKED[name] for name in ("bert", "deberta-v2", "distilbert", "modernbert", "mpnet", "roberta")
}

FAMILIES = {"causal": CAUSAL, "seq2seq": SEQ2SEQ, "masked": MASKED, "sentence": SENTENCE}
_CLASSES = {
    "causal": transformers.AutoModelForCausalLM,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
    "masked": transformers.AutoModelForMaskedLM,
    "sentence": transformers.AutoModel,
}
_TOKENIZERS: dict[str, Callable[[Path], int]] = {
    "causal": gpt2_tokenizer,
    "seq2seq": t5_tokenizer,
    "masked": bert_tokenizer,
    "sentence": bert_tokenizer,
}
_BYTES = ("camembert", "mpnet", "roberta", "xlm-roberta")


def build(folder: Path, family: str, name: str, **changes: Any) -> Path:
    """Save a random tiny model with its tokenizer."""
    tokenizer = roberta_tokenizer if name in _BYTES else _TOKENIZERS[family]
    settings = {**FAMILIES[family][name], "vocab_size": tokenizer(folder), **changes}
    config = transformers.AutoConfig.for_model(name.partition(" ")[0], **settings)
    torch.manual_seed(0)
    model = _CLASSES[family].from_config(config)
    _draw(model)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def _draw(model: nn.Module) -> None:
    """Weights wide enough that every token read changes the scores; vectors keep what their initialisation means."""
    for weight in model.parameters():
        if weight.dim() > 1 and weight.is_floating_point():
            size = 1.0 if weight.shape[0] > 400 else weight.shape[-1] ** -0.5
            weight.normal_(0.0, size)
        elif weight.is_floating_point():
            weight.add_(0.1 * torch.randn_like(weight))
