"""Finding, loading and refusing backbones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import EXAMPLES
from safetensors.torch import load_file, save_file

from models import FAMILY
from softprune.errors import SoftpruneError
from softprune.models import describe, load_backbone
from softprune.models.base import Backbone
from softprune.models.fingerprint import fingerprint
from softprune.models.loading import resolve_device, resolve_dtype


@pytest.fixture
def copy_of(tiny_models: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a tiny model that a test may spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(tiny_models(name), tmp_path / name))

    return copy


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_family_is_found_from_the_files(model_name: str, tiny_models: Callable[[str], Path]) -> None:
    described = describe(str(tiny_models(model_name)))
    assert described.family == FAMILY[model_name]
    assert described.hidden == 32
    assert (described.positions is None) == (model_name in ("t5", "t5_v1_1", "mt5", "bloom"))
    assert described.positions in (None, 128)
    assert bool(described.notes) == (model_name == "sentence_bare")


def test_info_states_the_facts(model_name: str, backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of(model_name)
    info = backbone.info
    assert (info.family, info.dtype, info.device, info.hidden) == (FAMILY[model_name], "float32", "cpu", 32)
    assert info.parameters == sum(p.numel() for p in backbone.model.parameters())
    table = backbone.embeddings_VH()
    assert table.shape[1] == info.hidden
    assert table.dtype == torch.float32
    assert not table.requires_grad


def test_a_bare_encoder_is_a_sentence_model_with_a_note(tiny_models: Callable[[str], Path]) -> None:
    (note,) = describe(str(tiny_models("sentence_bare"))).notes
    assert "BertModel is a bare encoder" in note
    assert "mean pooling" in note


@pytest.mark.parametrize(
    ("name", "architectures", "family"),
    [
        ("t5", ["T5WithLMHeadModel"], "seq2seq"),  # t5-11b as released
        ("bart_scaled", ["BartModel"], "seq2seq"),  # bart-base as released
        ("bert", ["BertForPreTraining"], "masked"),
        ("t5", ["T5EncoderModel"], "sentence"),
        ("gpt2", ["GPT2LMHeadModel"], "causal"),
        ("bert", ["Unknown", "BertForMaskedLM"], "masked"),
    ],
)
def test_released_architecture_names(
    copy_of: Callable[[str], Path], name: str, architectures: list[str], family: str
) -> None:
    folder = copy_of(name)
    edit(folder / "config.json", architectures=architectures)
    assert describe(str(folder)).family == family


@pytest.mark.parametrize(
    ("name", "architectures"),
    [("bert", ["BertForSequenceClassification"]), ("gpt2", ["GPT2Model"]), ("bert", None), ("bert", [])],
)
def test_a_family_that_cannot_be_told(
    copy_of: Callable[[str], Path], name: str, architectures: list[str] | None
) -> None:
    folder = copy_of(name)
    edit(folder / "config.json", architectures=architectures)
    with pytest.raises(SoftpruneError, match=r"--family seq2seq .or causal, masked, sentence."):
        describe(str(folder))
    assert describe(str(folder), family="masked").family == "masked"


def test_a_family_by_name(tiny_models: Callable[[str], Path]) -> None:
    assert load_backbone(str(tiny_models("bert")), family="sentence").family == "sentence"
    with pytest.raises(SoftpruneError, match='did you mean "masked"'):
        describe(str(tiny_models("bert")), family="maskd")


def test_missing_backbones_end_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match='did you mean "tiny"'):
        load_backbone("tinny")
    with pytest.raises(SoftpruneError, match="nothing at"):
        load_backbone(str(tmp_path / "nowhere"))
    with pytest.raises(SoftpruneError, match=r"folder with config\.json"):
        load_backbone(str(tmp_path))


def test_a_head_of_random_numbers_is_refused(tiny_models: Callable[[str], Path]) -> None:
    with pytest.raises(SoftpruneError, match=r"lacks \d+ of them \(cls\.predictions"):
        load_backbone(str(tiny_models("sentence_bare")), family="masked")


def test_broken_files_end_in_one_message(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("bert")
    (folder / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(SoftpruneError, match="header too large\ndo:       copy or download the model again"):
        load_backbone(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(SoftpruneError, match=r"weights as safetensors in .*\nfound:    no weights"):
        load_backbone(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(SoftpruneError, match=r"a whole model in .*\nfound:    .*config\.json"):
        load_backbone(str(folder))


def test_pickled_weights_are_not_loaded(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("bert")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SoftpruneError, match="safetensors"):
        load_backbone(str(folder))


@pytest.mark.parametrize("name", ["t5", "gpt2", "bert", "sentence"])
def test_bfloat16(name: str, backbone_of: Callable[..., Backbone]) -> None:
    narrow, wide = backbone_of(name, "bfloat16"), backbone_of(name, "float32")
    assert narrow.info.dtype == "bfloat16"
    assert narrow.prompt_dtype == torch.float32
    prompts = wide.embeddings_VH()[None, 20:23].clone().requires_grad_()
    loss = narrow.check_loss("auto")
    losses = narrow.losses(prompts, narrow.batch(narrow.encode(EXAMPLES, 64, 16)), loss, "sum")
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert losses.isfinite().all()
    assert prompts.grad is not None
    assert prompts.grad.isfinite().all()
    # The same backbone in another dtype, for tickets.
    assert narrow.info.fingerprint == wide.info.fingerprint


def test_fingerprints_tell_backbones_apart(
    copy_of: Callable[[str], Path], backbone_of: Callable[..., Backbone]
) -> None:
    original = backbone_of("bert")
    assert fingerprint(original.model) == original.info.fingerprint
    names = ("bert", "roberta", "distilbert", "sentence", "bart", "bart_scaled", "t5_v1_1", "mt5")
    assert len({backbone_of(name).info.fingerprint for name in names}) == len(names)

    folder = copy_of("bert")
    assert load_backbone(str(folder)).info.fingerprint == original.info.fingerprint
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("layer.0.attention.self.query.weight"))
    weights[name] = weights[name] * 1.1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_backbone(str(folder)).info.fingerprint != original.info.fingerprint


def test_fingerprints_include_a_sentence_models_head(
    copy_of: Callable[[str], Path], backbone_of: Callable[..., Backbone]
) -> None:
    folder = copy_of("sentence")
    edit(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    other = load_backbone(str(folder)).info.fingerprint
    assert other != backbone_of("sentence").info.fingerprint


def test_devices_and_dtypes() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(SoftpruneError, match="a device: auto, cpu"):
        resolve_device("abacus")
    with pytest.raises(SoftpruneError, match="--device cpu"):
        resolve_device("meta")
    assert resolve_dtype("float64", torch.device("cpu")) is torch.float64
    assert resolve_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    with pytest.raises(SoftpruneError, match='did you mean "bfloat16"'):
        resolve_dtype("bfloat", torch.device("cpu"))


def test_released_switches_are_kept(backbone_of: Callable[..., Backbone]) -> None:
    """What the tiny models are for: each exercises another path."""

    def config(name: str) -> Any:
        return backbone_of(name).model.config

    def tied(name: str) -> bool:
        model = backbone_of(name).model
        return model.get_output_embeddings().weight is model.get_input_embeddings().weight

    assert [config(name).scale_decoder_outputs for name in ("t5", "t5_v1_1")] == [True, False]
    assert [tied(name) for name in ("t5", "t5_v1_1", "mt5", "bart", "gpt2", "llama")] == [
        True,
        False,
        False,
        True,
        True,
        False,
    ]
    assert [config(name).scale_embedding for name in ("bart", "bart_scaled")] == [False, True]
    assert backbone_of("bart_scaled").model.final_logits_bias.abs().max() > 0.5
    assert backbone_of("llama").tokenizer.pad_token_id is not None
    assert config("llama").num_key_value_heads < config("llama").num_attention_heads
    scaled = backbone_of("bart_scaled")
    raw = scaled.model.get_input_embeddings().weight
    assert torch.allclose(scaled.embeddings_VH(), raw * 32**0.5)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pegasus", "softprune.models.base.embedding_scale"),
        ("t5", "softprune.models.architectures._scales_decoder_outputs"),
    ],
)
def test_an_architecture_that_would_be_misread_is_refused(
    tiny_models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    """Were a scale unknown to architectures.py, loading would say so instead of scoring nonsense."""
    monkeypatch.setattr(what, lambda _: 3.0 if name == "pegasus" else False)
    with pytest.raises(SoftpruneError, match=r"architectures\.py"):
        load_backbone(str(tiny_models(name)), dtype="float32")


# --- sentence models ---


def test_an_unknown_module_is_an_error(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("sentence")
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.LSTM"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(SoftpruneError, match="LSTM"):
        describe(str(folder))  # before any weight is read


def test_an_encoder_in_a_folder_of_its_own(
    copy_of: Callable[[str], Path], backbone_of: Callable[..., Backbone]
) -> None:
    """The layout of old sentence-transformers: 0_Transformer beside 1_Pooling."""
    folder = copy_of("sentence")
    (folder / "0_Transformer").mkdir()
    for file in [file for file in folder.iterdir() if file.is_file() and file.name != "modules.json"]:
        file.rename(folder / "0_Transformer" / file.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    moved, whole = load_backbone(str(folder), dtype="float32"), backbone_of("sentence")
    assert moved.info.fingerprint == whole.info.fingerprint
    prompts = whole.embeddings_VH()[None, 20:23]
    batch = whole.batch(whole.encode(EXAMPLES, 64, 16))
    assert torch.equal(moved.scores(prompts, batch, "sum"), whole.scores(prompts, batch, "sum"))


def test_a_sentence_model_from_the_hub_keeps_its_head(
    tiny_models: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backbone_of: Callable[..., Backbone],
) -> None:
    """A hub name resolves to the cache; its modules.json is read there as it is in a folder."""
    import transformers.utils.hub

    commit = "0" * 40
    repository = tmp_path / "models--someone--sentences"
    shutil.copytree(tiny_models("sentence"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(transformers.utils.hub.constants, "HF_HUB_CACHE", str(tmp_path))
    there, here = load_backbone("someone/sentences", dtype="float32"), backbone_of("sentence")
    assert there.family == "sentence"
    assert there.info.fingerprint == here.info.fingerprint
    prompts = here.embeddings_VH()[None, 20:23]
    batch = here.batch(here.encode(EXAMPLES, 64, 16))
    assert torch.equal(there.scores(prompts, batch, "sum"), here.scores(prompts, batch, "sum"))


def test_a_slip_of_the_pen_is_told_without_asking_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(SoftpruneError, match='did you mean "tiny"'):
        load_backbone("tinny")
