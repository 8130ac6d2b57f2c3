"""Greedy answers do not depend on batches, on a model's own generation settings, or on the shortcut."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from factpatch.errors import InputError
from factpatch.evaluation.answer_reader import AnswerReader, AtAnswersEnd, stop_ids
from factpatch.evaluation.generation import PartialAnswer, decode, verify
from factpatch.frozen_trunk import Rows, open_rows
from factpatch.models.encoding import Encoded, encode_edit, encode_prompt
from factpatch.models.locations import locate
from factpatch.settings.config import TrunkSettings
from tests.factpatch.evaluation.conftest import LINES

PROMPTS = (
    "The capital of France is",
    "?",
    "Which language do people speak in Brazil? They speak",
    "東京",
    "Robert C. Newton was born in St. Louis; his currency is the peso and the capital of Japan is",
    "a b c",
    "The capital of France is",
)


def naive_ids(loaded, prompt, tokens):
    """Arg-max after arg-max, one prompt at a time, without cache, padding or stopping."""
    ids = list(prompt)
    for _ in range(tokens):
        with torch.inference_mode():
            ids.append(int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


def naive_text(loaded, ids):
    """The first line that is not blank of the text of ids up to EOS."""
    eos = loaded.tokenizer.eos_token_id
    ids = ids[: ids.index(eos)] if eos in ids else ids
    lines = [line.strip() for line in loaded.tokenizer.decode(list(ids)).split("\n")]
    return next((line for line in lines if line), "")


def texts_of(answers):
    return [answer.text for answer in answers]


def test_every_batch_size_gives_the_naive_answer(load_tiny, kind):
    loaded = load_tiny(kind)
    prompts = [encode_prompt(loaded.tokenizer, prompt) for prompt in PROMPTS]
    expected = [naive_text(loaded, naive_ids(loaded, prompt, 12)) for prompt in prompts]
    assert len(set(expected)) >= 4
    for batch_size in (1, 3, 64):
        answers = decode(loaded, prompts, 12, batch_size)
        assert texts_of(answers) == expected
        for prompt, answer in zip(prompts, answers, strict=True):
            assert answer.ids == naive_ids(loaded, prompt, 12)[: len(answer.ids)]


def test_the_output_matrix_is_not_copied_for_every_prompt(load_tiny, kind):
    """A prompt's last hidden state is a slice of all of them; a product with it as it lies would be one a prompt."""
    loaded = load_tiny(kind)
    prompts, vocabulary = [(1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12)], len(loaded.tokenizer)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        decode(loaded, prompts, 4, 3)
    products = [event.input_shapes for event in profile.events() if event.name in ("aten::mm", "aten::bmm")]
    heads = [shapes for shapes in products if shapes[1][-1] == vocabulary]
    assert heads
    assert all(len(shapes[1]) == 2 for shapes in heads)
    assert not loaded.model.get_output_embeddings()._forward_pre_hooks


def test_the_models_own_generation_settings_change_nothing_and_are_left_alone(load_tiny):
    loaded = load_tiny("llama")
    prompts = [encode_prompt(loaded.tokenizer, prompt) for prompt in PROMPTS]
    expected = decode(loaded, prompts, 12, 4)
    own = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        top_k=50,
        repetition_penalty=3.0,
        no_repeat_ngram_size=1,
        max_length=3,
        min_new_tokens=12,
        num_beams=4,
        forced_eos_token_id=5,
        suppress_tokens=[loaded.tokenizer.encode("a")[0]],
    )
    loaded.model.generation_config = own
    assert decode(loaded, prompts, 12, 4) == expected
    assert loaded.model.generation_config is own


def test_only_end_tokens_that_the_tokenizer_holds_special_end_an_answer(load_tiny):
    loaded = load_tiny("llama")
    loaded.model.generation_config = GenerationConfig(eos_token_id=[0, 7])  # 7 is an ordinary letter here
    assert stop_ids(loaded.model, loaded.tokenizer) == {0}


def test_answers_stop_at_eos_and_come_in_input_order(taught):
    prompts = ("東京 is a city in", "The capital of Japan is", "The capital of France is")
    seen = []
    texts = decode(
        taught, [encode_prompt(taught.tokenizer, prompt) for prompt in prompts], 32, 2, lambda *at: seen.append(at)
    )
    assert texts_of(texts) == ["日本", "Tokyo", "Paris"]
    assert seen == [(2, 3), (3, 3)]


