"""Which subjects the edits speak of, in whatever wording."""

from __future__ import annotations

import re
from collections.abc import Iterable

from factpatch.edits.request import EditRequest
from factpatch.text.words import content_words

OWNING = re.compile(r"['’]s\b")  # "France's capital" names France


class EditMentions:
    """The words that edits use: of their prompts, of their other wordings, and of what follows from them."""

    def __init__(self, edits: Iterable[EditRequest]) -> None:
        texts = (
            text
            for edit in edits
            for text in (edit.prompt, *edit.paraphrases, *(probe.prompt for probe in edit.portability))
        )
        self._said = {" ".join(content_words(OWNING.sub(" ", text))) for text in texts}
        self._words = {word for text in self._said for word in text.split()}

    def names(self, subject: str) -> bool:
        """Does one of them name the subject, as whole words?"""
        words = content_words(OWNING.sub(" ", subject))
        if not words or not self._words.issuperset(words):
            return False
        sought = f" {' '.join(words)} "
        return any(sought in f" {text} " for text in self._said)
