"""Gates judge numbers; they never guess them."""

import subprocess
import sys

import pytest

from factpatch.config import GateSettings
from factpatch.evaluation.gates import allows, judge

LIMITS = GateSettings(reliability=0.95, generalization=0.8, locality=0.5, capability_drop=0.02)


def metrics(**values):
    return {
        name: {"value": value, "n": 100} if value is not None else {"value": None, "n": 0, "reason": "no probe"}
        for name, value in {"reliability": 1.0, "generalization": 0.9, "locality": 0.7, **values}.items()
    }


def judged(capability=None, **values):
    return {gate.name: gate for gate in judge(metrics(**values), capability, LIMITS)}


def test_all_pass():
    gates = judge(metrics(), {"sums": {"before": 0.98, "after": 0.97, "n": 500}}, LIMITS)
    assert [gate.name for gate in gates] == ["reliability", "generalization", "locality", "capability.sums"]
    assert all(gate.passed for gate in gates)
    assert allows(gates)


@pytest.mark.parametrize("name", ["reliability", "generalization", "locality"])
def test_a_floor_refuses_just_below_and_passes_at_the_limit(name):
    limit = getattr(LIMITS, name)
    assert judged(**{name: limit})[name].passed
    gate = judged(**{name: limit - 0.01})[name]
    assert gate.passed is False
    assert (gate.value, gate.limit) == (limit - 0.01, limit)
    assert gate.reason.startswith(name.capitalize())
    assert "is below the floor" in gate.reason
    assert not allows([gate])


@pytest.mark.parametrize("name", ["generalization", "locality"])
def test_what_was_not_measured_is_skipped_and_says_why(name):
    gate = judged(**{name: None})[name]
    assert (gate.passed, gate.value) == (None, None)
    assert "no probe" in gate.reason
    assert "skipped" in gate.reason
    assert allows([gate])


def test_reliability_must_be_measured():
    assert judged(reliability=None)["reliability"].passed is False
    assert {gate.name: gate for gate in judge({}, None, LIMITS)}["reliability"].passed is False


@pytest.mark.parametrize(
    ("scores", "passed"),
    [
        ({"before": 0.96, "after": 0.94}, True),  # 0.020000000000000018 in binary
        ({"before": 0.96, "after": 0.93}, False),
        ({"before": 0.90, "after": 0.99}, True),
        ({"before": 0.30, "after": 0.35, "direction": "lower"}, False),
        ({"before": 0.35, "after": 0.30, "direction": "lower"}, True),
        ({"before": 0.9, "after": None}, False),
    ],
)
def test_capability_may_fall_by_the_limit_and_no_more(scores, passed):
    assert judged({"sums": {"n": 100, **scores}})["capability.sums"].passed is passed


def test_no_capability_task_is_one_skipped_gate():
    for capability in (None, {}):
        gate = judged(capability)["capability"]
        assert gate.passed is None
        assert "No capability task" in gate.reason


def test_reasons_are_sentences():
    for gate in judge(metrics(locality=None, generalization=0.1), {"sums": {"before": 1, "after": 0, "n": 3}}, LIMITS):
        assert gate.reason[-1] == "."


def test_answers_and_gates_need_no_torch():
    code = "import sys, factpatch.evaluation.gates, factpatch.evaluation.answers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
