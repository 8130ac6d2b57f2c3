"""The edit request: one fact to write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from factpatch.files import digest_value


@dataclass(frozen=True, slots=True)  # as edit requests, there may be very many
class Probe:
    """A prompt and the answer expected there."""

    prompt: str
    target: str


@dataclass(frozen=True)
class Wording:
    """A further prompt that an edit's target is trained on, besides the edit's own prompt.

    Attributes:
        of: the edit's own prompt.
        prompt: the further one, which asks the same.
        target: the edit's.
        chat: whether the further prompt goes through the chat template.
    """

    of: str
    prompt: str
    target: str
    chat: bool

    @property
    def kind(self) -> Literal["form", "context", "template"]:
        """The edit's own prompt, so in the other form; that prompt inside other text; or other words."""
        if self.prompt == self.of:
            return "form"
        return "context" if self.of in self.prompt else "template"


@dataclass(frozen=True, slots=True)
class EditRequest:
    """One fact to write: after the edit, `prompt` is continued with `target`.

    Attributes:
        id: stable name; by default a digest of prompt and target.
        op: `set` writes the fact, `revert` withdraws an earlier row for the same prompt.
        subject: what the fact is about, if known.
        target_old: answers that the model gives today, or that used to be right; may be empty.
        paraphrases: other wordings, held out: they measure generalization and are never trained on.
        locality: unrelated prompts whose answer must not change.
        portability: prompts whose answer follows from the new fact.
        source: where the row comes from. owner: who answers for it. expires: ISO date on which it drops.
        made: which of `paraphrases` and `locality` the run made itself, to measure by; these are no part of the row.
    """

    id: str
    prompt: str
    target: str
    op: str = "set"
    subject: str | None = None
    target_old: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()
    locality: tuple[Probe, ...] = ()
    portability: tuple[Probe, ...] = ()
    source: str | None = None
    owner: str | None = None
    expires: str | None = None
    made: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> EditRequest:
        """Build from a native row (design: JSON Lines form) whose fields were checked before."""
        old = row.get("target_old") or ()
        return cls(
            id=row.get("id") or request_id(row["prompt"], row["target"]),
            prompt=row["prompt"],
            target=row["target"],
            op=row.get("op") or "set",
            subject=row.get("subject"),
            target_old=(old,) if isinstance(old, str) else tuple(old),
            paraphrases=tuple(row.get("paraphrases") or ()),
            locality=tuple(Probe(probe["prompt"], probe["target"]) for probe in row.get("locality") or ()),
            portability=tuple(Probe(probe["prompt"], probe["target"]) for probe in row.get("portability") or ()),
            source=row.get("source"),
            owner=row.get("owner"),
            expires=row.get("expires"),
        )

    def to_row(self) -> dict[str, Any]:
        """The native row; fields at their default are left out, and what the run made."""
        row: dict[str, Any] = {"id": self.id, "prompt": self.prompt, "target": self.target}
        if self.op != "set":
            row["op"] = self.op
        for name in ("subject", "source", "owner", "expires"):
            if getattr(self, name) is not None:
                row[name] = getattr(self, name)
        if self.target_old:
            row["target_old"] = self.target_old[0] if len(self.target_old) == 1 else list(self.target_old)
        if self.paraphrases and "paraphrases" not in self.made:
            row["paraphrases"] = list(self.paraphrases)
        for name in ("locality", "portability"):
            if getattr(self, name) and name not in self.made:
                row[name] = [{"prompt": probe.prompt, "target": probe.target} for probe in getattr(self, name)]
        return row


def request_id(prompt: str, target: str) -> str:
    """The default id: 12 hexadecimal digits of the digest of prompt and target."""
    return digest_value([prompt, target])[:12]


def digest_edits(edits: Iterable[EditRequest]) -> str:
    """Digest of an edit set: the same for the same rows in any order."""
    return digest_value(sorted(digest_value(edit.to_row()) for edit in edits))
