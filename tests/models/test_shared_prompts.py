"""A prompt in front of several rows is read once, and answers share a text: neither changes a number or a gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_architectures as tiny
import torch
from gradients import gap

from softprune.models import load_backbone
from softprune.models.base import AdapterContext, Backbone, repeat_rows
from softprune.models.batching import collate
from softprune.models.causal import PACKED, CausalBackbone
from softprune.types import Batch, Encoded

TOLERANCE = 1e-5
TEXTS = ((41, 33, 29, 52, 47, 38, 44), (36, 55, 31))
ANSWERS = ((61,), (63, 66), (63, 70, 71))
NOT_SHARED = (
    *("bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "lfm2", "mamba", "mamba2", "minimax"),
    *("nemotron_h", "qwen3_5_text", "qwen3_next", "recurrent_gemma", "rwkv"),
    *("gemma3n_text", "gemma4_text E2B"),
)
"""They keep a state between calls, not keys and values; or look up a second embedding of every token."""
READ = [name for name in tiny.CAUSAL if name != "xlnet"]  # refused: it sees what follows
AUDIBLE = {"granite": {"embedding_multiplier": 1.0, "residual_multiplier": 1.0}}
"""What lets a random layer's output count, where its own multipliers don't."""


def load(folder: Path, name: str, **changes: Any) -> CausalBackbone:
    built = str(tiny.build(folder, "causal", name, **AUDIBLE.get(name, {}), **changes))
    backbone = load_backbone(built, family="causal", dtype="float32", device="cpu")
    assert isinstance(backbone, CausalBackbone)
    return backbone


def batch_for(backbone: Backbone) -> Batch:
    return collate([Encoded(text, -1, ANSWERS, 0) for text in TEXTS], pad_id=9, device=backbone.device)


def prompts_for(backbone: Backbone) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, backbone.info.hidden, generator=generator).requires_grad_()


def scored(
    backbone: Backbone, prompts_KPH: torch.Tensor, counts: list[int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    sums = backbone.shared_sums(prompts_KPH, batch_for(backbone), counts)
    (gradient,) = torch.autograd.grad(sums.sum(), prompts_KPH)
    return sums.detach(), gradient


def read_apart(backbone: CausalBackbone, patch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Every prompt and text once for each answer."""
    with patch.context() as context:
        context.setattr(backbone, "shares_prompts", False)
        context.setattr("softprune.models.causal.PACKED", ())
        return scored(backbone, prompts_for(backbone))


def lengths_read(backbone: Backbone) -> list[tuple[int, int]]:
    """Rows and positions of each call of the trunk, from now on."""
    calls: list[tuple[int, int]] = []

    def note(_module: object, _args: object, named: dict[str, torch.Tensor]) -> None:
        rows, length = named["inputs_embeds"].shape[:2]
        calls.append((rows, length))

    backbone.model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_every_decoder_reads_prompts_once_with_the_same_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows are shorter than the texts, so where there are any the answers don't share a text."""
    backbone = load(tmp_path, name)
    assert backbone.shares_prompts == (name not in NOT_SHARED)
    wanted, wanted_gradient = read_apart(backbone, monkeypatch)
    found, gradient = scored(backbone, prompts_for(backbone))
    assert gap(found, wanted) <= TOLERANCE
    assert gap(gradient, wanted_gradient) <= TOLERANCE
    # The controls: the prompts change places, or one loses a token.
    turned, turned_gradient = scored(backbone, prompts_for(backbone).detach().flip(0).requires_grad_())
    assert gap(turned, wanted) > 30 * TOLERANCE
    assert gap(turned_gradient, wanted_gradient) > 30 * TOLERANCE
    shorter, _ = scored(backbone, prompts_for(backbone)[:, 1:])
    assert gap(shorter, wanted) > 30 * TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PACKED if name in tiny.CAUSAL])
