"""Frozen layers whose backward passes skip gradients that aren't needed."""
