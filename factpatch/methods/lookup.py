"""Finding a training method by its name, and refusing what it cannot do before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast

from factpatch.edits.request import EditRequest
from factpatch.edits.subjects import with_subjects
from factpatch.errors import InputError
from factpatch.methods.base import Abilities, EditMethod
from factpatch.settings.config import TrainingSettings
from factpatch.settings.methods import load_method, method_entry

if TYPE_CHECKING:  # what a method can do is asked without torch
    from transformers import PreTrainedModel

    from factpatch.models.locations import Location


def find_method(name: str) -> EditMethod:
    """The method of this name; InputError if there is none, or it is not all that a method must be."""
    method = load_method(name)
    if wrong := _wrong(method, name):
        value = method_entry(name).value
        raise InputError(f"training method '{name}' ({value}) {wrong}; docs/extending.md says what a method has")
    return cast(EditMethod, method)


def _wrong(method: object, name: str) -> str | None:
    """What keeps an object from being the method of this name, in words; None if nothing does."""
    parts = ("name", "settings_type", "abilities", "estimate", "run")
    if missing := [part for part in parts if not hasattr(method, part)]:
        return f"lacks {' and '.join(missing)}"
    found = cast(EditMethod, method)
    if found.name != name:
        return f"calls itself '{found.name}'"
    if not (isinstance(found.settings_type, type) and is_dataclass(found.settings_type)):
        return "has a settings_type that is no dataclass"
    if unknown := _without_value(found.settings_type):
        return f"has settings that training lacks and that have no default: {', '.join(unknown)}"
    if not isinstance(found.abilities, Abilities):
        return "has abilities that are no Abilities"
    return next((f"has {part} that is no function" for part in parts[3:] if not callable(getattr(found, part))), None)


def _without_value(settings_type: Any) -> list[str]:
    """Fields of a method's settings that `settings_of` could not fill."""
    known = {own.name for own in fields(TrainingSettings)}
    return [
        own.name
        for own in fields(settings_type)
        if own.name not in known and own.default is MISSING and own.default_factory is MISSING
    ]


def refuse_unfit(method: EditMethod, model: PreTrainedModel, location: Location, edits: Sequence[EditRequest]) -> None:
    """InputError where the method cannot write there, or needs to know what an edit is about and nothing tells."""
    if len(location.layers) > 1 and not method.abilities.several_layers:
        raise InputError(
            f"location '{location.name}' is of several layers, and training method '{method.name}' writes into one; "
            f"name one layer, such as {location.layer}:{location.module}"
        )
    if refuse := getattr(method, "refuse", None):
        refuse(model, location)
    if not method.abilities.needs_subject:
        return
    lacking = [edit for edit in with_subjects(edits)[0] if edit.subject is None or edit.subject not in edit.prompt]
    if lacking:
        rows = "1 row names none" if len(lacking) == 1 else f"{len(lacking)} rows name none"
        raise InputError(
            f"training method '{method.name}' needs the subject of every edit, and {rows} that is found in its prompt, "
            f"the first being '{lacking[0].id}' ({lacking[0].prompt!r}); add a 'subject' to such rows"
        )
