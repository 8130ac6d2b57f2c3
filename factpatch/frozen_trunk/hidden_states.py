"""The hidden states of all rows between two blocks of a streamed model: in memory, or in a file for each block.

A pass writes the batches of a block one after the other and reads them so for the next one. A file is there once all of
it is, so that a pass that was killed goes on with the block that it was at.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch

from factpatch.errors import InputError
from factpatch.files import GIB, new_file

Shape = tuple[int, int, int]  # rows, positions, width


@dataclass
class HiddenStates:
    """Where the hidden states of batches lie; `folder` and `name` are of the files, None if they lie in memory."""

    folder: Path | None = None
    name: str = ""
    _held: list[torch.Tensor] = field(default_factory=list)

    def last(self, shapes: Sequence[Shape], dtype: torch.dtype) -> int:
        """The block whose input an earlier pass left whole; 0 if it left none."""
        if self.folder is None:
            return 0
        size = sum(rows * positions * width for rows, positions, width in shapes) * dtype.itemsize
        whole = [path for path in self.folder.glob(f"{self.name}.*.hidden") if path.stat().st_size == size]
        return max((int(path.suffixes[0][1:]) for path in whole), default=0)

    def read(self, layer: int, shapes: Sequence[Shape], dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The input of a block, batch by batch."""
        if self.folder is None:
            for place in range(len(shapes)):
                yield self._held[place]
            return
        with self._path(layer).open("rb") as file:
            for shape in shapes:
                value = torch.empty(shape, dtype=dtype)
                if file.readinto(value.view(-1).view(torch.uint8).numpy().data) < value.nbytes:
                    raise InputError(f"'{file.name}' became shorter while it was read; remove it, and run again")
                yield value

    @contextmanager
    def writing(self, layer: int) -> Iterator[HiddenWriter]:
        """What takes the input of a block, batch by batch; that of the block below is let go of at the end."""
        writer = HiddenWriter(self)
        if self.folder is None:
            yield writer
            return
        try:
            with new_file(self._path(layer)) as temporary, temporary.open("wb") as file:
                writer.file = file
                yield writer
        except OSError as error:
            free = shutil.disk_usage(self.folder).free / GIB
            raise InputError(
                f"the trunk cache '{self.folder}' cannot take the hidden states of block {layer} ({error}; {free:.2f} "
                "GB are free); make room or name another trunk.folder, and run again: what is done is kept"
            ) from error
        self._path(layer - 1).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove them all."""
        self._held.clear()
        if self.folder is not None:
            for path in self.folder.glob(f"{self.name}.*.hidden"):
                path.unlink(missing_ok=True)

    def _path(self, layer: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.name}.{layer}.hidden"


@dataclass
class HiddenWriter:
    """Takes hidden states one batch after the other."""

    states: HiddenStates
    file: BinaryIO | None = None
    place: int = 0

    def take(self, value: torch.Tensor) -> None:
        """The next batch's."""
        value = value.cpu()
        if self.file is not None:
            self.file.write(value.contiguous().view(-1).view(torch.uint8).numpy().data)
        elif self.place < len(self.states._held):
            self.states._held[self.place] = value
        else:
            self.states._held.append(value)
        self.place += 1
