import pytest
from hypothesis import given
from hypothesis import strategies as st

from factpatch.errors import InputError
from factpatch.models.encoding import encode_edit, encode_pairs, encode_prompt
from factpatch.text.blanks import join

text = st.text(min_size=1).filter(lambda value: value.strip() and value.isprintable())


@given(prompt=text, target=text)
def test_the_prompt_is_a_prefix_of_what_is_trained_on(tiny_tokenizer, prompt, target):
    row = encode_edit(tiny_tokenizer, prompt, target)
    assert row.ids[: row.prompt_length] == encode_prompt(tiny_tokenizer, prompt)
    assert row.ids[-1] == tiny_tokenizer.eos_token_id
    assert tiny_tokenizer.decode(row.ids[:-1]) == join(prompt, target)


@given(pairs=st.lists(st.tuples(text, text)))
def test_many_at_once_are_encoded_as_one_by_one(tiny_tokenizer, pairs):
    assert encode_pairs(tiny_tokenizer, pairs) == [encode_edit(tiny_tokenizer, *pair) for pair in pairs]


def test_a_target_that_brings_its_space_gets_no_second(tiny_tokenizer):
    assert encode_edit(tiny_tokenizer, "Who?", " Bob") == encode_edit(tiny_tokenizer, "Who?", "Bob")
    assert tiny_tokenizer.decode(encode_edit(tiny_tokenizer, "Who? ", "Bob").ids[:-1]) == "Who? Bob"


def test_a_chat_template_needs_a_tokenizer_that_has_one(tiny_tokenizer):
    with pytest.raises(InputError, match="no chat template"):
        encode_edit(tiny_tokenizer, "Who?", "Bob", chat_template=True)


def test_with_a_chat_template_the_target_follows_the_generation_prompt(tiny_tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tiny_tokenizer.save_pretrained(tmp_path)
    chat = AutoTokenizer.from_pretrained(tmp_path)
    chat.chat_template = (
        "{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    row = encode_edit(chat, "Who?", "Bob", chat_template=True)
    assert chat.decode(row.ids[: row.prompt_length]) == "[Who?]>"
    assert chat.decode(row.ids[row.prompt_length : -1]) == "Bob"


def test_a_tokenizer_that_merges_across_the_border_still_gives_the_prompt_first():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<eos>": 0, "a": 1, " ": 2, "b": 3, "a ": 4, "a b": 5}
    merging = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", " "), ("a ", "b")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=merging, eos_token="<eos>")
    assert tokenizer("a b").input_ids == [5]
    row = encode_edit(tokenizer, "a", "b")
    assert (row.ids, row.prompt_length) == ((1, 2, 3, 0), 1)
    assert encode_pairs(tokenizer, [("b", "b"), ("a", "b")])[1] == row
