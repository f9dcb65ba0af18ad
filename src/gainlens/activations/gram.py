"""The Gram kernel: the four vectors of a block -> nine numbers a token, and its top components.

At each block a token leaves behind the inner products of x = resid_pre, a = attn_out and
m = mlp_out, the squared norms of y = resid_post, x + a and x + m, and the largest components of y.
Everything else that gainlens says of a block is algebra on these numbers (gain.py).
"""

import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from gainlens.core.vocabulary import GRAM_COLUMNS, TOP_COMPONENTS

CHUNK_ELEMENTS = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Elements worked on at a time.  Products of 512 KiB in float32 stay in a CPU's cache: measured; a
GPU wants few launches, and 64 MiB are nothing beside one activation of a long prompt."""

_COLUMNS = len(GRAM_COLUMNS)


@dataclass(frozen=True)
class BlockNumbers:
    """Hold the numbers of one block and every token in one tensor: one transfer takes it all."""

    packed: Float32[Tensor, "number *batch token"]
    """columns, then top values, then their dimensions (float32 holds integers to 2^24)"""

    @property
    def gram(self) -> Float32[Tensor, "*batch token column"]:
        """In the order of axes.GRAM_COLUMNS; squared L2 norm."""
        return self.packed[:_COLUMNS].movedim(0, -1)

    @property
    def top_value(self) -> Float32[Tensor, "*batch token rank"]:
        """The largest |components| of resid_post with their sign, largest first."""
        return self.packed[_COLUMNS : (_COLUMNS + len(self.packed)) // 2].movedim(0, -1)

    @property
    def top_index(self) -> Float32[Tensor, "*batch token rank"]:
        """Their dimensions in d_model, whole numbers."""
        return self.packed[(_COLUMNS + len(self.packed)) // 2 :].movedim(0, -1)


def block_numbers(
    x: Float[Tensor, "*batch token d_model"],
    a: Float[Tensor, "*batch token d_model"],
    m: Float[Tensor, "*batch token d_model"],
    y: Float[Tensor, "*batch token d_model"],
) -> BlockNumbers:
    """Everything that is kept of one block, from one pass over its four activations on CUDA.

    Shapes: four activations [..., token, d_model] of any floating dtype; accumulated in float32.
    Where blocks lie on several devices, the work is done where the block's output is.
    """
    x, a, m = (tensor.to(y.device) for tensor in (x, a, m))
    if kernel_name(y.device.type) != "triton":
        parts = (gram_columns(x, a, m, y), *top_components(y))
        return BlockNumbers(torch.cat([part.movedim(-1, 0) for part in parts]))
    *batch, d_model = y.shape
    rows = (tensor.reshape(-1, d_model) for tensor in (x, a, m, y))
    packed = _fused()(*rows, _COLUMNS, min(TOP_COMPONENTS, d_model))
    return BlockNumbers(packed.reshape(len(packed), *batch))


def kernel_name(device_type: str) -> str:
    """Name the kernel that a type of device uses: triton on cuda, else torch.

    Warns, once, where triton cannot be imported on CUDA: plain torch gives the same numbers there
    from several passes over the activations.
    """
    return "triton" if device_type == "cuda" and _fused() is not None else "torch"


@cache
def _fused() -> Any:
    try:
        return import_module("gainlens.activations.gram_cuda").fused
    except ImportError as error:
        warnings.warn(
            f"triton cannot be imported ({error}), so the Gram kernel runs in plain torch, which "
            "costs more time a block; install the triton that torch's CUDA build asks for",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def gram_columns(
    x: Float[Tensor, "*batch token d_model"],
    a: Float[Tensor, "*batch token d_model"],
    m: Float[Tensor, "*batch token d_model"],
    y: Float[Tensor, "*batch token d_model"],
) -> Float[Tensor, "*batch token column"]:
    """Inner products of one block in plain torch, in the order of axes.GRAM_COLUMNS.

    Shapes: four activations [..., token, d_model] of any floating dtype -> [..., token, 9],
    float32, accumulated in float32; units: squared L2 norm.  Work is done in slices of tokens, so
    that the temporary copies do not grow with the prompt.
    """
    shape = x.shape
    flat = [tensor.reshape(-1, shape[-1]) for tensor in (x, a, m, y)]
    out = torch.empty(len(GRAM_COLUMNS), len(flat[0]), dtype=torch.float32, device=x.device)
    for part in token_slices(flat[0]):
        for column, product in zip(out, _products(*(t[part].float() for t in flat)), strict=True):
            column[part] = product
    return out.reshape(len(out), *shape[:-1]).movedim(0, -1)


def _products(x: Tensor, a: Tensor, m: Tensor, y: Tensor) -> list[Tensor]:
    """Products and sums, not norms: torch adds up in pairs here, ten times as exact at 4,096."""
    pairs = ((x, x), (a, a), (m, m), (x, a), (x, m), (a, m), (y, y))
    columns = [(left * right).sum(dim=-1) for left, right in pairs]
    return columns + [total.square().sum(dim=-1) for total in (x + a, x + m)]


def top_components(
    y: Float[Tensor, "*batch token d_model"],
) -> tuple[Float[Tensor, "*batch token rank"], Int[Tensor, "*batch token rank"]]:
    """The largest |components| of a stream with their sign, largest first, and their dimensions.

    Shape: [..., token, d_model] -> two of [..., token, min(4, d_model)], in plain torch; in slices
    of tokens, as the columns.
    """
    rank = min(TOP_COMPONENTS, y.shape[-1])
    flat = y.reshape(-1, y.shape[-1])
    index = torch.empty(len(flat), rank, dtype=torch.int64, device=y.device)
    for part in token_slices(flat):
        index[part] = flat[part].abs().topk(rank, dim=-1).indices
    index = index.reshape(*y.shape[:-1], rank)
    return y.gather(-1, index).float(), index


def token_slices(tensor: Tensor) -> list[slice]:
    """Slices of the first axis of [token, d_model] small enough for the device."""
    elements = CHUNK_ELEMENTS.get(tensor.device.type, CHUNK_ELEMENTS["cuda"])
    step = max(1, elements // tensor.shape[-1])
    return [slice(start, start + step) for start in range(0, len(tensor), step)]
