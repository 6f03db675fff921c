"""The folder that a run leaves behind, and what executes its work. Knows nothing of models or tasks."""
