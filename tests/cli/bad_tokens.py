"""The mistakes of token pruning. To add one, add an entry."""

from __future__ import annotations

import shutil
from pathlib import Path

import bad_files as spoilt
from bad_files import LINES, OFFICIAL, TOKENS_TRAIN, changed
from bad_input import case


def widened_classifier(model: Path) -> None:
    spoilt.classifier(model)
    spoilt.widen_tokenizer(model)


TOKENS = [
    case(
        "token pruning of GPT-2",
        TOKENS_TRAIN + "--backbone <gpt2>",
        ("an encoder whose tokens can be pruned: bert", "gpt2", "softprune xprompt"),
    ),
    case(
        "token pruning of T5",
        TOKENS_TRAIN + "--backbone <t5>",
        ("an encoder whose tokens can be pruned: bert", "t5", "softprune xprompt"),
    ),
    case(
        "texts beyond the positions",
        TOKENS_TRAIN + "--max-length 129",
        ("task.max_length of at most 128", "129", "--max-length 128"),
    ),
    case(
        "an encoder with a slow tokenizer",
        TOKENS_TRAIN + "--backbone model",
        ("a fast tokenizer", "a slow one in model", "tokenizer.json"),
        prepare=lambda folder, models: spoilt.slow(shutil.copytree(models("encoder"), folder / "model")),
    ),
    case(
        "an empty text",
        TOKENS_TRAIN,
        ("text in every example", "none in row 4", "leave that row out"),
        files=changed(train_jsonl=LINES + '{"text": " ", "label": "good"}\n'),
    ),
    case(
        "an unknown label for token pruning",
        TOKENS_TRAIN,
        ("a label out of good, bad", "train.jsonl, line 5", "correct the label"),
        files=changed(train_jsonl=LINES + '{"text": "x", "label": "so"}\n'),
    ),
    case(
        "classes that each example has its own of",
        "tokens train --backbone <encoder> --task copa --data copa --max-length 64 --out run",
        ("the same classes for every text", "answers that depend on the example", "another task"),
        prepare=lambda folder, _: shutil.copytree(OFFICIAL / "copa", folder / "copa"),
    ),
    case("a price of nought", TOKENS_TRAIN + "--lambdas 0", ("pruning.lambdas: different numbers above 0", "0", "set")),
    case(
        "a price below nought", TOKENS_TRAIN + "--lambdas 0.1,-1", ("pruning.lambdas: different", "'0.1,-1'", "prices")
    ),
    case(
        "a baseline misspelt",
        TOKENS_TRAIN + "--baselines top-k,randm",
        ("a known value of pruning.baselines", '"randm"', 'did you mean "random"?'),
    ),
    case(
        "a key of prompts for token pruning",
        TOKENS_TRAIN + "prompt.tokens=3 pruning.lambda=1",
        ("a known key of pruning", '"lambda"', 'did you mean "lambdas"?'),
        ("a known key of a recipe", '"prompt"', "available"),
        header="2 mistakes in the flags",
    ),
    case("a flag of prompts", "tokens train --tokens 3", ("softprune tokens train [OPTIONS]", "--tokens", "--help")),
    case(
        "a recipe of tokens for a prompt",
        "xprompt --recipe ltp",
        ("of kind xprompt or tune", "tokens in ltp", "run ltp"),
    ),
    case(
        "a recipe of prompts for tokens",
        "tokens train --recipe demo",
        ("of kind tokens", "xprompt in demo", "run demo"),
    ),
    case("a plan of token pruning", "plan ltp", ("of kind xprompt or tune", "tokens in ltp", "run ltp")),
    case(
        "a run of another kind",
        TOKENS_TRAIN + "--out done",
        ("the recipe that done was begun with", "kind: tune there, tokens now", "such as --out done-2"),
    ),
    case(
        "a word without an embedding, in training",
        TOKENS_TRAIN + "--backbone model",
        ("tokens that the model has embeddings for", ", in row 4", "resize the model's embeddings"),
        files=changed(train_jsonl=LINES + '{"text": "a <user> was there", "label": "good"}\n'),
        prepare=lambda folder, models: spoilt.widen_tokenizer(shutil.copytree(models("encoder"), folder / "model")),
    ),
    case(
        "a word without an embedding, in a row to classify",
        "tokens predict model --input rows.jsonl",
        ("tokens that the model has embeddings for", "in rows.jsonl, line 2", "resize"),
        files=changed(rows_jsonl='{"text": "a"}\n{"text": "a <user> was there"}\n'),
        prepare=lambda folder, models: widened_classifier(shutil.copytree(models("encoder"), folder / "model")),
    ),
    case(
        "an encoder's weights cut off",
        TOKENS_TRAIN + "--backbone model",
        ("a whole model in model", "SafetensorError", "copy or download the model again"),
        prepare=lambda folder, models: spoilt.truncate(shutil.copytree(models("encoder"), folder / "model")),
    ),
    case(
        "rows for a prompt's model",
        "tokens predict done --input train.jsonl",
        ("a model of softprune tokens train", "a run of kind tune", "softprune predict done"),
    ),
    case(
        "rows without a text",
        "tokens predict model --input rows.jsonl --text words",
        ('a column "words"', "its columns are text", "available: text"),
        files=changed(rows_jsonl='{"text": "a"}\n'),
        prepare=lambda folder, models: spoilt.classifier(shutil.copytree(models("encoder"), folder / "model")),
    ),
]
