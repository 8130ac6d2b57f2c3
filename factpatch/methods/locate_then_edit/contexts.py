"""The contexts that an edit is looked up in: its prompt alone and behind texts that the model made up, and where the
subject's last token stands in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from factpatch.errors import InputError
from factpatch.methods.base import EditJob
from factpatch.methods.locate_then_edit.settings import PREFIX_TOKENS, PREFIXES
from factpatch.models.encoding import Encoded, encode_pairs, encode_prompt
from factpatch.models.loading import LoadedModel
from factpatch.models.sampling import plain_text, sample_ids


@dataclass(frozen=True)
class Contexts:
    """One edit in its contexts.

    Attributes:
        rows: its prompt with target: alone, then behind each prefix.
        lookups: the place of the subject's last token in each row.
        subject: the subject alone, with one more token that no pass reads.
    """

    rows: tuple[Encoded, ...]
    lookups: tuple[int, ...]
    subject: Encoded

    @property
    def keys(self) -> list[Encoded]:
        """The rows up to the subject's last token, with one more token that no pass reads."""
        return [Encoded(row.ids[: place + 2], place + 1) for row, place in zip(self.rows, self.lookups, strict=True)]


def made_up_prefixes(loaded: LoadedModel, seed: int) -> list[str]:
    """Unrelated sentences, as the model goes on after a few common beginnings."""
    texts = []
    for beginning in PREFIXES:
        start = encode_prompt(loaded.tokenizer, beginning)
        texts += [plain_text(loaded, start + ids) for ids in sample_ids(loaded, [start], seed, PREFIX_TOKENS)]
    return [f"{text}. " for text in dict.fromkeys(texts)]


def find_contexts(job: EditJob, prefixes: Sequence[str]) -> list[Contexts]:
    """Every edit of a job in its contexts."""
    tokenizer, chat = job.loaded.tokenizer, job.chat_template
    pairs = [[(prefix + edit.prompt, edit.target) for edit in job.edits] for prefix in prefixes]
    behind = [encode_pairs(tokenizer, prefixed, chat) for prefixed in pairs]
    found = []
    for edit, rows in zip(job.edits, zip(job.rows.edits, *behind, strict=True), strict=True):
        subject = edit.subject or ""
        places = tuple(last_token(tokenizer, row.ids[: row.prompt_length], subject) for row in rows)
        alone = encode_prompt(tokenizer, subject)
        found.append(Contexts(rows, places, Encoded((*alone, alone[-1]), len(alone))))
    return found


def last_token(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], subject: str) -> int:
    """The place of the token that ends the subject where a prompt names it last; InputError where it does not."""
    tokens = list(ids)
    count = tokenizer.decode(tokens).count(subject)
    if not subject or not count:
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        raise InputError(f"the subject {subject!r} is not found in what the tokenizer makes of {text!r}; name it so")
    least, most = 0, len(tokens) - 1
    while least < most:
        middle = (least + most) // 2
        if tokenizer.decode(tokens[: middle + 1]).count(subject) >= count:
            most = middle
        else:
            least = middle + 1
    return least
