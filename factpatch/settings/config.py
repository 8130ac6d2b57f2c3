"""Settings: one `params.yaml`, read into typed, frozen values; unknown keys and impossible values are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml

from factpatch.edits.forms import COLUMNS
from factpatch.errors import InputError
from factpatch.settings.build import build
from factpatch.settings.naming import UNFIT, fits, project_name
from factpatch.settings.training import PAPER, TrainingSettings, check_strengths

AUTO = "auto"  # where a setting lets the run choose by itself


@dataclass(frozen=True)
class ModelSettings:
    """Which model to edit, and how to load it."""

    path: str | None = None  # folder, GGUF file or hub name; must be named
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the loaded weights; trained ones are float32
    device: str = "cpu"  # as torch names it: cpu, cuda, cuda:1
    trust_remote_code: bool = False  # run code that comes with the model


@dataclass(frozen=True)
class EditsSettings:
    """Which edits to write."""

    path: str = "data/edits"  # file, folder (folded in file-name order) or `datasets` hub name
    columns: dict[str, str] = field(default_factory=dict)  # where the fields stand in rows of a form of your own: our
    # name -> dotted path, such as target: answers.0.text; docs/extending.md
    chat_template: bool = False  # put prompts through the model's chat template
    limit: int | None = None  # only the first N accepted edits
    mode: Literal["auto", "incremental", "rebuild"] = "auto"  # of a release: add to the champion's patch where that
    # can be (auto), refuse to run where it cannot (incremental), or start from the base model

    def __post_init__(self) -> None:
        for name, path in self.columns.items():
            if name not in COLUMNS:
                raise InputError(f"edits.columns names '{name}', which no edit has; known here: {', '.join(COLUMNS)}")
            if not all(path.split("+")):
                raise InputError(f"edits.columns.{name} is '{path}'; write a path such as answers.0.text")


@dataclass(frozen=True)
class ValidationSettings:
    """How strictly edit requests are checked."""

    strict: bool = False  # refuse on any finding (for CI)


LEAST_SAMPLE = 8  # edits; of fewer, no trial tells places apart
WEIGHED = ("reliability", "generalization", "locality", "capability")  # metrics that make a place's quality


@dataclass(frozen=True)
class LocalizationSettings:
    """Where to write."""

    location: str | None = None  # such as "4:mlp.down_proj" or, by role, "4:down"; null searches
    modules: tuple[
        str, ...
    ] = ()  # modules or roles, tried at every layer; none named: all roles, see `structure.roles`
    method: Literal["auto", "grid"] = "auto"  # a signal, short runs for few, whole ones for fewer / whole runs for all
    sample: int = 24  # edits a place is tried on
    budget_edits: int = 288  # of a search (auto) in all its trials: the sample's edits, once for each trial
    budget_minutes: float = 3.0  # of a search (auto) among 200 edits, fewer take less; trials are planned to fit
    weights: dict[str, float] = field(  # of each metric in a place's quality; one that is not named has none
        default_factory=lambda: dict.fromkeys(WEIGHED, 1.0)
    )
    reuse: bool = True  # keep an earlier choice for edits of the same kind, after a check on a few of them (auto)
    workers: int = 1  # processes that share a grid, through Prefect's Dask task runner; 1: none but this one
    cache: str | None = ".cache/localization"  # folder where trials and choices stay for later runs; null keeps none

    def __post_init__(self) -> None:
        for name in self.weights:
            if name not in WEIGHED:
                raise InputError(f"localization.weights names '{name}'; known here: {', '.join(WEIGHED)}")


@dataclass(frozen=True)
class TrunkSettings:
    """What is kept of the frozen layers below the location, so that they run once for each edit."""

    keep: bool = True  # false runs the whole model in every step
    folder: str | None = ".cache/trunk"  # where activations stay for later runs; null keeps them in memory alone
    memory_gb: float = 4.0  # beyond it they are mapped from disk
    disk_gb: float = 50.0  # of the folder; what was not used for longest goes first


@dataclass(frozen=True)
class EvaluationSettings:
    """How success is measured."""

    protocol: Literal["default", "paper"] = "default"  # paper: "." ends every answer, even one that holds a "."
    max_new_tokens: int = 32  # generation budget of an answer
    report_tokens: int = 12  # shown of an answer whose verdict is sure by then; it ends in "…" where it would go on
    other_form: int | None = 16  # edits asked in the chat form that is not trained too, drawn by seed; null: all
    batch_size: int = 64  # prompts a forward pass
    cache: str | None = ".cache/answers"  # folder where the base model's answers stay for later runs; null keeps none
    make_probes: bool = True  # paraphrases and locality probes for rows without any; docs/gates.md


@dataclass(frozen=True)
class JudgeSettings:
    """A model that judges the answers that exact match calls wrong. docs/gates.md says how; none without an address."""

    address: str | None = None  # of a server of OpenAI's kind, such as http://127.0.0.1:8000/v1; its key, if it wants
    # one, comes from the environment variable OPENAI_API_KEY alone
    model: str | None = None  # as the server names it
    calls: int = 1000  # budget: requests of a run, repeated ones too; what is beyond stays unjudged
    seconds: float = 30.0  # that the server may take for an answer
    retries: int = 2  # of a request that the server was too slow or too busy for
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


@dataclass(frozen=True)
class CapabilitySettings:
    """General tasks scored before and after, through lm-evaluation-harness."""

    suite: Literal["portable", "embedded", "paper", "wide"] = "portable"  # see factpatch/evaluation/suites.py
    tasks: tuple[str, ...] | None = None  # by name, in place of the suite's; an empty list scores none
    include: str | None = None  # folder of local task files, beside those that come along
    text: str | None = None  # file of paragraphs, one a line or JSON Lines with `text`, for the task portable_text;
    # null: those that come along
    limit: int | None = None  # items a task, over the suite's own limit; null takes that
    batch_size: int = 64
    cache: str | None = ".cache/capability"  # folder where the base model's scores stay for later runs; null keeps none


@dataclass(frozen=True)
class GateSettings:
    """What a release must reach to be promoted; shares in [0, 1]. docs/gates.md says how each is judged."""

    reliability: float = 0.95
    generalization: float = 0.8
    locality: float = 0.5
    portability: float | None = None  # null: no such gate
    required: tuple[Literal["reliability", "generalization", "locality", "portability"], ...] = ("reliability",)
    # ^ floors that edits without such probes may not skip; portability's, once set, never may
    judged: bool = False  # the judge's shares in place of exact match, for the floors that it has shares for
    capability_drop: float = 0.05  # margin: largest fall of any capability task, beyond doubt
    text_rise: float = 0.03  # margin: largest rise of bits a byte of general text, as a share, beyond doubt
    canaries: str | None = AUTO  # file of edit requests whose prompts must be answered right after every edit; auto:
    # some general knowledge that the base model surely has; null: none
    weight_change: float | None = 1.0  # largest change of a located tensor, as a share of its norm; null: no such gate
    reload: int = 16  # edited prompts put to the model as the registry gives it back; 0: no such gate


@dataclass(frozen=True)
class MonitorSettings:
    """When facts count as lost in a model that is in use."""

    limit: float | None = None  # least share of live facts answered right; null: gates.reliability


@dataclass(frozen=True)
class RegistrySettings:
    """Where a release is recorded."""

    name: str = field(default_factory=lambda: project_name(Path()))  # registered model; null: as the folder is called
    # that holds the file of settings, or the current one
    tracking_uri: str | None = None  # null: MLFLOW_TRACKING_URI, else SQLite under mlruns/
    keep_refused: bool = True  # register a refused release too, as such; a tampered patch never is
    promote: Literal["auto", "wait", "never", True, False] = "auto"  # move `champion` when every gate passes; wait: if
    # a person says so on Prefect's page; true and false stand for auto and never

    def __post_init__(self) -> None:
        if not fits(self.name):
            raise InputError(f"registry.name is {self.name!r}; name a model, without {' '.join(UNFIT)}")
        if isinstance(self.promote, bool):
            object.__setattr__(self, "promote", "auto" if self.promote else "never")


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on; one section of `params.yaml` a field."""

    model: ModelSettings = field(default_factory=ModelSettings)
    edits: EditsSettings = field(default_factory=EditsSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    localization: LocalizationSettings = field(default_factory=LocalizationSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    trunk: TrunkSettings = field(default_factory=TrunkSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    capability: CapabilitySettings = field(default_factory=CapabilitySettings)
    gates: GateSettings = field(default_factory=GateSettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)

    def __post_init__(self) -> None:
        if self.training.recipe == "paper":
            object.__setattr__(self, "training", dataclasses.replace(self.training, **PAPER))
        rate = self.training.learning_rate
        for name, value, low, high in (
            ("edits.limit", 1 if self.edits.limit is None else self.edits.limit, 1, None),
            ("training.learning_rate", 1.0 if rate == "auto" else rate, 1e-9, 1.0),
            ("training.batch_size", self.training.batch_size or 1, 1, None),
            ("training.confidence", self.training.confidence, 0.5, 0.9999),
            ("training.micro_batch", self.training.micro_batch or 1, 1, None),
            ("training.epochs", self.training.epochs, 1, None),
            ("training.checkpoint_seconds", self.training.checkpoint_seconds, 0.0, None),
            ("training.protect_ratio", self.training.protect_ratio, 0.0, None),
            ("training.stop_loss", self.training.stop_loss, 0.0, None),
            ("training.rank", self.training.rank or 1, 1, None),
            ("training.neighbours", self.training.neighbours, 0.0, None),
            ("training.protect_least", self.training.protect_least, 0, None),
            ("training.keep_weight", self.training.keep_weight, 0.0, None),
            ("training.project_share", self.training.project_share, 0.0, 1.0),
            ("training.wordings", self.training.wordings, 0, None),
            ("training.prefixes", self.training.prefixes, 0, None),
            ("trunk.memory_gb", self.trunk.memory_gb, 0.0, None),
            ("trunk.disk_gb", self.trunk.disk_gb, 0.0, None),
            ("localization.sample", self.localization.sample, LEAST_SAMPLE, None),
            ("localization.workers", self.localization.workers, 1, None),
            ("localization.budget_edits", self.localization.budget_edits, 1, None),
            ("localization.budget_minutes", self.localization.budget_minutes, 0.0, None),
            *((f"localization.weights.{key}", share, 0.0, None) for key, share in self.localization.weights.items()),
            ("evaluation.max_new_tokens", self.evaluation.max_new_tokens, 1, None),
            ("evaluation.report_tokens", self.evaluation.report_tokens, 1, None),
            ("evaluation.other_form", self.evaluation.other_form or 0, 0, None),
            ("evaluation.batch_size", self.evaluation.batch_size, 1, None),
            ("judge.calls", self.judge.calls, 1, None),
            ("judge.seconds", self.judge.seconds, 0.01, None),
            ("judge.retries", self.judge.retries, 0, None),
            ("capability.batch_size", self.capability.batch_size, 1, None),
            ("capability.limit", 1 if self.capability.limit is None else self.capability.limit, 1, None),
            ("gates.text_rise", self.gates.text_rise, 0.0, None),
            *(
                (f"gates.{name}", getattr(self.gates, name) or 0.0, 0.0, 1.0)
                for name in ("reliability", "generalization", "locality", "portability", "capability_drop")
            ),
            ("monitor.limit", self.monitor.limit or 0.0, 0.0, 1.0),
            ("gates.weight_change", self.gates.weight_change or 0.0, 0.0, None),
            ("gates.reload", self.gates.reload, 0, None),
        ):
            if not low <= value or (high is not None and value > high):
                upper = "" if high is None else f" and at most {high:g}"
                raise InputError(f"{name} is {value:g}; it must be at least {low:g}{upper}")
        check_strengths(self.training)
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
        return build(Settings, values)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error


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
        own = found.get(section) or {}
        if isinstance(own, Mapping):  # else it is refused when the settings are built
            found[section] = {**own, key: value}
    return found


def to_dict(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, for JSON and for digests."""
    return dataclasses.asdict(settings)
