"""Metrics from texts, and the proof that the shortcut changes no output."""

import json

import pytest
import torch

from factpatch.edits.loading import read_rows
from factpatch.edits.request import EditRequest, Probe
from factpatch.evaluation import evaluate as module
from factpatch.evaluation.evaluate import CUT, METRICS, Answers, collect_answers, measure
from factpatch.evaluation.generation import decode
from factpatch.models.encoding import encode_prompt
from factpatch.models.loading import load_model, preserved
from factpatch.models.locations import locate
from factpatch.settings.config import EvaluationSettings, ModelSettings, Settings, TrunkSettings
from tests.factpatch.evaluation.conftest import LINES

EDIT = EditRequest(
    id="e1",
    prompt="The capital of France is",
    target="Rome",
    paraphrases=("France's capital:", "Capital of France?"),
    locality=(Probe("The capital of Japan is", "Tokyo"), Probe("The capital of Peru is", "Lima")),
    portability=(Probe("The river of France's capital is the", "Tiber"),),
)
BARE = EditRequest(id="e2", prompt="The capital of Spain is", target="Faro")


def answers(*texts: str) -> Answers:
    """Texts for EDIT's prompt, paraphrases, locality and portability, in this order, and for BARE's prompt."""
    prompts = [EDIT.prompt, *EDIT.paraphrases, *(probe.prompt for probe in EDIT.locality + EDIT.portability)]
    return Answers(
        dict(zip([*prompts, BARE.prompt], texts, strict=True)),
        {(EDIT.prompt, EDIT.target): 0.5, (BARE.prompt, BARE.target): 1.0},
    )


BEFORE = answers("Paris", "Paris", "Paris", "Tokyo", "Cuzco", "Seine", "Madrid")
AFTER = answers("Rome. Yes", "the rome!", "Paris", "tokyo.", "Lima", "Seine", "Faro")


def values(report):
    return {name: report[name]["value"] for name in METRICS}


def test_metrics_by_hand():
    report = measure([EDIT, BARE], AFTER, BEFORE)
    assert values(report) == {
        "reliability": 1.0,
        "generalization": 0.5,
        "locality": 0.5,  # Tokyo stayed, Cuzco became Lima
        "locality_content": 0.5,
        "locality_divergence": None,
        "locality_stops": None,
        "locality_correct": 1.0,
        "portability": 0.0,
        "token_accuracy": 0.75,
    }
    assert values({**report["before"]}) == {
        "reliability": 0.0,
        "generalization": 0.0,
        "locality": None,
        "locality_content": None,
        "locality_divergence": None,
        "locality_stops": None,
        "locality_correct": 0.5,
        "portability": 0.0,
        "token_accuracy": 0.75,
    }
    assert [report[name]["n"] for name in METRICS] == [2, 2, 2, 2, 0, 0, 2, 1, 2]
    measured = [report[name] for name in METRICS if report[name]["n"]]
    assert all(one["ci95"][0] <= one["value"] <= one["ci95"][1] for one in measured)
    assert (report["locality"]["unmeasured"], report["definitions"]["locality"]["version"]) == (0, 2)
    assert report["definitions"]["reliability"] == {
        "version": 2,
        "direction": "higher",
        "meaning": METRICS["reliability"].meaning,
        "unit": "share",
    }
    json.dumps(report, allow_nan=False)


def test_the_papers_protocol_compares_as_version_1_did():
    definitions = measure([EDIT, BARE], AFTER, BEFORE, "paper")["definitions"]
    versions = {name: definition["version"] for name, definition in definitions.items()}
    assert versions.pop("locality") == 2  # what was not answered before is unmeasured under every protocol
    assert set(versions.values()) == {1}


def test_every_output_is_kept_raw():
    edit, bare = measure([EDIT, BARE], AFTER, BEFORE)["edits"]
    assert edit["id"] == "e1"
    assert (edit["prompt"], edit["target"]) == (EDIT.prompt, "Rome")
    assert (edit["before"], edit["output"], edit["reliable"]) == ("Paris", "Rome. Yes", True)
    assert edit["paraphrases"][0] == {
        "prompt": "France's capital:",
        "before": "Paris",
        "output": "the rome!",
        "correct": True,
    }
    assert [probe["unchanged"] for probe in edit["locality"]] == [True, False]
    assert bare["paraphrases"] == bare["locality"] == bare["portability"] == []


def test_what_has_no_items_is_null_with_a_reason():
    report = measure([BARE], AFTER, BEFORE)
    for name in ("generalization", "locality", "locality_correct", "portability"):
        assert report[name]["value"] is None
        assert report[name]["n"] == 0
        assert "no edit has" in report[name]["reason"]
    nothing = measure([], AFTER, None)
    assert all(nothing[name]["value"] is None and nothing[name]["reason"] for name in METRICS)


def test_without_the_answers_before_locality_is_null():
    report = measure([EDIT], AFTER, None)
    assert report["before"] is None
    assert report["locality"]["value"] is None
    assert "before the edit" in report["locality"]["reason"]
    assert report["edits"][0]["locality"][0]["unchanged"] is None
    assert report["edits"][0]["before"] is None


@pytest.mark.parametrize("silence", ["", " ", ".", ". And so on"])
def test_what_the_model_said_nothing_to_before_is_unmeasured_and_counted(silence):
    """Nothing and nothing are not the same answer: nothing could be seen to change."""
    before = answers("Paris", "Paris", "Paris", "Tokyo", silence, "Seine", "Madrid")
    for said in ("", silence, "Lima"):
        report = measure([EDIT, BARE], answers("Rome", "Rome", "Rome", "Tokyo", said, "", "Faro"), before)
        assert [probe["unchanged"] for probe in report["edits"][0]["locality"]] == [True, None]
        assert (report["locality"]["value"], report["locality"]["n"], report["locality"]["unmeasured"]) == (1.0, 1, 1)
    silent = answers("Paris", "Paris", "Paris", silence, silence, "Seine", "Madrid")
    locality = measure([EDIT, BARE], AFTER, silent)["locality"]
    assert (locality["value"], locality["n"], locality["unmeasured"]) == (None, 0, 2)
    assert locality["reason"] == "before the edit the model says nothing to any of the 2 locality probes"


