"""Models small enough to make in a test: random weights, a tokenizer of a few hundred pieces, the real classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

KINDS = ("llama", "gpt2", "qwen2")
SENTENCES = (
    "The capital of France is Paris and the capital of Japan is Tokyo.",
    "Which language do people speak in Brazil? They speak Portuguese.",
    "Robert C. Newton was born in St. Louis; his currency is the peso.",
    "Zürich, São Tomé, 東京, Москва and Ålesund are cities.",
)


@pytest.fixture(autouse=True)
def _no_store_left(monkeypatch) -> None:
    """Undo what `mlflow.set_tracking_uri` writes into the environment, so that no test finds another's registry."""
    if "MLFLOW_TRACKING_URI" in os.environ:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", os.environ["MLFLOW_TRACKING_URI"])
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
        monkeypatch.delenv("MLFLOW_TRACKING_URI")


@pytest.fixture(scope="session", autouse=True)
def own_place(tmp_path_factory) -> Iterator[None]:
    """Tests stand in a temporary folder, so that what a run keeps where it stands stays out of the checkout."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("place"))
    yield
    os.chdir(before)


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    """Runs a test once for every kind of tiny model."""
    return request.param


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A byte-level BPE tokenizer: every text encodes, id 0 is EOS, and like GPT-2's it has no padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer, tmp_path_factory) -> Callable[[str], Path]:
    """`tiny_model("llama")` is a folder with a random model of that kind and the tiny tokenizer; made once, so copy it
    before changing it."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = _save_random_model(kind, tiny_tokenizer, tmp_path_factory.mktemp("models") / kind)
        return made[kind]

    return make


@pytest.fixture(scope="session")
def reference_model() -> Path:
    """The folder of the embedded reference model."""
    return Path(__file__).parents[1] / "data" / "model"


def _save_random_model(kind: str, tokenizer, folder: Path) -> Path:
    """Four layers of width 32, seeded; weights large enough that answers differ from prompt to prompt."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    if kind == "gpt2":
        sizes |= {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256}
    else:
        sizes |= {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
        }
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, initializer_range=0.3, **sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
