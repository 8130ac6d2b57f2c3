"""When memory runs out, batches halve and the run goes on to the same result; too large a row is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from factpatch.models.batches import in_batches, within_memory

ROOT = Path(__file__).parents[3]
# A vocabulary of 60,000 makes logits that dwarf the model: about 1 MB a position with what the loss needs of them.
CODE = """
import json, resource, sys
from dataclasses import replace
from pathlib import Path
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from factpatch.patches.certificate import output_digest
from factpatch.models.checkpoints.folder import Checkpoint
from factpatch.models.checkpoints.mapping import StoredParameters
from factpatch.settings.config import TrunkSettings
from factpatch.models.encoding import Encoded
from factpatch.errors import RefusedError
from factpatch.evaluation.generation import decode, verify
from factpatch.models.forward import collate, target_logits
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import locate
from factpatch.methods.breadth_first.run import review_all
from factpatch.methods.preservation import PreservationTerm
from factpatch.methods.master_weights import masters_of
from factpatch.methods.breadth_first.review_schedule import ReviewSchedule
from factpatch.methods.optimizer import Stepper
from factpatch.frozen_trunk import open_rows
from factpatch.frozen_trunk.opening import make_plan
from factpatch.frozen_trunk.capture import capture

torch.set_num_threads(1)
torch.manual_seed(1)
sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
model = AutoModelForCausalLM.from_config(
    AutoConfig.for_model("llama", vocab_size=60_000, tie_word_embeddings=True, initializer_range=0.3, **sizes)
).eval().requires_grad_(False)
model.get_input_embeddings().weight[384:] = 0  # tied: of these the tokenizer knows none, and none is ever likely
in_no_file = StoredParameters(model, Checkpoint(Path(), {}), {})
loaded = LoadedModel(model, AutoTokenizer.from_pretrained(sys.argv[1]), "tiny", in_no_file)
TRUNK = TrunkSettings(folder=None)
passes = []
model.model.layers[0].register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))

def limit(room):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    most = used + room * 2**20 if room else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

def within(work, room=None):
    # what `work` gives, and the rows of its last pass
    limit(room)
    try:
        found = work()
    except RefusedError as error:
        found = str(error)
    finally:
        limit(None)
    return found, passes[-1] if passes else 0

def train(tokens, place, room=None):
    rows = [Encoded(tuple(range(5 + number, 9 + number + tokens)), 4) for number in range(32)]
    location = locate(model, place)
    with open_rows(loaded, location, rows, TRUNK) as opened, masters_of(model, location) as masters:
        stepper, losses, revisits = Stepper(opened, masters, 1e-3, None), [], ReviewSchedule.start(32, 0.9)

        def steps():
            for _ in range(2):
                loss, hardest = stepper.gradients(list(range(32)))
                stepper.step()
                losses.append(loss)
            review_all(stepper, revisits, 0)
            return hardest.tolist()

        hardest, _ = within(steps, room)
        weights = [float(tensor.double().sum()) for tensor in masters.tensors]
        return {"micro": stepper.micro, "engine": opened.engine, "losses": losses, "weights": weights,
                "hardest": hardest, "checked": revisits.hardest_N.tolist()}

rows = [Encoded(tuple(7 + (number + place * place) % 300 for place in range(40)), 20) for number in range(32)]
long = [Encoded(tuple(7 + (number + n * n) % 300 for n in range(498 + number % 2)), 490) for number in range(32)]
with torch.no_grad():  # every third row begins its answer as the model would
    first = target_logits(model, collate(rows, 0))[:, 0].argmax(-1).tolist()
rows = [replace(row, ids=(*row.ids[:20], first[number], *row.ids[21:])) if number % 3 == 0 else row
        for number, row in enumerate(rows)]
location = locate(model, "1:mlp")
plan = make_plan(loaded, location, long)

def captured():
    sites = capture(loaded, [plan], long)[0].shards[0]
    return torch.cat([tensor.double().sum(1) for tensor in sites.values()]).tolist()

def verified():
    with open_rows(loaded, None, rows, TRUNK) as opened:
        return [verdict.token_accuracy for verdict in verify(loaded, opened, 50, 32)]

def decoded():
    return [answer.text for answer in decode(loaded, [row.ids for row in long], 4, 32)]

def kept():
    with open_rows(loaded, None, rows, TRUNK) as opened, masters_of(model, location) as masters, torch.no_grad():
        term = PreservationTerm(opened, 0)
        masters.tensors[0].mul_(1.5)
        masters.write_back()
        losses = term.losses([0, 31], 1.0)[1].tolist()
        del passes[-3:]  # two to see that some tokens can be asked alone, and that of the losses
        return losses

print(json.dumps({
    "packed": [train(3, "1:mlp"), train(3, "1:mlp", room=50)],
    "padding-free": [train(3, "0:mlp"), train(3, "0:mlp", room=50)],
    "single": train(100, "1:mlp", room=25),
    "captured": [within(captured), within(captured, 25)],
    "verified": [within(verified), within(verified, 75)],
    "decoded": [within(decoded), within(decoded, 25)],
    "kept": [within(kept), within(kept, 250)],
    "digest": [within(lambda: output_digest(loaded, rows)), within(lambda: output_digest(loaded, rows), 75)],
}))
"""


@pytest.fixture(scope="module")
def found(tiny_model):
    """What runs with and without a limit gave; the limit is `room` MB more than the process holds."""
    own = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed is free at once
    done = subprocess.run(
        [sys.executable, "-c", CODE, tiny_model("llama")],
        cwd=ROOT,
        env=os.environ | own,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("engine", ["packed", "padding-free"])
def test_the_micro_batch_halves_and_the_result_stays(found, engine):
    free, tight = found[engine]
    assert (free["micro"], free["engine"], tight["engine"]) == (None, engine, engine)
    assert tight["micro"] in (2, 4, 8, 16)
    for part in ("losses", "weights", "hardest", "checked"):
        assert tight[part] == pytest.approx(free[part], rel=1e-4, abs=1e-4)


def test_a_single_edit_that_does_not_fit_is_refused_in_one_line(found):
    refused = found["single"]["hardest"]
    assert "memory runs out with a single row in a batch" in refused
    assert "\n" not in refused


@pytest.mark.parametrize("part", ["captured", "verified", "decoded", "kept", "digest"])
def test_other_passes_halve_too(found, part):
    (free, rows), (tight, halved) = found[part]
    assert (rows, halved in (2, 4, 8, 16)) == (16 if part == "captured" else 32, True)
    assert not isinstance(free, list) or len(set(free)) > 1
    assert tight == (pytest.approx(free, rel=1e-4, abs=1e-4) if part in ("captured", "kept") else free)


def fits(most, calls):
    """Work that has room for so many items."""

    def work(batch):
        calls.append(len(batch))
        if len(batch) > most:
            raise MemoryError
        return sum(batch)

    return work


def test_batches_stay_small_and_keep_their_order():
    calls = []
    parts = list(in_batches(fits(3, calls), range(20), 8))
    assert [item for batch, _ in parts for item in batch] == list(range(20))
    assert [total for _, total in parts] == [sum(batch) for batch, _ in parts]
    assert calls == [8, 4, 2, *[2] * 9]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="equal size"):
        within_memory(torch.stack, [torch.zeros(2), torch.zeros(3)])
