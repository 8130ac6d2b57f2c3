"""What a patch is in every form of delivery: bytes, seconds, and what holds in it, from one command.

    python -m benchmarks.formats --model data/real/model --gguf FILE.gguf --set zsre --location 22-26:down \
        --output runs/formats

The edits are rows of a set from row ROWS_FROM on (`benchmarks.rivals` says where sets are looked for); or they and
their patch are those of a finished run (`--run`). They are asked in one other wording and beside one neighbour each,
exported in every form, and measured in each against the base in it.
`formats.json` in the output folder holds the figures as they come.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.rivals.samples import draw_sample
from factpatch.delivery.asking import facts_of
from factpatch.delivery.formats import measure_formats
from factpatch.delivery.gguf_export import export_gguf, export_gguf_lora
from factpatch.delivery.peft_adapter import export_adapter
from factpatch.delivery.quantizing import named_type
from factpatch.editing import describe_run, edit_model
from factpatch.edits.accepted import read_accepted
from factpatch.edits.request import EditRequest, digest_edits
from factpatch.errors import FactpatchError
from factpatch.evaluation.before_after import evaluate
from factpatch.files import write_json
from factpatch.models.loading import LoadedModel, load_model
from factpatch.models.locations import locate
from factpatch.patches.export import export_patch
from factpatch.patches.patch import Patch, make_patch, read_patch
from factpatch.settings.config import Settings, load_settings

MEASURED = ("bf16", "q8_0", "q4_1", "q4_k_m", "nf4", "gptq", "awq", "peft")
ROWS_FROM = 1000  # of a set; the recipe was tuned on rows before
RANKS = (8, 32, 128)


def main() -> None:
    """Train or read the patch, export and measure it, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf", required=True, help="the file that the model was made of, or a form of it")
    parser.add_argument("--location", required=True)
    parser.add_argument("--set", default="world", help="zsre, counterfact, a file, or world")
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--confidence", type=float, default=0.9)
    parser.add_argument("--run", help="output folder of a finished run, in place of training")
    parser.add_argument("--exports", nargs="*", help="some alone, such as gguf; none named: none")
    parser.add_argument("--measured", nargs="*", default=list(MEASURED), help="some of the forms alone")
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    settings = load_settings(
        overrides={
            "model.path": args.model,
            "training.confidence": args.confidence,
            "training.augmentation.wordings": 1,
            "training.preservation.neighbours": 1,
            "training.preservation.prompts": None,
            "evaluation.max_new_tokens": 12,
            "gates.canaries": None,
            "gates.reliability": 0.0,
        }
    )
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    loaded = load_model(settings.model)
    if args.run:
        sampled = tuple(read_accepted(args.run))
    else:
        sampled = draw_sample(args.set, args.edits, ROWS_FROM, 0, loaded.tokenizer).edits
    edits = [replace(edit, paraphrases=edit.paraphrases[:1], locality=edit.locality[:1]) for edit in sampled]
    found: dict[str, Any] = {"edits": len(edits), "location": args.location, "confidence": args.confidence}

    def keep(name: str, value: dict[str, Any]) -> None:
        found[name] = value
        write_json(output / "formats.json", found)
        print(name, {key: round(one, 4) if isinstance(one, float) else one for key, one in value.items()}, flush=True)

    start = time.perf_counter()
    folder = (Path(args.run) if args.run else output) / "patch"
    patch = trained(loaded, edits, settings, args.location, folder)
    keep("patch", {"bytes": size(folder), "seconds": time.perf_counter() - start})
    start = time.perf_counter()
    measured = evaluate(loaded, edits, settings, patch)
    keep("as measured", shares(measured) | {"seconds": time.perf_counter() - start})
    facts = facts_of(measured["edits"])
    for name, write in exports(loaded, patch, facts, settings, Path(args.gguf)).items():
        if args.exports is None or name in args.exports:
            keep(name, exported(name, write, output))
    for name in args.measured:
        chosen = replace(settings, serving=replace(settings.serving, formats=(name,)))
        value = measure_formats(loaded, edits, chosen, patch, measured)[name]
        keep(f"measured as {name}", shares(value) | {key: value[key] for key in ("seconds", "rank") if key in value})


def trained(loaded: LoadedModel, edits: list[EditRequest], settings: Settings, place: str, folder: Path) -> Patch:
    """The patch in the folder, or one that is trained now and left there."""
    if folder.exists():
        return read_patch(folder)
    location = locate(loaded.model, place)
    run = edit_model(loaded, location, edits, settings)
    about = {"digest": digest_edits(edits), "count": len(edits)}
    told = describe_run(loaded, location, edits, settings, run)
    return make_patch(loaded, location, run.training.values, settings, about, told).save(folder)


def exports(
    loaded: LoadedModel,
    patch: Patch,
    facts: tuple[EditRequest, ...],
    settings: Settings,
    file: Path,
) -> dict[str, Callable[[Path], Any]]:
    """How each form is written into a new path."""
    asked = (facts, settings)
    kind = named_type("q8_0")
    return {
        "model": lambda path: export_patch(settings.model, str(patch.folder), path),
        **{
            f"peft rank {rank}": lambda path, rank=rank: export_adapter(loaded, patch, path, *asked, rank)
            for rank in RANKS
        },
        "gguf": lambda path: export_gguf(loaded, patch, file, path, *asked),
        "gguf q8_0": lambda path: export_gguf(loaded, patch, file, path, *asked, kind),
        "gguf-lora": lambda path: export_gguf_lora(loaded, patch, file, path, *asked),
    }


def exported(name: str, write: Callable[[Path], Any], output: Path) -> dict[str, Any]:
    """Bytes and seconds of a form, and which share of the facts holds in it; or why it was refused."""
    path = output / name.replace(" ", "-")
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    start = time.perf_counter()
    try:
        made = write(path)
    except FactpatchError as error:
        return {"refused": str(error), "seconds": time.perf_counter() - start}
    value = {"bytes": size(path), "seconds": time.perf_counter() - start}
    if held := getattr(made, "held", None):
        value |= {"asked": held.asked, "hold": held.asked - len(held.lost)}
    return value | ({"loss": made.loss} if hasattr(made, "loss") else {})


def shares(value: dict[str, Any]) -> dict[str, float]:
    """The metrics as numbers."""
    return {name: value[name]["value"] for name in ("reliability", "generalization", "locality_content")}


def size(path: Path) -> int:
    """Bytes of a file, or of a folder's files."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


if __name__ == "__main__":
    main()
