"""The frozen backbones: four families behind one interface.

`load_backbone` is the way in; `softprune.models.base` says what a backbone can do.
"""

from __future__ import annotations

from softprune.models.description import BUNDLED, FAMILIES, describe
from softprune.models.loading import load_backbone

__all__ = ["BUNDLED", "FAMILIES", "describe", "load_backbone"]
