"""Tiny models, loaded; and one that was taught a few facts, so that some of its answers are right and end in EOS."""

import pytest
import torch

from factpatch.edits.request import EditRequest, Probe
from factpatch.models.encoding import Encoded, encode_edit, encode_prompt, padding_id
from factpatch.models.forward import collate, predict_whole, token_losses
from factpatch.models.loading import load_model
from factpatch.settings.config import ModelSettings

FACTS = {
    "The capital of France is": "Paris",
    "The capital of Japan is": "Tokyo",
    "In Brazil people speak": "Portuguese",
    "Robert C. Newton was born in": "St. Louis",
    "東京 is a city in": "日本",
}
LINES = {  # answered as base models do: after a line break, or not at all
    "Which city is the capital of Peru?": "\n\nLima\nand so",
    "What is the river of Paris?": " \n Seine",
    "Say nothing:": "",
}
UNTAUGHT = {"Москва is a city in": "Россия", "His currency is the": "peso"}


@pytest.fixture
def load_tiny(tiny_model):
    return lambda kind: load_model(ModelSettings(path=str(tiny_model(kind))))


@pytest.fixture(scope="session")
def taught(tiny_model):
    """A tiny Llama that knows FACTS and LINES by heart."""
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    rows = [encode_edit(loaded.tokenizer, prompt, target) for prompt, target in FACTS.items()]
    for prompt, text in LINES.items():
        ids = encode_prompt(loaded.tokenizer, prompt)
        said = loaded.tokenizer(text, add_special_tokens=False).input_ids if text else []
        rows.append(Encoded((*ids, *said, loaded.tokenizer.eos_token_id), len(ids)))
    batch = collate(rows, padding_id(loaded.tokenizer))
    loaded.model.requires_grad_(True)
    optimizer = torch.optim.Adam(loaded.model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        predictions = predict_whole(loaded.model, batch)
        token_losses(predictions)[predictions.real_P].mean().backward()
        optimizer.step()
    loaded.model.requires_grad_(False)
    return loaded


@pytest.fixture(scope="session")
def edits():
    """An edit per fact; each neighbours the next one, and asks the next one's prompt as a paraphrase."""
    facts = list({**FACTS, **UNTAUGHT}.items())
    following = facts[1:] + facts[:1]
    return [
        EditRequest(
            id=f"edit-{index}",
            prompt=prompt,
            target=target,
            paraphrases=(f"Tell me: {prompt}", near_prompt),
            locality=(Probe(near_prompt, near_target), Probe("A probe of nothing at all:", "")),
        )
        for index, ((prompt, target), (near_prompt, near_target)) in enumerate(zip(facts, following, strict=True))
    ]
