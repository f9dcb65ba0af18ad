"""The Gram kernel: the four vectors of a block -> nine numbers a token.

At each block a token leaves behind the inner products of x = resid_pre, a = attn_out and
m = mlp_out, the squared norms of y = resid_post, x + a and x + m, and the largest components of y.
Everything else that gainlens says of a block is algebra on these numbers (gain.py).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gainlens.axes import GRAM_COLUMNS, TOP_COMPONENTS

CHUNK_ELEMENTS = 1 << 18
"""Products of this many elements (1 MiB in float32) stay in cache; measured on CPU."""


def _products(x: Tensor, a: Tensor, m: Tensor, y: Tensor) -> Tensor:
    x, a, m, y = (tensor.float() for tensor in (x, a, m, y))
    pairs = ((x, x), (a, a), (m, m), (x, a), (x, m), (a, m), (y, y))
    columns = [(left * right).sum(dim=-1) for left, right in pairs]
    columns += [total.square().sum(dim=-1) for total in (x + a, x + m)]
    return torch.stack(columns, dim=-1)


def gram_columns(
    x: Float[Tensor, "*batch token d_model"],
    a: Float[Tensor, "*batch token d_model"],
    m: Float[Tensor, "*batch token d_model"],
    y: Float[Tensor, "*batch token d_model"],
) -> Float[Tensor, "*batch token column"]:
    """Inner products of one block, in the order of axes.GRAM_COLUMNS.

    Shapes: four activations [..., token, d_model] of any floating dtype -> [..., token, 9],
    float32, accumulated in float32; units: squared L2 norm.  Work is done in slices of tokens, so
    that the temporary copies do not grow with the prompt.
    """
    shape = x.shape
    flat = [tensor.reshape(-1, shape[-1]) for tensor in (x, a, m, y)]
    out = torch.empty(flat[0].shape[0], len(GRAM_COLUMNS), dtype=torch.float32, device=x.device)
    for part in token_slices(flat[0]):
        out[part] = _products(*(tensor[part] for tensor in flat))
    return out.reshape(*shape[:-1], len(GRAM_COLUMNS))


def top_components(
    y: Float[Tensor, "*batch token d_model"],
) -> tuple[Float[Tensor, "*batch token rank"], Int[Tensor, "*batch token rank"]]:
    """The largest |components| of a stream with their sign, largest first, and their dimensions.

    Shape: [..., token, d_model] -> two of [..., token, min(4, d_model)].
    """
    rank = min(TOP_COMPONENTS, y.shape[-1])
    index = y.abs().topk(rank, dim=-1).indices
    return y.gather(-1, index).float(), index


def token_slices(tensor: Tensor) -> list[slice]:
    """Slices of the first axis of [token, d_model] small enough to stay in cache."""
    step = max(1, CHUNK_ELEMENTS // tensor.shape[-1])
    return [slice(start, start + step) for start in range(0, len(tensor), step)]
