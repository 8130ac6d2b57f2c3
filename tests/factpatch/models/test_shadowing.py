"""What a module ran before it was shadowed, such as a hook of accelerate's, it runs again afterwards."""

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import nn

from factpatch.models.shadowing import shadowed


class Doubling(ModelHook):
    """Doubles what a module gives."""

    def post_forward(self, module, output):
        return 2 * output


def test_a_module_without_a_hook_runs_its_class_again():
    module = nn.Linear(2, 2)
    with shadowed(module, lambda value: value + 1):
        assert torch.equal(module(torch.zeros(2)), torch.ones(2))
    assert "forward" not in vars(module)


def test_a_hook_of_accelerate_stays():
    module = nn.Identity()
    add_hook_to_module(module, Doubling())
    with shadowed(module, lambda value: value + 1):
        with shadowed(module, lambda value: value - 1):
            assert module(torch.ones(1)) == 0
        assert module(torch.ones(1)) == 2
    assert module(torch.ones(1)) == 2
    with pytest.raises(ZeroDivisionError), shadowed(module, lambda value: value + 1):
        raise ZeroDivisionError
    assert module(3 * torch.ones(1)) == 6
