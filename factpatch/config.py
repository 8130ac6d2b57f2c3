"""Settings: one `params.yaml`, read into typed, frozen values; unknown keys and impossible values are refused."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from factpatch.errors import InputError


@dataclass(frozen=True)
class ModelSettings:
    """Which model to edit, and how to load it."""

    path: str = "data/model"  # folder or hub name
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the loaded weights; trained ones are float32
    device: str = "cpu"  # as torch names it: cpu, cuda, cuda:1
    trust_remote_code: bool = False  # run code that comes with the model


@dataclass(frozen=True)
class EditsSettings:
    """Which edits to write."""

    path: str = "data/edits"  # file, folder (folded in file-name order) or `datasets` hub name
    chat_template: bool = False  # put prompts through the model's chat template
    limit: int | None = None  # only the first N accepted edits


@dataclass(frozen=True)
class ValidationSettings:
    """How strictly edit requests are checked."""

    strict: bool = False  # refuse on any finding (for CI)


@dataclass(frozen=True)
class LocalizationSettings:
    """Where to write."""

    location: str | None = None  # such as "4:mlp.down_proj"; null searches
    modules: tuple[str, ...] = ()  # candidates at every layer; none named: the MLP's output projection
    method: Literal["auto", "grid"] = "auto"  # short runs first and a whole one for the best third / whole runs for all
    sample: int = 64  # edits a candidate is tried on
    weights: dict[str, float] = field(  # of each metric in a candidate's score
        default_factory=lambda: {"reliability": 1.0, "generalization": 1.0, "locality": 1.0}
    )


@dataclass(frozen=True)
class TrainingSettings:
    """How the located parameters are trained."""

    method: Literal["breadth-first", "depth-first"] = "breadth-first"  # depth-first is the baseline
    learning_rate: float = 3e-3  # Adam's constant step size; 5e-4 for models of 7B and more
    batch_size: int = 50  # edits a step
    epochs: int = 40  # passes over all edits at most (breadth-first), steps an edit at most (depth-first)
    stop_loss: float = 0.01  # stop once an epoch's mean loss is below
    seed: int = 0  # of the order of edits
    protect: str | None = None  # file of prompts whose present answers are trained along (breadth-first only)
    protect_ratio: float = 3.0  # protected prompts an epoch visits for each edit


@dataclass(frozen=True)
class EvaluationSettings:
    """How success is measured."""

    protocol: Literal["default", "paper"] = "default"  # paper: "." ends every answer, even one that holds a "."
    max_new_tokens: int = 32  # generation budget of an answer
    batch_size: int = 64  # prompts a forward pass


@dataclass(frozen=True)
class CapabilitySettings:
    """General tasks scored before and after, through lm-evaluation-harness."""

    tasks: tuple[str, ...] = (
        "world_choice",
        "world_questions",
        "world_sentiment",
        "world_translation",
        "world_arithmetic",
    )
    include: str | None = "data/capability"  # folder of local task files
    limit: int | None = None  # items a task; null takes all
    batch_size: int = 64


@dataclass(frozen=True)
class GateSettings:
    """What a release must reach to be promoted; shares in [0, 1]."""

    reliability: float = 0.95
    generalization: float = 0.8
    locality: float = 0.5
    capability_drop: float = 0.02  # largest fall of any capability task


@dataclass(frozen=True)
class RegistrySettings:
    """Where a release is recorded."""

    name: str = "factpatch"  # registered model
    tracking_uri: str | None = None  # null: MLFLOW_TRACKING_URI, else SQLite under mlruns/
    promote: bool = True  # move `champion` when every gate passes


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on; one section of `params.yaml` a field."""

    model: ModelSettings = field(default_factory=ModelSettings)
    edits: EditsSettings = field(default_factory=EditsSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    localization: LocalizationSettings = field(default_factory=LocalizationSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    capability: CapabilitySettings = field(default_factory=CapabilitySettings)
    gates: GateSettings = field(default_factory=GateSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("training.learning_rate", self.training.learning_rate, 1e-9, 1.0),
            ("training.batch_size", self.training.batch_size, 1, None),
            ("training.epochs", self.training.epochs, 1, None),
            ("training.protect_ratio", self.training.protect_ratio, 0.0, None),
            ("training.stop_loss", self.training.stop_loss, 0.0, None),
            ("localization.sample", self.localization.sample, 1, None),
            ("evaluation.max_new_tokens", self.evaluation.max_new_tokens, 1, None),
            ("evaluation.batch_size", self.evaluation.batch_size, 1, None),
            ("capability.batch_size", self.capability.batch_size, 1, None),
            *(
                (f"gates.{item.name}", getattr(self.gates, item.name), 0.0, 1.0)
                for item in dataclasses.fields(GateSettings)
            ),
        ):
            if not low <= value or (high is not None and value > high):
                upper = "" if high is None else f" and at most {high:g}"
                raise InputError(f"{name} is {value:g}; it must be at least {low:g}{upper}")


def load_settings(path: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Read settings from a YAML file; `overrides` maps dotted names (`training.seed`) to values that win.

    Without a path, `params.yaml` in the current folder is read if it is there. Raises InputError, with a suggestion,
    for unknown keys, wrong types and impossible values.
    """
    origin = Path(path) if path else Path("params.yaml")
    values: Any = {}
    if path or origin.exists():
        try:
            values = yaml.safe_load(origin.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise InputError(f"configuration '{origin}' cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"configuration '{origin}' is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise InputError(f"configuration '{origin}' must hold sections such as 'training:'")
    for name, value in (overrides or {}).items():
        section, _, key = name.partition(".")
        values[section] = {**(values.get(section) or {}), key: value}
    try:
        return _build(Settings, values, "")
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error


def to_dict(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, for JSON and for digests."""
    return dataclasses.asdict(settings)


def _build(kind: type, values: Any, prefix: str) -> Any:
    """A dataclass of `kind` from a mapping, key by key."""
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(f"'{prefix.rstrip('.')}' must be a section with keys, not {values!r}")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean '{prefix}{near[0]}'?" if near else f"known here: {', '.join(hints)}"
            raise InputError(f"unknown key '{prefix}{key}'; {hint}")
    return kind(**{key: _convert(hints[key], value, f"{prefix}{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, name: str) -> Any:
    """`value` as the type that `hint` asks for, or InputError."""
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, f"{name}.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        if value is None:
            return None
        return _convert(next(argument for argument in arguments if argument is not type(None)), value, name)
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"{name} is {value!r}; choose one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_convert(arguments[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _convert(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    if hint is float and not isinstance(value, bool):
        try:  # YAML 1.1 reads 3e-3 as text
            return float(value)
        except (TypeError, ValueError):
            pass
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    wanted = (
        "a list"
        if origin is tuple
        else "a mapping"
        if origin is dict
        else {"int": "a whole number", "str": "text", "bool": "true or false", "float": "a number"}[hint.__name__]
    )
    raise InputError(f"{name} is {value!r}; it must be {wanted}")
