"""What counts of a written text, and whether two texts say the same: the last number behind "#### ", say.

A task's `extract` is a regular expression; as for GSM8K (Cobbe et al. 2021), its last match is what a text ends on.
"""

from __future__ import annotations

import re
from decimal import Decimal

# Digits, or groups of three with commas between them, and what follows a point. Decimal takes "1e3" and "nan" too.
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?")


def extract_answer(text: str, pattern: str | None) -> str | None:
    """What counts of a text, its white space squeezed: the whole of it, or what the last match of a pattern found.

    That is the match's first group that took part in it, or the whole match where the pattern has no group. None where
    nothing is found, or nothing but white space.
    """
    if pattern is not None:
        matches = list(re.finditer(pattern, text))
        if not matches:
            return None
        last = matches[-1]
        text = next((group for group in last.groups() if group is not None), last[0])
    return " ".join(text.split()) or None


def comparable(answer: str) -> Decimal | str:
    """An answer as it is compared: a number as one (1,000 and $1000.0. are equal), other text as it is."""
    number = answer.removesuffix(".").replace("$", "").strip()
    if _NUMBER.fullmatch(number) and number.strip("+-"):
        return Decimal(number.replace(",", ""))
    return answer


def is_same_answer(text: str, reference: str, pattern: str | None) -> bool:
    """Whether two texts come to the same answer; False where nothing is found in either."""
    ours, theirs = extract_answer(text, pattern), extract_answer(reference, pattern)
    return ours is not None and theirs is not None and comparable(ours) == comparable(theirs)
