"""When an answer counts as right: where it is cut, how it is normalised, what equals what.

The protocol is the paper's (after "The Mirage of Model Editing"): a greedy answer ends at EOS, after a line or at a
"."; it is right if it equals the target after lower-casing and removing punctuation, articles and extra blanks. Under
that rule a target with a "." inside ("St. Eugenia's Church") can never be reached, so by default "." ends an answer
only where the target holds none. `protocol: paper` keeps the paper's rule.
"""

from __future__ import annotations

import re
import string
import unicodedata
from typing import Literal

Protocol = Literal["default", "paper"]

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def cut(output: str, target: str, protocol: Protocol = "default") -> str:
    """The answer inside a generated text: its first line that is not blank, where the protocol says so up to the first
    "."."""
    line = first_line(output)
    if protocol == "paper" or "." not in target:
        line = line.partition(".")[0]
    return line.strip()


def first_line(output: str) -> str:
    """The first line that is not blank: many base models break the line before they answer."""
    return output.lstrip().partition("\n")[0].rstrip()


def normalise(text: str) -> str:
    """Caseless, composed (NFC), without punctuation and articles, blanks single. May be empty ("?", "The")."""
    caseless = _caseless(text)
    if caseless.isascii():
        kept = caseless.translate(_NO_PUNCTUATION)  # the same, and faster
    else:
        kept = "".join(character for character in caseless if not _is_punctuation(character))
    return " ".join(_ARTICLES.sub(" ", kept).split())


def same(left: str, right: str) -> bool:
    """Exact match of two answers that are cut already.

    Texts that normalise to nothing are compared with their punctuation and articles: "?" is not "!", and not "".
    """
    normal = normalise(left)
    if normal != normalise(right):
        return False
    return bool(normal) or _caseless(left).split() == _caseless(right).split()


def matches(output: str, target: str, protocol: Protocol = "default") -> bool:
    """Does a generated text give the target?"""
    return same(cut(output, target, protocol), target)


def unchanged(before: str, after: str, expected: str, protocol: Protocol = "default") -> bool:
    """Is the answer on a locality probe the one that the model gave before the edit?

    There is no target here, only two outputs, and both are cut alike: as an answer to `expected`, the probe's own
    answer, would be. So a "." inside "St. Louis" is kept on both sides where the probe expects such an answer.
    """
    return same(cut(before, expected, protocol), cut(after, expected, protocol))


def _caseless(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _is_punctuation(character: str) -> bool:
    """Any script's punctuation, and ASCII's symbols (+ < = > ^ ` | ~ $), which the paper's protocol removes too."""
    return character in string.punctuation or unicodedata.category(character).startswith("P")
