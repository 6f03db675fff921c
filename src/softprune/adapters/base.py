"""What all methods but prompts are to the rest: something that changes how a backbone reads, and can be taken away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from softprune.errors import SoftpruneError
from softprune.models.base import AdapterContext, Backbone

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class AdapterPlan:
    """How a method is set up; plain values, kept beside what was trained."""

    method: str
    tokens: int = 0  # virtual tokens P; 0 where it has none
    rank: int = 8  # of lora and dept
    alpha: int = 16
    longest: int = 0  # of dept: tokens of the longest input, N
    prompts: int = 4  # of smop: how many there are, K
    dropout: float = 0.0
    targets: tuple[str, ...] = ()  # modules that get matrices or scales; empty for peft's own of the architecture
    layers: tuple[int, ...] = ()  # numbers of the layers that get them; empty for all
    hidden: int | None = None  # width of a projection; None for the backbone's own
    untie_head: bool = False  # whether a tied output head is copied and trained (last-layer)


class Adaptation:
    """An adapted backbone: from its making on, every call of the backbone reads with it; `named` is what is trained."""

    offset_names: ClassVar[tuple[str, ...]] = ()
    """Those of `named` whose learning rate is `adapter.offset_lr`."""

    starts: int = 1
    """Prompts that `start_from` takes, one behind another."""

    def __init__(self, backbone: Backbone, named: Mapping[str, nn.Parameter]) -> None:
        self.backbone, self._named = backbone, dict(named)

    def named(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return dict(self._named)

    def stored(self) -> Tensors:
        """What must be kept to serve it, on the CPU: what is trained, or what that makes."""
        return copy_values(self._named)

    def start_from(self, vectors_PH: torch.Tensor) -> None:
        """Begin as a soft prompt would that starts as these vectors; for methods that read `prompt.init`."""
        raise NotImplementedError

    def off(self) -> AbstractContextManager[None]:
        """The backbone as it was before, within the block."""
        return self.backbone.reading_as(AdapterContext())

    def bare(self) -> AbstractContextManager[None]:
        """The backbone taking as long as it did before, within the block; its answers may be others."""
        return self.off()

    def prompts(self) -> torch.Tensor:
        """What is read before every input, `[1, Q, H]`; Q is 0 for methods that don't make a prompt."""
        return self.nothing()

    def nothing(self) -> torch.Tensor:
        """No prompt, `[1, 0, H]`."""
        backbone = self.backbone
        return torch.zeros(1, 0, backbone.info.hidden, dtype=backbone.prompt_dtype, device=backbone.device)

    def peft_config(self) -> dict[str, Any] | None:
        """What peft writes into an adapter's adapter_config.json; None for what is no adapter of peft's."""
        return None

    def train(self, mode: bool) -> None:
        """Switch what is random in training on or off; only some methods draw anything."""


def random_entries(backbone: Backbone, tokens: int, seed: int) -> torch.Tensor:
    """Vectors `[tokens, H]` of any entries of the vocabulary: a prompt's values until `start_from` gives it others."""
    ids = torch.randint(backbone.vocabulary, (tokens,), generator=torch.Generator().manual_seed(seed))
    return backbone.embed_ids(ids.tolist()).to(backbone.device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, what peft draws from the global generator, which the rest of the run must find as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def set_values(named: Mapping[str, nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    """Give parameters other values, in place."""
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(values[name])


def copy_values(named: Mapping[str, nn.Parameter]) -> Tensors:
    """Values of parameters on the CPU."""
    return {name: parameter.detach().to("cpu", copy=True) for name, parameter in named.items()}


def check_tensors(plan: AdapterPlan, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, torch.Tensor]) -> None:
    """Check names and shapes of stored tensors against those that the adapter has on this backbone."""
    there = {name: tuple(t.shape) for name, t in found.items()}
    different = sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))
    if different:
        first, expected = different[0], f"the tensors of a {plan.method} adapter of this backbone"
        shapes = f"{there.get(first, 'none')} for {wanted.get(first, 'none')}"
        do = "copy the adapter again, or load the backbone that it was trained on"
        raise SoftpruneError(expected, f"{len(different)} that differ, such as {first}: {shapes}", do)
