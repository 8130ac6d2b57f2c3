"""What each verb of the command line does. Heavy libraries are imported only by the verb that needs them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from factpatch.errors import InputError, RefusedError
from factpatch.files import output_folder, read_json, write_text
from factpatch.preflight.environment import user_name
from factpatch.settings.config import RegistrySettings, Settings, load_settings
from flows.console import quiet_prefect
from flows.delivery import export, inspect
from flows.doctor import check_machine
from flows.preview import preview, reading_lines
from flows.serving import serving

Overrides = dict[str, Any]


def init(args: argparse.Namespace, overrides: Overrides) -> int:
    """Write a project, and say what comes next."""
    from factpatch.project import write_project

    for path in write_project(Path(args.folder), args.model):
        print(path)
    inside = "" if args.folder == "." else f"cd {args.folder}, "
    print(f"Next: {inside}put your rows into data/edits, then factpatch run")
    return 0


def run(args: argparse.Namespace, overrides: Overrides) -> int:
    """The release flow, then its tables; 1 if a gate refused."""
    settings = load_settings(args.config, overrides)
    check_machine("run", settings, args.output)
    check_inputs(settings)
    output_folder(args.output)
    quiet_prefect()
    from flows.release import release

    state = release(args.config, args.output, overrides, args.pending, args.adopt, return_state=True)
    path = state.result()
    if not isinstance(path, str):  # skipped
        print(state.message)
        return 0
    result = read_json(Path(path))
    from flows.summary import show, show_next

    print("\n".join(reading_lines(read_json(Path(args.output) / "validate.json")["read_as"])))
    show(result, read_json(Path(args.output) / "evaluate.json"))
    show_next(settings, args.output)
    return 1 if result["status"] == "refused" else 0


def validate(args: argparse.Namespace, overrides: Overrides) -> int:
    """Check edit requests and say what was found; or only show the first as they are read."""
    settings = load_settings(args.config, overrides)
    if args.preview:
        check_inputs(settings, model=False)
        print("\n".join(preview(settings)))
        return 0
    check_machine("validate", settings, args.output)
    check_inputs(settings, model=args.model is not None)  # without the model, target lengths are counted in words
    result = _validate(args.output, settings)
    found = [check for check in result["checks"] if check["count"]]
    for check in found:
        print(f"{check['severity']:<10} {check['count']:>6}  {check['name']}: {check['fix']}")
    print(
        f"{result['accepted']} of {result['total']} edits accepted, {result['quarantined']} quarantined: {args.output}"
    )
    return 0


def probes(args: argparse.Namespace, overrides: Overrides) -> int:
    """Make what the edits in the output folder lack to be measured by."""
    settings = _prepare(args, overrides)
    if not args.edits:  # else they were made with the accepted edits
        _make_probes(args.output, settings)
    for kind, count in read_json(Path(args.output) / "probes.json")["made"].items():
        print(f"{count} {kind} made")
    return 0


def localize(args: argparse.Namespace, overrides: Overrides) -> int:
    """Choose the location for the edits in the output folder."""
    settings = _prepare(args, overrides)
    from tasks.localize import localize as step

    result = read_json(Path(step.fn(args.output, settings)))
    for cell in sorted(result["candidates"], key=lambda cell: -cell["score"]):
        print(f"{cell['location']:<24} score {cell['score']:.3f}  {cell['epochs']:>3} epochs  {cell['seconds']:.1f} s")
    print(f"location {result['location']['name']}: {result['reason']}")
    return 0


def edit(args: argparse.Namespace, overrides: Overrides) -> int:
    """Train the edits in the output folder, at the location named or found before, or searched for now."""
    if args.dry_run or args.device_rates:
        from flows.dry_run import tell_costs

        return tell_costs(args, load_settings(args.config, overrides))
    settings = _prepare(args, overrides)
    if settings.localization.location is None and (args.edits or not (Path(args.output) / "localize.json").exists()):
        from tasks.localize import localize as search

        search.fn(args.output, settings)
    from tasks.edit import edit as step

    result = read_json(Path(step.fn(args.output, settings)))
    loss = "" if result["last_loss"] is None else f"loss {result['last_loss']:.4f}, "
    print(
        f"{result['edits']} edits at {result['location']}: {result['epochs']} epochs, {result['steps']} steps, "
        f"{loss}{result['seconds']:.1f} s; patch {Path(args.output) / 'patch'}"
    )
    return 0


def evaluate(args: argparse.Namespace, overrides: Overrides) -> int:
    """Measure the edits in the output folder on the model, and on the patched one if there is a patch."""
    settings = _prepare(args, overrides)
    from factpatch.evaluation.judging import check_judge
    from factpatch.report.evidence import percent
    from flows.summary import interval
    from tasks.evaluate import evaluate as step

    check_judge(settings.judge)
    result = read_json(Path(step.fn(args.output, settings, args.patch)))
    for name in result["definitions"]:
        value, unit = result[name], result["definitions"][name]["unit"]
        note = value.get("reason") or f"{interval(value['ci95'], unit)}, n {value['n']}"
        before = f"{percent(result['before'][name]['value'], unit)} -> " if result["before"] else ""
        print(f"{name:<24} {before}{percent(value['value'], unit)}  ({note})")
    return 0


def regress(args: argparse.Namespace, overrides: Overrides) -> int:
    """Score the capability tasks before and after the patch."""
    settings = load_settings(args.config, overrides)
    check_machine("regress", settings, args.output)
    check_inputs(settings, edits=False)
    from factpatch.report.evidence import percent
    from tasks.regress import regress as step

    result = read_json(Path(step.fn(str(output_folder(args.output)), settings)))
    for name, value in result["tasks"].items():
        print(f"{name:<24} {percent(value['before'])} -> {percent(value['after'])}  (n {value['n']})")
    return 0


def import_model(args: argparse.Namespace, overrides: Overrides) -> int:
    """Make an ordinary model folder of a GGUF file or a PEFT adapter."""
    from factpatch.models.loading import load_model
    from factpatch.models.sources.resolve import make_folder

    print(make_folder(Path(args.source), Path(args.output), load_model))
    return 0


def apply(args: argparse.Namespace, overrides: Overrides) -> int:
    """Save the patched model as a folder."""
    from factpatch.patches.export import export_patch

    print(export_patch(load_settings(args.config, overrides).model, args.patch, Path(args.output), args.link))
    return 0


def undo(args: argparse.Namespace, overrides: Overrides) -> int:
    """Save the model without its patch as a folder."""
    from factpatch.patches.export import export_undo

    print(export_undo(load_settings(args.config, overrides).model, args.patch, Path(args.output)))
    return 0


def ask(args: argparse.Namespace, overrides: Overrides) -> int:
    """Print what the model says."""
    from factpatch.ask import ask as answer

    print(answer(load_settings(args.config, overrides), args.prompt, args.patch))
    return 0


def edits(args: argparse.Namespace, overrides: Overrides) -> int:
    """What the ledger says, or a revert added to it."""
    settings = load_settings(args.config, overrides)
    check_inputs(settings, model=False)
    from flows.ledger import ACTIONS

    return ACTIONS[args.action](args, settings)


def compare(args: argparse.Namespace, overrides: Overrides) -> int:
    """Write the page of two releases, and say how many edits differ between them."""
    from factpatch.report import read_release, render_comparison
    from factpatch.report.comparison import compare_edits

    first, second = read_release(args.first), read_release(args.second)
    page = Path(args.output)
    if page.is_dir() or not page.absolute().parent.is_dir():
        raise InputError(f"--output {page}: name a file in a folder that exists, such as comparison.html")
    write_text(page, render_comparison(first, second, (args.first, args.second)))
    for kind, rows in compare_edits(first, second).items():
        print(f"{len(rows):>6}  {kind}")
    print(page)
    return 0


def promote(args: argparse.Namespace, overrides: Overrides) -> int:
    """Move the alias `champion` to a version whose gates passed."""
    registry = _registry("promote", args, overrides)
    from tasks.promote import promote as move

    version = move(registry, args.version, user_name(), args.reason)
    print(f"{registry.name} version {version} is champion")
    return 0


def rollback(args: argparse.Namespace, overrides: Overrides) -> int:
    """Swap the aliases `champion` and `previous`."""
    registry = _registry("rollback", args, overrides)
    from tasks.promote import rollback as swap

    version = swap(registry, user_name(), args.reason)
    print(f"{registry.name} version {version} is champion again")
    return 0


def history(args: argparse.Namespace, overrides: Overrides) -> int:
    """Print every move of `champion`: when, what, by whom, why."""
    registry = _registry("history", args, overrides)
    from flows.history import describe_history
    from tasks.promote import read_history

    print("\n".join(describe_history(registry.name, read_history(registry))))
    return 0


def monitor(args: argparse.Namespace, overrides: Overrides) -> int:
    """Ask a model every live fact again; 1 if some are lost."""
    settings = load_settings(args.config, overrides)
    check_machine("monitor", settings, args.output)
    check_inputs(settings, model=False)
    output_folder(args.output)
    quiet_prefect()
    from flows.monitor import describe_monitor
    from flows.monitor import monitor as watch

    value = read_json(Path(str(watch(args.of, args.config, args.output, overrides, args.patch))))
    print("\n".join(describe_monitor(value)))
    return 0 if value["status"] == "held" else 1


def serve(args: argparse.Namespace, overrides: Overrides) -> int:
    """Run Prefect's server, a worker and MLflow's pages until interrupted."""
    settings = load_settings(args.config, overrides)
    check_machine("serve", settings)
    from flows.serve import serve as run_servers

    return run_servers(settings, args.prefect_port, args.mlflow_port)


def doctor(args: argparse.Namespace, overrides: Overrides) -> int:
    """Print what would stand in the way of a release on this machine; 2 if anything does."""
    from flows.doctor import examine

    return examine(load_settings(args.config, overrides), args.output)


def check_inputs(settings: Settings, model: bool = True, edits: bool = True) -> None:
    """InputError for a model or an edit file that isn't there, before anything is started or written."""
    if model:
        from factpatch.models.loading import check_source

        check_source(settings.model.path)
    if edits and not Path(settings.edits.path).exists() and settings.edits.path.count("/") != 1:
        raise InputError(f"edits '{settings.edits.path}' do not exist; name a file, a folder or a datasets hub name")


