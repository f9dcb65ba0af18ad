"""Record forward passes into the arrays of a Capture.

While a block runs, its x, a and m are held by reference.  When resid_post passes, they become a few
numbers per token and are let go.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gainlens.activations.batches import Batch
from gainlens.activations.gram import block_numbers, token_slices
from gainlens.activations.heads import UNEXPLAINED, HeadNumbers, project_heads
from gainlens.activations.subspaces import visible_share
from gainlens.activations.token_arrays import (
    BatchNumbers,
    BatchTokens,
    TokenArrays,
    to_main_memory,
)
from gainlens.models.decoders import AttentionOut
from gainlens.models.hooks import reading
from gainlens.models.loaded import BLOCK_SITES, ModelSites, Reader, Site
from gainlens.records.capture import Capture
from gainlens.records.inputs import EncodedPrompts

Subspaces = tuple[Tensor, Tensor]
"""Orthonormal bases [d_model, k] of W_U's top and bottom right singular subspace."""


@dataclass(frozen=True)
class BlockRows:
    """One block's activations at the tokens of one batch, without padding."""

    x: Tensor
    """what enters the block, [token, d_model]"""
    a: Tensor
    """what attention adds, [token, d_model]"""
    m: Tensor
    """what the MLP adds, [token, d_model]"""
    y: Tensor
    """what leaves the block, [token, d_model]"""
    block: int
    prompt: Tensor
    """index of each token's prompt, [token]"""
    position: Tensor
    """position of each token in its prompt, [token]"""


Extra = Mapping[str, Callable[[BlockRows], Any]]
"""Name of a column -> function that returns one number per token, [token]."""