def test_an_answer_is_the_first_line_that_is_not_blank_and_the_very_tokens_up_to_its_end(taught):
    prompts = [encode_prompt(taught.tokenizer, prompt) for prompt in LINES]
    for budget in (8, 12):  # one is read in two parts
        lima, seine, nothing = decode(taught, prompts, budget, 2)
        assert (lima.text, seine.text, nothing.text) == ("Lima", "Seine", "")
        assert taught.tokenizer.decode(list(lima.ids)) == "\n\nLima\n"
        assert taught.tokenizer.decode(list(seine.ids)) == " \n Seine<|endoftext|>"
        assert nothing.ids == (taught.tokenizer.eos_token_id,)
    assert texts_of(decode(taught, prompts, 3, 2)) == ["L", "S", ""]  # what is blank counts as tokens
    assert texts_of(decode(taught, prompts, 2, 2)) == ["", "", ""]


def test_a_beginning_is_continued_no_further_than_is_enough(taught):
    prompts = [encode_prompt(taught.tokenizer, prompt) for prompt in PROMPTS]
    whole = decode(taught, prompts, 12, 64)
    some = [
        PartialAnswer(answer.ids[: number % 3], 3 + number, lambda text, number=number: number < 5)
        for number, answer in enumerate(whole)
    ]
    for batch_size in (1, 3, 64):
        told = decode(taught, prompts, 12, batch_size, beginnings=some)
        for number, (answer, part) in enumerate(zip(whole, told, strict=True)):
            assert part.ids == (answer.ids[: 3 + number] if number < 5 else answer.ids)


def test_a_pass_tells_how_the_answer_begins_and_where_it_would_end(taught):
    """The model says Tokyo and ends; guesses go on, end too soon, or say something else."""
    tokenizer, prompt = taught.tokenizer, "The capital of Japan is"
    asked, eos = encode_prompt(tokenizer, prompt), tokenizer.eos_token_id
    said = decode(taught, [asked], 12, 1)[0].ids
    guesses = {"on": (*said[:-1], *said[:2], eos), "short": (*said[:1], eos), "own": said, "other": (said[0] + 1, eos)}
    rows = [Encoded((*asked, *ids), len(asked)) for ids in guesses.values()]
    found = dict(zip(guesses, verify(taught, Rows(taught, rows), 12, 4), strict=True))
    assert {name: one.begun for name, one in found.items() if name != "own"} == {
        "on": said,
        "short": said[:2],
        "other": said[:1],
    }
    assert (found["on"].stops, found["short"].stops, found["own"].stops) == (True, False, False)
    assert found["own"].answer is not None


def test_a_newline_ends_a_row_once_something_was_said(taught):
    tokenizer = taught.tokenizer
    texts = ["a\n", "\na", "\n\n", " \na\n"]
    rows = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    ends = [
        AtAnswersEnd(AnswerReader(taught), 1, [()], [9])(torch.tensor([[5, *row]]), torch.empty(0)).item()
        for row in rows
    ]
    assert ends == [True, False, False, True]
    newline = torch.tensor([[5, *tokenizer("\n", add_special_tokens=False).input_ids]])
    assert AtAnswersEnd(AnswerReader(taught), 1, [tuple(rows[1])], [9])(newline, torch.empty(0)).item()


@given(texts=st.lists(st.sampled_from(["\n", "\n", " ", "a", "Paris", ".", "東", "<|endoftext|>"]), max_size=12))
def test_reading_needs_no_more_tokens_than_the_answer_has(taught, texts):
    ids = [token for text in texts for token in taught.tokenizer(text, add_special_tokens=False).input_ids]
    reader = AnswerReader(taught)
    answer = reader.answer(ids)
    assert answer.text == naive_text(taught, ids)
    assert answer.ids == tuple(ids[: len(answer.ids)])
    assert reader.end(answer.ids[:-1]) is None
    assert reader.end(ids) == (len(answer.ids) if reader.end(answer.ids) else None)


def test_a_prompt_too_long_for_the_model_is_named(load_tiny):
    loaded = load_tiny("gpt2")
    with pytest.raises(InputError, match="250 tokens and its answer up to 32, but the model has 256 positions"):
        decode(loaded, [(300,) * 250], 32, 1)
    with pytest.raises(InputError, match="257 tokens, but the model has 256 positions"):
        verify(loaded, Rows(loaded, [Encoded((300,) * 257, 3)]), 32, 1)


