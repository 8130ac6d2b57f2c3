"""Settings: one `params.yaml`, read into typed, frozen values; unknown keys and impossible values are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, StrictBool, StrictInt
from pydantic.dataclasses import dataclass

from factpatch.edits.forms import COLUMNS
from factpatch.errors import InputError
from factpatch.settings.build import as_yaml, build
from factpatch.settings.methods import check_method
from factpatch.settings.naming import UNFIT, fits, project_name
from factpatch.settings.training import (
    PAPER,
    SECTION,
    Amount,
    Confidence,
    Count,
    NotNegative,
    Number,
    Share,
    TrainingSettings,
)

Placement = Literal["auto", "memory", "stream"]
AUTO: Final = "auto"  # where a setting lets the run choose by itself


@dataclass(frozen=True, config=SECTION)
class ModelSettings:
    """Which model to edit, and how to load it."""

    path: str | None = None  # folder, GGUF file or hub name; must be named
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the loaded weights; trained ones are float32
    device: str = "cpu"  # as torch names it: cpu, cuda, cuda:1
    placement: Placement = "auto"  # of the weights: whole in memory, or read from the files
    # block by block (docs/scale.md); auto: in memory where they fit
    trust_remote_code: StrictBool = False  # run code that comes with the model


@dataclass(frozen=True, config=SECTION)
class EditsSettings:
    """Which edits to write."""

    path: str = "data/edits"  # file, folder (folded in file-name order) or `datasets` hub name
    columns: dict[str, str] = Field(default_factory=dict)  # where the fields stand in rows of a form of your own: our
    # name -> dotted path, such as target: answers.0.text; docs/extending.md
    chat_template: StrictBool = False  # put prompts through the model's chat template
    limit: Count | None = None  # only the first N accepted edits
    mode: Literal["auto", "incremental", "rebuild"] = "auto"  # of a release: add to the champion's patch where that
    # can be (auto), refuse to run where it cannot (incremental), or start from the base model

    def __post_init__(self) -> None:
        for name, path in self.columns.items():
            if name not in COLUMNS:
                raise InputError(f"edits.columns names '{name}', which no edit has; known here: {', '.join(COLUMNS)}")
            if not all(path.split("+")):
                raise InputError(f"edits.columns.{name} is '{path}'; write a path such as answers.0.text")


@dataclass(frozen=True, config=SECTION)
class ValidationSettings:
    """How strictly edit requests are checked."""

    strict: StrictBool = False  # refuse on any finding (for CI)


LEAST_SAMPLE = 8  # edits; of fewer, no trial tells places apart
WEIGHED = ("reliability", "generalization", "locality", "capability")  # metrics that make a place's quality


@dataclass(frozen=True, config=SECTION)
class LocalizationSettings:
    """Where to write."""

    location: str | None = None  # such as "4:mlp.down_proj" or, by role, "4:down"; null searches
    modules: tuple[str, ...] = ()  # modules or roles, tried at every layer; none named: all roles, as `models.roles`
    # tells them
    method: Literal["auto", "grid"] = "auto"  # a signal, short runs for few, whole ones for fewer / whole runs for all
    sample: Annotated[StrictInt, Field(ge=LEAST_SAMPLE)] = 24  # edits a place is tried on
    budget_edits: Count = 288  # of a search (auto) in all its trials: the sample's edits, once for each trial
    budget_minutes: NotNegative = 3.0  # of a search (auto) among 200 edits, fewer take less; trials are planned to fit
    weights: dict[str, NotNegative] = Field(  # of each metric in a place's quality; one that is not named has none
        default_factory=lambda: dict.fromkeys(WEIGHED, 1.0)
    )
    reuse: StrictBool = True  # keep an earlier choice for edits of the same kind, after a check on a few of them (auto)
    workers: Count = 1  # processes that share a grid, through Prefect's Dask task runner; 1: none but this one
    cache: str | None = ".cache/localization"  # folder where trials and choices stay for later runs; null keeps none

    def __post_init__(self) -> None:
        for name in self.weights:
            if name not in WEIGHED:
                raise InputError(f"localization.weights names '{name}'; known here: {', '.join(WEIGHED)}")


@dataclass(frozen=True, config=SECTION)
class TrunkSettings:
    """What is kept of the frozen layers below the location, so that they run once for each edit."""

    keep: StrictBool = True  # false runs the whole model in every step
    folder: str | None = ".cache/trunk"  # where activations stay for later runs; null keeps them in memory alone
    memory_gb: NotNegative = 4.0  # beyond it they are mapped from disk
    disk_gb: NotNegative = 50.0  # of the folder; what was not used for longest goes first


@dataclass(frozen=True, config=SECTION)
class EvaluationSettings:
    """How success is measured."""

    protocol: Literal["default", "paper"] = "default"  # paper: "." ends every answer, even one that holds a "."
    max_new_tokens: Count = 32  # generation budget of an answer
    report_tokens: Count = 12  # shown of an answer whose verdict is sure by then; it ends in "…" where it would go on
    other_form: Amount | None = 16  # edits asked in the chat form that is not trained too, drawn by seed; null: all
    batch_size: Count = 64  # prompts a forward pass
    cache: str | None = ".cache/answers"  # folder where the base model's answers stay for later runs; null keeps none
    make_probes: StrictBool = True  # paraphrases and locality probes for rows without any; docs/gates.md


@dataclass(frozen=True, config=SECTION)
class JudgeSettings:
    """A model that judges the answers that exact match calls wrong. docs/gates.md says how; none without an address."""

    address: str | None = None  # of a server of OpenAI's kind, such as http://127.0.0.1:8000/v1; its key, if it wants
    # one, comes from the environment variable OPENAI_API_KEY alone
    model: str | None = None  # as the server names it
    calls: Count = 1000  # budget: requests of a run, repeated ones too; what is beyond stays unjudged
    seconds: Annotated[Number, Field(ge=0.01)] = 30.0  # that the server may take for an answer
    retries: Amount = 2  # of a request that the server was too slow or too busy for
    cache: str | None = ".cache/judge"  # folder where its verdicts stay for later runs; null keeps none

    def __post_init__(self) -> None:
        if self.address is None:
            return
        parts = urlsplit(self.address)
        if parts.username or parts.password or parts.query:
            raise InputError("judge.address holds a name, password or query; put the key into OPENAI_API_KEY instead")
        if parts.scheme not in ("http", "https") or not parts.path.rstrip("/").endswith("/v1"):
            raise InputError(f"judge.address is '{self.address}'; it must begin with http and end in '/v1'")
        if self.model is None:
            raise InputError("judge.address is set, but judge.model is not; name the model as the server does")


@dataclass(frozen=True, config=SECTION)
class CapabilitySettings:
    """General tasks scored before and after, through lm-evaluation-harness."""

    suite: Literal["portable", "embedded", "paper", "wide"] = "portable"  # see factpatch/evaluation/suites.py
    tasks: tuple[str, ...] | None = None  # by name, in place of the suite's; an empty list scores none
    include: str | None = None  # folder of local task files, beside those that come along
    text: str | None = None  # file of paragraphs, one a line or JSON Lines with `text`, for the task portable_text;
    # null: those that come along
    limit: Count | None = None  # items a task, over the suite's own limit; null takes that
    batch_size: Count = 64
    cache: str | None = ".cache/capability"  # folder where the base model's scores stay for later runs; null keeps none


@dataclass(frozen=True, config=SECTION)
class GateSettings:
    """What a release must reach to be promoted; shares in [0, 1]. docs/gates.md says how each is judged."""

    reliability: Share = 0.95
    generalization: Share = 0.8
    locality: Share = 0.5
    portability: Share | None = None  # null: no such gate
    required: tuple[Literal["reliability", "generalization", "locality", "portability"], ...] = ("reliability",)
    # ^ floors that edits without such probes may not skip; portability's, once set, never may
    judged: StrictBool = False  # the judge's shares in place of exact match, for the floors that it has shares for
    capability_drop: Share = 0.05  # margin: largest fall of any capability task, beyond doubt
    text_rise: NotNegative = 0.03  # margin: largest rise of bits a byte of general text, as a share, beyond doubt
    canaries: str | None = AUTO  # file of edit requests whose prompts must be answered right after every edit; auto:
    # some general knowledge that the base model surely has; null: none
    weight_change: NotNegative | None = (
        1.0  # largest change of a located tensor, as a share of its norm; null: no such gate
    )
    reload: Amount = 16  # edited prompts put to the model as the registry gives it back; 0: no such gate


@dataclass(frozen=True, config=SECTION)
class MonitorSettings:
    """When facts count as lost in a model that is in use."""

    limit: Share | None = None  # least share of live facts answered right; null: gates.reliability


FORMATS = Literal["bf16", "q8_0", "q4_k_m", "q4_1", "q4_0", "nf4", "gptq", "awq", "peft"]


@dataclass(frozen=True, config=SECTION)
class ServingSettings:
    """In which forms a release will be served; each is measured, and released where it reaches `gates`' floors."""

    formats: tuple[FORMATS, ...] = ()  # docs/delivery.md
    raise_confidence: tuple[Confidence, ...] = ()  # to train anew with, one after the other, while a form is below
    # the floors


