"""Encoders by name: those whose tokens can be pruned, and what is said of the others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from softprune.errors import SoftpruneError
from softprune.token_pruning.loading import check_length, describe_encoder, load_classifier, load_tokenizer

Models = Callable[[str], Path]
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "encoder", "sentence", "sentence_bare"])
def test_encoders_load_with_a_head_for_the_labels(tiny_models: Models, name: str) -> None:
    described = describe_encoder(str(tiny_models(name)))
    assert described.positions == 128
    model = load_classifier(described, ("a", "b", "c"), CPU, torch.float32, seed=3)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    again = load_classifier(described, ("a", "b", "c"), CPU, torch.float32, seed=3)
    other = load_classifier(described, ("a", "b", "c"), CPU, torch.float32, seed=4)
    pairs = zip(model.named_parameters(), again.parameters(), other.parameters(), strict=True)
    for (part, one), same, drawn in pairs:
        assert torch.equal(one, same), part
        if part.endswith(("classifier.weight", "out_proj.weight")):
            assert not torch.equal(one, drawn), part
    assert load_tokenizer(described).is_fast


def test_a_head_for_other_labels_gives_way(tiny_models: Models, tmp_path: Path) -> None:
    described = describe_encoder(str(tiny_models("encoder")))
    model = load_classifier(described, ("a", "b", "c"), CPU, torch.float32, seed=0)
    model.save_pretrained(tmp_path / "model")
    shutil.copy(tiny_models("encoder") / "tokenizer.json", tmp_path / "model")
    found = load_classifier(describe_encoder(str(tmp_path / "model")), ("x", "y"), CPU, torch.float32, seed=0)
    assert found.classifier.weight.shape == (2, 32)
    assert torch.equal(found.bert.pooler.dense.weight, model.bert.pooler.dense.weight)
    kept = load_classifier(describe_encoder(str(tmp_path / "model")), ("x", "y", "z"), CPU, torch.float32, seed=1)
    assert torch.equal(kept.classifier.weight, model.classifier.weight)


@pytest.mark.parametrize("name", ["gpt2", "t5", "bart", "llama"])
def test_other_architectures_are_refused_before_weights_load(tiny_models: Models, name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models(name), tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(SoftpruneError, match="an encoder whose tokens can be pruned: bert, camembert") as caught:
        describe_encoder(str(folder))
    assert caught.value.found == name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"is_decoder": True}, "bert as a decoder"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type: relative_key"),
    ],
)
def test_switches_that_pruning_does_not_know_are_refused(
    tiny_models: Models, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    folder = shutil.copytree(tiny_models("encoder"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(SoftpruneError) as caught:
        describe_encoder(str(folder))
    assert caught.value.found == told


def test_texts_are_no_longer_than_positions(tiny_models: Models) -> None:
    for name in ("encoder", "roberta"):
        described = describe_encoder(str(tiny_models(name)))
        check_length(described, 128)
        with pytest.raises(SoftpruneError, match=r"task\.max_length of at most 128"):
            check_length(described, 129)


def test_a_slow_tokenizer_is_refused(tiny_models: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models("encoder"), tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    with pytest.raises(SoftpruneError, match="a fast tokenizer"):
        load_tokenizer(describe_encoder(str(folder)))


def test_damaged_weights_are_told(tiny_models: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models("encoder"), tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    described = describe_encoder(str(folder))
    with pytest.raises(SoftpruneError, match="a whole model in"):
        load_classifier(described, ("a", "b"), CPU, torch.float32, seed=0)
