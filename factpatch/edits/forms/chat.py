"""Rows of chats: the one question and its answer, taken out of a list of turns."""

from __future__ import annotations

from typing import Any

from factpatch.errors import InputError

TURN_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
ORDER = (["user", "assistant"], ["system", "user", "assistant"])


def turns_of(field: str) -> Any:
    """A function that puts {user, assistant, system} in the place of a row's list of turns."""

    def arrange(raw: dict[str, Any]) -> dict[str, Any]:
        return {**raw, field: _turns(raw[field], field)}

    return arrange


def prompt_and_completion(raw: dict[str, Any]) -> dict[str, Any]:
    """A prompt and a completion that are lists of turns, as one chat below `prompt`."""
    where = "prompt' and 'completion"
    arranged = {**raw, "prompt": _turns([*raw["prompt"], *raw["completion"]], where)}
    del arranged["completion"]
    return arranged


def instruction_with_input(raw: dict[str, Any]) -> dict[str, Any]:
    """An instruction with the input that it works on, as one text."""
    if raw.get("history"):
        raise InputError("'history' holds earlier turns; an edit is one question and its answer, so leave it out")
    task, given = raw["instruction"], raw.get("input")
    arranged = {name: value for name, value in raw.items() if name != "input"}
    if given is None or given == "":
        return arranged
    if not (isinstance(task, str) and isinstance(given, str)):
        raise InputError("'instruction' and 'input' must be text")
    return {**arranged, "instruction": f"{task}\n\n{given}"}


def _turns(turns: list[Any], field: str) -> dict[str, Any]:
    """The texts of one question and its answer by role, with whatever else the turns hold."""
    said: dict[str, Any] = {}
    roles = []
    for turn in turns:
        role, text, rest = _turn(turn, field)
        roles.append(role)
        said = {**rest, **said, role: text}
    if roles not in ORDER:
        seen = ", ".join(roles[:6]) or "none"
        raise InputError(
            f"'{field}' must hold one user turn and the assistant's answer, after a system turn at most (it holds: "
            f"{seen}); write every question with its answer as a row of its own"
        )
    return said


def _turn(turn: Any, field: str) -> tuple[str, str, dict[str, Any]]:
    """Role, text, and what else a turn holds."""
    if not isinstance(turn, dict):
        raise InputError(f"'{field}' must hold turns such as {{'role': 'user', 'content': 'Who?'}}")
    names = next((names for names in (("role", "content"), ("from", "value")) if names[0] in turn), None)
    if names is None:
        raise InputError(f"a turn of '{field}' has no 'role'; write 'user', 'assistant' or 'system'")
    role, text = turn[names[0]], _text(turn.get(names[1]))
    if not isinstance(role, str) or role.lower() not in TURN_ROLES:
        raise InputError(
            f"a turn of '{field}' has the role {str(role)[:40]!r}; an edit has 'user' and 'assistant' only"
        )
    if text is None:
        raise InputError(f"the {role} turn of '{field}' holds no text in '{names[1]}'")
    return TURN_ROLES[role.lower()], text, {name: value for name, value in turn.items() if name not in names}


def _text(content: Any) -> str | None:
    """A turn's text; also where it stands in parts, as long as all of them are text."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "".join(texts) if texts and len(texts) == len(content) else None
