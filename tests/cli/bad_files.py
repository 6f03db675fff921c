"""What the mistakes are made over: the files of the working folder, and models spoilt."""

from __future__ import annotations

import json
from pathlib import Path

OFFICIAL = Path(__file__).parents[1] / "fixtures" / "tasks" / "official"

TASK = """
id: mood
version: 1
title: Mood
instruction: Tell the mood of a text.
fields: {text: {shortenable: true}}
template: "{text} . it was {mask}"
answers: [good, bad]
metric: accuracy
sources:
  file:
    format: FORMAT
    files: {train: train.FORMAT, validation: validation.FORMAT}
    labels: {good: good, bad: bad}
"""
ROWS = [
    {"text": f"the {thing} was a {mood} one", "label": mood} for thing in ("film", "meal") for mood in ("good", "bad")
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS)
WRITTEN_TASK = TASK.replace("FORMAT", "jsonl").replace("answers: [good, bad]", "target: label")
WRITTEN_TASK = WRITTEN_TASK.replace("metric: accuracy", "metric: rougeL").partition("    labels")[0]
WIDE = "b,c,d,e,f,g,h,i,j"
JSONL_TASK, CSV_TASK = TASK.replace("FORMAT", "jsonl"), TASK.replace("FORMAT", "csv")

# What stands in every working folder, and must stand there afterwards.
FILES = {
    "mood.yaml": JSONL_TASK,
    "train.jsonl": LINES,
    "validation.jsonl": LINES,
    "quick.yaml": "kind: tune\ntask: {id: mood.yaml}\n",
    "thesis/chapter.txt": "years of work\n",
}
TUNE = "tune --task mood.yaml --backbone <sentence> --out run "
TOKENS_TRAIN = "tokens train --task mood.yaml --backbone <encoder> --max-length 64 --out run "
XPROMPT = "xprompt --task mood.yaml --backbone <sentence> --pieces 4 --out run "


def changed(**files: str | bytes) -> dict[str, str | bytes]:
    """Files whose names end in `_jsonl` for `.jsonl`, and so on."""
    return {name.replace("_", "."): content for name, content in files.items()}


def truncate(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def classifier(model: Path) -> None:
    """The encoder with a random head that chooses one of three classes."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(model, num_labels=3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(model)


def widen_tokenizer(model: Path) -> None:
    """A tokenizer with a word and a padding token that the model has no embeddings for."""
    from transformers import AutoConfig, AutoTokenizer

    tokenizer, rows = AutoTokenizer.from_pretrained(model), AutoConfig.from_pretrained(model).vocab_size
    tokenizer.add_tokens([f"<more{i}>" for i in range(rows - len(tokenizer))])
    tokenizer.add_special_tokens({"pad_token": "<none>"})
    tokenizer.add_tokens(["<user>"])
    tokenizer.save_pretrained(model)


def wordless(model: Path) -> None:
    """A tokenizer that knows its special tokens only, and has none for what it doesn't know."""
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    path.write_text(json.dumps({**tokenizer, "model": {"type": "BPE", "vocab": special, "merges": []}}))


def slow(model: Path) -> None:
    """A tokenizer of bytes, which transformers has in Python alone."""
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')


def pickled(model: Path) -> None:
    """A pickle that would write a file if anything loaded it."""
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch unpickled'\ntR.")


def other_module(model: Path) -> None:
    path = model / "modules.json"
    modules = json.loads(path.read_text())
    modules[1]["type"] = "sentence_transformers.models.LSTM"
    path.write_text(json.dumps(modules))
    (model / "model.safetensors").write_bytes(b"never read")
