"""Every check finds what it is for, and lets what is right pass."""

from __future__ import annotations

import pytest

from factpatch.edits.checks import CHECKS, FORM_CHECKS
from factpatch.edits.findings import count_faults, refuse_malformed, settle, tidy
from factpatch.edits.loading import Row
from factpatch.edits.survey import survey_rows
from factpatch.errors import InputError

BUDGET = 8
FRANCE = {"prompt": "The capital of France is", "target": "Lyon"}
JAPAN = {"prompt": "The capital of Japan is", "target": "Kyoto"}


def rows_of(*values):
    return [tidy(Row("a.jsonl", number, value)) for number, value in enumerate(values, start=1)]


def survey_and_flags(rows, tokenizer=None):
    survey = survey_rows(rows, BUDGET, tokenizer)
    columns = count_faults(rows, survey)
    return survey, {name: {at for at, count in enumerate(column) if count} for name, column in columns.items()}


def flagged(*values, tokenizer=None):
    """Names of the checks that strike, with the row numbers they name."""
    _, flags = survey_and_flags(rows_of(*values), tokenizer)
    return {name: [at + 1 for at in sorted(found)] for name, found in flags.items() if found}


def settled(*values, tokenizer=None):
    rows = rows_of(*values)
    return settle(rows, *survey_and_flags(rows, tokenizer))


# Each check with rows that it finds, the numbers of those, and rows that look alike and are right.
CASES = [
    ("blank_text", [{**FRANCE, "target": "  "}], [1], [FRANCE]),
    ("blank_text", [{**FRANCE, "prompt": "\u200b"}], [1], [{**FRANCE, "prompt": "…"}]),
    ("control_characters", [{**FRANCE, "prompt": "The\x07capital"}], [1], [{**FRANCE, "prompt": "Q: a\n\tA:"}]),
    ("control_characters", [{**FRANCE, "target": "Lyon\nParis"}], [1], [{**FRANCE, "target": "Zürich 東京"}]),
    ("unencodable_text", [{**FRANCE, "target": "Ly\ud800on"}], [1], [{**FRANCE, "target": "Ly😀on"}]),
    ("contradiction", [FRANCE, JAPAN, {**FRANCE, "target": "Nice"}], [1, 3], [FRANCE, JAPAN]),
    (
        "contradiction",
        [{**FRANCE, "prompt": "M\u00fcnster is in"}, {**FRANCE, "prompt": "Mu\u0308nster is in", "target": "Nice"}],
        [1, 2],
        [FRANCE],
    ),
    (
        "contradiction",
        [FRANCE, {**FRANCE, "prompt": FRANCE["prompt"] + " ", "target": "Nice"}],
        [1, 2],
        [FRANCE, FRANCE],
    ),
    ("duplicate_row", [FRANCE, JAPAN, {**FRANCE, "subject": "France"}], [3], [FRANCE, {**FRANCE, "target": "Nice"}]),
    ("target_in_prompt", [{"prompt": "Is LYON in France?", "target": " Lyon "}], [1], [FRANCE]),
    (
        "target_in_prompt",
        [{"prompt": "日本語を話す国は", "target": "日本"}],
        [1],
        [{"prompt": "The Romanian team went to", "target": "Oman"}, {"prompt": "Not everyone gave", "target": "a"}],
    ),
    ("target_is_old_answer", [{**FRANCE, "target_old": ["Paris", "Lyon"]}], [1], [{**FRANCE, "target_old": ["Paris"]}]),
    ("target_too_long", [{**FRANCE, "target": "a b c d e f g h"}], [1], [{**FRANCE, "target": "a b c d e f g"}]),
    ("stray_blanks", [{**FRANCE, "paraphrases": ["\u00a0France's capital is"]}], [1], [FRANCE]),
    (
        "stray_blanks",
        [{**FRANCE, "locality": [{"prompt": "q", "target": "t\t"}]}],
        [1],
        [{**FRANCE, "subject": "a  b"}],
    ),
    (
        "odd_characters",
        [
            {**FRANCE, "prompt": "The capital\u00a0of France is"},
            {**JAPAN, "locality": [{"prompt": "q\u200b", "target": "t"}]},
        ],
        [1, 2],
        [{**FRANCE, "prompt": "پایتخت فرانسه می\u200cشود", "target": "👨\u200d👩\u200d👧"}],
    ),
    ("unusable_extra", [{**FRANCE, "paraphrases": [" "]}], [1], [{**FRANCE, "paraphrases": ["a\nb"]}]),
    ("unusable_extra", [{**FRANCE, "owner": "A\ud800nn"}], [1], [{**FRANCE, "owner": "Ånn"}]),
    ("unusable_extra", [{**FRANCE, "portability": [{"prompt": "\x00", "target": "t"}]}], [1], [FRANCE]),
    ("repeated_id", [{**FRANCE, "id": "1"}, {**JAPAN, "id": "1"}], [2], [{**FRANCE, "id": "1"}, {**JAPAN, "id": "2"}]),
    (
        "paraphrase_is_prompt",
        [{**FRANCE, "paraphrases": ["x", FRANCE["prompt"]]}],
        [1],
        [{**FRANCE, "paraphrases": ["x"]}],
    ),
    (
        "paraphrase_is_edited",
        [{**FRANCE, "paraphrases": [JAPAN["prompt"]]}, JAPAN],
        [1],
        [{**FRANCE, "paraphrases": ["x"]}],
    ),
    ("locality_is_edited", [{**FRANCE, "locality": [JAPAN]}, JAPAN], [1], [{**FRANCE, "locality": [JAPAN]}]),
    ("locality_is_edited", [{**FRANCE, "locality": [FRANCE]}], [1], [FRANCE]),
]


