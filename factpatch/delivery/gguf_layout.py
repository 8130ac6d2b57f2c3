"""Where the parameters of a model stand in a GGUF file, and in which order their numbers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from factpatch.delivery.gguf_rewrite import read_encoded
from factpatch.delivery.quantizing import dequantize
from factpatch.errors import InputError
from factpatch.models.loading import LoadedModel
from factpatch.models.sources.header import Header, Tensor, read_gguf_header

# How far a tensor may be from the base model's, as a share of its norm, by the least bits that its type has a value.
NEARNESS = ((16, 0.01), (8, 0.02), (6, 0.05), (5, 0.08), (4, 0.17), (3, 0.3), (0, 0.6))


class GGUFLayout:
    """A GGUF file beside the base model that it holds a form of.

    `tensors` gives for each parameter of the model the tensor of the file. Which number stands where is found by
    sending the numbers of the places through transformers' own reader, so it holds for every family that it reads.
    """

    def __init__(self, file: Path, loaded: LoadedModel) -> None:
        self.file = file
        self.header: Header = read_gguf_header(file)
        self._model, self._source = loaded.model, loaded.source
        architecture = self.header.architecture
        config = self._model.config.get_text_config()
        self._processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=config.to_dict())
        try:
            names = get_gguf_hf_weights_map(self._model, self._processor, architecture, config.num_hidden_layers)
        except NotImplementedError as error:
            raise InputError(f"'{file}' is of architecture '{architecture}', which gguf does not know") from error
        held = {tensor.name: tensor for tensor in self.header.tensors}
        self.tensors = {own: held[name] for name, own in names.items() if name in held}

    def find(self, parameter: str) -> Tensor:
        """The tensor that a parameter is in the file; InputError if there is none of its shape, as in a file of another
        model."""
        tensor = self.tensors.get(parameter)
        if tensor is None:
            raise InputError(
                f"'{self.file}' is of another model than '{self._source}': it has no tensor for '{parameter}'"
            )
        self._order(parameter, tensor)
        return tensor

    def to_file(self, parameter: str, value: torch.Tensor) -> np.ndarray:
        """A parameter's values in the file's order and shape, as float32."""
        tensor = self.find(parameter)
        order = self._order(parameter, tensor)
        own = value.detach().float().cpu().numpy()
        if order is None:
            return own
        values = np.empty(tensor.values, dtype=np.float32)
        values[order.reshape(-1)] = own.reshape(-1)
        return values.reshape(tensor.shape)

    def from_file(self, parameter: str, values: np.ndarray) -> torch.Tensor:
        """Values in the file's order as the model has them."""
        order = self._order(parameter, self.find(parameter))
        return torch.tensor(values if order is None else values.reshape(-1)[order], dtype=torch.float32)

    def read(self, parameter: str) -> np.ndarray:
        """What the file holds for a parameter, in its own order, dequantized."""
        tensor = self.find(parameter)
        return dequantize(read_encoded(self.file, self.header, tensor), tensor.type)

    def refuse_other_model(self) -> None:
        """InputError unless every matrix of the model that the file holds is the file's, but for what its type rounds
        away."""
        state = self._model.state_dict()
        for parameter, tensor in self.tensors.items():
            if len(tensor.shape) < 2 or tensor.values != state[parameter].numel():
                continue
            own = state[parameter].float().cpu()
            share = float(torch.linalg.vector_norm(self.from_file(parameter, self.read(parameter)) - own))
            share /= float(torch.linalg.vector_norm(own)) or 1.0
            if share > nearness(tensor.type):
                raise InputError(
                    f"'{self.file}' is of another model than '{self._source}': its {tensor.name} ({tensor.type.name}) "
                    f"differs by {share:.0%} of its norm, and rounding explains {nearness(tensor.type):.0%}"
                )

    def _order(self, parameter: str, tensor: Tensor) -> np.ndarray | None:
        """For each number of a parameter, its place in the file's tensor; None where both have one order."""
        shape = tuple(self._model.get_parameter(parameter).shape)
        probe = np.broadcast_to(np.int64(0), tensor.shape)  # takes no memory
        if tensor.shape == shape and self._processed(probe, tensor) is probe:
            return None
        found = self._processed(np.arange(tensor.values, dtype=np.int64).reshape(tensor.shape), tensor)
        if found is None or found.shape != shape:
            raise InputError(
                f"'{self.file}' is of another model than '{self._source}': {tensor.name} has shape "
                f"{list(tensor.shape)}, and '{parameter}' {list(shape)}"
            )
        return found

    def _processed(self, values: np.ndarray, tensor: Tensor) -> np.ndarray | None:
        """What transformers' reader makes of a tensor's values; None where it parts or joins tensors."""
        found: Any = self._processor.process(values, tensor.name, tensor_key_mapping={}, parsed_parameters={}).weights
        return found


def nearness(kind: gguf.GGMLQuantizationType) -> float:
    """How far values of a type may be from those that it was made of, as a share of their norm."""
    block, width = gguf.GGML_QUANT_SIZES[kind]
    return next(share for bits, share in NEARNESS if width * 8 / block >= bits)
