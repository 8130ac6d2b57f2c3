"""The preflight: what it counts, what it reads, what it refuses, and whether the run then takes what it said."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from factpatch.edits.request import EditRequest
from factpatch.errors import InputError, RefusedError
from factpatch.files import GIB
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.preflight.estimate import Estimate, check_model_room, check_room, describe_estimate, estimate
from factpatch.preflight.expected_rows import expected_rows
from factpatch.preflight.machine import Available, available, matrix_rate, memory_rate
from factpatch.preflight.workload import trunk_positions
from factpatch.settings.config import ModelSettings, load_settings

EDITS = (
    EditRequest("1", "The capital of France is", "Rome"),
    EditRequest("2", "Which language do people speak in Brazil?", "They speak Basque"),
)
PLENTY = Available(memory=1000 * GIB, accelerator=None, output=1000 * GIB, trunk=None)


@pytest.fixture
def settings_for():
    """`settings_for(folder, key=value, ...)` with sections and keys joined by two underscores."""

    def make(folder, **values):
        overrides = {name.replace("__", "."): value for name, value in values.items()}
        plain = {
            "training.preservation.prompts": None,
            "training.preservation.neighbours": 0,
            "training.augmentation.wordings": 0,
        }
        return load_settings(None, plain | {"model.path": str(folder)} | overrides)

    return make


@pytest.fixture
def bare_llama(tiny_model, tmp_path):
    """A folder with configuration and tokenizer, but no weights."""
    folder = tmp_path / "bare"
    shutil.copytree(tiny_model("llama"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture
def needed() -> Estimate:
    """An estimate of round numbers: 10 GB beyond what the process holds, 4 of them for a pass of 100 rows."""
    return Estimate(
        location="8:mlp",
        parameters=10**6,
        model_parameters=10**9,
        weights_bytes=5 * GIB,
        state_bytes=1 * GIB,
        pass_bytes=4 * GIB,
        pass_rows=100,
        memory_bytes=11 * GIB,
        host_bytes=11 * GIB,
        process_bytes=1 * GIB,
        patch_bytes=1 * GIB,
        checkpoint_bytes=2 * GIB,
        trunk_bytes=3 * GIB,
        moments_bytes=0,
        seconds_trunk=1.0,
        seconds_epoch=2.0,
        seconds_rest=3.0,
        epochs=10,
    )


def test_a_model_without_weights_is_estimated(bare_llama, settings_for):
    assert not list(bare_llama.glob("*.safetensors"))
    assert estimate(settings_for(bare_llama), EDITS, "2:mlp").parameters == 3 * 32 * 64


def test_counts_of_a_small_case(bare_llama, settings_for, tiny_tokenizer):
    """Width 32, MLP 64, 4 layers, 4 heads over 2 of keys and values, tied to a vocabulary of the tokenizer's size."""
    from transformers import AutoConfig

    settings = settings_for(bare_llama)
    config = AutoConfig.from_pretrained(bare_llama)
    found = estimate(settings, EDITS, "1:mlp.down_proj")
    block = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32
    embeddings = len(tiny_tokenizer) * 32 * (1 if config.tie_word_embeddings else 2)
    assert found.model_parameters == embeddings + 4 * block + 32
    assert found.parameters == 32 * 64
    assert found.weights_bytes == 4 * found.model_parameters
    assert found.patch_bytes == 2 * 4 * 32 * 64  # new and old values
    assert found.checkpoint_bytes == 3 * 4 * 32 * 64  # master and Adam's two
    positions = sum(len(_ids(tiny_tokenizer, edit)) - 1 for edit in EDITS)
    assert found.trunk_bytes == positions * (32 + 32) * 4  # the block's input and the attention's output


def test_at_the_last_layer_only_positions_of_targets_are_kept(bare_llama, settings_for, tiny_tokenizer):
    found = estimate(settings_for(bare_llama), EDITS, "3:mlp.down_proj")
    positions = sum(len(_ids(tiny_tokenizer, edit)) - len(tiny_tokenizer(edit.prompt).input_ids) for edit in EDITS)
    assert found.trunk_bytes == positions * (32 + 32 + 64) * 4  # and what the projection reads


def test_trunk_and_patch_take_the_disk_that_was_estimated(tiny_model, settings_for, tmp_path):
    from factpatch.editing import run_edit
    from factpatch.models.loading import load_model
    from factpatch.models.locations import locate
    from factpatch.patches.patch import save_patch

    settings = settings_for(tiny_model("llama"), trunk__folder=str(tmp_path / "trunk"), training__epochs=1)
    for text in ("1:mlp", "3:mlp.down_proj", "2:self_attn"):
        found = estimate(settings, EDITS, text)
        loaded = load_model(settings.model)
        location = locate(loaded.model, text)
        result = run_edit(loaded, location, EDITS, settings)
        patch = save_patch(tmp_path / "patch", loaded, location, result.values, settings, {}, {})
        kept = [file.stat().st_size for file in (tmp_path / "trunk").rglob("*.safetensors")]
        assert sum(kept) - found.trunk_bytes - found.moments_bytes in range(2000 * len(kept)), text  # headers
        assert sum(file.stat().st_size for file in patch.glob("*.safetensors")) - found.patch_bytes in range(4000)
        shutil.rmtree(tmp_path / "trunk")