def _prepare(args: argparse.Namespace, overrides: Overrides) -> Settings:
    """Settings; with --edits the output folder gets its accepted edits first, and the probes made for them."""
    settings = load_settings(args.config, overrides)
    check_machine(args.verb, settings, args.output)
    check_inputs(settings, edits=bool(args.edits))
    if args.edits:
        _validate(args.output, settings)
        _make_probes(args.output, settings)
    return settings


def _registry(verb: str, args: argparse.Namespace, overrides: Overrides) -> RegistrySettings:
    """Where the verb finds versions, on a machine that it can work on."""
    settings = load_settings(args.config, overrides)
    check_machine(verb, settings)
    return settings.registry


def _validate(output: str, settings: Settings) -> dict[str, Any]:
    from tasks.validate import validate as step

    folder = output_folder(output)
    try:
        step.fn(str(folder), settings)
    except RefusedError:  # what was refused was read all the same
        print("\n".join(reading_lines(read_json(folder / "validate.json")["read_as"])))
        raise
    result: dict[str, Any] = read_json(folder / "validate.json")
    print("\n".join(reading_lines(result["read_as"])))
    return result


def _make_probes(output: str, settings: Settings) -> None:
    from tasks.probes import probes as step

    step.fn(output, settings)


VERBS: dict[str, Callable[[argparse.Namespace, Overrides], int]] = {
    "init": init,
    "run": run,
    "validate": validate,
    "probes": probes,
    "localize": localize,
    "edit": edit,
    "evaluate": evaluate,
    "regress": regress,
    "import": import_model,
    "apply": apply,
    "undo": undo,
    "ask": ask,
    "export": export,
    "inspect": inspect,
    "edits": edits,
    "compare": compare,
    "promote": promote,
    "rollback": rollback,
    "history": history,
    "monitor": monitor,
    "serve": serve,
    "serving": serving,
    "doctor": doctor,
}
