"""An adapter's folder: what was trained, and what it takes to read with it anywhere else; and as peft writes it.

adapter.json          method, setup, backbone, task
adapter.safetensors   what serving needs, by name
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from softprune.adapters.base import AdapterPlan
from softprune.adapters.p_tuning import STORED as VECTORS
from softprune.adapters.prefix import STORED
from softprune.adapters.registry import METHODS, restore
from softprune.config.adapter_schema import KEYS_VALUES
from softprune.data.definition import Definition
from softprune.data.definition_loading import check_definition
from softprune.errors import SoftpruneError
from softprune.models import FAMILIES, load_backbone
from softprune.models.base import Backbone
from softprune.models.fingerprint import same_backbone
from softprune.prompts.prompt_io import CONFIG, TASK_TYPES, WEIGHTS, adapter_files, check_reading
from softprune.prompts.ticket import UNREADABLE, describe, read_fields
from softprune.runs.atomic_io import json_text, tensor_bytes, write_bytes, write_folder
from softprune.runs.tensor_files import read_tensors

FOLDER = "adapter"
"""Of an adapter in a run's folder."""
DOCUMENT, TENSORS = "adapter.json", "adapter.safetensors"
SCHEMA = 1
_OLDER = "a version before 0.2 left out the shape of its keys and values, which peft asks for: train it again"
_PREFIX = "peft lays out a prefix otherwise for encoder-decoders, and has no task for encoders that embed or fill masks"
_WHY_NOT = {
    "full": "all weights were trained: there is nothing beside them",
    "last-layer": "weights of the model itself were trained",
    "p-tuning": "peft puts a prompt before CLS, softprune after it",
    "dept": "peft has no place for an offset of the input's embeddings",
    "smop": "peft has no place for a router that gives each input a prompt of its own",
    **dict.fromkeys(KEYS_VALUES, _PREFIX),
}


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What an adapter belongs to."""

    backbone: str  # the model that it was trained on
    revision: str | None
    family: str
    fingerprint: str
    task: str
    score: str  # how answers are scored
    match: str
    max_answer_length: int
    max_length: int  # longest input in tokens
    hidden: int  # H
    prompt_tokens: int  # positions of the model that it uses before the input
    select: float | None  # the metric on `select`
    # What the backbone does with a token beside looking up its vector, as in `TicketInfo`.
    embedding_scale: float = 1.0
    has_layer_embeddings: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class SavedAdapter:
    """An adapter as it is served."""

    plan: AdapterPlan
    info: AdapterInfo
    definition: Definition  # the task's, so that new rows are read as those of training were
    tensors: dict[str, torch.Tensor]
    peft: dict[str, Any] | None = None  # peft's adapter_config.json; None for what is no adapter of peft's

    def __repr__(self) -> str:
        return f"SavedAdapter({self.plan.method} for {self.info.task}, of {self.info.backbone})"

    def prompt(self) -> torch.Tensor:
        """What is read before every input, `[Q, H]`; Q is 0 for methods that don't make a prompt."""
        return self.tensors[VECTORS] if VECTORS in self.tensors else torch.zeros(0, self.info.hidden)

    def check(self, backbone: Backbone) -> None:
        """Check that a backbone has the weights that the adapter was trained on, and reads with it."""
        self._check_weights(backbone)
        if backbone.adapter.saved is not self:
            found = "another adapter's" if backbone.adapter.saved else f"{backbone.info.name} without it"
            do = "pass what adapter.load() gives"
            raise SoftpruneError("the backbone that reads with this adapter", found, do)

    def _check_weights(self, backbone: Backbone) -> None:
        info, there = self.info, backbone.info
        if not same_backbone(there.fingerprint, info.fingerprint):
            expected = f"the backbone that the adapter was trained on, {info.backbone} (weights {info.fingerprint})"
            do = f"load {info.backbone}, or train an adapter on {there.name}"
            raise SoftpruneError(expected, f"{there.name} (weights {there.fingerprint})", do)

    def load(self, **options: Any) -> Backbone:
        """The backbone, reading with this adapter; `options` of `load_backbone` replace what the adapter says."""
        info = self.info
        backbone = load_backbone(**{"name": info.backbone, "family": info.family, "revision": info.revision, **options})
        self._check_weights(backbone)
        backbone.keep_answers(self.definition.fixed_answers)  # as they were in training: before the adapter is put in
        restore(backbone, self.plan, self.tensors)
        backbone.adapter = replace(backbone.adapter, saved=self)
        return backbone

    def save(self, folder: str | Path) -> None:
        """Write its two files; the document last, since there is no adapter without it."""
        folder = Path(folder)
        document = {
            "schema": SCHEMA,
            "plan": asdict(self.plan),
            **asdict(self.info),
            "peft": self.peft,
            "definition": self.definition.model_dump(mode="json"),
        }
        write_bytes(folder / TENSORS, tensor_bytes(self.tensors, {"schema": str(SCHEMA)}))
        write_bytes(folder / DOCUMENT, (json_text(document, indent=2) + "\n").encode())


