"""Sentence heads by hand."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
import tiny_architectures as tiny
import torch
from safetensors.torch import save_file

from softprune.errors import SoftpruneError
from softprune.models import load_backbone
from softprune.models.pooling import pool, read_head
from softprune.types import Encoded

HIDDEN = torch.tensor([[[1.0, -2.0], [3.0, 5.0], [100.0, 100.0]], [[2.0, 2.0], [4.0, 0.0], [6.0, 1.0]]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mean", [[2.0, 1.5], [4.0, 1.0]]),
        ("cls", [[1.0, -2.0], [2.0, 2.0]]),
        ("max", [[3.0, 5.0], [6.0, 2.0]]),
        ("mean_sqrt_len", [[4 / 2**0.5, 3 / 2**0.5], [12 / 3**0.5, 3 / 3**0.5]]),
        ("weightedmean", [[7 / 3, 8 / 3], [28 / 6, 5 / 6]]),
        ("lasttoken", [[3.0, 5.0], [6.0, 1.0]]),
    ],
)
def test_pooling_reads_real_tokens_only(mode: str, expected: list[list[float]]) -> None:
    assert torch.allclose(pool(HIDDEN, MASK, mode), torch.tensor(expected))


def write(folder: Path, kinds: list[str], pooling: dict[str, object], dense: dict[str, object] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    modules = [{"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": f"a.b.{kind}"} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    for module in modules:
        (folder / str(module["path"])).mkdir()
    for i, kind in enumerate(kinds):
        config = {"Pooling": pooling, "Dense": dense}.get(kind)
        if config is not None:
            (folder / f"{i}_{kind}" / "config.json").write_text(json.dumps(config))
        if kind == "Dense":
            weights = {
                "linear.weight": torch.tensor([[1.0, 2.0], [0.0, -1.0]]),
                "linear.bias": torch.tensor([0.5, 0.0]),
            }
            save_file(weights, folder / f"{i}_{kind}" / "model.safetensors")
    return folder


SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@pytest.mark.real  # sentence-transformers comes with the real encoder, in the environment of `make test-real`
@pytest.mark.parametrize("modes", [("lasttoken",), ("weightedmean",), tuple(SWITCHES.values())], ids=len)
def test_poolings_are_those_of_sentence_transformers(modes: tuple[str, ...], tmp_path: Path) -> None:
    """As it saves them now, and by the switches that it saved before version 5."""
    modules = import_module("sentence_transformers.sentence_transformer.modules")
    states = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6])
    theirs = modules.Pooling(4, pooling_mode=modes)
    expected = theirs({"token_embeddings": states, "attention_mask": mask})["sentence_embedding"]
    theirs.save(str(tmp_path))
    now = read_head(write(tmp_path / "now", ["Pooling"], json.loads((tmp_path / "config.json").read_text())))
    before = read_head(write(tmp_path / "before", ["Pooling"], {key: mode in modes for key, mode in SWITCHES.items()}))
    for head in (now, before):
        assert difference(head(states, mask), expected) <= 1e-5
        assert difference(head(states, torch.ones_like(mask)), expected) > 1e-2  # padding is read


def test_a_model_that_pools_its_last_token_loads(tmp_path: Path) -> None:
    """A decoder as Qwen3-Embedding is: texts in a padded batch have the states of their own last tokens."""
    tiny.build(tmp_path, "sentence", "qwen3")
    write(tmp_path, ["Transformer", "Pooling"], {"pooling_mode": "lasttoken"})
    entries = json.loads((tmp_path / "modules.json").read_text())
    entries[0]["path"] = ""
    (tmp_path / "modules.json").write_text(json.dumps(entries))
    backbone = load_backbone(str(tmp_path), dtype="float32", device="cpu")
    texts = [(41, 33, 29, 52, 47), (36, 55, 31)]
    batch = backbone.batch([Encoded(text, -1, ((61,),), 0) for text in texts])
    with torch.no_grad():
        found = backbone.read_softly(torch.zeros(2, 0, backbone.info.hidden), batch)
        states = [backbone.model(input_ids=torch.tensor([text])).last_hidden_state[0] for text in texts]
    assert difference(found, torch.stack([state[-1] for state in states])) <= 1e-5
    assert difference(found, torch.stack([state.mean(0) for state in states])) > 1e-2


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


DENSE = {"in_features": 2, "out_features": 2, "bias": True, "activation_function": "torch.nn.modules.activation.ReLU"}


def test_modes_stand_side_by_side_in_sentence_transformers_order(tmp_path: Path) -> None:
    switches = {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False, "pooling_mode_cls_token": True}
    head = read_head(write(tmp_path, ["Transformer", "Pooling"], switches))
    expected = torch.cat([pool(HIDDEN, MASK, "cls"), pool(HIDDEN, MASK, "mean")], dim=1)
    assert torch.equal(head(HIDDEN, MASK), expected)


@pytest.mark.parametrize(
    ("named", "modes"),
    [("cls", ("cls",)), (["max", "mean_sqrt_len_tokens"], ("max", "mean_sqrt_len"))],
)
def test_the_newer_key_names_its_modes(tmp_path: Path, named: object, modes: tuple[str, ...]) -> None:
    assert read_head(write(tmp_path, ["Pooling"], {"pooling_mode": named})).modes == modes


def test_dense_and_normalise_run_in_the_order_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mean = {"pooling_mode": "mean"}
    mean_vector = pool(HIDDEN, MASK, "mean")

    def dense(vector: torch.Tensor) -> torch.Tensor:
        return torch.relu(vector @ torch.tensor([[1.0, 0.0], [2.0, -1.0]]) + torch.tensor([0.5, 0.0]))

    def normal(vector: torch.Tensor) -> torch.Tensor:
        return vector / vector.norm(dim=1, keepdim=True)

    last = read_head(write(tmp_path / "a", ["Pooling", "Dense", "Normalize"], mean, DENSE))
    first = read_head(write(tmp_path / "b", ["Pooling", "Normalize", "Dense"], mean, DENSE))
    assert torch.allclose(last(HIDDEN, MASK), normal(dense(mean_vector)))
    assert torch.allclose(first(HIDDEN, MASK), dense(normal(mean_vector)))
    assert not torch.allclose(first(HIDDEN, MASK), last(HIDDEN, MASK))


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode": "attention"},
        {"pooling_mode_attention": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode_mean_tokens": False},
    ],
)
def test_unknown_poolings_are_errors(tmp_path: Path, pooling: dict[str, object]) -> None:
    with pytest.raises(SoftpruneError, match="pooling modes among"):
        read_head(write(tmp_path, ["Pooling"], pooling))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_function": "torch.nn.modules.activation.Mish"}, "activation among"),
        ({"use_residual": True}, "residual"),
        ({"out_features": 3}, "size mismatch"),
    ],
)
def test_unknown_dense_layers_are_errors(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(SoftpruneError, match=message):
        read_head(write(tmp_path, ["Pooling", "Dense"], {"pooling_mode": "mean"}, DENSE | change))


def test_pickled_dense_weights_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, ["Pooling", "Dense"], {"pooling_mode": "mean"}, DENSE)
    (folder / "1_Dense" / "model.safetensors").rename(folder / "1_Dense" / "pytorch_model.bin")
    with pytest.raises(SoftpruneError, match="pickled weights are never loaded"):
        read_head(folder)


@pytest.mark.parametrize("content", ["{", '{"a": 1}', '[{"idx": 0}]', "[1]"])
def test_a_broken_modules_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(SoftpruneError, match=r"modules\.json"):
        read_head(tmp_path)
