"""Whether a blank stands between a prompt and what continues it: by their scripts and punctuation, not by a model.

`benchmarks/blanks.py` holds the rule to what base models begin with.
"""

from __future__ import annotations

import regex

# scripts that part no words by blanks, with the punctuation of East Asia; Korean parts its words
UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
    r"\u3000-\u303F\uFE30-\uFE4F\uFF01-\uFF65]"
)
QUOTES = r"[\"“”„‟«»‹›`*]"  # signs that open before a word and close behind one; `**` and a backquote are Markdown's
ENDS_OPEN = (  # ends of a prompt that what follows joins
    r"\p{Ps}",  # opening brackets, „ and ‚ among them
    rf"(?:^|[\s\p{{Ps}}\p{{Pd}}])(?!\*(?!\*)){QUOTES}+",  # an opening quote
    r"(?:^|[\s\p{Ps}])[‘']",
    r"[¿¡@/\\]",
    r"(?:^|[^\p{L}\p{N}#])#|(?:^|[\s\p{Ps}])~",  # a hashtag, but not C#
    r"(?<!\p{N}\s?)\p{Sc}",  # a currency before its number
    r"\w\p{Pd}",  # a hyphen, or a dash without blanks
    r"[\w\p{Pe}][=_]",
)
OPEN = regex.compile(rf"(?:{'|'.join(ENDS_OPEN)})$")
ELISION = regex.compile(r"(?<![\w'’‘])(?:\p{L}{1,2}|\p{L}*(?:qu|ll|nt|sqt|mm|ov|nch))['’]$", regex.IGNORECASE)
CLOSING = regex.compile(
    r"[\p{Pe}”»›\p{M}]"
    r"|[.,;:!?%…،؛؟।](?![\p{L}\p{N}])"  # but not .NET
    r"|['’]\p{L}"  # the apostrophe of 's
)
NUMBER_JOINTS = regex.compile(r"\p{N}[.:]$"), regex.compile(r"\p{N}")  # 3.14, 12:30
DEGREES = regex.compile(r"\p{N}$"), regex.compile(r"[°′″]")


def join(prompt: str, target: str) -> str:
    """The prompt continued by the target, with a blank between them where one belongs."""
    return prompt + (" " if wants_blank(prompt, target) else "") + target


def wants_blank(prompt: str, target: str) -> bool:
    """Does a blank belong between them? None where one of them brings it, behind a script that has none (an English
    prompt parts a Chinese target all the same), behind what opens or joins (a bracket, a quote, a hyphen, an apostrophe
    as in l’), and before what closes."""
    if not prompt or not target or prompt[-1].isspace() or target[0].isspace():
        return False
    if UNSPACED.match(prompt[-1]) or (UNSPACED.match(target) and UNSPACED.search(prompt)):
        return False
    if any(before.search(prompt) and after.match(target) for before, after in (NUMBER_JOINTS, DEGREES)):
        return False
    return not (OPEN.search(prompt) or ELISION.search(prompt) or CLOSING.match(target))
