"""A reader without a model: tokens by a pattern, dropping by a rule, the class by the words that are left."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Sequence

from softprune.token_pruning.token_trace import TokenTrace

Rule = Callable[[str, random.Random], int]
"""From a token's text to the layer after which it leaves."""


def make_trace(
    text: str, pieces: Sequence[tuple[str, int]], layers: int = 3, *, predicted: int = 0, gold: int | None = None,
    state: tuple[float, ...] = (),
) -> TokenTrace:  # fmt: skip
    """A trace of a text whose pieces are found one after the other; special tokens stand around them."""
    offsets, place = [], 0
    for piece, _ in pieces:
        place = text.index(piece, place)
        offsets.append((place, place + len(piece)))
        place += len(piece)
    return TokenTrace(
        text=text,
        offsets=((0, 0), *offsets, (0, 0)),
        special=(True, *(False for _ in pieces), True),
        left=(layers, *(left for _, left in pieces), layers),
        layers=layers,
        predicted=predicted,
        probabilities=(0.9, 0.1) if predicted == 0 else (0.1, 0.9),
        gold=gold,
        state=state,
    )


class FakeReader:
    """Reads words in pieces of up to four characters. Class 1 if a token that says so is kept, else class 0."""

    labels = ("bad", "good")
    layers = 3

    def __init__(self, rule: Rule, says: Collection[str] = ("good",), seed: int = 0) -> None:
        self.rule, self.says, self.seed, self.calls = rule, says, seed, 0

    def trace(
        self,
        texts: Sequence[str],
        golds: Sequence[int | None] | None = None,
        *,
        states: bool = False,
        forced_out: Sequence[Collection[int]] | None = None,
    ) -> list[TokenTrace]:
        self.calls += 1
        answer = []
        for place, text in enumerate(texts):
            generator = random.Random(f"{self.seed} {text}")
            out = forced_out[place] if forced_out else ()
            found = [match.group() for match in re.finditer(r"\w{1,4}|[^\w\s]", text)]
            fates = [self.rule(piece, generator) for piece in found]  # forcing one out changes no other's
            lefts = [1 if at in out else left for at, left in enumerate(fates, start=1)]
            pieces = list(zip(found, lefts, strict=True))
            kept = [piece for piece, left in pieces if left == self.layers]
            predicted = int(any(piece in self.says for piece in kept))
            state = (float(len(kept)), float(predicted), 1.0) if states and kept else ()
            gold = golds[place] if golds else None
            answer.append(make_trace(text, pieces, self.layers, predicted=predicted, gold=gold, state=state))
        return answer


def by_chance(piece: str, generator: random.Random) -> int:
    """Half of the tokens are kept, a quarter leave after layer 1 and a quarter after layer 2."""
    return generator.choice((1, 2, 3, 3))


def prefers(*favoured: str) -> Rule:
    """Those tokens are always kept, of the others one in four."""
    return lambda piece, generator: 3 if piece in favoured else generator.choice((1, 1, 2, 3))


NOUNS = ("cat", "tree", "film", "locomotive", "sea", "cinematography")
OTHERS = ("runs", "green", "slowly", "very", "good", "the", "a", "of", ",", ".")


def made_texts(count: int, seed: int = 0, words: int = 20) -> list[str]:
    """Texts of words at random: where nothing prefers a word, nothing must be found to."""
    generator = random.Random(seed)
    return [" ".join(generator.choice(NOUNS + OTHERS) for _ in range(words)) for _ in range(count)]
