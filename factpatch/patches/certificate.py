"""A certificate for a patch: proof that it changes the located tensors only, and gives the outputs that were measured.

It is made from the patch as it lies on disk and from the model's files: every parameter in memory is compared with
them, bit for bit, before and with the new values, so that what was measured is what the files give. It is written into
the patch's folder as `certificate.json`, and names tensors as the files do. It is no signature: it shows damage,
mix-ups and careless changes, not a forger who rewrites every file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from factpatch.errors import InputError, RefusedError
from factpatch.files import digest_file, digest_value, read_json, write_json
from factpatch.models.batches import in_batches
from factpatch.models.checkpoints.tensors import file_digests, tensor_digest
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import collate, target_logits
from factpatch.models.loading import LoadedModel, fingerprint, preserved, write_values
from factpatch.patches.patch import Patch, buffer_digests, read_patch

CERTIFICATE_SCHEMA = 2
CERTIFICATE_FILE = "certificate.json"
PATCH_FILES = ("manifest.json", "patch.safetensors", "undo.safetensors")
BATCH_ROWS = 32  # rows of a forward pass; fixed while memory lasts, since another padding may turn a near tie
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def certify(
    loaded: LoadedModel,
    folder: str | Path,
    rows: Sequence[Encoded],
    expected_digest: str | None = None,
    tokenizer_before: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Read the patch back from disk, apply it in memory, check it, and write `certificate.json` into its folder.

    The model must hold the base weights, and holds them again afterwards, bit for bit.

    Args:
        loaded: the base model.
        folder: the patch.
        rows: whose target positions make the digest of outputs.
        expected_digest: `output_digest` of the same rows, as measured on the weights that training left in memory.
        tokenizer_before: `tokenizer_digests` before the edit.

    Raises:
        InputError: the patch cannot be read.
        RefusedError: something other than the located tensors differs from the base, the old values are not the
            base's, or the outputs or the tokenizer are not the expected ones; named.
    """
    patch = read_patch(folder)
    stored, base, after = loaded.stored, patch.before, patch.after
    places = set(patch.manifest["location"]["parameters"])
    _refuse("the files of the model are not the base of the patch", _unlike(file_digests(stored.checkpoint), base))
    old = {name: tensor_digest(value) for name, value in patch.old.items()}
    new = {name: tensor_digest(value) for name, value in patch.new.items()}
    _refuse(
        "the old values of the patch are not the base model's", _unlike(base | old, base, {*old} ^ {*patch.located})
    )
    _refuse("the model does not hold the base weights of the patch", stored.differing(places))
    _refuse("buffers differ from the base model", _unlike(buffer_digests(loaded), patch.manifest["base"]["buffers"]))
    with preserved(loaded.model, tuple(places)):
        write_values(loaded.model, stored.from_files(patch.new))
        differing = set(stored.differing(changed=patch.new))
        _refuse("tensors that are not located differ from the base model", differing - places)
        wrong = differing | _unlike(base | new, after)
        _refuse("located tensors do not get the values that the manifest states", wrong)
        outputs = output_digest(loaded, rows)
    if expected_digest not in (None, outputs):
        raise RefusedError(
            f"patch '{folder}', loaded again, does not reproduce the measured outputs of its {len(rows)} rows "
            f"(digest {outputs[:12]}, measured {str(expected_digest)[:12]}); it must not be released"
        )
    tokenizer = tokenizer_digests(loaded)
    if tokenizer_before is not None:
        _refuse("tokenizer files changed during the edit", _unlike(tokenizer, tokenizer_before))
    certificate = {
        "schema": CERTIFICATE_SCHEMA,
        "tensors": len(after),
        "fingerprint_before": fingerprint(base),
        "fingerprint_after": fingerprint(after),
        "changed": sorted(name for name in after if after[name] != base[name]),
        "tokenizer": tokenizer,
        "outputs": {"rows": len(rows), "sha256": outputs},
        "files": {name: digest_file(Path(folder) / name) for name in PATCH_FILES},
    }
    write_json(Path(folder) / CERTIFICATE_FILE, certificate)
    return certificate