class CaptureRecorder:
    """Record batch after batch within `hooks()`, then take `capture()`.

    Args:
        sites: of the model.
        prompts: token ids; every batch holds some of them.
        subspaces: add what of the last block's writes lies in each.
        patterns: add the attention weight on position 0, if the model has hook_pattern.
        heads: add the projections of every head's write.
        extra: further columns, by name.
    """

    def __init__(
        self,
        sites: ModelSites,
        prompts: EncodedPrompts,
        *,
        subspaces: Subspaces | None = None,
        patterns: bool = False,
        heads: bool = False,
        extra: Extra | None = None,
    ) -> None:
        self._sites = sites
        self._subspaces, self._extra = subspaces, dict(extra or {})
        self._wants_patterns, self._wants_heads = patterns, heads
        self._arrays = TokenArrays(sites, prompts, list(self._extra))
        self._pending: BatchNumbers | None = None
        self._begin(None)

    def _begin(self, batch: Batch | None) -> None:
        """Forget the batch before, and start on this one."""
        self._batch = batch
        self._tokens = None if batch is None else BatchTokens(batch, self._arrays.starts)
        self._open: dict[str, Tensor] = {}
        self._z: tuple[Tensor, AttentionOut] | None = None
        self._coming: dict[int, Callable[[], Tensor]] = {}
        self._patterns: dict[int, Tensor] = {}
        self._heads: dict[int, HeadNumbers] = {}
        self._extras: dict[str, dict[int, Tensor]] = {name: {} for name in self._extra}
        self._normed: Tensor | None = None
        self._shares: Tensor | None = None

    @contextmanager
    def hooks(self) -> Generator[None]:
        """Read the model's sites for as long as the context is open."""
        readers: list[tuple[Site, Reader]] = []
        for block in range(self._sites.num_blocks):
            for name in BLOCK_SITES:
                site = self._sites.site(f"blocks.{block}.{name}")
                readers.append((site, partial(self._take, block, name)))
            pattern = self._sites.sites.get(f"blocks.{block}.attn.hook_pattern")
            if self._wants_patterns and pattern is not None:
                readers.append((pattern, partial(self._take_pattern, block)))
            if self._wants_heads:
                z = self._sites.site(f"blocks.{block}.attn.hook_z")
                out = self._sites.attention_out(block)
                readers.append((z, partial(self._take_z, out)))
        with torch.no_grad(), reading(readers):
            yield

    def record(self, batch: Batch) -> None:
        """Run one batch and record it.

        Raises RuntimeError if a site did not fire, ValueError if an activation of this batch or
        the one before is not finite.
        """
        self._begin(batch)
        self._sites.run(batch.tokens)
        self._check()
        pending = self._collected()
        self._begin(None)
        self._flush()
        self._pending = pending

    def capture(self) -> Capture:
        """Return what all processes have recorded."""
        self._flush()
        self._arrays.exchange()
        return self._arrays.capture()

    def _take(self, block: int, name: str, tensor: Tensor) -> None:
        if name != "hook_resid_post":
            self._open[name] = tensor
            return
        if len(self._open) < len(BLOCK_SITES) - 1:
            raise RuntimeError(self._silent(block))
        x, a, m = (self._open[site] for site in BLOCK_SITES[:3])
        self._coming[block] = to_main_memory(block_numbers(x, a, m, tensor).packed)
        if block == self._sites.num_blocks - 1:
            self._normed = _normed(self._sites.final_norm, tensor)
            self._shares = None if self._subspaces is None else _shares(a, m, self._subspaces)
        if self._z is not None:
            z, out = self._z
            self._heads[block] = project_heads(z, x, a, tensor, out)
            self._z = None
        if self._extra:
            self._take_extra(block, x, a, m, tensor)
        self._open.clear()

    def _take_extra(self, block: int, *padded: Tensor) -> None:
        assert self._tokens is not None
        source = self._tokens.source
        rows = BlockRows(
            *(tensor.flatten(0, 1)[source.to(tensor.device)] for tensor in padded),
            block=block,
            prompt=torch.from_numpy(self._tokens.prompt),
            position=torch.from_numpy(self._tokens.position),
        )
        for name, function in self._extra.items():
            values = torch.as_tensor(function(rows))
            if values.shape != source.shape:
                raise ValueError(
                    f"extra column {name!r} returned shape {tuple(values.shape)} at block {block}; "
                    f"needed is {tuple(source.shape)}, one number per token"
                )
            if not torch.isfinite(values).all():
                raise ValueError(
                    f"extra column {name!r} returned a value that is not finite at block {block}"
                )
            self._extras[name][block] = values

    def _take_z(self, out: AttentionOut, z: Tensor) -> None:
        self._z = z, out

    def _take_pattern(self, block: int, pattern: Tensor) -> None:
        """Average the attention on position 0 over each prompt's later queries, [batch, head]."""
        assert self._batch is not None
        lengths = self._batch.lengths
        on_first = pattern[..., 1:, 0].float()
        query = torch.arange(1, pattern.shape[-2], device=pattern.device)
        real = (query[None, :] < lengths[:, None].to(pattern.device))[:, None, :]
        total = torch.where(real, on_first, 0.0).sum(-1)
        self._patterns[block] = total / (lengths - 1).to(total)[:, None]

    def _silent(self, block: int) -> str:
        silent = [name for name in BLOCK_SITES[:3] if name not in self._open]
        return (
            f"no activation passed at {', '.join(f'blocks.{block}.{name}' for name in silent)}: "
            f"this {self._sites.kind} model does not run its block through these sites. Another "
            "back end may (--backend hooked, bridge or native)"
        )

    def _check(self) -> None:
        """Raise if a block, or its heads, did not pass, or if heads do not add up to attention."""
        for block in range(self._sites.num_blocks):
            if block not in self._coming:
                raise RuntimeError(self._silent(block))
            if not self._wants_heads:
                continue
            if block not in self._heads:
                raise RuntimeError(
                    f"no activation passed at blocks.{block}.attn.hook_z, so this "
                    f"{self._sites.kind} model's heads cannot be told apart: capture without heads"
                )
            missed = float(self._heads[block].unexplained.max())
            if not missed <= UNEXPLAINED:
                raise ValueError(
                    f"the heads of block {block} do not add up to hook_attn_out (they miss it by "
                    f"{missed:.2g} of the norms): an intervention replaced it, or this model does "
                    "more between the two. Capture without heads"
                )

    def _collected(self) -> BatchNumbers:
        """Gather the numbers of the batch that has run, on their way to main memory."""
        assert self._tokens is not None
        assert self._normed is not None
        padded: dict[str, Callable[[], Tensor]] = {"normed": to_main_memory(self._normed)}
        if self._shares is not None:
            padded["shares"] = to_main_memory(self._shares)
        if self._heads:
            blocks = sorted(self._heads)
            columns = [self._heads[block].columns.movedim(1, -1) for block in blocks]
            # [block, batch, head, column, token] -> [block, head, column, batch, token]
            padded["heads"] = to_main_memory(_stacked(columns).movedim(1, -2))
        sink = [self._patterns[block] for block in sorted(self._patterns)]
        return BatchNumbers(
            self._tokens,
            [self._coming[block] for block in range(self._sites.num_blocks)],
            padded,
            {
                name: to_main_memory(_stacked([values[block] for block in sorted(values)]))
                for name, values in self._extras.items()
            },
            to_main_memory(_stacked(sink)) if sink else None,
        )

    def _flush(self) -> None:
        """Put the numbers of the batch before in place."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self._arrays.put(pending)


def _normed(final_norm: nn.Module, y: Tensor) -> Tensor:
    """Return |ln_final(y)|, [batch, token], computed in slices of tokens."""
    flat = y.reshape(-1, y.shape[-1])
    pieces = [final_norm(flat[None, part])[0].float().norm(dim=-1) for part in token_slices(flat)]
    return torch.cat(pieces).reshape(y.shape[:-1])


def _shares(a: Tensor, m: Tensor, subspaces: Subspaces) -> Tensor:
    """Return each write's share of squared norm in each subspace, [subspace, component, batch,
    token]."""
    return torch.stack(
        [torch.stack([visible_share(write, basis) for write in (a, m)]) for basis in subspaces]
    )


def _stacked(per_block: list[Tensor]) -> Tensor:
    """Stack the tensors of all blocks, on the CPU if they lie on several devices."""
    if len({tensor.device for tensor in per_block}) > 1:
        per_block = [tensor.cpu() for tensor in per_block]
    return torch.stack(per_block)
