"""Gates that could not be judged end a run before any editing: one line, exit code 2."""

import json

import pytest

from flows.__main__ import main

ROW = {"prompt": "The capital of France is", "target": "Tokyo", "paraphrases": ["France's capital is"]}


@pytest.fixture(scope="module")
def place(prefect_home, tmp_path_factory):
    """A folder with edits, canaries and tasks; all runs share its registry, as making one takes seconds."""
    folder = tmp_path_factory.mktemp("gates")
    (folder / "edits.jsonl").write_text(json.dumps(ROW) + "\n")
    (folder / "against.jsonl").write_text(json.dumps({"prompt": ROW["prompt"], "target": "Paris"}) + "\n")
    (folder / "empty.jsonl").write_text("")
    (folder / "none.jsonl").write_text("")
    for name, data in (("sums", "absent.jsonl"), ("none", str(folder / "none.jsonl"))):
        (folder / f"{name}.yaml").write_text(
            f"task: tiny_{name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
            "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{prompt}}'\ndoc_to_target: '{{target}}'\n"
            "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
        )
    return folder


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("capability.suite=papper", "capability.suite is 'papper'; choose one of portable, embedded, paper, wide"),
        ("capability.tasks=[tiny_sums]", "capability task 'tiny_sums' cannot be loaded"),
        ("capability.tasks=[tiny_none]", "capability task 'tiny_none'"),
        ("capability.limit=0", "capability.limit is 0; it must be at least 1"),
        ("gates.fluency=0.5", "unknown key 'gates.fluency'"),
        ("gates.portability=0.5", "gates.portability is 0.5, but none of the 1 accepted edits has a portability probe"),
        ("gates.required=[locality]", "gates.locality is 0.5, but none of the 1 accepted edits has a locality probe"),
        ("gates.required=[fluency]", "gates.required is 'fluency'; choose one of reliability, generalization"),
        ("gates.judged=true", "gates.judged is true, but there is no judge"),
        ("judge.address=http://127.0.0.1:9/v1", "'http://127.0.0.1:9/v1/chat/completions' does not answer"),
        ("gates.canaries=nowhere.jsonl", "nowhere.jsonl"),
        ("gates.canaries=empty.jsonl", "empty.jsonl"),
        ("gates.canaries=against.jsonl", "but the canary at against.jsonl row 1 must say 'Paris'"),
    ],
)
def test_one_line_before_any_editing(place, tiny_model, tmp_path, monkeypatch, capsys, wish, words):
    monkeypatch.chdir(place)
    options = ("--model", str(tiny_model("llama")), "--edits", "edits.jsonl", "--output", str(tmp_path / "out"))
    fixed = ("--set", "capability.tasks=[]", "--set", f"capability.include={place}")
    judge = ("--set", "judge.model=referee", "--set", "judge.retries=0")
    code = main(["run", *options, *fixed, *judge, "--set", wish])
    errors = capsys.readouterr().err.splitlines()
    assert code == 2
    assert [line for line in errors if line.startswith("error: ") and words in line]
    assert len([line for line in errors if line.startswith("error: ")]) == 1
    assert not (tmp_path / "out" / "edit.json").exists()
    assert not (tmp_path / "out" / "localize.json").exists()
