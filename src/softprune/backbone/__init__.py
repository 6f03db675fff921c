"""The frozen backbones: four families behind one interface.

`load_backbone` is the way in; `softprune.backbone.base` says what a backbone can do.
"""

from __future__ import annotations

from softprune.backbone.load import BUNDLED, FAMILIES, describe, load_backbone

__all__ = ["BUNDLED", "FAMILIES", "describe", "load_backbone"]