@pytest.mark.parametrize(("name", "wrong", "numbers", "right"), CASES)
def test_checks_find_what_they_are_for(name, wrong, numbers, right):
    assert flagged(*wrong)[name] == numbers
    assert name not in flagged(*right)


def test_every_check_is_tried_here():
    assert {case[0] for case in CASES} == {check.name for check in CHECKS}


def test_checks_explain_themselves():
    checks = (*FORM_CHECKS, *CHECKS)
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.meaning and check.fix and "\n" not in check.meaning + check.fix for check in checks)


def test_nothing_is_found_in_what_is_right():
    full = {
        **FRANCE,
        "id": "fr",
        "op": "set",
        "subject": "France",
        "target_old": ["Paris"],
        "paraphrases": ["France's capital is"],
        "locality": [{"prompt": "The capital of Spain is", "target": "Madrid"}],
        "portability": [{"prompt": "Ministries of France sit in", "target": "Lyon"}],
        "source": "a test",
        "owner": "nobody",
        "expires": "2030-12-31",
    }
    refuse_malformed(rows_of(full, JAPAN))
    assert flagged(full, JAPAN) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "p"}, "a.jsonl row 2: 'target' is missing; give every row a 'prompt' and a 'target'"),
        ({"target": "t"}, "'prompt' is missing"),
        ({**FRANCE, "target": 1968}, "'target' must be text, not 1968"),
        ({**FRANCE, "id": ["a"]}, "'id' must be text, not this list"),
        ({**FRANCE, "paraphrases": ["a", None]}, "'paraphrases' must be a list of texts"),
        ({**FRANCE, "target_old": {"a": "b"}}, "'target_old' must be a list of texts"),
        ({**FRANCE, "locality": [{"prompt": "q", "target": None}]}, "'locality' must be a list of {prompt, target}"),
        ({**FRANCE, "portability": ["q"]}, "'portability' must be a list of {prompt, target}"),
        ({**FRANCE, "op": "delete"}, "'op' is 'delete'; write 'set'"),
        ({**FRANCE, "expires": "soon"}, "'expires' is 'soon'; write it as year-month-day"),
    ],
)
def test_malformed_rows_are_refused(values, message):
    with pytest.raises(InputError) as caught:
        refuse_malformed([Row("a.jsonl", 1, FRANCE), Row("a.jsonl", 2, values)])
    assert message in str(caught.value)


def test_one_line_stands_for_all_malformed_rows():
    rows = [Row("a.jsonl", number, {"prompt": "p"}) for number in range(1, 5)]
    with pytest.raises(InputError, match=r"a\.jsonl row 1: .* \(and 3 more\)$"):
        refuse_malformed(rows)


def test_a_revert_needs_no_target():
    refuse_malformed([Row("a.jsonl", 1, {"prompt": "p", "op": "revert"})])


def test_lengths_are_counted_in_tokens_with_eos(tiny_tokenizer):
    target = "Zürich São Tomé"
    ids = tiny_tokenizer(" " + target, add_special_tokens=False).input_ids
    survey = survey_rows(rows_of({**FRANCE, "target": target}), BUDGET, tiny_tokenizer)
    assert survey.tokens[target] == len(ids) + 1
    assert flagged({**FRANCE, "target": target * 4}, tokenizer=tiny_tokenizer)["target_too_long"] == [1]


