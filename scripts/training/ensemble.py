"""Many small Llamas trained at once: every weight carries a leading replica axis.

One replica of d_model 128 cannot fill a GPU; eight side by side, their linear layers as batched
matrix products, do. The shape and the arithmetic are those of Hugging Face's LlamaForCausalLM, so
that a replica's weights are a checkpoint (export.py; tested to 1e-5 in float32).

Tokens lie flat, [replica, token, d_model], whatever the context is: only attention cuts them into
sequences, by a `Layout`. So the compiled pieces serve every context, and a step may mix sequences
of several lengths.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.layout import Layout, Segment
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

    @property
    def matrix_weights(self) -> int:
        """Weights that a token is multiplied by: all but the embedding and the norms."""
        per_block = 4 * self.d_model**2 + 3 * self.d_model * self.d_ff
        return self.blocks * per_block + self.vocabulary * self.d_model

    @property
    def weights(self) -> int:
        """All weights."""
        norms = (2 * self.blocks + 1) * self.d_model
        return self.matrix_weights + self.vocabulary * self.d_model + norms


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
    """One block's weights, [replica, in, out], in the dtype of the computation; the norms' scales
    are multiplied into the matrices that read the normed stream."""

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


class Rope(NamedTuple):
    """cos and sin of every position's rotations, [replica, position, rotated pair], float32."""

    cos: Tensor
    sin: Tensor


def initial(shape: Shape, seed: int) -> Weights:
    """Draw one replica's weights before training, no replica axis; a seed's cells share them."""
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
    """Put replicas side by side on a new leading axis."""
    return Weights(*(torch.stack(tensors) for tensors in zip(*replicas, strict=True)))


def scaled(scale: Tensor, matrix: Tensor, compute: torch.dtype) -> Tensor:
    """Multiply a norm's scale into the matrix that reads the normed stream, and cast.

    The product is the same; the scale's gradient is then a sum over a matrix, not over all tokens.
    """
    return (scale[..., None] * matrix).to(compute)


def blocks(weights: Weights, compute: torch.dtype) -> list[Block]:
    """Return the blocks' weights, cast to the dtype of the computation."""
    matrices = (
        scaled(weights.norm_attention, weights.qkv, compute),
        weights.out.to(compute),
        scaled(weights.norm_mlp, weights.gate_up, compute),
        weights.down.to(compute),
    )
    return [Block(*parts) for parts in zip(*(m.unbind(1) for m in matrices), strict=True)]


def rope(thetas: Tensor, length: int, d_head: int) -> Rope:
    """Tabulate the rotations of the first `length` positions, a base per replica."""
    exponent = torch.arange(0, d_head, 2, device=thetas.device) / d_head
    frequency = 1.0 / thetas.float()[:, None] ** exponent
    angle = torch.arange(length, device=thetas.device)[None, :, None] * frequency[:, None, :]
    return Rope(angle.cos(), angle.sin())


def normed(x: Tensor, eps: float) -> Tensor:
    """Divide x [..., d_model] by its root mean square; the scale stands in the next matrix."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def rotate(x: Tensor, rotation: Rope, positions: Tensor) -> Tensor:
    """Turn x [replica, token, head, d_head] by its positions, float32 inside.

    A pair lies half a head apart, as in Hugging Face's layout. Flipping the halves, rather than
    cutting and joining them, keeps the gradient in one kernel.
    """
    cos, sin = (table[:, positions][:, :, None, None] for table in rotation)
    halves = x.float().unflatten(-1, (2, -1))
    sign = 2.0 * torch.arange(2, device=x.device)[:, None] - 1
    return (halves * cos + halves.flip(-2) * (sin * sign)).flatten(-2).to(x.dtype)


def enter_attention(
    x: Tensor, block: Block, rotation: Rope, positions: Tensor, shape: Shape
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute queries, keys and values [replica, token, head, d_head] of a stream."""
    parts = torch.bmm(normed(x, shape.eps).to(block.qkv.dtype), block.qkv)
    query, key, value = parts.unflatten(-1, (3, shape.heads, shape.d_head)).unbind(2)
    query, key = rotate(query, rotation, positions), rotate(key, rotation, positions)
    return query, key, value.contiguous()  # a view's gradient would be a tensor of all three


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """Mix values within each sequence, causally: [replica, token, d_model]."""
    mixed = [_attend_segment(query, key, value, part) for part in layout.segments]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)


def _attend_segment(query: Tensor, key: Tensor, value: Tensor, part: Segment) -> Tensor:
    def folded(tensor: Tensor) -> Tensor:
        own = tensor[:, part.first : part.first + part.tokens]
        return own.reshape(-1, part.context, *tensor.shape[2:]).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(
        folded(query), folded(key), folded(value), is_causal=True
    )
    return mixed.transpose(1, 2).reshape(len(query), part.tokens, -1)


