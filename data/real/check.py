"""Ask the real model what `edits/` takes it to know: `python -m data.real.check MODEL`; exit code 1 if it does not."""

from __future__ import annotations

import sys
from pathlib import Path

from factpatch.edits.folder import read_ledger
from factpatch.edits.request import EditRequest
from factpatch.evaluation.answers import normalise
from factpatch.evaluation.evaluate import collect_answers
from factpatch.models.loading import load_model
from factpatch.settings.config import EvaluationSettings, ModelSettings, Settings

EDITS = Path(__file__).parent / "edits"
TOKENS = 8  # of an answer: all old facts are shorter


def unknown(model: str) -> list[str]:
    """Every prompt, paraphrase and locality probe that the model does not answer with the old fact first, and what it
    says."""
    edits = [EditRequest.from_row(dict(entry.row.values)) for entry in read_ledger(str(EDITS))]
    settings = Settings(model=ModelSettings(path=model), evaluation=EvaluationSettings(max_new_tokens=TOKENS))
    outputs = collect_answers(load_model(settings.model), edits, settings).outputs
    asked = [(prompt, edit.target_old[0]) for edit in edits for prompt in (edit.prompt, *edit.paraphrases)]
    asked += [(probe.prompt, probe.target) for edit in edits for probe in edit.locality]
    return [
        f"{prompt} {outputs[prompt]!r}, not {answer!r}"
        for prompt, answer in asked
        if not f"{normalise(outputs[prompt])} ".startswith(f"{normalise(answer)} ")
    ]


if __name__ == "__main__":
    found = unknown(sys.argv[1])
    print("\n".join(found) or "the model knows all of it")
    sys.exit(bool(found))
