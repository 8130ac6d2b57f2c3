"""The validate step: what it writes, when it refuses, and that Great Expectations is the judge."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from factpatch.edits.accepted import read_accepted
from factpatch.edits.checks import CHECKS, FORM_CHECKS
from factpatch.edits.request import EditRequest, digest_edits
from factpatch.errors import InputError, RefusedError
from factpatch.models.loading import load_tokenizer
from factpatch.settings.config import EditsSettings, EvaluationSettings, ModelSettings, Settings, ValidationSettings
from tasks import validate as step

NO_MODEL = Settings(model=ModelSettings(path="./absent"))
GOOD = {"prompt": "The capital of France is", "target": "Lyon"}
ROWS = [
    GOOD,
    {"prompt": "Kiev is a twin city of", "target": "Tokyo"},
    {"prompt": "Kiev is a twin city of", "target": "Santiago"},
    {"prompt": "What is the twin city of Beirut? It is", "target": "Beirut"},
    {"prompt": "<script>alert('x')</script> was made by", "target": "<b>Ann", "target_old": "<b>Ann"},
    {"prompt": "Lone \ud800 surrogate is", "target": "odd"},
    {"prompt": "Reedy Glacier is in ", "target": "Asia", "paraphrases": ["Reedy Glacier is in", "It lies in"]},
]


def write_edits(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def validate(edits, output, settings=NO_MODEL):
    """Call the step and read back what it returns the path of."""
    settings = replace(settings, edits=replace(settings.edits, path=str(edits)))
    return json.loads(Path(step.validate.fn(str(output), settings)).read_text())


def run(tmp_path, rows, settings=NO_MODEL):
    """Validate the rows; the output lies in `tmp_path/out`."""
    return validate(write_edits(tmp_path / "edits.jsonl", rows), tmp_path / "out", settings)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validate")
    run(folder, ROWS)
    return folder / "out"


def test_the_summary_adds_up(output):
    value = json.loads((output / "validate.json").read_text())
    assert value["schema"] == 1
    assert value["seconds"] > 0
    assert value["status"] == "passed"
    assert value["lengths"] == "words"
    numbers = {name: value[name] for name in ("total", "inactive", "accepted", "left_out", "quarantined", "repaired")}
    assert numbers == {
        "total": 7, "inactive": 0, "accepted": 2, "left_out": 0, "quarantined": 5, "repaired": 1
    }  # fmt: skip
    assert {check["name"]: check["count"] for check in value["checks"] if check["count"]} == {
        "contradiction": 2,
        "target_in_prompt": 1,
        "target_is_old_answer": 1,
        "unencodable_text": 1,
        "stray_blanks": 1,
        "paraphrase_is_prompt": 1,
    }
    assert [check["name"] for check in value["checks"]] == [check.name for check in (*FORM_CHECKS, *CHECKS)]
    contradiction = next(check for check in value["checks"] if check["name"] == "contradiction")
    assert contradiction["severity"] == "quarantine"
    assert contradiction["prompts"] == 1
    assert contradiction["fix"]
    assert contradiction["examples"][0].endswith("row 2: Kiev is a twin city of -> Tokyo")
    assert len(value["findings"]) == 7


def test_accepted_rows_are_native_and_mended(output):
    edits = read_accepted(output)
    assert edits[0] == EditRequest.from_row(GOOD)
    assert edits[1].to_row() == {
        "id": edits[1].id,
        "prompt": "Reedy Glacier is in",
        "target": "Asia",
        "paraphrases": ["It lies in"],
    }
    assert json.loads((output / "validate.json").read_text())["digest"] == digest_edits(edits)


def test_quarantined_rows_are_kept_with_file_row_and_reasons(output):
    entries = [json.loads(line) for line in (output / "quarantined.jsonl").read_text().splitlines()]
    assert [entry["row"] for entry in entries] == [2, 3, 4, 5, 6]
    assert all(entry["file"].endswith("edits.jsonl") for entry in entries)
    assert [entry["reasons"][0]["check"] for entry in entries] == [
        "contradiction",
        "contradiction",
        "target_in_prompt",
        "target_is_old_answer",
        "unencodable_text",
    ]
    assert entries[4]["edit"] == ROWS[5]  # the lone surrogate too


def test_data_docs_need_no_network_and_hold_no_foreign_markup(output):
    pages = {page.relative_to(output / "data_docs").as_posix(): page for page in (output / "data_docs").rglob("*.html")}
    assert set(pages) == {"index.html", "expectations/edits.html"}
    text = pages["index.html"].read_text()
    assert "row 5: &lt;script&gt;alert" in text
    assert "Kiev is a twin city of" in text
    assert "No row where the same prompt is given different targets" in text
    for page in pages.values():
        content = page.read_text().lower()
        assert not [mark for mark in ("<script", "<link", "<img", "<b>ann", "src=", "url(") if mark in content]


def test_the_verdicts_come_from_great_expectations(tmp_path, monkeypatch):
    original = step.count_faults

    def one_more(rows, survey):
        return original(rows, survey) | {"target_too_long": [0, 3]}

    monkeypatch.setattr(step, "count_faults", one_more)
    value = run(tmp_path, [GOOD, {"prompt": "p", "target": "t"}])
    assert value["quarantined"] == 1
    assert [found["check"] for found in value["findings"]] == ["target_too_long"]


def test_no_row_turns_round_what_is_shown_of_it(tmp_path):
    value = run(tmp_path, [GOOD, {"prompt": "The capital of \u202eEgypt is", "target": "Lima"}])
    (found,) = [check for check in value["checks"] if check["count"]]
    assert "The capital of [U+202E right-to-left override]Egypt is" in found["examples"][0]
    assert "\u202e" not in (tmp_path / "out" / "data_docs" / "index.html").read_text()


def test_more_failing_rows_than_great_expectations_shows_by_default(tmp_path):
    rows = [{"prompt": f"Is {n} it?", "target": str(n)} for n in range(1000)]
    assert run(tmp_path, [GOOD, *rows])["quarantined"] == 1000


def test_strict_refuses_on_any_finding_after_writing(tmp_path):
    strict = replace(NO_MODEL, validation=ValidationSettings(strict=True))
    assert run(tmp_path, [GOOD], strict)["status"] == "passed"
    with pytest.raises(RefusedError, match="1 findings, 0 rows quarantined, 1 repaired, 1 accepted; see"):
        run(tmp_path, [{**GOOD, "target": "Lyon "}], strict)
    assert json.loads((tmp_path / "out" / "validate.json").read_text())["status"] == "refused"
    assert len(read_accepted(tmp_path / "out")) == 1


def test_no_accepted_edit_is_a_refusal(tmp_path):
    with pytest.raises(RefusedError, match="no edit is left to write"):
        run(tmp_path, [{"prompt": "Is it Lyon?", "target": "Lyon"}])


def test_where_every_row_is_withdrawn_there_is_nothing_to_refuse(tmp_path):
    value = run(tmp_path, [{"prompt": "p", "target": "a"}, {"prompt": "p", "op": "revert"}])
    assert (value["status"], value["accepted"], value["inactive"]) == ("passed", 0, 2)
    assert read_accepted(tmp_path / "out") == []


def test_the_limit_caps_what_is_accepted(tmp_path):
    rows = [{"prompt": f"Question {n}?", "target": "Lyon"} for n in range(5)]
    value = run(tmp_path, rows, replace(NO_MODEL, edits=EditsSettings(limit=2)))
    assert (value["accepted"], value["left_out"]) == (2, 3)
    assert [edit.prompt for edit in read_accepted(tmp_path / "out")] == ["Question 0?", "Question 1?"]


def test_a_ledger_is_folded_before_it_is_checked(tmp_path):
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    write_edits(ledger / "0001.jsonl", [GOOD, {"prompt": "p", "target": "a"}, {"prompt": "q", "target": "a"}])
    write_edits(ledger / "0002.jsonl", [{"prompt": "p ", "target": "b"}, {"prompt": "q", "op": "revert"}])
    write_edits(ledger / "0003.jsonl", [{"prompt": "r", "target": "a", "expires": "2001-01-01"}])
    value = validate(ledger, tmp_path / "out")
    assert (value["total"], value["inactive"], value["accepted"], value["quarantined"]) == (6, 4, 2, 0)
    assert [edit.target for edit in read_accepted(tmp_path / "out")] == ["Lyon", "b"]


def test_how_the_rows_were_read_is_told(tmp_path):
    rewrite = {"prompt": "{} is led by", "target_new": {"str": "Ann"}}
    rewrites = [{**rewrite, "subject": name} for name in ("Mali", "Peru")]
    value = run(tmp_path, [GOOD, {**GOOD, "prompt": "q", "ticket": 1}, {"case_id": 1, "requested_rewrite": rewrites}])
    assert (value["total"], value["accepted"]) == (4, 4)
    file = {"file": str(tmp_path / "edits.jsonl"), "format": "JSON Lines"}
    assert value["read_as"] == [
        {**file, "form": "native", "rows": 2, "edits": 2, "unused": {"ticket": 1}},
        {**file, "form": "MQuAKE", "rows": 1, "edits": 2, "unused": {"case_id": 1}},
    ]


def test_the_models_tokenizer_measures_targets(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    settings = Settings(
        model=ModelSettings(path=str(tmp_path / "model")), evaluation=EvaluationSettings(max_new_tokens=8)
    )
    value = run(tmp_path, [GOOD, {"prompt": "p", "target": "Antananarivo-Renivohitra"}], settings)
    assert value["lengths"] == "tokens"
    assert [found["check"] for found in value["findings"]] == ["target_too_long"]


def test_a_plain_tokenizer_is_the_one_that_the_library_gives(reference_model):
    plain, usual = step.plain_tokenizer(reference_model), load_tokenizer(ModelSettings(path=str(reference_model)))
    assert type(plain) is type(usual)
    assert plain.get_vocab() == usual.get_vocab()
    assert plain.all_special_ids == usual.all_special_ids
    assert step.plain_tokenizer(reference_model / "nowhere") is None


def test_edits_are_read_and_measured_without_torch(reference_model):
    """Half of the memory that validation takes would be its imports."""
    told = (
        "import sys; from factpatch.edits.folder import read_ledger; "
        "from factpatch.settings.config import ModelSettings; "
        "from tasks import validate; assert read_ledger('data/edits'); "
        "assert validate.find_tokenizer(ModelSettings(path='data/model'))[0]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", told], check=True, cwd=reference_model.parents[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "p", "target": "t"}\n{"prompt": "p"}\n', "row 2: 'target' is missing"),
        (b'{"prompt": "p", "target": "t"}\n{"prompt":\n', "row 2: not JSON"),
        (b"\x89PNG\r\n\x1a\n", "is not UTF-8 text"),
        (b"", "is empty"),
    ],
)
def test_bad_input_writes_nothing(tmp_path, content, message):
    (tmp_path / "edits.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        validate(tmp_path / "edits.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_bad_input(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        run(tmp_path, [GOOD])
