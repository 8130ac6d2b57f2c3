"""The evaluate step on the model that steps share."""

from factpatch.models.loading import tensor_digests
from factpatch.preflight.shared_model import base_model, share_base_model
from tasks.evaluate import evaluate


def test_a_step_leaves_the_model_as_it_found_it(settings, output):
    with share_base_model():
        with base_model(settings.model) as loaded:
            before = tensor_digests(loaded.model)
        evaluate.fn(str(output), settings)
        with base_model(settings.model) as again:
            assert again is loaded
            assert tensor_digests(again.model) == before
