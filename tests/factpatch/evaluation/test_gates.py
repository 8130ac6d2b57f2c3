"""Gates judge numbers; they never guess them."""

import dataclasses
import subprocess
import sys

import pytest

from factpatch.evaluation.gates import allows, judge_certificate, judge_gates, judge_reload, judge_weight_change
from factpatch.settings.config import GateSettings

LIMITS = GateSettings(reliability=0.95, generalization=0.8, locality=0.5, capability_drop=0.05, canaries=None)


def metrics(**values):
    if "locality" in values:  # what the gate reads
        values["locality_content"] = values.pop("locality")
    return {
        name: {"value": value, "n": 100, "ci95": [0.4, 1.0]}
        if value is not None
        else {"value": None, "n": 0, "reason": "no probe"}
        for name, value in {"reliability": 1.0, "generalization": 0.9, "locality_content": 0.7, **values}.items()
    }


def row(broken, repaired, n, **more):
    return {
        "before": 0.9,
        "after": 0.9 - (broken - repaired) / n,
        "n": n,
        "broken": broken,
        "repaired": repaired,
        **more,
    }


def judged(capability=None, settings=LIMITS, **values):
    return {gate.name: gate for gate in judge_gates(metrics(**values), capability, settings)}


def capability(**scores):
    return judged({"sums": scores})["capability.sums"]


def test_all_pass():
    gates = judge_gates(metrics(), {"sums": row(5, 0, 500)}, LIMITS)
    assert [gate.name for gate in gates] == ["reliability", "generalization", "locality", "capability.sums"]
    assert all(gate.passed and gate.verdict == "passed" for gate in gates)
    assert allows(gates)


@pytest.mark.parametrize("name", ["reliability", "generalization", "locality"])
def test_a_floor_refuses_just_below_and_passes_at_the_limit(name):
    limit = getattr(LIMITS, name)
    assert judged(**{name: limit})[name].passed
    gate = judged(**{name: limit - 0.01})[name]
    assert (gate.passed, gate.verdict) == (False, "failed")
    assert (gate.value, gate.limit, gate.ci95) == (limit - 0.01, limit, (0.4, 1.0))
    assert gate.reason.startswith(name.capitalize())
    assert "is below the floor" in gate.reason
    assert not allows([gate])


@pytest.mark.parametrize("name", ["generalization", "locality"])
def test_what_was_not_measured_is_skipped_and_says_why(name):
    gate = judged(**{name: None})[name]
    assert (gate.passed, gate.verdict, gate.value) == (None, "skipped", None)
    assert "no probe" in gate.reason
    assert "skipped" in gate.reason
    assert allows([gate])


def test_locality_is_judged_by_content_and_under_the_papers_protocol_by_form():
    told = {**metrics(locality=0.9), "locality": {"value": 0.1, "n": 100, "ci95": [0.0, 0.2]}}
    own = {gate.name: gate for gate in judge_gates(told, None, LIMITS)}["locality"]
    assert (own.verdict, own.value) == ("passed", 0.9)
    assert own.reason.startswith("Locality of content of 90.0%")
    paper = {gate.name: gate for gate in judge_gates({**told, "protocol": "paper"}, None, LIMITS)}["locality"]
    assert (paper.verdict, paper.value) == ("failed", 0.1)
    assert "content" not in paper.reason


@pytest.mark.parametrize("required", [("reliability",), ("locality",)])
def test_probes_that_are_all_unmeasured_decide_nothing_and_refuse(required):
    nothing = {"value": None, "n": 0, "unmeasured": 24, "reason": "the model says nothing to any of the 24 probes"}
    told = {**metrics(), "locality_content": nothing}
    gate = {gate.name: gate for gate in judge_gates(told, None, GateSettings(required=required))}["locality"]
    assert (gate.passed, gate.verdict, gate.value) == (None, "undecided", None)
    assert "cannot be judged: the model says nothing to any of the 24 probes" in gate.reason
    assert not allows([gate])


def test_probes_that_are_partly_unmeasured_are_counted_in_the_reason():
    told = {**metrics(), "locality_content": {"value": 0.9, "n": 10, "ci95": [0.6, 1.0], "unmeasured": 14}}
    gate = {gate.name: gate for gate in judge_gates(told, None, LIMITS)}["locality"]
    assert gate.verdict == "passed"
    assert "over 10 items (14 more are unmeasured) reaches" in gate.reason


def test_what_is_required_must_be_measured():
    assert judged(reliability=None)["reliability"].passed is False
    assert {gate.name: gate for gate in judge_gates({}, None, LIMITS)}["reliability"].passed is False
    strict = GateSettings(required=("locality",))
    assert judged(locality=None, settings=strict)["locality"].verdict == "failed"
    assert judged(reliability=None, settings=strict)["reliability"].verdict == "skipped"


def test_portability_is_judged_where_it_has_a_floor():
    assert "portability" not in judged(portability=0.1)
    assert judged(portability=0.1, settings=GateSettings(portability=0.2))["portability"].verdict == "failed"


@pytest.mark.parametrize(
    ("broken", "repaired", "n", "verdict"),
    [
        (10, 0, 500, "passed"),  # 2 points, surely within 5
        (30, 25, 500, "passed"),
        (60, 50, 500, "undecided"),  # items that turn both ways blur the fall
        (22, 0, 500, "undecided"),
        (45, 5, 500, "failed"),  # 8 points, surely more than 5
        (0, 0, 500, "passed"),
        (0, 0, 8, "undecided"),
        (6, 0, 8, "failed"),
        (0, 30, 500, "passed"),  # it got better
    ],
)
def test_capability_is_judged_by_the_interval_of_the_paired_fall(broken, repaired, n, verdict):
    gate = capability(**row(broken, repaired, n))
    assert gate.verdict == verdict
    assert gate.passed == {"passed": True, "failed": False}.get(verdict)
    assert gate.value == (broken - repaired) / n
    assert gate.ci95[0] <= gate.value <= gate.ci95[1]
    assert allows([gate]) is (verdict == "passed")
    assert ("more items to tell" in gate.reason) is (verdict == "undecided")


