"""Ways to adapt a frozen model: prompts of our own, and their rivals through peft, on the same loop and data."""
