"""The frozen backbones: four families behind one interface.

`load_backbone` is the way in; `softprune.models.base` says what a backbone can do.
"""

from __future__ import annotations

from softprune.models.description import FAMILIES, describe
from softprune.models.load_errors import BUNDLED
from softprune.models.loading import load_backbone

__all__ = ["BUNDLED", "FAMILIES", "describe", "load_backbone"]
