"""Settings explained to a reader who didn't make the run, each where the page first names it."""

from __future__ import annotations

REMOVAL = {
    "drop": "pruned tokens are taken out of the sequence (removal: drop)",
    "zero": "pruned tokens and pieces are multiplied by zero and keep their place in the sequence (removal: zero)",
}
OBJECTIVE = {
    "one_se": "the smallest ticket within one standard error of the best on select",
    "best": "the best on select",
    "smallest_within": "the smallest ticket within a fixed distance of the best on select",
}
START = {
    "vocabulary": "embeddings of common words",
    "uniform": "random numbers",
    "text": "embeddings of a text's words",
    "labels": "embeddings of the answers",
    "file": "a saved prompt",
}
SETTINGS = {
    "loss": "loss",
    "score": "score of an answer",
    "match": "answers found by",
    "lr": "step size",
    "max_length": "longest input, tokens",
    "max_answer_length": "longest text written, tokens",
}
DIRECTIONS = {
    "gained": "▲ only the winner is right",
    "lost": "▼ only the control is right",
    "neither": "both are wrong",
}
WRITTEN_DIRECTIONS = {
    "gained": "▲ the winner shares more",
    "lost": "▼ the control shares more",
    "neither": "both share as much",
}
VALUES = {
    ("loss", "rank"): "cross-entropy over the answers' scores",
    ("loss", "likelihood"): "negative log-likelihood of the right answer",
    ("match", "score"): "the answer that scores highest",
    ("match", "generate"): "what the model writes",
}
"""By setting and value."""
WRITTEN_VALUES = {("loss", "likelihood"): "negative log-likelihood per token of the text to be written"}
"""The same where texts are written."""
