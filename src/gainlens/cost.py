"""What a capture costs, before it is run: operations, bytes moved and memory, from a config alone.

    from gainlens.cost import cost

    one = cost(config, tokens=131_072)
    one.flops / 5.4e14                   # seconds on a device that does 540 TFLOP/s
    1e6 * cost(config, 1024).flops       # a million prompts of 1,024 tokens

A product-and-sum counts as two operations (FLOPs).  Left out are norms, RoPE, softmax and
activation functions: some 10 d_model operations a token and block, below 0.1 % of a block's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from gainlens.axes import GRAM_COLUMNS, TOP_COMPONENTS

_UNGATED = (
    "gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "bloom", "falcon", "phi", "starcoder2", "codegen",
)  # fmt: skip
"""model_types whose MLP has two matrices; the others' has a gate beside them."""
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Cost:
    """One forward pass without logits over one prompt, and the capture beside it."""

    tokens: int
    projection_flops: int
    """the four matrices of attention, FLOPs"""
    attention_flops: int
    """scores and values over each query's own past, FLOPs: T (T + 1) / 2 pairs, so it grows with
    the square of the prompt.  A kernel that masks, and skips nothing, does twice that"""
    mlp_flops: int
    capture_flops: int
    """nine products, two sums and four searches over d_model, a token and block"""
    unembed_flops: int
    """logits, FLOPs; made for a loss and for no capture, so in no sum"""
    weight_bytes: int
    """the blocks' matrices, read once a pass"""
    activation_bytes: int
    """least traffic of activations: each matrix, sum and norm reads its inputs and writes its
    output once"""
    capture_bytes: int
    """x, a, m and y read once a block, and the numbers written"""
    peak_bytes: int
    """memory above the weights while an MLP runs: embeddings, x, x + a, the normed stream and three
    d_mlp wide; blocks of Llama's kind, an attention that is linear in memory"""
    captured_peak_bytes: int
    """the same while a capture runs: a as well.  The numbers lie in main memory"""
    kept_bytes: int
    """what the Capture holds in the end, float32 and int32 a block, in main memory"""

    @property
    def forward_flops(self) -> int:
        """The pass alone."""
        return self.projection_flops + self.attention_flops + self.mlp_flops

    @property
    def flops(self) -> int:
        """The pass and the capture."""
        return self.forward_flops + self.capture_flops

    @property
    def forward_bytes(self) -> int:
        """Least traffic of the pass alone."""
        return self.weight_bytes + self.activation_bytes

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """Floor of the time at these rates: arithmetic or traffic, whichever takes longer."""
        traffic = self.forward_bytes + self.capture_bytes
        return max(self.flops / flops_per_second, traffic / bytes_per_second)


def cost(config: Any, tokens: int, bytes_per_number: int = 2) -> Cost:
    """Operations, traffic and memory of one prompt of so many tokens.

    config: a Hugging Face config, object or dictionary, of a decoder with dense MLPs (sliding
    windows are counted as full attention); bytes_per_number: 2 for bfloat16 and float16, 4 for
    float32.  Prompts of a batch add up, but for the weights, which are read once.  ValueError for
    a mixture of experts, and where the config lacks a size or tokens is not positive.
    """
    if tokens < 1:
        raise ValueError(f"a prompt of {tokens} tokens was given; a cost needs 1 or more")
    shape = _shape(config)
    d, d_mlp, layers = shape.d_model, shape.d_mlp, shape.layers
    queries, keys = shape.heads * shape.d_head, shape.kv_heads * shape.d_head
    matrices = 3 if shape.gated else 2
    attention_weights = 2 * d * queries + 2 * d * keys
    mlp_weights = matrices * d * d_mlp
    per_token = (
        5 * d + queries + 2 * keys  # normed stream to q, k and v, and the norm before
        + 2 * queries + 2 * keys + queries + d  # attention, its output matrix
        + (4 * d + 2 * d)  # the sum after it, and the norm before the MLP
        + (matrices - 1) * (d + d_mlp) + (matrices * d_mlp if shape.gated else 0)
        + d_mlp + d + 3 * d  # down, and the sum after it
    )  # fmt: skip
    columns, rank = len(GRAM_COLUMNS), min(TOP_COMPONENTS, d)
    numbers = tokens * layers * (4 * columns + 8 * rank)
    stream = tokens * bytes_per_number
    peak = stream * (4 * d + 3 * d_mlp)
    return Cost(
        tokens=tokens,
        projection_flops=2 * tokens * layers * attention_weights,
        attention_flops=4 * queries * layers * (tokens * (tokens + 1) // 2),
        mlp_flops=2 * tokens * layers * mlp_weights,
        capture_flops=tokens * layers * d * (2 * columns + 2 + rank),
        unembed_flops=2 * tokens * d * shape.d_vocab,
        weight_bytes=bytes_per_number * layers * (attention_weights + mlp_weights),
        activation_bytes=stream * layers * per_token,
        capture_bytes=stream * layers * 4 * d + numbers,
        peak_bytes=peak,
        captured_peak_bytes=peak + stream * d,
        kept_bytes=tokens * (layers * (4 * columns + 8 * rank) + 4 * 8),
    )


@dataclass(frozen=True)
class _Shape:
    d_model: int
    layers: int
    heads: int
    kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    gated: bool


def _shape(config: Any) -> _Shape:
    fields = cast(
        Mapping[str, Any],
        config if isinstance(config, Mapping) else config.get_text_config().to_dict(),
    )
    fields = cast(Mapping[str, Any], fields.get("text_config") or fields)
    if any(fields.get(name) for name in _EXPERTS):
        raise ValueError(
            f"a {fields.get('model_type')} is a mixture of experts, whose cost depends on the "
            "routing; the cost model knows dense MLPs alone"
        )
    d_model, heads = (
        _size(fields, "hidden_size", "n_embd"),
        _size(fields, "num_attention_heads", "n_head"),
    )
    return _Shape(
        d_model=d_model,
        layers=_size(fields, "num_hidden_layers", "n_layer"),
        heads=heads,
        kv_heads=fields.get("num_key_value_heads") or heads,
        d_head=fields.get("head_dim") or d_model // heads,
        d_mlp=fields.get("intermediate_size") or fields.get("n_inner") or 4 * d_model,
        d_vocab=_size(fields, "vocab_size"),
        gated=fields.get("model_type") not in _UNGATED,
    )


def _size(fields: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if fields.get(name):
            return int(fields[name])
    raise ValueError(
        f"the config names no {names[0]}, so nothing can be said of its cost; give the config of a "
        "causal language model"
    )
