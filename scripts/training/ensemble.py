"""Many small Llamas trained at once: every weight carries a leading replica axis.

One replica of d_model 128 cannot fill a GPU; twelve side by side, their linear layers as batched
matrix products, do. The shape and the arithmetic are those of Hugging Face's LlamaForCausalLM, so
that a replica's weights are a checkpoint (export.py; tested to 1e-5 in float32).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.tokens import VOCABULARY

INITIAL_STD = 0.02  # Hugging Face's initializer_range, for every matrix


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes; the default has 2.65M parameters."""

    blocks: int = 8
    d_model: int = 128
    heads: int = 4
    d_ff: int = 352
    vocabulary: int = VOCABULARY
    eps: float = 1e-5

    @property
    def d_head(self) -> int:
        return self.d_model // self.heads


class Weights(NamedTuple):
    """All weights, [replica, (block,) in, out], for `x @ w`; fused where inputs agree."""

    embed: Tensor
    unembed: Tensor
    norm_final: Tensor
    norm_attention: Tensor
    norm_mlp: Tensor
    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


class Block(NamedTuple):
    """One block's weights, [replica, in, out], in the dtype of the computation."""

    norm_attention: Tensor
    norm_mlp: Tensor
    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


class Rope(NamedTuple):
    """cos and sin, [replica, 1, token, 1, d_head]."""

    cos: Tensor
    sin: Tensor


def initial(shape: Shape, seed: int) -> Weights:
    """One replica's weights before training, no replica axis; a seed's cells share them."""
    generator = torch.Generator().manual_seed(seed)
    n, d, f, v = shape.blocks, shape.d_model, shape.d_ff, shape.vocabulary

    def matrix(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator) * INITIAL_STD

    return Weights(
        embed=matrix(v, d),
        unembed=matrix(d, v),
        norm_final=torch.ones(d),
        norm_attention=torch.ones(n, d),
        norm_mlp=torch.ones(n, d),
        qkv=matrix(n, d, 3 * d),
        out=matrix(n, d, d),
        gate_up=matrix(n, d, 2 * f),
        down=matrix(n, f, d),
    )


def stack(replicas: list[Weights]) -> Weights:
    return Weights(*(torch.stack(tensors) for tensors in zip(*replicas, strict=True)))


def blocks(weights: Weights, compute: torch.dtype) -> list[Block]:
    """The blocks' weights, matrices cast to the dtype of the computation."""
    norms = (weights.norm_attention.unbind(1), weights.norm_mlp.unbind(1))
    matrices = (weights.qkv, weights.out, weights.gate_up, weights.down)
    cast = tuple(matrix.to(compute).unbind(1) for matrix in matrices)
    return [Block(*parts) for parts in zip(*norms, *cast, strict=True)]


def rope(thetas: Tensor, length: int, d_head: int) -> Rope:
    """Rotations of the first `length` positions, a base per replica, in Hugging Face's layout."""
    exponent = torch.arange(0, d_head, 2, device=thetas.device) / d_head
    frequency = 1.0 / thetas.float()[:, None] ** exponent
    angle = torch.arange(length, device=thetas.device)[None, :, None] * frequency[:, None, :]
    angle = torch.cat((angle, angle), dim=-1)[:, None, :, None, :]
    return Rope(angle.cos(), angle.sin())


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x [replica, sequence, token, d_model], scale [replica, d_model]."""
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return normed * scale[:, None, None, :]


def linear(x: Tensor, matrix: Tensor) -> Tensor:
    """[replica, sequence, token, in] by [replica, in, out]."""
    return torch.bmm(x.flatten(1, 2), matrix).unflatten(1, x.shape[1:3])


def rotate(x: Tensor, rotation: Rope) -> Tensor:
    """x [replica, sequence, token, head, d_head], float32 inside."""
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (wide * rotation.cos + turned * rotation.sin).to(x.dtype)


def attention_write(x: Tensor, block: Block, rotation: Rope, shape: Shape) -> Tensor:
    """What attention adds to the stream, float32."""
    replicas, count, length, _ = x.shape
    normed = rms_norm(x, block.norm_attention, shape.eps).to(block.qkv.dtype)
    parts = linear(normed, block.qkv).unflatten(-1, (3, shape.heads, shape.d_head))
    query, key, value = parts.unbind(3)
    query, key = rotate(query, rotation), rotate(key, rotation)
    folded = [part.flatten(0, 1).transpose(1, 2) for part in (query, key, value)]
    mixed = F.scaled_dot_product_attention(*folded, is_causal=True).transpose(1, 2)
    mixed = mixed.reshape(replicas, count, length, shape.d_model)
    return linear(mixed, block.out).float()


def mlp_write(x: Tensor, block: Block, shape: Shape) -> Tensor:
    """What the MLP adds to the stream, float32."""
    normed = rms_norm(x, block.norm_mlp, shape.eps).to(block.gate_up.dtype)
    gate, up = linear(normed, block.gate_up).chunk(2, dim=-1)
    return linear(F.silu(gate) * up, block.down).float()


def block_forward(x: Tensor, block: Block, rotation: Rope, shape: Shape) -> Tensor:
    """The stream stays float32 under bfloat16 matrix products: beside a massive activation bfloat16
    would round the small writes away, and gains are what these models are for."""
    x = x + attention_write(x, block, rotation, shape)
    return x + mlp_write(x, block, shape)


def embed(weights: Weights, tokens: Tensor) -> Tensor:
    """tokens [replica, sequence, token] -> stream [replica, sequence, token, d_model]."""
    replicas, vocabulary, _ = weights.embed.shape
    offset = torch.arange(replicas, device=tokens.device)[:, None, None] * vocabulary
    return F.embedding(tokens + offset, weights.embed.flatten(0, 1))


def logits(x: Tensor, weights: Weights, shape: Shape, compute: torch.dtype) -> Tensor:
    """[replica, sequence, token, vocabulary] in `compute`."""
    normed = rms_norm(x, weights.norm_final, shape.eps).to(compute)
    return linear(normed, weights.unembed.to(compute))


def token_losses(
    x: Tensor, weights: Weights, targets: Tensor, shape: Shape, compute: torch.dtype
) -> Tensor:
    """Cross-entropy of the last stream, nats, shaped as `targets`."""
    scores = logits(x, weights, shape, compute).float()
    losses = F.cross_entropy(scores.flatten(0, 2), targets.flatten(), reduction="none")
    return losses.view_as(targets)


def streams(
    weights: Weights, tokens: Tensor, thetas: Tensor, shape: Shape
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Per block: what enters, what attention adds, what the MLP adds, what leaves; float32."""
    rotation = rope(thetas, tokens.shape[-1], shape.d_head)
    x = embed(weights, tokens)
    for block in blocks(weights, torch.float32):
        a = attention_write(x, block, rotation, shape)
        m = mlp_write(x + a, block, shape)
        y = x + a + m
        yield x, a, m, y
        x = y
