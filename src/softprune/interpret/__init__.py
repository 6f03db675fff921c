"""What a prompt learned: its nearest words, how far it moved, how prompts resemble each other, maps, correlations."""
