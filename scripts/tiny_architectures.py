"""Random tiny models of many architectures: every switch of the released configurations, sizes shrunk.

One line a model: its `model_type`, a second word where it has variants, and what must be smaller. What isn't named is
the default of the configuration's class, which is that of a release. Sliding windows are shorter than the texts, so
that they matter. `check_architectures.py` makes `docs/models.md` of this table, and tests take from it what they need.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import nn

Settings = dict[str, Any]

VOCABULARY = 512
PROMPT = (21, 34, 27)
"""Tokens that stand in for a soft prompt where a model is given ids; none of them has a per-layer embedding of its own,
as no soft vector has."""
_BEGIN, _PAD, _END, _UNKNOWN, _MASK = range(5)
_ENDS: Settings = {"bos_token_id": _BEGIN, "eos_token_id": _END, "pad_token_id": None}
_PADDED: Settings = {**_ENDS, "pad_token_id": _PAD}
_SIZES: Settings = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_GROUPED: Settings = {**_SIZES, **_ENDS, "num_key_value_heads": 2}
_HEADS: Settings = {**_GROUPED, "head_dim": 8}
_GEMMA: Settings = {**_HEADS, "pad_token_id": _PAD}
_ALIKE: Settings = {**_SIZES, **_ENDS, "num_key_value_heads": 4}
_OLD: Settings = {**_ENDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_WINDOWS: Settings = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
_EXPERTS: Settings = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_ROUTED: Settings = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_group": 2}
_LATENT: Settings = {
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
_LINEAR: Settings = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_MAMBA: Settings = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_expand": 2}
_PER_LAYER: Settings = {  # the last two layers take keys and values of the first two
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
_GEMMA4: Settings = {**_GEMMA, **_WINDOWS, "global_head_dim": 16, "hidden_size_per_layer_input": 0}
_GEMMA4_SMALL: Settings = {**_GEMMA4, **_PER_LAYER}
_GEMMA3N: Settings = {**_GEMMA, **_WINDOWS, **_PER_LAYER, "laurel_rank": 4, "altup_num_inputs": 2}
_STATES: Settings = {**_ENDS, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2}
_LLAMA4: Settings = {**_HEADS, "num_local_experts": 2, "intermediate_size_mlp": 48}
_FALCON: Settings = {**_ENDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_MODERN: Settings = {**_SIZES, "num_hidden_layers": 3, "local_attention": 4}
_VISION: Settings = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_VISION_OF_GEMMA4: Settings = {**_VISION, "num_key_value_heads": 2, "head_dim": 8}
_GEMMA4_EARS: Settings = {"image_token_id": 509, "video_token_id": 510, "audio_token_id": 511}
_VISION_OF_QWEN: Settings = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}

CAUSAL: dict[str, Settings] = {
    "afmoe": {**_HEADS, **_WINDOWS, **_EXPERTS, "num_dense_layers": 1},
    "apertus": _GROUPED,
    "arcee": _GROUPED,
    "bamba": {**_GROUPED, **_MAMBA, "attn_layer_indices": [1]},
    "biogpt": {**_SIZES, **_PADDED},
    "bitnet": _GROUPED,
    "bloom": {**_ENDS, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "codegen": {**_OLD, "rotary_dim": 4},
    "cohere": _GROUPED,
    "cohere2": {**_GROUPED, **_WINDOWS},
    "deepseek_v2": {**_ALIKE, **_LATENT, **_ROUTED, "n_group": 1, "first_k_dense_replace": 1},
    "deepseek_v3": {**_ALIKE, **_LATENT, **_ROUTED, "topk_group": 1, "first_k_dense_replace": 1},
    "diffllama": _GROUPED,
    "doge": _GROUPED,
    "dots1": {**_HEADS, **_ROUTED, "n_shared_experts": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "ernie4_5": _HEADS,
    "ernie4_5_moe": {**_GROUPED, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24},
    "exaone4": {**_GROUPED, **_WINDOWS},
    "exaone_moe": {**_GROUPED, **_WINDOWS, **_EXPERTS, "n_group": 1, "topk_group": 1},
    "falcon": _FALCON,
    "falcon alibi": {**_FALCON, "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    "falcon_h1": {**_HEADS, **_MAMBA, "mamba_d_ssm": 64},
    "falcon_mamba": _STATES,
    "gemma": _GEMMA,
    "gemma2": {**_GEMMA, **_WINDOWS, "query_pre_attn_scalar": 8},
    "gemma3_text": {**_GEMMA, **_WINDOWS, "query_pre_attn_scalar": 8},
    "gemma3n_text": _GEMMA3N,
    "gemma4_text": _GEMMA4,
    "gemma4_text E2B": _GEMMA4_SMALL,
    "glm": {**_HEADS, "attention_bias": True},
    "glm4": {**_HEADS, "attention_bias": True},
    "glm4_moe": {**_HEADS, **_ROUTED, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "gpt2": _OLD,
    "gpt_bigcode": _OLD,
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
    "granitemoe": {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoehybrid": {
        **_GROUPED,
        **_MAMBA,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 24,
        "layer_types": ["mamba", "attention"],
    },
    "helium": _HEADS,
    "hunyuan_v1_dense": _HEADS,
    "jamba": {
        **_GROUPED,
        "num_experts": 4,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
    },
    "lfm2": {**_GROUPED, "layer_types": ["conv", "full_attention"]},
    "llama": _GROUPED,
    "llama4_text": {**_LLAMA4, "num_hidden_layers": 4, "attention_chunk_size": 4},
    "mamba": _STATES,
    "mamba2": {**_STATES, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "minimax": {**_HEADS, "num_local_experts": 4, "layer_types": ["linear_attention", "full_attention"]},
    "ministral": {**_HEADS, **_WINDOWS},
    "ministral3": _HEADS,
    "mistral": {**_GROUPED, "sliding_window": 4},
    "mixtral": {**_GROUPED, "num_local_experts": 4},
    "modernbert-decoder": {**_MODERN, **_PADDED, "cls_token_id": _BEGIN, "sep_token_id": _END},
    "mpt": {**_ENDS, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
    "nanochat": _GROUPED,
    "nemotron": _GROUPED,
    "nemotron_h": {
        **_HEADS,
        "hybrid_override_pattern": "M*-",
        "num_hidden_layers": 3,
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "n_groups": 1,
        "ssm_state_size": 4,
    },
    "olmo": _GROUPED,
    "olmo2": _GROUPED,
    "olmo3": {**_GROUPED, **_WINDOWS},
    "olmoe": {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2},
    "opt": {
        **_PADDED,
        "hidden_size": 32,
        "word_embed_proj_dim": 16,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "do_layer_norm_before": False,
        "max_position_embeddings": 128,
    },
    "persimmon": {**_SIZES, **_ENDS},
    "phi": {**_SIZES, **_ENDS, "partial_rotary_factor": 0.5},
    "phi3": {**_GROUPED, "sliding_window": 4},
    "phimoe": {**_GROUPED, "num_local_experts": 4},
    "qwen2": _GROUPED,
    "qwen2_moe": {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 24},
    "qwen3": _HEADS,
    "qwen3_5_text": {**_HEADS, **_LINEAR},
    "qwen3_moe": {**_HEADS, **_EXPERTS},
    "qwen3_next": {**_HEADS, **_LINEAR, **_EXPERTS, "shared_expert_intermediate_size": 24},
    "recurrent_gemma": {**_GEMMA, "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 4},
    "rwkv": {**_ENDS, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": 128},
    "seed_oss": _HEADS,
    "smollm3": {**_GROUPED, "no_rope_layers": [1, 0]},
    "stablelm": _GROUPED,
    "starcoder2": {**_GROUPED, "sliding_window": 4},
    "vaultgemma": {**_GEMMA, **_WINDOWS, "query_pre_attn_scalar": 8},
    "xglm": {
        **_PADDED,
        "d_model": 32,
        "ffn_dim": 48,
        "num_layers": 2,
        "attention_heads": 4,
        "max_position_embeddings": 128,
    },
    "xlnet": {**_PADDED, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
}

# Checkpoints with a `text_config`, saved whole, of which the text model alone is read.
WRAPPERS: dict[str, Settings] = {
    "gemma3": {"text_config": {**_GEMMA, **_WINDOWS, "query_pre_attn_scalar": 8}, "vision_config": _VISION},
    "gemma4": {**_GEMMA4_EARS, "text_config": _GEMMA4, "vision_config": _VISION_OF_GEMMA4},
    "gemma4 E2B": {**_GEMMA4_EARS, "text_config": _GEMMA4_SMALL, "vision_config": _VISION_OF_GEMMA4},
    "internvl": {
        "text_config": {**_GROUPED, "model_type": "qwen2"},
        "vision_config": {**_VISION, "image_size": [28, 28], "patch_size": [14, 14]},
    },
    "llava": {
        "text_config": {**_GROUPED, "model_type": "llama"},
        "vision_config": {**_VISION, "model_type": "clip_vision_model"},
    },
    "mistral3": {
        "text_config": {**_HEADS, "model_type": "mistral"},
        "vision_config": {**_VISION, "model_type": "pixtral"},
    },
    "qwen3_5": {
        "text_config": {**_HEADS, **_LINEAR},
        "vision_config": {**_VISION_OF_QWEN, "out_hidden_size": 32},
    },
    "smolvlm": {"text_config": {**_GROUPED, "model_type": "llama", "pad_token_id": _PAD}, "vision_config": _VISION},
}

_T5: Settings = {
    **_PADDED,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": _PAD,
}
_BART: Settings = {
    **_PADDED,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
    "decoder_start_token_id": _END,
    "forced_eos_token_id": None,
}
SEQ2SEQ: dict[str, Settings] = {
    "bart": _BART,
    "blenderbot": {**_BART, "scale_embedding": True},
    "blenderbot-small": {**_BART, "scale_embedding": True},
    "longt5": {**_T5, "feed_forward_proj": "gated-gelu", "local_radius": 4},
    "m2m_100": {**_BART, "scale_embedding": True},
    "marian": {**_BART, "scale_embedding": True},
    "mbart": {**_BART, "scale_embedding": True},
    "mt5": {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "pegasus": {**_BART, "scale_embedding": True},
    "switch_transformers": {**_T5, "num_experts": 4},
    "t5": _T5,
    "t5 1.1": {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "t5gemma": {
        "encoder": {**_GEMMA, **_WINDOWS, "query_pre_attn_scalar": 8},
        "decoder": {**_GEMMA, **_WINDOWS, "query_pre_attn_scalar": 8, "cross_attention_hidden_size": 32},
        "decoder_start_token_id": _BEGIN,
    },
    "umt5": {**_T5, "feed_forward_proj": "gated-gelu"},
}

_BERT: Settings = {**_SIZES, "pad_token_id": _PAD}
_ROBERTA: Settings = {**_SIZES, **_PADDED, "max_position_embeddings": 130, "type_vocab_size": 1}
_DEBERTA: Settings = {
    **_BERT,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
MASKED: dict[str, Settings] = {
    "albert": {**_BERT, "embedding_size": 16},
    "bert": _BERT,
    "big_bird": {**_BERT, "attention_type": "original_full"},
    "camembert": _ROBERTA,
    "deberta": _DEBERTA,
    "deberta-v2": {**_DEBERTA, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    "distilbert": {
        "pad_token_id": _PAD,
        "dim": 32,
        "hidden_dim": 48,
        "n_layers": 2,
        "n_heads": 4,
        "max_position_embeddings": 128,
    },
    "electra": {**_BERT, "embedding_size": 16},
    "ernie": _BERT,
    "eurobert": {**_SIZES, **_PADDED, "num_key_value_heads": 2, "mask_token_id": _MASK},
    "longformer": {**_ROBERTA, "attention_window": 4},
    "megatron-bert": _BERT,
    "mobilebert": {**_BERT, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "modernbert": {**_MODERN, **_PADDED, "cls_token_id": _BEGIN, "sep_token_id": _END},
    "mpnet": {**_BERT, "max_position_embeddings": 130},
    "nomic_bert": _BERT,
    "roberta": _ROBERTA,
    "roformer": {**_BERT, "embedding_size": 32},
    "xlm-roberta": _ROBERTA,
}
SENTENCE: dict[str, Settings] = {
    **{name: MASKED[name] for name in ("bert", "deberta-v2", "distilbert", "eurobert", "modernbert", "mpnet")},
    **{name: MASKED[name] for name in ("nomic_bert", "roberta", "xlm-roberta")},
    "gemma3_text": {**CAUSAL["gemma3_text"], "use_bidirectional_attention": True},  # EmbeddingGemma
    "qwen3": CAUSAL["qwen3"],  # Qwen3-Embedding
}

FAMILIES = {
    "causal": CAUSAL,
    "wrapper": WRAPPERS,
    "seq2seq": SEQ2SEQ,
    "masked": MASKED,
    "sentence": SENTENCE,
}
"""Wrappers are read as causal models."""
_CLASSES = {
    "causal": transformers.AutoModelForCausalLM,
    "wrapper": transformers.AutoModelForImageTextToText,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
    "masked": transformers.AutoModelForMaskedLM,
    "sentence": transformers.AutoModel,
}


def build(folder: Path, family: str, name: str, window: int | None = None, **changes: Any) -> Path:
    """Save a random tiny model with a tokenizer of its own.

    `window` takes the place of those of its sliding windows; `changes` are further settings of its configuration.
    """
    save_tokenizer(folder, family)
    config = configuration(family, name, window, **changes)
    torch.manual_seed(0)
    model = _CLASSES[family].from_config(config)
    _draw(model)
    model.save_pretrained(folder)
    return folder


def configuration(family: str, name: str, window: int | None = None, **changes: Any) -> Any:
    """A tiny model's configuration."""
    settings = {**FAMILIES[family][name], **changes}
    parts = [key for key in ("text_config", "encoder", "decoder") if key in settings]
    settings |= {key: {**_widened(settings[key], window), "vocab_size": VOCABULARY} for key in parts}
    if parts != ["text_config"]:
        settings["vocab_size"] = VOCABULARY
    return transformers.AutoConfig.for_model(name.partition(" ")[0], **_widened(settings, window))


