"""The report and the card: complete, escaped, and calm about what is missing."""

import re
from html.parser import HTMLParser

import pytest

from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from factpatch.evaluation.evaluate import Answers, measure
from factpatch.report import read_release, render_card, render_report
from factpatch.report.card import code
from factpatch.report.charts import heat_map, loss_curve, share_axis
from factpatch.report.evidence import duration, flatten, interval_text, percent

EVIL = "<script>alert('x')</script>\"' onload=\"&amp;"
EDIT = EditRequest(
    id=EVIL,
    prompt=f"The capital of {EVIL} is",
    target=f"Rome {EVIL}",
    paraphrases=(f"Tell me the capital of {EVIL}:",),
    locality=(Probe(f"The capital of Japan, {EVIL}, is", "Tokyo"),),
)
GOOD = EditRequest(id="good", prompt="The capital of Spain is", target="Faro")
RELEASE = {
    "status": "refused",
    "model": "factpatch",
    "version": "3",
    "edits": {"total": 3, "accepted": 2, "quarantined": 1},
    "location": {"layer": 2, "module": "mlp.down_proj", "parameters": ["model.layers.2.mlp.down_proj.weight"]},
    "metrics": {"reliability": {"before": 0.0, "after": 0.5, "n": 2, "ci95": [0.1, 0.9]}},
    "capability": {"world_sums": {"before": 0.98, "after": 0.97, "n": 500}},
    "gates": [
        {"name": "reliability", "passed": False, "value": 0.5, "limit": 0.95, "reason": f"Reliability {EVIL}."},
        {"name": "locality", "passed": None, "value": None, "limit": 0.5, "reason": "Not measured."},
        {"name": "capability.world_sums", "passed": True, "value": 0.01, "limit": 0.02, "reason": "Fell little."},
    ],
    "timings": {"edit": 31.2, "evaluate": 240.0},
    "base": {"source": f"models/{EVIL}", "fingerprint": "d" * 64},
    "digests": {"base": "a" * 64, "files": {"patch.safetensors": "b" * 64}, "revision": None},
}
LOCALIZE = {
    "location": {"name": "2:mlp.down_proj", "layer": 2, "module": "mlp.down_proj", "parameters": []},
    "reason": f"2:mlp.down_proj scores 0.9, the best of the candidates {EVIL}",
    "candidates": [
        {"location": f"{layer}:mlp.down_proj", "layer": layer, "module": "mlp.down_proj", "score": score}
        for layer, score in ((1, 0.3), (0, 0.0), (2, 0.9))
    ],
}
TRAINING = {"method": "breadth-first", "epochs": 3, "losses": [2.0, 0.2, 0.02], "seconds": 12.0, "steps": 9}
REGRESS = {
    "tasks": {"world_sums": {"metric": "exact_match", "before": 0.98, "after": 0.97, "n": 500, "ci95_after": [0.9, 1]}}
}


MANIFEST = {"base": {"source": "data/model"}, "config": {"training": {"epochs": 3}, "model": {"path": EVIL}}}
CERTIFICATE = {"schema": 1, "parameters": {"changed": 3}}


@pytest.fixture
def evaluation():
    prompts = [EDIT.prompt, *EDIT.paraphrases, EDIT.locality[0].prompt, GOOD.prompt]
    accuracy = {(edit.prompt, edit.target): 0.5 for edit in (EDIT, GOOD)}
    before = Answers(dict(zip(prompts, ["Paris", EVIL, "Tokyo", "Madrid"], strict=True)), accuracy)
    after = Answers(dict(zip(prompts, [EVIL, EVIL, EVIL, "Faro"], strict=True)), accuracy)
    result = measure([EDIT, GOOD], after, before)
    scores = {"reliability": result["reliability"], "before": {"reliability": result["before"]["reliability"]}}
    return result | {"by_source": {f"source {EVIL}": scores}, "by_relation": {f"relation {EVIL}": scores}}


@pytest.fixture
def evidence(evaluation):
    """All that a finished release's folder may hold."""
    return {
        "release": RELEASE,
        "evaluate": evaluation,
        "regress": REGRESS,
        "localize": LOCALIZE,
        "edit": TRAINING,
        "manifest": MANIFEST,
        "certificate": CERTIFICATE,
        "lineage": {"edits": {"path": EVIL, "revision": "c" * 40, "dirty": True}},
    }


