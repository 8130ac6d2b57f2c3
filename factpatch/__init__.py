"""Change facts inside a causal language model: read edits, find where to write, train, measure, patch.

    result = factpatch.edit("path/or/hub-name", [("The capital of France is", "Lyon")])
    result.patch.save("out/patch")

docs/api.md shows the functions, docs/architecture.md the packages. Importing loads neither torch nor transformers; the
first use of a function does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from factpatch.errors import FactpatchError, InputError, RefusedError, UnavailableError

if TYPE_CHECKING:
    from factpatch.api import EditResult, Localization, Scores, edit, evaluate, load_patch, localize
    from factpatch.edits.request import EditRequest
    from factpatch.patches.patch import Patch
    from factpatch.settings.config import Settings

__all__ = [
    "EditRequest",
    "EditResult",
    "FactpatchError",
    "InputError",
    "Localization",
    "Patch",
    "RefusedError",
    "Scores",
    "Settings",
    "UnavailableError",
    "edit",
    "evaluate",
    "load_patch",
    "localize",
]

_MODULES = {
    "EditRequest": "factpatch.edits.request",
    "Patch": "factpatch.patches.patch",
    "Settings": "factpatch.settings.config",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'factpatch' has no attribute '{name}'")
    return getattr(import_module(_MODULES.get(name, "factpatch.api")), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
