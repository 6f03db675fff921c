"""Which kept words are typical of a class: log-odds with an informative Dirichlet prior.

For word w, class i against all the others j, with y the counts of *kept* words, n their sums, and the prior
`a_w = A f_w / sum f` from the counts f of all words, kept or not (A pseudo-words in all):

    delta_w = log((y_wi + a_w) / (n_i + A - y_wi - a_w)) - log((y_wj + a_w) / (n_j + A - y_wj - a_w))
    z_w     = delta_w / sqrt(1 / (y_wi + a_w) + 1 / (y_wj + a_w))

Source: Monroe, Colaresi and Quinn, Fightin' Words, Political Analysis 16 (2008), equations 16, 20 and 22.
No word is left out: stop words and punctuation are flagged, not removed. A high z says that the word is typical of
the class *among kept words*; whether pruning had a hand in it is seen by its share kept against random dropping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softprune.statistics.bootstrap import Floats
from softprune.token_pruning.analysis.word_table import WordTable


@dataclass(frozen=True, slots=True)
class ClassWord:
    """A word that is typical of a class among kept words."""

    form: str  # in lower case
    z: float  # of its log-odds; above 1.96 it would be clear if it were the only word looked at
    log_odds: float  # class against the other classes
    kept: int  # how often it was kept in texts of the class
    words: int  # how often it is in them
    share: float  # of these kept
    baseline: float  # what random dropping keeps of them
    stop: bool | None  # whether it is a stop word; None without a tagger


def typical_words(
    table: WordTable, labels: Sequence[str], *, top: int = 20, minimum: int = 5, prior: float = 1_000.0
) -> dict[str, list[ClassWord]]:
    """The `top` words with the highest z of each true class, kept `minimum` times in it at least; `prior` is A.

    Classes without a text are left out, and all where only one has any.
    """
    gold_N = table.golds()
    present = [place for place in range(len(labels)) if (gold_N == place).any()]
    if len(present) < 2:
        return {}
    forms, code_W = np.unique(np.array(table.forms, dtype=object), return_inverse=True)
    gold_W = gold_N[table.text_W]

    def count_forms(inside_W: np.ndarray, weights_W: Floats) -> Floats:
        return np.bincount(code_W[inside_W], weights_W[inside_W], minlength=len(forms)).astype(np.float64)

    known_W, ones_W = gold_W >= 0, np.ones_like(table.kept_W)
    all_V = count_forms(known_W, ones_W)
    prior_V, kept_V = prior * all_V / all_V.sum(), count_forms(known_W, table.kept_W)
    stops = {word.text.lower(): word.mark.stop for word in table.flat}
    typical = {}
    for place in present:
        own_W = gold_W == place
        own_V, words_V = count_forms(own_W, table.kept_W), count_forms(own_W, ones_W)
        chance_V = count_forms(own_W, table.chance_kept_W)
        delta_V, z_V = log_odds(own_V, kept_V - own_V, prior_V)
        order = [i for i in np.argsort(-z_V, kind="stable") if own_V[i] >= minimum and z_V[i] > 0][:top]
        typical[labels[place]] = [
            ClassWord(
                form=str(forms[i]),
                z=float(z_V[i]),
                log_odds=float(delta_V[i]),
                kept=int(own_V[i]),
                words=int(words_V[i]),
                share=float(own_V[i] / words_V[i]),
                baseline=float(chance_V[i] / words_V[i]),
                stop=stops[str(forms[i])],
            )
            for i in order
        ]
    return typical


def log_odds(own_V: Floats, other_V: Floats, prior_V: Floats) -> tuple[Floats, Floats]:
    """The log-odds of every word and their z; V words, some of which have neither count nor prior (z is 0)."""
    a_V, b_V = own_V + prior_V, other_V + prior_V
    with np.errstate(divide="ignore", invalid="ignore"):  # of words without count and prior
        delta_V = np.log(a_V / (a_V.sum() - a_V)) - np.log(b_V / (b_V.sum() - b_V))
        z_V = delta_V / np.sqrt(1 / a_V + 1 / b_V)
    return np.nan_to_num(delta_V, posinf=0.0, neginf=0.0), np.nan_to_num(z_V, posinf=0.0, neginf=0.0)