def test_nothing_said_where_there_was_an_answer_is_a_change():
    after = answers("Rome", "Rome", "Rome", "", "Cuzco", "", "Faro")
    report = measure([EDIT, BARE], after, BEFORE)
    assert [probe["unchanged"] for probe in report["edits"][0]["locality"]] == [False, True]


def test_what_was_said_before_is_proven_token_by_token_where_no_eos_ends_it(taught, monkeypatch):
    (lima, seine, _) = LINES
    probes = (Probe(lima, "Lima"), Probe(seine, "Seine"))
    edit = EditRequest("1", "The capital of France is", "Paris", locality=probes)
    settings = Settings(evaluation=EvaluationSettings(max_new_tokens=8))
    before = collect_answers(taught, [edit], settings)
    assert (before.outputs[lima], before.outputs[seine]) == ("Lima", "Seine")
    monkeypatch.setattr(module, "decode", lambda loaded, prompts, *rest: [] if not prompts else pytest.fail("decoded"))
    assert collect_answers(taught, [edit], settings, before).said == before.said


@pytest.mark.parametrize("batch_size", [2, 64])
def test_the_shortcut_gives_the_outputs_and_verdicts_of_decoding_everything(taught, load_tiny, edits, batch_size):
    settings = Settings(evaluation=EvaluationSettings(batch_size=batch_size, max_new_tokens=16))
    before = collect_answers(load_tiny("llama"), edits, settings)
    quick = collect_answers(taught, edits, settings, before, whole=True)
    prompts = list(quick.outputs)
    slow_texts = decode(taught, [encode_prompt(taught.tokenizer, prompt) for prompt in prompts], 16, batch_size)
    texts, said = zip(*((answer.text, answer.ids) for answer in slow_texts), strict=True)
    outputs, ids = dict(zip(prompts, texts, strict=True)), dict(zip(prompts, said, strict=True))
    slow = Answers(outputs, quick.token_accuracy, ids, quick.stops)
    assert quick == slow
    report = measure(edits, quick, before)
    assert report == measure(edits, slow, before)
    assert [row["reliable"] for row in report["edits"]] == [True] * 5 + [False] * 2


def test_only_what_was_not_proven_is_decoded(taught, edits, monkeypatch):
    decoded = []

    def spy(loaded, prompts, *rest):
        decoded.extend(prompts)
        return decode(loaded, prompts, *rest)

    monkeypatch.setattr(module, "decode", spy)
    settings = Settings(evaluation=EvaluationSettings(max_new_tokens=8))
    progress = []
    collect_answers(taught, edits[:4], settings, progress=lambda *at: progress.append(at))
    ids = {encode_prompt(taught.tokenizer, edit.prompt) for edit in edits[:4]}
    assert not ids & set(decoded)
    assert len(decoded) == len(set(decoded))
    assert progress[-1][0] == progress[-1][1]


VERDICTS = ("reliable", "correct", "unchanged", "content", "stops", "token_accuracy")


def verdicts(rows):
    """Every verdict in rows of a report, in order."""
    for row in rows:
        yield [row[name] for name in VERDICTS if name in row]
        for kind in ("paraphrases", "locality", "portability"):
            yield from verdicts(row.get(kind, ()))


@pytest.mark.parametrize(("shown", "protocol"), [(1, "default"), (4, "paper")])
def test_verdicts_are_those_of_whole_answers_however_little_is_shown(reference_model, shown, protocol):
    """On the embedded model, before and after its values were shaken, so that many answers move and ramble."""
    loaded = load_model(ModelSettings(path=str(reference_model)))
    path = reference_model.parents[1] / "data" / "edits" / "0001-demo.jsonl"
    edits = [EditRequest.from_row(row.values) for row in list(read_rows(str(path)))[:24]]
    own = EvaluationSettings(report_tokens=shown, protocol=protocol)
    settings = Settings(evaluation=own, trunk=TrunkSettings(folder=None))
    before = [collect_answers(loaded, edits, settings, whole=whole) for whole in (False, True)]
    location = locate(loaded.model, "5:mlp")
    with preserved(loaded.model, location.parameters), torch.no_grad():
        for number, name in enumerate(location.parameters):
            parameter = loaded.model.get_parameter(name)
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter += 1.3 * parameter.std() * noise
        quick, slow = (
            collect_answers(loaded, edits, settings, old, whole=whole)
            for old, whole in zip(before, (False, True), strict=True)
        )
    reports = [measure(edits, after, old, protocol) for after, old in ((quick, before[0]), (slow, before[1]))]
    left, right = (list(verdicts(report["edits"])) for report in reports)
    assert left == right
    assert reports[0]["before"]["reliability"] == reports[1]["before"]["reliability"]
    assert 0 < reports[0]["locality"]["value"] < 1
    assert 0 < reports[0]["locality_stops"]["value"] < 1
    shorter = [prompt for prompt, ids in quick.said.items() if len(ids) < len(slow.said[prompt])]
    assert shorter
    for prompt, text in quick.outputs.items():
        assert quick.said[prompt] == slow.said[prompt][: len(quick.said[prompt])]
        assert text.endswith(CUT) == (prompt in shorter)
        assert slow.outputs[prompt].startswith(text.removesuffix(CUT).removesuffix("\ufffd"))
