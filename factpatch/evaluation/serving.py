"""Questions to a model behind an address: one that MLflow serves, or a server of OpenAI's kind, such as vLLM's."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from factpatch.config import Settings
from factpatch.errors import InputError, UnavailableError
from factpatch.stores import without_password

SECONDS_TO_ANSWER = 600.0  # of one batch
KEY = "OPENAI_API_KEY"  # environment variable with the server's key, if it asks for one
SHOWN = 200  # characters of a server's complaint


def is_address(source: str) -> bool:
    """Does this name a server, and not a folder or a hub name?"""
    return source.startswith(("http://", "https://"))


def ask_server(
    address: str, prompts: Sequence[str], settings: Settings, progress: Callable[[int, int], None] | None = None
) -> dict[str, str]:
    """The greedy text after each prompt, by prompt.

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
    for start in range(0, len(asked), size):
        batch = asked[start : start + size]
        try:
            answers = ASK[kind](base, batch, settings)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise _unlike(base) from error
        if len(answers) != len(batch) or not all(isinstance(text, str) for text in answers):
            raise _unlike(base)
        texts += answers
        if progress:
            progress(len(texts), len(asked))
    return dict(zip(asked, texts, strict=True))


def _ask_mlflow(base: str, prompts: list[str], settings: Settings) -> list[str]:
    return list(_fetch(base, {"inputs": prompts})["predictions"])


def _ask_openai(base: str, prompts: list[str], settings: Settings) -> list[str]:
    name = _fetch(f"{base}/models")["data"][0]["id"]
    limits = {"model": name, "max_tokens": settings.evaluation.max_new_tokens, "temperature": 0, "stop": ["\n"]}
    if not settings.edits.chat_template:
        choices = _fetch(f"{base}/completions", {**limits, "prompt": prompts})["choices"]
        return [choice["text"] for choice in sorted(choices, key=lambda choice: choice["index"])]
    answers = (
        _fetch(f"{base}/chat/completions", {**limits, "messages": [{"role": "user", "content": prompt}]})
        for prompt in prompts
    )
    return [answer["choices"][0]["message"]["content"] for answer in answers]


ASK: dict[str, Callable[[str, list[str], Settings], list[str]]] = {"invocations": _ask_mlflow, "v1": _ask_openai}


def _fetch(address: str, body: Any = None) -> Any:
    """The JSON value at an address; posts `body` if there is one."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(address, data, headers)
        with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        told = " ".join(error.read().decode("utf-8", "replace").split())[:SHOWN]
        raise InputError(f"'{without_password(address)}' answered {error.code}: {told}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        told = f"'{without_password(address)}' does not answer ({reason}); start the server, or correct the address"
        raise UnavailableError(told) from error
    except ValueError as error:
        raise _unlike(address) from error


def _unlike(address: str) -> InputError:
    return InputError(f"'{without_password(address)}' answered in another form than MLflow's or OpenAI's servers do")
