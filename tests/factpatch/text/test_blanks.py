"""A blank only where script and punctuation want one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factpatch.text.blanks import join, wants_blank

WANTED = (
    ("The capital of France is", "Paris"),
    ("What is the capital of France?", "Paris"),
    ("Die Hauptstadt von Frankreich ist", "Straßburg"),
    ("عاصمة فرنسا هي", "ليون"),
    ("프랑스의 수도는", "리옹"),
    ("Столица Франции —", "Лион"),
    ("Answer:", "Paris"),
    ("The Japanese name of Japan is", "日本"),
    ("I love 🇫🇷", "because"),
    ("The flag of France is", "🇫🇷"),
    ('The film "Alien"', "was"),
    ("The city (Paris)", "is"),
    ("The boys'", "school"),
    ("the film ‘Alien’", "was"),
    ("Das Wort „Haus“", "ist"),
    ("He programs in C#", "and"),
    ("Der Preis beträgt 5 €", "pro"),
    ("He came. He saw.", "He"),
    ("The framework is", ".NET"),
    ("x =", "5"),
    ("The lowest temperature is", "-40"),
    ("- item\n-", "item"),
    ("**Answer:**", "Paris"),
    ("He said", '"hello"'),
)
BARE = (
    ("法国的首都是", "里昂"),
    ("日本の首都は", "大阪"),
    ("ประเทศไทยมีเมืองหลวงชื่อ", "เชียงใหม่"),
    ("រាជធានីកម្ពុជាគឺ", "សៀមរាប"),
    ("ທະນາຄານແຫ່ງ", "ລາວ"),
    ("မြန်မာနိုင်ငံ၏မြို့တော်မှာ", "ရန်ကုန်"),
    ("iPhone的制造商是", "Apple"),
    ("苹果公司生产iPhone", "手机"),
    ("答案:", "北京"),
    ("问：首都是哪里？答：", "里昂"),
    ("他出生于", "1950"),
    ('The book is called "', "Dune"),
    ("The book is called “", "Dune"),
    ("Das Buch heißt „", "Faust"),
    ("Le roman s'intitule «", "Germinal"),
    ("The capital (", "Paris"),
    ("The list [", "1"),
    ("The Franco-", "Prussian"),
    ("La capitale de l’", "Espagne"),
    ("J'habite à l'", "hôtel"),
    ("Qu'", "est"),
    ("La capitale dell'", "Egitto"),
    ("Follow the hashtag #", "love"),
    ("It costs $", "5"),
    ("and/", "or"),
    ("info@", "example"),
    ("The dog", "'s"),
    ("The dog", "’s"),
    ("He said hello", "."),
    ("He said hello", "!"),
    ("The number pi is 3.", "14"),
    ("It has 20", "°C"),
    ("¿", "Qué"),
    ("In markdown: **", "Note"),
    ("Run `", "pip"),
    ("Answer: ", "Paris"),
    ("Answer:\n", "Paris"),
    ("Answer:", " Paris"),
    ("x=", "5"),
)


@pytest.mark.parametrize(("prompt", "target"), WANTED)
def test_words_are_parted(prompt, target):
    assert wants_blank(prompt, target)


@pytest.mark.parametrize(("prompt", "target"), BARE)
def test_nothing_stands_where_no_blank_belongs(prompt, target):
    assert not wants_blank(prompt, target)


@given(prompt=st.text(), target=st.text())
def test_any_two_texts_are_joined_by_a_blank_or_nothing(prompt, target):
    assert join(prompt, target) in (prompt + target, f"{prompt} {target}")
