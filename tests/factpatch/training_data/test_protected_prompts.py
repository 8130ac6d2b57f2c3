import json

import pytest
import torch

from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from factpatch.evaluation.answer_cache import AnswerCache
from factpatch.evaluation.generation import decode
from factpatch.frozen_trunk import open_rows
from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.models.encoding import Encoded
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import EvaluationSettings, ModelSettings, Settings, TrainingSettings, TrunkSettings
from factpatch.settings.training import PreservationSettings
from factpatch.training_data.leakage import HeldOut, held_out, unasked
from factpatch.training_data.protected_prompts import note_on_silent, read_protected, rows_with_own_answers

EDIT = EditRequest("1", "Who?", "Bob", paraphrases=("Who is it?",), locality=(Probe("Where?", "Here"),))


def write(tmp_path, prompts):
    path = tmp_path / "protected.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt, "target": "?"}) + "\n" for prompt in prompts))
    return Settings(training=TrainingSettings(preservation=PreservationSettings(str(path))))


def test_rows_hold_the_model_s_own_answers_and_nothing_that_is_measured(tiny_model, tmp_path):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    settings = write(tmp_path, ["Who?", "who is it", "Where?\u200b", "The capital of France is"])
    requests = unasked(read_protected(settings), held_out([EDIT]), HeldOut([EDIT.prompt]))
    assert [request.prompt for request in requests] == ["The capital of France is"]
    (row,), tokenizer = rows_with_own_answers(loaded, requests, settings, AnswerCache({})), loaded.tokenizer
    assert tokenizer.decode(row.ids[: row.prompt_length]) == "The capital of France is"
    (answer,) = decode(loaded, [tuple(tokenizer("The capital of France is").input_ids)], 32, 1)
    assert row.ids[row.prompt_length :] == answer.ids


def test_a_kept_prompt_goes_on_as_the_model_did_token_by_token_with_eos_only_where_it_ended(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    settings = Settings(evaluation=EvaluationSettings(max_new_tokens=8), trunk=TrunkSettings(folder=None))
    requests = [EditRequest("k", f"The city number {number} is", "") for number in range(40)]
    rows, eos = rows_with_own_answers(loaded, requests, settings, AnswerCache({})), loaded.tokenizer.eos_token_id
    ends = set()
    for request, row in zip(requests, rows, strict=True):
        ids = list(loaded.tokenizer(request.prompt).input_ids)
        assert row.ids[: row.prompt_length] == tuple(ids)
        for token in row.ids[row.prompt_length :]:
            with torch.no_grad():
                assert token == int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)
        said = row.ids[row.prompt_length :]
        text = loaded.tokenizer.decode(said)
        ends.add("eos" if said[-1] == eos else "line" if "\n" in text.lstrip() else "budget")
        assert eos not in said[:-1]
        assert len(said) == 8 or "\n" in text.lstrip() or said[-1] == eos
    assert ends >= {"eos", "budget"}


def test_prompts_that_the_model_says_nothing_to_are_counted():
    row = Encoded((1, 2), 1)
    assert note_on_silent([row, None, None], "prompts") == ["the base model says nothing to 2 of 3 prompts"]
    assert note_on_silent([row], "prompts") == []


def test_without_a_file_nothing_is_protected():
    assert read_protected(Settings()) == []


def test_a_row_without_a_prompt_is_named(tmp_path):
    settings = write(tmp_path, ["Who?"])
    path = tmp_path / "protected.jsonl"
    path.write_text(path.read_text() + '{"prompt": ["Who?"], "target": "x"}\n')
    with pytest.raises(InputError, match="row 2"):
        read_protected(settings)


def test_an_epoch_visits_every_edit_and_its_ratio_of_protected_rows(tiny_model):
    """Four edits and a ratio of 2 over ten protected rows: twelve rows an epoch, in batches of five."""
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    rows = [Encoded((5 + number, 6, 0), 1) for number in range(4)]
    protected = [Encoded((20 + number, 6, 0), 1) for number in range(10)]
    preservation = PreservationSettings(ratio=2.0, least=0)
    settings = TrainingSettings(batch_size=5, epochs=2, preservation=preservation, revisit=False, stop_loss=0.0)
    with open_rows(loaded, None, [*rows, *protected], TrunkSettings()) as opened:
        kinds = TrainingRows(tuple(rows), preserved=tuple(protected))
        result = breadth_first(EditJob(loaded, locate(loaded.model, "1:mlp.down_proj"), kinds, settings), opened)
    assert (len(result.losses), result.steps, result.visits) == (2, 6, 24)
