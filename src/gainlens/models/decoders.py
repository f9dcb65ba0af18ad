"""Find the parts of Hugging Face's decoders by name.

If the blocks are not additive under these names, `models.probing` looks for what they add.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gainlens.models.refusals import Refusal

_LAYERS = ("layers", "h", "blocks")
_NORMS = (
    "norm", "final_layer_norm", "ln_f", "final_layernorm", "norm_f", "final_norm", "layer_norm",
)  # fmt: skip
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "block_sparse_moe")
_PROJECTIONS = ("o_proj", "c_proj", "dense", "out_proj")
"""Llama and its family; GPT-2; GPT-NeoX and Phi; GPT-J."""


@dataclass(frozen=True)
class AttentionOut:
    """Hold how the heads of one block reach the stream: W_O, its bias, and a norm after it."""

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

    whole: nn.Module
    """called with token ids, returns the last hidden state"""
    blocks: tuple[DecoderBlock, ...]
    final_norm: nn.Module
    positions: int | None
    """rows of a learned position embedding; None if positions are not learned"""


def tensor_of(value: Any) -> Tensor:
    """Return the tensor of an output: attention modules return (output, weights)."""
    return value[0] if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownVariableType]


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the activation among the arguments of a call."""
    return tensor_of(args[0] if args else kwargs["hidden_states"])


def with_first(
    args: tuple[Any, ...], kwargs: dict[str, Any], tensor: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with another activation."""
    return ((tensor, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": tensor})


def decoder_of(model: Any, writers: tuple[str, str] | None = None) -> Decoder:
    """Return the parts of a Hugging Face causal LM; raise ValueError if one is not found.

    writers: names within a block of the modules whose outputs attention and the MLP add; None: by
    the usual names.
    """
    base, name = base_of(model), type(model).__name__
    return Decoder(
        whole=base,
        blocks=tuple(_block(layer, name, writers) for layer in _child(base, _LAYERS, name)),
        final_norm=_child(base, _NORMS, name),
        positions=learned_positions(model),
    )


def base_of(model: Any) -> Any:
    """Return the module that holds a causal LM's blocks; of a multimodal model the text decoder."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    candidates = (model.base_model, decoder, getattr(model, "model", None))
    holders = (part for part in candidates if _first(part, _LAYERS) is not None)
    return next(holders, model.base_model)


def learned_positions(model: Any) -> int | None:
    """Return the rows of a causal LM's table of positions (GPT-2's wpe); None if it has none."""
    base = base_of(model)
    wpe, table = getattr(base, "wpe", None), getattr(base, "embed_positions", None)
    if wpe is None and isinstance(table, nn.Embedding):
        return int(table.weight.shape[0]) - int(getattr(table, "offset", 0))
    return None if wpe is None else int(wpe.weight.shape[0])


def projected(
    projection: Any, post_norm: nn.Module | None, module_of: str = "this block"
) -> AttentionOut:
    """Return W_O as [head * d_head, d_model], of a Linear or of GPT-2's transposed Conv1D."""
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


def _block(layer: Any, model_name: str, writers: tuple[str, str] | None) -> DecoderBlock:
    """Return a block's modules: what is added to the stream is what the post-norms return."""
    attention = _first(layer, _ATTENTION)
    projection = _first(attention, _PROJECTIONS)
    if writers is not None:
        added = [layer.get_submodule(name) for name in writers]
        after = None if attention is None or added[0] is attention else added[0]
        return DecoderBlock(layer, added[0], added[1], projection, after)
    post_norm = post_norm_of(layer)
    return DecoderBlock(
        whole=layer,
        attention=post_norm or _child(layer, _ATTENTION, model_name),
        mlp=layer.post_feedforward_layernorm if post_norm else _child(layer, _MLP, model_name),
        projection=projection,
        post_norm=post_norm,
    )


def post_norm_of(layer: Any) -> nn.Module | None:
    """Return the norm between attention and the stream; Llama has one so named before its MLP."""
    both = getattr(layer, "post_feedforward_layernorm", None) is not None
    return layer.post_attention_layernorm if both else None


def _first(module: Any, names: Sequence[str]) -> Any:
    """Return the first of the named attributes that is there and not None."""
    found = (getattr(module, name, None) for name in names)
    return next((part for part in found if part is not None), None)


def _child(module: Any, names: Sequence[str], model_name: str) -> Any:
    part = _first(module, names)
    if part is not None:
        return part
    raise Refusal(
        f"the native back end does not know where {model_name} keeps its {names[0]}: a "
        f"{type(module).__name__} has none of {', '.join(names)}"
    )
