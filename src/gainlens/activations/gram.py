"""Reduce the four vectors of a block to nine numbers per token and the largest components.

Per block and token, the numbers are the inner products of x = resid_pre, a = attn_out and
m = mlp_out, the squared norms of y = resid_post, x + a and x + m, and the largest components of y.
Everything else that gainlens says of a block follows from them (`gainlens.metrics`).
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
"""Elements worked on at a time, by device type.  On a CPU, products of 512 KiB in float32 stay in
the cache (measured).  A GPU wants few launches, and 64 MiB are little beside one activation of a
long prompt."""

_COLUMNS = len(GRAM_COLUMNS)


@dataclass(frozen=True)
class BlockNumbers:
    """Hold the numbers of one block in one tensor, so that one copy moves them all."""

    packed: Float32[Tensor, "number *batch token"]
    """columns, then top values, then their dimensions (float32 holds integers to 2^24)"""

    @property
    def gram(self) -> Float32[Tensor, "*batch token column"]:
        """Return the inner products in the order of vocabulary.GRAM_COLUMNS; squared L2 norm."""
        return self.packed[:_COLUMNS].movedim(0, -1)

    @property
    def top_value(self) -> Float32[Tensor, "*batch token rank"]:
        """Return the largest |components| of resid_post with their sign, largest first."""
        return self.packed[_COLUMNS : (_COLUMNS + len(self.packed)) // 2].movedim(0, -1)

    @property
    def top_index(self) -> Float32[Tensor, "*batch token rank"]:
        """Return the dimensions of the top values in d_model, whole numbers."""
        return self.packed[(_COLUMNS + len(self.packed)) // 2 :].movedim(0, -1)


def block_numbers(
    x: Float[Tensor, "*batch token d_model"],
    a: Float[Tensor, "*batch token d_model"],
    m: Float[Tensor, "*batch token d_model"],
    y: Float[Tensor, "*batch token d_model"],
) -> BlockNumbers:
    """Return every number that is kept of one block.

    Takes four activations [..., token, d_model] of any floating dtype and accumulates in float32,
    on CUDA in one pass over them.  If they lie on several devices, they are moved to that of y.
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

    Warns once if triton cannot be imported on CUDA.  Plain torch then gives the same numbers from
    several passes over the activations.
    """
    return "triton" if device_type == "cuda" and _fused() is not None else "torch"


@cache
def _fused() -> Any:
    try:
        return import_module("gainlens.activations.gram_cuda").fused
    except ImportError as error:
        warnings.warn(
            f"triton cannot be imported ({error}), so the Gram kernel runs in plain torch, which "
            "costs more time per block; install the triton that torch's CUDA build asks for",
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
    """Return the inner products of one block in the order of vocabulary.GRAM_COLUMNS.

    Takes four activations [..., token, d_model] of any floating dtype; returns [..., token, 9],
    accumulated in float32, squared L2 norm.  Plain torch works on slices of tokens, so that its
    temporary copies do not grow with the prompt.
    """
    shape = x.shape
    flat = [tensor.reshape(-1, shape[-1]) for tensor in (x, a, m, y)]
    out = torch.empty(len(GRAM_COLUMNS), len(flat[0]), dtype=torch.float32, device=x.device)
    for part in token_slices(flat[0]):
        for column, product in zip(out, _products(*(t[part].float() for t in flat)), strict=True):
            column[part] = product
    return out.reshape(len(out), *shape[:-1]).movedim(0, -1)


def _products(x: Tensor, a: Tensor, m: Tensor, y: Tensor) -> list[Tensor]:
    """Return the nine sums of products.

    torch adds products up in pairs, which is ten times as exact at d_model 4,096 as its norm.
    """
    pairs = ((x, x), (a, a), (m, m), (x, a), (x, m), (a, m), (y, y))
    columns = [(left * right).sum(dim=-1) for left, right in pairs]
    return columns + [total.square().sum(dim=-1) for total in (x + a, x + m)]


def top_components(
    y: Float[Tensor, "*batch token d_model"],
) -> tuple[Float[Tensor, "*batch token rank"], Int[Tensor, "*batch token rank"]]:
    """Return the largest |components| of a stream with their sign, and their dimensions.

    Takes [..., token, d_model]; returns two of [..., token, min(4, d_model)], largest first.
    """
    rank = min(TOP_COMPONENTS, y.shape[-1])
    flat = y.reshape(-1, y.shape[-1])
    index = torch.empty(len(flat), rank, dtype=torch.int64, device=y.device)
    for part in token_slices(flat):
        index[part] = flat[part].abs().topk(rank, dim=-1).indices
    index = index.reshape(*y.shape[:-1], rank)
    return y.gather(-1, index).float(), index


def token_slices(tensor: Tensor) -> list[slice]:
    """Return slices of the first axis of [token, d_model] that are small enough for the device."""
    elements = CHUNK_ELEMENTS.get(tensor.device.type, CHUNK_ELEMENTS["cuda"])
    step = max(1, elements // tensor.shape[-1])
    return [slice(start, start + step) for start in range(0, len(tensor), step)]
