"""A release on one screen: short tables for the terminal."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from factpatch.addresses import shell_path
from factpatch.files import read_json
from factpatch.report.evidence import percent, verdict
from factpatch.settings.config import Settings

EDITS_SHOWN = 3  # edits, with their answers
TEXT_COLUMNS = frozenset({"", "reason", "said before", "says now"})  # columns that are no numbers
HIDDEN_METRICS = frozenset({"locality_correct", "token_accuracy"})


@dataclass(frozen=True)
class Section:
    """One small table of texts."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sections(release: dict[str, Any]) -> list[Section]:
    """What was edited, what it did, and whether it may go out."""
    edits, location, mode = release["edits"], release["location"], release.get("mode")
    begun = "the base model" if mode is None or mode["from"] is None else f"the patch of version {mode['from']}"
    overview = (
        ("status", release["status"]),
        ("model", f"{release['model']} version {release['version'] or '–, not registered'}"),
        ("aliases", ", ".join(release.get("aliases", [])) or "none"),
        ("edits", f"{edits['accepted']} of {edits['total']} accepted, {edits['quarantined']} quarantined"),
        ("begun with", begun),
        ("location", _place(location)),
    )
    metrics = tuple(
        (name, *_shown(value), _items(value))
        for name, value in release["metrics"].items()
        if name not in HIDDEN_METRICS and value.get("after") is not None
    )
    capability = tuple(
        (name, percent(value["before"]), percent(value["after"]), interval(value.get("ci95")), str(value.get("n", "")))
        for name, value in release["capability"].items()
    )
    gates = tuple((gate["name"], verdict(gate), gate["reason"]) for gate in release["gates"])
    measured = ("", "before", "after", "95 % interval", "n")
    return [
        Section("Release", ("", ""), overview),
        Section("Edits", measured, metrics),
        Section("Capability", measured, capability),
        Section("Gates", ("gate", "verdict", "reason"), gates),
    ]


def _shown(value: dict[str, Any]) -> tuple[str, str, str]:
    """A metric before and after with its interval, in its unit."""
    unit = value.get("unit", "share")
    return percent(value["before"], unit), percent(value["after"], unit), interval(value.get("ci95"), unit)


def _items(value: dict[str, Any]) -> str:
    """How many items a metric rests on, and how many tell nothing."""
    apart = f", {value['unmeasured']} unmeasured" if value.get("unmeasured") else ""
    return f"{value.get('n', 0)}{apart}"


def _place(location: dict[str, Any]) -> str:
    if location["layer"] is None:
        return "nowhere: this is the base model"
    last = location.get("last_layer")
    layers = f"layer {location['layer']}" if last is None else f"layers {location['layer']} to {last}"
    return f"{layers}, {location['module'] or 'whole block'}"


def answers(evaluation: dict[str, Any]) -> Section:
    """What the model said, and says now, to the first few edits."""
    rows = tuple((edit["prompt"], edit["before"] or "", edit["output"]) for edit in evaluation["edits"][:EDITS_SHOWN])
    return Section("Answers", ("prompt", "said before", "says now"), rows)


def show(release: dict[str, Any], evaluation: dict[str, Any], console: Console | None = None) -> None:
    """The tables on the terminal."""
    console = console or Console(highlight=False)
    for section in (*sections(release), answers(evaluation)):
        if section.rows:
            table = Table(
                title=section.title, title_justify="left", title_style="bold", show_header=any(section.header)
            )
            for number, name in enumerate(section.header):
                table.add_column(name, justify="left" if number == 0 or name in TEXT_COLUMNS else "right")
            for row in section.rows:
                table.add_row(*map(escape, row))
            console.print(table)


def show_next(settings: Settings, output: str, console: Console | None = None) -> None:
    """Where the pages are, and one question to ask before and after."""
    console = console or Console(highlight=False)
    folder = Path(output)
    evaluation, release = read_json(folder / "evaluate.json"), read_json(folder / "release.json")
    store = release["tracking_uri"]
    api = os.environ.get("PREFECT_API_URL")
    pages = (
        f"report   {folder / 'report.html'}",
        f"MLflow   mlflow ui --backend-store-uri {quote(store)}" if store.startswith("sqlite") else f"MLflow   {store}",
        f"Prefect  {api.removesuffix('/api')}" if api else "Prefect  prefect server start",
    )
    console.print(escape("\n".join(pages)), soft_wrap=True)
    reliable = [edit for edit in evaluation["edits"] if edit["reliable"]]
    shown = next((edit for edit in reliable if edit["prompt"].replace(" ", "").isalnum()), next(iter(reliable), None))
    if shown:
        model, asked = shell_path(settings.model.path or ""), quote(shown["prompt"])
        prompt = f"-- {asked}" if shown["prompt"].startswith("-") else asked
        for patch, answer in (("", shown["before"]), (f" --patch {shell_path(folder / 'patch')}", shown["output"])):
            console.print(escape(f"$ factpatch ask --model {model}{patch} {prompt}"), soft_wrap=True)
            console.print(escape(answer), soft_wrap=True)


def interval(bounds: list[float] | None, unit: str = "share") -> str:
    """A 95 % interval of a share in percent, or of another number as it is."""
    if not bounds:
        return ""
    low, high = bounds
    return f"{100 * low:.1f} to {100 * high:.1f}" if unit == "share" else f"{low:.3g} to {high:.3g}"