def test_what_the_preservation_term_holds_is_counted(bare_llama, settings_for, tmp_path, tiny_tokenizer):
    """The likeliest tokens of every preserved position."""
    path = tmp_path / "kept.jsonl"
    path.write_text(json.dumps({"prompt": "The currency of Japan is the", "target": "yen"}) + "\n")
    plain, kept = (
        estimate(
            settings_for(bare_llama, training__preservation__prompts=str(path), training__preservation__loss=loss),
            EDITS,
            "3:mlp.down_proj",
        )
        for loss in ("cross-entropy", "kl")
    )
    positions = len(tiny_tokenizer(" yen").input_ids) + 1
    assert kept.state_bytes - plain.state_bytes == 12 * positions * 64


def test_further_wordings_take_their_part_of_the_trunk(bare_llama, settings_for):
    """Each edit in two more wordings and behind a prefix: four rows for one."""
    augmented = {"training__augmentation__wordings": 2, "training__augmentation__prefixes": 1}
    plain, more = (
        estimate(settings_for(bare_llama, **options), EDITS, "3:mlp.down_proj") for options in ({}, augmented)
    )
    assert more.trunk_bytes == 4 * plain.trunk_bytes


def test_of_few_edits_many_neighbours_are_expected_and_what_the_model_makes_up(bare_llama, settings_for):
    """Thirty-two for each, a third in a frame too; 48 texts, and two for each edit that begin as it does."""
    settings = settings_for(bare_llama, training__augmentation__wordings=2, training__preservation__neighbours=3)
    count, near = len(EDITS), 32 * len(EDITS)
    rows = expected_rows(settings, EDITS)
    assert (len(rows.edits), len(rows.augmented)) == (count, 2 * count)
    assert len(rows.preserved) == near + near // 3 + 48 + 2 * count
    fewer = replace(settings.training, preservation=replace(settings.training.preservation, least=0))
    rows = expected_rows(replace(settings, training=fewer), EDITS)
    assert len(rows.preserved) == 3 * count + count + 48 + 2 * count


def test_trunk_batches_are_filled_up():
    from factpatch.models.encoding import Encoded

    rows = [Encoded((1,) * 10, 8)] + [Encoded((number,) * 17, 8) for number in range(32)] + [Encoded((1,) * 9, 8)]
    assert trunk_positions(rows) == (16 * (3 * 16 + 8), 4)  # 9 and 16 input tokens both take 16; 8 take 8


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_other_architectures_are_estimated(tiny_model, settings_for, kind):
    found = estimate(settings_for(tiny_model(kind)), EDITS, "3:down")
    model = load_model(ModelSettings(path=str(tiny_model(kind)))).model
    located = locate(model, "3:down").parameters
    assert found.parameters == sum(model.get_parameter(name).numel() for name in located)
    assert found.model_parameters == model.num_parameters()
    assert found.memory_bytes > found.process_bytes
    assert found.seconds > found.seconds_epoch > 0


def test_plenty_is_enough(needed, settings_for, bare_llama):
    check_room(needed, PLENTY, settings_for(bare_llama).trunk)
    assert (
        "1.00 M of 1.00 B parameters; memory 11.00 GB of 1001.00 GB, disk 8.00 GB of 1000.00 GB"
        in describe_estimate(needed, PLENTY)
    )


def test_short_memory_is_refused_with_the_batch_that_fits(needed, settings_for, bare_llama):
    free = dataclasses.replace(PLENTY, memory=8 * GIB)
    with pytest.raises(
        RefusedError, match=r"needs 10\.00 GB of memory, and 8\.00 GB are free; set training\.micro_batch to 50"
    ):
        check_room(needed, free, settings_for(bare_llama).trunk)


def test_memory_short_of_the_weights_is_refused(needed, settings_for, bare_llama):
    free = dataclasses.replace(PLENTY, memory=5 * GIB)
    with pytest.raises(RefusedError, match=r"5\.00 GB are free; use a smaller model"):
        check_room(needed, free, settings_for(bare_llama).trunk)


def test_an_accelerator_must_hold_one_row(needed, settings_for, bare_llama):
    """More rows than fit are no reason to refuse there: the micro-batch halves by itself."""
    trunk = settings_for(bare_llama).trunk
    check_room(needed, dataclasses.replace(PLENTY, accelerator=8 * GIB), trunk)
    with pytest.raises(RefusedError, match=r"7\.04 GB on the accelerator with one row a pass, and 7\.00 GB are free"):
        check_room(needed, dataclasses.replace(PLENTY, accelerator=7 * GIB), trunk)


