"""What earlier searches found: trials, by digest of what they depend on, and choices, with the edits they were for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from factpatch.disk_cache import read_cached_json
from factpatch.edits.request import EditRequest, digest_edits
from factpatch.evaluation.scorecard import relation_of, source_of
from factpatch.files import digest_file, digest_value, output_folder, read_json, write_json
from factpatch.localization.trial_set import TrialSet, from_json, to_json
from factpatch.localization.trials import Trial, trial_settings
from factpatch.models.loading import LoadedModel, fingerprint, known_digests
from factpatch.models.locations import locate
from factpatch.settings.config import Settings, to_dict
from factpatch.settings.training import decisive

STORE_VERSION = 5  # of the files; another number never reads these
SAME_KIND = 0.5  # of the new edits must say something that the earlier ones said too, of other subjects

Record = dict[str, Any]


class TrialStore:
    """Trials of one trial set on one model, each in a file of its own, so that a killed search continues and several
    processes can share one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def start(root: Path, base: str, trial_set: TrialSet, settings: Settings) -> TrialStore:
        """The folder for these trials, with the trial set in it."""
        training = [decisive(trial_settings(settings, trial_set, whole)) for whole in (False, True)]
        for settings_of_run in training:
            del settings_of_run["preservation"]["prompts"]  # they are in the trial set
        parts = [
            STORE_VERSION,
            base,
            trial_set.digest,
            training,
            settings.trunk.keep,
            settings.evaluation.max_new_tokens,
        ]
        folder = output_folder(root / "trials" / digest_value(parts)[:32])
        if read_cached_json(folder / "exam.json", dict) is None:
            write_json(folder / "exam.json", {"base": base, "exam": to_json(trial_set)})
        return TrialStore(folder)

    def trial_set(self) -> tuple[str, TrialSet]:
        """The base model's fingerprint, and the trial set."""
        value = read_json(self.folder / "exam.json")
        return value["base"], from_json(value["exam"])

    def read(self, loaded: LoadedModel, name: str, whole: bool) -> Trial | None:
        """An earlier trial at that place; None if there was none."""
        value = read_cached_json(self._path(name, whole), dict)
        if value is None:
            return None
        right = tuple(mark == "1" for mark in value["right"])
        return Trial(**{**value, "location": locate(loaded.model, name), "right": right})

    def write(self, trial: Trial) -> None:
        """Keep a trial."""
        right = "".join("1" if proven else "0" for proven in trial.right)
        value = {**vars(trial), "location": trial.location.name, "right": right}
        write_json(self._path(trial.location.name, trial.whole), value)

    def _path(self, name: str, whole: bool) -> Path:
        return self.folder / f"{name.replace(':', '-')}.{'whole' if whole else 'short'}.json"


class ChoiceStore:
    """Choices made before, by digest of what they were made for."""

    def __init__(self, root: Path, base: str, edits: Sequence[EditRequest], settings: Settings) -> None:
        self._folder = output_folder(root / "choices")
        self._setting = digest_value([STORE_VERSION, base, _relevant(settings)])
        self._path = self._folder / f"{digest_value([self._setting, digest_edits(list(edits))])[:32]}.json"
        self._kinds = [kind_of(edit) for edit in edits]

    def exact(self, reused: bool) -> Record | None:
        """The choice for these very edits, be it one that was `reused` or only one that was searched for."""
        value = read_cached_json(self._path, dict)
        return value["record"] if value and (reused or value["searched"] or not value["record"]["candidates"]) else None

    def similar(self) -> Record | None:
        """The latest choice, found by a search, for edits of the same kind on the same model with the same settings."""
        found = []
        for path in self._folder.glob("*.json"):
            value = read_cached_json(path, dict)
            if value is None or value["setting"] != self._setting:  # of another form, model or settings
                continue
            known = set(value["kinds"])
            shared = sum(kind in known for kind in self._kinds)
            if value["searched"] and shared >= SAME_KIND * len(self._kinds):
                found.append((path.stat().st_mtime, value["record"]))
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def keep(self, record: Record, searched: bool) -> None:
        """Remember a choice; `searched` if it rests on trials of its own, so that others may rely on it."""
        kinds = sorted(set(self._kinds))
        write_json(self._path, {"setting": self._setting, "searched": searched, "kinds": kinds, "record": record})


def base_digest(loaded: LoadedModel) -> str:
    """Digest of the base model's values and the dtype that they are used in."""
    return digest_value([fingerprint(known_digests(loaded.model)), str(loaded.model.dtype)])


def kind_of(edit: EditRequest) -> str:
    """What is said of the subject; of an edit that names none, where it comes from."""
    return relation_of(edit) if edit.subject and edit.subject in edit.prompt else source_of(edit)


def _relevant(settings: Settings) -> Record:
    """All settings that a choice depends on."""
    value = to_dict(settings)
    localization = {
        name: value["localization"][name]
        for name in ("modules", "method", "sample", "budget_edits", "budget_minutes", "weights")
    }
    training = decisive(settings.training)
    files = (  # their content counts
        training["preservation"].pop("prompts"),
        training["augmentation"].pop("templates"),
        settings.gates.canaries,
    )
    return {
        "localization": localization,
        "training": training,
        "files": [digest_file(Path(name)) if name and Path(name).is_file() else name for name in files],
        "chat_template": settings.edits.chat_template,
        "max_new_tokens": settings.evaluation.max_new_tokens,
        "keep": settings.trunk.keep,
    }
