"""Where a model's tensors lie: all in memory, or a streamed model's in its files until they are needed.

A streamed model is an ordinary one of transformers whose decoder blocks have no values (they are on torch's meta
device). What lies outside of the blocks is in memory. A block that runs is read from the files, the next one on a
thread meanwhile, and let go of behind it. The functions here do nothing with a model that is in memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from factpatch.errors import InputError
from factpatch.files import GIB
from factpatch.models.checkpoints.folder import Checkpoint
from factpatch.models.checkpoints.mapping import StoredParameters
from factpatch.models.checkpoints.tensors import file_digests, number_type, tensor_digest
from factpatch.models.locations import decoder_blocks
from factpatch.models.lock_step import in_lock_step, running_pass
from factpatch.models.memory import free_memory
from factpatch.settings.config import AUTO, ModelSettings

STREAM = "_block_stream"  # attribute of a streamed model
PASS_TOKENS = 64  # of a row that passes in lock-step, at most as a rule: what is kept for it in memory hangs on them
PASS_SHARE = 0.25  # of the free memory that such passes may hold together

Found = TypeVar("Found")
Tensors = Mapping[str, torch.Tensor]


log = logging.getLogger(__name__)


def is_streamed(settings: ModelSettings, checkpoint: Checkpoint) -> bool:
    """Whether a model is to be streamed: as the settings say, or for `auto` where its weights do not fit in memory,
    which is told."""
    if settings.placement != AUTO:
        return settings.placement == "stream"
    numbers = sum(math.prod(entry.shape) for entry in checkpoint.tensors.values())
    weights, room = numbers * getattr(torch, settings.dtype).itemsize, free_memory(settings.device)
    if weights > room:
        log.warning(
            "model '%s': its weights take %.2f GB, and %.2f GB of memory are free; so model.placement is 'stream', "
            "which reads them from the files block by block",
            settings.path,
            weights / GIB,
            room / GIB,
        )
    return weights > room


class BlockStream:
    """The decoder blocks of a streamed model, read from its files when they run.

    `bytes_read` counts what was read of parameters so far, as they lie in memory.
    """

    def __init__(self, stored: StoredParameters, device: torch.device) -> None:
        self.model, self.device, self.bytes_read = stored.model, device, 0
        self._stored = stored
        stack, blocks = decoder_blocks(stored.model)
        self._empty = dict(stored.model.named_parameters(remove_duplicate=False))
        same: dict[int, list[str]] = {}
        for name, parameter in self._empty.items():
            same.setdefault(id(parameter), []).append(name)
        self._aliases = {name: same[id(parameter)] for name, parameter in self._empty.items()}
        self.blocks = [
            tuple(f"{stack}.{index}.{name}" for name, _ in block.named_parameters())
            for index, block in enumerate(blocks)
        ]
        inside = {name for names in self.blocks for name in names}
        self.outside = tuple(name for name in stored.groups if name in self._empty and name not in inside)
        self._reader = ThreadPoolExecutor(1, "blocks")
        self._coming: tuple[int, Future[Tensors]] | None = None
        self._digests: dict[str, str] = {}
        for index, block in enumerate(blocks):
            vars(block)["forward"] = self._streamed(index, block)

    def empty(self, name: str) -> torch.Tensor:
        """A parameter without its values."""
        return self._empty[name]

    def absent(self, names: Sequence[str]) -> list[str]:
        """Those of the parameters that are not in memory."""
        return [name for name in names if self.model.get_parameter(name).is_meta]

    def fill(self, names: Sequence[str]) -> list[str]:
        """Bring parameters into memory that are not there; which these were."""
        absent = self.absent(names)
        self._put(self._read(absent))
        return absent

    def clear(self, names: Sequence[str]) -> None:
        """Let go of parameters; the files have their values."""
        self._put({name: self._empty[name] for name in names})

    @contextmanager
    def block(self, index: int, ahead: int | None = None) -> Iterator[None]:
        """The parameters of a block are in memory meanwhile; those of the block `ahead` are being read."""
        absent = self.absent(self.blocks[index])
        values = self._take(index) if absent else {}
        self._put({name: values[name] for name in absent if name in values})
        self._put(self._read(self.absent(absent)))
        del values
        if ahead is not None and (names := self.absent(self.blocks[ahead])):
            self._coming = ahead, self._reader.submit(self._read, names)
        try:
            yield
        finally:
            self.clear(absent)

    def side_by_side(self, works: Sequence[Callable[[], Found]]) -> list[Found]:
        """What each piece of work gives; their passes through the model go in lock-step."""
        count = len(self.blocks)
        try:
            return in_lock_step(works, count, lambda index: self.block(index, (index + 1) % count))
        finally:
            self._coming = None  # read ahead for a token that there is not

    def rows_at_once(self) -> int:
        """Rows whose passes may go in lock-step: as many as find room with the keys and values of their tokens."""
        config = self.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        each = PASS_TOKENS * (2 * len(self.blocks) * width + 4 * config.hidden_size) * self.model.dtype.itemsize
        return max(1, int(PASS_SHARE * free_memory(str(self.device)) / each))

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """The digest of each parameter as it would be in memory; files are hashed once, in small pieces."""
        groups, entries = self._stored.groups, self._stored.checkpoint.tensors
        hashed = file_digests(self._stored.checkpoint)
        for name in names:
            if name in self._digests:
                continue
            group = groups[self._known_as(name)]
            same = group.converter is None and number_type(entries[group.tensors[0]]) == self._empty[name].dtype
            self._digests[name] = (
                hashed[group.tensors[0]] if same else tensor_digest(self._stored.read([self._known_as(name)])[name])
            )
        return {name: self._digests[name] for name in names}

    def _known_as(self, name: str) -> str:
        """The name under which the files have a parameter that may have several."""
        return next(other for other in (name, *self._aliases[name]) if other in self._stored.groups)

    def _streamed(self, index: int, block: nn.Module) -> Callable[..., Any]:
        """The block's forward function, which has it read first."""
        plain = block.forward
        ahead = index + 1 if index + 1 < len(self.blocks) else None

        @wraps(plain)
        def forward(*inputs: Any, **options: Any) -> Any:
            if not self.absent(self.blocks[index]):
                return plain(*inputs, **options)
            if own := running_pass():
                own.wait_for(index)
                return plain(*inputs, **options)
            with self.block(index, ahead):
                return plain(*inputs, **options)

        return forward

    def _take(self, index: int) -> Tensors:
        """What was read ahead of a block; nothing if another one was."""
        coming, self._coming = self._coming, None
        return coming[1].result() if coming and coming[0] == index else {}

    def _read(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        values = self._stored.read([self._known_as(name) for name in names]) if names else {}
        self.bytes_read += sum(value.nbytes for value in values.values())
        return {name: values[self._known_as(name)].to(self.device) for name in names}

    def _put(self, values: Tensors) -> None:
        """Have the model's modules hold other tensors."""
        for name, value in values.items():
            parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
            for alias in self._aliases[name]:
                owner, _, leaf = alias.rpartition(".")
                self.model.get_submodule(owner)._parameters[leaf] = parameter


def stream_blocks(stored: StoredParameters, device: torch.device) -> None:
    """Make a model that has no values yet a streamed one: what lies outside of its blocks is read now."""
    try:
        stream = BlockStream(stored, device)
    except InputError as error:
        raise InputError(
            f"{error}; model.placement 'stream' reads a model block by block, so load this one with 'memory'"
        ) from error
    stream.fill(stream.outside)
    for name, value in stored.read([name for name in stored.groups if name not in stream._empty]).items():
        owner, _, leaf = name.rpartition(".")
        stored.model.get_submodule(owner)._buffers[leaf] = value.to(device)
    vars(stored.model)[STREAM] = stream


def stream_of(model: PreTrainedModel) -> BlockStream | None:
    """The blocks of a streamed model; None for one that is in memory."""
    found: BlockStream | None = vars(model).get(STREAM)
    return found


@contextmanager
def held(model: PreTrainedModel, names: Sequence[str]) -> Iterator[None]:
    """The named parameters are in memory while the block lasts."""
    stream = stream_of(model)
    if stream is None:
        yield
        return
    absent = stream.fill(names)
    try:
        yield
    finally:
        stream.clear(absent)


def hold(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Bring the named parameters into memory, for good."""
    if stream := stream_of(model):
        stream.fill(names)


@contextmanager
def held_from(model: PreTrainedModel, layer: int) -> Iterator[None]:
    """The blocks from a layer up are in memory while the block lasts, and the embeddings are not, unless the output
    matrix is one with them: whoever runs the model's upper part gives it what the layer reads."""
    stream = stream_of(model)
    if stream is None:
        yield
        return
    upper = [name for names in stream.blocks[layer:] for name in names]
    with held(model, upper), _without_embeddings(stream):
        yield


@contextmanager
def _without_embeddings(stream: BlockStream) -> Iterator[None]:
    """Zeros that take no memory stand in for the embeddings."""
    inputs, outputs = stream.model.get_input_embeddings(), stream.model.get_output_embeddings()
    weight = getattr(inputs, "weight", None)
    if weight is None or outputs is None or weight is getattr(outputs, "weight", None):
        yield
        return
    name = next(name for name, parameter in stream.model.named_parameters() if parameter is weight)
    stream._put({name: torch.zeros((), dtype=weight.dtype, device=weight.device).expand(weight.shape)})
    del weight
    try:
        yield
    finally:
        stream.clear([name])
        stream.fill([name])