def test_answers_share_a_text_within_the_window(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load(tmp_path, name, window=16)
    wanted, wanted_gradient = read_apart(backbone, monkeypatch)
    calls = lengths_read(backbone)
    found, gradient = scored(backbone, prompts_for(backbone))
    stems, longest = 3, 2
    assert calls == [(2, 3), (4, len(TEXTS[0]) + stems * longest)]
    assert gap(found, wanted) <= TOLERANCE
    assert gap(gradient, wanted_gradient) <= TOLERANCE
    # The control: answers that see each other.
    monkeypatch.setattr("softprune.models.causal.sees_packed", see_all_before)
    wrong, _ = scored(backbone, prompts_for(backbone))
    assert gap(wrong, wanted) > 30 * TOLERANCE


def see_all_before(text: int, stems: int, width: int, _device: torch.device) -> torch.Tensor:
    length = text + stems * width
    return torch.ones(length, length, dtype=torch.bool).tril()


def test_packed_model_types_are_among_the_tiny_ones() -> None:
    assert set(PACKED) <= set(tiny.CAUSAL)


def test_beyond_the_window_answers_are_read_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed answer is further from the text than it says, and a window counts places."""
    backbone = load(tmp_path, "gemma3_text", window=11)
    calls = lengths_read(backbone)
    scored(backbone, prompts_for(backbone))
    assert calls[-1][0] == 2 * len(TEXTS) * len(ANSWERS)
    wanted, _ = read_apart(backbone, monkeypatch)
    monkeypatch.setattr(CausalBackbone, "_fits_packed", lambda *_: True)
    wrong, _ = scored(backbone, prompts_for(backbone))
    assert gap(wrong, wanted) > 30 * TOLERANCE


@pytest.fixture
def backbone(backbone_of: Callable[..., Backbone]) -> CausalBackbone:
    found = backbone_of("llama")
    assert isinstance(found, CausalBackbone)
    return found


@pytest.mark.parametrize("counts", [[2, 2], [3, 1], [4, 0]])
def test_prompts_in_front_of_different_numbers_of_rows(
    backbone: CausalBackbone, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backbone.shares_prompts
    found, gradient = scored(backbone, prompts_for(backbone), counts)
    monkeypatch.setattr(backbone, "shares_prompts", False)
    wanted, wanted_gradient = scored(backbone, prompts_for(backbone), counts)
    assert gap(found, wanted) <= TOLERANCE
    assert gap(gradient, wanted_gradient) <= TOLERANCE
    others, _ = scored(backbone, prompts_for(backbone), [1, 3])
    assert gap(others, wanted) > 30 * TOLERANCE


def test_each_row_keeps_a_gradient_of_its_own_where_prompts_are_not_shared(backbone: CausalBackbone) -> None:
    """Importance by leave-one-out and by gradient reads a leaf for each example, equal as their values are."""
    rows_BPH = repeat_rows(prompts_for(backbone)[:1], [2]).detach().requires_grad_()
    sums = backbone.answer_sums(rows_BPH, batch_for(backbone))
    (gradient,) = torch.autograd.grad(sums.sum(), rows_BPH)
    assert gap(gradient[0], gradient[1]) > 1e-3


def test_one_row_a_prompt_a_place_in_the_text_and_adapters_are_read_as_before(backbone: CausalBackbone) -> None:
    prompts, batch = prompts_for(backbone), batch_for(backbone)
    assert backbone._can_share(prompts, 4, batch)
    assert not backbone._can_share(prompts, 2, batch)
    assert not backbone._can_share(prompts[:, :0], 4, batch)
    placed = collate([Encoded(text, -1, ANSWERS, 0, place=1) for text in TEXTS], 9, backbone.device)
    assert not backbone._can_share(prompts, 4, placed)
    empty = collate([Encoded((), -1, ANSWERS, 0), Encoded(TEXTS[1], -1, ANSWERS, 0)], 9, backbone.device)
    assert not backbone._can_share(prompts, 4, empty)
    with backbone.reading_as(AdapterContext(has_weights=True)):
        assert not backbone._can_share(prompts, 4, batch)


def test_angles_that_depend_on_the_length_are_not_shared(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert not load(tmp_path, "llama", rope_parameters=rope).shares_prompts
