"""Compare sentence encoders on three classification tasks, zero-shot and with a linear classifier.

    python scripts/evaluate_sentence.py ENCODER [ENCODER ...] --data DATA

ENCODER is a folder or hub name in sentence-transformers layout: Transformer, mean Pooling, optional Dense,
Normalize. Axes: N texts, C classes, E embedding width.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from distil_student import mean_pool
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

Embedder = Callable[[list[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class Task:
    """Texts with class indices, and one name per class for the zero-shot test."""

    name: str
    names: list[str]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]


def json_rows(path: Path, field: str, classes: list[str]) -> list[tuple[str, int]]:
    """Text and class index of each line; `field` holds the class."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["text"], classes.index(str(row[field]))) for row in rows]


def csv_rows(path: Path) -> list[tuple[str, int]]:
    """Title with description and class index of each AG News article."""
    with path.open(encoding="utf-8", newline="") as handle:
        return [(f"{title}. {text}", int(label) - 1) for label, title, text in csv.reader(handle)]


def load_tasks(data: Path) -> list[Task]:
    """The three tasks."""
    news, trec, films = data / "ag_news", data / "trec", data / "sentence_polarity"
    kinds = {"ABBR": "abbreviation", "DESC": "description", "ENTY": "entity", "HUM": "person"}
    kinds |= {"LOC": "location", "NUM": "number"}
    verdicts = {"negative": "terrible", "positive": "great"}
    splits = [json_rows(trec / f"{part}.jsonl", "coarse", list(kinds)) for part in ("train", "test")]
    names = [name.strip() for name in (news / "classes.txt").read_text().splitlines() if name.strip()]
    polarity = [json_rows(films / f"{part}.jsonl", "label", list(verdicts)) for part in ("train", "validation")]
    return [
        Task("AG News", names, csv_rows(news / "train.csv"), csv_rows(news / "test.csv")),
        Task("TREC", list(kinds.values()), splits[0], splits[1]),
        Task("sentence polarity", list(verdicts.values()), polarity[0], polarity[1]),
    ]


def load_embedder(source: str) -> Embedder:
    """A function from N texts to unit-length embeddings [N, E]."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModel.from_pretrained(source, dtype=torch.float32).eval()
    file = Path(source) / "2_Dense" / "model.safetensors"
    dense = {name: value.float() for name, value in load_file(file).items()} if file.exists() else None

    @torch.inference_mode()
    def embed(texts: list[str]) -> NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out: list[Tensor] = [torch.empty(0)] * len(texts)
        for start in range(0, len(order), 64):
            chosen = order[start : start + 64]
            batch = tokenizer([texts[i] for i in chosen], truncation=True, max_length=256, padding=True)
            ids, mask = torch.tensor(batch["input_ids"]), torch.tensor(batch["attention_mask"])
            pooled = mean_pool(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
            if dense:
                pooled = functional.linear(pooled, dense["linear.weight"], dense["linear.bias"])
            for index, vector in zip(chosen, functional.normalize(pooled, dim=-1), strict=True):
                out[index] = vector
        found: NDArray[np.float32] = torch.stack(out).numpy()
        return found

    return embed


def accuracies(task: Task, embed: Embedder, limit: int) -> tuple[float, float]:
    """Zero-shot accuracy and that of logistic regression on the first `limit` training texts."""
    texts, labels = zip(*task.test, strict=True)
    test_NE, names_CE = embed(list(texts)), embed(task.names)
    zero_shot = float((np.argmax(test_NE @ names_CE.T, axis=1) == np.array(labels)).mean())
    texts, seen = zip(*task.train[:limit], strict=True)
    classifier = LogisticRegression(C=10.0, max_iter=2000).fit(embed(list(texts)), seen)
    return zero_shot, float(classifier.score(test_NE, labels))


def main() -> None:
    """Print one JSON line per encoder and task."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("encoders", nargs="+")
    parser.add_argument("--data", type=Path, default=os.environ.get("SOFTPRUNE_DATA"))
    parser.add_argument("--limit", type=int, default=2000, help="training texts of the linear classifier")
    args = parser.parse_args()
    for encoder in args.encoders:
        embed = load_embedder(encoder)
        for task in load_tasks(Path(args.data)):
            zero_shot, linear = accuracies(task, embed, args.limit)
            result = {"task": task.name, "zero_shot": round(zero_shot, 3), "linear": round(linear, 3)}
            print(json.dumps({"encoder": Path(encoder).name, **result}), flush=True)


if __name__ == "__main__":
    main()