def test_undecided_says_how_many_more_items_and_with_them_it_is_decided():
    assert "needs about 65 more items" in capability(**row(0, 0, 8)).reason
    assert capability(**row(0, 0, 8 + 65)).verdict == "passed"
    assert capability(**row(0, 0, 8 + 60)).verdict == "undecided"
    assert "more items than any task has" in capability(**row(25, 0, 500)).reason  # the fall is the margin itself


def test_scores_that_are_not_right_or_wrong_bring_their_interval():
    shares = {"before": 0.5, "after": 0.48, "n": 400, "broken": None, "repaired": None, "fall": 0.02}
    assert capability(**shares, ci95_fall=[0.01, 0.03]).verdict == "passed"
    undecided = capability(**shares, ci95_fall=[-0.02, 0.06])
    assert undecided.verdict == "undecided"
    assert "needs about 320 more items" in undecided.reason  # (0.06 - 0.02) / (0.05 - 0.02), squared, times 400
    assert capability(before=0.5, after=0.48, n=400, broken=None, ci95_fall=None).verdict == "undecided"


def test_no_capability_task_is_one_skipped_gate():
    for scores in (None, {}):
        gate = judged(scores)["capability"]
        assert gate.verdict == "skipped"
        assert "No capability task" in gate.reason


def test_canaries_must_all_be_right():
    settings = GateSettings(canaries="canaries.jsonl")

    def gate(*right):
        items = [{"prompt": f"q{index}", "correct": flag} for index, flag in enumerate(right)]
        told = {"value": sum(right) / len(right), "n": len(right), "ci95": [0.1, 1.0], "items": items}
        return judge_gates({**metrics(), "canaries": told}, None, settings)[-1]

    assert gate(True, True).verdict == "passed"
    assert gate(True, False).verdict == "failed"
    assert "1 of 2 canaries are answered wrong, such as 'q1'." in gate(True, False).reason
    assert judge_gates(metrics(), None, settings)[-1].verdict == "failed"  # named, but never asked


def test_the_patch_and_the_registry_are_judged():
    assert judge_certificate([]).passed
    failed = judge_certificate(["One is wrong.", "two is wrong"])
    assert failed.passed is False
    assert failed.reason == "One is wrong. two is wrong."
    assert judge_weight_change({"a": 0.2, "b": 0.4}, 0.4).passed
    wide = judge_weight_change({"a": 0.2, "b": 0.5}, 0.4)
    assert (wide.passed, wide.value, wide.limit) == (False, 0.5, 0.4)
    assert "b, changed by 50.0%" in wide.reason
    assert judge_reload(4, []).passed
    moved = judge_reload(4, ["Who?"])
    assert (moved.passed, moved.value) == (False, 0.75)
    assert "'Who?'" in moved.reason


def test_reasons_are_sentences():
    for gate in judge_gates(metrics(locality=None, generalization=0.1), {"sums": row(3, 0, 3)}, LIMITS):
        assert gate.reason[-1] == "."


def test_answers_and_gates_need_no_torch():
    code = "import sys, factpatch.evaluation.gates, factpatch.evaluation.answers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def known(n, broken, asked=100, **more):
    return {
        "metric": "acc",
        "before": 1.0,
        "n": n,
        "asked": asked,
        "known": True,
        **more,
        "broken": broken,
        "repaired": 0,
    }


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (known(200, 0), "passed"),
        (known(72, 0), "skipped"),  # no outcome of so few could pass
        (known(73, 0), "passed"),
        (known(40, 35), "failed"),  # but a sure fall shows
        ({**known(100, 0), "known": False, "chance": 0.5, "before": 0.55}, "skipped"),
        ({**known(100, 0), "known": False, "chance": 0.5, "before": 0.9}, "passed"),
    ],
)
def test_what_could_not_have_shown_a_fall_is_not_passed(row, verdict):
    assert capability(**row).verdict == verdict


def test_an_unmeasured_task_is_skipped_with_its_reason():
    gates = {gate.name: gate for gate in judge_gates(metrics(), {}, LIMITS, {"chat": "there is no chat template"})}
    assert gates["capability.chat"].verdict == "skipped"
    assert "there is no chat template" in gates["capability.chat"].reason
    assert "capability" not in gates


@pytest.mark.parametrize(
    ("rise", "interval", "verdict"),
    [
        (0.01, [0.0, 0.02], "passed"),
        (0.03, [0.02, 0.04], "undecided"),
        (0.4, [0.3, 0.5], "failed"),
        (None, None, "undecided"),
    ],
)
def test_text_is_judged_by_the_interval_of_its_relative_rise(rise, interval, verdict):
    row = {"metric": "compressed_size", "n": 48, "fall": rise, "ci95_fall": interval}
    gate = {gate.name: gate for gate in judge_gates(metrics(), {"text": row}, LIMITS)}["text_rise.text"]
    assert (gate.verdict, gate.limit) == (verdict, LIMITS.text_rise)


def test_chosen_canaries_that_there_are_none_of_are_skipped_and_unasked_ones_fail():
    settings = dataclasses.replace(LIMITS, canaries="auto")
    none = {"value": None, "n": 0, "ci95": None, "reason": "the model knows none", "items": []}
    assert judge_gates(metrics() | {"canaries": none}, None, settings)[-1].verdict == "skipped"
    assert judge_gates(metrics(), None, settings)[-1].verdict == "failed"
