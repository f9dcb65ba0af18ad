"""Record forward passes into the arrays of a Capture.

While a block runs, its x, a and m are held by reference.  When resid_post passes, they become a few
numbers per token and are let go.  On CUDA the numbers of a batch travel to main memory while later
blocks compute, and are put in place while the next batch runs: a copy at the end would cost a few
per cent.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gainlens.activations.batches import Batch
from gainlens.activations.gram import block_numbers, token_slices
from gainlens.activations.heads import UNEXPLAINED, HeadNumbers, project_heads
from gainlens.activations.subspaces import visible_share
from gainlens.core.vocabulary import GRAM_COLUMNS, TOP_COMPONENTS
from gainlens.models.decoders import AttentionOut
from gainlens.models.hooks import reading
from gainlens.models.loaded import BLOCK_SITES, ModelSites, Reader, Site
from gainlens.models.processes import gathered
from gainlens.records.capture import Capture
from gainlens.records.inputs import EncodedPrompts

Subspaces = tuple[Tensor, Tensor]
"""Orthonormal bases [d_model, k] of W_U's top and bottom right singular subspace."""
_BLOCKS_AT_ONCE = 8
"""Blocks whose numbers are put in place together, as soon as they have reached main memory."""
_SITE_OF_COLUMN = dict(zip(("xx", "aa", "mm", "yy"), BLOCK_SITES, strict=True))


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


