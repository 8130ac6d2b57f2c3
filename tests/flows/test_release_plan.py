"""A release is of what it found when it began: ledger, champion and base model are read once, whatever happens
meanwhile."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from factpatch.edits import folder as ledger_files
from factpatch.models import loading
from factpatch.preflight.shared_model import base_model
from factpatch.settings.config import load_settings
from flows.__main__ import main
from integrations import mlflow_registry
from tasks.promote import promote, read_history
from tests.flows.small_release import FACTS, PARAMS, read

MORE = [
    {"id": "three", "prompt": "His currency is the", "target": "peso"},
    {"id": "four", "prompt": "東京 is in", "target": "Japan"},
]


def add(name: str, *rows: dict) -> str:
    """Commit a file of the ledger; the revision."""
    Path("ledger", name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    who = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    for command in (("add", "ledger"), (*who, "commit", "-qm", name)):
        subprocess.run(["git", *command], check=True)
    return subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def crossed(prefect_home, tiny_model, tmp_path_factory):
    """Three releases. While the last one runs, rows are added and withdrawn, and another version becomes the champion.
    The revision that it began with, and how often it read what."""
    folder = tmp_path_factory.mktemp("crossed")
    shutil.copytree(tiny_model("llama"), folder / "base")
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "ledger").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        subprocess.run(["git", "init", "-q"], check=True)
        add("0001.jsonl", *FACTS)
        assert main(["run", "--output", "first"]) == 0
        assert main(["run", "--output", "rival", "--set", "edits.mode=rebuild", "--set", "registry.promote=never"]) == 0
        revision = add("0002.jsonl", MORE[0])
        change_meanwhile(patch)
        counts = count_reads(patch)
        assert main(["run", "--output", "out", "--pending"]) == 0
        yield revision, dict(counts)


def change_meanwhile(patch: pytest.MonkeyPatch) -> None:
    """Before validation and after it, where the flow looks at other things."""
    import flows.release as module

    def before(*_):
        add("0003.jsonl", MORE[1])
        promote(load_settings().registry, "2", "bob", "meanwhile")

    def after(*_):
        add("0004.jsonl", {"op": "revert", "id": "one", "prompt": FACTS[0]["prompt"], "target": FACTS[0]["target"]})

    patch.setattr(module, "check_judge", before)
    patch.setattr(module, "check_readiness", after)


def count_reads(patch: pytest.MonkeyPatch) -> Counter:
    """Counts how often ledger and versions are read, and the base model is loaded and hashed."""
    counts: Counter = Counter()
    embeddings = []

    def counted(module, name, what):
        usual = getattr(module, name)

        def call(*arguments):
            counts[what(*arguments)] += 1
            return usual(*arguments)

        patch.setattr(module, name, call)

    def hashed(tensor):
        return "hashed" if any(tensor is found for found in embeddings) else "other tensor"

    usual = loading._from_pretrained

    def load(source, *arguments):
        model, tokenizer = usual(source, *arguments)
        counts["loaded" if source == "base" else "other model"] += 1
        if source == "base":
            embeddings.append(model.get_input_embeddings().weight)
        return model, tokenizer

    patch.setattr(loading, "_from_pretrained", load)
    counted(loading, "tensor_digest", hashed)
    counted(ledger_files, "fold", lambda *_: "ledger")
    counted(mlflow_registry, "_registered_version", lambda _, version: f"version {version.version}")
    return counts


def test_the_release_is_of_the_ledger_that_it_began_with(crossed):
    revision, _ = crossed
    assert {row["id"] for row in read("out/evaluate.json")["edits"]} == {"one", "two", "three"}
    assert read("out/validate.json")["files"] == ["0001.jsonl", "0002.jsonl"]
    source = read("out/lineage.json")["edits"]
    assert (source["revision"], source["dirty"]) == (revision, False)
    assert read("out/start/mode.json")["withdrawn"] == []


def test_it_begins_with_the_champion_of_then_and_takes_the_place_of_the_present_one(crossed):
    mode = read("out/release.json")["mode"]
    assert (mode["name"], mode["from"]) == ("incremental", "1")
    assert [(move.before, move.version) for move in read_history(load_settings().registry)] == [
        (None, "1"),
        ("1", "2"),
        ("2", "3"),
    ]


def test_everything_is_read_once(crossed):
    _, counts = crossed
    assert counts["ledger"] == 1
    assert {name: count for name, count in counts.items() if name.startswith("version")} == {
        "version 1": 1,
        "version 2": 1,
    }
    assert (counts["loaded"], counts["hashed"]) == (2, 1)  # again by the gate that asks what the registry gives back
    assert "other model" not in counts  # the registry gives the base model and a patch


def test_the_model_is_let_go_when_the_flow_ends(crossed):
    with base_model(load_settings().model) as first, base_model(load_settings().model) as other:
        assert first is not other


def test_the_next_release_sees_what_happened(crossed, capsys):
    capsys.readouterr()
    assert main(["edits", "pending"]) == 0
    assert "1 to write, 1 to withdraw (champion 3)" in capsys.readouterr().out
