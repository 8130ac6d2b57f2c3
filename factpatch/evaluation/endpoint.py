"""JSON to and from a server over HTTP, and the chat form that servers of OpenAI's kind speak. Failures are one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from factpatch.addresses import without_password
from factpatch.errors import InputError, UnavailableError

KEY = "OPENAI_API_KEY"  # environment variable with the server's key, if it asks for one; kept and shown nowhere
COMPLAINT_CHARACTERS = 200  # characters of a server's complaint
START = "start the server, or correct the address"
BUSY = frozenset({408, 425, 429})  # statuses, besides those from 500 on, of a server that may answer later


def open_client(seconds: float) -> httpx.Client:
    """A client, to be used in a `with` block, that waits so many seconds for an answer and sends the key, if there is
    one. It follows no redirection, so the key goes to the named server alone."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{KEY} holds characters that no key has; set it anew, or unset it")
    return httpx.Client(timeout=seconds, headers={"Authorization": f"Bearer {key}"} if key else {})


def fetch(client: httpx.Client, address: str, body: Any = None) -> Any:
    """The JSON value at an address; posts `body` if there is one.

    Raises UnavailableError if nothing answers in time or the server cannot now, InputError for its other complaints
    and for an answer that is no JSON.
    """
    response = _request(client, "GET" if body is None else "POST", address, body)
    try:
        return response.json()
    except (ValueError, httpx.DecodingError) as error:
        raise unlike(address) from error


def post(client: httpx.Client, address: str, body: Any) -> None:
    """Post a JSON value where the answer is of no interest. Raises as `fetch` does."""
    _request(client, "POST", address, body)


def _request(client: httpx.Client, method: str, address: str, body: Any) -> httpx.Response:
    shown = without_password(address)
    try:
        response = client.request(method, address, json=body)
        response.raise_for_status()
        return response
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        kind = UnavailableError if status in BUSY or status >= 500 else InputError
        said = " ".join(without_key(client, error.response.text).split())[:COMPLAINT_CHARACTERS]
        raise kind(f"'{shown}' answered {status}: {said}") from error
    except httpx.TimeoutException as error:
        reason = f"not within {client.timeout.read or 0:g} s"
        raise UnavailableError(f"'{shown}' does not answer ({reason}); {START}") from error
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise UnavailableError(f"'{shown}' does not answer ({reason}); {START}") from error
    except httpx.InvalidURL as error:
        raise InputError(f"'{shown}' is no address ({error}); correct it") from error
    except httpx.DecodingError as error:
        raise unlike(address) from error


def chat(client: httpx.Client, base: str, model: str, question: str, **limits: Any) -> str:
    """The greedy answer to one question in the chat form; `base` ends in `/v1`. Raises as `fetch` does."""
    body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, **limits}
    with expecting(base):
        text = fetch(client, f"{base}/chat/completions", body)["choices"][0]["message"]["content"]
        if not isinstance(text, str):
            raise TypeError
        return without_key(client, text)


@contextmanager
def expecting(address: str) -> Iterator[None]:
    """InputError where what the server sent lacks what the block takes from it."""
    try:
        yield
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise unlike(address) from error


def unlike(address: str) -> InputError:
    """What is told of an answer that no known kind of server gives."""
    return InputError(f"'{without_password(address)}' answered in another form than MLflow's or OpenAI's servers do")


def without_key(client: httpx.Client, text: str) -> str:
    """What a server sent, without the key, which some repeat when they refuse it."""
    key = client.headers.get("Authorization", "").removeprefix("Bearer ")
    return text.replace(key, "***") if key else text
