"""A model's small files, damaged in every way: one message that names what is wrong, never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softprune.errors import SoftpruneError
from softprune.models import load_backbone
from softprune.token_pruning.loading import describe_encoder, load_tokenizer

Models = Callable[[str], Path]
Damage = Callable[[str], str]

DEEP = "[" * 100_000 + "]" * 100_000
WHOLE_FILE: dict[str, str] = {
    "null": "null",
    "a list": '["a", {"b": 1}]',
    "a text": '"x"',
    "a number": "3",
    "true": "true",
    "nested": DEEP,
    "nested inside": '{"a": ' + DEEP + "}",
    "torn": '{"a": [1, 2',
}
FILES = ("config.json", "generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json")
# transformers itself goes on without these.
HARMLESS = {("generation_config.json", "torn")}

KEYS: dict[str, list[dict[str, Any]]] = {
    "config.json": [
        {"dtype": "os.system"},
        {"dtype": [1]},
        {"dtype": None, "torch_dtype": "os.system"},
        {"model_type": [1]},
        {"model_type": 3},
        {"model_type": None},
        {"architectures": {"a": 1}},
        {"architectures": [1, None]},
        {"architectures": "x"},
        {"quantization_config": [1]},
        {"quantization_config": "x"},
        {"quantization_config": {}},
        {"quantization_config": {"quant_method": "awq", "bits": 4}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"vocab_size": "many"},
        {"vocab_size": 5},
        {"n_embd": "wide"},
        {"n_embd": -4},
        {"n_embd": None},
        {"n_head": 0},
        {"activation_function": "frob"},
        {"eos_token_id": "x"},
        {"pad_token_id": [1]},
        {"id2label": [1]},
        {"__class__": "x"},
    ],
    "tokenizer.json": [{"model": None}, {"model": [1]}, {"added_tokens": 3}, {"normalizer": {"type": "Frob"}}],
    "tokenizer_config.json": [
        {"tokenizer_class": 3},
        {"added_tokens_decoder": [1]},
        {"model_max_length": "x"},
        {"extra_special_tokens": [1]},
    ],
    "special_tokens_map.json": [{"pad_token": 3}],
    "generation_config.json": [{"eos_token_id": "x"}, {"eos_token_id": [[1]]}, {"pad_token_id": [1]}],
}
CASES = [
    *[(file, name, {"text": text}) for file in FILES for name, text in WHOLE_FILE.items()],
    *[(file, str(change), {"keys": change}) for file, changes in KEYS.items() for change in changes],
]


def spoil(folder: Path, file: str, text: str | None = None, keys: dict[str, Any] | None = None) -> None:
    path = folder / file
    if keys is not None:
        text = json.dumps((json.loads(path.read_text()) if path.exists() else {}) | keys)
    path.write_text(str(text))


@pytest.fixture(scope="module")
def whole(tiny_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2 with every small file, which loads."""
    folder = Path(shutil.copytree(tiny_models("gpt2"), tmp_path_factory.mktemp("whole") / "model"))
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>"}')
    assert load_backbone(str(folder), dtype="float32", device="cpu").family == "causal"
    return folder


@pytest.mark.parametrize(("file", "name", "how"), CASES, ids=[f"{file}-{name}" for file, name, _ in CASES])
def test_a_damaged_file_ends_in_one_message(
    whole: Path, tmp_path: Path, file: str, name: str, how: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    spoil(folder, file, **how)
    if (file, name) in HARMLESS:
        assert load_backbone(str(folder), dtype="float32", device="cpu").family == "causal"
        return
    with pytest.raises(SoftpruneError) as caught:
        load_backbone(str(folder), dtype="float32", device="cpu")
    assert caught.value.do
    assert len(caught.value.found) < 500
    if "text" in how:
        assert caught.value.found.startswith(f"{file}, which ")
        assert caught.value.do == f"copy or download {file} again"


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("name", ["null", "a list", "nested"])
def test_encoders_whose_tokens_are_pruned(tiny_models: Models, tmp_path: Path, file: str, name: str) -> None:
    folder = Path(shutil.copytree(tiny_models("bert"), tmp_path / "model"))
    assert load_tokenizer(describe_encoder(str(folder))).is_fast
    spoil(folder, file, WHOLE_FILE[name])
    with pytest.raises(SoftpruneError) as caught:
        load_tokenizer(describe_encoder(str(folder)))
    assert caught.value.found.startswith(f"{file}, which ")


@pytest.mark.parametrize("file", ["modules.json", "1_Pooling/config.json", "2_Dense/config.json"])
@pytest.mark.parametrize("text", [*WHOLE_FILE.values(), "{}", '[{"path": 3}]'], ids=[*WHOLE_FILE, "empty", "no type"])
def test_sentence_models_modules(tiny_models: Models, tmp_path: Path, file: str, text: str) -> None:
    folder = Path(shutil.copytree(tiny_models("sentence"), tmp_path / "model"))
    spoil(folder, file, text)
    with pytest.raises(SoftpruneError) as caught:
        load_backbone(str(folder), dtype="float32", device="cpu")
    assert file.rpartition("/")[2] in str(caught.value)
    assert "Error:" not in caught.value.found


@pytest.mark.parametrize(
    "change",
    [{"in_features": "x"}, {"out_features": -2}, {"in_features": None}, {"activation_function": [3]}],
    ids=str,
)
def test_sentence_models_dense_layers(tiny_models: Models, tmp_path: Path, change: dict[str, Any]) -> None:
    folder = Path(shutil.copytree(tiny_models("sentence"), tmp_path / "model"))
    spoil(folder, "2_Dense/config.json", keys=change)
    with pytest.raises(SoftpruneError, match="dense layer"):
        load_backbone(str(folder), dtype="float32", device="cpu")


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_that_are_not_there(whole: Path, tmp_path: Path, bits: int) -> None:
    pytest.importorskip("bitsandbytes")
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    spoil(
        folder,
        "config.json",
        keys={"quantization_config": {"quant_method": "bitsandbytes", f"load_in_{bits}bit": True}},
    )
    with pytest.raises(SoftpruneError, match="that bitsandbytes packed, as quantization_config"):
        load_backbone(str(folder), dtype="float32", device="cpu")
