"""XPrompt: importance, masks, rewinding, search, and the honest comparison."""
