"""Rows for preservation that a model makes itself: short texts, some of which begin as the edits do, and questions."""

from dataclasses import replace

from factpatch.edits.request import EditRequest
from factpatch.models.loading import load_model
from factpatch.models.sampling import sample_ids
from factpatch.settings.config import ModelSettings
from factpatch.training_data.leakage import held_out
from factpatch.training_data.own_texts import BEGINNING_TOKENS, begun_text_rows
from factpatch.training_data.preserved import BEGUN_EACH, OWN_QUESTIONS, OWN_TEXTS
from factpatch.training_data.rows import find_training_rows
from tests.factpatch.training_data.test_neighbours import edit, settings_with


def test_where_nothing_else_is_there_the_model_s_own_texts_are_kept(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    edits = [EditRequest("1", "Who?", "Bob"), EditRequest("2", "Where?", "Here")]
    training_rows = find_training_rows(loaded, edits, settings_with(neighbours=4.0, wordings=2))
    assert 1 <= len(training_rows.preserved) <= 4 * len(edits) + BEGUN_EACH * len(edits)
    assert all(row.prompt_length == 1 and len(row.ids) > 1 for row in training_rows.preserved)
    assert "own are kept" in training_rows.notes[0]
    assert "no further wordings" in training_rows.notes[1]
    assert training_rows == find_training_rows(loaded, edits, settings_with(neighbours=4.0, wordings=2))


def test_texts_of_the_model_s_own_are_kept_as_they_were_drawn(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    settings = settings_with(neighbours=16.0)
    edits = [EditRequest("1", "Who?", "Bob"), EditRequest("2", "Where?", "Here")]
    end = loaded.tokenizer.eos_token_id
    drawn = set(sample_ids(loaded, [(end,)] * 32, settings.training.seed))
    rows = find_training_rows(loaded, edits, settings).preserved
    assert len(rows) > 16
    rows = [row for row in rows if row.ids[0] == end]  # the others begin as the edits do
    assert all(row.ids[1:] in drawn and end not in row.ids[1:-1] for row in rows)
    anew = [loaded.tokenizer(loaded.tokenizer.decode(row.ids[1:])).input_ids for row in rows]
    assert any(list(row.ids[1:]) != ids for row, ids in zip(rows, anew, strict=True))  # other tokens spell the same


def test_beside_neighbours_the_model_s_own_texts_and_answers_to_its_own_questions_are_kept(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    edits = [edit("Where is {}?", name) for name in ("Peru", "Chad", "Mali", "Oman")]
    plain = find_training_rows(loaded, edits, settings_with(neighbours=2.0)).preserved
    end = loaded.tokenizer.eos_token_id
    assert sum(row.ids[0] == end for row in plain) > OWN_TEXTS / 2
    loaded.tokenizer.chat_template = "{% for one in messages %}User: {{ one.content }} Reply:{% endfor %}"
    try:
        chat = find_training_rows(loaded, edits, settings_with(neighbours=2.0)).preserved
    finally:
        loaded.tokenizer.chat_template = None
    start = tuple(loaded.tokenizer("User: ").input_ids)
    asked = [row for row in set(chat) - set(plain) if row.ids[: len(start)] == start]
    assert 0 < len(asked) <= OWN_QUESTIONS
    assert all(row.prompt_length > len(start) for row in asked)


def test_texts_that_begin_as_edits_do_are_kept_as_the_model_goes_on(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    edits = [edit(text, "Peru") for text in ("Where is {}?", "Where was {}?", "Who made {}?")]
    settings, held = settings_with(), held_out(edits, [])
    rows = begun_text_rows(loaded, edits, 12, held, settings)
    begun = {tuple(loaded.tokenizer(one.prompt).input_ids[:BEGINNING_TOKENS]) for one in edits}
    assert {row.ids[:BEGINNING_TOKENS] for row in rows} == begun
    assert all(len(row.ids) > BEGINNING_TOKENS for row in rows)
    assert 8 <= len(rows) <= 12
    assert rows == begun_text_rows(loaded, edits, 12, held, settings)
    in_a_chat = replace(settings, edits=replace(settings.edits, chat_template=True))
    assert begun_text_rows(loaded, edits, 12, held, in_a_chat) == []  # no prompt begins a text there
