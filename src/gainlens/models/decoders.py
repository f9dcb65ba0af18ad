"""Where Hugging Face's decoders keep their parts, what they are called with, and what they add.

Names alone are looked up here.  What is not additive under them is refused at load.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

_LAYERS = ("layers", "h", "blocks")
_NORMS = ("norm", "final_layer_norm", "ln_f", "final_layernorm")
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "block_sparse_moe")
_PROJECTIONS = ("o_proj", "c_proj", "dense", "out_proj")
"""Llama and its family; GPT-2; GPT-NeoX and Phi; GPT-J."""


@dataclass(frozen=True)
class AttentionOut:
    """How the heads of one block reach the stream: W_O, its bias, and a norm after it."""

    weight: Tensor
    """W_O, [head * d_head, d_model]: the heads one after the other"""
    bias: Tensor | None
    """b_O, [d_model]; None where attention has none"""
    post_norm: nn.Module | None
    """an RMSNorm between W_O and the stream (Gemma 2 and 3, OLMo 2); None elsewhere"""


@dataclass(frozen=True)
class DecoderBlock:
    """One block's modules."""

    whole: nn.Module
    """called with the stream, returns the stream"""
    attention: nn.Module
    """its output is what attention adds"""
    mlp: nn.Module
    """its output is what the MLP adds"""
    projection: nn.Module | None
    """multiplies by W_O; its input is every head's z side by side; None where it is not known"""
    post_norm: nn.Module | None
    """between the projection and the stream"""


@dataclass(frozen=True)
class Decoder:
    """A causal LM's modules."""

    blocks: tuple[DecoderBlock, ...]
    final_norm: nn.Module
    positions: int | None
    """rows of a learned position embedding; None where positions are not learned"""


def tensor_of(value: Any) -> Tensor:
    """Attention modules return (output, weights)."""
    return value[0] if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownVariableType]


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The activation among the arguments of a call."""
    return tensor_of(args[0] if args else kwargs["hidden_states"])


def with_first(
    args: tuple[Any, ...], kwargs: dict[str, Any], tensor: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with another activation."""
    return ((tensor, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": tensor})


def decoder_of(model: Any) -> Decoder:
    """The parts of a Hugging Face causal LM; ValueError where one is not found."""
    base, name = model.base_model, type(model).__name__
    return Decoder(
        blocks=tuple(_block(layer, name) for layer in _child(base, _LAYERS, name)),
        final_norm=_child(base, _NORMS, name),
        positions=learned_positions(model),
    )


def learned_positions(model: Any) -> int | None:
    """Rows of a causal LM's table of positions (GPT-2's wpe); None where it has none."""
    table = getattr(model.base_model, "wpe", None)
    return None if table is None else int(table.weight.shape[0])


def projected(
    projection: Any, post_norm: nn.Module | None, module_of: str = "this block"
) -> AttentionOut:
    """W_O as [head * d_head, d_model] of a Linear or of GPT-2's transposed Conv1D."""
    projection = getattr(projection, "original_component", projection)
    if projection is None:
        raise ValueError(
            f"it is not known where {module_of} keeps attention's output projection (none of "
            f"{', '.join(_PROJECTIONS)}), so heads cannot be told apart; capture without heads"
        )
    weight: Tensor = projection.weight
    if weight.is_meta:
        raise ValueError(
            f"attention's output projection of {module_of} is offloaded, so heads cannot be "
            "projected; capture without heads, or load the model where it fits"
        )
    transposed = isinstance(projection, nn.Linear)
    return AttentionOut(weight.T if transposed else weight, projection.bias, post_norm)


def _block(layer: Any, model_name: str) -> DecoderBlock:
    """What is added to the stream: after the post-norms where the block has them."""
    attention = _child(layer, _ATTENTION, model_name)
    projection = next((name for name in _PROJECTIONS if hasattr(attention, name)), None)
    post_norm = post_norm_of(layer)
    return DecoderBlock(
        whole=layer,
        attention=post_norm or attention,
        mlp=layer.post_feedforward_layernorm if post_norm else _child(layer, _MLP, model_name),
        projection=None if projection is None else getattr(attention, projection),
        post_norm=post_norm,
    )


def post_norm_of(layer: Any) -> nn.Module | None:
    """The norm between attention and the stream; Llama has one of that name before its MLP."""
    both = hasattr(layer, "post_feedforward_layernorm")
    return layer.post_attention_layernorm if both else None


def _child(module: Any, names: Sequence[str], model_name: str) -> Any:
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)
    raise ValueError(
        f"the native back end does not know where {model_name} keeps its {names[0]}: a "
        f"{type(module).__name__} has none of {', '.join(names)}; try --backend bridge"
    )
