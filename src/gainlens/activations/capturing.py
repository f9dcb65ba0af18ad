"""Hooks -> Capture.  The last module that sees an activation of a whole forward pass.

While a block runs its x, a and m are held by reference; when resid_post passes, they become Gram
columns and are let go.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gainlens.activations.batches import Batch, batches
from gainlens.activations.buffers import Collector
from gainlens.activations.gram import block_numbers, token_slices
from gainlens.activations.heads import UNEXPLAINED, HeadNumbers, project_heads
from gainlens.activations.subspaces import visible_share
from gainlens.core.vocabulary import GRAM_COLUMNS
from gainlens.models.config import parallel_blocks
from gainlens.models.decoders import AttentionOut
from gainlens.models.encoding import Prompts, encode_for
from gainlens.models.hooks import reading
from gainlens.models.loaded import AnyModel, module_of
from gainlens.models.processes import gathered
from gainlens.models.sites import BLOCK_SITES, ModelSites, Reader, Site, kind_of, sites_of
from gainlens.records.capture import Capture
from gainlens.records.inputs import EncodedPrompts

Subspaces = tuple[Tensor, Tensor]
"""Orthonormal bases [d_model, k] of W_U's top and bottom right singular subspace."""


class _Pass:
    """Readers for forward passes over right-padded batches; holds one block's tensors."""

    def __init__(
        self, sites: ModelSites, collector: Collector, subspaces: Subspaces | None, heads: bool
    ) -> None:
        self._sites = sites
        self._collector = collector
        self._subspaces = subspaces
        self._wants_heads = heads
        self._open: dict[str, Tensor] = {}
        self._lengths = torch.empty(0)
        self.patterns: dict[int, Tensor] = {}
        self.heads: dict[int, HeadNumbers] = {}
        self._z: tuple[Tensor, AttentionOut] | None = None
        self.normed: Tensor | None = None
        self.shares: Tensor | None = None

    def begin(self, lengths: Tensor) -> None:
        """Before each batch: nothing of the last one stays."""
        self._lengths = lengths
        self._open.clear()
        self._collector.drop()
        self.patterns.clear()
        self.heads.clear()
        self._z = self.normed = self.shares = None

    def readers(self, patterns: bool) -> list[tuple[Site, Reader]]:
        """One reader a site; attention patterns [batch, head, query, key] and what each head reads
        out [batch, token, head, d_head] only where asked for."""
        found: list[tuple[Site, Reader]] = []
        for block in range(self._sites.num_blocks):
            for name in BLOCK_SITES:
                site = self._sites.site(f"blocks.{block}.{name}")
                found.append((site, partial(self._take, block, name)))
            pattern = self._sites.sites.get(f"blocks.{block}.attn.hook_pattern")
            if patterns and pattern is not None:
                found.append((pattern, partial(self._take_pattern, block)))
            if self._wants_heads:
                z = self._sites.site(f"blocks.{block}.attn.hook_z")
                out = self._sites.attention_out(block)
                found.append((z, partial(self._take_z, out)))
        return found

    def _take(self, block: int, name: str, tensor: Tensor) -> None:
        if name != "hook_resid_post":
            self._open[name] = tensor
            return
        if len(self._open) < len(BLOCK_SITES) - 1:
            raise RuntimeError(self._silent(block))
        x, a, m = (self._open[site] for site in BLOCK_SITES[:3])
        self._collector.put(block, block_numbers(x, a, m, tensor))
        if block == self._sites.num_blocks - 1:
            self.normed = _normed(self._sites.final_norm, tensor)
            self.shares = None if self._subspaces is None else _shares(a, m, self._subspaces)
        if self._z is not None:
            z, out = self._z
            self.heads[block] = project_heads(z, x, a, tensor, out)
            self._z = None
        self._open.clear()

    def _take_z(self, out: AttentionOut, z: Tensor) -> None:
        self._z = z, out

    def _take_pattern(self, block: int, pattern: Tensor) -> None:
        """Attention on position 0, mean over the prompt's own later queries: [batch, head]."""
        lengths = self._lengths
        on_first = pattern[..., 1:, 0].float()
        query = torch.arange(1, pattern.shape[-2], device=pattern.device)
        real = (query[None, :] < lengths[:, None].to(pattern.device))[:, None, :]
        total = torch.where(real, on_first, 0.0).sum(-1)
        self.patterns[block] = total / (lengths - 1).to(total)[:, None]

    def _silent(self, block: int) -> str:
        silent = [name for name in BLOCK_SITES[:3] if name not in self._open]
        return (
            f"no activation passed at {', '.join(f'blocks.{block}.{name}' for name in silent)}: "
            f"this {self._sites.kind} model does not run its block through these sites, so nothing "
            "can be said of its gain; another back end may (--backend hooked, bridge or native)"
        )

    def check(self) -> None:
        """Every block must have been seen, with its heads where they were asked for."""
        missing = sorted(set(range(self._sites.num_blocks)) - self._collector.blocks)
        if missing:
            raise RuntimeError(self._silent(missing[0]))
        if self._wants_heads:
            self._check_heads()

    def _check_heads(self) -> None:
        for block in range(self._sites.num_blocks):
            if block not in self.heads:
                raise RuntimeError(
                    f"no activation passed at blocks.{block}.attn.hook_z, so this "
                    f"{self._sites.kind} model's heads cannot be told apart: capture without heads"
                )
            missed = float(self.heads[block].unexplained.max())
            if not missed <= UNEXPLAINED:
                raise ValueError(
                    f"the heads of block {block} do not add up to hook_attn_out (they miss it by "
                    f"{missed:.2g} of the norms): an intervention replaced it, or this model does "
                    "more between the two; capture without heads"
                )


