"""Training: what can be trained, how it is optimised, the one loop, how prompts are scored."""