def holds_adapter(folder: str | Path) -> bool:
    """Whether a folder is an adapter's, or a run's that left one."""
    folder = Path(folder)
    return (folder / DOCUMENT).is_file() or (folder / FOLDER / DOCUMENT).is_file()


def read_adapter(folder: str | Path) -> SavedAdapter:
    """The adapter of a folder, or of a run's folder; nothing in it is believed before it is checked.

    Raises:
        SoftpruneError: where there is none, or not a whole one.
    """
    folder = Path(folder)
    place = folder if (folder / DOCUMENT).is_file() else folder / FOLDER
    try:
        document = json.loads((place / DOCUMENT).read_text(encoding="utf-8"))
        if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
            raise ValueError(f"no document of schema {SCHEMA}")
        plan: AdapterPlan = read_fields(AdapterPlan, document["plan"], later={"longest", "prompts"})
        info: AdapterInfo = read_fields(AdapterInfo, document, later={"embedding_scale", "has_layer_embeddings"})
        if plan.method not in METHODS or info.family not in FAMILIES:
            raise ValueError(f"an unknown method or family: {plan.method}, {info.family}")
        definition = check_definition(document["definition"], place / DOCUMENT)
        tensors = read_tensors(place / TENSORS)
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
                raise ValueError(f"numbers in {name} that aren't finite, or are {tensor.dtype}")
    except UNREADABLE as error:
        raise SoftpruneError(f"a whole adapter in {folder}", describe(error), "copy or train it again") from error
    peft = document.get("peft")
    return SavedAdapter(plan, info, definition, tensors, peft if isinstance(peft, dict) else None)


def export_adapter(adapter: SavedAdapter, folder: str | Path) -> tuple[str, ...]:
    """Write an adapter as peft does into a new or empty folder, whole or not at all; returns the names of its files.

    A SoftpruneError for methods and families that peft has no place for, and for a folder that holds something.
    """
    info, method = adapter.info, adapter.plan.method
    is_prefix = method in KEYS_VALUES
    use = "use it with softprune predict, or softprune.read_adapter(FOLDER).load() in Python"
    if method == "p-tuning" and info.family in TASK_TYPES:
        chat = adapter.definition.conversation
        try:
            check_reading(info.backbone, info.embedding_scale, info.has_layer_embeddings)
            files = adapter_files(adapter.tensors[VECTORS], info.backbone, info.family, chat)
        except SoftpruneError as error:  # its advice is for tickets, which have another format
            raise SoftpruneError(error.expected, error.found, use) from error
    elif adapter.peft is not None:
        config = adapter.peft | {
            "base_model_name_or_path": info.backbone,
            "inference_mode": True,
            "task_type": TASK_TYPES.get(info.family),
        }
        if is_prefix:
            tensors = {"prompt_embeddings": adapter.tensors[STORED].float()}
        else:  # peft keeps numbers under the name of the module, without the adapter's own
            tensors = {f"base_model.model.{name.replace('.default', '')}": t for name, t in adapter.tensors.items()}
        weights = tensor_bytes(tensors, {"format": "pt"})
        files = {CONFIG: (json_text(config, indent=2) + "\n").encode(), WEIGHTS: weights}
    else:
        raise SoftpruneError(
            "an adapter of lora or ia3, of p-tuning for a seq2seq or causal backbone, or of keys and values for a "
            "causal one, to be written as peft's",
            f"one of {method}: {_OLDER if is_prefix and info.family == 'causal' else _WHY_NOT[method]}",
            use,
        )
    write_folder(Path(folder), files)
    return tuple(files)