class Page(HTMLParser):
    """Collects tags, their attributes and the text outside styles; complains about tags left open."""

    VOID = frozenset({"meta"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def test_nothing_from_edits_or_models_becomes_markup(evidence):
    page = Page(render_report(evidence))
    assert "script" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    told = (EDIT.prompt, EDIT.target, EDIT.paraphrases[0], EDIT.locality[0].prompt, f"Reliability {EVIL}.")
    groups = (f"source {EVIL}", f"relation {EVIL}")
    assert all(text in page.text for text in (*told, *groups, LOCALIZE["reason"], RELEASE["base"]["source"]))


def test_the_page_needs_no_network(evidence):
    html = render_report(evidence)
    page = Page(html)
    assert not {"link", "img", "iframe", "object", "script"} & page.tags
    assert not {"src", "srcset"} & {name for name, _ in page.attributes}
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert not re.search(r"url\(|@import", html)
    assert "Content-Security-Policy" in html


def test_the_decision_comes_first_then_everything_a_reviewer_asks_for(evidence):
    text = Page(render_report(evidence)).text
    order = [
        "Refused",
        "Version 3 of factpatch was not released; whatever is in use stays in use. Of 3 gates 1 failed.",
        "It carries 2 edits; 1 more were set aside as faulty.",
        "Rules fixed before the edit",
        "Each answer is generated freely",
        "(teacher-forced)",
        "By source: 1",
        "By relation: 1",
        "General tasks on the same items",
        "exact match",
        "The patch holds 1 tensor and no other",
        "Every candidate",
        "3 epochs, 9 steps, 12.0 s",
        "That failed: 1 of 2",
        "Other wordings missed: 1 of 1",
        "The capital of Spain is",
        "Neighbours that moved: 1 of 1",
        "with uncommitted changes",
        "files: patch: safetensors",
        "4.0 min",
        "factpatch run --config params.yaml",
        "factpatch apply",
        "factpatch undo",
    ]
    positions = [text.index(words) for words in order]
    assert positions == sorted(positions)


@pytest.mark.parametrize("status", ["promoted", "registered", "refused"])
def test_nulls_and_absent_parts_render(status):
    bare = {"status": status, "version": None, "gates": None}
    text = Page(render_report({"release": bare, "evaluate": measure([], Answers({}, {}), None)})).text
    assert "This candidate of the model" in text
    assert "No gate was judged." in text
    assert "No capability task was scored." in text
    assert "No training curve was recorded." in text
    assert "there are no edits" in text
    Page(
        render_report({"release": RELEASE, "evaluate": {"edits": []}})
    )  # numbers of release.json where there are no others
    Page(render_report({}))


def test_any_one_part_may_be_absent(evidence):
    for absent in evidence:
        rest = {name: value for name, value in evidence.items() if name != absent}
        Page(render_report(rest))
        assert render_card(rest)


def test_a_long_list_is_cut_and_says_so(evidence):
    failed = next(row for row in evidence["evaluate"]["edits"] if not row["reliable"])
    text = Page(render_report(evidence | {"evaluate": evidence["evaluate"] | {"edits": [failed] * 150}})).text
    assert "That failed: 150" in text
    assert "The first 100 of 150" in text
    assert "Neighbours that moved: 1" in text


def test_the_card_escapes_and_says_the_same(evidence):
    card = render_card(evidence)
    assert card.startswith("# Refused\n\nVersion 3 of factpatch was not released")
    assert "<" not in card.partition("## Commands")[0]  # there, code spans show everything as it is
    assert "&#60;script&#62;" in card
    assert "| locality | skipped |" in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)  # no text breaks a table


def test_nothing_ends_the_code_span_of_a_command():
    assert code("ask it") == "`ask it`"
    assert code("a `` b\n\n# c") == "``` a `` b # c ```"


def test_the_card_respects_its_room(evidence):
    whole = render_card(evidence)
    assert render_card(evidence, len(whole)) == whole
    for room in (200, 700, len(whole) - 1):
        card = render_card(evidence, room)
        assert len(card) <= room
        assert card.startswith("# Refused")
        assert "report.html holds everything" in card


def test_a_folder_without_a_release_is_named(tmp_path):
    with pytest.raises(InputError, match=r"holds no release\.json; name the output folder"):
        read_release(tmp_path)


def test_a_curve_by_hand():
    curve = loss_curve([10.0, 1.0, 0.1])
    assert curve.points == "0.0,0.0 50.0,50.0 100.0,100.0"
    assert curve.grid == ((100.0, "0.1"), (50.0, "1"), (0.0, "10"))
    assert (curve.last, curve.epochs) == ((100.0, 100.0), 3)
    assert loss_curve([0.5]).last[0] == 0.0
    assert loss_curve([]) is None
    assert loss_curve([0.0, float("nan")]) is None


def test_a_heat_map_by_hand():
    heat = heat_map(LOCALIZE["candidates"], LOCALIZE["location"])
    ((module, cells),) = heat.rows
    assert module == "mlp.down_proj"
    assert [(cell.x, cell.label, cell.shade) for cell in cells] == [
        (0.0, "0.00", 0.0),
        (33.333, "0.30", 0.333),
        (66.667, "0.90", 1.0),
    ]
    assert [cell.chosen for cell in cells] == [False, False, True]
    assert (heat.low, heat.high) == (0.0, 0.9)
    assert heat_map([], {}) is None


def grid(modules, layers, run="whole"):
    """Candidates as localize.json has them, at every one of `layers`."""
    return [
        {
            "location": f"{layer}:{module}",
            "score": round((row + layer) / (len(modules) + max(layers)), 6),
            "margin": 0.05,
            "layer": layer,
            "module": module,
            "reliability": {"value": 1.0, "n": 24, "ci95": [0.86, 1.0]},
            "capability": {"value": None, "n": 0, "ci95": None},
            "run": run,
            "epochs": 6,
            "visits": 945,
            "operations": 137749296195,
            "seconds": 28.9,
        }
        for row, module in enumerate(modules)
        for layer in layers
    ]


MODULES = (
    "mlp",
    "mlp.down_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "self_attn",
    *(f"self_attn.{n}_proj" for n in "qkvo"),
    "",
)


def test_a_heat_map_of_many_modules_has_a_row_each_from_matrices_to_whole_blocks():
    heat = heat_map(grid(MODULES, range(6)), {"name": "5:"})
    names = [module for module, _ in heat.rows]
    assert names[0] == "mlp.down_proj"
    assert names[-3:] == ["mlp", "self_attn", "whole block"]
    assert {len(cells) for _, cells in heat.rows} == {6}
    assert [module for module, cells in heat.rows if any(cell.chosen for cell in cells)] == ["whole block"]
    assert all(cell.label for _, cells in heat.rows for cell in cells)


def test_a_heat_map_of_80_layers_leaves_out_numbers_and_most_ticks():
    tried = grid(["mlp"], [3, 40], run="short")
    heat = heat_map(tried, {"layer": 40, "module": "mlp"}, ranking=[{"layer": layer} for layer in range(80)])
    ((_, cells),) = heat.rows
    assert [cell.x for cell in cells] == [3.75, 50.0]
    assert not any(cell.label for cell in cells)
    assert cells[0].title == "3:mlp: score 0.073, by a short run"
    assert [label for _, label in heat.ticks] == ["0", "8", "16", "24", "32", "40", "48", "56", "64", "72"]


@pytest.mark.parametrize(("modules", "layers"), [(MODULES, 6), (("mlp", "mlp.down_proj"), 80)])
def test_the_page_shows_every_trial(modules, layers):
    candidates = grid(modules, range(layers), run="short")
    chosen = candidates[-1]
    summary = {"location": chosen["location"], "score": 0.9, "margin": 0.1}
    localize = {
        "location": {"name": chosen["location"], "layer": layers - 1, "module": chosen["module"], "parameters": []},
        "reason": "it is the best",
        "sample": 24,
        "notes": ["2:mlp: the loss is not a number"],
        "candidates": candidates,
        "runner_up": summary,
        "ranking": [{"location": "0:mlp", "layer": 0, "module": "mlp", "update": 0.1}],
        "cost": {"trials": len(candidates), "seconds": 60.0},
    }
    html = render_report({"localize": localize})
    assert html.count('<rect class="heat"') == len(candidates) + 6  # and the legend
    assert html.count('<rect class="chosen"') == 1
    text = Page(html).text
    assert f"{len(candidates)} trial runs of 24 edits each, 60.0 s." in text
    assert "2:mlp: the loss is not a number." in text
    assert ("The first 100 of 160; localize.json holds all." in text) == (len(candidates) > 100)
    assert ("those in italics, a short one" in text) == (layers <= 12)


def test_an_axis_begins_below_all_values():
    assert share_axis([0.97, None, 0.99]).low == 0.95
    assert share_axis([0.93]).low == 0.9
    assert share_axis([]).low == 0.0
    axis = share_axis([0.6])
    assert [label for _, label in axis.ticks] == ["50", "60", "70", "80", "90", "100"]
    assert (axis.at(0.75), axis.at(0.2), axis.at(1.0)) == (50.0, 0.0, 100.0)


def test_small_formats():
    assert (percent(None), percent(0.9876), percent(0)) == ("–", "98.8 %", "0.0 %")
    assert (interval_text(None), interval_text([0.1, 0.9])) == ("–", "10.0 – 90.0 %")
    assert (duration(3), duration(119.9), duration(180)) == ("3.0 s", "119.9 s", "3.0 min")
    assert list(flatten({"a": {"b": 1, "c": None}, "d": "e", "f": []})) == [
        ("a.b", "1"),
        ("a.c", "–"),
        ("d", "e"),
        ("f", "none"),
    ]
