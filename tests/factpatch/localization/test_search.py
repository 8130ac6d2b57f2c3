"""The search as a whole: what is tried, what is chosen, what is remembered, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from factpatch.errors import InputError
from factpatch.localization import search
from factpatch.localization.forecast import Forecast
from factpatch.localization.search import localize
from factpatch.models.loading import tensor_digests
from factpatch.settings.config import load_settings


def names(record, run=("short", "whole")):
    return [candidate["location"] for candidate in record["candidates"] if candidate["run"] in run]


def test_auto_ranks_all_tries_few_and_chooses_a_whole_run(loaded, edits, with_search):
    before = tensor_digests(loaded.model)
    record = localize(loaded, edits, with_search(budget_edits=32))
    places = {f"{layer}:{module}" for layer in range(4) for module in ("mlp.down_proj", "mlp")}
    assert {one["location"] for one in record["ranking"]} == places
    assert set(names(record)) == {
        "3:mlp",
        "3:mlp.down_proj",
        "2:mlp",
    }  # 32 edits are four trials of 8: three short runs, and a whole one
    assert len(names(record, "whole")) == 1
    assert record["location"]["name"] in names(record, "whole")
    assert record["choice"]["location"] == record["location"]["name"]
    assert record["cost"]["trials"] == 4
    assert record["cost"]["edits"] == 32
    assert tensor_digests(loaded.model) == before
    json.dumps(record, allow_nan=False)


def test_a_grid_gives_every_place_a_whole_run(loaded, edits, with_search):
    seen = []
    before = tensor_digests(loaded.model)
    record = localize(loaded, edits, with_search(method="grid"), lambda *told: seen.append(told))
    assert len(names(record, "whole")) == 8
    assert record["measured"] == "verified"
    assert record["runner_up"]["price"]["than"] == record["location"]["name"]
    for candidate in record["candidates"]:
        assert candidate["reliability"]["n"] == 8
        assert candidate["score"] - candidate["margin"] <= candidate["score"] <= 1
        assert candidate["operations"] > 0
    spent = [done for done, _, _ in seen]
    assert spent == sorted(spent)
    assert all(done <= total for done, total, _ in seen)
    assert tensor_digests(loaded.model) == before


def test_later_layers_cost_less(loaded, edits, with_search):
    record = localize(loaded, edits, with_search(method="grid", modules=("mlp",)))
    work = {candidate["layer"]: candidate["operations"] / candidate["visits"] for candidate in record["candidates"]}
    assert work[0] > work[1] > work[2] > work[3]


def test_the_same_search_again_tries_nothing(loaded, edits, with_search, monkeypatch):
    settings = with_search(budget_edits=32)
    first = localize(loaded, edits, settings)
    monkeypatch.setattr(search, "run_trial", None)
    monkeypatch.setattr(search, "make_trial_set", None)
    assert localize(loaded, list(reversed(edits)), settings) == first


def test_a_killed_search_goes_on_from_its_trials(loaded, edits, with_search, monkeypatch):
    settings, real, tried = with_search(method="grid", modules=("mlp",)), search.run_trial, []

    def killed_at_the_third(trunk, location, *rest):
        if len(tried) == 2:
            raise KeyboardInterrupt
        tried.append(location.name)
        return real(trunk, location, *rest)

    monkeypatch.setattr(search, "run_trial", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        localize(loaded, edits, settings)
    first, tried[:] = set(tried), []
    monkeypatch.setattr(search, "run_trial", lambda *arguments: tried.append(arguments[1].name) or real(*arguments))
    record = localize(loaded, edits, settings)
    assert len(tried) == 2
    assert not first & set(tried)
    assert len(record["candidates"]) == 4


def test_edits_of_the_same_kind_keep_the_choice_and_are_checked(loaded, edits, make_edits, with_search):
    settings = with_search(budget_edits=32)
    first = localize(loaded, edits[:9], settings)
    record = localize(loaded, edits, settings)
    assert record["method"] == "reused"
    assert record["location"] == first["location"]
    assert len(record["candidates"]) == 1
    assert not [note for note in record["notes"] if "localization.reuse" in note]
    assert localize(loaded, edits, with_search(budget_edits=32, reuse=False))["method"] == "auto"


@pytest.mark.parametrize(("then", "now", "told"), [(True, False, 1), (True, True, 0), (False, True, 0)])
def test_a_choice_that_no_longer_fits_is_told(loaded, edits, with_search, monkeypatch, then, now, told):
    settings, real = with_search(budget_edits=16), search.run_trial

    def answered(right):
        def trial(*arguments):
            candidate = real(*arguments)
            return replace(candidate, right=(right,) * len(candidate.right))

        return trial

    monkeypatch.setattr(search, "run_trial", answered(then))
    localize(loaded, edits[:9], settings)
    monkeypatch.setattr(search, "run_trial", answered(now))
    record = localize(loaded, edits, settings)
    assert record["method"] == "reused"
    assert sum("set localization.reuse to false" in note for note in record["notes"]) == told


def test_edits_without_paraphrases_are_told_and_searched(loaded, make_edits, with_search):
    record = localize(loaded, make_edits(paraphrases=False), with_search(budget_edits=16, modules=("mlp",)))
    assert record["candidates"][0]["generalization"]["value"] is None
    assert "generalization is unknown: no edit of the sample has a paraphrase" in record["notes"]


def test_too_few_edits_take_the_first_in_order(loaded, make_edits, with_search):
    record = localize(loaded, make_edits(3), with_search())
    assert record["candidates"] == []
    assert record["location"]["name"] == "3:mlp"  # an MLP at nine tenths of the depth
    bare = localize(loaded, make_edits(3), with_search(modules=("q", "o")))  # no usual place
    assert bare["location"]["name"] == bare["ranking"][0]["location"]
    assert "3 edits are too few" in record["reason"]
    with pytest.raises(InputError, match=r"a grid needs at least 8 edits .* there are 3"):
        localize(loaded, make_edits(3), with_search(method="grid"))


def test_damaged_files_of_earlier_searches_are_made_anew(loaded, edits, with_search):
    settings = with_search(budget_edits=32)
    record = localize(loaded, edits, settings)
    files = sorted(Path(settings.localization.cache).rglob("*.json"))
    assert files
    for number, path in enumerate(files):
        path.write_text(path.read_text()[:-5] if number % 2 else "[1]")
    again = localize(loaded, edits, settings)
    assert (again["location"], again["method"]) == (record["location"], record["method"])
    assert all(isinstance(json.loads(path.read_text()), dict) for path in files)


def test_a_budget_that_allows_no_trial_is_refused(loaded, edits, with_search):
    with pytest.raises(InputError, match=r"localization.budget_edits is 7, but one trial takes 8 edits"):
        localize(loaded, edits, with_search(budget_edits=7))


def test_where_there_is_no_time_for_a_trial_the_first_of_the_order_is_taken(loaded, edits, with_search):
    record = localize(loaded, edits, with_search(budget_minutes=1e-6))
    assert record["candidates"] == []
    assert record["location"]["name"] == "3:mlp"
    assert "no place could be tried within localization.budget_minutes (1e-06)" in record["reason"]


def test_few_edits_take_a_share_of_the_minutes():
    assert [round(search.minutes(3.0, edits), 2) for edits in (0, 20, 200, 2000)] == [1.0, 1.2, 3.0, 3.0]


def test_as_many_trials_are_planned_as_there_is_time_for(loaded, edits, with_search, monkeypatch):
    settings = with_search(budget_edits=64, budget_minutes=13)
    monkeypatch.setattr(search, "minutes", lambda budget, edits: budget)

    def seconds(self, location, whole):
        return 5000.0 if location.name == "2:mlp" else 250.0

    monkeypatch.setattr(Forecast, "seconds", seconds)
    clock, real = [0.0], search.run_trial
    monkeypatch.setattr(search.time, "monotonic", lambda: clock[0])

    def slow(*arguments):
        clock[0] += 250
        return real(*arguments)

    monkeypatch.setattr(search, "run_trial", slow)
    record = localize(loaded, edits, settings)
    assert set(names(record, "whole")) == {"3:mlp", "3:mlp.down_proj", "2:mlp.down_proj"}
    assert "left time for 3 trials, 5 fewer than planned" in record["notes"][-1]


def test_an_unknown_module_is_refused_with_what_there_is(loaded, edits, with_search):
    with pytest.raises(InputError, match=r"module 'mpl': no module 'mpl' in layer 0; there are the roles q, k"):
        localize(loaded, edits, with_search(modules=("mpl",)))


def test_a_configured_sample_below_the_minimum_is_refused():
    with pytest.raises(InputError, match=r"localization.sample is 7; it must be at least 8"):
        load_settings(None, {"localization.sample": 7})


def test_weights_must_leave_something_to_choose_by(loaded, edits, with_search):
    with pytest.raises(InputError, match=r"localization.weights leaves no measured metric"):
        localize(loaded, edits, with_search(weights={"reliability": 0.0}))
