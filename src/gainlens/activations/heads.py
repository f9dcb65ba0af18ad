"""Project what each attention head writes onto the stream, without [token, head, d_model].

A head with output z writes z W_O.  Its inner product with a vector v of the stream is <z, W_O v>,
so v is multiplied by W_O once for all heads.  Its squared norm is z G z with G = W_O W_O^T.  An
RMSNorm after W_O (Gemma 2 and 3, OLMo 2) scales the summed heads by its weight g and by one number
c per token, so each head adds c g * z W_O.  We get c from attn_out.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from gainlens.models.decoders import AttentionOut

UNEXPLAINED = 0.02
"""Largest share of the writes' norms by which the sum of the heads may miss attn_out.  bfloat16
rounds to 2^-8; the check must catch a factor or a norm that we do not know of."""
_SLICE_ELEMENTS = 1 << 22
"""Elements of an activation that are converted to float32 at a time: 16 MiB."""


class HeadNumbers(NamedTuple):
    """Hold the numbers of one block's heads at every token."""

    columns: Float32[Tensor, "*batch token head head_column"]
    """in the order of vocabulary.HEAD_COLUMNS; squared L2 norm"""
    unexplained: Float32[Tensor, "*batch token"]
    """|sum of heads + b_O - attn_out| over the sum of all their norms; 0 up to rounding"""


def project_heads(
    z: Float[Tensor, "*batch token head d_head"],
    x: Float[Tensor, "*batch token d_model"],
    a: Float[Tensor, "*batch token d_model"],
    y: Float[Tensor, "*batch token d_model"],
    out: AttentionOut,
) -> HeadNumbers:
    """Return the inner products of each head's write with x and y, and its squared norm.

    z is the output of the heads before W_O; x, a and y are resid_pre, attn_out and resid_post of
    the same block, of any floating dtype.  Accumulates in float32, in slices of tokens.
    """
    *batch, heads, d_head = z.shape
    weight, bias = _written(out, a)
    per_head = weight.unflatten(0, (heads, d_head))
    gram = per_head @ per_head.mT
    streams = [tensor.to(z.device).reshape(-1, x.shape[-1]) for tensor in (x, a, y)]
    columns: list[Tensor] = []
    unexplained: list[Tensor] = []
    step = max(1, _SLICE_ELEMENTS // x.shape[-1])
    slices = (tensor.split(step) for tensor in (z.reshape(-1, heads, d_head), *streams))
    for parts in zip(*slices, strict=True):
        z32, x32, a32, y32 = (part.float() for part in parts)
        on_x, on_y = (_onto(z32, stream @ weight.T) for stream in (x32, y32))
        squared = (torch.einsum("thd,hde->the", z32, gram) * z32).sum(-1).clamp_min(0)
        whole = z32.flatten(-2) @ weight + bias
        c = torch.ones_like(whole[:, :1]) if out.post_norm is None else _scale(whole, a32)
        columns.append(torch.stack((c * on_x, c * on_y, c.square() * squared), dim=-1))
        sizes = a32.norm(dim=-1) + (c * squared.sqrt()).sum(-1)
        missed = (c * whole - a32).norm(dim=-1)
        unexplained.append(torch.where(sizes > 0, missed / sizes, 0.0))
    return HeadNumbers(
        torch.cat(columns).reshape(*batch, heads, -1), torch.cat(unexplained).reshape(batch)
    )


def _written(out: AttentionOut, a: Tensor) -> tuple[Tensor, Tensor]:
    """Return W_O and b_O in float32, times the weight of a norm after them."""
    weight = out.weight.float()
    bias = weight.new_zeros(weight.shape[1]) if out.bias is None else out.bias.float()
    if out.post_norm is None:
        return weight, bias
    gain = _norm_weight(out.post_norm, a)
    return weight * gain, bias * gain


def _norm_weight(norm: nn.Module, like: Tensor) -> Tensor:
    """Return the weight of an RMSNorm, up to a factor that c absorbs: its output on ones."""
    plain = getattr(norm, "original_component", norm)
    return plain(torch.ones_like(like.reshape(-1, like.shape[-1])[:1]))[0].float()


def _onto(z: Tensor, projected: Tensor) -> Tensor:
    """Return the inner products of z [token, head, d_head] with a stream through W_O."""
    return (z * projected.unflatten(-1, z.shape[1:])).sum(-1)


def _scale(whole: Tensor, a: Tensor) -> Tensor:
    """Return c with a = c whole, [token, 1]; 0 if nothing is written."""
    squared = whole.square().sum(-1, keepdim=True)
    return torch.where(squared > 0, (whole * a).sum(-1, keepdim=True) / squared, 0.0)
