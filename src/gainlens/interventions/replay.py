"""Record a forward pass so that it can be resumed at any later block."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from gainlens.models.decoders import first_tensor, tensor_of, with_first
from gainlens.models.hooks import scoped
from gainlens.models.sites import ModelSites
from gainlens.records.inputs import EncodedPrompts

KEEP_BYTES: Final = 1 << 29
"""Streams that enter the last blocks are kept up to so many bytes; beyond, prompts run twice."""


def can_keep(prompts: EncodedPrompts, sites: ModelSites, first: int) -> bool:
    """Return whether the streams that enter the blocks from `first` on fit for all prompts."""
    tokens = sum(map(len, prompts.tokens))
    return 4 * tokens * sites.d_model * (sites.num_blocks - first) <= KEEP_BYTES


class Passage:
    """Run one batch, and keep the arguments with which each block from `first` on was called.

    A block can then be called again with its arguments (mask, rotary embeddings, positions) on
    another stream, on all three kinds of model.
    """

    def __init__(self, sites: ModelSites, tokens: Tensor, first: int) -> None:
        """Record nothing yet: `run` runs the pass, `recording` records one that is run within."""
        self._sites, self._tokens, self._first = sites, tokens, first
        self._embedding, self._blocks = sites.embedding, sites.blocks
        self._calls: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def run(self) -> "Passage":
        """Run the pass and record it."""
        with torch.no_grad(), self.recording():
            self._sites.run(self._tokens)
        return self

    def recording(self) -> AbstractContextManager[None]:
        """Record the pass of these tokens that is run within the context."""
        return scoped(
            [
                partial(
                    self._blocks[block].register_forward_pre_hook,
                    partial(self._record, block),
                    with_kwargs=True,
                    prepend=True,  # before hooks of the user's, which apply again on resuming
                )
                for block in range(self._first, self._sites.num_blocks)
            ]
        )

    def _record(
        self, block: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._calls[block] = args, kwargs

    def resume(self, first: int) -> None:
        """Run block `first` on the stream that entered it, then all later ones; hooks fire."""
        self._run(first, first_tensor(*self._calls[first]))

    def skip(self, block: int) -> Tensor:
        """Run the blocks after `block` on the stream that entered it, as if it wrote nothing.

        Returns what leaves the last block, [batch, position, d_model].
        """
        return self._run(block + 1, first_tensor(*self._calls[block]))

    def _run(self, first: int, stream: Tensor) -> Tensor:
        with torch.no_grad():
            self._embedding(self._tokens)  # hooks there learn which rows the later blocks run on
            for block in range(first, len(self._blocks)):
                args, kwargs = with_first(*self._calls[block], stream)
                stream = tensor_of(self._blocks[block](*args, **kwargs))
        return stream