@dataclass(frozen=True, config=SECTION)
class RegistrySettings:
    """Where a release is recorded."""

    name: str = Field(default_factory=lambda: project_name(Path()))  # registered model; null: as the folder is called
    # that holds the file of settings, or the current one
    tracking_uri: str | None = None  # null: MLFLOW_TRACKING_URI, else SQLite under mlruns/
    store: Literal["patch", "model"] = "patch"  # what a version holds: its patch, for which the base model is found
    # again when it is loaded, or the whole edited model
    keep_refused: StrictBool = True  # register a refused release too, as such; a tampered patch never is
    promote: Literal["auto", "wait", "never", True, False] = "auto"  # move `champion` when every gate passes; wait: if
    # a person says so on Prefect's page; true and false stand for auto and never

    def __post_init__(self) -> None:
        if not fits(self.name):
            raise InputError(f"registry.name is {self.name!r}; name a model, without {' '.join(UNFIT)}")
        if isinstance(self.promote, bool):
            object.__setattr__(self, "promote", "auto" if self.promote else "never")


@dataclass(frozen=True, config=SECTION)
class Settings:
    """Everything a run depends on; one section of `params.yaml` a field."""

    model: ModelSettings = Field(default_factory=ModelSettings)
    edits: EditsSettings = Field(default_factory=EditsSettings)
    validation: ValidationSettings = Field(default_factory=ValidationSettings)
    localization: LocalizationSettings = Field(default_factory=LocalizationSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    trunk: TrunkSettings = Field(default_factory=TrunkSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    judge: JudgeSettings = Field(default_factory=JudgeSettings)
    capability: CapabilitySettings = Field(default_factory=CapabilitySettings)
    gates: GateSettings = Field(default_factory=GateSettings)
    monitor: MonitorSettings = Field(default_factory=MonitorSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)

    def __post_init__(self) -> None:
        if self.training.recipe == "paper":
            object.__setattr__(self, "training", dataclasses.replace(self.training, **PAPER))
        if self.gates.judged and self.judge.address is None:
            raise InputError("gates.judged is true, but there is no judge; set judge.address, or gates.judged to false")


def load_settings(path: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Read settings from a YAML file; `overrides` maps dotted names (`training.seed`) to values that win.

    Without a path, `params.yaml` in the current folder is read if it is there. Raises InputError, with a suggestion,
    for unknown keys, wrong types and impossible values.
    """
    origin = Path(path) if path else Path("params.yaml")
    values = with_overrides(read_sections(origin) if path or origin.exists() else {}, overrides or {})
    registry = values.get("registry") or {}
    if isinstance(registry, dict) and registry.get("name") is None:
        values["registry"] = {**registry, "name": project_name(origin.parent)}
    try:
        return build_settings(values)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error


def build_settings(values: Mapping[str, Any]) -> Settings:
    """Settings from the sections' plain values; InputError, with a suggestion, for keys and values that do not fit."""
    sections = {name: {} if own is None else own for name, own in values.items()}
    settings: Settings = build(Settings, sections)
    check_method(settings.training)  # here, as looking for other packages' methods takes milliseconds
    _check_recipe(settings, sections.get("training", {}))
    return settings


def read_sections(path: Path) -> dict[str, Any]:
    """The sections of a YAML file, unchecked; InputError if it is none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InputError(f"configuration '{path}' cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"configuration '{path}' is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise InputError(f"configuration '{path}' must hold sections such as 'training:'")
    return values


def with_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The sections with values by dotted name (`training.seed`) in place of their own."""
    found = dict(values)
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        if key:
            own = found.get(section) or {}
            if not isinstance(own, Mapping):
                continue  # it is refused when the settings are built
            value = with_overrides(own, {key: value})
        found[section] = value
    return found


def override(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """The settings with values by dotted name (`training.preservation.weight`) in place of their own."""
    return build_settings(with_overrides(to_dict(settings), overrides))


def to_dict(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, for JSON and for digests."""
    return dataclasses.asdict(settings)


def _check_recipe(settings: Settings, written: Mapping[str, Any]) -> None:
    """InputError if a key of `training` that was written says other than the recipe that stands beside it."""
    if settings.training.recipe == "own":
        return
    own: TrainingSettings = build(TrainingSettings, {**written, "recipe": "own"})
    for name, asked, value in _leaves(own, settings.training, written, "training."):
        if name != "training.recipe" and asked != value:
            raise InputError(
                f"training.recipe is '{settings.training.recipe}', which sets {name} to {as_yaml(value)}, but it is "
                f"{as_yaml(asked)}; leave {name} out, or set training.recipe to own"
            )


def _leaves(left: Any, right: Any, written: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name and both values of every key that was written."""
    for key, value in written.items():
        own, other = getattr(left, key), getattr(right, key)
        if isinstance(value, Mapping):
            yield from _leaves(own, other, value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", own, other
