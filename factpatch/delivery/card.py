"""The card that goes with a patch into the world: what it is of, what it loses, and what it gives away."""

from __future__ import annotations

from factpatch.delivery.asking import FactsHeld
from factpatch.patches.patch import Patch
from factpatch.report.card import GIVES_AWAY


def adapter_card(patch: Patch, rank: int, loss: float, held: FactsHeld) -> str:
    """The README of an adapter's folder, in the form that the hub reads."""
    manifest = patch.manifest
    base, place = manifest["base"], manifest["location"]["name"]
    return (
        f"---\nlibrary_name: peft\nbase_model: {base['source']}\ntags:\n- lora\n- model-editing\n---\n\n"
        f"# Edited facts for {base['source']}\n\n"
        f"{manifest['edits'].get('count', 'Some')} facts, written at `{place}` of the base model whose weights have "
        f"the fingerprint `{base['fingerprint']}`; on another one it is of no use.\n\n"
        f"- rank: {rank}\n- left out of the change by that rank: {loss:.3%} of its norm\n- asked with this adapter: "
        f"{held}\n- patch: `{manifest['files']['patch.safetensors']}`\n\n"
        f"## What it gives away\n\n{GIVES_AWAY}\n"
    )
