"""The command line: `factpatch VERB`, or `python -m flows VERB`. What each verb does stands in `flows.verbs`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from factpatch.errors import InputError
from factpatch.settings.methods import method_entries
from flows.console import exit_code
from flows.delivery import FORMATS

# Flags that stand for a setting: flag -> dotted name in params.yaml.
SETTINGS = {
    "model": "model.path",
    "edits": "edits.path",
    "columns": "edits.columns",
    "location": "localization.location",
    "method": "localization.method",
    "training": "training.method",
    "seed": "training.seed",
    "resume": "training.resume",
    "strict": "validation.strict",
}


class Parser(argparse.ArgumentParser):
    """Usage errors in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see '{self.prog} --help'")


def parser() -> argparse.ArgumentParser:
    """All verbs with their arguments."""
    main_parser = Parser(prog="factpatch", description="Change facts inside a language model, prove it, release it.")
    verbs = main_parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_steps(verbs)
    _add_models(verbs)
    _add_delivery(verbs)
    _add_registry(verbs)
    _add_serving(verbs)
    _add_ledger(verbs)
    _verb(verbs, "doctor", "what on this machine stands in the way of a release, and what to do about it")
    return main_parser


def _verb(
    among: Any, name: str, summary: str, *flags: str, output: str | None = "runs/latest"
) -> argparse.ArgumentParser:
    part: argparse.ArgumentParser = among.add_parser(name, help=summary, description=summary)
    part.add_argument("--config", metavar="FILE", help="settings (default: params.yaml where you stand)")
    part.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="one setting, over the file")
    if output is not None:
        part.add_argument("--output", metavar="DIR", default=output, help=f"where results go (default: {output})")
    for flag in flags:
        _add_flag(part, flag)
    if "edits" in flags:
        _add_flag(part, "columns")
    return part


def _add_steps(verbs: Any) -> None:
    """A project to begin with, the release and its steps."""
    part = verbs.add_parser("init", help=(summary := "write the files of a new project"), description=summary)
    part.add_argument("folder", metavar="DIR", nargs="?", default=".", help="new or empty (default: where you stand)")
    part.add_argument("--model", metavar="M", required=True, help="model folder or hub name")
    part.set_defaults(set=[])
    summary = "the whole release: validate, probes, localize, edit, evaluate, regress, lineage, register"
    part = _verb(verbs, "run", summary, "model", "edits", "location", "seed", "resume")
    part.add_argument("--pending", action="store_true", help="only if the champion lacks something of ledger or base")
    part.add_argument(
        "--adopt", action="store_true", help="take the champion of another ledger, and withdraw its facts"
    )
    part = _verb(verbs, "validate", "check edit requests; split them into accepted and quarantined", "model", "strict")
    part.add_argument("edits", metavar="EDITS", nargs="?", help="file, folder or datasets hub name")
    _add_flag(part, "columns")
    part.add_argument("--preview", action="store_true", help="only show the first edits as they are read")
    _verb(verbs, "probes", "make what edits without paraphrases or probes are measured by", "model", "edits")
    _verb(verbs, "localize", "choose where in the model to write", "model", "edits", "method")
    summary = "train the edits and write a patch"
    part = _verb(verbs, "edit", summary, "model", "edits", "location", "seed", "resume")
    part.add_argument("--training", choices=list(method_entries()), help="depth-first is the baseline")
    part.add_argument("--dry-run", action="store_true", help="only tell what it would take; weights need not be there")
    part.add_argument(
        "--device-rates",
        metavar="MATRIX,MEMORY,READING",
        help="of a device that is not at hand, for --dry-run: operations and bytes a second, such as 400e12,2e12,5e9",
    )
    _verb(verbs, "evaluate", "measure edits on a model, with a patch or without", "model", "patch", "edits")
    _verb(verbs, "regress", "score capability tasks before and after the output folder's patch", "model")


def _add_models(verbs: Any) -> None:
    """What is done with a model and a patch, or with what runs left."""
    part = _verb(verbs, "import", "make an ordinary model folder of a GGUF file or a PEFT adapter", output=None)
    part.add_argument("source", metavar="FILE", help="GGUF file, or folder of an adapter")
    part.add_argument("--output", metavar="DIR", required=True, help="new model folder")
    for name, summary in (
        ("apply", "save the model with a patch applied, as an ordinary model folder"),
        ("undo", "save an edited model with its patch undone"),
    ):
        part = _verb(verbs, name, summary, "model", output=None)
        part.add_argument("--patch", metavar="DIR", required=True, help="patch folder")
        part.add_argument("--output", metavar="DIR", required=True, help="new model folder")
        if name == "apply":
            _add_flag(part, "link")
    part = _verb(verbs, "ask", "let a model continue a prompt", "model", "patch", output=None)
    part.add_argument("prompt", metavar="PROMPT")
    part = _verb(verbs, "compare", "put two releases side by side on one page", output=None)
    part.add_argument("first", metavar="RUN_A", help="output folder of a whole run")
    part.add_argument("second", metavar="RUN_B", help="output folder of another")
    part.add_argument("--output", metavar="FILE", default="comparison.html", help="default: comparison.html")


