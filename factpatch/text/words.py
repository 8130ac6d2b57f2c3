"""The words of a text: what two texts are compared by, so that neither letters inside words nor layout count.

Case, blanks, quotes, brackets and punctuation are no part of a word, and a hyphen or an apostrophe inside one is passed
over ("e-mail" is "email"). What tells words apart stays in them:

    signs       -2 is not 2 (the minus may be typed as U+2212, a dash or a hyphen), 5% not 5, $5 not €5, 20°C not 20 C;
                blanks between a number and its sign do not count
    numbers     3.14, 3:2, 24/7, 1914-1918, 2020-01-31 keep their points and strokes. Commas (or apostrophes) before
                groups of three digits are left out: 1,000 is 1000, but 1.000 is neither, and 3,14 is not 3.14
    names       C++, C#, .NET, A+, AT&T, B-, A*, AC/DC, user@host: symbols (Unicode's category S) and % & # @ * / §; but
                the marks of a sentence never count, so Yahoo! is Yahoo

Full-width and other forms of a letter are that letter, every script's digits are digits, characters that nobody sees
are none. Scripts that write no blanks are compared by characters. Letters that only look alike (a Cyrillic А and a
Latin A) are different.
"""

from __future__ import annotations

import unicodedata

import regex

ARTICLES = frozenset({"a", "an", "the"})  # English; two texts may differ in them and still say the same
SOLID = r"[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}&&[\p{L}\p{N}]]"  # no blanks
_LETTER = r"[\p{L}\p{M}\p{N}]"
_MARK = r"[\p{P}`´--[%‰&#@*/\\§′″]]"  # what words are written with or between, and do not consist of

# Of a mark that is part of a word: a sign before a number, a symbol or a single letter; the charge or grade after one
# letter or two; a point that begins a name or a number; points and strokes inside a number; a line inside a name.
_TELLING = rf"""
    (?<!{_LETTER}|-) - (?= \.?\d | \p{{S}} | \p{{L}}(?!{_LETTER}) )
  | (?<= (?<!{_LETTER}) {_LETTER}{{1,2}} ) - (?! [\w-] )
  | (?<!{_LETTER}|\.) \. (?={_LETTER})
  | (?<=\d) [.,:_-] (?=\d)
  | (?<={_LETTER}) _ (?={_LETTER})
"""
_FLAGS = regex.VERSION1 | regex.VERBOSE
_MARKS = regex.compile(rf"(?={_MARK}) (?: ({_TELLING}) | {_MARK} )", _FLAGS)
_GAP = regex.compile(rf"(?<=\d) (?! [.,:_-]\d ) {_MARK}+? (?=-?\d)", _FLAGS)  # marks that would join two numbers
_DIGIT = regex.compile(r"\d")
_SPAN = regex.compile(r"(?<=\d) (\ ?) \p{Pd} \1 (?=\d)", _FLAGS)
_THOUSANDS = regex.compile(r"(?<![\d.,]) \d{1,3} (?: [,'’]\d{2,3} )* [,'’]\d{3} (?! [,'’]?\d )", _FLAGS)
_UNITS = regex.compile(r"\ ?°\ ? | (?<=\d)\ (?=[%‰\p{Sc}]) | (?<=\p{Sc})\ (?=\d)", _FLAGS)
_EMPHASIS = regex.compile(r"(?<!\w) (\*{1,3}) (?=\S) ([^*]+) (?<=\S) \1 (?!\w)", _FLAGS)  # Markdown's
_JOINT = regex.compile(rf"(?<={_LETTER}) ['’‐‑-] (?={_LETTER}) | [\p{{Ps}}\p{{Pe}}\p{{Pi}}\p{{Pf}}\"]", _FLAGS)
_CHARACTER = regex.compile(rf"{SOLID}\p{{M}}*", _FLAGS)
_UNSEEN = regex.compile(r"[\p{DI}--\p{Block=Tags}]", _FLAGS)  # tags tell the flags of England and Wales apart
_OTHER_FORM = regex.compile(
    r"[\p{Nd}\p{dt=Wide}\p{dt=Narrow}\p{dt=Small}\p{dt=Vertical}\p{dt=Sub}"
    r"\p{dt=Initial}\p{dt=Medial}\p{dt=Final}\p{dt=Isolated}--[0-9]]",
    _FLAGS,
)
_SAME_SIGN = str.maketrans({"−": "-", "–": "-", "‐": "-", "‑": "-", "٫": ".", "٬": ",", "٪": "%"})