class _Places:
    """Locate the tokens of a batch: in its padded rows, and on the token axis of a Capture."""

    def __init__(self, batch: Batch, starts: np.ndarray) -> None:
        lengths = batch.lengths.numpy()
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
        self._sites, self._prompts = sites, prompts
        self._subspaces, self._extra = subspaces, dict(extra or {})
        self._wants_patterns, self._wants_heads = patterns, heads
        lengths = [len(tokens) for tokens in prompts.tokens]
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        num_tokens, rank = int(self._starts[-1]), min(TOP_COMPONENTS, sites.d_model)
        grid = sites.num_blocks, num_tokens
        self._by_token: dict[str, Tensor] = {
            "columns": torch.empty(len(GRAM_COLUMNS) + rank, *grid),
            "top_index": torch.empty(rank, *grid, dtype=torch.int32),
            "normed": torch.empty(num_tokens),
        }
        for name in self._extra:
            self._by_token[f"extra {name}"] = torch.empty(*grid, dtype=torch.float64)
        self._sink: Tensor | None = None
        self._recorded: list[int] = []
        self._pending: _Pending | None = None
        self._begin(None)

    def _begin(self, batch: Batch | None) -> None:
        """Forget the running batch."""
        self._batch = batch
        self._places = None if batch is None else _Places(batch, self._starts)
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
        self._exchange()
        lengths = [len(tokens) for tokens in self._prompts.tokens]
        arrays = {name: array.numpy() for name, array in self._by_token.items()}
        columns = arrays["columns"]
        shares, heads = arrays.get("shares"), arrays.get("heads")
        return Capture(
            prompt=np.repeat(np.arange(len(lengths)), lengths),
            position=np.concatenate([np.arange(length) for length in lengths]),
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
            extra={name: arrays[f"extra {name}"] for name in self._extra},
        )

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
        assert self._places is not None
        source = self._places.source
        rows = BlockRows(
            *(tensor.flatten(0, 1)[source.to(tensor.device)] for tensor in padded),
            block=block,
            prompt=torch.from_numpy(self._places.prompt),
            position=torch.from_numpy(self._places.position),
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

    def _collected(self) -> "_Pending":
        """Gather the numbers of the batch that has run, on their way to main memory."""
        assert self._batch is not None
        assert self._places is not None
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
        return _Pending(
            self._batch,
            self._places,
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
        if pending is None:
            return
        places, finite = pending.places, True
        for first in range(0, self._sites.num_blocks, _BLOCKS_AT_ONCE):
            blocks = slice(first, first + _BLOCKS_AT_ONCE)
            packed = torch.stack([wait() for wait in pending.blocks[blocks]], dim=1)
            finite = finite and bool(torch.isfinite(packed).all())
            columns, top_index = self._by_token["columns"], self._by_token["top_index"]
            places.put(columns[:, blocks], packed[: len(columns)])
            places.put(top_index[:, blocks], packed[len(columns) :])
        if not finite:
            self._refuse_non_finite(pending.batch)
        for name, wait in pending.padded.items():
            padded = wait()
            if name not in self._by_token:
                shape = *padded.shape[:-2], int(self._starts[-1])
                self._by_token[name] = torch.empty(shape, dtype=padded.dtype)
            places.put(self._by_token[name], padded)
        for name, wait in pending.extras.items():
            self._by_token[f"extra {name}"][:, places.target] = wait().double()
        if pending.sink is not None:
            sink = pending.sink()  # [block, batch, head]
            if self._sink is None:
                shape = (len(sink), sink.shape[2], len(self._prompts.tokens))
                self._sink = torch.empty(shape)
            self._sink[:, :, list(pending.batch.index)] = sink.swapaxes(1, 2)
        self._recorded += pending.batch.index

    def _exchange(self) -> None:
        """Give the other processes what this one recorded, and take what they did."""
        arrays = dict(self._by_token)

        def part(name: str, prompt: int) -> Tensor:
            return arrays[name][..., self._starts[prompt] : self._starts[prompt + 1]]

        mine = {
            prompt: (
                {name: part(name, prompt) for name in arrays},
                None if self._sink is None else self._sink[..., prompt],
            )
            for prompt in self._recorded
        }
        for prompt, (parts, sink) in gathered(mine).items():
            if prompt in mine:
                continue
            for name, values in parts.items():
                if name not in arrays:
                    shape = (*values.shape[:-1], int(self._starts[-1]))
                    arrays[name] = self._by_token[name] = torch.empty(shape, dtype=values.dtype)
                part(name, prompt).copy_(values)
            if sink is not None:
                if self._sink is None:
                    self._sink = torch.empty(*sink.shape, len(self._prompts.tokens))
                self._sink[..., prompt] = sink

    def _refuse_non_finite(self, batch: Batch) -> None:
        """Name the first site, in the order of computation, whose activation is not finite."""
        for prompt in sorted(batch.index):
            tokens = slice(self._starts[prompt], self._starts[prompt + 1])
            for block in range(self._sites.num_blocks):
                for column, site in _SITE_OF_COLUMN.items():
                    values = self._by_token["columns"][GRAM_COLUMNS.index(column), block, tokens]
                    bad = ~torch.isfinite(values)
                    if bad.any():
                        raise ValueError(
                            f"blocks.{block}.{site} is not finite at position "
                            f"{int(bad.int().argmax())} of prompt {self._prompts.ids[prompt]!r}: "
                            "float16 overflows beyond 65,504, so measure in bfloat16 or float32 "
                            "(--dtype bfloat16); in those the weights themselves are broken"
                        )


@dataclass(frozen=True)
class _Pending:
    """The numbers of a batch on their way to main memory; each function waits for its tensor."""

    batch: Batch
    places: _Places
    blocks: list[Callable[[], Tensor]]
    """per block [number, batch, token]"""
    padded: Mapping[str, Callable[[], Tensor]]
    """[..., batch, token]"""
    extras: Mapping[str, Callable[[], Tensor]]
    """[block, token], without padding"""
    sink: Callable[[], Tensor] | None
    """[block, batch, head]"""


def to_main_memory(tensor: Tensor) -> Callable[[], Tensor]:
    """Start a copy to main memory and return a function that waits for it.

    A CPU's tensor is its own copy.  Pinned memory comes from torch's cache: the device copies by
    itself, and no page is new.
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
    """Stack blocks, on the CPU if they lie on several devices."""
    if len({tensor.device for tensor in per_block}) > 1:
        per_block = [tensor.cpu() for tensor in per_block]
    return torch.stack(per_block)