def mlp_write(x: Tensor, block: Block, shape: Shape) -> Tensor:
    """Compute what the MLP adds to the stream, float32."""
    read = normed(x, shape.eps).to(block.gate_up.dtype)
    gate, up = torch.bmm(read, block.gate_up).chunk(2, dim=-1)
    return torch.bmm(F.silu(gate) * up, block.down).float()


def leave_attention(x: Tensor, mixed: Tensor, block: Block, shape: Shape) -> Tensor:
    """Add attention's and the MLP's write to the stream.

    The stream stays float32 under bfloat16 matrix products: beside a massive activation bfloat16
    would round the small writes away, and gains are what these models are for.
    """
    x = x + torch.bmm(mixed, block.out).float()
    return x + mlp_write(x, block, shape)


def between(
    x: Tensor,
    mixed: Tensor,
    block: Block,
    following: Block,
    rotation: Rope,
    positions: Tensor,
    shape: Shape,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Leave one block's attention and enter the next one's: one piece, so that it is fused."""
    x = leave_attention(x, mixed, block, shape)
    return x, *enter_attention(x, following, rotation, positions, shape)


def last_losses(
    x: Tensor,
    mixed: Tensor,
    block: Block,
    unembed: Tensor,
    targets: Tensor,
    shape: Shape,
) -> Tensor:
    """Leave the last block and compute its stream's cross-entropy, nats, [replica, token]."""
    return cross_entropy(leave_attention(x, mixed, block, shape), unembed, targets, shape)


def cross_entropy(x: Tensor, unembed: Tensor, targets: Tensor, shape: Shape) -> Tensor:
    """Compute the cross-entropy in float32 of logits in unembed's dtype, nats, [replica, token]."""
    scores = torch.bmm(normed(x, shape.eps).to(unembed.dtype), unembed).float()
    # a sum under a mask, not a gather: its gradient needs no second tensor of the logits' size
    wanted = torch.arange(scores.shape[-1], device=x.device) == targets[..., None]
    return scores.logsumexp(-1) - torch.where(wanted, scores, 0.0).sum(-1)


def embed(weights: Weights, tokens: Tensor) -> Tensor:
    """Look tokens [replica, token] up: stream [replica, token, d_model]."""
    replicas, vocabulary, _ = weights.embed.shape
    offset = torch.arange(replicas, device=tokens.device)[:, None] * vocabulary
    return F.embedding(tokens + offset, weights.embed.flatten(0, 1))


class Pieces(NamedTuple):
    """The functions that a forward pass is made of, compiled or not."""

    enter: Callable[..., tuple[Tensor, Tensor, Tensor]] = enter_attention
    between: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = between
    last: Callable[..., Tensor] = last_losses

    @classmethod
    def compiled(cls) -> "Pieces":
        """Return pieces that torch.compile fuses; one set of kernels per shape of the tokens."""
        return cls(*(torch.compile(piece, dynamic=False) for piece in cls()))


def losses(
    weights: Weights,
    tokens: Tensor,
    targets: Tensor,
    layout: Layout,
    positions: Tensor,
    rotation: Rope,
    shape: Shape,
    compute: torch.dtype,
    pieces: Pieces | None = None,
) -> Tensor:
    """Compute the loss of every token [replica, token], nats."""
    run = pieces or Pieces()
    parts = blocks(weights, compute)
    x = embed(weights, tokens)
    heads = run.enter(x, parts[0], rotation, positions, shape)
    for block, following in pairwise(parts):
        mixed = attend(*heads, layout)
        x, *heads = run.between(x, mixed, block, following, rotation, positions, shape)
    mixed = attend(*heads, layout)
    unembed = scaled(weights.norm_final, weights.unembed, compute)
    return run.last(x, mixed, parts[-1], unembed, targets, shape)


class Stream(NamedTuple):
    """One block on tokens [replica, sequence, token], float32."""

    x: Tensor
    """what enters, [replica, sequence, token, d_model]"""
    a: Tensor
    """what attention adds"""
    m: Tensor
    """what the MLP adds"""
    y: Tensor
    """what leaves"""
    query: Tensor
    """[replica, sequence, token, head, d_head], rotated"""
    key: Tensor


def streams(weights: Weights, tokens: Tensor, thetas: Tensor, shape: Shape) -> Iterator[Stream]:
    """Yield every block's stream on tokens [replica, sequence, token], float32 arithmetic."""
    sequences, length = tokens.shape[1:]
    layout = Layout((Segment(0, sequences * length, length),))
    positions = layout.positions.to(tokens.device)
    rotation = rope(thetas, length, shape.d_head)

    def apart(tensor: Tensor) -> Tensor:
        return tensor.unflatten(1, (sequences, length))

    x = embed(weights, tokens.flatten(1))
    for block in blocks(weights, torch.float32):
        query, key, value = enter_attention(x, block, rotation, positions, shape)
        a = torch.bmm(attend(query, key, value, layout), block.out)
        m = mlp_write(x + a, block, shape)
        y = x + a + m
        yield Stream(*(apart(tensor) for tensor in (x, a, m, y, query, key)))
        x = y
