"""When an answer counts as right: where it is cut, how it is normalised, what equals what.

A greedy answer is the first line that is not blank; it ends at EOS, with the line or where a sentence ends, and is
right if it has the target's words (`factpatch/text/words.py` says what a word is), without an article before them. A
"." ends a sentence unless a letter or a digit follows (3.14, example.com), and so do the full stops of other scripts
(。！？।۔), but no answer to a target that holds such an end itself ("St. Louis").

`protocol: paper` keeps the rule of "The Mirage of Model Editing": cut at every ".", lower case, no punctuation,
articles or extra blanks. Under it a target with a "." inside can never be reached, and -2 is 2, C++ is C, 0% is 0.
"""

from __future__ import annotations

import re
import string
import unicodedata
from typing import Literal

import regex

from factpatch.text.words import ARTICLES, words

Protocol = Literal["default", "paper"]

UNSURE = 2  # words at the end of a text that what follows may still change ("1914 –" to "1914-1918")

_SENTENCE_END = regex.compile(r"[\p{Sentence_Terminal}--[!-~．]]|[.．](?![\p{L}\p{N}])", regex.VERSION1)
_LEADING_ARTICLE = regex.compile(r"\W*(?:a|an|the)\s", regex.IGNORECASE)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def cut(output: str, target: str, protocol: Protocol = "default") -> str:
    """The answer inside a generated text: its first line that is not blank and, where the protocol says so, up to the
    first "." or end of a sentence."""
    line = first_line(output)
    if protocol == "paper":
        line = line.partition(".")[0]
    elif not _SENTENCE_END.search(target):
        line = _SENTENCE_END.split(line, 1)[0]
    return line.strip()


def first_line(output: str) -> str:
    """The first line that is not blank: many base models break the line before they answer."""
    return output.lstrip().partition("\n")[0].rstrip()


def normalise(text: str, protocol: Protocol = "default") -> str:
    """The words of an answer, one blank between them; may be empty ("?").

    An article before them is left out, but not a name that is one, or begins with one: "A", "The The", "A, B and C".
    """
    if protocol == "paper":
        return _normalise_as_the_paper(text)
    found = words(text)
    if len(found) > 1 and found[0] in ARTICLES and _LEADING_ARTICLE.match(text):
        begins = len(found[1]) > 1 or found[1].isdecimal()
        found = found[1:] if begins and found[1] not in ARTICLES else found
    return " ".join(found)


def same(left: str, right: str, protocol: Protocol = "default") -> bool:
    """Exact match of two answers that are cut already.

    Texts that normalise to nothing are compared with their punctuation and articles: "?" is not "!", and not "".
    """
    normal = normalise(left, protocol)
    if normal != normalise(right, protocol):
        return False
    return bool(normal) or _caseless(left).split() == _caseless(right).split()


def matches(output: str, target: str, protocol: Protocol = "default") -> bool:
    """Does a generated text give the target?"""
    return same(cut(output, target, protocol), target, protocol)


def unchanged(before: str, after: str, expected: str, protocol: Protocol = "default") -> bool:
    """Is the answer on a locality probe the one that the model gave before the edit?

    There is no target here, only two outputs, and both are cut alike: as an answer to `expected`, the probe's own
    answer, would be. So a "." inside "St. Louis" is kept on both sides where the probe expects such an answer.
    """
    return same(cut(before, expected, protocol), cut(after, expected, protocol), protocol)


def same_content(before: str, after: str, expected: str, protocol: Protocol = "default") -> bool:
    """Does one of two answers begin the other, word by word? An answer that stops sooner or goes on longer keeps its
    content. Both are cut as in `unchanged`; one without a word begins nothing."""
    left, right = (normalise(cut(text, expected, protocol), protocol).split() for text in (before, after))
    shorter = min(len(left), len(right))
    return unchanged(before, after, expected, protocol) or (shorter > 0 and left[:shorter] == right[:shorter])


def settled(text: str, wanted: str, expected: str, protocol: Protocol = "default") -> bool:
    """Whether decoding may stop early: whatever follows this beginning of an answer, it is decided whether it is the
    answer `wanted`, and whether one of the two begins the other. Both are cut as an answer to `expected` would be.

    That is so where a sentence has ended, or the words differ, or there are more of them; the last words do not count.
    """
    line = first_line(text)
    if protocol == "paper":
        if "." in line:
            return True
    elif not _SENTENCE_END.search(expected):
        end = _SENTENCE_END.search(line)
        if end and end.end() < len(line):  # a "." at the very end may be a number's
            return True
    if "*" in line:  # emphasis may end anywhere, and only then is no part of the words
        return False
    said, right = (normalise(part, protocol).split() for part in (line, wanted))
    if len(said) <= UNSURE + 1:  # an article before a word that may change
        return False
    said = said[:-UNSURE]
    return said != right[: len(said)]


def _normalise_as_the_paper(text: str) -> str:
    """Caseless, composed (NFC), without punctuation and articles, blanks single."""
    caseless = _caseless(text)
    if caseless.isascii():
        kept = caseless.translate(_NO_PUNCTUATION)  # the same, and faster
    else:
        kept = "".join(character for character in caseless if not _is_punctuation(character))
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _caseless(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _is_punctuation(character: str) -> bool:
    """Any script's punctuation, and ASCII's symbols (+ < = > ^ ` | ~ $), which the paper's protocol removes too."""
    return character in string.punctuation or unicodedata.category(character).startswith("P")
