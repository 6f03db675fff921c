"""Random tiny models with tokenizers of their own, saved as released models are: config, safetensors, tokenizer.

Every architecture switch of the released configurations is kept; only sizes shrink. Weights are drawn wide, so that
answers depend strongly on every token read: equality on a model that ignores its input proves nothing.
"""

from __future__ import annotations

import json
import math
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram, WordPiece
from torch import nn
from transformers import PreTrainedTokenizerFast

HIDDEN = 32
LAYERS = 2
HEADS = 4
POSITIONS = 128

CORPUS = (
    "the film was a slow and quiet joy from its first scene to the last",
    "a dull plot that never wakes up and a cast that seems to know it",
    "is the answer to this question yes or no or maybe not at all",
    "question : does the river run to the sea ? answer : true or false",
    "premise : the man carried a red box . hypothesis : the box was heavy",
    "sentence : it was terrible , it was great , it was positive , it was negative",
    "the second choice is more likely because the children were hungry and tired",
    "what is this about ? world , sports , business , science , food , weather , music",
    "she opened the window and the cold wind entered the small room",
    "he said that entailment and contradiction are neutral words , not equivalent",
    "a very very good meal with bread , cheese , apples and a glass of water",
    "definitely wrong ; partly right ; absolutely wonderful ; rather disappointing",
)


# --- tokenizers ---


def _save_tokenizer(folder: Path, tokenizer: Tokenizer, released_class: str, **tokens: Any) -> None:
    """Save as a released repository does: tokenizer.json, and a tokenizer_config.json that names the class."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": released_class}
    path.write_text(json.dumps(config, indent=2))


def _byte_level(specials: list[str], size: int = 560) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def gpt2_tokenizer(folder: Path) -> int:
    tokenizer = _byte_level(["<|endoftext|>"])
    end = "<|endoftext|>"
    _save_tokenizer(folder, tokenizer, "GPT2Tokenizer", bos_token=end, eos_token=end, unk_token=end)
    return tokenizer.get_vocab_size()


def bloom_tokenizer(folder: Path) -> int:
    tokenizer = _byte_level(["<unk>", "<s>", "</s>", "<pad>"])
    _save_tokenizer(
        folder,
        tokenizer,
        "BloomTokenizerFast",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
    )
    return tokenizer.get_vocab_size()


def roberta_tokenizer(folder: Path) -> int:
    """As RoBERTa's and BART's: `<s> A </s>`, pad id 1, a mask that swallows the space before it."""
    mask = AddedToken("<mask>", lstrip=True, special=True, normalized=False)
    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.add_special_tokens([mask])  # last id, as released
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    _save_tokenizer(
        folder,
        tokenizer,
        "RobertaTokenizer",
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=mask,
    )
    return tokenizer.get_vocab_size()


def t5_tokenizer(folder: Path) -> int:
    """Sentence pieces, `A </s>`, sentinels at the end."""
    counts = Counter(word for line in CORPUS for word in line.split() if word.isalpha())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", math.log(count / counts.total())) for word, count in counts.most_common()]
    pieces += [(letter, -9.0) for letter in string.ascii_letters + string.digits + string.punctuation]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    sentinels = [f"<extra_id_{i}>" for i in range(99, -1, -1)]
    tokenizer.add_special_tokens(sentinels)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    _save_tokenizer(
        folder,
        tokenizer,
        "T5Tokenizer",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=sentinels,
    )
    return tokenizer.get_vocab_size()


def llama_tokenizer(folder: Path) -> int:
    """Byte-pair encoding over marked spaces with byte fallback, a beginning-of-sequence token, no padding token."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False),
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    # The byte tokens are ordinary ones: only the three real specials stay marked.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < 3]
    _save_tokenizer(
        folder,
        Tokenizer.from_str(json.dumps(state)),
        "LlamaTokenizer",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        add_bos_token=True,
        add_eos_token=False,
        padding_side="left",
        legacy=False,
    )
    return tokenizer.get_vocab_size()


BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _word_pieces() -> dict[str, int]:
    """Word pieces by rule: the trainer of word pieces breaks ties by chance, and runs would differ between sessions.

    Special tokens, letters and signs, some endings, and two of three words of the corpus; the others come in pieces.
    """
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,;:?!'\"()-")
    endings = ["##ing", "##ed", "##er", "##ly", "##es", "##on", "##th"]
    words = [word for n, word in enumerate(dict.fromkeys(" ".join(CORPUS).split())) if n % 3]
    pieces = [*BERT_SPECIALS, *letters, *(f"##{letter}" for letter in letters), *endings, *words]
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


