"""Train a small part-of-speech tagger for `softprune tokens analyse`, on CPU.

    python scripts/train_tagger.py --output runs/tagger
    python scripts/train_tagger.py --output runs/tagger --data FOLDER --epochs 8 --seed 0

reads `en_ewt-ud-{train,dev,test}.conllu.xz` (UD English EWT; CC BY-SA 4.0, so neither the data nor what is trained on
it belongs into this repository) from `tagged/` in the folder that SOFTPRUNE_DATA names, and writes a spaCy pipeline
(`spacy.load` takes the folder). Its accuracy on the test file is in `meta.json` under `performance`:

    pos_acc       share of the treebank's words that get their universal tag, the treebank's own words given
    pos_f_raw     F1 of words and tags from raw text: spaCy splits the text, a word counts if both its ends and its tag
                  are right (as UPOS is scored in Zeman et al., CoNLL 2018 shared task)
    words_f_raw   F1 of the splitting alone: no tag can be right where the ends are wrong

Expect 0.948 of `pos_acc` and 0.925 of `pos_f_raw` after 3 minutes on one core of a 2-core machine (8 epochs, seed 0).
`--quick` trains two epochs on any CoNLL-U files, for tests.
"""

from __future__ import annotations

import argparse
import lzma
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam, fix_random_seed, warmup_linear

ROWS = {"NORM": 5000, "PREFIX": 1000, "SUFFIX": 2500, "SHAPE": 2500}
"""What it sees of a word, and the rows that each is hashed into: the word, its first letter, its last three, Xxxx."""
WIDTH, DEPTH, DROPOUT, STEP, WARM = 96, 4, 0.2, 2e-3, 200
BATCH = 32  # sentences


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a treebank.

    Attributes:
        text: as it was written.
        words, tags: its syntactic words and their universal tags.
        spaces: whether a space follows each word.
    """

    text: str
    words: list[str]
    tags: list[str]
    spaces: list[bool]


def read_conllu(path: Path) -> list[Sentence]:
    """All sentences of a CoNLL-U file, plain or xz."""
    data = path.read_bytes()
    text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8")
    return [_sentence(block.split("\n")) for block in text.replace("\r\n", "\n").split("\n\n") if block.strip()]


def _sentence(lines: Sequence[str]) -> Sentence:
    words, tags, spaces, last_of_group, group_spaced = [], [], [], 0, True
    for row in (line.split("\t") for line in lines if line and not line.startswith("#")):
        spaced = "SpaceAfter=No" not in row[9]
        if "-" in row[0]:  # "3-4 don't": its words follow, and the space after it is said here
            last_of_group, group_spaced = int(row[0].split("-")[1]), spaced
        elif "." not in row[0]:  # "8.1" is an elided word, which nobody wrote
            place = int(row[0])
            inside = place <= last_of_group
            words.append(row[1])
            tags.append(row[3])
            spaces.append((place == last_of_group and group_spaced) if inside else spaced)
    text = next((line[9:] for line in lines if line.startswith("# text = ")), "")
    return Sentence(text, words, tags, spaces)


def new_tagger(labels: Sequence[str]) -> Language:
    """An untrained English pipeline of one component: hashed features, a small CNN, universal tags."""
    nlp = spacy.blank("en")
    embed = {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": WIDTH,
        "attrs": list(ROWS),
        "rows": list(ROWS.values()),
        "include_static_vectors": False,
    }
    encode = {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": WIDTH,
        "depth": DEPTH,
        "window_size": 1,
        "maxout_pieces": 3,
    }
    tok2vec = {"@architectures": "spacy.Tok2Vec.v2", "embed": embed, "encode": encode}
    model = {"@architectures": "spacy.Tagger.v2", "tok2vec": tok2vec, "nO": None, "normalize": False}
    # The morphologizer writes `token.pos_`; a tagger would write `token.tag_` and need a map to universal tags.
    component: Any = nlp.add_pipe("morphologizer", config={"model": model})
    for label in labels:
        component.add_label(f"POS={label}")
    return nlp


def examples(nlp: Language, sentences: Sequence[Sentence]) -> list[Example]:
    """Training examples, the treebank's words given."""
    made = []
    for sentence in sentences:
        gold = Doc(nlp.vocab, words=sentence.words, spaces=sentence.spaces, pos=sentence.tags)
        made.append(Example(Doc(nlp.vocab, words=sentence.words, spaces=sentence.spaces), gold))
    return made


def given_accuracy(nlp: Language, sentences: Sequence[Sentence]) -> float:
    """Share of words with the right tag, the treebank's words given."""
    docs = nlp.pipe(Doc(nlp.vocab, words=sentence.words, spaces=sentence.spaces) for sentence in sentences)
    pairs = [
        (token.pos_, tag)
        for doc, sentence in zip(docs, sentences, strict=True)
        for token, tag in zip(doc, sentence.tags, strict=True)
    ]
    return sum(found == tag for found, tag in pairs) / len(pairs)


