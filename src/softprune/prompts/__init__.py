"""Soft prompts: initialise them, hold and mask K of them, exchange them with files."""
