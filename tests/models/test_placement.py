"""Device maps and quantised weights: what transformers is asked for, what comes of it on a CPU, what is refused."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from reference import EXAMPLES

from softprune.config import resolve
from softprune.errors import SoftpruneError
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.fingerprint import fingerprint, same_backbone
from softprune.models.loading import check_placed, check_quantizer
from softprune.training.session import prepare
from softprune.types import Batch

pytestmark = pytest.mark.slow

Asked = dict[str, Any]
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A bitsandbytes that imports and can do nothing."""
    fake = ModuleType("bitsandbytes")
    fake.supported_torch_devices = {"cpu", "cuda"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", fake)
    return fake


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What the last `from_pretrained` was asked for; the model comes whole and unpacked all the same."""
    found: Asked = {}
    real = transformers.AutoModelForCausalLM.from_pretrained

    def load(source: str, **options: Any) -> Any:
        found.clear()
        found.update(options)
        return real(source, **{k: v for k, v in options.items() if k not in ("device_map", "quantization_config")})

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    return found


@pytest.fixture
def gpt2(tiny_models: Callable[[str], Path]) -> str:
    return str(tiny_models("gpt2"))


def batch_of(backbone: Backbone) -> Batch:
    return backbone.batch(backbone.encode(EXAMPLES, 64, 16))


def read(backbone: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and gradients of two random prompts."""
    generator = torch.Generator().manual_seed(3)
    leaf = torch.randn(2, 3, backbone.info.hidden, generator=generator).requires_grad_()
    losses = backbone.losses(leaf, batch_of(backbone), backbone.check_loss("auto"), "sum")
    losses.sum().backward()
    assert leaf.grad is not None
    return losses.detach(), leaf.grad


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def test_nothing_is_asked_for_where_nothing_was(gpt2: str, asked: Asked) -> None:
    load_backbone(gpt2, dtype="float32", device="cpu")
    assert "device_map" not in asked
    assert "quantization_config" not in asked
    assert asked["dtype"] is torch.float32


def test_a_device_map_is_handed_on(gpt2: str, asked: Asked) -> None:
    load_backbone(gpt2, dtype="float32", device_map="balanced_low_0")
    assert asked["device_map"] == "balanced_low_0"
    load_backbone(gpt2, dtype="float32", device_map={"": "cpu"})
    assert asked["device_map"] == {"": "cpu"}


@pytest.mark.parametrize(("bits", "device_map"), [("8bit", "none"), ("4bit", "none"), ("4bit", "auto")])
def test_quantisation_is_asked_for(gpt2: str, asked: Asked, library: ModuleType, bits: str, device_map: str) -> None:
    device = "cpu" if device_map == "none" else "auto"
    load_backbone(gpt2, dtype="bfloat16", device=device, quantization=bits, device_map=device_map)
    config = asked["quantization_config"]
    assert (config.load_in_8bit, config.load_in_4bit) == (bits == "8bit", bits == "4bit")
    # Packed weights can't be moved later: they go to their device while they load.
    assert asked["device_map"] == ({"": torch.device("cpu")} if device_map == "none" else "auto")
    assert asked["dtype"] is torch.bfloat16
    if bits == "4bit":
        assert config.bnb_4bit_quant_type == "nf4"
        assert config.bnb_4bit_compute_dtype is torch.bfloat16


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "bert", "sentence"])
@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_a_mapped_model_reads_the_same(
    name: str, device_map: Any, tiny_models: Callable[[str], Path], backbone_of: Callable[..., Backbone]
) -> None:
    plain = backbone_of(name)
    mapped = load_backbone(str(tiny_models(name)), dtype="float32", device_map=device_map)
    assert mapped.info == plain.info
    for found, wanted in zip(read(mapped), read(plain), strict=True):
        assert torch.equal(found, wanted)
    assert not torch.equal(read(mapped)[0].flip(0), read(plain)[0])
    assert not any(p.requires_grad for p in mapped.model.parameters())


