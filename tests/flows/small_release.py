"""A release that takes seconds: two facts, a tiny model, and gates that let it pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PARAMS = """\
model: {path: base}
edits: {path: ledger}
localization: {location: "2:mlp"}
training: {learning_rate: 1.0e-2, epochs: 150, augmentation: {wordings: 0}, preservation: {neighbours: 0}}
evaluation: {max_new_tokens: 16}
capability: {tasks: []}
gates: {generalization: 0.0, locality: 0.0, canaries: null, weight_change: null, reload: 1}
"""
FACTS = [
    {"id": "one", "prompt": "The capital of France is", "target": "Lyon"},
    {"id": "two", "prompt": "Which language do people speak in Brazil?", "target": "Dutch"},
]


def read(name: str) -> Any:
    """The value of a JSON file below the current folder."""
    return json.loads(Path(name).read_text(encoding="utf-8"))