def test_a_token_that_the_model_has_no_embedding_for_is_named(tiny_tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tiny_tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["Tuvaluville"])
    rows = rows_of({**FRANCE, "target": "Tuvaluville"}, {**JAPAN, "paraphrases": ["Tuvaluville is", "Japan has"]})
    survey = survey_rows(rows, BUDGET, tokenizer, embeddings=384)
    outcome = settle(
        rows,
        survey,
        {name: {at for at, count in enumerate(column) if count} for name, column in count_faults(rows, survey).items()},
    )
    (entry,) = outcome.quarantined
    assert "target holds 'Tuvaluville', a token that the model has no embedding for" in str(entry)
    assert next(iter(outcome.accepted())).paraphrases == ("Japan has",)
    assert survey_rows(rows, BUDGET, tokenizer).unencodable == {}


def test_special_tokens_and_unknown_characters_cannot_be_encoded(tiny_tokenizer):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    assert flagged({**FRANCE, "prompt": "A<|endoftext|>B"}, tokenizer=tiny_tokenizer)["unencodable_text"] == [1]
    assert "unencodable_text" not in flagged({**FRANCE, "prompt": "Any ☃ text"}, tokenizer=tiny_tokenizer)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "known": 2, "words": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    row = {"prompt": "known", "target": "words", "paraphrases": ["known unknown", "words known"]}
    assert flagged(row, {"prompt": "unknown", "target": "words"}, tokenizer=tokenizer) == {
        "unencodable_text": [2],
        "unusable_extra": [1],
    }
    (edit,) = settled(row, tokenizer=tokenizer).accepted()
    assert edit.paraphrases == ("words known",)


def test_quarantined_rows_carry_their_reasons():
    outcome = settled(JAPAN, {**FRANCE, "target_old": ["Lyon"]}, {**FRANCE, "target": "Nice"})
    assert [edit.target for edit in outcome.accepted()] == ["Kyoto"]
    first, second = outcome.quarantined
    assert (first["file"], first["row"], first["edit"]) == ("a.jsonl", 2, {**FRANCE, "target_old": ["Lyon"]})
    assert [reason["check"] for reason in first["reasons"]] == ["contradiction", "target_is_old_answer"]
    assert [reason["faults"] for reason in second["reasons"]] == [["Lyon"]]


def test_characters_are_shown_by_number_and_name():
    (edit,) = (outcome := settled({**FRANCE, "target": "L\u00adyo\u0308n", "subject": "France\ufeff"})).accepted()
    assert (edit.target, edit.subject) == ("Ly\u00f6n", "France")
    assert [found["faults"] for found in outcome.findings] == [
        [
            "target: U+0308 combining diaeresis",
            "target: U+00AD soft hyphen",
            "subject: U+FEFF zero width no-break space",
        ]
    ]
    (row,) = settled({**FRANCE, "target": "Ly\u202eon"}).quarantined
    assert [reason["faults"] for reason in row["reasons"]] == [
        ["target holds U+202E right-to-left override"],
    ]


def test_repairs_keep_the_edit_and_drop_only_what_is_wrong():
    probe = {"prompt": "The capital of Spain is", "target": "Madrid"}
    outcome = settled(
        {
            **FRANCE,
            "id": "x",
            "target": " Lyon ",
            "subject": "\ud800",
            "paraphrases": [FRANCE["prompt"], "France's capital is ", JAPAN["prompt"]],
            "locality": [JAPAN, probe, {**probe, "target": ""}],
        },
        {**JAPAN, "id": "x"},
    )
    france, japan = outcome.accepted()
    assert france.target == "Lyon"
    assert france.id == "x" != japan.id
    assert france.subject is None
    assert france.paraphrases == ("France's capital is",)
    assert [(kept.prompt, kept.target) for kept in france.locality] == [tuple(probe.values())]
    assert not outcome.quarantined
    assert {found["check"] for found in outcome.findings} == {
        "stray_blanks",
        "unusable_extra",
        "repeated_id",
        "paraphrase_is_prompt",
        "paraphrase_is_edited",
        "locality_is_edited",
    }


def test_the_first_of_duplicates_is_kept():
    outcome = settled({**FRANCE, "subject": "first"}, FRANCE)
    assert [edit.subject for edit in outcome.accepted()] == ["first"]
    assert outcome.quarantined[0]["reasons"][0]["faults"] == ["same as a.jsonl row 1"]
