import math

import pytest
import torch

from factpatch.models.encoding import Encoded, encode_edit
from factpatch.models.forward import (
    Batch,
    Predictions,
    collate,
    edit_losses,
    flatten,
    hardest,
    hidden_before,
    target_logits,
    token_losses,
)
from factpatch.models.loading import load_model
from factpatch.models.locations import decoder_blocks
from factpatch.settings.config import ModelSettings


def test_collate_by_hand():
    batch = collate([Encoded((5, 6, 7, 0), 2), Encoded((8, 9, 0), 1), Encoded((4, 0), 1)], pad=0)
    assert batch.ids_BT.tolist() == [[5, 6, 7, 0], [0, 8, 9, 0], [0, 0, 4, 0]]
    assert batch.attention_BT.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 0, 1]]
    assert batch.target_BK.tolist() == [[7, 0], [9, 0], [4, 0]]
    assert batch.target_mask_BK.tolist() == [[True, True], [True, True], [False, True]]


def test_loss_by_hand():
    """Mean over an edit's own tokens, EOS included; what is masked has no say."""
    logits_BKV = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[0.999, 0.001], [0.5, 0.5]]]))
    batch = Batch(
        ids_BT=torch.zeros(2, 2),
        attention_BT=torch.ones(2, 2),
        positions_BT=torch.zeros(2, 2),
        target_BK=torch.tensor([[0, 1], [1, 0]]),
        target_mask_BK=torch.tensor([[True, True], [False, True]]),
    )
    predictions = flatten(logits_BKV, batch)
    assert predictions.row_P.tolist() == [0, 0, 1, 1]
    loss_P = token_losses(predictions)
    torch.testing.assert_close(loss_P, torch.tensor([math.log(2), math.log(4 / 3), 0.0, math.log(2)]))
    expected = [(math.log(2) + math.log(4 / 3)) / 2, math.log(2)]
    torch.testing.assert_close(edit_losses(predictions, loss_P), torch.tensor(expected))
    torch.testing.assert_close(hardest(predictions, loss_P), torch.tensor([math.log(2), math.log(2)]))


def test_packed_loss_by_hand():
    """Rows of different lengths one after the other, without padding."""
    predictions = Predictions(
        logits_PV=torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.125, 0.875]])),
        target_P=torch.tensor([0, 0, 1]),
        row_P=torch.tensor([0, 1, 1]),
        real_P=torch.ones(3, dtype=torch.bool),
        rows=2,
    )
    loss_P = token_losses(predictions)
    expected = [math.log(2), (math.log(4) + math.log(8 / 7)) / 2]
    torch.testing.assert_close(edit_losses(predictions, loss_P), torch.tensor(expected))
    torch.testing.assert_close(hardest(predictions, loss_P), torch.tensor([math.log(2), math.log(4)]))


def test_target_logits_are_those_of_a_plain_pass(tiny_model, kind):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    rows = [
        encode_edit(loaded.tokenizer, *pair) for pair in (("The capital of France is", "Paris"), ("Who?", "Robert C."))
    ]
    with torch.no_grad():
        batch = collate(rows, loaded.tokenizer.eos_token_id)
        logits_BKV = target_logits(loaded.model, batch)
        for row, logits_KV in zip(rows, logits_BKV, strict=True):
            plain_TV = loaded.model(torch.tensor([row.ids])).logits[0]
            wanted = plain_TV[row.prompt_length - 1 : -1]
            torch.testing.assert_close(logits_KV[-len(wanted) :], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layer", [0, 2])
def test_what_a_block_is_given_comes_from_a_pass_that_ends_there(tiny_model, kind, layer):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    ids_BT, mask_BT = torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    seen = []
    _, blocks = decoder_blocks(loaded.model)
    hook = blocks[-1].register_forward_hook(lambda *inputs: seen.append(True))
    found_BTW = hidden_before(loaded.model, layer, ids_BT, mask_BT)
    hook.remove()
    assert not seen
    with torch.no_grad():
        whole = loaded.model.base_model(ids_BT, attention_mask=mask_BT, output_hidden_states=True, use_cache=False)
    assert torch.equal(found_BTW[mask_BT.bool()], whole.hidden_states[layer][mask_BT.bool()])
