"""What a release rests on besides its facts: which base model, how it is loaded, where it writes. Told without weights
in memory, so that a schedule can look every few minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from factpatch.files import write_json
from factpatch.models.sources.identity import model_identity
from factpatch.settings.config import Settings

PROVENANCE_FILE = "basis.json"  # in the output folder: of the settings `used`, and of those `configured` in the file


@dataclass(frozen=True)
class Provenance:
    """What a release rests on: two releases of the same facts on the same provenance are the same release.

    `identity` is the model's, from `model_identity`. `places` are locations that fit the release: the one that the
    settings fixed, as they name it, and the one it wrote at; none in settings that search.
    """

    name: str  # folder or hub name, for people
    identity: str | None
    dtype: str
    chat_template: bool
    places: tuple[str, ...] = ()

    def why_other(self, released: Provenance) -> str | None:
        """Why a release of that provenance does not do for these settings, in words; None if it does."""
        if self.dtype != released.dtype:
            return f"model.dtype is {self.dtype} and was {released.dtype}"
        if self.chat_template != released.chat_template:
            return f"edits.chat_template is {self.chat_template} and was {released.chat_template}".lower()
        if released.places and not {*self.places} <= {*released.places}:
            return f"localization.location is {self.places[0]} and was {released.places[-1]}"
        known = self.identity is not None and released.identity is not None
        if (self.identity if known else self.name) == (released.identity if known else released.name):
            return None
        if self.name == released.name:
            return f"the base model in '{self.name}' is not what it was"
        return f"the base model is '{self.name}' and was '{released.name}'"


def provenance_of(settings: Settings, known: Provenance | None = None) -> Provenance:
    """The provenance that a release with these settings has; the files of a model that is `known` are not read."""
    location, source = settings.localization.location, settings.model.path
    if known is not None and known.name == source:
        identity = known.identity
    else:
        identity = None if source is None else model_identity(source)
    return Provenance(
        source or "",
        identity,
        settings.model.dtype,
        settings.edits.chat_template,
        () if location is None else (location,),
    )


def why_changed(now: Provenance, released: tuple[Provenance, ...]) -> str | None:
    """Why a registered version does not fit the settings any more, whatever its facts: base model, dtype, prompt form
    or location differ. None if the version fits, or nothing is known of it.

    `released` is what it was made on and what was configured then. Both count, so that a release that somebody made on
    another base model by hand stays, until the configuration changes.
    """
    reasons = [now.why_other(provenance) for provenance in released]
    return reasons[0] if reasons and all(reasons) else None


def write_provenance(output: Path, used: Provenance, configured: Provenance) -> Path:
    """Write the provenance of the run's settings and of the configured ones for the registry; the file's path."""
    value = {"schema": 1, "used": asdict(used), "configured": asdict(configured)}
    return write_json(output / PROVENANCE_FILE, value)


def parse_provenance(value: Mapping[str, Any], place: str) -> tuple[Provenance, ...]:
    """The provenances that `write_provenance` left, with the place that the release wrote at."""
    found = [Provenance(**{**value[name], "places": tuple(value[name]["places"])}) for name in ("used", "configured")]
    return tuple(replace(provenance, places=(*provenance.places, place)) for provenance in found)
