"""The encoding of a text file: by its mark, UTF-8 where all of it is, else by a detector that must be sure.

A file is looked at as a whole, as one byte in its last row may be what tells.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import chardet

from factpatch.errors import InputError

Opener = Callable[[], AbstractContextManager[BinaryIO]]

CHUNK_BYTES = 1 << 17  # bytes read at a time
ZEROS = 20  # one byte in so many is a zero: this is no text of bytes
WORD_SAMPLE = 60  # words for the detector, which is slow, beside those with a byte that stands nowhere else
OFTEN = 3  # so many words with each byte
LONG = 200  # bytes; longer lines are taken apart
LEAST_CONFIDENCE = 0.3  # the least confidence that is believed
AHEAD = 0.03  # by so much it must exceed that in an encoding in which the text reads otherwise
COMMON = 0.05  # confidence given to Windows-1252, which most programs write
TODAY = 0.02  # confidence given to the others that today's programs write
DOUBT = 0.2  # confidence taken from an encoding in which a sign stands inside a word
WRONG = 0.2  # so many bytes beyond ASCII may be wrong in an encoding before it is no longer thought of
CHARACTERS_PER_ERROR = 0.5  # so many characters of UTF-8 to one wrong byte do not come about by chance

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_CODECS = {"UTF-8": "utf-8-sig", "Shift_JIS": "cp932", "EUC-KR": "cp949"}  # no mark in the text; Windows' supersets
_TODAY = ("Windows-1252", "Windows-1250", "Windows-", "GB18030", "Big5", "Shift_JIS", "EUC-KR", "EUC-JP")
_TRIED = chardet.EncodingEra.ALL & ~chardet.EncodingEra.MAINFRAME
_ASCII = bytes(range(128))
_TWO_READ_AS_ONE = re.compile("[ÂÃ][^\x00-\x7f]|â€")  # UTF-8 read as Windows-1252
_SIGN_IN_WORD = re.compile(r"[^\W\d_][¹³¼½¾¿¡¬±§¶¯¨´¸£¥¢©®°«»][^\W\d_]")
_BETWEEN = re.compile(rb'[\x00-\x1f",;]+')  # what parts cells; these bytes are a part of no other character


def codec(encoding: str) -> str:
    """Python's codec for an encoding's name."""
    return _CODECS.get(encoding, encoding)


def find_encoding(path: Path, open_file: Opener) -> str:
    """The name of the encoding that all of a text file is in.

    Raises InputError, with how to convert the file, where the detector is not sure or bytes stand for no character.
    """
    with open_file() as file:
        head = file.read(CHUNK_BYTES)
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if marked is None and head.count(0) * ZEROS > len(head):
        raise InputError(f"'{path}' is not UTF-8 but seems UTF-16 without its mark; save it anew, as UTF-8")
    wrong = _first_wrong(open_file, codec(marked or "UTF-8"))
    if wrong is None:
        return marked or "UTF-8"
    if marked:
        raise InputError(f"'{path}' begins as {marked} text, which {wrong} is not; is the file whole?")
    sample = _sample(open_file)
    found = [] if _is_mixed(sample) else _detect(sample)
    convert = f"iconv -f {found[0].upper()} -t UTF-8" if found else ""
    if not found or _TWO_READ_AS_ONE.search(sample.decode(codec(found[0]), "replace")):
        raise InputError(f"'{path}' is not UTF-8 text, by {wrong}, nor all in another encoding; correct it there")
    if len(found) > 1:
        other = f"{found[0]} or {found[1]}"
        raise InputError(f"'{path}' is not UTF-8 text, by {wrong}, but {other}; convert it, as with '{convert}'")
    if _is_all(sample, codec(found[0])):
        return found[0]
    wrong = _first_wrong(open_file, codec(found[0]))
    if wrong is not None:
        line = f"'{path}' seems {found[0]} text, but {wrong} is not; correct it, or drop it by '{convert} -c'"
        raise InputError(line)
    return found[0]


def _first_wrong(open_file: Opener, name: str) -> str | None:
    """Where the bytes of a file are no text in an encoding, in words; None if all are."""
    decoder = codecs.getincrementaldecoder(name)()
    line, chunk = 1, b"more"
    with open_file() as file:
        while chunk:
            chunk = file.read(CHUNK_BYTES)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                return f"byte 0x{error.object[error.start]:02X} in line {line}"
            line += chunk.count(b"\n")
    return None


def _sample(open_file: Opener) -> bytes:
    """Some different lines beyond ASCII, so that every such byte of the file is there, and a few times if it can be."""
    seen: Counter[int] = Counter()
    words: dict[bytes, None] = {}
    known, left = _ASCII, b""
    with open_file() as file:
        while chunk := file.read(CHUNK_BYTES):
            left += chunk
            end = _last_end(left) or len(left) // CHUNK_BYTES * CHUNK_BYTES
            if left.translate(None, known):
                for word in _words(left[:end]):
                    rare = set(word.translate(None, known))
                    if rare and word not in words:
                        words[word] = None
                        seen.update(rare)
                        enough = 1 if len(words) > WORD_SAMPLE else OFTEN
                        known = _ASCII + bytes(byte for byte, count in seen.items() if count >= enough)
            left = left[end:]
    words.update((word, None) for word in _words(left) if word.translate(None, known))
    return b"\n".join(words)


def _words(text: bytes) -> Iterator[bytes]:
    """Lines that hold more than ASCII; of long ones the cells that do, of long cells the words, of long words parts."""
    for line in _not_ascii(text.splitlines()):
        for cell in (line,) if len(line) <= LONG else _not_ascii(_BETWEEN.split(line)):
            for word in (cell,) if len(cell) <= LONG else _not_ascii(cell.split()):
                yield from (word[at : at + LONG] for at in range(0, len(word), LONG))


def _not_ascii(texts: Iterable[bytes]) -> Iterator[bytes]:
    return (text for text in texts if not text.isascii())


def _last_end(text: bytes) -> int:
    """Where the last whole line ends; in text without lines, where the last whole cell does."""
    return text.rfind(b"\n") + 1 or max(text.rfind(end) for end in (b'"', b",", b";")) + 1


def _is_all(sample: bytes, name: str) -> bool:
    """Whether a sample that holds every byte of a file shows that all of it is in an encoding of single bytes."""
    try:
        return len(sample.decode(name)) == len(sample)
    except UnicodeDecodeError:
        return False


def _is_mixed(sample: bytes) -> bool:
    """Whether more characters are right as UTF-8 than come about by chance in another encoding."""
    read = sample.decode(errors="surrogateescape")
    stray = sum("\udc80" <= char <= "\udcff" for char in read)
    return sum(not char.isascii() for char in read) - stray > CHARACTERS_PER_ERROR * stray


def _detect(sample: bytes) -> list[str]:
    """The encoding that the detector believes in; where it is not sure, also a rival in which the text reads otherwise.

    The list is empty if the text is unlikely in every encoding.
    """
    trust: dict[str, float] = {}  # by how the sample reads
    names: dict[str, set[str]] = {}
    for guess in chardet.detect_all(sample, ignore_threshold=True, encoding_era=_TRIED):
        name = str(guess["encoding"]).replace("WINDOWS", "Windows").replace("SHIFT", "Shift")
        try:
            text = sample.decode(codec(name), errors="replace")
        except LookupError:
            continue
        if not any(map(_is_unlikely, text)) and text.count("\ufffd") <= WRONG * sum(
            not char.isascii() for char in text
        ):
            confidence = guess["confidence"] + _likelihood(name) - DOUBT * (_SIGN_IN_WORD.search(text) is not None)
            trust[text] = max(trust.get(text, 0), confidence)
            names.setdefault(text, set()).add(name)
    best = sorted(trust, key=trust.__getitem__, reverse=True)[:2]
    if len(best) == 2 and trust[best[0]] >= LEAST_CONFIDENCE and trust[best[0]] - trust[best[1]] >= AHEAD:
        best.pop()
    return [_usual(names[text]) for text in best]


def _likelihood(name: str) -> float:
    return COMMON if name == _TODAY[0] else TODAY if name.startswith(_TODAY) else 0


def _usual(names: set[str]) -> str:
    """Of several names of encodings in which a text reads the same, the one that programs write most."""
    return min(names, key=lambda name: (next((n for n, c in enumerate(_TODAY) if name.startswith(c)), 99), name))


def _is_unlikely(char: str) -> bool:
    """A control character, one not in use, a piece of a frame, a sign of old keyboards: facts are written in others."""
    return (
        (unicodedata.category(char) in ("Cc", "Cn", "Co") and char not in "\t\r\n")
        or "\u2500" <= char <= "\u259f"
        or char in "¤¦"
    )
