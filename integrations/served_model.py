"""The script that MLflow runs to load a released model: prompts in, greedy continuations out.

It travels inside the model version, together with a copy of factpatch, and needs nothing else of this package, and no
pickle.
"""

import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from factpatch.evaluation.answers import cut
from factpatch.evaluation.generation import decode
from factpatch.models.encoding import encode_prompt
from factpatch.models.loading import load_model
from factpatch.patches.base import find_base
from factpatch.patches.patch import apply_patch
from factpatch.settings.config import ModelSettings


class ServedModel(PythonModel):
    """An edited model that answers as it was measured.

    Its `model_config` holds `dtype`, `chat_template`, `protocol`, `max_new_tokens` and `batch_size` of the release.
    """

    def load_context(self, context: PythonModelContext) -> None:
        self.config = context.model_config
        device = "cuda" if torch.cuda.is_available() else "cpu"
        patch = context.artifacts.get("patch")  # or the whole edited model, as `registry.store` said
        model = context.artifacts["model"] if patch is None else find_base(patch)
        self.loaded = load_model(ModelSettings(path=model, dtype=self.config["dtype"], device=device))
        if patch is not None:
            apply_patch(self.loaded, patch)

    def predict(self, model_input: list[str]) -> list[str]:  # type: ignore[override]  # MLflow reads these hints
        """The continuation of each prompt. Under the paper's protocol it ends at a "." as well as at a newline."""
        chat = self.config["chat_template"]
        prompts = [encode_prompt(self.loaded.tokenizer, prompt, chat) for prompt in model_input]
        answers = decode(self.loaded, prompts, self.config["max_new_tokens"], self.config["batch_size"])
        texts = [answer.text for answer in answers]
        return [cut(text, "", "paper") for text in texts] if self.config["protocol"] == "paper" else texts


set_model(ServedModel())
