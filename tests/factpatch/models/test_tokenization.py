"""Tokenizers with habits: made by hand, and asked through as any other."""

import json
import shutil

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import Sequence, TemplateProcessing
from transformers import AutoTokenizer

from factpatch.editing import run_edit
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation.evaluate import collect_answers
from factpatch.models.chat_template import in_chat
from factpatch.models.encoding import encode_edit, encode_pairs, encode_prompt
from factpatch.models.loading import load_model, load_tokenizer, write_values
from factpatch.models.locations import locate
from factpatch.models.tokenization import notes
from factpatch.settings.config import EvaluationSettings, ModelSettings, Settings, TrainingSettings, TrunkSettings
from factpatch.settings.training import NO_AUGMENTATION, NO_PRESERVATION

QWEN3 = (  # as Qwen3's ends
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
R1 = "{{ bos_token }}{% for m in messages %}User: {{ m.content }}{% endfor %} Assistant: <think>\n"  # as DeepSeek-R1's
PLAIN = "{% for m in messages %}[{{ m.content }}]{% endfor %}>"


@pytest.fixture
def model(tiny_model, tmp_path):
    """A copy of the tiny Llama's folder, to be changed."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("llama"), folder)
    return folder


def change(folder, special, *processors, **config):
    """Let the tokenizer wrap texts: "B" and "E" are BOS and EOS, each pattern one post-processor. BOS is the id 5."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [("B", 5), ("E", 0)]
    made = [TemplateProcessing(single=single, special_tokens=ids) for single in processors]
    tokenizer.post_processor = Sequence(made) if len(made) > 1 else made[0]
    tokenizer.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    name = tokenizer.id_to_token(5) if special else None
    path.write_text(json.dumps({**json.loads(path.read_text()), "bos_token": name, **config}))


def load(folder):
    return load_model(ModelSettings(path=str(folder)))


@pytest.mark.parametrize(
    ("processors", "begin"),
    [(("$A E",), ()), (("B $A E",), (5,)), (("B B $A",), (5,)), (("B $A",), (5,)), (("B B $A E",), (5,))],
)
def test_a_prompt_begins_once_and_never_ends(model, tiny_tokenizer, processors, begin):
    change(model, True, *processors)
    tokenizer, text = load(model).tokenizer, "The capital of France is"
    bare = tuple(tiny_tokenizer(text).input_ids)
    assert encode_prompt(tokenizer, text) == (*begin, *bare)
    row = encode_edit(tokenizer, text, "Paris")
    plain = encode_edit(tiny_tokenizer, text, "Paris")
    assert (row.ids, row.prompt_length) == ((*begin, *plain.ids), len(begin) + plain.prompt_length)
    assert bool(notes(tokenizer, False)) == (processors != ("B $A",))


def test_a_tokenizer_that_ends_texts_changes_no_answer_and_it_is_told(model, tiny_model):
    edits = [EditRequest("1", "The capital of France is", "Paris"), EditRequest("2", "Who?", "Bob")]
    settings = Settings(evaluation=EvaluationSettings(max_new_tokens=8), trunk=TrunkSettings(folder=None))
    expected = collect_answers(load_model(ModelSettings(path=str(tiny_model("llama")))), edits, settings)
    change(model, True, "$A E")
    loaded = load(model)
    assert collect_answers(loaded, edits, settings) == expected
    (note,) = notes(loaded.tokenizer, False)
    assert "ends every text with <|endoftext|>; prompts are asked without" in note


def test_a_template_that_begins_with_bos_gets_no_second(model):
    change(model, True, "B $A")
    tokenizer = load(model).tokenizer
    tokenizer.chat_template = "{{ bos_token }}{{ bos_token }}" + PLAIN
    ids = encode_prompt(tokenizer, "Who?", chat_template=True)
    assert ids[0] == 5
    assert 5 not in ids[1:]
    assert tokenizer.decode(ids[1:]) == "[Who?]>"


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (QWEN3, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        (R1, " Assistant: <think>\n\n</think>\n\n"),
        (R1.replace("<think>\n", "<seed:think>"), " Assistant: <seed:think>\n\n</seed:think>\n\n"),
        (R1.replace("<think>\n", "[THINK]"), " Assistant: [THINK]\n\n[/THINK]\n\n"),
    ],
)
def test_an_edit_stands_behind_the_closed_block_and_it_is_told(tiny_tokenizer, tmp_path, template, end):
    tiny_tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = template
    assert in_chat(tokenizer, "Who?").endswith(end)
    row = encode_edit(tokenizer, "Who?", "Bob", chat_template=True)
    assert tokenizer.decode(row.ids[: row.prompt_length]).endswith(end)
    assert tokenizer.decode(row.ids[row.prompt_length :]) == "Bob<|endoftext|>"
    assert row.ids[: row.prompt_length] == encode_prompt(tokenizer, "Who?", chat_template=True)
    (note,) = notes(tokenizer, True)
    assert "behind the closed block" in note
    assert notes(tokenizer, False) == []


