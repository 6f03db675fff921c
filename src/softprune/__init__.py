"""Train, prune and understand what a frozen language model reads.

The names below are imported when they are first used, so that `import softprune` costs nothing. What a run does is
logged to the logger `softprune`, which is silent until you configure logging.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softprune.adapters.adapter_io import read_adapter
    from softprune.data import load_task
    from softprune.errors import ManyErrors, SoftpruneError
    from softprune.evaluation.predict import predict
    from softprune.models import load_backbone
    from softprune.pipelines.adapt import adapt
    from softprune.pipelines.xprompt import tune, xprompt
    from softprune.prompts.ticket import Ticket
    from softprune.studies.comparison.runner import compare_methods
    from softprune.studies.runner import run_study

__version__ = "0.2.0"

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
    "Ticket": "softprune.prompts.ticket:Ticket",
    "adapt": "softprune.pipelines.adapt:adapt",
    "compare_methods": "softprune.studies.comparison.runner:compare_methods",
    "load_backbone": "softprune.models:load_backbone",
    "load_task": "softprune.data:load_task",
    "predict": "softprune.evaluation.predict:predict",
    "read_adapter": "softprune.adapters.adapter_io:read_adapter",
    "run_study": "softprune.studies.runner:run_study",
    "tune": "softprune.pipelines.xprompt:tune",
    "xprompt": "softprune.pipelines.xprompt:xprompt",
}


# A library doesn't choose where its messages go; without a handler, Python would print warnings to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value: object = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_PUBLIC))