def raw_f1(nlp: Language, sentences: Sequence[Sentence]) -> tuple[float, float]:
    """F1 of words alone, and of words with their tags, from the raw text of each sentence."""
    shared_words = shared_tags = found_count = gold_count = 0
    texts = ["".join(w + " " * s for w, s in zip(x.words, x.spaces, strict=True)) for x in sentences]
    for doc, sentence in zip(nlp.pipe(texts), sentences, strict=True):
        found = {(t.idx, t.idx + len(t)): t.pos_ for t in doc if not t.is_space}
        gold = dict(_spans(sentence))
        both = found.keys() & gold.keys()
        shared_words += len(both)
        shared_tags += sum(found[span] == gold[span] for span in both)
        found_count, gold_count = found_count + len(found), gold_count + len(gold)
    total = found_count + gold_count
    return 2 * shared_words / total, 2 * shared_tags / total


def _spans(sentence: Sentence) -> Iterator[tuple[tuple[int, int], str]]:
    start = 0
    for word, tag, space in zip(sentence.words, sentence.tags, sentence.spaces, strict=True):
        yield (start, start + len(word)), tag
        start += len(word) + space


def train(nlp: Language, training: Sequence[Sentence], dev: Sequence[Sentence], epochs: int, seed: int) -> float:
    """Train in place; the epoch that is best on dev is kept.

    Returns:
        Its accuracy on dev.
    """
    made = examples(nlp, training)
    nlp.initialize(lambda: made[:100])
    steps = epochs * -(-len(made) // BATCH)
    # The step size falls to nought, so that the last epochs settle.
    falling: Any = warmup_linear(STEP, min(WARM, steps // 10), steps + 1)
    optimiser = Adam(learn_rate=falling, L2=0.01, grad_clip=1.0)
    generator, best, weights = random.Random(seed), -1.0, b""
    for epoch in range(epochs):
        start, losses = time.perf_counter(), dict[str, float]()
        generator.shuffle(made)
        for first in range(0, len(made), BATCH):
            nlp.update(made[first : first + BATCH], sgd=optimiser, drop=DROPOUT, losses=losses)
            optimiser.step_schedules()
        score = given_accuracy(nlp, dev)
        minutes = (time.perf_counter() - start) / 60
        print(f"epoch {epoch + 1} of {epochs}: loss {losses['morphologizer']:.0f}, dev {score:.4f}, {minutes:.1f} min")
        if score > best:
            best, weights = score, nlp.to_bytes()
    nlp.from_bytes(weights)
    return best


def write(nlp: Language, folder: Path) -> None:
    """The pipeline's folder, whole or not at all; an earlier one is replaced."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    folder.parent.mkdir(parents=True, exist_ok=True)
    nlp.to_disk(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a part-of-speech tagger on UD English EWT.")
    data = Path(os.environ.get("SOFTPRUNE_DATA", ".")) / "tagged"
    parser.add_argument("--output", type=Path, required=True, help="folder of the pipeline")
    parser.add_argument("--data", type=Path, default=data, help="folder of the three files [SOFTPRUNE_DATA/tagged]")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="two epochs: for tests")
    return parser.parse_args()


def main() -> int:
    """Train, score, write."""
    asked = arguments()
    found = {part: sorted(asked.data.glob(f"*-{part}.conllu*")) for part in ("train", "dev", "test")}
    if missing := [part for part, paths in found.items() if not paths]:
        print(f"train_tagger: no file *-{missing[0]}.conllu or .conllu.xz in {asked.data}; name its folder with --data")
        return 2
    training, dev, test = (read_conllu(paths[0]) for paths in found.values())
    start = time.perf_counter()
    random.seed(asked.seed)
    fix_random_seed(asked.seed)
    nlp = new_tagger(sorted({tag for sentence in training for tag in sentence.tags}))
    best = train(nlp, training, dev, 2 if asked.quick else asked.epochs, asked.seed)
    words_f, tags_f = raw_f1(nlp, test)
    accuracy, count = given_accuracy(nlp, test), sum(len(sentence.words) for sentence in test)
    nlp.meta["name"] = "universal_tagger"
    nlp.meta["description"] = f"Universal parts of speech, trained on {found['train'][0].name}"
    nlp.meta["performance"] = {
        "pos_acc": accuracy,
        "pos_f_raw": tags_f,
        "words_f_raw": words_f,
        "pos_acc_dev": best,
        "test_words": count,
        "test_file": found["test"][0].name,
    }
    write(nlp, asked.output)
    given, raw = f"{accuracy:.4f} of {count:,} words right, words given", f"F1 {tags_f:.4f} (words {words_f:.4f})"
    print(f"test: {given}; from raw text {raw}")
    print(f"{asked.output} written after {(time.perf_counter() - start) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