def words(text: str) -> tuple[str, ...]:
    """The words of a text, caseless; of a script without blanks, its characters."""
    parts = _parts(_fold(text))
    if not text.isascii():
        parts = [word for part in parts for word in _CHARACTER.sub(r" \g<0> ", part).split()]
    return tuple(parts)


def content_words(text: str) -> tuple[str, ...]:
    """The words of a text without English articles."""
    return tuple(word for word in words(text) if word not in ARTICLES)


def holds(text: str, part: str) -> bool:
    """Do the words of `part` stand in a text, one after the other?

    Lyon stands in "Lyon's" and "Lyon-based" too. Scripts without blanks are searched as text, and so are the ends of
    Korean words, where particles are attached. A single character counts if it stands alone and in its own case: the
    article a is not the answer A, and 北京 does not hold the answer 北.
    """
    own = words(part)
    if not own:
        return False
    if len(own) == 1 and len(own[0]) == 1:
        return not set(_parts(_plain(part))).isdisjoint(_parts(_plain(_JOINT.sub(" ", text))))
    wanted, said = (" ".join(words(_JOINT.sub(" ", side))) for side in (part, text))
    end = "" if regex.search(r"\p{Hangul}{2}$", wanted) else " "
    return f" {wanted}{end}" in f" {said} "


def places(text: str, name: str) -> list[int]:
    """Where a name stands in a text as it is written, not as a part of another word (so never Oman in Romanian)."""
    start = "" if regex.match(SOLID, name, _FLAGS) else rf"(?<!{_LETTER})"
    end = "" if regex.match(rf"{SOLID}|\p{{Hangul}}", name[-1:], _FLAGS) else rf"(?!{_LETTER})"
    pattern = start + regex.escape(name) + end
    return [found.start() for found in regex.finditer(pattern, text, regex.VERSION1)] if name else []


def blanked(text: str, name: str) -> list[str]:
    """The text with {} where the name stands: one for each such place."""
    return [f"{text[:place]}{{}}{text[place + len(name) :]}" for place in places(text, name)]


def is_character(word: str) -> bool:
    """Is this a character of a script that writes no blanks?"""
    return _CHARACTER.fullmatch(word) is not None


def _parts(text: str) -> list[str]:
    """What blanks part, without marks."""
    if text.replace(" ", "").isalnum():
        return text.split()
    text = " ".join(text.split()).translate(_SAME_SIGN)
    if _DIGIT.search(text):
        text = _SPAN.sub("-", text)
        text = _THOUSANDS.sub(lambda found: regex.sub(r"\D", "", found[0]), text)
        text = _GAP.sub(" ", _UNITS.sub(lambda found: found[0].strip(), text))
    if "*" in text:
        text = _EMPHASIS.sub(r"\2", text)
    return _MARKS.sub(r"\1", text).split()


def _fold(text: str) -> str:
    plain = _plain(text).casefold()
    return plain if plain.isascii() else unicodedata.normalize("NFC", plain)


def _plain(text: str) -> str:
    """Every character in its one form, cases apart."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFD", _OTHER_FORM.sub(_one_form, _UNSEEN.sub("", text)))


def _one_form(found: regex.Match[str]) -> str:
    character = found[0]
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return unicodedata.normalize("NFKC", character)
