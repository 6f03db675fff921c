"""Learned token pruning (Kim et al. 2022): encoders that read only what matters.

The axes of `softprune.types`, and two more: M, the tokens of a batch laid end to end without padding, and C, classes.
"""
