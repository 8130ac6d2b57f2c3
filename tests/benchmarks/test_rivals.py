"""Rivals are measured on the rows that they should be, once each, and shown as they were measured."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks.rivals import run, samples
from benchmarks.rivals.bench import Bench, default_settings, read_lines
from benchmarks.rivals.costs import in_four_bits
from benchmarks.rivals.findings import findings
from benchmarks.rivals.measures import ask, measure_edits
from benchmarks.rivals.prompts import FORMS, Retrieval, asked_in, behind_passage
from benchmarks.rivals.report import MARKS, tables, write_report
from benchmarks.rivals.roster import EDITS_ALONE, ROSTER, Place, Rival, chosen, steps
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from factpatch.evaluation.evaluate import collect_answers
from factpatch.models.loading import load_model
from factpatch.models.locations import locate

PLACES = ("Paris", "Tokyo", "Lyon", "St. Louis", "Brazil", "Japan", "France", "Tome")
PLAIN = Rival("plain", "plain", {**EDITS_ALONE, "training.epochs": 2}, Place(0.5, "down"), steps("auto", 1e-3))
BASE = Rival("base", "untouched", kind="base")


def rows(count):
    """Rows of one relation, each with a paraphrase, a probe and an old value."""
    return [
        {
            "prompt": f"The capital of {PLACES[number % len(PLACES)]} {number} is",
            "target": PLACES[(number + 1) % len(PLACES)],
            "subject": f"{PLACES[number % len(PLACES)]} {number}",
            "target_old": PLACES[number % len(PLACES)],
            "paraphrases": [f"{PLACES[number % len(PLACES)]} {number} has the capital"],
            "locality": [{"prompt": f"People in {number} speak", "target": "Portuguese"}],
        }
        for number in range(count)
    ]


@pytest.fixture
def loaded(tiny_model):
    return load_model(default_settings({"model.path": str(tiny_model("llama"))}).model)


@pytest.fixture
def bench(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "TUNING", 3)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows(16)), encoding="utf-8")
    sample = samples.draw_sample(str(path), 4, 6, 0, loaded.tokenizer)
    return Bench(loaded, sample, tmp_path / "lines.jsonl", loaded.source, "tiny", "rows")


@pytest.mark.parametrize("rival", [*ROSTER, *findings(4)], ids=lambda rival: rival.name)
def test_every_rival_can_be_built(rival, loaded):
    for choice in rival.choices:
        assert default_settings(rival.values, choice)
    if rival.place:
        assert locate(loaded.model, rival.place.location(4)).parameters


def test_rivals_are_chosen_by_name_in_the_order_of_the_roster():
    assert [rival.name for rival in chosen(ROSTER, ["lora", "base"])] == ["base", "lora"]
    assert len({rival.name for rival in ROSTER}) == len(chosen(ROSTER, None)) == len(ROSTER)
    with pytest.raises(KeyError, match="lore"):
        chosen(ROSTER, ["lore"])


@pytest.mark.parametrize(
    ("place", "layers", "location"),
    [
        (Place(22 / 32, "down"), 32, "22:down"),
        (Place(22 / 32, "down"), 30, "20:down"),
        (Place(19 / 32, "down", 23 / 32), 32, "19-23:down"),
        (Place(0.0, "", 1.0), 30, "0-29:"),
    ],
)
def test_a_place_keeps_its_share_of_the_depth(place, layers, location):
    assert place.location(layers) == location


def test_equal_steps_are_equal():
    variants = {rival.name: rival.values for rival in findings(6)}
    for batch in (1, 20, 100):
        values = variants[f"batch-{batch}-steps"]
        assert values["training.epochs"] * 200 / values["training.batch_size"] == 200


def test_rows_to_report_are_none_that_steps_are_tuned_on(bench):
    sample = bench.sample
    assert (len(sample.edits), len(sample.tuning)) == (4, 3)
    numbers = [[int(edit.prompt.split()[-2]) for edit in part] for part in (sample.edits, sample.tuning)]
    assert min(numbers[0]) >= 6 > max(numbers[1])
    assert len(sample.neighbours) == 16 - 6 - 4
    assert {edit.prompt for edit in sample.edits}.isdisjoint(probe.prompt for probe in sample.neighbours)


def test_rows_without_anything_new_are_left_out(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "TUNING", 1)
    path = tmp_path / "rows.json"
    same, long, *rest = rows(4)
    rest = [*rest, same | {"target_old": same["target"]}, long | {"target": "very " * 20 + "long"}]
    path.write_text(json.dumps(rest), encoding="utf-8")
    assert len(samples.draw_sample(str(path), 1, 1, 0, tiny_tokenizer).edits) == 1
    with pytest.raises(InputError, match="has 1 usable rows from row 1; 2 are needed"):
        samples.draw_sample(str(path), 2, 1, 0, tiny_tokenizer)


def test_a_set_that_is_not_there_is_told_in_one_line(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.delenv(samples.SETS_VARIABLE, raising=False)
    with pytest.raises(InputError, match=r"zsre_3k\.json in the folder that FACTPATCH_SETS names; set it"):
        samples.draw_sample("zsre", 2, 1, 0, tiny_tokenizer)
    monkeypatch.setenv(samples.MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match="smollm2' does not exist"):
        samples.model_path("smollm2")


def test_prompts_in_other_forms():
    edit = EditRequest("1", "The capital of X is", "Y", paraphrases=("X's capital:", "left out"))
    plain = {form.name: asked_in(form, [edit])[0] for form in FORMS}
    assert plain["question"].prompt == "Q: The capital of X is\nA:"
    assert plain["question"].paraphrases == ("Q: X's capital:\nA:",)
    assert plain["chat"].prompt == edit.prompt
    passage, _, asked = plain["paragraph"].prompt.partition(". The capital")
    assert len(passage.split()) > 10
    assert asked == " of X is"
    assert behind_passage("x", 0) != behind_passage("x", 1)


def test_retrieval_puts_the_nearest_edit_in_front():
    retrieval = Retrieval(
        [EditRequest("1", "The capital of France is", "Lyon"), EditRequest("2", "Ada lives in", "Rome")]
    )
    assert retrieval.before("Where does Ada live?") == "Ada lives in Rome\nWhere does Ada live?"
    assert retrieval.nearest("the capital city of France").id == "1"
    assert retrieval.nearest("nothing alike").id == "1"


def test_answers_to_rewritten_prompts_stand_under_the_prompts_themselves(loaded):
    edit = EditRequest("1", "Tokyo is in", "Japan", paraphrases=("Tokyo:",), locality=(Probe("Lyon is in", "France"),))
    settings = default_settings({"evaluation.max_new_tokens": 4, "trunk.folder": None})
    before = collect_answers(loaded, [edit], settings)
    found = ask(loaded, [edit], settings, before, lambda text: f"Paris.\n{text}")
    front = replace(edit, prompt="Paris.\nTokyo is in", paraphrases=(), locality=())
    assert found.outputs["Tokyo is in"] == collect_answers(loaded, [front], settings).outputs["Paris.\nTokyo is in"]
    assert set(found.outputs) == {"Tokyo is in", "Tokyo:", "Lyon is in"}


def test_an_old_value_that_is_still_said_is_counted(loaded, bench):
    (first, *_), base = bench.sample.edits, bench.base
    said = base.answers.outputs[first.prompt].split()[0]
    edits = [replace(first, target_old=(said,)), replace(first, target_old=("elsewhere",))]
    found = measure_edits(loaded, edits, base, bench.measuring)["old_value"]
    assert (found["value"], found["n"]) == (0.5, 2)


def test_a_rival_is_tuned_measured_and_not_run_again(bench, monkeypatch):
    before = {name: value.clone() for name, value in bench.loaded.model.named_parameters()}
    made = [run.run_rival(bench, rival) for rival in (BASE, PLAIN)]
    assert all(torch.equal(value, before[name]) for name, value in bench.loaded.model.named_parameters())
    lines = read_lines(bench.output)
    assert [line["kind"] for line in lines] == ["result", "trial", "trial", "result"]
    assert made[0]["measures"]["locality"]["value"] == 1.0
    assert made[0]["measures"]["perplexity"]["value"] == pytest.approx(1.0)
    plain = made[1]
    assert plain["location"] == "2:mlp.down_proj"
    assert plain["choice"] in [dict(choice) for choice in PLAIN.choices]
    assert plain["bytes"] > 4 * 32 * 64
    assert plain["measures"]["question_generalization"]["n"] == 4
    assert plain["measures"]["neighbours"]["n"] == 6
    assert plain["measures"]["chat_reliability"]["reason"] == "the model has no chat template"
    monkeypatch.setattr(run, "edit_model", None)
    assert [run.run_rival(bench, rival) for rival in (BASE, PLAIN)] == made

    killed = bench.output.read_text(encoding="utf-8").splitlines()[:3]  # after the trials
    bench.output.write_text("\n".join(killed) + '\n{"kind": "resu', encoding="utf-8")
    assert bench.find(kind="trial", rival="plain", choice={"training.learning_rate": "auto"})
    assert bench.find(kind="result", rival="plain") is None
    bench.note({"kind": "result", "rival": "plain"})
    assert bench.find(kind="result", rival="plain")


def test_the_base_is_asked_before_a_rival_writes(bench):
    alone = run.run_rival(bench, replace(PLAIN, choices=({"training.learning_rate": "auto"},)))
    assert alone["measures"]["perplexity"]["value"] != pytest.approx(1.0, abs=1e-6)


def test_the_best_choice_of_those_that_write_is_taken(bench):
    """One that writes nothing keeps all, and is no edit."""
    for digest, written, taken in (("1", 0.6, 1e-3), ("2", 0.1, "auto")):
        name = {"rival": "plain", "digest": digest}
        for step, mean, reliability in (("auto", 0.2, 0.9), (1e-3, 0.3, written)):
            choice = {"training.learning_rate": step}
            bench.note({"kind": "trial", **name, "choice": choice, "mean": mean, "reliability": reliability})
        assert run._choose(bench, PLAIN, name) == {"training.learning_rate": taken}


def test_what_cannot_run_is_told_before_any_work(bench):
    several = Rival("ft", "", {"training.method": "depth-first"}, Place(0.0, "up+down", 1.0))
    run.check(bench, several)
    with pytest.raises(InputError, match=r"nobody: training\.method is 'nobody'"):
        run.check(bench, Rival("nobody", "", {"training.method": "nobody"}, Place(0.5, "down")))


def test_values_go_through_four_bits_where_blocks_fit():
    exact, odd = torch.arange(32.0).remainder(16).reshape(1, 32), torch.rand(2, 5)
    found = in_four_bits({"exact": exact, "odd": odd, "rounded": 0.1 * exact + 0.03 * torch.sin(exact)})
    assert torch.equal(found["exact"], exact)  # sixteen levels from 0 in steps of 1
    assert found["odd"] is odd
    assert found["rounded"].unique().numel() <= 16


def test_the_tables_say_what_the_lines_hold(tmp_path):
    share = {"value": 0.5, "n": 10, "ci95": [0.25, 0.75]}
    measures = dict.fromkeys(("reliability", "generalization", "locality_content", "question_reliability"), share)
    measures |= {
        "question_generalization": share | {"value": 1.0},
        "perplexity": {"value": 1.5, "n": 64, "ci95": [1.4, 1.6]},
    }
    common = {"version": 1, "kind": "result", "model": "tiny", "set": "rows", "edits": 10, "seed": 0, "choice": {}}
    first = {**common, "rival": "one", "title": "first", "measures": {}, "seconds": 9}
    again = {
        **first,
        "measures": measures,
        "seconds": 12.4,
        "bytes": 2_500_000,
        "choice": {"training.learning_rate": "auto"},
    }
    broken = {**common, "rival": "two", "title": "second", "refused": "not finite"}
    told = tables([first, broken, again])
    assert "### tiny, 10 rows of rows, seed 0\n" in told
    assert (
        "| way | reliability (n 10) | generalization (n 10) | locality, content (n 10) | perplexity x (n 64) |" in told
    )
    assert "| first | 50 (25-75) | 50 (25-75) | 50 (25-75) | 1.50 (1.40-1.60) |" in told
    assert "| second | not finite |" in told
    assert "| first | - | learning_rate auto | 50 (25-75) / 100 (25-75) | - | 12 | - | 2.5 |" in told

    results, page = tmp_path / "lines.jsonl", tmp_path / "rivals.md"
    layer = {**again, "rival": "place-3-mlp"}
    results.write_text("".join(json.dumps(line) + "\n" for line in (first, broken, again, layer)), encoding="utf-8")
    for name in ("rivals", "findings"):
        begin, end = (mark.format(name) for mark in MARKS)
        page.write_text(f"before\n{begin}\nold\n{end}\nafter\n", encoding="utf-8")
        write_report(results, page, name)
        text = page.read_text(encoding="utf-8")
        assert text.startswith(
            f"before\n{begin}\n![{name}]({name}.svg)\n\n{tables([broken, again, layer])}\n{end}\nafter"
        )
        assert (tmp_path / f"{name}.svg").exists()