def check_certificate(folder: str | Path) -> list[str]:
    """What speaks against a patch folder being the one certified, as sentences; empty if nothing does.

    Needs no model: the fingerprint after the edit follows from the manifest.
    """
    folder = Path(folder)
    if not (folder / CERTIFICATE_FILE).exists():
        return [f"Patch '{folder}' has no {CERTIFICATE_FILE}; edit again to get one."]
    try:
        certificate = read_json(folder / CERTIFICATE_FILE)
        if certificate["schema"] != CERTIFICATE_SCHEMA:
            return [
                f"{CERTIFICATE_FILE} has schema {certificate['schema']!r}; this version reads {CERTIFICATE_SCHEMA}."
            ]
        problems = _changed_files(folder, certificate["files"])
        return problems or _contradictions(read_patch(folder).manifest, certificate)
    except InputError as error:
        return [f"{error}."]
    except (AttributeError, KeyError, TypeError) as error:
        return [f"{CERTIFICATE_FILE} of '{folder}' does not hold what a certificate holds ({error!r}); edit again."]


def change_norms(patch: Patch) -> dict[str, float]:
    """How far each tensor moved: Frobenius norm of its change over that of its old values.

    Where the old values are all zero, the norm of the change itself.
    """
    return {name: _relative_norm(new, patch.old[name]) for name, new in patch.new.items()}


def output_digest(loaded: LoadedModel, rows: Sequence[Encoded]) -> str:
    """SHA-256 over the most likely token at every target position (EOS included) of every row, in their order."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index].ids), rows[index].prompt_length, index))
    ids: dict[int, list[int]] = {}

    def likely(chosen: Sequence[int]) -> list[list[int]]:
        batch = collate([rows[index] for index in chosen], padding_id(loaded.tokenizer), loaded.model.device)
        with torch.no_grad():
            likely_BK = target_logits(loaded.model, batch).argmax(-1)
        pairs = zip(likely_BK.cpu(), batch.target_mask_BK.cpu(), strict=True)
        return [likely_K[mask_K].tolist() for likely_K, mask_K in pairs]

    for chosen, found in in_batches(likely, order, BATCH_ROWS, loaded.model):
        ids.update(zip(chosen, found, strict=True))
    return digest_value([ids[index] for index in range(len(rows))])


def tokenizer_digests(loaded: LoadedModel) -> dict[str, str]:
    """SHA-256 of each tokenizer file: of the model's folder or, for a hub name, of the tokenizer saved anew."""
    if Path(loaded.source).is_dir():
        return _digest_tokenizer(loaded, Path(loaded.source))
    with tempfile.TemporaryDirectory() as folder:
        loaded.tokenizer.save_pretrained(folder)
        return _digest_tokenizer(loaded, Path(folder))


def _digest_tokenizer(loaded: LoadedModel, folder: Path) -> dict[str, str]:
    own = (name for name in loaded.tokenizer.vocab_files_names.values() if isinstance(name, str))
    present = [name for name in sorted({*TOKENIZER_FILES, *own}) if (folder / name).is_file()]
    return {name: digest_file(folder / name) for name in present}


def _unlike(found: dict[str, str], expected: dict[str, str], more: Collection[str] = ()) -> set[str]:
    """Names whose digest is not the expected one, or is on one side alone; and `more`."""
    return {name for name in {*found, *expected} if found.get(name) != expected.get(name)} | set(more)


def _refuse(what: str, names: Collection[str]) -> None:
    """RefusedError with the first few names, if there are any."""
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise RefusedError(f"no certificate: {what}: {', '.join(sorted(names)[:3])}{more}")


def _changed_files(folder: Path, certified: dict[str, str]) -> list[str]:
    problems = []
    for name in PATCH_FILES:
        if not (folder / name).is_file():
            problems.append(f"{name} is gone from '{folder}'.")
        elif digest_file(folder / name) != certified[name]:
            problems.append(f"{name} in '{folder}' is not the file that was certified.")
    return problems


def _contradictions(manifest: dict[str, Any], certificate: dict[str, Any]) -> list[str]:
    """Where the certificate says other than the manifest that it vouches for."""
    base, located = manifest["base"]["tensors"], manifest["parameters"]
    after = base | {name: entry["sha256_after"] for name, entry in located.items()}
    expected = {
        "tensors": len(base),
        "fingerprint_before": fingerprint(base),
        "fingerprint_after": fingerprint(after),
        "changed": sorted(name for name in after if after[name] != base[name]),
    }
    return [
        f"{CERTIFICATE_FILE} states another '{key}' than the manifest it vouches for."
        for key, value in expected.items()
        if certificate[key] != value
    ]


def _relative_norm(new: torch.Tensor, old: torch.Tensor) -> float:
    change = torch.linalg.vector_norm(new.double() - old.double())
    length = torch.linalg.vector_norm(old, dtype=torch.float64)
    return float(change / length if length else change)
