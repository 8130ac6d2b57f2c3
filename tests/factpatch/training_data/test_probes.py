"""What a run makes to measure by where rows bring nothing, on the reference model, which knows the world's capitals."""

import json
from dataclasses import replace

import pytest

from factpatch.edits.accepted import PROBES_FILE, read_accepted
from factpatch.edits.request import EditRequest, Probe, digest_edits
from factpatch.evaluation.answer_reader import Answer
from factpatch.evaluation.evaluate import collect_answers, measure
from factpatch.evaluation.gates import judge_gates
from factpatch.files import write_jsonl
from factpatch.models.loading import load_model
from factpatch.settings.config import load_settings
from factpatch.settings.training import AugmentationSettings
from factpatch.training_data.leakage import HeldOut, held_out
from factpatch.training_data.probes import (
    KNOWN_PROBABILITY,
    PROBED_EDITS,
    PROBES_PER_EDIT,
    lacking,
    make_probes,
    sure_part,
)
from factpatch.training_data.rows import find_training_rows

ROWS = [
    ("The capital of France is", "Lyon"),
    ("The currency of Japan is", "the peso"),
    ("Germany lies in", "Asia"),
    ("What is the capital of Chile?", "Lima"),
    ("Hm", "so"),
]
EDITS = [EditRequest(f"e{number}", *row) for number, row in enumerate(ROWS)]


@pytest.fixture(scope="module")
def settings(reference_model, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("answers"))
    return load_settings(None, {"model.path": str(reference_model), "evaluation.cache": cache})


@pytest.fixture(scope="module")
def loaded(settings):
    return load_model(settings.model)


@pytest.fixture(scope="module")
def probed(loaded, settings, tmp_path_factory):
    """The edits as the steps after `probes` read them."""
    folder = tmp_path_factory.mktemp("probed")
    write_jsonl(folder / "accepted.jsonl", (edit.to_row() for edit in EDITS))
    write_jsonl(folder / PROBES_FILE, make_probes(loaded, EDITS, settings).rows)
    return read_accepted(folder)


def test_a_question_is_asked_in_other_frames(probed):
    for edit in probed:
        assert len(edit.paraphrases) == PROBES_PER_EDIT
        assert all(edit.prompt in text and text != edit.prompt for text in edit.paraphrases)
    assert all("?" in text for text in probed[3].paraphrases)


def test_it_is_asked_about_names_of_the_same_kind_as_the_model_answers(loaded, settings, probed):
    said = collect_answers(loaded, probed, settings).outputs
    for edit, before, after in ((probed[0], "The capital of ", " is"), (probed[3], "What is the capital of ", "?")):
        assert len(edit.locality) == PROBES_PER_EDIT
        for probe in edit.locality:
            assert probe.prompt.startswith(before)
            assert probe.prompt.endswith(after)
            assert said[probe.prompt].startswith(probe.target)
    assert not probed[4].locality  # nobody knows what it is about


def test_names_that_an_edit_speaks_of_are_no_probes(loaded, settings):
    free = {probe["prompt"] for probe in make_probes(loaded, EDITS[:1], settings).rows[0]["locality"]}
    others = [EditRequest(text, f"The currency of {text[15:-3]} is", "gold") for text in sorted(free)]
    row, *_ = make_probes(loaded, [EDITS[0], *others], settings).rows
    assert row["id"] == "e0"
    assert free.isdisjoint(probe["prompt"] for probe in row["locality"])


def test_what_was_made_is_no_part_of_the_rows(probed):
    assert [edit.made for edit in probed] == [("paraphrases", "locality")] * 4 + [("paraphrases",)]
    assert [edit.to_row() for edit in probed] == [edit.to_row() for edit in EDITS]
    assert digest_edits(probed) == digest_edits(EDITS)