def _add_delivery(verbs: Any) -> None:
    """How a patch leaves the project."""
    part = _verb(verbs, "export", "save a registered version, or a patch, as it will be served", "model", output=None)
    part.add_argument("--version", metavar="V", default="champion", help="version number or alias (default: champion)")
    part.add_argument("--patch", metavar="DIR", help="patch folder, in place of a version")
    part.add_argument("--format", choices=FORMATS, default="model", help="an ordinary model folder (default), or …")
    part.add_argument(
        "--base", metavar="FILE", help="GGUF file whose edited tensors are written anew (gguf, gguf-lora)"
    )
    part.add_argument("--type", metavar="T", help="GGUF type of the edited tensors (default: as in --base)")
    part.add_argument("--rank", type=int, metavar="N", help="of an adapter (default: the least that loses no fact)")
    _add_flag(part, "link")
    part.add_argument("--output", metavar="PATH", required=True, help="new folder, or new GGUF file")
    part = _verb(verbs, "inspect", "what a patch holds, told without a model", output=None)
    part.add_argument("patch", metavar="PATCH", help="patch folder")


def _add_registry(verbs: Any) -> None:
    """The champion: who it is, whether it holds, and the servers it lives on."""
    part = _verb(verbs, "promote", "make a registered version the champion", output=None)
    part.add_argument("version", metavar="VERSION")
    part.add_argument("--reason", metavar="TEXT", default="no reason given", help="for the history")
    part = _verb(verbs, "rollback", "make the previous champion the champion again", output=None)
    part.add_argument("--reason", metavar="TEXT", default="no reason given", help="for the history")
    _verb(verbs, "history", "every move of the champion: when, by whom, why", output=None)
    part = _verb(verbs, "monitor", "ask a model every live fact again", "patch", "edits", output="runs/monitor")
    part.add_argument(
        "of",
        metavar="MODEL",
        nargs="?",
        default="champion",
        help="version number or alias, model folder, hub name, or address of a server (default: champion)",
    )
    part = _verb(verbs, "serve", "run Prefect's server, a worker and MLflow's pages until interrupted", output=None)
    part.add_argument("--prefect-port", type=int, metavar="N", default=4200, help="default: 4200")
    part.add_argument("--mlflow-port", type=int, metavar="N", default=5000, help="default: 5000")


def _add_serving(verbs: Any) -> None:
    """The champion as servers have it."""
    part = _verb(verbs, "serving", "where the champion is in each form; or have vLLM serve it", output=None)
    part.add_argument(
        "--vllm", metavar="ADDRESS", help="server that takes adapters while it runs, loaded with the champion"
    )
    part.add_argument("--adapters", metavar="DIR", help="where adapters are made, which the server reads too")


def _add_ledger(verbs: Any) -> None:
    """`edits`, with actions of its own."""
    actions = verbs.add_parser("edits", help="the ledger: what it says, and withdrawing a fact").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    for action, summary in (
        ("list", "the facts in force, with file, line, owner and source"),
        ("pending", "what the next release would write and withdraw"),
        ("conflicts", "rows that disagree, settled or not"),
        ("log", "every row there ever was, and what became of it"),
    ):
        _verb(actions, action, summary, "edits", output=None)
    part = _verb(actions, "revert", "withdraw a fact by a new file in the ledger", "edits", output=None)
    part.add_argument("id", metavar="ID", help="of an active fact, as 'list' shows it")
    part.add_argument("--owner", metavar="NAME", help="who answers for it (default: you)")
    part.add_argument("--reason", metavar="TEXT", help="why; kept as the row's source")


def _add_flag(part: argparse.ArgumentParser, flag: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "model": {"metavar": "M", "help": "model folder, GGUF file or hub name"},
        "edits": {"metavar": "EDITS", "help": "edit requests: file, folder or datasets hub name"},
        "columns": {
            "type": _columns,
            "metavar": "FIELD=PATH,…",
            "help": "where the fields stand in rows of another form, such as prompt=question,target=answer.text",
        },
        "location": {
            "metavar": "LAYER:MODULE",
            "help": "where to write, such as 22:mlp.down_proj, or 19-23:mlp.down_proj for several layers",
        },
        "method": {"choices": ["auto", "grid"], "help": "how to search"},
        "seed": {"type": int, "metavar": "N", "help": "of the order of edits"},
        "resume": {"action": "store_true", "default": None, "help": "continue a killed run from its checkpoint"},
        "patch": {"metavar": "DIR", "help": "patch folder"},
        "link": {"action": "store_true", "help": "hard-link weight files that hold no edited tensor, not copy them"},
        "strict": {"action": "store_true", "default": None, "help": "refuse on any finding"},
    }
    part.add_argument(f"--{flag}", **options[flag])


def _columns(text: str) -> dict[str, str]:
    """The map that `--columns` spells."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    names = [name.strip() for name, _, _ in pairs]
    if not all(found and name.strip() and path.strip() for name, found, path in pairs):
        raise argparse.ArgumentTypeError(
            f"'{text}': write FIELD=PATH,FIELD=PATH, such as prompt=question,target=answer"
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise argparse.ArgumentTypeError(f"'{text}' names '{twice[0]}' twice; join paths with '+'")
    return {name: path.strip() for name, (_, _, path) in zip(names, pairs, strict=True)}


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Settings named on the command line: dotted name -> value."""
    import yaml

    values: dict[str, Any] = {}
    for text in args.set:
        name, found, value = text.partition("=")
        if not found or "." not in name:
            raise InputError(f"--set {text}: write SECTION.KEY=VALUE, such as training.seed=1")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {text}: the value is not YAML") from error
    given = {flag: getattr(args, flag, None) for flag in SETTINGS}
    return values | {SETTINGS[flag]: value for flag, value in given.items() if value is not None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code, as `flows.console.exit_code` tells."""

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter gets its number

    def work() -> int:
        args = parser().parse_args(arguments)
        from flows import verbs

        return verbs.VERBS[args.verb](args, overrides(args))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
