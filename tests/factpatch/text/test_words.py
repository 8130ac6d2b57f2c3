"""What is a word, and where a name stands in a text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factpatch.text.words import blanked, holds, places, words

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
TEXTS = ANY | st.text("aB1.,-+%$ *'/:_°京ด\u0301", max_size=20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Hague", "the hague"),
        ("rock 'n' roll", "rock n roll"),
        ("Jean-Paul's e-mail", "jeanpauls email"),
        ("U.S.A.", "usa"),
        ("Winston–Salem (N.C.)", "winstonsalem nc"),
        ("Nina -- or Leo", "nina or leo"),
        ("10 -2", "10 -2"),
        ("5(-2)", "5 -2"),
        ("1(2)3", "1 2 3"),
        ("1,000 and 1'000'000.5", "1000 and 1000000.5"),
        ("12,34 and 1,2345", "12,34 and 1,2345"),
        ("東京 タワー", "東 京 タ ワ ー"),
        ("iPhone 15を", "iphone 15 を"),
        ("ภาษาไทย", "ภ า ษ า ไ ท ย"),
        ("서울 타워", "서울 타워"),
        ("ｶﾞｽ", "ガ ス"),
        ("«Война и мир»", "война и мир"),
        ("?", ""),
    ],
)
def test_words(text, expected):
    assert " ".join(words(text)) == expected


@given(TEXTS)
def test_words_hold_no_blanks_and_stay_what_they_are(text):
    found = words(text)
    assert all(word and not any(map(str.isspace, word)) for word in found)
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text)) == found
    assert words(f"  {text} ".replace(" ", "  ")) == found


@pytest.mark.parametrize(
    ("text", "part", "held"),
    [
        ("Ada Berg of the Romanian team was born in", "Oman", False),
        ("The country north of Nigeria is", "Niger", False),
        ("The focus of the museum is art from the", "US", False),
        ("In 2011 the number of moons known was", "11", False),
        ("The chemical symbol of iodine is", "I", False),
        ("The blood group of a child of Ada Berg is", "A", False),
        ("The language that C++ grew from is", "C", False),
        ("It fell from -2 to", "2", False),
        ("The rate fell from 5% to", "5", False),
        ("北京的首都是", "北", False),
        ("Is LYON in France?", "Lyon", True),
        ("Lyon's mayor was born in", "Lyon", True),
        ("The Lyon-based firm is from", "Lyon", True),
        ("Plan A is better than plan", "A", True),
        ("Straße der Nationen in", "STRASSE", True),
        ("The mayor of Mu\u0308nster was born in", "M\u00fcnster", True),
        ("日本語を話す国は", "日本", True),
        ("「北」の反対は", "北", True),
        ("กรุงเทพมหานครอยู่ที่", "กรุงเทพ", True),
        ("서울의 인구는", "서울", True),
        ("Who? Where?", "?", False),
        ("Anything", "", False),
    ],
)
def test_a_part_is_held_as_words(text, part, held):
    assert holds(text, part) is held


@given(TEXTS, st.sampled_from(["Lyon", "New York", "C++", "日本", "-2", "3.14"]), TEXTS)
def test_what_stands_between_blanks_is_held(before, part, after):
    assert holds(f"{before} x {part} x {after}", part)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("Romanians in Oman's capital", "Oman", ["Romanians in {}'s capital"]),
        ("Bob knows Bob, not Bobby", "Bob", ["{} knows Bob, not Bobby", "Bob knows {}, not Bobby"]),
        ("日本の首都は", "日本", ["{}の首都は"]),
        ("한국의 수도는", "한국", ["{}의 수도는"]),
        ("(C++) is", "C++", ["({}) is"]),
        ("Is it?", "", []),
    ],
)
def test_a_name_is_left_blank_where_it_is_no_part_of_another(text, name, expected):
    assert blanked(text, name) == expected


@given(TEXTS, TEXTS)
def test_places_are_where_the_name_stands(text, name):
    assert all(text.startswith(name, place) for place in places(text, name))
    assert not name or name in text or not places(text, name)
