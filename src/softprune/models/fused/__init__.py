"""Frozen layers whose backward passes skip the gradients that nobody needs."""
