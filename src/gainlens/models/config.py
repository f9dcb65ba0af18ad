"""TODO: models.config."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

_CODED_THETA = 10_000.0
"""GPT-J and CodeGen write it into their code; their config holds rotary_dim and no base."""
_LARGEST_SIZE = 1e6
"""Dimensions of a head or a stream, beyond which a config is broken."""


class RopeConfig(NamedTuple):
    """What a config says of RoPE."""

    theta: float | None
    """None where the model has no RoPE"""
    scaling: dict[str, Any] | None
    """rope_scaling as in old configs; None where frequencies are not scaled"""
    max_position: int | None
    """longest prompt that the model was made for, tokens"""


_PARALLEL = ("gptj", "phi", "codegen", "cohere", "cohere2")
"""Model types whose attention and MLP always read the same input."""


def parallel_blocks(config: Mapping[str, Any]) -> bool:
    """Return True if a block's attention and MLP both read its input, by the Hugging Face config.

    Such blocks are GPT-NeoX's unless it says otherwise, Falcon's if it says so, and GPT-J's, Phi's,
    CodeGen's and Cohere's.
    """
    kind = config.get("model_type")
    if kind == "gpt_neox":
        return bool(config.get("use_parallel_residual", True))
    if kind == "falcon":
        return bool(config.get("parallel_attn") or config.get("new_decoder_architecture"))
    return kind in _PARALLEL


def rope_from_config(config: Any) -> RopeConfig:
    """theta, scaling and context of a Hugging Face config: object or dictionary, old or new style.

    Old style has `rope_theta` and `rope_scaling` (GPT-NeoX: `rotary_emb_base`), new style
    `rope_parameters`.  Where layers of different types have their own (Gemma 3), theta and scaling
    are those of `full_attention`, and the other types stay in scaling under their names.  A raw
    config.json may leave theta to its class; a config object, or its to_dict(), has it.
    """
    fields = rope_fields(config)
    limits = ("max_position_embeddings", "n_positions", "max_seq_len")
    context = next((int(positive(name, fields[name])) for name in limits if fields.get(name)), None)
    parameters = _parameters(fields)
    theta = parameters.pop("rope_theta", None)
    if theta is None:
        return RopeConfig(_CODED_THETA if fields.get("rotary_dim") else None, None, context)
    parameters.pop("partial_rotary_factor", None)
    kind = rope_type(parameters)
    if kind in ("llama3", "yarn", "longrope", "su"):  # what transformers does; Phi-3 keeps it above
        original = fields.get("original_max_position_embeddings") or context
        if original:
            parameters.setdefault("original_max_position_embeddings", original)
    plain = kind == "default" and not parameters.keys() - {"rope_type", "type"}
    return RopeConfig(positive("rope_theta", theta), None if plain else parameters, context)


def rope_fields(config: Any) -> Mapping[str, Any]:
    """The text model's fields of a config object or dictionary."""
    fields = config if isinstance(config, Mapping) else config.to_dict()
    fields = cast(Mapping[str, Any], fields)
    return fields.get("text_config") or fields


def _parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """One flat dictionary, new style, of the layers with full attention."""
    parameters: dict[str, Any] = dict(fields.get("rope_parameters") or {})
    by_type = {key: value for key, value in parameters.items() if isinstance(value, Mapping)}
    if by_type:
        chosen = "full_attention" if "full_attention" in by_type else next(iter(by_type))
        full = dict(cast(Mapping[str, Any], by_type.pop(chosen)))
        return full | {key: dict(value) for key, value in by_type.items()}
    if not parameters:
        theta = fields.get("rope_theta") or fields.get("rotary_emb_base")
        parameters = {"rope_theta": theta, **(fields.get("rope_scaling") or {})}
    return parameters


def rotary_dim_of(fields: Mapping[str, Any]) -> int | None:
    """Rotated dimensions of a head; None where the config does not say."""
    if fields.get("rotary_dim"):
        return _size(fields, "rotary_dim")
    head = next(
        (_size(fields, key) for key in ("qk_rope_head_dim", "head_dim") if fields.get(key)), 0
    )
    if not head and fields.get("hidden_size") and fields.get("num_attention_heads"):
        head = _size(fields, "hidden_size") // _size(fields, "num_attention_heads")
    share = _parameters(fields).get("partial_rotary_factor")
    share = share or fields.get("partial_rotary_factor") or fields.get("rotary_pct") or 1.0
    return int(head * positive("partial_rotary_factor", share, 1.0)) if head else None


def _size(fields: Mapping[str, Any], name: str) -> int:
    return int(positive(name, fields[name], _LARGEST_SIZE))


def rope_type(scaling: Mapping[str, Any]) -> str:
    """The kind of scaling, under its new name or its old one; `default` is none."""
    return scaling.get("rope_type") or scaling.get("type") or "default"


def positive(name: str, value: object, most: float = 1e30) -> float:
    """A number of a config that is above 0; ValueError, naming it, for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ValueError(
            f"the config gives {name} = {repr(value)[:60]}: a number above 0 and up to {most:g} is "
            "needed; correct config.json"
        )
    return float(value)


def setting(scaling: Mapping[str, Any], name: str) -> float:
    return positive(name, scaling[name])