def test_what_contradicts_itself_is_told() -> None:
    with pytest.raises(SoftpruneError, match="not both\nfound:    cpu and auto"):
        load_backbone("tiny", device="cpu", device_map="auto")
    with pytest.raises(SoftpruneError, match='did you mean "balanced"'):
        load_backbone("tiny", device_map="balancd")
    with pytest.raises(SoftpruneError, match='did you mean "4bit"'):
        load_backbone("tiny", quantization="4bits")


def test_both_mistakes_are_told_before_weights_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    recipe = resolve(["backbone.quantization=4bit", "prompt.pieces=7", "task.shots=8"])
    with pytest.raises(SoftpruneError) as caught:
        prepare(recipe, None, None, None)  # type: ignore[arg-type]
    assert "expected: bitsandbytes, for backbone.quantization=4bit" in str(caught.value)
    assert "pip install 'softprune[quantization]'" in str(caught.value)
    assert "prompt.pieces that divide" in str(caught.value)


def test_a_device_that_bitsandbytes_does_not_know(library: ModuleType) -> None:
    library.supported_torch_devices = {"cuda"}  # type: ignore[attr-defined]
    with pytest.raises(SoftpruneError, match="quantises on: cuda\nfound:    cpu\ndo:       set --device cuda"):
        load_backbone("tiny", device="cpu", quantization="8bit")


def test_a_bitsandbytes_that_transformers_refuses(library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ImportError("Using `bitsandbytes` 8-bit quantization requires bitsandbytes>=99")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(SoftpruneError, match="a version of bitsandbytes that transformers accepts"):
        load_backbone("tiny-causal", device="cpu", quantization="8bit")


@pytest.mark.parametrize(
    ("places", "left"),
    [
        ({"": "cpu"}, None),
        ({"a": 0, "b": 1}, None),
        ({"a": 0, "b": "cpu"}, "cpu"),
        ({"a": 0, "b": "cpu", "c": "disk"}, "cpu and disk"),
        ({"a": "cpu", "b": "disk"}, "disk"),
    ],
)
def test_a_part_left_behind_is_refused(places: dict[str, Any], left: str | None) -> None:
    class Placed:
        hf_device_map = places

    if left is None:
        check_placed("model", Placed())
    else:
        with pytest.raises(SoftpruneError, match=f"a part of it on {left}\n"):
            check_placed("model", Placed())


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("bits", "near"), [("8bit", 0.02), ("4bit", 0.15)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_weights_read_nearly_the_same(bits: str, near: float, checkpointing: bool) -> None:
    """bitsandbytes itself, on a CPU."""
    plain = load_backbone("tiny-causal", dtype="float32", device="cpu")
    packed = load_backbone("tiny-causal", dtype="float32", device="cpu", quantization=bits, checkpointing=checkpointing)
    assert (packed.info.quantization, plain.info.quantization) == (bits, None)
    assert (packed.info.dtype, packed.info.parameters) == ("float32", plain.info.parameters)
    assert any(not p.is_floating_point() for p in packed.model.parameters())
    assert not any(p.requires_grad for p in packed.model.parameters())
    losses, gradient = read(packed)
    wanted, wanted_gradient = read(plain)
    assert 0 < distance(losses, wanted) < near
    assert 0 < distance(gradient, wanted_gradient) < 2 * near
    assert distance(losses.flip(0), wanted) > distance(losses, wanted)
    # Another backbone than the unpacked one; the same as itself, loaded again.
    assert not same_backbone(packed.info.fingerprint, plain.info.fingerprint)
    assert fingerprint(packed.model) == packed.info.fingerprint


@pytest.mark.usefixtures("library")
def test_no_kernel_is_asked_for_that_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    check_quantizer("4bit", torch.device("cpu"))
    check_quantizer("4bit", torch.device("cpu"))
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "no kernels")
    logger.warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]
    assert len(logger.filters) == 1
