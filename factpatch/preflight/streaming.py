"""What a streamed model takes: memory while rows pass its blocks, memory in training, and bytes read from its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from factpatch.edits.request import EditRequest
from factpatch.files import GIB
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location, decoder_blocks
from factpatch.models.placement import stream_of
from factpatch.settings.config import Settings
from factpatch.training_data.protected_prompts import measured_prompts

BLOCKS_HELD = 2  # that run, and are being read
PROOF = 2  # whole passes that prove where the model is cut
OUTPUTS = 2  # whole passes that digest the edited outputs: as trained, and as the patch gives them
GROUPING, NEIGHBOURS, REWORDING, CANARIES = 20, 60, 40, 8  # whole passes that decode answers, about: for wordings that
# are compared, neighbours and texts of the model's own, wordings by the model itself, and canaries that are chosen


@dataclass(frozen=True)
class StreamedWeights:
    """Bytes of a model's parts: outside of the blocks, of it the embeddings that go while the upper part runs, blocks
    below the location, from there up, and the largest."""

    outside: int
    embeddings: int
    lower: int
    upper: int
    block: int

    @staticmethod
    def of(model: PreTrainedModel, location: Location, size: int) -> StreamedWeights:
        """Of a model without values, with numbers of so many bytes."""
        blocks = [_numbers(block) for block in decoder_blocks(model)[1]]
        inputs: Any = model.get_input_embeddings()
        outputs: Any = model.get_output_embeddings()
        untied = outputs is not None and inputs.weight is not outputs.weight
        return StreamedWeights(
            size * (_numbers(model) - sum(blocks)),
            size * inputs.weight.numel() if untied else 0,
            size * sum(blocks[: location.layer]),
            size * sum(blocks[location.layer :]),
            size * max(blocks),
        )

    @property
    def blocks(self) -> int:
        """All of them."""
        return self.lower + self.upper

    def passing(self, hidden: int) -> int:
        """Memory while rows pass block by block, with so much of their hidden states in memory."""
        return self.outside + BLOCKS_HELD * self.block + hidden

    @property
    def training(self) -> int:
        """Memory that weights take while the upper part is trained."""
        return self.outside - self.embeddings + self.upper

    def read(self, answer_passes: int) -> int:
        """Bytes read in an edit run: hashed once, loaded outside the blocks, and passes through blocks."""
        hashed, trunk = self.outside + self.blocks, self.lower + self.block
        proof = PROOF * self.blocks + trunk
        return hashed + self.outside + proof + trunk + self.upper + (OUTPUTS + answer_passes) * self.blocks


def answer_passes(settings: Settings, edits: int, at_once: int) -> int:
    """Whole passes that decode what the base model says, before rows can be trained beside the edits' own; `at_once`
    prompts go in lock-step, a token a pass."""
    augmentation, preservation = settings.training.augmentation, settings.training.preservation
    waves = -(-max(1, round(edits * max(1.0, preservation.neighbours))) // at_once)
    passes = CANARIES if settings.gates.canaries == "auto" else 0
    if augmentation.wordings or preservation.neighbours:
        passes += GROUPING * -(-edits // at_once)
    if augmentation.wordings:
        passes += REWORDING * -(-edits // at_once)
    if preservation.neighbours or preservation.prompts:
        passes += NEIGHBOURS * waves
    return passes


def tell_evaluation(loaded: LoadedModel, edits: Sequence[EditRequest], settings: Settings) -> str | None:
    """What an evaluation reads at most, in a line; None for a model that is in memory."""
    stream = stream_of(loaded.model)
    if stream is None:
        return None
    prompts = len({prompt for edit in edits for prompt in measured_prompts(edit)})
    waves = -(-prompts // stream.rows_at_once())
    passes = 2 * waves * (1 + settings.evaluation.max_new_tokens)  # before and after: guesses, then token by token
    size = sum(stream.empty(name).nbytes for names in stream.blocks for name in names)
    return (
        f"{prompts} prompts go through the streamed model a token a pass: at most {passes} passes, "
        f"{passes * size / GIB:.1f} GB to read; lower evaluation.max_new_tokens or edits.limit if that is too much"
    )


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
