"""Collect the numbers of batch after batch in arrays whose last axis is every token.

On CUDA the numbers of a batch travel to main memory while later blocks compute, and are put in
place while the next batch runs: one copy at the end would cost a few per cent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gainlens.activations.batches import Batch
from gainlens.core.vocabulary import GRAM_COLUMNS, TOP_COMPONENTS
from gainlens.models.loaded import BLOCK_SITES, ModelSites
from gainlens.models.processes import gathered
from gainlens.records.capture import Capture
from gainlens.records.inputs import EncodedPrompts

_BLOCKS_AT_ONCE = 8
"""Blocks whose numbers are put in place together, as soon as they have reached main memory."""
_SITE_OF_COLUMN = dict(zip(("xx", "aa", "mm", "yy"), BLOCK_SITES, strict=True))


class BatchTokens:
    """Locate the tokens of a batch: in its padded rows, and on the token axis of a Capture."""

    def __init__(self, batch: Batch, starts: np.ndarray) -> None:
        lengths = batch.lengths.numpy()
        self.prompts = batch.index
        self.prompt = np.repeat(np.asarray(batch.index), lengths)
        row = np.repeat(np.arange(len(lengths)), lengths)
        first = np.cumsum(lengths) - lengths
        self.position = np.arange(len(row)) - np.repeat(first, lengths)
        self.source = torch.from_numpy(row * batch.tokens.shape[1] + self.position)
        """index into [row * position]"""
        self.target = torch.from_numpy(starts[self.prompt] + self.position)
        """index into [token]"""

    def put(self, array: Tensor, padded: Tensor) -> None:
        """Copy [..., row, position] into [..., token], in one step."""
        flat = padded.flatten(-2)
        array.index_copy_(-1, self.target, flat.index_select(-1, self.source).to(array.dtype))


@dataclass(frozen=True)
class BatchNumbers:
    """The numbers of a batch on their way to main memory; each function waits for its tensor."""

    tokens: BatchTokens
    blocks: list[Callable[[], Tensor]]
    """per block [number, batch, token], as BlockNumbers packs them"""
    padded: Mapping[str, Callable[[], Tensor]]
    """[..., batch, token]"""
    extras: Mapping[str, Callable[[], Tensor]]
    """[block, token], without padding"""
    sink: Callable[[], Tensor] | None
    """[block, batch, head]"""


def to_main_memory(tensor: Tensor) -> Callable[[], Tensor]:
    """Start a copy to main memory and return a function that waits for it.

    A tensor on the CPU is returned as it is.  From CUDA it is copied into pinned memory, which
    torch caches: the device then copies on its own while it computes.
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


