"""Texts as they should be: one spelling of each letter, ordinary blanks, and no characters that nobody sees.

Two rows that look alike must be alike, or a contradiction goes unseen. So letters are composed (NFC), no-break and
other odd blanks become ordinary ones, line ends become one kind, and invisible characters are removed, but where they
carry meaning: joiners in Arabic, Indic and like scripts and between emoji, variation selectors after emoji, symbols and
ideographs, and the tags of flags. Letters that only look like others (confusables) are left as they are.

What cannot be mended makes a text unfit: control characters, overrides of the writing direction and other format
controls, private-use and unassigned characters, and U+FFFD, which stands where decoding failed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import regex

_FLAGS = regex.VERSION1 | regex.VERBOSE
_SIMPLE = (
    r"\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}\p{Georgian}\p{Hebrew}\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}"
    r"\p{Common}\p{Inherited}"
)
_JOINING = rf"[[\p{{L}}\p{{M}}]--[{_SIMPLE}]]"  # a letter of a script in which joiners change what is written
_SELECTOR = r"[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
_MEANT = rf"""
    (?<={_JOINING}\p{{M}}*) [\u200c\u200d] | [\u200c\u200d] (?={_JOINING})
  | (?<=\p{{ExtPict}}[\ufe0f\p{{EMod}}]*) \u200d (?=\p{{ExtPict}})
  | (?<=[[\p{{Emoji}}\p{{S}}\p{{Han}}]--[0-9\#*]]) {_SELECTOR} | (?<=[0-9\#*]) \ufe0f (?=\u20e3)
  | (?<=\p{{Mongolian}}) [\u180b-\u180d\u180f]
  | (?<=\U0001f3f4[\U000e0020-\U000e007e]*) [\U000e0020-\U000e007f]
"""
_KEPT = r"[\u115f\u1160\u17b4\u17b5\u202a-\u202e\u2066-\u206f\U000e0000-\U000e0fff]"  # letters' parts, or unfit
_ODD = regex.compile(
    rf"(?:{_MEANT})(*SKIP)(*FAIL) | (?P<line>\r\n?|[\u2028\u2029]) | (?P<blank>[\p{{Zs}}--\ ])"
    rf"| [\p{{DI}}--{_KEPT}] | {_SELECTOR}",
    _FLAGS,
)
_UNFIT = regex.compile(
    rf"(?:{_MEANT})(*SKIP)(*FAIL) | [[\p{{Cf}}\p{{Co}}\p{{Cn}}\p{{Cc}}\ufffd]--[\p{{PCM}}\t\n\r]]", _FLAGS
)
_ASCII_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # the same among ASCII characters
_UNNAMED = {"Cc": "control character", "Co": "private-use character", "Cn": "unassigned character"}


def tidy_text(text: str) -> tuple[str, list[str]]:
    """The text with its odd characters mended, and what these were; blanks at its ends are removed without a word."""
    text = text.strip()
    if text.isascii() and "\r" not in text:
        return text, []
    composed, found = _compose(text)
    odd = [match[0][0] for match in _ODD.finditer(composed)]
    if odd:
        composed, more = _compose(_ODD.sub(_mend, composed).strip())
        found += odd + more
    return composed, [shown_characters(character) for character in dict.fromkeys(found)]


def tidy_texts(texts: Iterable[str]) -> list[str]:
    """Texts with odd blanks and characters mended."""
    return [tidy_text(text)[0] for text in texts]


def unfit(text: str, line_ends: bool = True) -> str | None:
    """The first character that no edit may hold, as it is shown; without `line_ends`, line ends and tabs count too."""
    found = (_ASCII_CONTROL if text.isascii() else _UNFIT).search(text)
    if found is None and not line_ends:
        found = re.search(r"[\t\n\r]", text)
    return shown_characters(found[0]) if found else None


def shown_characters(character: str) -> str:
    """A character by number and name, as it may not be seen itself."""
    kind = _UNNAMED.get(unicodedata.category(character), "character")
    name = {"\n": "line end", "\r": "carriage return", "\t": "tab"}.get(character)
    return f"U+{ord(character):04X} {name or unicodedata.name(character, kind).lower()}"


def visible(text: str) -> str:
    """The text with its unfit characters written out, so that none of them turns or hides what stands beside it."""
    return _UNFIT.sub(lambda match: f"[{shown_characters(match[0])}]", text)


def _compose(text: str) -> tuple[str, list[str]]:
    """The text in NFC, and the characters that are no longer in it."""
    if unicodedata.is_normalized("NFC", text):
        return text, []
    composed = unicodedata.normalize("NFC", text)
    gone = sorted(character for character in set(text) - set(composed) if not character.isascii())
    return composed, gone or [next(character for character in text if not character.isascii())]


def _mend(match: regex.Match[str]) -> str:
    return "\n" if match["line"] else " " if match["blank"] else ""