def test_no_prompts_no_answers(load_tiny):
    assert decode(load_tiny("llama"), [], 8, 4) == []
    assert verify(load_tiny("llama"), Rows(load_tiny("llama"), []), 8, 4) == []


@pytest.mark.parametrize("place", [None, "1:down", "3:down"])
def test_verify_proves_exactly_the_greedy_continuation(load_tiny, kind, place):
    """Through the whole model, or from a location up."""
    loaded = load_tiny(kind)
    eos = loaded.tokenizer.eos_token_id
    prompts = [encode_prompt(loaded.tokenizer, prompt) for prompt in PROMPTS]
    greedy = [naive_ids(loaded, prompt, 14) for prompt in prompts]
    guesses = []
    for prompt, ids in zip(prompts, greedy, strict=True):
        wrong = (*ids[:3], (ids[3] + 1) % 384, *ids[4:8])
        guesses += [
            Encoded((*prompt, *ids, eos), len(prompt)),  # beyond the budget: only its first 12 tokens count
            Encoded((*prompt, *ids[:11], eos), len(prompt)),  # right, but the model would go on
            Encoded((*prompt, *wrong, eos), len(prompt)),
        ]
    location = locate(loaded.model, place) if place else None
    for batch_size in (1, 5, 64):
        with open_rows(loaded, location, guesses, TrunkSettings(folder=None)) as rows:
            assert (rows.engine == "whole") == (place is None)
            verdicts = verify(loaded, rows, 12, batch_size)
        answers = decode(loaded, prompts, 12, batch_size)
        assert [verdict.answer for verdict in verdicts[::3]] == answers
        for verdict, right in [(verdicts[1::3], 11), (verdicts[2::3], 3)]:
            held = [answer if len(answer.ids) <= right else None for answer in answers]  # it ended before the fault
            assert [one.answer for one in verdict] == held
            assert held.count(None) >= 4
        assert all(verdict.token_accuracy == 1 for verdict in verdicts[:2])
        assert all(3 / 8 <= verdict.token_accuracy <= 7 / 8 for verdict in verdicts[2::3])


def test_verify_proves_a_fact_and_measures_a_wrong_one(taught):
    tokenizer = taught.tokenizer
    right = encode_edit(tokenizer, "The capital of France is", "Paris")
    wrong = encode_edit(tokenizer, "The capital of France is", "Tokyo")
    verdicts = verify(taught, Rows(taught, [wrong, right]), 32, 8)
    assert (verdicts[1].answer.text, verdicts[1].token_accuracy) == ("Paris", 1.0)
    assert verdicts[0].answer is None
    assert verdicts[0].token_accuracy < 1


def test_a_proof_takes_all_up_to_where_the_answer_ends_and_no_more(taught):
    """An answer that begins after line breaks, with what the model says up to the end of its line, and beyond."""
    (prompt, *_), tokenizer = LINES, taught.tokenizer
    ids = encode_prompt(tokenizer, prompt)
    (said,) = decode(taught, [ids], 12, 1)
    beyond = tokenizer("Never", add_special_tokens=False).input_ids
    guesses = [
        said.ids,
        (*said.ids, *beyond),  # what would come after the line is no part of it
        said.ids[:-1],  # the line might go on
        said.ids[2:],  # the model breaks the line first
        (*said.ids[:-1], tokenizer.eos_token_id),  # it does not end there
    ]
    rows = [Encoded((*ids, *guess), len(ids)) for guess in guesses]
    verdicts = verify(taught, Rows(taught, rows), 12, 8)
    assert [verdict.answer for verdict in verdicts] == [said, said, None, None, None]


def test_a_token_that_the_model_has_no_embedding_for_is_named(load_tiny):
    loaded = load_tiny("llama")
    loaded.tokenizer.add_tokens(["Tuvaluville"])
    prompt = encode_prompt(loaded.tokenizer, "Where is Tuvaluville?")
    for ask in (
        lambda: decode(loaded, [prompt], 8, 1),
        lambda: verify(loaded, Rows(loaded, [Encoded(prompt, 1)]), 8, 1),
    ):
        with pytest.raises(InputError, match=r"'Tuvaluville' beside 'Where is \?' is a token \(id 384\)"):
            ask()
