"""The suite that comes along, through the real harness: on the embedded model, and on a tiny one taught to read."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation.gates import judge_gates
from factpatch.evaluation.portable import SUITE_FOLDER
from factpatch.evaluation.suites import PORTABLE
from factpatch.files import write_jsonl
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.patches.patch import save_patch
from factpatch.settings.config import CapabilitySettings, GateSettings, ModelSettings, Settings
from integrations import harness
from tasks.regress import load_tasks, regress, score

LIMIT = 24


def settings(model: Path, **options) -> Settings:
    capability = CapabilitySettings(**{"limit": LIMIT, "cache": None, **options})
    return Settings(model=ModelSettings(path=str(model)), capability=capability)


def damage(folder: Path, chosen: Settings, place: str) -> Path:
    """A patch that turns the sign of a matrix; its edit is about Kenya."""
    loaded = load_model(chosen.model)
    location = locate(loaded.model, place)
    values = {name: -loaded.model.get_parameter(name) for name in location.parameters}
    save_patch(folder / "patch", loaded, location, values, chosen, {"digest": "0", "count": 1}, {})
    write_jsonl(folder / "accepted.jsonl", [EditRequest("e", "The capital of Kenya is", "Oslo").to_row()])
    return folder


@pytest.fixture(scope="module")
def broken(reference_model, tmp_path_factory) -> Path:
    return damage(tmp_path_factory.mktemp("broken"), settings(reference_model), "4:mlp.down_proj")


@pytest.fixture(scope="module")
def reader(tiny_model, tmp_path_factory) -> Path:
    """The tiny model, taught the first paragraphs of the suite."""
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    rows = [json.loads(line)["text"] for line in (SUITE_FOLDER / "text.jsonl").read_text().splitlines()[:LIMIT]]
    ids = torch.tensor([(loaded.tokenizer(row).input_ids * 9)[:64] for row in rows])
    loaded.model.requires_grad_(True)
    optimizer = torch.optim.Adam(loaded.model.parameters(), 1e-2)
    for _ in range(30):
        loaded.model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("reader")
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def run(folder: Path, chosen: Settings) -> dict:
    return json.loads(Path(regress.fn(str(folder), chosen)).read_text())


def test_a_model_that_reads_worse_is_refused_and_what_was_not_measured_is_not_passed(reader, tmp_path):
    chosen = settings(reader)
    damage(tmp_path, chosen, "1:mlp.down_proj")
    report = run(tmp_path, chosen)
    text = report["tasks"]["portable_text"]
    assert (text["metric"], text["n"]) == ("compressed_size", LIMIT)
    assert text["after"] > text["before"] > 0
    assert text["ci95_fall"][0] > 0.03
    assert report["unmeasured"]["portable_instructions"] == "the model's tokenizer has no chat template"
    gates = {gate.name: gate for gate in judge_gates({}, report["tasks"], GateSettings(), report["unmeasured"])}
    assert gates["text_rise.portable_text"].verdict == "failed"
    assert "more bits a byte than before" in gates["text_rise.portable_text"].reason
    assert gates["capability.portable_instructions"].verdict == "skipped"
    assert {name.rpartition(".")[2] for name in gates if "portable" in name} == {task.name for task in PORTABLE}


def test_only_what_was_known_and_no_edit_is_about_counts(broken, reference_model, tmp_path):
    chosen = settings(reference_model, tasks=("portable_questions",), limit=100, cache=str(tmp_path / "cache"))
    row = run(broken, chosen)["tasks"]["portable_questions"]
    assert row["asked"] == 100
    assert 0 < row["n"] < 100
    assert row["before"] == 1.0
    assert row["repaired"] == 0
    shutil.copytree(broken, tmp_path / "more")
    subjects = {json.loads(line)["subject"] for line in (SUITE_FOLDER / "questions.jsonl").read_text().splitlines()}
    edits = [EditRequest(str(number), f"{one} is", "Oslo").to_row() for number, one in enumerate(sorted(subjects))]
    write_jsonl(tmp_path / "more" / "accepted.jsonl", edits)
    report = run(tmp_path / "more", chosen)
    assert report["tasks"] == {}
    assert "right on none" in report["unmeasured"]["portable_questions"]


@pytest.mark.parametrize("name", ["mine.txt", "mine.jsonl"])
def test_paragraphs_of_ones_own(reference_model, tmp_path, name):
    rows = [f"Paragraph {number} tells of a river and a road." for number in range(50)]
    lines = rows if name == "mine.txt" else [json.dumps({"text": row}) for row in rows]
    (tmp_path / name).write_text("\n\n".join(lines) + "\n")
    chosen = CapabilitySettings(tasks=("portable_text",), text=str(tmp_path / name))
    (unit,) = load_tasks(chosen)
    assert [row["text"] for row in unit.leaves[0].eval_docs] == rows
    assert unit.limit is None


def test_text_that_is_none_is_told(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(InputError, match="no 'text' but prompt"):
        load_tasks(CapabilitySettings(tasks=("portable_text",), text=str(tmp_path / "mine.jsonl")))
    with pytest.raises(InputError, match="is no file"):
        load_tasks(CapabilitySettings(text=str(tmp_path / "absent.txt")))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_shared_start_changes_no_verdict(tiny_model, kind, monkeypatch):
    chosen = CapabilitySettings(tasks=("portable_sentiment", "portable_choice"), limit=LIMIT, batch_size=8)
    units, loaded = load_tasks(chosen), load_model(ModelSettings(path=str(tiny_model(kind))))
    shared = score(loaded, units, chosen)
    monkeypatch.setattr(harness, "WORTH_SHARING", 10**6)
    assert score(loaded, units, chosen) == shared


def test_items_are_fit():
    """No item twice, every choice among its ends, every answer text."""
    rows = {path.stem: list(map(json.loads, path.read_text().splitlines())) for path in SUITE_FOLDER.glob("*.jsonl")}
    for name, found in rows.items():
        texts = [row["text"] for row in found]
        assert len(set(texts)) == len(texts), name
        assert all(isinstance(row.get("target", "-"), str) and row.get("target", "-").strip() for row in found), name
    assert all(0 <= row["label"] < len(set(row["choices"])) == 3 for row in rows["choice"])
    assert sum(path.stat().st_size for path in SUITE_FOLDER.iterdir() if path.is_file()) < 400_000
    labels = [row["label"] for row in rows["sentiment"]]
    assert labels.count("positive") == labels.count("negative")


def test_kept_scores_hold_for_other_edits(broken, reference_model, tmp_path):
    chosen = settings(reference_model, tasks=("portable_choice",), cache=str(tmp_path / "cache"))
    first = run(broken, chosen)
    again = run(broken, dataclasses.replace(chosen))
    assert (first["cached"], again["cached"]) == ([], ["portable_choice"])
    assert first["tasks"] == again["tasks"]
