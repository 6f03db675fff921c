"""Train, prune and understand what a frozen language model reads.

The names below are imported when they are first used, so that `import softprune` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softprune.backbone import load_backbone
    from softprune.compare.api import compare_methods
    from softprune.errors import ManyErrors, SoftpruneError
    from softprune.methods.api import adapt
    from softprune.methods.saved import read_adapter
    from softprune.pruning.api import tune, xprompt
    from softprune.pruning.predict import predict
    from softprune.pruning.ticket import Ticket
    from softprune.study.api import run_study
    from softprune.tasks import load_task

__version__ = "0.1.0"

__all__ = [
    "ManyErrors",
    "SoftpruneError",
    "Ticket",
    "__version__",
    "adapt",
    "compare_methods",
    "load_backbone",
    "load_task",
    "predict",
    "read_adapter",
    "run_study",
    "tune",
    "xprompt",
]

_PUBLIC = {
    "ManyErrors": "softprune.errors:ManyErrors",
    "SoftpruneError": "softprune.errors:SoftpruneError",
    "Ticket": "softprune.pruning.ticket:Ticket",
    "adapt": "softprune.methods.api:adapt",
    "compare_methods": "softprune.compare.api:compare_methods",
    "load_backbone": "softprune.backbone:load_backbone",
    "load_task": "softprune.tasks:load_task",
    "predict": "softprune.pruning.predict:predict",
    "read_adapter": "softprune.methods.saved:read_adapter",
    "run_study": "softprune.study.api:run_study",
    "tune": "softprune.pruning.api:tune",
    "xprompt": "softprune.pruning.api:xprompt",
}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value: object = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_PUBLIC))
