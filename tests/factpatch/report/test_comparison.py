"""Two releases on one page: what changed between them is found by hand-made differences, and nothing is markup."""

import pytest

from factpatch.report import render_comparison
from factpatch.report.comparison import compare_edits, differences, paired_gates

EVIL = "<script>alert('x')</script>\"' onload=\"&amp;"


def row(name, target, reliable, **others):
    """One edit of an evaluate.json; its answer is the target where it took."""
    output = target if reliable else "Oslo"
    probes = {"paraphrases": [], "locality": []}
    return (
        {"id": name, "prompt": f"{name}?", "target": target, "output": output, "reliable": reliable} | probes | others
    )


def run(status, rows, value, bounds, **settings):
    """A finished release as `read_release` gives it."""
    gate = {"name": "reliability", "passed": status != "refused", "value": value, "limit": 0.9, "reason": "because"}
    score = {"value": value, "n": len(rows), "ci95": bounds}
    task = {"metric": "exact_match", "before": 0.98, "after": 0.97, "n": 500, "ci95": [0.95, 0.98]}
    return {
        "release": {
            "status": status,
            "model": "factpatch",
            "version": "3",
            "location": {"layer": settings.get("layer", 5), "module": "mlp", "parameters": ["w"]},
            "gates": [gate, gate | {"name": "locality", "passed": True}],
            "capability": {"world_sums": task},
            "digests": {"base": "d" * 64, "patch": str(value)},
        },
        "evaluate": {
            "definitions": {"reliability": {"meaning": "edited questions", "direction": "higher"}},
            "reliability": score,
            "before": {"reliability": {"value": 0.0, "ci95": [0.0, 0.1]}},
            "edits": rows,
        },
        "manifest": {"config": {"training": {"epochs": 5, "seed": None, **settings}}},
    }


@pytest.fixture
def first():
    rows = [row("held", "Rome", True), row("lost", "Faro", True), row("gained", "Bonn", False)]
    return run("promoted", [*rows, row("gone", "Kyiv", True), row("other", "Lyon", True)], 0.8, [0.75, 0.85])


@pytest.fixture
def second():
    rows = [row("held", "Rome", True), row("lost", "Faro", False), row("gained", "Bonn", True)]
    return run("refused", [*rows, row("new", "Riga", True), row("other", "Nice", True)], 0.6, [0.5, 0.7], layer=4)


def test_edits_that_differ_are_named_by_how(first, second):
    found = [[(one or other)["id"] for one, other in rows] for rows in compare_edits(first, second).values()]
    assert found == [["lost"], ["gained"], ["other"], ["gone"], ["new"]]
    assert not any(compare_edits(first, first).values())


def test_only_what_differs_is_listed_and_the_rest_counted(first, second):
    tables = {title: (rows, equal) for title, rows, equal in differences(first, second)}
    assert tables["Settings"] == ([("training.layer", "–", "4")], 2)
    assert tables["Where it was written"] == ([("layer", "5", "4")], 2)
    assert tables["Digests"] == ([("patch", "0.8", "0.6")], 1)
    assert not any(rows for _, rows, _ in differences(first, first))


def test_gates_whose_verdicts_differ_come_first(first, second):
    assert [name for name, _, _ in paired_gates(first, second)] == ["reliability", "locality"]
    first["release"]["gates"][1]["passed"], second["release"]["gates"][0]["passed"] = False, True
    assert [name for name, _, _ in paired_gates(first, second)] == ["locality", "reliability"]


def test_the_page_says_what_changed(first, second):
    html = render_comparison(first, second)
    order = ["Promoted", "Refused", "Scores", '<span class="bad">-20.0</span>', "Capability", "+0.0", "not released"]
    assert all(words in html for words in order)
    assert "Lost: A says the target, B does not: 1" in html
    assert "<bdi>Lyon</bdi> → <bdi>Nice</bdi>" in html
    assert "Both hold the same edits" in render_comparison(first, first)
    assert '<span class="bad">' not in render_comparison(first, first)


def test_absent_parts_and_long_lists(first):
    empty = render_comparison({}, {})
    assert "Neither was measured." in empty
    assert "No gate was judged in either." in empty
    assert "not judged" in render_comparison(first, {})
    first["evaluate"]["edits"] = [row(str(number), "Rome", True) for number in range(150)]
    assert "The first 100 of 150" in render_comparison(first, {"evaluate": {"edits": []}})


def test_nothing_from_edits_or_models_becomes_markup(first):
    rows = [row(EVIL, EVIL, True, prompt=EVIL), row(f"{EVIL} 2", EVIL, False, output=EVIL)]
    html = render_comparison(first, run(EVIL, rows, 0.5, [0.4, 0.6], **{EVIL: EVIL}), (EVIL, EVIL))
    assert "<script" not in html
    assert "\"' onload" not in html
    assert html.count("&lt;script&gt;") > 8