def _widened(settings: Settings, window: int | None) -> Settings:
    """Settings with another size of their sliding windows."""
    keys = [key for key in ("sliding_window", "local_attention") if key in settings and window is not None]
    return settings | dict.fromkeys(keys, window)


def save_tokenizer(folder: Path, family: str) -> None:
    """Save a tokenizer of words of two syllables, with the special tokens that models of the family have."""
    syllables = ["".join(letters) for letters in product("bdfgklmnprst", "aeiou")]
    words = ["".join(pair) for pair in product(syllables, syllables)]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", *words[: VOCABULARY - 6]]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if family == "seq2seq":
        tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", _END)])
    if family in ("masked", "sentence"):
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", _END), ("<s>", _BEGIN))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    if family in ("masked", "sentence"):
        special |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


@torch.no_grad()
def _draw(model: nn.Module) -> None:
    """Weights wide enough that every token read changes the scores; vectors keep what their initialisation means."""
    for weight in model.parameters():
        if weight.dim() > 1 and weight.is_floating_point():
            size = 1.0 if weight.shape[0] > 400 else weight.shape[-1] ** -0.5
            weight.normal_(0.0, size)
        elif weight.is_floating_point():
            weight.add_(0.1 * torch.randn_like(weight))
    for name, module in model.named_modules():
        if name.endswith("embed_tokens_per_layer"):
            module.weight[list(PROMPT)] = module.weight[_PAD].clone()
