"""Sample short texts from a folder of compressed paragraphs: what the bundled models read in training."""

from __future__ import annotations

import lzma
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SENTENCE_END = re.compile(r"(?<=\w\w[.!?])[\"')]*\s+(?=[\"'(A-Z0-9])|(?<= [.!?])\s+")
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+")
OPENINGS = tuple(  # of questions, by what they ask for
    line.split("|")
    for line in (
        "Who is|Who was|Who|Whose|What is the name of|Which man|What woman|Who wrote|Who invented",
        "Where is|Where are|Where did|What country|What city|Which state|In which town|What river",
        "When did|When was|What year|On what day|How long|How old is|What time|In what century",
        "How many|How much|How far is|How fast|What is the number of|What percentage of|How often",
        "What is|What are|What does|What was|What did|Define|What is meant by|What kind of",
        "Why is|Why do|Why did|How do you|How does|How can|What causes|What happens when",
        "Which|Name|What animal|What colour|What food|What book|What game|What word means",
        "What does the abbreviation|What stands for|Is|Are|Can|Does|Did|Should|Would you",
    )
)


def read_lines(path: Path) -> Iterator[str]:
    """Paragraphs of one compressed corpus file."""
    with lzma.open(path, "rt", encoding="utf-8") as handle:
        yield from (line.strip() for line in handle)


def source_texts(files: list[Path], recipe: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Sentences within the word limits, and longer paragraphs, of one source."""
    sentences, paragraphs = [], []
    for line in (line for file in files for line in read_lines(file)):
        if recipe["max_words"] < len(line.split()) <= recipe["long_words"]:
            paragraphs.append(line)
        for sentence in SENTENCE_END.split(line):
            if recipe["min_words"] <= len(sentence.split()) <= recipe["max_words"]:
                sentences.append(sentence)
    return sentences, paragraphs


def phrases(sentences: list[str], counts: Counter[str], number: int, rng: random.Random) -> list[str]:
    """Answer-like texts: half frequent single words, half two- or three-word spans of sentences."""
    frequent = [word for word, _ in counts.most_common() if word[0].isalpha()][:number]
    words = [word for word in frequent if len(word) > 2]
    spans = []
    for sentence in rng.sample(sentences, min(number, len(sentences))):
        tokens, length = sentence.split(), rng.choice((2, 3))
        start = rng.randrange(len(tokens) - length + 1)
        span = " ".join(tokens[start : start + length]).strip(".,;:!?\"'()")
        if re.fullmatch(r"[A-Za-z' /-]+", span):
            spans.append(span)
    return rng.sample(words, min(number // 2, len(words))) + spans[: number // 2]


def made_questions(sentences: list[str], number: int, rng: random.Random) -> list[str]:
    """Questions put together from an opening and two to eight words in a row: few corpora hold many real ones.

    The teacher says what they mean; that few of them make sense doesn't matter to it.
    """
    made = []
    for sentence in rng.choices(sentences, k=number):
        words, length = sentence.split(), rng.randint(2, 8)
        start = rng.randrange(max(1, len(words) - length + 1))
        opening = rng.choice(rng.choice(OPENINGS))
        span = " ".join(words[start : start + length]).strip(".,;:!?\"'()")
        made.append(f"{opening} {span}?")
    return made


def sample_texts(folder: Path, recipe: dict[str, Any], rng: random.Random) -> tuple[list[str], Counter[str]]:
    """Texts balanced over sources, in random order without repeats, then made questions; word counts of the sources."""
    total, weights = recipe["total"], recipe["sources"]
    special = recipe["long_share"] + recipe["question_share"] + recipe["phrase_share"]
    chosen: list[str] = []
    questions: list[str] = []
    long: list[str] = []
    counts: Counter[str] = Counter()
    for source, weight in weights.items():
        sentences, paragraphs = source_texts(sorted(folder.glob(f"{source}_*.txt.xz")), recipe)
        quota = int(1.1 * total * (1 - special) * weight / sum(weights.values()))
        for text in sentences:
            counts.update(WORD.findall(text.lower()))
        chosen += rng.sample(sentences, min(quota, len(sentences)))
        questions += [text for text in sentences if is_question(text)]
        share = int(total * recipe["long_share"] * weight / sum(weights.values()))
        long += rng.sample(paragraphs, min(share, len(paragraphs)))
    chosen += rng.sample(questions, min(int(total * recipe["question_share"]), len(questions))) + long
    chosen += phrases(chosen, counts, int(total * recipe["phrase_share"]), rng)
    unique = list({text.lower(): text for text in chosen}.values())
    rng.shuffle(unique)
    unique = unique[:total]
    return unique + made_questions(unique, recipe["made_questions"], rng), counts


def is_question(text: str) -> bool:
    """Whether it ends with a question mark."""
    return text.rstrip("\"') ").endswith("?")
