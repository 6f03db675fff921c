"""GGUF files: which one is meant, what is said where it can't be read, and one that is read."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import check_architectures as script
import pytest

from softprune.errors import SoftpruneError
from softprune.models import describe, load_backbone
from softprune.models.description import find_gguf


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.q4_0.gguf"
    path.write_bytes(b"GGUF, but no more of it")
    return path


def test_a_file_and_the_folder_of_one(file: Path) -> None:
    assert find_gguf(str(file)) == find_gguf(str(file.parent)) == file


def test_a_folder_with_a_config_is_a_model_of_safetensors(file: Path) -> None:
    (file.parent / "config.json").write_text("{}")
    assert find_gguf(str(file.parent)) is None
    assert find_gguf(str(file)) == file


def test_several_files_in_a_folder(file: Path) -> None:
    for name in ("b.gguf", "c.gguf", "d.gguf"):
        (file.parent / name).write_bytes(b"GGUF")
    with pytest.raises(SoftpruneError) as caught:
        describe(file.parent)
    assert caught.value.expected == "one GGUF file"
    assert caught.value.found == f"4 in {file.parent} (b.gguf, c.gguf, d.gguf, ...)"
    assert caught.value.do == "name one of them: --backbone FOLDER/FILE.gguf"


def test_two_files_are_both_named(file: Path) -> None:
    (file.parent / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(SoftpruneError) as caught:
        describe(file.parent)
    assert caught.value.found == f"2 in {file.parent} (b.gguf, {file.name})"


def test_without_the_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softprune.models.description.find_spec", lambda _: None)
    with pytest.raises(SoftpruneError) as caught:
        describe(file)
    assert caught.value.expected == "the package gguf, which reads GGUF files"
    assert caught.value.do == "pip install 'softprune[gguf]'"


@pytest.mark.parametrize("family", ["masked", "seq2seq", "sentence"])
def test_other_families_than_causal(file: Path, family: str) -> None:
    with pytest.raises(SoftpruneError, match="--family causal") as caught:
        describe(file, family)
    assert caught.value.found == family


@pytest.mark.skipif(find_spec("gguf") is None, reason="needs the package gguf")
def test_a_damaged_file(file: Path) -> None:
    with pytest.raises(SoftpruneError) as caught:
        describe(file)
    assert "model.q4_0.gguf" in str(caught.value)


# --- a file that can be read ---


def write_gguf(path: Path, model: Any) -> None:
    """A Qwen 2 as llama.cpp names its parts, in float32, with a vocabulary of single letters."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    tokens = ["<s>", "<pad>", "</s>", *"abdorw", "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*tokens, *(f"<{i}>" for i in range(len(tokens), config.vocab_size))])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_pad_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if name != "lm_head.weight" or not config.tie_word_embeddings:
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.slow
def test_a_file_gives_the_losses_of_the_model_that_it_was_made_of(tmp_path: Path) -> None:
    case = script.load("causal", "qwen2", tmp_path / "safetensors")
    file = tmp_path / "qwen2.gguf"
    write_gguf(file, case.backbone.model)
    described = describe(file)
    assert (described.family, described.hidden, described.positions) == ("causal", 32, 128)
    assert described.notes[0].startswith("qwen2.gguf is dequantised")
    read = replace(case, backbone=load_backbone(described, dtype="float32", device="cpu"))
    script.check_tuning(read)
    expected = case.losses(case.prompt(), case.texts())
    assert script.difference(read.losses(case.prompt(), case.texts()), expected) <= script.TOLERANCE
    assert script.difference(read.losses(1.1 * case.prompt(), case.texts()), expected) > script.CONTROL
    with pytest.raises(SoftpruneError, match=r"backbone\.quantization=none"):
        load_backbone(described, quantization="8bit")
