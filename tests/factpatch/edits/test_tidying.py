"""What is mended in a text, what stays, and what makes it unfit."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factpatch.edits.tidying import tidy_text, unfit, visible

TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    "aü\u0308क\u094dم👩❤1 \n\r\u00a0\u00ad\u200b\u200c\u200d\u202e\ufe0f\ufeff"
)

MENDED = {
    "a\u00a0b\u202fc\u3000d": ("a b c d", ["U+00A0", "U+202F", "U+3000"]),
    "a\r\nb\rc\u2028d\te": ("a\nb\nc\nd\te", ["U+000D", "U+2028"]),
    "La\u00ad\u200b\u200e\u2060\ufeffPaz": ("LaPaz", ["U+00AD", "U+200B", "U+200E", "U+2060", "U+FEFF"]),
    "Mu\u0308nster": ("M\u00fcnster", ["U+0308"]),
    "\u212b": ("\u00c5", ["U+212B"]),
    "a\u0307\u0323 \u1ea1\u0307": ("\u1ea1\u0307 \u1ea1\u0307", ["U+0323"]),
    "a\u200db\u200cc": ("abc", ["U+200D", "U+200C"]),
    "a\ufe0f5\ufe0f": ("a5", ["U+FE0F"]),
    " \u200b x \u200b ": ("x", ["U+200B"]),
}


@pytest.mark.parametrize("text", MENDED)
def test_odd_characters_are_mended_and_shown(text):
    expected, numbers = MENDED[text]
    mended, shown = tidy_text(text)
    assert mended == expected
    assert [one.split()[0] for one in shown] == numbers


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",  # Persian
        "क्\u200dष",  # Hindi
        "র\u200d্য",  # Bengali
        "👩🏽\u200d🚀 ❤\ufe0f\u200d🔥 1\ufe0f\u20e3",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
        "葛\U000e0100城",
        "\u0600١٢",
        "Question: a\n\tb",
    ],
)
def test_what_carries_meaning_stays(text):
    assert tidy_text(text) == (text, [])
    assert unfit(text) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "U+202E right-to-left override"),
        ("\u2066a\u2069", "U+2066 left-to-right isolate"),
        ("a\x07", "U+0007 control character"),
        ("ä\x85", "U+0085 control character"),
        ("a\ue000", "U+E000 private-use character"),
        ("a\uffff", "U+FFFF unassigned character"),
        ("a\ufffdb", "U+FFFD replacement character"),
        ("a\ufff9", "U+FFF9 interlinear annotation anchor"),
        ("a\U000e0067", "U+E0067 tag latin small letter g"),
    ],
)
def test_what_cannot_be_mended_makes_a_text_unfit(text, shown):
    assert unfit(text) == shown


def test_unfit_characters_can_be_written_out():
    assert visible("a\u202eb می\u200cخواهم\n") == "a[U+202E right-to-left override]b می\u200cخواهم\n"


def test_line_ends_and_tabs_are_unfit_where_they_end_an_answer():
    assert unfit("a\nb") is None
    assert unfit("a\nb", line_ends=False) == "U+000A line end"
    assert unfit("ä\tb", line_ends=False) == "U+0009 tab"


@given(TEXTS)
def test_a_tidy_text_stays_as_it_is_and_is_composed(text):
    mended, _ = tidy_text(text)
    assert tidy_text(mended) == (mended, [])
    assert unicodedata.is_normalized("NFC", mended)
    assert tidy_text(unicodedata.normalize("NFD", text))[0] == mended
