"""Text models inside wrappers, and what stands beside a token's vector: what test_zoo.py doesn't ask of every row."""

from __future__ import annotations

from pathlib import Path

import check_architectures as script
import pytest
import tiny_architectures as tiny
import torch
import transformers
from safetensors import safe_open

from softprune.errors import SoftpruneError
from softprune.models import describe, load_backbone


@pytest.mark.parametrize("name", tiny.WRAPPERS)
def test_only_the_text_model_is_loaded(name: str, tmp_path: Path) -> None:
    case = script.load("wrapper", name, tmp_path)
    model, whole = case.backbone.model, case.plain.model
    assert case.backbone.family == "causal"
    assert not [part for part, _ in model.named_modules() if "vision" in part or "visual" in part]
    alone = transformers.AutoModelForCausalLM.from_config(model.config)
    assert case.backbone.info.parameters == alone.num_parameters() < whole.num_parameters()
    with safe_open(tmp_path / "model.safetensors", "pt") as file:  # what isn't read is really in the file
        assert [key for key in file.keys() if "vision" in key or "visual" in key]  # noqa: SIM118 - no mapping
    script.check_tuning(case)
    script.check_generation(case)


def test_what_a_description_says_of_a_wrapper(tmp_path: Path) -> None:
    described = describe(str(tiny.build(tmp_path, "wrapper", "gemma3")))
    assert (described.family, described.hidden, described.positions) == ("causal", 32, 128)
    assert described.config.model_type == "gemma3_text"
    assert described.notes == ('the text model of a "gemma3"; the rest of it (vision) is not loaded',)


def test_a_wrapper_is_no_encoder(tmp_path: Path) -> None:
    folder = str(tiny.build(tmp_path, "wrapper", "gemma3"))
    with pytest.raises(SoftpruneError, match="gemma3"):
        load_backbone(folder, family="masked", dtype="float32", device="cpu")


# --- a second embedding of every token, for each layer ---


@pytest.mark.parametrize("name", ["gemma3n_text", "gemma4_text E2B"])
def test_a_soft_vector_has_the_layers_embedding_of_padding(name: str, tmp_path: Path) -> None:
    """The control: with another embedding of padding, losses are others; with another of a prompt's ids they aren't."""
    case = script.load("causal", name, tmp_path)
    (table,) = [part for where, part in case.backbone.model.named_modules() if where.endswith("embed_tokens_per_layer")]
    with torch.no_grad():
        before = case.losses(case.prompt(), case.texts())
        table.weight[list(tiny.PROMPT)] += 1
        assert torch.equal(case.losses(case.prompt(), case.texts()), before)
        noise = torch.randn(table.weight.shape[1], generator=torch.Generator().manual_seed(0))
        table.weight[case.backbone.model.config.pad_token_id] += 100 * noise
        assert script.difference(case.losses(case.prompt(), case.texts()), before) > script.TOLERANCE


def test_generation_forgets_them_after_its_first_step(tmp_path: Path) -> None:
    """Three texts of other lengths behind other prompts, each as it is alone."""
    case = script.load("causal", "gemma4_text E2B", tmp_path)
    backbone = case.backbone
    texts = [script.Text(ids, ((61,),), 0) for ids in ((41, 33, 29, 52, 47), (36, 55, 31), (61, 60, 59, 58))]
    prompts_BPH = torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(0)) * 3
    together = backbone.generate(prompts_BPH, case.batch(texts), 6)
    alone = [backbone.generate(prompts_BPH[i], case.batch([texts[i]]), 6)[0] for i in range(3)]
    assert together == alone
    assert len(set(together)) == 3


# --- T5Gemma ---


def test_a_prompt_goes_to_t5gemma_s_encoder(tmp_path: Path) -> None:
    """Whose vectors have another size than the decoder's."""
    parts = tiny.SEQ2SEQ["t5gemma"]
    encoder = {**parts["encoder"], "hidden_size": 48, "intermediate_size": 64}
    decoder = {**parts["decoder"], "cross_attention_hidden_size": 48}
    folder = tiny.build(tmp_path, "seq2seq", "t5gemma", encoder=encoder, decoder=decoder)
    backbone = load_backbone(str(folder), dtype="float32", device="cpu")
    assert (backbone.family, backbone.info.hidden, backbone.info.positions) == ("seq2seq", 48, 128)


# --- encoders that mix neighbours ---


def test_mobilebert_sees_no_padding_beside_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script.check_tuning(script.load("masked", "mobilebert", tmp_path / "right"))
    monkeypatch.setattr("softprune.models.base.MIXES_NEIGHBOURS", ())
    with pytest.raises(SoftpruneError, match='"mobilebert", which differs by'):
        script.load("masked", "mobilebert", tmp_path / "wrong")
