"""What can be wrong with edit requests: a table of named checks.

A check looks at one row and at a survey of all active rows and returns its faults: the offending texts, or what is
missing. Severity says what follows:

    refuse      bad input: nothing is written
    quarantine  the row is set aside, with its reasons
    repair      the row is mended, reported and kept

A faulty paraphrase or probe never costs the edit: the fact can still be written, only that one measurement of it would
be unsound, so it alone is dropped.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Literal

from factpatch.edits.loading import FIELDS, Row
from factpatch.edits.survey import STEERING_FIELDS, Survey, texts
from factpatch.edits.tidying import unfit
from factpatch.text.words import holds

OPS = ("set", "revert")
TEXT_LISTS = ("target_old", "paraphrases")
PROBE_LISTS = ("locality", "portability")
EXTRAS = tuple(name for name in FIELDS if name not in STEERING_FIELDS | {"prompt", "target"})


@dataclass(frozen=True)
class FormCheck:
    """A check of one row by itself, on which everything else relies; its faults say what is wrong."""

    name: str
    meaning: str
    fix: str
    faults: Callable[[Row], list[str]]
    severity: Literal["refuse"] = "refuse"


@dataclass(frozen=True)
class Check:
    """A check of one row among the others; a repair drops the faulty texts from the fields in `drops`."""

    name: str
    severity: Literal["quarantine", "repair"]
    meaning: str
    fix: str
    faults: Callable[[Row, Survey], list[str]]
    drops: tuple[str, ...] = ()


def _missing_fields(row: Row) -> list[str]:
    if row.values.get("op") == "revert":
        return [] if row.values.keys() & {"prompt", "id"} else ["a revert needs the 'prompt' or the 'id' it withdraws"]
    needed = ("prompt", "target")
    return [f"'{name}' is missing" for name in needed if name not in row.values]


def _wrong_types(row: Row) -> list[str]:
    faults = []
    for name, value in row.values.items():
        if name in TEXT_LISTS:
            right = isinstance(value, list) and all(isinstance(item, str) for item in value)
            wanted = "a list of texts"
        elif name in PROBE_LISTS:
            right = isinstance(value, list) and all(_is_probe(item) for item in value)
            wanted = "a list of {prompt, target}, both text"
        else:
            right, wanted = isinstance(value, str), "text"
        if not right:
            faults.append(f"'{name}' must be {wanted}, not {_quote(value)}")
    return faults


def _is_probe(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("prompt"), str) and isinstance(item.get("target"), str)


def _unknown_op(row: Row) -> list[str]:
    op = row.values.get("op", "set")
    return [] if op in OPS else [f"'op' is {_quote(op)}"]


def _bad_expiry(row: Row) -> list[str]:
    expires = row.values.get("expires")
    try:
        if expires is not None:
            date.fromisoformat(expires)
    except (TypeError, ValueError):
        return [f"'expires' is {_quote(expires)}"]
    return []


def _blank_texts(row: Row, _: Survey) -> list[str]:
    return [f"{name} is blank" for name in ("prompt", "target") if _is_blank(row.values[name])]


def _control_characters(row: Row, _: Survey) -> list[str]:
    """A line end in a target would also end the generated answer, so none is allowed there."""
    found = {name: unfit(row.values[name], line_ends=name == "prompt") for name in ("prompt", "target")}
    return [f"{name} holds {character}" for name, character in found.items() if character]


def _unencodable(row: Row, survey: Survey) -> list[str]:
    named = {name: row.values[name] for name in ("prompt", "target")}
    return [f"{name} {survey.unencodable[text]}" for name, text in named.items() if text in survey.unencodable]


def _other_targets(row: Row, survey: Survey) -> list[str]:
    return sorted(survey.rivals.get((row.file, row.values["prompt"]), set()) - {row.values["target"]})


def _earlier_copy(row: Row, survey: Survey) -> list[str]:
    first = survey.first[row.values["prompt"], row.values["target"]]
    return [] if first is row else [f"same as {first.where}"]


def _target_in_prompt(row: Row, _: Survey) -> list[str]:
    target = row.values["target"]
    return [target] if holds(row.values["prompt"], target) else []


def _target_is_old(row: Row, _: Survey) -> list[str]:
    return [old for old in row.values.get("target_old", ()) if old == row.values["target"]]


def _too_long(row: Row, survey: Survey) -> list[str]:
    tokens = survey.tokens[row.values["target"]]
    return [f"{tokens} tokens, {survey.budget} allowed"] if tokens > survey.budget else []


def _stray_blanks(row: Row, _: Survey) -> list[str]:
    return list(row.stray)


def _odd_characters(row: Row, _: Survey) -> list[str]:
    return list(row.odd)


def _unusable_extras(row: Row, survey: Survey) -> list[str]:
    return [
        text
        for name, text in texts(row.values)
        if name in EXTRAS and (_is_blank(text) or text in survey.unencodable or unfit(text))
    ]


def _repeated_id(row: Row, survey: Survey) -> list[str]:
    name = row.values.get("id")
    return [name] if name is not None and survey.first_id[name] is not row else []


def _paraphrase_is_prompt(row: Row, _: Survey) -> list[str]:
    return [text for text in row.values.get("paraphrases", ()) if text == row.values["prompt"]]


def _paraphrase_is_edited(row: Row, survey: Survey) -> list[str]:
    others = (text for text in row.values.get("paraphrases", ()) if text != row.values["prompt"])
    return [text for text in others if text in survey.prompts]


def _locality_is_edited(row: Row, survey: Survey) -> list[str]:
    prompts = (probe["prompt"] for probe in row.values.get("locality", ()))
    return [prompt for prompt in prompts if prompt in survey.prompts]


def _is_blank(text: str) -> bool:
    """Whether nothing would be seen: blanks and invisible format characters only."""
    return all(character.isspace() or unicodedata.category(character) == "Cf" for character in text)


def _quote(value: object) -> str:
    """A value as a message shows it, in one short line."""
    if isinstance(value, (list, dict)):
        return f"this {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


FORM_CHECKS = (
    FormCheck(
        "required_fields",
        "a prompt or a target is missing",
        "give every row a 'prompt' and a 'target'",
        _missing_fields,
    ),
    FormCheck(
        "field_types",
        "a field holds another type than its own",
        "correct the value, or leave the field out",
        _wrong_types,
    ),
    FormCheck(
        "known_op",
        "`op` is none that the ledger knows",
        "write 'set' (or nothing) to change a fact, 'revert' to withdraw a change",
        _unknown_op,
    ),
    FormCheck(
        "expiry_date",
        "`expires` is not a date",
        "write it as year-month-day, such as 2030-12-31",
        _bad_expiry,
    ),
)

CHECKS = (
    Check(
        "blank_text",
        "quarantine",
        "prompt or target is blank",
        "write the text, or delete the row",
        _blank_texts,
    ),
    Check(
        "control_characters",
        "quarantine",
        "prompt or target holds a character that is no text (control, direction override, private use, unassigned, "
        "U+FFFD), or target a line end, which would end the answer",
        "remove it; it often comes from a broken export",
        _control_characters,
    ),
    Check(
        "unencodable_text",
        "quarantine",
        "prompt or target cannot be written in the model's ordinary tokens",
        "replace lone surrogates, characters outside the vocabulary, special tokens such as EOS, and tokens that were "
        "added to the tokenizer alone",
        _unencodable,
    ),
    Check(
        "contradiction",
        "quarantine",
        "the same prompt is given different targets in one file",
        "keep the row that is right; to supersede it later, add a row in a later file",
        _other_targets,
    ),
    Check(
        "duplicate_row",
        "quarantine",
        "an earlier row has the same prompt and target",
        "delete it; the first one is kept",
        _earlier_copy,
    ),
    Check(
        "target_in_prompt",
        "quarantine",
        "the prompt already holds the target, so that copying would pass for knowing",
        "reword the prompt, or give the answer that it asks for",
        _target_in_prompt,
    ),
    Check(
        "target_is_old_answer",
        "quarantine",
        "the target is one of the listed old answers, so that nothing would change",
        "correct the target or `target_old`, or delete the row",
        _target_is_old,
    ),
    Check(
        "target_too_long",
        "quarantine",
        "the target, with EOS, has more tokens than an answer may have",
        "shorten it, or raise evaluation.max_new_tokens",
        _too_long,
    ),
    Check(
        "stray_blanks",
        "repair",
        "a text begins or ends in blanks; they were removed",
        "remove them at the source",
        _stray_blanks,
    ),
    Check(
        "odd_characters",
        "repair",
        "a text holds an odd blank or line end, an invisible character, or a letter in parts; they were mended",
        "replace, remove or compose (NFC) them at the source; they often come with copied text",
        _odd_characters,
    ),
    Check(
        "unusable_extra",
        "repair",
        "a text beside prompt and target is blank, holds what is no text or cannot be encoded; it was dropped",
        "correct it, or leave it out",
        _unusable_extras,
        drops=EXTRAS,
    ),
    Check(
        "repeated_id",
        "repair",
        "an earlier row bears the same id; this one got the default id",
        "give every row an id of its own, or none",
        _repeated_id,
        drops=("id",),
    ),
    Check(
        "paraphrase_is_prompt",
        "repair",
        "a paraphrase equals the prompt, so it would measure what was trained; it was dropped",
        "word it differently",
        _paraphrase_is_prompt,
        drops=("paraphrases",),
    ),
    Check(
        "paraphrase_is_edited",
        "repair",
        "a paraphrase equals the prompt of another edit, so it is trained on; it was dropped",
        "word it differently, or merge the two edits",
        _paraphrase_is_edited,
        drops=("paraphrases",),
    ),
    Check(
        "locality_is_edited",
        "repair",
        "a locality probe is itself edited, so its answer must change; it was dropped",
        "choose an unrelated prompt",
        _locality_is_edited,
        drops=("locality",),
    ),
)
