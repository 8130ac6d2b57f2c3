"""When memory runs out, the micro-batch halves and the run goes on to the same result; too large an edit is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# A vocabulary of 60,000 makes logits that dwarf the model: about 1 MB a position with what the loss needs of them.
CODE = """
import json, resource
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from factpatch.config import TrunkSettings
from factpatch.encoding import Encoded
from factpatch.errors import RefusedError
from factpatch.models import LoadedModel
from factpatch.structure import locate
from factpatch.training.breadth_first import check
from factpatch.training.masters import masters_of
from factpatch.training.revisits import Revisits
from factpatch.training.steps import Stepper
from factpatch.trunk import open_rows

class Tokenizer:
    eos_token_id = 0

torch.set_num_threads(1)
torch.manual_seed(1)
sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
model = AutoModelForCausalLM.from_config(
    AutoConfig.for_model("llama", vocab_size=60_000, tie_word_embeddings=True, initializer_range=0.3, **sizes)
).eval().requires_grad_(False)
loaded = LoadedModel(model, Tokenizer(), "tiny", torch.float32)

def train(tokens, place, room=None):
    rows = [Encoded(tuple(range(5 + number, 9 + number + tokens)), 4) for number in range(32)]
    location = locate(model, place)
    trunk = TrunkSettings(folder=None)
    with open_rows(loaded, location, rows, trunk) as opened, masters_of(model, location) as masters:
        stepper, losses, revisits = Stepper(opened, masters, 1e-3, None), [], Revisits.start(32, 0.9)
        if room:
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + room * 2**20, resource.RLIM_INFINITY))
        try:
            for _ in range(2):
                loss, hardest = stepper.gradients(list(range(32)))
                stepper.step()
                losses.append(loss)
            check(stepper, 32, revisits, 0)
        except RefusedError as error:
            return {"refused": str(error)}
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        weights = [float(tensor.double().sum()) for tensor in masters.tensors]
        return {"micro": stepper.micro, "engine": opened.engine, "losses": losses, "weights": weights,
                "hardest": hardest.tolist(), "checked": revisits.hardest_N.tolist()}

print(json.dumps({
    "packed": [train(3, "1:mlp"), train(3, "1:mlp", room=50)],
    "padded": [train(3, "0:mlp"), train(3, "0:mlp", room=50)],
    "single": train(100, "1:mlp", room=25),
}))
"""


@pytest.fixture(scope="module")
def found():
    """What runs with and without a limit gave; the limit is `room` MB more than the process holds."""
    own = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed is free at once
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("engine", ["packed", "padded"])
def test_the_micro_batch_halves_and_the_result_stays(found, engine):
    free, tight = found[engine]
    assert (free["micro"], free["engine"], tight["engine"]) == (None, engine, engine)
    assert tight["micro"] in (2, 4, 8, 16)
    for part in ("losses", "weights", "hardest", "checked"):
        assert tight[part] == pytest.approx(free[part], rel=1e-4, abs=1e-4)


def test_a_single_edit_that_does_not_fit_is_refused_in_one_line(found):
    refused = found["single"]["refused"]
    assert "memory runs out with a single edit in a batch" in refused
    assert "\n" not in refused