def test_rows_keep_what_they_bring(loaded, settings):
    own = replace(EDITS[0], locality=(Probe("The capital of Italy is", "Rome"),))
    (row,) = make_probes(loaded, [own], settings).rows
    assert set(row) == {"id", "paraphrases"}
    bringing = [replace(own, id=str(number)) for number in range(PROBED_EDITS)]
    assert lacking([EDITS[1], *bringing], "locality", settings) == []
    assert lacking([EDITS[1], *bringing[1:]], "locality", settings) == [EDITS[1]]


def test_the_draw_holds_when_edits_join(settings):
    many = [EditRequest(str(number), f"Fact {number} is", "so") for number in range(2 * PROBED_EDITS)]
    few = {edit.id for edit in lacking(many[: PROBED_EDITS + 20], "locality", settings)}
    more = {edit.id for edit in lacking(many[: PROBED_EDITS + 40], "locality", settings)}
    assert len(few) == len(more) == PROBED_EDITS
    assert len(few & more) >= PROBED_EDITS - 20


def test_the_switch_makes_none(loaded, settings):
    off = replace(settings, evaluation=replace(settings.evaluation, make_probes=False))
    assert make_probes(loaded, EDITS, off).rows == ()


def test_what_was_made_is_never_trained_and_leaves_training_its_own(loaded, settings, probed):
    training = replace(settings.training, augmentation=AugmentationSettings(wordings=0, prefixes=2))
    told = find_training_rows(loaded, probed, replace(settings, training=training))
    texts = [text.prompt for text in told.carried_over.wordings] + list(told.carried_over.neighbours)
    held = held_out(probed)
    assert not [text for text in texts if held.twin(text)]
    assert sum(text.kind == "context" for text in told.carried_over.wordings) == 2 * len(probed)
    near = [text for text in told.carried_over.neighbours if text.startswith("The capital of")]
    assert near
    assert HeldOut(near).twin(probed[0].locality[0].prompt) is None


def test_gates_and_rows_say_what_was_made_and_what_moved(loaded, settings, probed):
    before = collect_answers(loaded, probed, settings)
    moved = probed[0].locality[0].prompt
    after = replace(before, outputs={**before.outputs, moved: "Lyon"})
    value = json.loads(json.dumps(measure(probed, after, before)))
    assert value["edits"][0]["made"] == ["paraphrases", "locality"]
    assert value["locality"]["made"] == value["locality"]["n"] == 4 * PROBES_PER_EDIT
    gates = {gate.name: gate for gate in judge_gates(value, {}, replace(settings.gates, locality=0.99))}
    assert gates["locality"].verdict == "failed"
    assert f"'{moved}'" in gates["locality"].reason
    assert "8 of them made by the run" in gates["locality"].reason


@pytest.mark.parametrize(
    ("said", "sure"),
    [
        ([(" Lis", 0.6), ("bon", 0.9), (",", 0.5), (" which", 0.3)], (0.6, "Lisbon")),
        ([(" the", 0.1), (" city", 0.9), (" of", 0.2), (" Rome", 0.7), (".", 0.9)], (0.7, "the city of Rome")),
        ([(" the", 0.9), (" in", 0.9), (".", 0.9)], (0.0, "")),
        ([(" Rome", 0.7), (" and", 0.3), (" Bonn", 0.1)], (0.7, "Rome")),
        ([(" Indian", 0.7), (" rupee", 0.1), (".", 0.9)], (0.0, "")),
        ([(" Lis", 0.9), ("bon", 0.2)], (0.0, "")),
        ([(" capital", 0.9), (".", 0.9)], (0.0, "")),  # the prompt's own word
    ],
)
def test_an_answer_counts_as_far_as_the_model_is_sure_of_whole_words(loaded, said, sure):
    ids, chances = [], []
    for piece, chance in said:
        own = loaded.tokenizer(piece, add_special_tokens=False).input_ids
        ids += own
        chances += [chance] * len(own)
    answer = Answer("".join(piece for piece, _ in said).strip(), tuple(ids))
    assert sure_part(loaded.tokenizer, "The capital of it is", answer, chances) == sure
    assert sure[0] == 0 or sure[0] >= KNOWN_PROBABILITY