def bert_tokenizer(folder: Path, released_class: str = "BertTokenizer") -> int:
    tokenizer = Tokenizer(WordPiece(vocab=_word_pieces(), unk_token="[UNK]"))
    tokenizer.add_special_tokens(BERT_SPECIALS)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    _save_tokenizer(
        folder,
        tokenizer,
        released_class,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        do_lower_case=True,
    )
    return tokenizer.get_vocab_size()


# --- models ---


@torch.no_grad()
def widen(model: nn.Module, width: float = 1.0) -> nn.Module:
    """Draw every weight again, wide enough that attention is sharp and each token read changes the output.

    Args:
        model: a fresh model.
        width: standard deviation of its embeddings.
    """
    generator = torch.Generator().manual_seed(0)
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
        if weight.dim() == 1 and name.endswith("weight"):  # a normalisation's gain
            weight.copy_(1 + 0.3 * noise)
        elif weight.dim() == 1:
            weight.copy_(0.3 * noise)
        elif id(weight) in embeddings:
            weight.copy_(noise * width)
        else:
            # A decoder that looks at what was read more than at itself: generation then depends on the prompt.
            gain = 3.0 if "encoder_attn" in name else 1.4
            weight.copy_(noise * gain / math.sqrt(min(weight.shape)))
    for name, buffer in model.named_buffers():
        if name.endswith("final_logits_bias"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
    return model


def _save(folder: Path, model: Any, embeddings: float = 1.0, **config: Any) -> None:
    """Save a widened model; `config` overwrites what its config.json says."""
    widen(model, embeddings).save_pretrained(folder)
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config, indent=2))


def _t5(folder: Path, kind: str, feed_forward: str, tied: bool) -> None:
    size = t5_tokenizer(folder)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=size,
        d_model=HIDDEN,
        d_kv=8,
        d_ff=48,
        num_layers=LAYERS,
        num_heads=HEADS,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
        feed_forward_proj=feed_forward,
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    if not tied:
        model.lm_head.weight = nn.Parameter(torch.empty(size, HIDDEN))
    # Released configurations of T5 1.1 and mT5 say tie_word_embeddings: false.
    _save(folder, model, tie_word_embeddings=tied)


def t5(folder: Path) -> None:
    """T5 1.0: relu, tied embeddings, decoder outputs scaled by H**-0.5."""
    _t5(folder, "T5", "relu", tied=True)


def t5_v1_1(folder: Path) -> None:
    """T5 1.1: gated gelu, its own output matrix, no scale."""
    _t5(folder, "T5", "gated-gelu", tied=False)


def mt5(folder: Path) -> None:
    """mT5: as T5 1.1 under its own class."""
    _t5(folder, "MT5", "gated-gelu", tied=False)


