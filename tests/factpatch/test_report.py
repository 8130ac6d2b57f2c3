"""The report: one page, complete, escaped, and calm about what is missing."""

import re
from html.parser import HTMLParser

import pytest

from factpatch.edits.request import EditRequest, Probe
from factpatch.evaluation.evaluate import Answers, measure
from factpatch.report import duration, flatten, layer_chart, loss_chart, percent, render_report

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
    "digests": {"base": "a" * 64, "files": {"patch.safetensors": "b" * 64}, "revision": None},
}
LOCALIZE = {
    "location": {"name": "2:mlp.down_proj", "layer": 2, "module": "mlp.down_proj", "parameters": []},
    "reason": "2:mlp.down_proj scores 0.9, the best of the candidates",
    "candidates": [
        {"location": f"{layer}:mlp.down_proj", "layer": layer, "module": "mlp.down_proj", "score": score}
        for layer, score in ((1, 0.3), (0, 0.0), (2, 0.9))
    ],
}
TRAINING = {"method": "breadth-first", "epochs": 3, "losses": [2.0, 0.2, 0.02], "seconds": 12.0, "steps": 9}
REGRESS = {
    "tasks": {"world_sums": {"metric": "exact_match", "before": 0.98, "after": 0.97, "n": 500, "ci95_after": [0.9, 1]}}
}


@pytest.fixture
def evaluation():
    prompts = [EDIT.prompt, *EDIT.paraphrases, EDIT.locality[0].prompt, GOOD.prompt]
    accuracy = {(edit.prompt, edit.target): 0.5 for edit in (EDIT, GOOD)}
    before = Answers(dict(zip(prompts, ["Paris", EVIL, "Tokyo", "Madrid"], strict=True)), accuracy)
    after = Answers(dict(zip(prompts, [EVIL, EVIL, EVIL, "Faro"], strict=True)), accuracy)
    return measure([EDIT, GOOD], after, before)


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


@pytest.mark.parametrize("others", [(REGRESS, LOCALIZE, TRAINING), (None, None, None)])
def test_nothing_from_edits_or_models_becomes_markup(evaluation, others):
    html = render_report(RELEASE, evaluation, *others)
    page = Page(html)
    assert "script" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    for told in (EDIT.prompt, EDIT.target, EDIT.paraphrases[0], EDIT.locality[0].prompt, f"Reliability {EVIL}."):
        assert told in page.text


def test_the_page_needs_no_network(evaluation):
    html = render_report(RELEASE, evaluation, REGRESS, LOCALIZE, TRAINING)
    page = Page(html)
    assert not {"link", "img", "iframe", "object", "script"} & page.tags
    assert not {"src", "href", "srcset"} & {name for name, _ in page.attributes}
    assert not re.search(r"url\(|@import", html)
    assert "Content-Security-Policy" in html


def test_the_decision_comes_first_then_everything_a_reviewer_asks_for(evaluation):
    text = Page(render_report(RELEASE, evaluation, REGRESS, LOCALIZE, TRAINING)).text
    order = [
        "Refused",
        "Version 3 of factpatch was not released. 1 of 3 gates failed. It carries 2 edits; 1 more were quarantined.",
        "Gates",
        "Scorecard",
        "(teacher-forced)",
        "General tasks on the same items",
        "(exact match)",
        "Where it was written",
        "Every candidate",
        "Training",
        "The capital of Spain is",
        "That failed: 1",
        "Neighbours that moved: 1",
        "files.patch.safetensors",
        "4.0 min",
        "factpatch apply",
        "factpatch rollback",
    ]
    positions = [text.index(words) for words in order]
    assert positions == sorted(positions)


@pytest.mark.parametrize("status", ["promoted", "registered", "refused"])
def test_nulls_and_absent_parts_render(status):
    html = render_report({"status": status, "version": None, "gates": None}, measure([], Answers({}, {}), None))
    text = Page(html).text
    assert "This candidate of the model" in text
    assert "No capability task was scored." in text
    assert "No training curve was recorded." in text
    assert "there are no edits" in text
    Page(render_report(RELEASE, {"edits": []}))  # numbers of release.json where evaluate.json has none
    Page(render_report({}, {}))


def test_a_long_list_is_cut_and_says_so(evaluation):
    failed = next(row for row in evaluation["edits"] if not row["reliable"])
    text = Page(render_report(RELEASE, {**evaluation, "edits": [failed] * 150})).text
    assert "That failed: 150" in text
    assert "The first 100 of 150" in text
    assert "Neighbours that moved: 1" in text


def test_charts_by_hand():
    chart = loss_chart([10.0, 1.0, 0.1])
    assert [(x, y) for x, y, _ in chart.marks] == [(48.0, 0.0), (320.0, 80.0), (592.0, 160.0)]
    assert [label for _, label in chart.grid] == ["0.1", "1", "10"]
    assert loss_chart([0.5]).marks[0][0] == 48.0
    assert loss_chart([]) is None
    assert loss_chart([0.0, float("nan")]) is None
    layers = layer_chart(LOCALIZE["candidates"])
    assert layers.marks == ((40, 120.0, "0:mlp.down_proj"), (66, 80.0, "1:mlp.down_proj"), (92, 0.0, "2:mlp.down_proj"))
    assert layer_chart([]) is None


def test_small_formats():
    assert (percent(None), percent(0.9876), percent(0)) == ("–", "98.8 %", "0.0 %")
    assert (duration(3), duration(119.9), duration(180)) == ("3.0 s", "119.9 s", "3.0 min")
    assert list(flatten({"a": {"b": 1, "c": None}, "d": "e"})) == [("a.b", "1"), ("a.c", "–"), ("d", "e")]