class TokenArrays:
    """Hold the numbers of every token of some prompts, filled batch by batch.

    Args:
        sites: of the model.
        prompts: token ids; every batch holds some of them.
        extra: names of further columns.
    """

    def __init__(self, sites: ModelSites, prompts: EncodedPrompts, extra: Sequence[str]) -> None:
        self._prompts, self._num_blocks = prompts, sites.num_blocks
        self._lengths = [len(tokens) for tokens in prompts.tokens]
        self.starts = np.concatenate([[0], np.cumsum(self._lengths)])
        """index of each prompt's first token, and the number of tokens"""
        num_tokens, rank = int(self.starts[-1]), min(TOP_COMPONENTS, sites.d_model)
        grid = sites.num_blocks, num_tokens
        self._columns = torch.empty(len(GRAM_COLUMNS) + rank, *grid)
        self._top_index = torch.empty(rank, *grid, dtype=torch.int32)
        self._by_token = {"columns": self._columns, "top_index": self._top_index}
        self._extra = {name: torch.empty(*grid, dtype=torch.float64) for name in extra}
        self._by_token |= {f"extra {name}": values for name, values in self._extra.items()}
        self._sink: Tensor | None = None
        self._recorded: list[int] = []

    def put(self, numbers: BatchNumbers) -> None:
        """Put the numbers of one batch in place.

        Raises ValueError, with the first site, if an activation of the batch is not finite.
        """
        tokens, finite = numbers.tokens, True
        for first in range(0, self._num_blocks, _BLOCKS_AT_ONCE):
            blocks = slice(first, first + _BLOCKS_AT_ONCE)
            packed = torch.stack([wait() for wait in numbers.blocks[blocks]], dim=1)
            finite = finite and bool(torch.isfinite(packed).all())
            tokens.put(self._columns[:, blocks], packed[: len(self._columns)])
            tokens.put(self._top_index[:, blocks], packed[len(self._columns) :])
        if not finite:
            self._refuse_non_finite(tokens.prompts)
        for name, wait in numbers.padded.items():
            padded = wait()
            tokens.put(self._array(name, padded.shape[:-2], padded.dtype), padded)
        for name, wait in numbers.extras.items():
            self._extra[name][:, tokens.target] = wait().double()
        if numbers.sink is not None:
            sink = numbers.sink().swapaxes(1, 2)  # [block, head, batch]
            self._sink_like(sink[..., 0])[:, :, list(tokens.prompts)] = sink
        self._recorded += tokens.prompts

    def _array(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return the array [*shape, token] of this name, made at its first use."""
        if name not in self._by_token:
            self._by_token[name] = torch.empty(*shape, int(self.starts[-1]), dtype=dtype)
        return self._by_token[name]

    def _sink_like(self, sink: Tensor) -> Tensor:
        """Return the sinks [block, head, prompt], made at their first use."""
        if self._sink is None:
            self._sink = torch.empty(*sink.shape, len(self._lengths))
        return self._sink

    def exchange(self) -> None:
        """Give the other processes what this one recorded, and take what they did."""
        mine = {
            prompt: (
                {name: self._part(array, prompt) for name, array in self._by_token.items()},
                None if self._sink is None else self._sink[..., prompt],
            )
            for prompt in self._recorded
        }
        for prompt, (parts, sink) in gathered(mine).items():
            if prompt in mine:
                continue
            for name, values in parts.items():
                array = self._array(name, values.shape[:-1], values.dtype)
                self._part(array, prompt).copy_(values)
            if sink is not None:
                self._sink_like(sink)[..., prompt] = sink

    def _part(self, array: Tensor, prompt: int) -> Tensor:
        return array[..., self.starts[prompt] : self.starts[prompt + 1]]

    def capture(self) -> Capture:
        """Return the arrays as a Capture."""
        arrays = {name: array.numpy() for name, array in self._by_token.items()}
        columns = arrays["columns"]
        shares, heads = arrays.get("shares"), arrays.get("heads")
        return Capture(
            prompt=np.repeat(np.arange(len(self._lengths)), self._lengths),
            position=np.concatenate([np.arange(length) for length in self._lengths]),
            token_id=np.concatenate(self._prompts.tokens),
            prefix=self._prompts.prefix,
            gram=columns[: len(GRAM_COLUMNS)],
            top_value=np.moveaxis(columns[len(GRAM_COLUMNS) :], 0, -1),
            top_index=np.moveaxis(arrays["top_index"], 0, -1),
            normed=arrays["normed"].astype(np.float64),
            visible=None if shares is None else shares[0].astype(np.float64),
            null=None if shares is None else shares[1].astype(np.float64),
            sink=None if self._sink is None else self._sink.double().numpy(),
            heads=None if heads is None else heads.astype(np.float64),
            extra={name: values.numpy() for name, values in self._extra.items()},
        )

    def _refuse_non_finite(self, prompts: Sequence[int]) -> None:
        """Name the first site, in the order of computation, whose activation is not finite."""
        for prompt in sorted(prompts):
            for block in range(self._num_blocks):
                for column, site in _SITE_OF_COLUMN.items():
                    values = self._part(self._columns[GRAM_COLUMNS.index(column), block], prompt)
                    bad = ~torch.isfinite(values)
                    if bad.any():
                        raise ValueError(
                            f"blocks.{block}.{site} is not finite at position "
                            f"{int(bad.int().argmax())} of prompt {self._prompts.ids[prompt]!r}: "
                            "float16 overflows beyond 65,504, so measure in bfloat16 or float32 "
                            "(--dtype bfloat16); in those the weights themselves are broken"
                        )
