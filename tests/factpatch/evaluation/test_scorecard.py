"""The scorecard by source and by relation, from rows as `evaluate.json` has them."""

from factpatch.edits.request import EditRequest
from factpatch.evaluation.scorecard import GROUP_LIMIT, OTHERS, by_group, metrics, relation_of, source_of


def edit(number: int, source: str | None = None, subject: str | None = None) -> EditRequest:
    return EditRequest(f"e{number}", f"The capital of {subject} is", "Lyon", subject=subject, source=source)


def row(reliable: bool, *paraphrases: bool) -> dict:
    return {
        "reliable": reliable,
        "token_accuracy": float(reliable),
        "paraphrases": [{"correct": correct} for correct in paraphrases],
        "locality": [],
        "portability": [],
    }


def test_groups_hold_their_own_numbers_largest_first():
    edits = [edit(1, "maps"), edit(2, "people"), edit(3, "people"), edit(4)]
    after = [row(True, True), row(False, True, False), row(True), row(True)]
    before = [row(False), row(False), row(True), row(False)]
    groups = by_group(edits, source_of, after, before)
    assert list(groups) == ["people", "(no source)", "maps"]
    people = groups["people"]
    assert (people["edits"], people["reliability"]["value"], people["reliability"]["n"]) == (2, 0.5, 2)
    assert (people["generalization"]["value"], people["generalization"]["n"]) == (0.5, 2)
    assert people["before"]["reliability"]["value"] == 0.5
    assert groups["maps"]["before"]["reliability"]["value"] == 0.0
    assert groups["(no source)"]["generalization"] == {
        "value": None,
        "n": 0,
        "ci95": None,
        "reason": "no edit has a paraphrase",
    }
    assert by_group(edits, source_of, after, None)["maps"]["before"] is None


def test_a_relation_is_the_prompt_without_its_subject():
    assert relation_of(edit(1, subject="France")) == relation_of(edit(2, subject="Peru")) == "The capital of {} is"
    assert relation_of(EditRequest("e", "Who?", "me")) == "(no subject)"
    assert relation_of(EditRequest("e", "Who?", "me", subject="Nina")) == "(no subject)"
    assert (
        relation_of(EditRequest("e", "Do Romanians live in Oman?", "no", subject="Oman")) == "Do Romanians live in {}?"
    )


def test_very_many_groups_are_not_all_listed():
    edits = [edit(number, f"source {number:03}") for number in range(GROUP_LIMIT + 9)]
    rows = [row(True) for _ in edits]
    groups = by_group(edits, source_of, rows, None)
    assert list(groups)[-1] == OTHERS
    assert (len(groups), groups[OTHERS]["edits"]) == (GROUP_LIMIT + 1, 9)
    assert sum(group["reliability"]["n"] for group in groups.values()) == metrics(rows)["reliability"]["n"]