def _bart(folder: Path, scale: bool, architecture: str) -> None:
    size = roberta_tokenizer(folder)
    config = transformers.BartConfig(
        vocab_size=size,
        d_model=HIDDEN,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=POSITIONS,
        activation_function="gelu",
        scale_embedding=scale,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    _save(folder, getattr(transformers, architecture)(config))


def bart(folder: Path) -> None:
    """bart-base as it is released: saved as a bare BartModel, embeddings not scaled."""
    _bart(folder, scale=False, architecture="BartModel")


def bart_scaled(folder: Path) -> None:
    """The other switch: scaled embeddings, and a bias on the logits."""
    _bart(folder, scale=True, architecture="BartForConditionalGeneration")


def pegasus(folder: Path) -> None:
    """Its encoder scales the embeddings of ids, and takes those that it is given as they are."""
    config = transformers.PegasusConfig(
        vocab_size=t5_tokenizer(folder) - 100,  # without T5's sentinels
        d_model=HIDDEN,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=POSITIONS,
        activation_function="relu",
        scale_embedding=True,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        forced_eos_token_id=1,
    )
    _save(folder, transformers.PegasusForConditionalGeneration(config), embeddings=0.2)


def gpt2(folder: Path) -> None:
    size = gpt2_tokenizer(folder)
    config = transformers.GPT2Config(
        vocab_size=size,
        n_embd=HIDDEN,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=POSITIONS,
        bos_token_id=0,
        eos_token_id=0,
    )
    _save(folder, transformers.GPT2LMHeadModel(config))


def bloom(folder: Path) -> None:
    size = bloom_tokenizer(folder)
    config = transformers.BloomConfig(
        vocab_size=size,
        hidden_size=HIDDEN,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    _save(folder, transformers.BloomForCausalLM(config))


def llama(folder: Path) -> None:
    """Grouped-query heads, rms norm, rotary positions, untied output, no padding token."""
    size = llama_tokenizer(folder)
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    _save(folder, transformers.LlamaForCausalLM(config))


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# The system's text opens the user's first turn, as in Gemma 3; the template writes a beginning-of-sequence token.
MERGED = (
    "{{ bos_token }}{% set ns = namespace(first='') %}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{% set ns.first = m['content'] + '\n\n' %}{% else %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ ns.first }}{{ m['content'] | trim }}<end_of_turn>\n{% set ns.first = '' %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
TURNS = ("<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>")


def chat(folder: Path) -> None:
    """A Llama with a chat template, whose tokenizer knows its special tokens."""
    gpt2_tokenizer(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(TURNS)})
    tokenizer.chat_template = MERGED
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=2 * POSITIONS,
    )
    _save(folder, transformers.LlamaForCausalLM(config))


def _bert_config(size: int) -> Any:
    return transformers.BertConfig(
        vocab_size=size,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
    )


def bert(folder: Path) -> None:
    _save(folder, transformers.BertForMaskedLM(_bert_config(bert_tokenizer(folder))))


def roberta(folder: Path) -> None:
    """Positions start behind the padding id, one token type."""
    size = roberta_tokenizer(folder)
    config = transformers.RobertaConfig(
        vocab_size=size,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=48,
        max_position_embeddings=POSITIONS + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    _save(folder, transformers.RobertaForMaskedLM(config))


def distilbert(folder: Path) -> None:
    size = bert_tokenizer(folder, "DistilBertTokenizer")
    config = transformers.DistilBertConfig(
        vocab_size=size,
        dim=HIDDEN,
        n_layers=LAYERS,
        n_heads=HEADS,
        hidden_dim=48,
        max_position_embeddings=POSITIONS,
        sinusoidal_pos_embds=False,
    )
    _save(folder, transformers.DistilBertForMaskedLM(config))


def sentence_bare(folder: Path) -> None:
    """An encoder without a head and without modules.json."""
    _save(folder, transformers.BertModel(_bert_config(bert_tokenizer(folder))))


def encoder(folder: Path) -> None:
    """An encoder deep enough for token pruning: a bare BERT of five layers without dropout of its own."""
    config = _bert_config(bert_tokenizer(folder))
    config.num_hidden_layers = 5
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    _save(folder, transformers.BertModel(config))


def sentence(folder: Path) -> None:
    """The layout of sentence-transformers: encoder, mean pooling, a dense layer, normalisation."""
    sentence_bare(folder)
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    paths = ("", "1_Pooling", "2_Dense", "3_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": false}')
    for path in paths[1:]:
        (folder / path).mkdir()
    pooling = {
        "word_embedding_dimension": HIDDEN,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    dense = {
        "in_features": HIDDEN,
        "out_features": 24,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
    generator = torch.Generator().manual_seed(5)
    weights = {
        "linear.weight": torch.randn(24, HIDDEN, generator=generator) / math.sqrt(HIDDEN),
        "linear.bias": torch.randn(24, generator=generator) * 0.3,
    }
    save_file(weights, folder / "2_Dense" / "model.safetensors")


BUILDERS: dict[str, Callable[[Path], None]] = {
    build.__name__: build
    for build in (
        t5,
        t5_v1_1,
        mt5,
        bart,
        bart_scaled,
        pegasus,
        gpt2,
        bloom,
        llama,
        chat,
        bert,
        roberta,
        distilbert,
        encoder,
        sentence,
        sentence_bare,
    )
}
FAMILY: dict[str, str] = {
    "t5": "seq2seq",
    "t5_v1_1": "seq2seq",
    "mt5": "seq2seq",
    "bart": "seq2seq",
    "bart_scaled": "seq2seq",
    "pegasus": "seq2seq",
    "gpt2": "causal",
    "bloom": "causal",
    "llama": "causal",
    "bert": "masked",
    "roberta": "masked",
    "distilbert": "masked",
    "sentence": "sentence",
    "sentence_bare": "sentence",
}


def build(name: str, folder: Path) -> Path:
    """Save the tiny model of this name into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    BUILDERS[name](folder)
    return folder


def names_of(family: str) -> list[str]:
    """Tiny models of one family."""
    return [name for name, known in FAMILY.items() if known == family]
