"""Questions to a model behind an address: one that MLflow serves, or a server of OpenAI's kind, such as vLLM's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from httpx import Client

from factpatch.addresses import without_password
from factpatch.errors import InputError
from factpatch.evaluation.answers import first_line
from factpatch.evaluation.endpoint import chat, expecting, fetch, open_client, unlike
from factpatch.progress import Progress
from factpatch.settings.config import Settings

BATCH_TIMEOUT = 600.0  # of one batch

Ask = Callable[[list[str]], list[str]]  # prompts -> what the server says to each


def is_address(source: str) -> bool:
    """Does this name a server, and not a folder or a hub name?"""
    return source.startswith(("http://", "https://"))


def ask_server(
    address: str, prompts: Sequence[str], settings: Settings, progress: Progress | None = None
) -> dict[str, str]:
    """The greedy answer to each prompt, its first line that is not blank, by prompt.

    The address ends in `/invocations` (MLflow) or `/v1` (OpenAI's completions; chat with `edits.chat_template`). Raises
    UnavailableError if nothing answers there, InputError for another kind of address or an answer of another shape.
    """
    kind = urlsplit(address).path.rstrip("/").rpartition("/")[2]
    if kind not in ASK:
        shown = without_password(address)
        raise InputError(f"'{shown}' ends neither in '/invocations' (MLflow) nor in '/v1' (OpenAI's); correct it")
    base, size = address.rstrip("/"), settings.evaluation.batch_size
    asked = list(dict.fromkeys(prompts))
    texts: list[str] = []
    with open_client(BATCH_TIMEOUT) as client:
        with expecting(base):
            ask = ASK[kind](client, base, settings)
        for start in range(0, len(asked), size):
            batch = asked[start : start + size]
            with expecting(base):
                answers = ask(batch)
            if len(answers) != len(batch) or not all(isinstance(text, str) for text in answers):
                raise unlike(base)
            texts += map(first_line, answers)
            if progress:
                progress(len(texts), len(asked))
    return dict(zip(asked, texts, strict=True))


def _ask_mlflow(client: Client, base: str, settings: Settings) -> Ask:
    return lambda prompts: list(fetch(client, base, {"inputs": prompts})["predictions"])


def _ask_openai(client: Client, base: str, settings: Settings) -> Ask:
    name = fetch(client, f"{base}/models")["data"][0]["id"]
    limits = {"max_tokens": settings.evaluation.max_new_tokens}  # no stop at a newline: an answer may begin with one

    def converse(prompts: list[str]) -> list[str]:
        return [chat(client, base, name, prompt, **limits) for prompt in prompts]

    def complete(prompts: list[str]) -> list[str]:
        body = {"model": name, "prompt": prompts, "temperature": 0, **limits}
        choices = fetch(client, f"{base}/completions", body)["choices"]
        return [choice["text"] for choice in sorted(choices, key=lambda choice: choice["index"])]

    return converse if settings.edits.chat_template else complete


ASK: dict[str, Callable[[Client, str, Settings], Ask]] = {
    "invocations": _ask_mlflow,
    "v1": _ask_openai,
}
