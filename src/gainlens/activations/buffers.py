"""Numbers of every block, batch by batch -> the arrays of a Capture, allocated once.

On CUDA each block's numbers are on their way to main memory while the next blocks compute, and are
put in their place there while the last ones do: a copy at the end would cost a few per cent.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from gainlens.activations.gram import BlockNumbers
from gainlens.core.vocabulary import GRAM_COLUMNS, TOP_COMPONENTS
from gainlens.models.processes import gathered


class Collector:
    """Arrays of a Capture over all prompts, filled in any order of prompts."""

    def __init__(self, lengths: Sequence[int], num_blocks: int, d_model: int) -> None:
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
        tokens, rank = self._starts[-1], min(TOP_COMPONENTS, d_model)
        self.gram = np.empty((len(GRAM_COLUMNS), num_blocks, tokens), np.float32)
        self.top_value = np.empty((num_blocks, tokens, rank), np.float32)
        self.top_index = np.empty((num_blocks, tokens, rank), np.int32)
        self._coming: dict[int, Callable[[], Tensor]] = {}

    def put(self, block: int, numbers: BlockNumbers) -> None:
        """Take one block of the running batch, [batch, token, ...], without waiting for it."""
        self._coming[block] = to_main_memory(numbers.packed)

    @property
    def blocks(self) -> set[int]:
        """Blocks of the running batch that have been seen."""
        return set(self._coming)

    def drop(self) -> None:
        """Forget the running batch."""
        self._coming.clear()

    def finish(self, index: Sequence[int], lengths: Sequence[int]) -> bool:
        """Put the running batch's rows in the place of their prompts, padding cut off.

        index: which prompts, one a row; lengths: their tokens.  Returns whether every column is
        finite, padding included.
        """
        finite = True
        for block, wait in self._coming.items():
            numbers = BlockNumbers(wait())
            finite = finite and bool(np.isfinite(numbers.packed.numpy()).all())
            for row, (prompt, length) in enumerate(zip(index, lengths, strict=True)):
                place = slice(self._starts[prompt], self._starts[prompt] + length)
                _into(self.gram[:, block, place].T, numbers.gram[row, :length])
                _into(self.top_value[block, place], numbers.top_value[row, :length])
                _into(self.top_index[block, place], numbers.top_index[row, :length])
        self.drop()
        return finite

    def exchange(self, own: Iterable[int]) -> None:
        """Where processes work together: give the others one's own prompts, and take theirs."""
        mine = {prompt: self._part(prompt) for prompt in own}
        for prompt, parts in gathered(mine).items():
            if prompt not in mine:
                for place, part in zip(self._part(prompt), parts, strict=True):
                    place[...] = part

    def _part(self, prompt: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Views of one prompt's place in each array."""
        place = slice(self._starts[prompt], self._starts[prompt + 1])
        return self.gram[:, :, place], self.top_value[:, place], self.top_index[:, place]

    def gram_of(self, prompt: int) -> np.ndarray:
        """One prompt's columns [column, block, token]."""
        return self._part(prompt)[0]


def to_main_memory(tensor: Tensor) -> Callable[[], Tensor]:
    """Start a copy to main memory; what is returned waits for it.  A CPU's tensor is its own copy.

    Pinned memory comes from torch's cache: the device copies by itself, and no page is new.
    """
    if not tensor.is_cuda:
        return tensor.cpu
    with torch.cuda.device_of(tensor):
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        done = torch.cuda.Event()
        done.record()

    def wait() -> Tensor:
        done.synchronize()
        return host

    return wait


def _into(place: np.ndarray, part: Tensor) -> None:
    """Copy and convert with torch's threads; numpy has one."""
    torch.from_numpy(place).copy_(part)
