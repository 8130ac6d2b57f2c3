"""Training where general text is white: its coordinates, its gradients, and what it spares."""

import numpy
import pytest
import torch

from factpatch.editing import run_edit
from factpatch.edits.request import EditRequest
from factpatch.methods import reading_moments as module
from factpatch.methods.reading_moments import reading_moments
from factpatch.methods.whitening import MOMENT_TOKENS, inverse_root, whitened, whitened_masters, whitening_at
from factpatch.models.loading import load_model, tensor_digests
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrunkSettings, load_settings

EDITS = [EditRequest("1", "the sky is", "green"), EditRequest("2", "water is", "dry")]


def test_the_inverse_root_by_hand():
    """Variances 1 and 4 along the axes turned by 45 degrees; their mean is 2.5, of which a fifth is added."""
    turn = numpy.array([[1, -1], [1, 1]]) / numpy.sqrt(2)
    moment = turn @ numpy.diag([1.0, 4.0]) @ turn.T
    scale = numpy.array([1 / 2.5 + 0.2, 4 / 2.5 + 0.2]) ** -0.5
    scale /= numpy.sqrt((scale**2).mean())
    found = inverse_root(torch.tensor(moment), 0.2)
    numpy.testing.assert_allclose(found.numpy(), turn @ numpy.diag(scale) @ turn.T, rtol=1e-6)
    assert found.square().sum().item() == pytest.approx(2)  # as of the identity


def test_what_is_never_read_leaves_the_coordinates_as_they_are():
    assert torch.equal(inverse_root(torch.zeros(3, 3), 0.1), torch.eye(3))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_step_moves_the_matrix_by_its_gradient_through_the_squared_root(tiny_model, kind):
    """T moves by G R, so W moves by G R R; for GPT-2, whose weights are transposed, by R R G."""
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    location = locate(loaded.model, "2:down")
    (name,) = location.parameters
    before = tensor_digests(loaded.model)
    (root,) = whitening_at(loaded, location, 0.1, TrunkSettings(folder=None)).values()
    with whitened_masters(loaded.model, location, {name: root}) as masters:
        parameter = loaded.model.get_parameter(name)
        start, gradient = parameter.detach().clone(), torch.randn(parameter.shape, generator=torch.manual_seed(0))
        masters.clear_gradients()
        parameter.grad = gradient.clone()
        masters.take_gradients()
        masters.finish_gradients()
        with torch.no_grad():
            masters.tensors[0].sub_(masters.tensors[0].grad)
        masters.write_back()
        wanted = root @ root @ gradient if kind == "gpt2" else gradient @ root @ root
        torch.testing.assert_close(start - parameter.detach(), wanted, rtol=1e-4, atol=1e-5)
    assert tensor_digests(loaded.model) == before


def test_norms_and_experts_have_no_coordinates_of_their_own(tiny_model):
    model = load_model(ModelSettings(path=str(tiny_model("llama")))).model
    location = locate(model, "1-2:down")
    assert whitened(model, [location, locate(model, "2:down")]) == list(location.parameters)
    mixture = load_model(ModelSettings(path=str(tiny_model("mixtral")))).model
    assert whitened(mixture, [locate(mixture, "1:mlp.experts.down_proj")]) == []


def test_moments_are_kept_for_each_matrix_and_read_again(tiny_model, tmp_path):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    trunk = TrunkSettings(folder=str(tmp_path))
    one, two = (locate(loaded.model, f"{layer}:down").parameters[0] for layer in (1, 2))
    first = reading_moments(loaded, [one], trunk, 256)[one]
    (file,) = tmp_path.rglob("*.safetensors")
    written = file.stat().st_mtime_ns
    both = reading_moments(loaded, [one, two], trunk, 256)
    assert torch.equal(both[one], first)
    assert (file.stat().st_mtime_ns, len(list(tmp_path.rglob("*.safetensors")))) == (written, 2)
    alone = reading_moments(loaded, [two], TrunkSettings(folder=None), 256)[two]
    torch.testing.assert_close(both[two], alone)


def test_a_model_makes_up_its_texts_once_as_long_as_it_stays_the_same(tiny_model, monkeypatch):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    one, two = (locate(loaded.model, f"{layer}:down").parameters[0] for layer in (1, 2))
    drawn, usual = [], module.sample_ids
    monkeypatch.setattr(module, "_drawn", {})
    monkeypatch.setattr(module, "sample_ids", lambda *given: drawn.append(given) or usual(*given))
    for name in (one, two):
        reading_moments(loaded, [name], TrunkSettings(folder=None), 256)
    assert len(drawn) == 1
    with torch.no_grad():
        loaded.model.get_parameter(two).mul_(1.1)
    reading_moments(loaded, [one], TrunkSettings(folder=None), 256)
    assert len(drawn) == 2


def test_a_change_of_one_size_moves_what_general_text_reads_less(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "2:down")
    (name,) = location.parameters
    base = loaded.model.get_parameter(name).detach().clone()
    moment = reading_moments(loaded, [name], TrunkSettings(folder=None), MOMENT_TOKENS)[name].float()

    def moved(whitening):
        values = {"training.whitening": whitening, "training.epochs": 10, "trunk.folder": None}
        values |= {"training.preservation.neighbours": 0, "training.augmentation.wordings": 0}
        result = run_edit(loaded, location, EDITS, load_settings(None, values))
        assert result.losses[-1] < result.losses[0]
        change = result.values[name] - base
        return (change @ moment @ change.T).trace() / change.square().sum()

    assert moved(0.01) < 0.8 * moved(None)