def test_short_disk_is_refused(needed, settings_for, bare_llama):
    trunk = settings_for(bare_llama).trunk
    with pytest.raises(RefusedError, match=r"needs 8\.00 GB of disk, and 7\.00 GB are free"):
        check_room(needed, dataclasses.replace(PLENTY, output=7 * GIB), trunk)
    with pytest.raises(RefusedError, match=r"3\.00 GB for the trunk cache .* 2\.00 GB are free"):
        check_room(needed, dataclasses.replace(PLENTY, trunk=2 * GIB), trunk)
    check_room(needed, dataclasses.replace(PLENTY, output=6 * GIB, trunk=4 * GIB), trunk)


def test_a_trunk_kept_in_memory_alone_must_stay_below_its_limit(needed, settings_for, bare_llama):
    settings = settings_for(bare_llama, trunk__folder=None, trunk__memory_gb=2.5)
    with pytest.raises(InputError, match=r"3\.00 GB for the trunk's activations, more than trunk\.memory_gb \(2\.5\)"):
        check_room(needed, PLENTY, settings.trunk)


def test_a_model_that_does_not_fit_is_refused_before_a_search(bare_llama, settings_for):
    check_model_room(settings_for(bare_llama).model, PLENTY)
    with pytest.raises(RefusedError, match=r"weights take .* GB, and 0\.00 GB of memory are free"):
        check_model_room(settings_for(bare_llama).model, dataclasses.replace(PLENTY, memory=1000))


def test_a_folder_that_is_no_model_is_named(tmp_path, settings_for):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="configuration of a causal language model"):
        estimate(settings_for(tmp_path), EDITS, "1:mlp")


def test_what_cannot_be_used_is_told_in_one_line(bare_llama, settings_for):
    with pytest.raises(InputError, match=r"model\.device 'nonsense' cannot be used"):
        estimate(settings_for(bare_llama, model__device="nonsense"), EDITS, "1:mlp")
    with pytest.raises(InputError, match="no edit to write"):
        estimate(settings_for(bare_llama), (), "1:mlp")
    with pytest.raises(InputError, match="layer 4 does not exist"):
        estimate(settings_for(bare_llama), EDITS, "4:mlp")


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    for name, text in (
        ("max", "5000"),
        ("current", "4000"),
        ("stat", "anon 3000\ninactive_file 600\nactive_file 400\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr("factpatch.models.memory.LIMITS", tmp_path)
    assert available("cpu", tmp_path, None).memory == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert available("cpu", tmp_path, None).memory > 5000


def test_the_machine_is_asked(tmp_path):
    import torch

    free = available("cpu", tmp_path / "not" / "there", tmp_path)
    assert free.memory > 0
    assert free.output > 0
    assert free.accelerator is free.trunk is None
    assert matrix_rate("cpu", torch.float32) > 1e8
    assert memory_rate("cpu") > 1e7


def test_memory_is_within_30_percent_of_what_an_edit_run_takes(reference_model, tmp_path):
    """The step itself, in a process of its own, whose peak the system reports."""
    rows = (reference_model.parents[1] / "data" / "edits" / "0001-demo.jsonl").read_text().splitlines()[:10]
    (tmp_path / "accepted.jsonl").write_text("\n".join(rows) + "\n")
    overrides = {"model.path": str(reference_model), "localization.location": "4:mlp", "training.epochs": 2}
    overrides |= {"training.preservation.prompts": None, "trunk.folder": str(tmp_path / "trunk")}
    code = (
        "import json, sys\n"
        "from factpatch.settings.config import load_settings\n"
        "from tasks.edit import edit\n"
        "edit.fn(sys.argv[1], load_settings(None, json.loads(sys.argv[2])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), json.dumps(overrides)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "4:mlp has 0.44 M of 4.89 M parameters" in done.stderr
    result = json.loads((tmp_path / "edit.json").read_text())
    assert 0.7 < result["preflight"]["memory_bytes"] / result["measured"]["memory_bytes"] < 1.3


def _ids(tokenizer, edit: EditRequest) -> tuple[int, ...]:
    from factpatch.models.encoding import encode_edit

    return encode_edit(tokenizer, edit.prompt, edit.target).ids


@pytest.mark.parametrize("method", ["ultraedit", "memit", "alphaedit"])
def test_methods_of_others_are_estimated_and_refused_from_configuration_and_tokenizer(bare_llama, settings_for, method):
    settings = settings_for(bare_llama, training__method=method, training__options__chunk=1)
    found = estimate(settings, EDITS, "1-2:down")
    assert found.memory_bytes > found.weights_bytes
    assert found.seconds > 0
    assert found.checkpoint_bytes == 0
    if method != "ultraedit":
        with pytest.raises(InputError, match=f"training method '{method}' writes into the MLP's output projection"):
            estimate(settings, EDITS, "1-2:up")