def _normed(final_norm: nn.Module, y: Tensor) -> Tensor:
    """|ln_final(y)|, [batch, token], in slices of tokens."""
    flat = y.reshape(-1, y.shape[-1])
    pieces = [final_norm(flat[None, part])[0].float().norm(dim=-1) for part in token_slices(flat)]
    return torch.cat(pieces).reshape(y.shape[:-1])


def _shares(a: Tensor, m: Tensor, subspaces: Subspaces) -> Tensor:
    """Share of each write's squared norm in each subspace: [subspace, component, batch, token]."""
    return torch.stack(
        [torch.stack([visible_share(write, basis) for write in (a, m)]) for basis in subspaces]
    )


def capture(
    model: AnyModel,
    prompts: Prompts,
    *,
    subspaces: Subspaces | None = None,
    patterns: bool = False,
    heads: bool = False,
    batch_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Capture:
    """Gram statistics of every token at every block; no activation outlives its block.

    Works on a HookedTransformer, a TransformerBridge or a Hugging Face causal LM, also on one that
    you loaded yourself; hooks of your own run first and none of ours stays behind.

    Args:
        model: from `load` or `wrap`, or a bare model.
        prompts: a text, a list of texts, token ids [batch, position], or what `encode_for` returns.
        subspaces: two orthonormal bases [d_model, k] of W_U (weights.unembed): adds what of the
            last block's writes W_U sees and what it hardly sees.
        patterns: add the attention weight on position 0, where the model has hook_pattern.
        heads: add every head's write, projected (`gainlens.head_split` makes nats of it), where the
            model has attn.hook_z and its W_O is known.
        batch_tokens: prompts of like length run together, right-padded, up to this many tokens
            (None: BATCH_TOKENS of the device);
            a causal model's real positions do not see the padding.
        progress: called with the number of prompts done since the last call.

    Raises ValueError where an activation is not finite (with the site), where the model cannot hold
    a prompt or memory runs out (with the setting to change); RuntimeError where a site did not
    fire.

    Examples:
        >>> captured.gram.shape  # column block token; squared L2 norms
        (9, 8, 35)
        >>> bool((captured.column("yy") > 0).all())
        True
    """
    prompts = encode_for(model, prompts)
    sites = sites_of(model)
    lengths = [len(tokens) for tokens in prompts.tokens]
    collector = Collector(lengths, sites.num_blocks, sites.d_model)
    one_pass = _Pass(sites, collector, subspaces, heads)
    pieces: dict[int, _Piece] = {}
    with torch.no_grad(), reading(one_pass.readers(patterns)):
        for batch in batches(model, prompts, sites.device, batch_tokens):
            one_pass.begin(batch.lengths)
            sites.run(batch.tokens)
            one_pass.check()
            if not collector.finish(batch.index, batch.lengths.tolist()):
                _refuse_non_finite(prompts, collector, batch)
            pieces.update(zip(batch.index, _pieces(one_pass, batch.lengths), strict=True))
            if progress is not None:
                progress(len(batch.index))
    collector.exchange(pieces)
    pieces = gathered(pieces)
    assembled = _assemble(prompts, collector, [pieces[index] for index in range(len(lengths))])
    return replace(assembled, parallel=_is_parallel(module_of(model)))


def _is_parallel(model: Any) -> bool:
    """Return True if attention and the MLP of a block both read its input."""
    if kind_of(model) == "hooked":
        return bool(model.cfg.parallel_attn_mlp)
    return parallel_blocks(getattr(model, "original_model", model).config.to_dict())


@dataclass(frozen=True)
class _Piece:
    """One prompt's other numbers, on the CPU, in float32."""

    normed: np.ndarray
    shares: np.ndarray | None
    sink: np.ndarray | None
    heads: np.ndarray | None


def _pieces(one_pass: _Pass, lengths: Tensor) -> list[_Piece]:
    """Per prompt, padding cut off; one transfer a kind of number and batch."""
    assert one_pass.normed is not None
    normed, shares = one_pass.normed, one_pass.shares
    patterns = [one_pass.patterns[block] for block in sorted(one_pass.patterns)]
    per_head = [one_pass.heads[block].columns.movedim(1, -1) for block in sorted(one_pass.heads)]
    normed = normed.cpu().numpy()
    shares = None if shares is None else shares.cpu().numpy()
    sink = _together(patterns) if patterns else None
    heads = _together(per_head) if per_head else None
    return [
        _Piece(
            normed=normed[row, :length],
            shares=None if shares is None else shares[:, :, row, :length],
            sink=None if sink is None else sink[:, row],
            heads=None if heads is None else heads[:, row, ..., :length],
        )
        for row, length in enumerate(lengths.tolist())
    ]


def _together(per_layer: list[Tensor]) -> np.ndarray:
    """One array of all layers, on the CPU; one transfer where they share a device."""
    devices = {tensor.device for tensor in per_layer}
    return (
        torch.stack(per_layer if len(devices) == 1 else [tensor.cpu() for tensor in per_layer])
        .cpu()
        .numpy()
    )


def _assemble(prompts: EncodedPrompts, collector: Collector, pieces: list[_Piece]) -> Capture:
    lengths = [len(tokens) for tokens in prompts.tokens]
    shares = [piece.shares for piece in pieces if piece.shares is not None]
    both = np.concatenate(shares, axis=-1, dtype=np.float64) if shares else None
    sinks = [piece.sink for piece in pieces if piece.sink is not None]
    heads = [piece.heads for piece in pieces if piece.heads is not None]
    return Capture(
        prompt=np.repeat(np.arange(len(lengths)), lengths),
        position=np.concatenate([np.arange(length) for length in lengths]),
        token_id=np.concatenate(prompts.tokens),
        gram=collector.gram,
        top_value=collector.top_value,
        top_index=collector.top_index,
        normed=np.concatenate([piece.normed for piece in pieces], dtype=np.float64),
        visible=None if both is None else both[0],
        null=None if both is None else both[1],
        sink=np.stack(sinks, axis=-1, dtype=np.float64) if sinks else None,
        heads=np.concatenate(heads, axis=-1, dtype=np.float64) if heads else None,
    )


_SITE_OF_COLUMN = {
    "xx": BLOCK_SITES[0],
    "aa": BLOCK_SITES[1],
    "mm": BLOCK_SITES[2],
    "yy": BLOCK_SITES[3],
}


def _refuse_non_finite(prompts: EncodedPrompts, collector: Collector, batch: Batch) -> None:
    """The first site, in the order of computation, whose activation is not finite."""
    for prompt in sorted(batch.index):
        gram = collector.gram_of(prompt)
        for block in range(gram.shape[1]):
            for column, site in _SITE_OF_COLUMN.items():
                bad = ~np.isfinite(gram[GRAM_COLUMNS.index(column), block])
                if bad.any():
                    raise ValueError(
                        f"blocks.{block}.{site} is not finite at position {int(np.argmax(bad))} of "
                        f"prompt {prompts.ids[prompt]!r}: float16 overflows beyond 65,504, so "
                        "measure in bfloat16 or float32 (--dtype bfloat16); in those the weights "
                        "themselves are broken"
                    )
