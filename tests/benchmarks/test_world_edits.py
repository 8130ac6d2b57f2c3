"""What the frontier measures is apart from what it keeps and edits, at every size."""

import pytest

from benchmarks.counterfact import without_beginning
from benchmarks.world_edits import sample_edits


@pytest.mark.parametrize("count", [100, 500, 2000])
def test_edits_probes_questions_and_kept_prompts_are_apart(count):
    sample = sample_edits(count, 1)
    assert sample == sample_edits(count, 1) != sample_edits(count, 2)
    assert len(sample.edits) == len({edit.prompt for edit in sample.edits}) == count
    edited = {(edit.subject, edit.source) for edit in sample.edits}
    assert len(edited) == count
    probes = {probe.prompt for edit in sample.edits for probe in edit.locality}
    kept, asked = {prompt for prompt, _ in sample.kept}, {question.prompt for question in sample.questions}
    prompts = {text for edit in sample.edits for text in (edit.prompt, *edit.paraphrases)}
    for one, other in (
        (probes, kept),
        (probes, asked),
        (kept, asked),
        (prompts, probes),
        (prompts, kept),
        (prompts, asked),
    ):
        assert one.isdisjoint(other)


def test_a_paraphrase_without_its_unrelated_beginning():
    assert without_beginning("He rests. Reedy Glacier lies in", "Reedy Glacier") == "Reedy Glacier lies in"
    assert without_beginning("North \n The home of Bonito begins. The job of Ada is", "Ada") == "The job of Ada is"
    assert without_beginning("Reedy Glacier lies in", "Reedy Glacier") == "Reedy Glacier lies in"
    assert without_beginning("Nobody is named. Here", "Ada") == "Nobody is named. Here"
