"""How a release begins: from the champion's patch, which the new facts are added to, or from the base model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from factpatch.edits.request import EditRequest, digest_edits
from factpatch.errors import InputError
from factpatch.files import digest_value, new_folder, read_json, write_json
from factpatch.methods.lookup import find_method
from factpatch.release.pending import RegisteredVersion
from factpatch.settings.config import Settings, to_dict
from factpatch.settings.training import decisive
from factpatch.training_data.carry_over import (
    CARRY_OVER_FILE,
    NOTHING_CARRIED_OVER,
    CarriedOver,
    read_carried_over,
)

if TYPE_CHECKING:  # the command line decides without torch
    from factpatch.patches.patch import Patch

START_FOLDER = "start"  # in the output folder: what was decided, the champion's patch, and what it carries over


@dataclass(frozen=True)
class ReleaseMode:
    """Incremental or rebuild: which a release is, why, and from which version's patch (None: the base model)."""

    name: Literal["incremental", "rebuild"]
    reason: str
    version: str | None = None

    def __str__(self) -> str:
        if self.version is None:
            return f"rebuilt from the base: {self.reason}"
        return f"incremental from version {self.version}: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """As `edit.json` and `release.json` hold it."""
        return {"name": self.name, "reason": self.reason, "from": self.version}


def rebuild(reason: str) -> ReleaseMode:
    """The mode that starts from the base model."""
    return ReleaseMode("rebuild", reason)


def choose_mode(settings: Settings, edits: Sequence[EditRequest], registered: RegisteredVersion | None) -> ReleaseMode:
    """The mode that settings and facts allow; whether the champion's patch fits besides, `why_unfit` says.

    A fact that is gone must be as if it had never been written, so its release is rebuilt. Where its prompt has a new
    target, that takes its place, and training goes on from the old one.
    """
    training = settings.training
    if not edits:
        return rebuild("no fact is in force, so the release is the base model itself")
    if settings.edits.mode == "rebuild":
        return rebuild("edits.mode asks for it")
    if not find_method(training.method).abilities.warm_start:
        return rebuild(f"training is {training.method}, which verifies nothing before it trains")
    if not training.revisit:
        return rebuild("training is without revisits, which verifies nothing before it trains")
    if registered is None:
        return rebuild("there is no champion yet")
    if not registered.facts:
        return rebuild(f"version {registered.version} is the base model itself")
    now = {(edit.prompt, edit.target) for edit in edits}
    prompts = {prompt for prompt, _ in now}
    gone = sum(prompt not in prompts for prompt, _ in registered.facts - now)
    if gone:
        return rebuild(f"{number_of(gone, 'fact was', 'facts were')} withdrawn since version {registered.version}")
    replaced = len(registered.facts - now)
    told = [number_of(len(now - registered.facts) - replaced, "new fact", "new facts")]
    told += [f"{number_of(replaced, 'has', 'have')} another target"] if replaced else []
    kept = number_of(len(now & registered.facts), "fact that it holds is", "facts that it holds are")
    return ReleaseMode("incremental", f"{', '.join(told)}; {kept} verified first", registered.version)


def why_unfit(settings: Settings, folder: Path) -> str | None:
    """Why training cannot start from the values of a patch under these settings, in words; None if it can."""
    from factpatch.models.checkpoints.tensors import file_digests
    from factpatch.models.loading import find_source, fingerprint, open_checkpoint
    from factpatch.models.locations import locate
    from factpatch.models.meta import meta_model
    from factpatch.patches.patch import foreign_schema, read_manifest, read_patch

    manifest = read_manifest(folder)
    if foreign := foreign_schema(manifest):
        return f"the champion's patch cannot be used: {foreign}"
    base, place = read_patch(folder).manifest["base"], manifest["location"]
    chat = manifest["config"]["edits"]["chat_template"]
    if settings.edits.chat_template != chat:
        return f"edits.chat_template is {settings.edits.chat_template} and was {chat}".lower()
    if settings.model.dtype != base["dtype"]:
        return f"model.dtype is {settings.model.dtype} and was {base['dtype']}"
    if fingerprint(file_digests(open_checkpoint(find_source(settings.model.path)))) != base["fingerprint"]:
        return f"'{settings.model.path}' is another base model than the champion's; every active fact is written anew"
    asked = settings.localization.location
    if asked is not None and list(locate(meta_model(settings.model), asked).parameters) != place["parameters"]:
        return f"localization.location is {asked} and was {place['name']}"
    return None


def decide_mode(
    output: Path,
    settings: Settings,
    edits: Sequence[EditRequest],
    registered: RegisteredVersion | None,
    fetch: Callable[[str, Path], Path],
    withdrawn: Sequence[str] = (),
    refused: Sequence[str] = (),
) -> ReleaseMode:
    """Decide how a release of these edits begins, and leave that for its steps, whole or not at all, in place of an
    earlier decision. `fetch` puts a version's patch and what it carries over into a folder and returns the patch's
    path; `withdrawn` are prompts that edits once had, `refused` the gates that have just refused these edits as an
    increment, after which they are rebuilt; a run that is continued there knows it from the earlier decision.

    Raises InputError where the settings ask for what cannot be.
    """
    purpose = _purpose(edits, settings)
    if settings.training.resume:
        refused = refused or _decided(output, purpose).get("refused", ())
    told = f"the gates refused an increment ({', '.join(refused)})"
    mode = rebuild(told) if refused else choose_mode(settings, edits, registered)
    with new_folder(output / START_FOLDER, replace=True) as folder:
        if mode.version is not None:
            patch = fetch(mode.version, folder)
            unfit = why_unfit(settings, patch)
            if unfit is None and registered and registered.facts == {(edit.prompt, edit.target) for edit in edits}:
                unfit = f"version {registered.version} holds these facts already, so they are trained anew"
            if unfit is not None:
                shutil.rmtree(patch)
                (folder / CARRY_OVER_FILE).unlink(missing_ok=True)
                mode = rebuild(unfit)
        if settings.edits.mode == "incremental" and mode.name == "rebuild":
            raise InputError(f"edits.mode is incremental, but this cannot be: {mode.reason}; set auto or rebuild")
        known = registered.facts if registered and mode.version is not None else frozenset()
        new = [edit.id for edit in edits if (edit.prompt, edit.target) not in known]
        about = {"for": purpose, "refused": list(refused), "withdrawn": list(withdrawn), "new": new}
        write_json(folder / "mode.json", {**mode.to_json(), **about})
    return mode


def _decided(output: Path, purpose: str) -> Mapping[str, Any]:
    """The decision that an earlier run left in the output folder, if it was made for this; else an empty one."""
    path = output / START_FOLDER / "mode.json"
    found = read_json(path) if path.exists() else {}
    return found if found.get("for") == purpose else {}


@dataclass(frozen=True)
class ReleaseStart:
    """What a release starts from: its mode, and what it takes from the champion.

    Attributes:
        patch: whose values training starts from; None for the base model.
        withdrawn: prompts that edits once had.
        new: ids of the edits that the patch does not hold; None for all.
        carried_over: what the patch was trained with beside its edits' own prompts.
    """

    mode: ReleaseMode
    patch: Patch | None = None
    withdrawn: tuple[str, ...] = ()
    new: frozenset[str] | None = None
    carried_over: CarriedOver = NOTHING_CARRIED_OVER

    def parted(self, edits: Sequence[EditRequest]) -> tuple[list[EditRequest], list[EditRequest]]:
        """The edits to be learnt, and those that the patch holds already."""
        if self.new is None:
            return list(edits), []
        new = self.new
        return [edit for edit in edits if edit.id in new], [edit for edit in edits if edit.id not in new]


def read_start(output: Path, edits: Sequence[EditRequest], settings: Settings) -> ReleaseStart:
    """The decision for these edits and settings; a rebuild where nothing was, as in a step that is run by itself or
    in DVC's pipeline."""
    from factpatch.patches.patch import read_patch

    found = _decided(output, _purpose(edits, settings))
    if not found:
        return ReleaseStart(rebuild("this step was run by itself, and only a release knows the champion"))
    mode = ReleaseMode(found["name"], found["reason"], found["from"])
    withdrawn = tuple(found["withdrawn"])
    if mode.name == "rebuild":
        return ReleaseStart(mode, None, withdrawn)
    patch, carried_over = read_patch(output / START_FOLDER / "patch"), read_carried_over(output / START_FOLDER)
    return ReleaseStart(mode, patch, withdrawn, frozenset(found["new"]), carried_over)


def _purpose(edits: Sequence[EditRequest], settings: Settings) -> str:
    """Digest of what a decision is made for."""
    values = to_dict(settings) | {"training": decisive(settings.training)}  # a run that is continued is the same run
    return digest_value({"edits": digest_edits(list(edits)), "settings": values})


def number_of(number: int, single: str, many: str) -> str:
    """A count in words: `1 new fact`, `2 new facts`."""
    return f"{number} {single if number == 1 else many}"