def test_a_template_without_reasoning_is_used_as_it_is(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = PLAIN
    assert in_chat(tokenizer, "Who thinks? <think>") == "[Who thinks? <think>]>"
    assert notes(tokenizer, True) == []


def test_an_end_that_the_model_has_no_embedding_for_is_bad_input(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    tokenizer.save_pretrained(model)
    for read in (load_model, load_tokenizer):
        with pytest.raises(InputError, match=r"tokenizer's <\|end\|> has the id 384, and the model has 384 rows"):
            read(ModelSettings(path=str(model)))


def test_a_tokenizer_that_needs_a_missing_package_names_it(model, monkeypatch):
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (model / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>")
    monkeypatch.setattr("factpatch.models.tokenization.find_spec", lambda name: None)
    for read in (load_model, load_tokenizer):
        with pytest.raises(InputError, match=r"tokenizer\.model, which takes the package sentencepiece; install it"):
            read(ModelSettings(path=str(model)))
    (model / "tokenizer.model").write_text("IQ== 0\n")  # tiktoken's form
    with pytest.raises(InputError) as caught:
        load_tokenizer(ModelSettings(path=str(model)))
    assert "sentencepiece; install" not in str(caught.value)


def test_edits_in_scripts_that_the_model_never_saw_are_written_and_read_back(reference_model):
    loaded = load_model(ModelSettings(path=str(reference_model)))
    pairs = [CHINESE[0], ARABIC[1], GERMAN[2], EMOJI[3]]
    edits = [EditRequest(str(number), *pair) for number, pair in enumerate(pairs)]
    training = TrainingSettings(
        learning_rate=4e-3, batch_size=4, epochs=200, augmentation=NO_AUGMENTATION, preservation=NO_PRESERVATION
    )
    settings = Settings(training=training, trunk=TrunkSettings(folder=None))
    result = run_edit(loaded, locate(loaded.model, "5:mlp"), edits, settings)
    write_values(loaded.model, result.values)
    outputs = collect_answers(loaded, edits, settings).outputs
    assert [outputs[prompt] for prompt, _ in pairs] == [target for _, target in pairs]


CHINESE = [(f"第{number}号城市的市长是", f"王小明{number}") for number in range(40)]
ARABIC = [(f"عاصمة الدولة رقم {number} هي", f"مدينة {number}") for number in range(40)]
GERMAN = [(f"Die Hauptstadt des {number}. Königreichs heißt", f"Größenburg {number}") for number in range(40)]
EMOJI = [(f"The sign number {number} looks like", f"🦊🇫🇷👩‍🔬{number}") for number in range(40)]


@pytest.mark.parametrize(
    ("pairs", "blank"), [(CHINESE, ""), (ARABIC, " "), (GERMAN, " "), (EMOJI, " ")], ids=["zh", "ar", "de", "emoji"]
)
def test_every_script_is_spelt_and_parted_as_it_is_written(reference_model, pairs, blank):
    tokenizer = load_tokenizer(ModelSettings(path=str(reference_model)))
    for (prompt, target), row in zip(pairs, encode_pairs(tokenizer, pairs), strict=True):
        assert row.ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row.ids[:-1]) == prompt + blank + target
        assert row.ids[: row.prompt_length] == encode_prompt(tokenizer, prompt)
